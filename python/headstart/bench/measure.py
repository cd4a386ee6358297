"""Paired timing: contenders take turns in one process, beside a copy of the same bytes.

No absolute time is a claim: machines drift, so what is reported are ratios of times taken milliseconds apart.
`of_copy` is the copy's time over a contender's (1: as fast as moving the bytes), `copies` its inverse; `ratio` is a
contender's time over headstart's (above 1: headstart is faster). Figures are medians over repetitions, spreads
interquartile ranges.
"""

from __future__ import annotations

import ctypes
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

OURS, COPY, COMPILED = "headstart", "copy", "torch.compile"
Run = Callable[[], Any]


@dataclass(frozen=True)
class Contest:
    """One comparison.

    Attributes:
        name: what is computed, with its sizes.
        size: bytes one unit of work must move: every input read once, every output written once.
        contenders: what is timed, by name; `headstart` among them.
        tolerance: largest difference between two results, relative to the largest entry; None: random, not compared.
            A contender that returns None (a bare part of the work) is not compared either.
        calls: calls a repetition, more than one where a call is too short to time.
        settle: seconds of rest before a repetition, for peers whose own threads spin for a while after their work.
        sample: makes a smaller case of the same kind, to be compared in place of one that is slow.
        units: pieces of work in one call, such as the network calls of a sampler; times are given for one.
        arithmetic: operations one unit must do, multiplications and additions counted apart; 0: not counted.
    """

    name: str
    size: int
    contenders: Mapping[str, Run]
    tolerance: float | None = None
    calls: int = 1
    settle: float = 0.0
    sample: Callable[[], Contest] | None = None
    units: int = 1
    arithmetic: float = 0.0

    def only(self, names: Iterable[str]) -> Contest:
        """The case, and its sample, with these contenders alone."""
        names, sample = list(names), self.sample
        chosen = {name: self.contenders[name] for name in names}
        return replace(self, contenders=chosen, sample=sample and (lambda: sample().only(names)))


def compiled(run: Run) -> Run:
    """`torch.compile` of a function without arguments, made at its first call."""
    made: list[Run] = []

    def call() -> Any:
        if not made:
            torch._dynamo.reset()  # or the limit on versions of one code object would silently turn later cases eager
            made.append(torch.compile(run, fullgraph=True, dynamic=False))
        return made[0]()

    return call


def copy_of(size: int, device: str) -> Run:
    """A copy that reads `size / 2` bytes and writes as many."""
    source = torch.ones(max(1, size // 8), device=device)
    target = torch.zeros_like(source)
    return lambda: target.copy_(source)


def verify(case: Contest) -> None:
    """Calls every contender once, which warms it up, and compares the results.

    Raises:
        ValueError: a contender computes something else.
    """
    case = case.sample() if case.sample else case
    expected = None
    for name, run in case.contenders.items():
        result = run()
        if case.tolerance is None or result is None:
            continue
        result = torch.as_tensor(result).to(torch.float64, copy=True)
        expected = result if expected is None else expected
        error = ((result - expected).abs().max() / expected.abs().max()).item()
        if not error <= case.tolerance:
            raise ValueError(
                f"{case.name}: {name} differs by {error:.2g} of the largest entry, {case.tolerance} allowed"
            )


def repetition(run: Run, calls: int, device: str) -> float:
    """Seconds a call."""
    synchronize = torch.cuda.synchronize if torch.device(device).type == "cuda" else nullcontext
    synchronize()
    began = time.perf_counter()
    for _ in range(calls):
        run()
    synchronize()
    return (time.perf_counter() - began) / calls


def paired(
    case: Contest, device: str = "cpu", seconds: float = 1.5, least: int = 3, most: int = 200, verified: bool = False
) -> dict[str, Any]:  # fmt: skip
    """Times all contenders and the copy in turn, a different one first each time, for about `seconds`.

    `verified`: the caller has compared the results, and warmed the contenders up.

    Returns:
        the case as JSON: its fields, and for each contender the raw seconds a unit and the figures of the table.
    """
    if not verified:
        verify(case)
    runs = {**case.contenders, COPY: copy_of(case.size, device)}
    runs[COPY]()
    times: dict[str, list[float]] = {name: [] for name in runs}
    order, began = list(runs), time.perf_counter()
    while len(times[COPY]) < least or (len(times[COPY]) < most and time.perf_counter() - began < seconds):
        for name in order:
            time.sleep(case.settle)
            calls = case.calls * case.units if name == COPY else case.calls
            times[name].append(repetition(runs[name], calls, device) * calls / (case.calls * case.units))
        order.append(order.pop(0))
    ours = next(iter(times)) if OURS not in times else OURS
    results = [
        {"contender": name, "seconds": taken, **figures(taken, times[COPY], times[ours])}
        for name, taken in times.items()
    ]
    return {
        "name": case.name, "bytes": case.size, "arithmetic": case.arithmetic, "calls": case.calls,
        "units": case.units, "device": device, "results": results,
    }  # fmt: skip


def figures(seconds: Sequence[float], copy: Sequence[float], ours: Sequence[float]) -> dict[str, float]:
    """Median and interquartile range of the time, of the speed as a part of the copy's, and of the time over ours."""
    columns = {
        "time": list(seconds),
        "of_copy": [b / a for a, b in zip(seconds, copy, strict=True)],
        "copies": [a / b for a, b in zip(seconds, copy, strict=True)],
        "ratio": [a / b for a, b in zip(seconds, ours, strict=True)],
    }
    summary: dict[str, float] = {}
    for name, values in columns.items():
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
        summary |= {f"{name}_median": statistics.median(values), f"{name}_spread": high - low}
    return summary


@contextmanager
def threads(count: int) -> Iterator[None]:
    """torch, and the linear algebra of numpy and scipy, on `count` threads."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:  # it comes with scikit-learn, the only peer that needs it
        limit: Any = nullcontext()
    else:
        limit = threadpool_limits(count, user_api="blas")
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with limit:
            yield
    finally:
        torch.set_num_threads(before)


STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def resident(name: str) -> int:
    """`VmRSS` (now) or `VmHWM` (the most since it was reset) of this process, in bytes."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(name))
    return 1024 * int(line.split()[1])


def trim() -> None:
    """Hands memory that is free back to the system."""
    release = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if release is not None:
        release(0)


def high_water(run: Callable[[], object], device: torch.device) -> int | None:
    """Bytes that `run()` held at most beyond what was held before; None where the system does not tell.

    On a GPU torch's allocations; on a CPU the process's resident memory, after what earlier calls left to the allocator
    is handed back where the C library can (glibc); elsewhere that does not count again.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    try:
        trim()
        CLEAR.write_text("5")  # VmHWM falls to what is held now
        before = resident("VmRSS")
        run()
        return max(0, resident("VmHWM") - before)
    except (OSError, StopIteration, ValueError):
        run()
        return None
