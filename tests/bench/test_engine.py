"""The experiments of `bench` are data for the one engine: cut runs go on, rows are as before, files read back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import headstart as hs
from headstart.compare.run import find_ranks
from headstart.compare.store import Result, read

lighter = pytest.importorskip("bench.lighter", reason="the benchmarks are not beside the tests")
from bench import convert, plan  # noqa: E402
from bench.plans import method  # noqa: E402
from bench.plans.case import Case, exact_modes  # noqa: E402
from bench.plans.report import report  # noqa: E402
from bench.toy.plan import WHOLE, tasks  # noqa: E402
from bench.toy.record import as_text  # noqa: E402
from bench.toy.report import law_section, select  # noqa: E402


class Stop(Exception):
    """What ends a run in the middle."""


def mean_of(x: torch.Tensor) -> dict[str, float]:
    return {"mean": float(x.double().mean()), "square": float(x.double().square().mean())}


def test_ranks_are_those_of_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert find_ranks() == (0, 1)
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert find_ranks() == (2, 3)


def test_lighter_rows_are_of_the_same_samples_and_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row is what `hs.sample` gives in one go, and a run cut after its first row makes the others alone."""
    images = torch.linspace(-1, 1, 400).reshape(100, 1, 2, 2)
    q = hs.GaussianMixture.fit(images.flatten(1), 2, hs.Full(), seed=0)
    q = hs.GaussianMixture(q.components, q.weight, (1, 2, 2))
    monkeypatch.setattr(lighter.hs.zoo, "images", lambda name: (images, None))
    monkeypatch.setattr(lighter.hs, "fit", lambda x: q)
    monkeypatch.setattr(lighter, "CALLS", (3,))
    networks = {"zoo:fashion": q.denoise, "half width, sigma <= 3": q.denoise}
    scored = []

    def score(x: torch.Tensor) -> dict[str, float]:
        if len(scored) == 1:
            scored.append(x)
            raise Stop
        scored.append(x)
        return mean_of(x)

    with pytest.raises(Stop):
        lighter.compare(Result(tmp_path / "lighter.json", "lighter", {"n": 150}), networks, score, 2)
    lighter.compare(Result(tmp_path / "lighter.json", "lighter", {"n": 150}), networks, score, 2)
    rows = read(tmp_path / "lighter.json", "lighter")["rows"]
    assert len(scored) == 1 + len(rows) == 1 + 2 * (2 + 1)
    for row in rows:
        start = q.at(3.0) if row["start"] == "learned" else hs.Classic((1, 2, 2), 80.0)
        x = hs.sample(q.denoise, start, 150, row["nfe"], seed=row["seed"], batch=100)
        assert {name: row[name] for name in ("mean", "square")} == pytest.approx(mean_of(x), rel=1e-5)
    assert not list(tmp_path.rglob("*.npz"))


def test_plan_rows_are_paired_and_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut after its second row, the run ends with the rows of one that was not cut; all start from the same latents."""
    truth = exact_modes(2, 0)
    case = Case("gmm-2", truth.denoise, truth.at(2.0), truth, None, 60, 20)
    monkeypatch.setattr(plan, "NFE", (3,))
    monkeypatch.setattr(plan, "CHUNK", 25)
    monkeypatch.setattr(method, "SIGMA_MIN", (0.03,))
    whole, cut = Result(tmp_path / "whole/rows.json", "plan", {}), Result(tmp_path / "cut/rows.json", "plan", {})
    plan.evaluate(case, 0, whole)
    add = Result.add

    def stop(self: Result, key: str, row: dict) -> None:
        if len(self.rows) == 2:
            raise Stop
        add(self, key, row)

    with monkeypatch.context() as patch:
        patch.setattr(Result, "add", stop)
        with pytest.raises(Stop):
            plan.evaluate(case, 0, cut)
    again = Result(tmp_path / "cut/rows.json", "plan", {})
    assert len(again.rows) == 2
    plan.evaluate(case, 0, again)
    figures = ("key", "rmse", "median", "likelihood", "mode_tv", "swd", "minor")
    first, second = ([{name: row[name] for name in figures} for row in r.rows] for r in (whole, again))
    assert first == second
    assert whole.found == again.found
    z = case.latents(0)
    x = hs.integrate(case.denoiser, 80 * z, hs.log_uniform(80.0, 0.03, 3), hs.DPMpp2M())
    off = (x.double() - case.fine(80 * z).double()).square().mean().sqrt()
    row = next(row for row in whole.rows if (row["method"], row["grid"]) == ("2M from 80", "log 0.03"))
    assert row["rmse"] == pytest.approx(float(off), rel=1e-4)
    assert not list(tmp_path.rglob("*.npz"))


def test_committed_rows_are_those_that_a_run_would_make() -> None:
    """So the same command goes on with them, and the pages beside them come from them."""
    toy = read(convert.RESULTS / "toy/toy.json", "toy")["rows"]
    assert {row["key"] for row in toy} <= {task.key for task in tasks(WHOLE)}
    page = (convert.RESULTS / "toy/report.md").read_text()
    for name, problem in WHOLE.toys.items():
        assert "\n".join(law_section(problem, select(as_text(toy), law=name))) in page
    plans = read(convert.RESULTS / "plan/rows.json", "plan")
    made = {
        plan.key_of(name, int(seed), way)
        for name, law in plans["found"].items()
        for seed, sigma in law["horizons"].items()
        for way in (method.FINE, method.ZERO, *(w for nfe in method.NFE for w in method.methods(sigma, nfe)))
    }
    assert {row["key"] for row in plans["rows"]} == made
    read(convert.RESULTS / "lighter/lighter.json", "lighter")


def test_the_page_of_plans_comes_from_its_rows(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    held, folder = read(convert.RESULTS / "plan/rows.json", "plan"), convert.RESULTS / "plan"
    report(tmp_path, held["rows"], held["found"])
    for name in ("report.md", "plan.json"):
        assert (tmp_path / name).read_text() == (folder / name).read_text()


def test_old_tables_are_converted_once(tmp_path: Path) -> None:
    (tmp_path / "toy.csv").write_text(
        ",".join(["law", "train", "seed", "denoiser", "start", "solver", "nfe", "n", "gap", "kl", "seconds"])
        + "\ngmm-2,1000,0,exact,gmm,DDPM,22,500,0.25,nan,1.5\n"
    )
    convert.convert_toy(tmp_path)
    (row,) = read(tmp_path / "toy.json", "toy")["rows"]
    assert row == {
        "key": "gmm-2-1000-0-exact-gmm-DDPM-0", "machine": 0, "law": "gmm-2", "train": 1000, "seed": 0, "n": 500,
        "denoiser": "exact", "start": "gmm", "solver": "DDPM", "nfe": 22, "gap": 0.25, "seconds": 1.5,
    }  # fmt: skip
    assert not (tmp_path / "toy.csv").exists()
    convert.convert_toy(tmp_path)
