"""`pytest bench --benchmark-only [--torch-compile]`: every op beside its peers, CPU and CUDA, with the ratio to a copy.

Latencies are pytest-benchmark's; the ratio to a copy of the same bytes comes from a paired run in the same test, is in
`extra_info` of `--benchmark-json`, and is printed at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from headstart import _core
from headstart.bench.measure import COMPILED, COPY, Contest, paired, verify

LINES = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--torch-compile", action="store_true", help="also time torch.compile (compiles for minutes)")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("python_files", "bench_*.py")
    config.addinivalue_line("python_functions", "bench_*")
    config.stash[LINES] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "measured" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.benchmark(max_time=0.3, min_rounds=3))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if config.stash[LINES]:
        terminalreporter.section("speed as a part of a copy of the same bytes, median +- interquartile range")
        for line in config.stash[LINES]:
            terminalreporter.write_line(line)


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> str:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU on this machine")
    if request.param == "cuda" and not _core.build_info()["cuda"]:
        pytest.skip("headstart was built without CUDA")
    return str(request.param)


@pytest.fixture
def measured(
    benchmark: Any, device: str, request: pytest.FixtureRequest
) -> Callable[[Callable[[], Contest], str], None]:
    """Times one contender of a case, and that contender against the copy."""

    def measure(build: Callable[[], Contest], contender: str) -> None:
        if contender == COMPILED and not request.config.getoption("--torch-compile"):
            pytest.skip("--torch-compile not given")
        case = build()
        if contender not in case.contenders:
            pytest.skip(f"{contender} does not offer this, or is not installed")
        verify(case.only(dict.fromkeys([next(iter(case.contenders)), contender])))
        run = case.contenders[contender]

        def finished() -> None:
            run()
            torch.cuda.synchronize()

        benchmark.group = case.name
        benchmark(run if device == "cpu" else finished)
        figures = paired(case.only([contender]), device, seconds=0.2)
        row, copy = figures["results"]
        assert copy["contender"] == COPY
        benchmark.extra_info |= {"bytes": case.size, "of_copy": row["of_copy_median"], "spread": row["of_copy_spread"]}
        line = f"{case.name:<66} {contender:<28} {row['of_copy_median']:8.4f} +- {row['of_copy_spread']:.4f}"
        request.config.stash[LINES].append(line)

    return measure
