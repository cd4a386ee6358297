"""What the benchmarks report: times per unit of work, and pictures that show every contender."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

measure = pytest.importorskip("headstart.bench.measure")
plot = pytest.importorskip("bench.plot", reason="the benchmarks are not beside the tests")

ROOT = Path(__file__).parents[2]
ABOUT = {"name": "a chip", "threads": 1, "torch": "2.0"}


def report(monkeypatch: pytest.MonkeyPatch, name: str) -> dict[str, Any]:
    """A case of three units whose calls take 6 s (headstart) and 30 s (a peer), beside a copy of 1 s."""
    seconds = {"ours": 6.0, "peer": 30.0}

    def repetition(run: Any, calls: int, device: str) -> float:
        return seconds.get(getattr(run, "__name__", ""), 1.0)

    def ours() -> None: ...
    def peer() -> None: ...

    monkeypatch.setattr(measure, "repetition", repetition)
    case = measure.Contest(name, 8, {"headstart": ours, "a peer": peer}, units=3, arithmetic=16.0)
    return {"machine": ABOUT, "cases": [{"threads": 1, **measure.paired(case, seconds=0)}]}


def test_times_are_those_of_one_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, peer, copy = report(monkeypatch, "a case")["cases"][0]["results"]
    assert (ours["time_median"], peer["time_median"], copy["time_median"]) == (2.0, 10.0, 1.0)
    assert (ours["copies_median"], ours["of_copy_median"], peer["ratio_median"]) == (2.0, 0.5, 5.0)


@pytest.mark.parametrize(("draw", "name"), [("peers", "sampler Heun opaque denoiser"), ("roofline", "op")])
def test_pictures_show_every_contender(draw: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib", reason="headstart[plots] is not installed")
    figure = getattr(plot, draw)(report(monkeypatch, name))
    axes = figure.axes[0]
    if draw == "peers":
        assert [bar.get_width() for bar in axes.patches] == [2.0, 10.0]
    else:
        points = [line.get_xydata().tolist() for line in axes.lines if line.get_marker() == "o"]
        assert [y for ((_, y),) in points] == [0.1, 0.5]  # the peer's, then headstart's


def test_pictures_without_matplotlib_name_the_extra(tmp_path: Path) -> None:
    code = "import sys; sys.modules['matplotlib'] = None; from bench import plot; plot.pyplot()"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 1
    assert "pip install 'headstart[plots]'" in run.stderr
