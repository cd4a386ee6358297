"""headstart bench speed: its points, its contenders, and what its rows say; nothing is timed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import headstart as hs
from headstart.bench import measure, speed
from headstart.bench.measure import high_water
from headstart.compare.store import Result
from headstart.zoo.network import UNet


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call takes 4 s; of headstart with a network that does nothing 1 s, a copy 0.5 s."""

    def repetition(run: Any, calls: int, device: str) -> float:
        if getattr(run, "func", None) is speed.forget and getattr(run.args[0], "func", None) is hs.sample:
            return 1.0
        return 0.5 if getattr(run, "__name__", "") == "<lambda>" and "copy_of" in run.__qualname__ else 4.0

    monkeypatch.setattr(measure, "repetition", repetition)


def tiny(folder: Path) -> speed.Speed:
    torch.manual_seed(0)
    denoiser = hs.EDM(UNet(widths=(8, 32), depth=1).eval(), 0.7)
    return speed.Speed(denoiser, 1, Result(folder / "speed.json", "speed", {}), torch.device("cpu"), 0.0)


@pytest.mark.usefixtures("still")
def test_contenders_agree_and_missing_ones_are_named(tmp_path: Path) -> None:
    """`paired` compares results: a peer that runs another grid or preconditioning would fail here."""
    run = tiny(tmp_path)
    assert run.run([speed.Point(solver, 2, 8, 1, 3) for solver in speed.SOLVERS])
    for row in run.result.rows:
        names = {result["contender"] for result in row["results"]}
        assert measure.OURS in names
        for name, reason in run.result.found["absent"].items():
            assert name not in names
            assert "pip install" in reason
    heun = {result["contender"] for result in run.result.rows[1]["results"]}
    assert {name for name in heun if name.startswith("EDM")}  # restated from the paper: nothing to install


@pytest.mark.usefixtures("still")
def test_a_run_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = speed.points(["DPMpp2M"], [1, 2], [8], 1, 2)
    made: list[str] = []

    def counted(self: speed.Speed, point: speed.Point) -> dict[str, Any]:
        made.append(point.key)
        if len(made) == 2:
            raise KeyboardInterrupt
        return {"batch": point.batch}

    monkeypatch.setattr(speed.Speed, "row", counted)
    with pytest.raises(KeyboardInterrupt):
        tiny(tmp_path).run(points)
    assert tiny(tmp_path).run(points)
    assert made == [points[0].key, points[1].key, points[1].key]


def test_a_batch_that_does_not_fit_ends_the_larger_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: speed.Speed, point: speed.Point) -> dict[str, Any]:
        if point.batch > 1:
            raise torch.OutOfMemoryError("no memory\nmore")
        return {}

    monkeypatch.setattr(speed.Speed, "row", full)
    run = tiny(tmp_path)
    run.run([speed.Point("Heun", batch, 8, 1, 2) for batch in (1, 2, 4)])
    assert [row.get("failed") for row in run.result.rows] == [None, "no memory"]


def test_memory_of_the_machine_counts_as_memory() -> None:
    assert speed.exhausted(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 byte"))
    assert not speed.exhausted(RuntimeError("shapes differ"))


@pytest.mark.usefixtures("still")
def test_a_contender_that_errs_does_not_lose_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise TypeError("a peer's own\nfault")

    monkeypatch.setattr(speed.Speed, "peers", lambda *_: {"broken": fails, "other": lambda: torch.zeros(2, 1, 8, 8)})
    run = tiny(tmp_path)
    assert run.run([speed.Point("DPMpp2M", 2, 8, 1, 3)])
    (row,) = run.result.rows
    assert row["erring"]["broken"] == "TypeError: a peer's own fault"
    assert "differs" in row["erring"]["other"]
    assert {r["contender"] for r in row["results"]} == {measure.OURS, speed.NULL, measure.COPY}


@pytest.mark.usefixtures("still")
def test_the_samplers_own_share(tmp_path: Path) -> None:
    run = tiny(tmp_path)
    run.run([speed.Point("DPMpp2M", 2, 8, 1, 3)])
    ours = next(entry for entry in speed.shares(run.result.rows[0]) if entry["contender"] == measure.OURS)
    assert ours["own"] == 0.25
    assert ours["samples_a_second"] == pytest.approx(2 / 4.0)


def test_every_batch_side_and_number_of_threads_has_a_point() -> None:
    found = speed.points(["DPMpp2M", "Heun"], [1, 8, 64], [28, 56], 4, 9)
    assert {(p.solver, p.batch) for p in found} >= {(s, b) for s in ("DPMpp2M", "Heun") for b in (1, 8, 64)}
    assert {p.threads for p in found} == {1, 2, 4}
    assert {p.side for p in found} == {28, 56}
    assert len({p.key for p in found}) == len(found)


def test_memory_that_was_held_is_seen() -> None:
    held = high_water(lambda: torch.ones(2**25), torch.device("cpu"))
    if held is None:
        pytest.skip("this system does not tell a process's largest memory")
    assert held >= 0.9 * 2**27
