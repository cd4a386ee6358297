"""The toy comparison: its denoisers are exact, its test is strict, and a stopped run goes on."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from headstart.compare.store import read

toy = pytest.importorskip("bench.toy.__main__", reason="the benchmarks are not beside the tests")
from bench.toy import bars as toy_bars  # noqa: E402
from bench.toy import law as toy_law  # noqa: E402
from bench.toy import plan as toy_plan  # noqa: E402
from bench.toy import score as toy_score  # noqa: E402

SMALL = {name: replace(problem, n=200) for name, problem in toy_law.QUICK.items()}


@pytest.mark.parametrize("name", ["gmm-2", "gmm-40", "t-2", "t-10"])
@pytest.mark.parametrize("sigma", [0.02, 1.0, 20.0])
def test_the_denoisers_at_working_speed_are_exact(name: str, sigma: float) -> None:
    problem = toy_law.FULL[name]
    x = problem.law.sample(300, 1, sigma=sigma)
    off = (problem.denoise(x, sigma) - problem.law.denoise(x, sigma)).abs().max()
    assert float(off) < 1e-3 * float(x.std())


@pytest.mark.parametrize("name", ["gmm-2", "t-2"])
def test_likelihood_and_shares_are_the_laws(name: str) -> None:
    problem = toy_law.FULL[name]
    x = problem.law.sample(4000, 1, sigma=toy_law.LEVEL)
    log_prob, share = problem.likelihood(x)
    assert torch.allclose(log_prob, problem.law.log_prob(x, toy_law.LEVEL), atol=2e-3)
    assert torch.allclose(share.mean(0), problem.law.weight, atol=0.03)


def test_scores_see_what_they_are_for() -> None:
    problem = SMALL["gmm-2"]
    problem = replace(problem, n=4000)
    score = toy_score.Score(problem, 0)
    exact = problem.law.sample(4000, 99)
    floor, shrunk = score(exact), score(0.8 * exact)
    assert abs(floor["gap"]) < 4 * floor["gap_error"]
    assert shrunk["max_swd"] > 3 * floor["max_swd"]
    assert shrunk["tail_99"] == pytest.approx(0.8, rel=0.1)
    assert shrunk["gap"] < -10 * floor["gap_error"]
    kept = exact[exact[:, 0] > 0]
    assert score(kept)["modes"] > 5 * floor["modes"]


def row(nfe: int, gap: float, modes: float, start: str = "gmm") -> dict:
    return {"law": "l", "train": "10", "denoiser": "exact", "start": start, "solver": "2M", "nfe": str(nfe),
            "gap": str(gap), "modes": str(modes), "gap_error": "0.1"}  # fmt: skip


def test_the_strict_test_must_go_on_passing() -> None:
    floor = row(0, 0.05, 0.01, "exact samples")
    good, bad, lost = (0.1, 0.011), (0.5, 0.011), (0.1, 0.02)
    for figures, expected in [((good, good, good), 3), ((good, bad, good), 7), ((good, good, lost), None)]:
        rows = [row(nfe, *one) for nfe, one in zip((3, 5, 7), figures, strict=True)]
        assert toy_bars.first_pass([floor, *rows], "l", "gmm", "2M") == expected


def test_a_stopped_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = replace(toy.BRIEF, toys={"gmm-2": SMALL["gmm-2"]}, sizes=(500,), steps=5)
    monkeypatch.setattr(toy, "BRIEF", plan)
    monkeypatch.setattr(toy, "NEAR", 5000)
    monkeypatch.setattr(toy_score, "SEARCH", {"projections": 4, "steps": 1, "restarts": 1})
    monkeypatch.setattr(toy_plan, "calls_of", lambda start, denoiser: [("2M", 3), ("2M", 5)])
    monkeypatch.setattr(toy_plan, "BUILDERS", {name: toy.BUILDERS[name] for name in ("classic", "gmm")})
    command = ["toy", "--out", str(tmp_path), "--quick"]
    monkeypatch.setattr(sys, "argv", [*command, "--seconds", "0.1"])
    toy.main()
    table = tmp_path / "toy.json"
    before = read(table, "toy")["rows"]
    assert "Toy laws" in (tmp_path / "report.md").read_text()
    monkeypatch.setattr(sys, "argv", command)
    toy.main()
    rows = read(table, "toy")["rows"]
    assert rows[: len(before)] == before
    assert {row["key"] for row in rows} == {task.key for task in toy.tasks(plan)}
    assert len(rows) == len(list(toy.tasks(plan)))
    assert all(row["max_swd"] >= 0 for row in rows if "max_swd" in row)
    assert not list((tmp_path / "samples").rglob("*.npz"))
    assert "## gmm-2" in (tmp_path / "report.md").read_text()
