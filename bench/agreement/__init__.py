"""Agreement with other projects' code: `python -m bench.agreement --out DIR`."""
