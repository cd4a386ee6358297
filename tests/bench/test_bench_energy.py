"""headstart bench energy, with a counter and a clock of the test's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from bench_case import tiny_case
from headstart.bench import energy
from headstart.compare.case import Case
from headstart.compare.store import Result
from headstart.compare.way import Way

IDLE, BUSY, CALL = 40.0, 100.0, 0.5  # watts, watts, seconds a network call
WAYS = [Way("classic", "2M", "log", 8), Way("learned", "2M", "log", 4)]


class World:
    """A device that draws 40 W idle and 100 W at work, and its clock."""

    name = "a counter of the test"

    def __init__(self) -> None:
        self.now, self.energy = 0.0, 7.0

    def joules(self) -> float:
        return self.energy

    def clock(self) -> float:
        return self.now

    def rest(self, seconds: float) -> None:
        self.now, self.energy = self.now + seconds, self.energy + IDLE * seconds

    def draw(self, case: Case, way: Way, *_: Any) -> None:
        self.now, self.energy = self.now + CALL * way.nfe, self.energy + BUSY * CALL * way.nfe


def measured(folder: Path, monkeypatch: pytest.MonkeyPatch, counted: bool) -> energy.Energy:
    world = World()
    monkeypatch.setattr(Case, "draw", lambda case, way, *rest: world.draw(case, way, *rest))
    result = Result(folder / "energy.json", "energy", {})
    run = energy.Energy(tiny_case(), world if counted else None, result, 10, 30.0, world.clock, world.rest)
    run.run(WAYS)
    return run


def test_joules_are_the_counters_and_idle_is_a_column_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = measured(tmp_path, monkeypatch, True)
    for way, row in zip(WAYS, run.result.rows, strict=True):
        seconds = CALL * way.nfe / 10
        at = energy.figures(row)
        assert row["idle_watts"] == pytest.approx(IDLE)
        assert at == pytest.approx(
            {"seconds": seconds, "joules": BUSY * seconds, "above_idle": (BUSY - IDLE) * seconds}
        )
        assert sum(span["seconds"] for span in row["repetitions"]) >= 30.0
        assert len(row["repetitions"]) == energy.REPETITIONS


def test_without_a_counter_there_are_times_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = measured(tmp_path, monkeypatch, False)
    row = run.result.rows[0]
    assert (row["counter"], row["idle_watts"]) == (None, None)
    assert [span["joules"] for span in row["repetitions"]] == [None] * energy.REPETITIONS
    assert energy.figures(row) == {"seconds": CALL * 8 / 10, "joules": None, "above_idle": None}


def test_ratios_are_of_ways_of_equal_quality(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = measured(tmp_path, monkeypatch, True).result.rows
    pairs = [
        {"target": "t", "method": name, "way": way} for name, way in zip(("classic", "learned"), WAYS, strict=True)
    ]
    (found,) = energy.ratios(pairs, rows)
    assert (found["reference"], found["method"], found["calls"]) == (WAYS[0].key, WAYS[1].key, 2.0)
    assert found["joules"] == pytest.approx(2.0)
    own = [*pairs, {"target": "t", "method": "target", "way": WAYS[0]}]  # the target is the classic start's own way
    assert energy.ratios(own, rows) == [found]
    (timed,) = energy.ratios(pairs, measured(tmp_path / "none", monkeypatch, False).result.rows)
    assert (timed["joules"], timed["seconds"]) == (None, pytest.approx(2.0))


def test_a_machine_without_a_counter_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "RAPL", tmp_path / "none")
    found = energy.find_counter(torch.device("cpu"))
    assert isinstance(found, str)
    assert found.startswith("no energy counter on this machine: ")


@pytest.mark.cuda
def test_the_gpu_is_counted() -> None:
    pytest.importorskip("zeus", reason="headstart[energy] is not installed")
    found = energy.find_counter(torch.device("cuda", 0))
    assert not isinstance(found, str), found
    before = found.joules()
    x = torch.randn(4096, 4096, device="cuda")
    for _ in range(200):
        x = torch.tanh(x @ x)
    torch.cuda.synchronize()
    assert found.joules() > before
