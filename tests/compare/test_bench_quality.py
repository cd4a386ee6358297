"""headstart bench quality: what is compared, that a stopped run goes on, and what its rows are taken to say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from bench_case import SIGMA, tiny_quality
from headstart.compare import headline
from headstart.compare.case import Case
from headstart.compare.quality import NFE, STARTS, ways
from headstart.compare.score import Anchor, resamples
from headstart.compare.store import Result
from headstart.compare.way import METHODS, Way
from headstart.metrics import frechet_distance, kernel_distance, statistics
from headstart.solver import calls
from headstart.zoo import images
from headstart.zoo.network import classifier

FEW = [Way("alone", "none", "none", 0), Way("learned", "2M", "log", 3), Way("classic", "2M", "log", 3)]


@pytest.mark.parametrize(
    "way", [way for way in ways(NFE, STARTS, METHODS) if way.solver in METHODS], ids=lambda w: w.key
)
def test_a_way_makes_its_number_of_calls(way: Way) -> None:
    levels = way.levels(SIGMA).tolist()
    assert calls(METHODS[way.solver].solver.rows(levels)) == way.nfe
    assert (levels[0], levels[-1]) == (SIGMA, 0.0)


def test_the_most_telling_rows_come_first() -> None:
    order = [way.key for way in ways(NFE, STARTS, METHODS)]
    assert order[:3] == ["alone-none-none-0", "classic-Heun-rho7-79", "learned-2M-log-5"]
    assert len(order) == len(set(order))
    assert order.index("classic-2M-log-5") < order.index("uninformed-3M-log-5")


@pytest.mark.parametrize("given", [([5], ["learnt"], ["2M"]), ([5], ["classic"], ["4M"]), ([0], ["classic"], ["2M"])])
def test_unknown_names_are_refused(given: tuple[Any, Any, Any]) -> None:
    with pytest.raises(ValueError, match="bench: "):
        ways(*given)


def test_a_killed_run_goes_on_with_the_rows_that_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tiny_quality(tmp_path / "whole")
    whole.run(FEW, [0])
    drawn, draw = [], Case.draw

    def killed(self: Case, way: Way, *rest: Any) -> Any:
        drawn.append(way.key)
        if len(drawn) == 3:
            raise KeyboardInterrupt
        return draw(self, way, *rest)

    monkeypatch.setattr(Case, "draw", killed)
    with pytest.raises(KeyboardInterrupt):
        tiny_quality(tmp_path / "parts").run(FEW, [0])
    assert [row["key"] for row in tiny_quality(tmp_path / "parts").result.rows] == [f"{way.key}-0" for way in FEW[:2]]
    tiny_quality(tmp_path / "parts").run(FEW, [0])
    assert drawn == [way.key for way in FEW[:2]] + [FEW[2].key] * 2
    files = [json.loads((tmp_path / name / "quality.json").read_text()) for name in ("whole", "parts")]
    rows = [[{k: v for k, v in row.items() if k != "seconds"} for row in file["rows"]] for file in files]
    assert rows[0] == rows[1]


def test_a_limit_ends_a_run_between_rows(tmp_path: Path) -> None:
    quality = tiny_quality(tmp_path)
    assert not quality.run(FEW, [0], limit=-1.0)
    assert quality.result.rows == []


def test_transport_and_classic_show_the_same_latents(tmp_path: Path) -> None:
    """The exact denoiser of the mixture carries a latent to the same image from 80 and from the horizon."""
    quality = tiny_quality(tmp_path)
    far, near = (quality.case.draw(Way(s, "2M", "log", 39), 8, 0, 0)[0] for s in ("classic", "transport"))
    assert float((far - near).square().mean().sqrt()) < 0.05 * float(far.std())


def test_another_schema_or_setting_is_refused(tmp_path: Path) -> None:
    result = Result(tmp_path / "speed.json", "speed", {"n": 1})
    result.add("a", {})
    with pytest.raises(ValueError, match="other settings \\(n\\)"):
        Result(result.path, "speed", {"n": 2})
    with pytest.raises(ValueError, match="no file of headstart bench energy"):
        Result(result.path, "energy", {"n": 1})
    result.path.write_text(result.path.read_text().replace('"schema": 1', '"schema": 2'))
    with pytest.raises(ValueError, match="has schema 2, this headstart reads 1"):
        Result(result.path, "speed", {"n": 1})
    result.path.write_text("{")
    with pytest.raises(ValueError, match="truncated or no JSON text"):
        Result(result.path, "speed", {"n": 1})


@pytest.mark.parametrize(("n", "d"), [(30, 50), (60, 6)])
def test_replicates_are_distances_of_resampled_sets(n: int, d: int) -> None:
    generator = torch.Generator().manual_seed(3)
    x, y = torch.randn(n, d, generator=generator) + 0.2, torch.randn(200, d, generator=generator)
    reference = statistics(y)
    counts = [torch.ones(n, dtype=torch.int64), *resamples(n, 3, seed=5)]
    for value, count in zip(Anchor(reference).distances(x, counts), counts, strict=True):
        drawn = x.repeat_interleave(count, 0)
        assert len(drawn) == n
        assert value == pytest.approx(frechet_distance(statistics(drawn), reference), rel=1e-6)
    assert not torch.equal(counts[1], counts[2])


def test_the_kernel_distance_is_that_of_the_metrics(tmp_path: Path) -> None:
    score = tiny_quality(tmp_path).score
    x = score.embed(score.train.images[:50])
    assert score.kernel_distance(x) == pytest.approx(kernel_distance(x, score.test).value, rel=1e-9)


def row(start: str, nfe: int, fd: float, validation: float, solver: str = "2M", seed: int = 0) -> dict[str, Any]:
    moved = [fd - 0.5, fd + 0.5]
    return {"start": start, "solver": solver, "grid": "rho 7" if solver == "Heun" else "log", "nfe": nfe, "seed": seed,
            "fd": fd, "fd_validation": validation, "fd_replicates": moved, "n": 4}  # fmt: skip


def test_the_headline_picks_on_validation_and_reports_test() -> None:
    rows = [
        row("classic", 79, 5.0, 5.0, "Heun"), row("classic", 5, 9.0, 9.0), row("classic", 9, 4.9, 4.0),
        row("classic", 13, 3.0, 4.5), row("learned", 3, 7.0, 7.0), row("learned", 5, 4.8, 4.8),
        row("learned", 3, 1.0, 8.0, "UniPC"),
    ]  # fmt: skip
    found = {(entry["target"], entry["method"]): entry for entry in headline.headline(rows)}
    assert found["Heun, 79 calls", "learned"]["calls"] == 5  # UniPC's 1.0 at 3 calls was not picked
    assert found["Heun, 79 calls", "classic"]["calls"] == 9
    assert found["best classic", "learned"]["of"]["nfe"] == 9  # not 13, whose test distance is less
    assert found["best classic", "learned"]["fd"] == 4.9


def test_intervals_come_from_the_replicates() -> None:
    curve = {3: (4.0, [4.5, 3.5]), 5: (2.0, [2.5, 1.5])}
    assert headline.interval(curve, (3.9, [3.9, 3.9])) == (3, 5)
    assert headline.reached(curve, (1.0, [1.0, 1.0])) == float("inf")
    assert (
        headline.calls_text({"calls": None, "first": None, "low": 9, "high": None, "tried": 13}) == "> 13 (9 to > 13)"
    )


def test_calls_count_where_more_calls_hold_them() -> None:
    curve = {n: (fd, [fd, fd]) for n, fd in {3: 5.0, 5: 1.0, 7: 3.0, 9: 2.0, 13: 1.5}.items()}
    target = (2.0, [2.0, 4.0])
    assert (headline.reached(curve, target), headline.reached(curve, target, first=True)) == (9, 5)
    assert headline.interval(curve, target) == (5, 9)  # the second replicate's target is held from 5 on
    assert headline.reached({**curve, 39: (9.0, [9.0, 9.0])}, target) == float("inf")
    rows = [row("classic", 79, 2.0, 2.0, "Heun"), *(row("learned", n, fd, fd) for n, (fd, _) in curve.items())]
    found = {(e["target"], e["method"]): e for e in headline.headline(rows)}["Heun, 79 calls", "learned"]
    assert headline.calls_text({**found, "low": 9, "high": 9}) == "9, once at 5"
    assert found["way"][3] == 9


def test_a_budget_is_compared_on_common_seeds_above_the_floor() -> None:
    rows = [row("classic", 5, fd, fd, seed=s) for s, fd in enumerate((9.0, 11.0, 10.0))]
    rows += [row("classic", 5, 1.0, 20.0, "UniPC"), row("classic", 5, 1.0, 1.0, "3M", seed=7)]  # 3M: no common seed
    rows += [row("learned", 5, fd, fd, seed=s) for s, fd in enumerate((6.0, 6.0))]
    classic, learned = headline.budget([r for r in rows if r["solver"] != "3M"], 2.0)
    assert (classic["way"][1], classic["fd"], classic["seeds"]) == ("2M", 10.0, 2)  # UniPC was not picked
    assert (learned["fd"], learned["ratio"], learned["spread"]) == (6.0, 2.0, 0.0)
    assert (learned["low"], learned["high"]) == pytest.approx((8.5 / 4.5, 7.5 / 3.5))
    assert headline.budget(rows, 2.0) == []
    assert headline.budget(rows[:3], 2.0) == []
    (_, below) = headline.budget([row("classic", 3, 9.0, 9.0), row("learned", 3, 1.0, 1.0)], 2.0)
    assert below["ratio"] is None


def test_where_a_learned_start_no_longer_helps() -> None:
    rows = [row("classic", n, fd, fd) for n, fd in {3: 9.0, 5: 5.0, 9: 3.0, 13: 2.0, 79: 1.0}.items()]
    rows += [row("learned", n, fd, fd) for n, fd in {3: 4.0, 5: 6.0, 9: 2.9, 13: 2.5}.items()]
    found = headline.overtaken(rows)
    assert found is not None
    assert (found["nfe"], found["classic"], found["learned"]) == (13, 2.0, 2.5)  # not 5: at 9 it helps again
    assert headline.overtaken([r for r in rows if r["nfe"] < 13]) is None


def test_a_seed_that_was_cut_short_is_left_out() -> None:
    rows = [row("classic", 5, 1.0, 1.0), row("learned", 5, 1.0, 1.0), row("classic", 5, 9.0, 9.0, seed=1)]
    assert headline.full_seeds(rows) == {0}


def test_the_classifier_knows_most_of_the_test_images() -> None:
    x, labels = images("fashion", "test")
    with torch.no_grad():
        assert float((classifier()(x).argmax(1) == labels).double().mean()) > 0.85
