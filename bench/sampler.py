"""A sampler's own time beside its peers': `python -m bench.sampler --out DIR`.

Whole runs with a network that costs nothing (see `bench/bench_sampler.py`), single-threaded and on all threads of
torch; times are given per network call, `copies` in copies of the state. Peers that are not installed are listed with
the reason: `headstart/bench/peers.py` says how to get them. Takes about two minutes on two idle cores; `--quick`: small
states, a few seconds, figures of the host's time rather than of memory. Results: a table, and `sampler.json` with
every repetition.
"""

from __future__ import annotations

from bench.bench_sampler import SHAPE, STEPS, all_cases
from bench.runner import arguments, run
from headstart.bench.peers import absent, versions

QUICK = (8, 3, 32, 32)


def main() -> None:
    parser = arguments(__doc__, "sampler")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    chosen = parser.parse_args()
    shape, missing = QUICK if chosen.quick else SHAPE, absent()
    for name, reason in missing.items():
        print(f"absent: {name} ({reason})")
    settings = {
        "quick": chosen.quick, "steps": STEPS, "shape": shape,
        "seconds_a_case": chosen.seconds or (0.5 if chosen.quick else 10.0),
    }  # fmt: skip
    cases = all_cases(shape, chosen.device)
    run("sampler", chosen.out, settings, cases, chosen.device, peers=versions(), absent=missing)


if __name__ == "__main__":
    main()
