"""Benchmarks and evaluations: `python -m bench.NAME --out DIR`."""
