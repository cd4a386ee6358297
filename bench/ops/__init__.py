"""The ops beside a copy of the same bytes, plain torch and the usual libraries; run by `python -m bench.ops`."""
