"""Plans: what they gain on the start's own flow, their rows, their files, their bits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import headstart as hs
from conftest import random_components
from headstart.planning.flow import reduce_flow
from headstart.planning.measure import Exact
from headstart.planning.table import PlanTable
from headstart.solver import Row


def mixture(kind: str = "rank2", classes: bool = False) -> hs.GaussianMixture:
    components = random_components(kind, k=4, d=5, dtype=torch.float32)
    weight = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1]])
    return hs.GaussianMixture(components, weight[0], (5,), weight if classes else None)


LAW = mixture()


@pytest.fixture(scope="module")
def far() -> hs.Plan:
    return hs.plan(LAW.at(2.0), nfe=5, sigma_start=80.0)


@pytest.fixture(scope="module")
def near() -> hs.Plan:
    return hs.plan(LAW.at(2.0), nfe=4, sigma_start=2.0)


def errors(law: hs.GaussianMixture, start: Any, n: int = 400, seed: int = 11, **how: Any) -> torch.Tensor:
    """Root-mean-square distance of each sample to the fine solution from the same state."""
    begin = start.sample(n, seed)
    fine = hs.integrate(law.denoise, begin.double(), hs.log_uniform(start.sigma, 0.002, 150), hs.Heun())
    return (hs.sample(Exact(law), start, n, seed=seed, **how) - fine).square().mean(1).sqrt()


def test_a_plan_beats_the_best_classic_grid_with_as_many_calls(far: hs.Plan) -> None:
    classic = min(
        float(errors(LAW, hs.Classic((5,)), grid=make(80.0, low, 5)).mean())
        for make in (hs.log_uniform, hs.karras)
        for low in (0.02, 0.05, 0.1, 0.2, 0.4)
    )
    assert far.nfe == 5
    assert far.mode == "from 80"
    assert float(errors(LAW, hs.Classic((5,)), plan=far).mean()) < 0.7 * classic


def test_a_plan_with_free_history_beats_the_start_with_2m(near: hs.Plan) -> None:
    start = LAW.at(2.0)
    assert near.mode == "from 2 with free history"
    plain = min(float(errors(LAW, start, grid=hs.log_uniform(2.0, low, 4)).mean()) for low in (0.02, 0.05, 0.1, 0.2))
    assert float(errors(LAW, start, plan=near).mean()) < 0.7 * plain


def test_the_expected_error_is_what_fresh_states_show(far: hs.Plan, near: hs.Plan) -> None:
    for plan, start in ((far, hs.Classic((5,))), (near, LAW.at(2.0))):
        measured = float(errors(LAW, start, n=2000, plan=plan).mean())
        assert plan.expected_error == pytest.approx(measured, rel=0.3)


def test_coefficients_of_a_row_sum_to_one(far: hs.Plan, near: hs.Plan) -> None:
    for plan in (far, near):
        for row, sigma_next in zip(plan.table, plan.nodes[1:], strict=True):
            assert row.a + sum(row.b) == pytest.approx(1.0, abs=1e-12)
            assert row.a == pytest.approx(sigma_next / row.sigma)
            assert row.c == 0
        assert plan.table[-1].a == 0
    assert [len(row.b) for row in far.table[:2]] == [1, 2]
    assert [len(row.b) for row in near.table[:3]] == [3, 4, 3]


def test_the_same_seed_gives_the_same_plan(near: hs.Plan) -> None:
    again = hs.plan(LAW.at(2.0), nfe=4, sigma_start=2.0)
    assert again.table == near.table
    assert again.expected_error == near.expected_error
    assert hs.plan(LAW.at(2.0), nfe=4, sigma_start=2.0, seed=1).table != near.table


@pytest.mark.parametrize("kind", ["rank2", "full", "diagonal", "isotropic"])
def test_the_flow_is_the_mixtures(kind: str) -> None:
    law = mixture(kind).to(dtype=torch.float64)
    flow, x = reduce_flow(law), torch.randn(50, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    center = law.weight @ law.components.mean
    for sigma in (0.1, 1.0, 20.0):
        expected = law.denoise(sigma * x + center, sigma) - center
        got = flow.denoise((sigma * x).to(flow.mean), sigma).double()
        assert torch.allclose(got, expected, atol=1e-4)


def test_the_reduced_flow_is_exact_where_the_law_is_flat(monkeypatch: pytest.MonkeyPatch) -> None:
    """A law whose axes and means span few coordinates loses nothing but its isotropic part."""
    monkeypatch.setattr("headstart.planning.flow.SMALL", 10)
    monkeypatch.setattr("headstart.planning.flow.COORDINATES", 8)
    monkeypatch.setattr("headstart.planning.flow.REST", 2)
    small, spin = random_components("rank3", k=2, d=8), torch.linalg.qr(torch.randn(20, 20).double()).Q[:8]
    assert small.axes is not None
    law = hs.GaussianMixture(
        hs.ops.Components(small.mean @ spin, small.variance, small.axes @ spin, small.spread), torch.ones(2), (20,)
    )
    flow = reduce_flow(law)
    wide = [torch.nn.functional.pad(part, (0, 2)) for part in (small.mean, small.axes)]
    alone = hs.GaussianMixture(hs.ops.Components(wide[0], small.variance, wide[1], small.spread), torch.ones(2), (10,))
    center = (0.5 * wide[0]).sum(0)
    moments = (flow.mean @ flow.mean.mT).double()
    centred = wide[0] - center
    assert torch.allclose(moments, centred @ centred.mT, atol=1e-4)
    assert flow.denoise(torch.zeros(1, 10).to(flow.mean), 0.7).double().norm() == pytest.approx(
        float((alone.denoise(center[None], 0.7) - center).norm()), abs=1e-4
    )


@pytest.mark.parametrize("minor", [0.0, 4.0])
def test_errors_count_in_deviations_and_for_the_coordinates_left_out(
    monkeypatch: pytest.MonkeyPatch, minor: float
) -> None:
    """An error of one in every coordinate of a diagonal law, reduced: ones, and ones over variances."""
    monkeypatch.setattr("headstart.planning.flow.SMALL", 10)
    monkeypatch.setattr("headstart.planning.flow.COORDINATES", 3)
    monkeypatch.setattr("headstart.planning.flow.REST", 2)
    monkeypatch.setattr("headstart.planning.flow.MINOR", minor)
    axes, spread = torch.eye(20).double()[:3][None], torch.tensor([[8.0, 3.0, 1.0]]).double()
    components = hs.ops.Components(torch.zeros(1, 20).double(), torch.full((1, 1), 0.5).double(), axes, spread)
    flow = reduce_flow(hs.GaussianMixture(components, torch.ones(1), (20,)))
    along, rest = spread[0] + 0.5, 17 * 0.5
    scale = float(along.sum() + rest) / 20
    expected = (1 + minor * scale * float((1 / along).sum() + 17 / 0.5) / 20) / (1 + minor)
    error = torch.tensor([[1.0, 1.0, 1.0, 1.0, 1.0]]).double()
    assert float(flow.square(error)) == pytest.approx(expected, rel=1e-6)


def test_table_and_rows_are_the_same_steps() -> None:
    flow = reduce_flow(LAW)
    for free in (False, True):
        table = PlanTable.of_grid([2.0, 1.1, 0.6, 0.3, 0.1, 0.0], free)
        table.bend = torch.randn(5, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 0.3
        x = torch.randn(7, 5, generator=torch.Generator().manual_seed(2)) * 2
        ghosts = [flow.denoise(x, 2.0), flow.denoise(1.8 * x, 3.6)] if free else []
        state, history = x, list(ghosts)
        for row in table.rows():
            history = [flow.denoise(state, float(row.sigma or 0)), *history]
            state = row.a * state + sum(b * d for b, d in zip(row.b, history, strict=False))
        assert torch.allclose(state, table.run(flow, x, ghosts), atol=1e-5)


def test_a_saved_plan_is_equal_and_runs_the_same(near: hs.Plan, tmp_path: Path) -> None:
    near.save(tmp_path / "plan.json")
    loaded = hs.load_plan(tmp_path / "plan.json")
    assert loaded == near
    assert torch.equal(*(hs.sample(Exact(LAW), LAW.at(2.0), 9, plan=one) for one in (loaded, near)))
    with pytest.raises(AttributeError):
        near.nodes = ()  # type: ignore[misc]
    with pytest.raises(TypeError):
        near.provenance["seed"] = 3  # type: ignore[index]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "not a plan"),
        ({"version": 99}, "upgrade headstart"),
        ({"version": None}, "not a plan"),
        ({"nodes": [1.0, 2.0, 0.0]}, "damaged"),
        ({"rows": []}, "damaged"),
        ({"ghost": 0.1}, "damaged"),
        ({"expected_error": "low"}, "damaged"),
        ({"rows": [{"sigma": 2.0, "a": float("nan"), "b": [1.0], "c": 0.0, "commit": True}] * 4}, "damaged"),
    ],
)
def test_bad_files_are_refused(near: hs.Plan, tmp_path: Path, change: dict, message: str) -> None:
    path = tmp_path / "plan.json"
    near.save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=message):
        hs.load_plan(path)


def test_truncated_and_absent_files_are_refused(near: hs.Plan, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    near.save(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match="truncated"):
        hs.load_plan(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="no JSON"):
        hs.load_plan(path)
    with pytest.raises(FileNotFoundError):
        hs.load_plan(tmp_path / "absent.json")


def test_planned_samples_do_not_depend_on_the_batch_and_count_their_calls(near: hs.Plan) -> None:
    net_calls = []

    def denoiser(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        net_calls.append(float(sigma))
        return Exact(LAW)(x, sigma)

    whole, info = hs.sample(denoiser, LAW.at(2.0), 10, plan=near, return_info=True)
    assert info.nfe == 4
    assert net_calls == pytest.approx(list(near.nodes[:-1]))
    assert torch.allclose(whole, hs.sample(denoiser, LAW.at(2.0), 10, plan=near, batch=3), atol=1e-5)


def test_latents_keep_their_images_from_either_start(far: hs.Plan, near: hs.Plan) -> None:
    z = hs.ops.normal((200, 5), 3, 0, device="cpu")
    ends = [hs.sample(Exact(LAW), LAW.at(2.0), 200, plan=plan, latents=z) for plan in (far, near)]
    fine = hs.integrate(LAW.denoise, 80 * z.double(), hs.log_uniform(80.0, 0.002, 200), hs.Heun())
    for end in ends:
        assert (end - fine).square().mean(1).sqrt().median() < 0.1


def test_one_step_and_classes() -> None:
    assert hs.plan(LAW, nfe=1).nodes == (80.0, 0.0)
    law = mixture(classes=True)
    plan = hs.plan(law.given(1).at(2.0), nfe=2, sigma_start=2.0)
    label = torch.tensor([0, 1, 1])
    x = hs.sample(Exact(law), law.at(2.0), 3, plan=plan, cond={"label": label})
    assert torch.allclose(
        x[1:], hs.sample(Exact(law.given(1)), law.given(1).at(2.0), 2, plan=plan, offset=1), atol=1e-5
    )


def test_a_network_that_disagrees_is_planned_for_from_80() -> None:
    heldout = LAW.at(0.0).sample(64, seed=5)

    def biased(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return LAW.denoise(x, sigma) + 2.0

    agreeing = hs.plan(LAW.at(2.0), nfe=3, denoiser=Exact(LAW), heldout=heldout)
    assert agreeing.ghost is not None
    assert agreeing.provenance["calibration"]["displacement"] == pytest.approx(0.0, abs=1e-4)
    apart = hs.plan(LAW.at(2.0), nfe=3, denoiser=biased, heldout=heldout)
    assert apart.mode == "from 80"
    assert apart.provenance["calibration"]["displacement"] > 1
    assert apart.provenance["calibration"]["noise"] > agreeing.provenance["calibration"]["noise"]
    tried = apart.provenance["on the network"]
    assert len(tried) == 2
    assert str(apart.provenance["noise"]) == min(tried, key=tried.get)


def test_a_plan_is_made_where_gradients_are_off(near: hs.Plan) -> None:
    with torch.no_grad():
        assert hs.plan(LAW.at(near.sigma), near.nfe, near.sigma).table == near.table


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nfe": 0}, "nfe must be"), ({"nfe": 2.5}, "nfe must be"), ({"sigma_start": 5.0}, "sigma_start must be"),
        ({"seed": -1}, "seed"), ({"denoiser": Exact(LAW)}, "given together"),
        ({"denoiser": Exact(LAW), "heldout": torch.zeros(4, 3)}, "heldout must be"),
    ],
)  # fmt: skip
def test_plan_refuses(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hs.plan(LAW.at(2.0), **options)


def test_sample_refuses_a_plan_that_does_not_fit(far: hs.Plan, near: hs.Plan) -> None:
    with pytest.raises(ValueError, match=r"begins at a mixture's \.at\(2\)"):
        hs.sample(Exact(LAW), LAW.at(3.0), 2, plan=near)
    with pytest.raises(ValueError, match="begins at"):
        hs.sample(Exact(LAW), hs.Classic((5,), 2.0), 2, plan=near)
    with pytest.raises(ValueError, match="its own grid"):
        hs.sample(Exact(LAW), LAW.at(2.0), 2, steps=7, plan=near)
    with pytest.raises(ValueError, match="must be the plan's nodes"):
        hs.sample(Exact(LAW), hs.Classic((5,)), 2, grid=hs.log_uniform(80.0, 0.1, 5), solver=far)
    with pytest.raises(ValueError, match="deterministic step"):
        hs.Plan((1.0, 0.0), (Row(1.0, 0.0, (1.0,), 0.5),), None, 0.0, 0.0)
    with pytest.raises(TypeError, match="GaussianMixture"):
        hs.plan(hs.Classic((5,)))  # type: ignore[arg-type]


def test_a_plan_knows_its_start(far: hs.Plan, near: hs.Plan, tmp_path: Path) -> None:
    """The mixture it was made for in every form it takes, and no other; older files know none."""
    near.save(tmp_path / "plan")
    LAW.save(tmp_path / "start")
    again, read = hs.load_plan(tmp_path / "plan"), hs.load(tmp_path / "start")
    assert again.made_for == near.made_for
    wanted = hs.sample(Exact(LAW), LAW.at(2.0), 3, plan=near)
    assert torch.equal(hs.sample(Exact(LAW), read.at(2.0), 3, plan=again), wanted)
    hs.sample(Exact(LAW), LAW.to(dtype=torch.float64).at(2.0), 3, plan=near)
    hs.sample(Exact(LAW), mixture(classes=True).given(1).at(2.0), 3, plan=near)
    hs.sample(Exact(LAW), hs.Classic((5,)), 3, plan=far)
    moved = LAW.replace(components=LAW.components._replace(mean=LAW.components.mean + 1e-3))
    larger = hs.GaussianMixture(random_components("rank2", k=4, d=6, dtype=torch.float32), torch.ones(4), (6,))
    points = hs.Empirical(torch.randn(20, 5))
    for plan in (far, near, again):
        for other in (moved, mixture("diagonal")):
            for call in (hs.sample, lambda d, s, n, plan: hs.Sampler(d, s, plan=plan, batch=n), validated):
                with pytest.raises(ValueError, match=r"Plan: this plan was made for another start, .* of 4 components"):
                    call(Exact(other), other.at(2.0), 3, plan=plan)
        with pytest.raises(ValueError, match=r"made for samples \[5\], got a start of samples \[6\]"):
            hs.sample(Exact(larger), larger.at(2.0), 3, plan=plan)
    with pytest.raises(ValueError, match=r"another start, .*, got EmpiricalStart"):
        hs.sample(Exact(LAW), points.at(2.0), 3, plan=far)
    with pytest.raises(ValueError, match="made for samples"):
        hs.sample(Exact(LAW), hs.Classic((6,)), 3, plan=far)
    hs.sample(Exact(moved), moved.at(2.0), 3, plan=replace(near, made_for=None))
    text = json.loads((tmp_path / "plan").read_text())
    assert text.pop("made_for")["fingerprint"] == LAW.fingerprint
    (tmp_path / "old").write_text(json.dumps(text))
    old = hs.load_plan(tmp_path / "old")
    assert old.made_for is None
    hs.sample(Exact(moved), moved.at(2.0), 3, plan=old)
    (tmp_path / "bad").write_text(json.dumps({**text, "made_for": {"shape": [5], "components": 4, "sigma": 2.0}}))
    with pytest.raises(ValueError, match="damaged"):
        hs.load_plan(tmp_path / "bad")


def validated(denoiser: Any, start: Any, n: int, plan: hs.Plan) -> hs.Validation:
    return hs.validate(plan, denoiser, start, n)


def test_conditions_are_cut_to_the_points_that_are_used() -> None:
    """100 held-out points with a condition each, of which 64 are looked at."""
    seen = []

    def denoiser(x: torch.Tensor, sigma: torch.Tensor, text: list) -> torch.Tensor:
        seen.append((len(x), len(text)))
        return LAW.denoise(x, sigma)

    hs.plan(LAW.at(2.0), 1, denoiser=denoiser, heldout=LAW.at(0.0).sample(100), cond={"text": list(range(100))})
    assert seen
    assert all(rows == texts for rows, texts in seen)


def test_free_history_is_never_left_out(near: hs.Plan) -> None:
    grid = torch.tensor(near.nodes, dtype=torch.float64)
    with pytest.raises(ValueError, match="free history"):
        hs.sample(Exact(LAW), LAW.at(2.0), 2, grid=grid, solver=near)


def test_a_short_plan_may_do_without_free_history() -> None:
    plan = hs.plan(LAW.at(2.0), nfe=3, sigma_start=2.0, free_history=False)
    assert plan.mode == "from 2"
    assert plan.expected_error == pytest.approx(float(errors(LAW, LAW.at(2.0), plan=plan).mean()), rel=0.3)
    with pytest.raises(ValueError, match="begins at noise level 2"):
        hs.sample(Exact(LAW), LAW.at(3.0), 2, plan=plan)


def test_validation_on_the_network_itself(far: hs.Plan) -> None:
    """On the start's own law the plan gains; on a network that is nothing like it the gain is gone, and is said."""
    found = hs.validate(far, Exact(LAW), LAW.at(2.0), n=64)
    assert found.gain > 1.3
    assert found.calls == 4 * 5 + 63

    def other(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return x / (1 + sigma**2 / 9).to(x)

    assert hs.validate(far, other, LAW.at(2.0), n=64).gain < found.gain


def test_a_plan_is_a_solver(far: hs.Plan) -> None:
    grid = torch.tensor(far.nodes, dtype=torch.float64)
    classic = hs.Classic((5,))
    assert torch.equal(
        hs.sample(Exact(LAW), classic, 4, grid=grid, solver=far), hs.sample(Exact(LAW), classic, 4, plan=far)
    )
