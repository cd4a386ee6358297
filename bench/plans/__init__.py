"""The evaluation of plans: laws, methods, scores and report; run by `python -m bench.plan`."""
