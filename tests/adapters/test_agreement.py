"""Agreement with other projects' code: every comparison of `python -m bench.agreement` but those with checkouts."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.agreement import __main__ as command
from bench.agreement import k_diffusion, pipeline, scheduler
from bench.agreement.case import Case

CASES = [*k_diffusion.cases(), *scheduler.cases(), *pipeline.cases()]
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of the schedulers


@pytest.mark.parametrize("case", CASES, ids=str)
def test_they_agree(case: Case) -> None:
    try:
        assert case.error() <= case.bar
    except ImportError as absent:
        pytest.skip(str(absent))


@pytest.mark.parametrize("given", [given for given in k_diffusion.SAMPLERS if given[3]], ids=str)
def test_other_draws_give_other_samples(given: tuple) -> None:
    try:
        ours, theirs = k_diffusion.samples(*given, seed=k_diffusion.SEED + 1)
    except ImportError as absent:
        pytest.skip(str(absent))
    assert (ours - theirs).abs().max() > 0.1 * theirs.abs().max()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: scheduler.preserving("UniPCMultistepScheduler", {}, scheduler.hs.UniPC()),
        lambda: scheduler.preserving("DPMSolverMultistepScheduler", {}, scheduler.hs.Euler()),
        lambda: scheduler.exploding("HeunDiscreteScheduler", {}, scheduler.hs.DPMpp2M()),
    ],
)
def test_another_solver_is_told_apart(wrong: Callable[[], float]) -> None:
    pytest.importorskip("diffusers")
    assert wrong() > 3 * scheduler.BAR


def test_the_command_writes_a_row_for_a_peer_that_is_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent() -> float:
        raise ImportError("the peer is not installed")

    made = [
        Case("ours", "theirs", "close", 1e-4, lambda: 1e-5),
        Case("ours", "theirs", "far", 1e-4, lambda: 1e-3),
        Case("ours", "another", "gone", 1e-4, absent, "float16"),
    ]
    monkeypatch.setattr(command, "cases", lambda only: made)
    monkeypatch.setattr(sys, "argv", ["agreement", "--out", str(tmp_path / "new")])
    with pytest.raises(SystemExit, match="True"):
        command.main()
    assert "3 comparisons, 1 absent, 1 above the bar" in capsys.readouterr().out
    report = json.loads((tmp_path / "new" / "agreement.json").read_text())
    assert [row.get("agrees") for row in report["cases"]] == [True, False, None]
    assert {"schema", "machine", "settings", "peers", "cases"} <= report.keys()
    lines = (tmp_path / "new" / "agreement.md").read_text().splitlines()
    assert lines[-3:] == [
        "| ours | theirs | close | float32 | 1.0e-05 | 0.0001 |",
        "| ours | theirs | far | float32 | 1.0e-03 (above the bar) | 0.0001 |",
        "| ours | another | gone | float16 | absent: the peer is not installed | 0.0001 |",
    ]
