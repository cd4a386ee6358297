"""`headstart bench energy`: joules a sample, as a counter of the hardware shows them.

Through zeus: NVML's total energy of a GPU, RAPL's of a processor's packages where the kernel lets them be read.
Reference: "Zeus: Understanding and Optimizing GPU Energy Consumption of DNN Training" (You, Chung, Chowdhury, 2023,
https://www.usenix.org/conference/nsdi23/presentation/you).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from headstart.compare.case import Case
from headstart.compare.headline import headline
from headstart.compare.store import Result
from headstart.compare.way import HEUN, Way
from headstart.io.progress import track

REPETITIONS = 3
USUAL = (HEUN, Way("classic", "2M", "log", 9), Way("learned", "2M", "log", 5))  # where no quality is known


@dataclass
class Energy:
    """One measurement of several ways, one batch after another on one device.

    Attributes:
        case: whose denoiser and starts.
        counter: of the device; None: times only.
        result: where rows go.
        batch: samples a call.
        seconds: least time a point, all repetitions together.
        clock, rest: seconds now, and waiting; tests put others in their place.
    """

    case: Case
    counter: Counter | None
    result: Result
    batch: int
    seconds: float
    clock: Callable[[], float] = time.perf_counter
    rest: Callable[[float], None] = time.sleep

    def span(self, work: Callable[[float], int], seconds: float) -> dict[str, Any]:
        """Joules (None without a counter) and seconds of `work(seconds)`, and what it returned."""
        self.wait()
        began = self.clock()
        before = None if self.counter is None else self.counter.joules()
        samples = work(seconds)
        self.wait()
        joules = None if self.counter is None or before is None else self.counter.joules() - before
        return {"seconds": self.clock() - began, "joules": joules, "samples": samples}

    def wait(self) -> None:
        """Waits for the device."""
        if torch.device(self.case.device).type == "cuda":
            torch.cuda.synchronize()

    def idle(self) -> float | None:
        """Watts of the device doing nothing, over a third of a point's time."""
        if self.counter is None:
            return None

        def nothing(seconds: float) -> int:
            self.rest(seconds)
            return 0

        span = self.span(nothing, self.seconds / REPETITIONS)
        return span["joules"] / span["seconds"]

    def row(self, way: Way) -> dict[str, Any]:
        """One way: idle power, then its repetitions, each for a third of the time, samples that never repeat."""
        first = 0

        def draw(seconds: float) -> int:
            nonlocal first
            began, count = self.clock(), 0
            while not count or self.clock() - began < seconds:
                self.case.draw(way, self.batch, 0, first + count)
                count += self.batch
            first += count
            return count

        self.case.draw(way, self.batch, 0, 0)  # warm
        idle = self.idle()
        spans = [self.span(draw, self.seconds / REPETITIONS) for _ in range(REPETITIONS)]
        about = {"start": way.start, "solver": way.solver, "grid": way.grid, "nfe": way.nfe, "batch": self.batch}
        return {**about, "counter": self.counter and self.counter.name, "idle_watts": idle, "repetitions": spans}

    def run(self, ways: Sequence[Way]) -> None:
        """Every way that is missing."""
        points = [way for way in ways if not self.result.has(f"{way.key}-b{self.batch}")]
        with track("energy", len(points), True) as advance:
            for way in points:
                self.case.prepare(way)
                self.result.add(f"{way.key}-b{self.batch}", self.row(way))
                advance(f"energy: {way.key} done")


def figures(row: Mapping[str, Any]) -> dict[str, float | None]:
    """Of one row, medians over its repetitions: seconds and joules a sample, and joules above idle."""
    spans = row["repetitions"]
    seconds = statistics.median(span["seconds"] / span["samples"] for span in spans)
    if row["counter"] is None:
        return {"seconds": seconds, "joules": None, "above_idle": None}
    joules = statistics.median(span["joules"] / span["samples"] for span in spans)
    above = statistics.median((s["joules"] - row["idle_watts"] * s["seconds"]) / s["samples"] for s in spans)
    return {"seconds": seconds, "joules": joules, "above_idle": above}


def equal_quality(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Ways that reach the same quality, of the rows of a quality file: `target`, `method`, and the `way` with the
    fewest calls that do (a target's own way among them)."""
    found = []
    for entry in headline(rows):
        if entry["calls"] is not None:
            found.append({"target": entry["target"], "method": entry["method"], "way": Way(*entry["way"])})
        own = {"target": entry["target"], "method": "target", "way": Way(**entry["of"])}
        found += [own] if own not in found else []
    return found


def ratios(pairs: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For every target and learned method at equal quality: the classic start's network calls, seconds and joules
    over the method's; once where the target is the classic start's own."""
    known = {Way.of(r).key: figures(r) for r in rows}
    table = []
    for target in dict.fromkeys(pair["target"] for pair in pairs):
        ways = {pair["method"]: pair["way"] for pair in pairs if pair["target"] == target}
        both = dict.fromkeys(ways[name] for name in ("target", "classic") if name in ways)
        for a in both:
            for method in ("learned", "planned", "transport"):
                b = ways.get(method)
                if b is None or a.key not in known or b.key not in known:
                    continue
                there, here = known[a.key], known[b.key]
                entry: dict[str, Any] = {"target": target, "reference": a.key, "method": b.key, "calls": a.nfe / b.nfe}
                for name in ("seconds", "joules", "above_idle"):
                    x, y = there[name], here[name]
                    entry[name] = None if x is None or y is None or y <= 0 else x / y
                table.append(entry)
    return table


RAPL = Path("/sys/class/powercap/intel-rapl")


class Counter(Protocol):
    """A counter of energy.

    Attributes:
        name: what is counted, and by what.
    """

    @property
    def name(self) -> str: ...

    def joules(self) -> float:
        """Energy since some fixed moment, never falling."""
        ...


@dataclass(frozen=True)
class Reading:
    """A counter that asks a function."""

    name: str
    read: Callable[[], float]

    def joules(self) -> float:
        return self.read()


def find_counter(device: torch.device) -> Counter | str:
    """The counter of the device, or a sentence that says why there is none."""
    return gpu_counter(device.index or 0) if device.type == "cuda" else processor_counter()


def gpu_counter(index: int) -> Counter | str:
    """NVML's total energy of one GPU."""
    try:
        from zeus.device import get_gpus
    except ImportError:
        return "no energy counter on this machine: the extra headstart[energy] is not installed"
    try:
        gpus = get_gpus()  # numbered as torch numbers them, CUDA_VISIBLE_DEVICES included
        if not gpus.supports_get_total_energy_consumption(index):
            return f"no energy counter on this machine: GPU {index} has none"
        gpus.get_total_energy_consumption(index)
    except Exception as error:  # zeus has an error of its own for each driver's
        return f"no energy counter on this machine: {error}"
    return Reading(f"NVML total energy, GPU {index}", lambda: gpus.get_total_energy_consumption(index) / 1e3)


def processor_counter() -> Counter | str:
    """RAPL's energy of all packages."""
    if not RAPL.is_dir():
        return f"no energy counter on this machine: the kernel shows no RAPL ({RAPL} is not there)"
    try:
        from zeus.device import get_cpus
    except ImportError:
        return "no energy counter on this machine: the extra headstart[energy] is not installed"
    try:
        cpus = get_cpus()
        count = len(cpus)

        def read() -> float:
            return sum(cpus.get_total_energy_consumption(i).cpu_mj for i in range(count)) / 1e3

        read()
    except Exception as error:  # no right to read, no package: each an error of zeus's own
        return f"no energy counter on this machine: {error}"
    return Reading(f"RAPL packages, {count}", read)
