"""The ops against a copy of the same bytes, plain torch and the usual libraries: `python -m bench.ops --out DIR`.

Paired measurements in one process on the CPU, single-threaded and on all threads of torch: contenders take turns, each
figure is a median over the turns with its interquartile range, and only ratios are claims. Takes about three minutes on
two idle cores; `--quick`: smaller sizes, well under a minute. Results: a table, and `ops.json` with every repetition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch

from bench.ops.bench_affine import affine_case
from bench.ops.bench_mixture import posterior_case
from bench.ops.bench_noise import EAGER, noise_case, normal_case
from bench.runner import arguments, run
from headstart.bench.measure import OURS, Contest

TINY = 4


def overhead_cases() -> Iterator[Callable[[], Contest]]:
    """A call at a tiny size: the time is the host's, beside one torch call with a result tensor given."""

    def add(case: Contest) -> Contest:
        x, y, out = (torch.ones(1, TINY) for _ in range(3))
        contenders = {OURS: case.contenders[OURS], "torch.add": lambda: torch.add(x, y, alpha=0.5, out=out)}
        return Contest(f"overhead of {case.name}", case.size, {**contenders, EAGER: case.contenders[EAGER]}, calls=1000)

    yield lambda: add(noise_case(TINY))
    yield lambda: add(affine_case(TINY))
    yield lambda: add(affine_case(TINY, torch.bfloat16, scaled=True))
    yield lambda: overhead_of_posterior()


def overhead_of_posterior() -> Contest:
    case = posterior_case(1, 2, k=2)
    return Contest(f"overhead of {case.name}", case.size, {OURS: case.contenders[OURS]}, calls=200)


def all_cases(quick: bool) -> Iterator[Callable[[], Contest]]:
    """What is measured, each made when its turn comes, so that only one is in memory."""
    large, rows = (2**20, 10_000) if quick else (2**24, 100_000)
    for n in (2**16, 2**20) if quick else (2**20, 2**24):
        yield partial(noise_case, n)
    yield partial(normal_case, large)
    yield partial(affine_case, large)
    yield partial(affine_case, large, torch.bfloat16)
    yield partial(affine_case, large, torch.bfloat16, scaled=True)
    yield partial(affine_case, large, noise=True)
    for d in (2, 40, 100):
        for denoise in (False, True):
            yield partial(posterior_case, rows, d, denoise=denoise)
    for d, k, rank in [(784, 32, 48)] + [(12_288, 16, 64)] * (not quick):
        for denoise in (False, True):
            yield partial(posterior_case, 256, d, k, rank, denoise=denoise)
    yield from overhead_cases()


def main() -> None:
    parser = arguments(__doc__, "ops")
    parser.add_argument("--compile", action="store_true", help="also time torch.compile (compiles for minutes)")
    chosen = parser.parse_args()
    seconds = chosen.seconds or (0.3 if chosen.quick else 1.5)
    settings = {"quick": chosen.quick, "compile": chosen.compile, "seconds_a_case": seconds}
    run("ops", chosen.out, settings, all_cases(chosen.quick))


if __name__ == "__main__":
    main()
