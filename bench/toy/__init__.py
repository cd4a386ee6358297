"""Starts on laws that are known exactly; run by `python -m bench.toy`."""
