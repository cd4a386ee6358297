"""Tuning on the network: what it gains, what it refuses, what it costs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import headstart as hs
from conftest import random_components
from headstart.planning import tuning
from headstart.planning.measure import Exact
from headstart.planning.search import Unknowns
from headstart.planning.target import Merit, Whitened, across, feature_sets, moments, spaced
from headstart.planning.tuning import first_tables, stateless
from headstart.solver import Row

COMPONENTS = random_components("rank2", k=4, d=5, dtype=torch.float32)
LAW = hs.GaussianMixture(COMPONENTS, torch.tensor([0.1, 0.2, 0.3, 0.4]), (5,))
START = LAW.at(2.0)
DATA = LAW.at(0.0).sample(3000, seed=5)
CENTER = DATA.mean(0)


def table(nfe: int, sigma: float = 2.0) -> hs.Plan:
    grid = hs.log_uniform(sigma, 0.1, nfe).tolist()
    return hs.Plan(tuple(grid), tuple(hs.DPMpp2M().rows(grid)), None, 1.0, 1.0)


class Shrunk:
    """A network that smooths: predictions drawn to the mean, as those of a network too small are."""

    def __init__(self) -> None:
        self.rows = 0

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        self.rows += len(x)
        return CENTER + 0.93 * (LAW.denoise(x, sigma) - CENTER)


def errors(plan: hs.Plan, denoiser: Any, n: int = 500, seed: int = 11) -> float:
    begin = START.sample(n, seed)
    fine = hs.integrate(denoiser, begin, hs.karras(2.0, 0.01, 60), hs.Heun())
    return float((hs.sample(denoiser, START, n, plan=plan, seed=seed) - fine).square().mean(1).sqrt().mean())


def gap(x: torch.Tensor) -> float:
    """Distance of mean and covariance to the data's."""
    return float((x.mean(0) - CENTER).norm() + (torch.cov(x.T) - torch.cov(DATA.T)).norm())


@pytest.fixture(scope="module")
def paired() -> hs.Plan:
    return hs.tune(table(4), Exact(LAW), START, progress=False)


def test_tuned_to_the_network_it_is_nearer_on_fresh_latents(paired: hs.Plan) -> None:
    assert paired.nfe == 4
    assert errors(paired, Exact(LAW)) < 0.6 * errors(table(4), Exact(LAW))
    assert any(row.told is not None for row in paired.table)
    found = paired.provenance["tuned"]
    assert not found["kept"]
    assert found["held out"]["merit"] < found["given"]["merit"]
    assert paired.expected_error == found["held out"]["error"]
    assert paired.expected_error == pytest.approx(errors(paired, Exact(LAW)), rel=0.5)


def test_tuned_to_data_it_undoes_what_the_network_smooths() -> None:
    network = Shrunk()
    made = hs.tune(table(4), network, START, DATA, progress=False)
    spent, evaluations = network.rows, made.provenance["tuned"]["evaluations"]
    assert spent == evaluations <= made.provenance["tuned"]["planned"] <= 100_000
    before, after = (hs.sample(network, START, 4000, plan=plan, seed=21) for plan in (table(4), made))
    fine = hs.integrate(network, START.sample(4000, 21), hs.karras(2.0, 0.01, 40), hs.Heun())
    assert gap(after) < 0.5 * min(gap(before), gap(fine))


def test_data_do_not_fool_an_exact_law() -> None:
    """Where samples are as good as data, what is left is to stay near the fine solution."""
    given = hs.tune(table(5), Exact(LAW), START, progress=False)
    made = hs.tune(given, Exact(LAW), START, DATA, progress=False)
    assert errors(made, Exact(LAW)) <= 1.02 * errors(given, Exact(LAW))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_chance_in_one_set_of_latents_does_not_set_data_against_an_exact_law(seed: int) -> None:
    """Seed 2: samples of the second set of latents are farther from the data than real ones by chance."""
    made = hs.tune(table(5), Exact(LAW), START, DATA, seed=seed, progress=False)
    assert made.provenance["tuned"]["decided by"] == "distance"
    assert errors(made, Exact(LAW)) < 0.8 * errors(table(5), Exact(LAW))


def test_images_are_judged_by_what_no_step_went_down_on_and_fresh_ones_count_as_real() -> None:
    """Pixels whitened on a few images call fresh ones of the same law unreal, and texture that comes back too."""
    data, fresh = hs.zoo.images()[0], hs.zoo.images(split="test")[0][:200]
    own, other = feature_sets(data, None, 0)
    assert isinstance(own.features, hs.metrics.GradientFeatures)
    assert not isinstance(other.features, hs.metrics.GradientFeatures)
    soft = torch.nn.functional.avg_pool2d(fresh, 3, 1, 1)
    sharp = fresh + 0.5 * (fresh - soft)
    floor = other.floor(200, 0)
    assert float(other.residual(fresh).square().sum()) < 1.1 * floor
    for changed in (soft, sharp):
        assert float(other.residual(changed).square().sum()) > 1.5 * floor


def merit(distance: float, *excess: float) -> Merit:
    return Merit(distance, distance, excess, 0.1)


def test_moments_decide_where_the_given_plan_is_off_and_distances_where_it_is_not() -> None:
    given = merit(0.1, 3.0, 2.0)
    assert not given.real
    sharper, nearer = merit(0.2, 1.0, 1.2), merit(0.05, 1.0, 1.3)
    assert sharper.value(given) < nearer.value(given) < given.value(given)
    assert nearer.value(given, True) < given.value(given, True) < sharper.value(given, True)
    assert merit(0.2, 0.5, 1.4).value(given) > merit(0.2, 2.0, 1.2).value(given)  # only the second set decides
    assert merit(0.5, 1.0, 1.0).value(given) == float("inf")
    assert merit(0.09, 1.0, 1.0).value(merit(0.001, 3.0, 2.0)) < 1  # small against the data's spread
    assert merit(0.1, 1.05, 0.9).real
    assert not merit(0.1).real


@pytest.mark.parametrize("solver", [hs.IPNDM(), hs.DEIS(), hs.DPMpp2M()], ids=repr)
def test_rows_without_earlier_states_take_the_same_steps(solver: Any) -> None:
    grid = hs.karras(2.0, 0.1, 6).tolist()
    rows = stateless(solver.rows(grid))
    assert not any(row.states for row in rows)
    begin = START.sample(20, 3).double()
    plan = hs.Plan(tuple(grid), rows, None, 1.0, 1.0)
    whole, again = (hs.integrate(Exact(LAW), begin, grid, one) for one in (solver, plan))
    torch.testing.assert_close(again, whole, rtol=1e-5, atol=1e-5)


def test_moved_nodes_keep_what_all_predictions_agree_on() -> None:
    grid = hs.karras(2.0, 0.1, 4).tolist()
    unknowns = Unknowns.of(hs.Plan(tuple(grid), stateless(hs.DEIS(2).rows(grid)), None, 1.0, 1.0), False)
    moved = unknowns.rows([0.3, -0.2, 0.4] + [0.0] * (unknowns.size - 3))
    assert any(abs(row.a - low / row.sigma) > 0.01 for row, low in zip(moved, [*grid[1:], 0.0], strict=True))
    for row in moved:
        assert row.a + sum(row.b) == pytest.approx(1.0)


def test_peers_are_among_the_tables_it_may_begin_from() -> None:
    tables = first_tables(hs.Classic((5,)), 4, 0, True)
    assert {"DPMpp2M()", "IPNDM(steps=3)", "DEIS(steps=2)"} == {one.provenance["solver"] for one in tables}
    assert {one.provenance["solver"] for one in first_tables(hs.Classic((5,)), 9, 0, True)} == {"DPMpp2M()"}


def test_a_tuned_plan_knows_the_start_it_was_made_for(paired: hs.Plan) -> None:
    assert paired.made_for is not None
    assert paired.made_for.fingerprint == LAW.fingerprint
    assert paired.made_for.sigma == 2.0
    other = hs.GaussianMixture(random_components("rank2", k=4, d=5, dtype=torch.float32, seed=1), LAW.weight, (5,))
    with pytest.raises(ValueError, match="made for another start"):
        hs.sample(Exact(LAW), other.at(2.0), 3, plan=paired)
    classic = hs.tune(2, Exact(LAW), hs.Classic((5,)), progress=False, n=32, iterations=1)
    assert classic.made_for is None


def test_one_seed_one_plan(paired: hs.Plan) -> None:
    assert hs.tune(table(4), Exact(LAW), START, progress=False).table == paired.table
    assert hs.tune(table(4), Exact(LAW), START, seed=1, progress=False).table != paired.table


def test_a_perfect_plan_comes_back_as_it_was() -> None:
    def constant(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return torch.ones_like(x)

    given = table(3)
    made = hs.tune(given, constant, START, progress=False)
    assert made.table == given.table
    assert made.provenance["tuned"]["kept"]


@pytest.mark.parametrize("target", ["network", DATA])
def test_what_held_out_latents_do_not_confirm_is_refused(monkeypatch: pytest.MonkeyPatch, target: Any) -> None:
    given = table(3)
    worse = Unknowns.of(given, False).plan_at([0.5, 0.5, 0.3, 0.3, 0.2, 0.2, 0.2, 0.2, 0.2])
    monkeypatch.setattr(tuning, "search", lambda *_: (given, [], worse))
    made = hs.tune(given, Exact(LAW), START, target, progress=False)
    found = made.provenance["tuned"]
    assert made.table == given.table
    assert found["kept"]
    assert found["refused"]["merit"] > found["given"]["merit"]


def test_rows_of_a_condition_are_taken_in_turn_and_guidance_counts() -> None:
    seen = []

    def labelled(x: torch.Tensor, sigma: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        seen.append(label)
        return LAW.denoise(x, sigma) + 0.01 * label[:, None]

    network = hs.guided(labelled, 1.5, null={"label": 0})
    made = hs.tune(
        table(2), network, START, cond={"label": torch.tensor([1, 2, 3])}, progress=False, n=16, iterations=1
    )
    assert torch.equal(seen[0][:16], 1 + torch.arange(16) % 3)
    assert torch.equal(seen[0][16:], torch.zeros(16, dtype=torch.int64))
    assert sum(len(label) for label in seen) == made.provenance["tuned"]["evaluations"]


STARTS: dict[str, Any] = {
    "classic": (hs.Classic((5,)), Exact(LAW)),
    "uninformed": (hs.Classic((5,), 2.0), Exact(LAW)),
    "empirical": (hs.Empirical(DATA).at(2.0), Exact(LAW)),
    "student": (hs.StudentTMixture.fit(DATA, components=2, seed=0).at(2.0), Exact(LAW)),
    "mixture": (START, Exact(LAW)),
}


@pytest.mark.parametrize("name", STARTS)
@pytest.mark.parametrize("target", ["network", DATA], ids=["network", "data"])
def test_every_start_has_its_plan(name: str, target: Any) -> None:
    start, denoiser = STARTS[name]
    made = hs.tune(2, denoiser, start, target, progress=False, n=32, iterations=1)
    found = made.provenance["tuned"]
    assert found["held out"]["merit"] <= found["given"]["merit"]
    assert made.classic_error >= made.expected_error or target is DATA
    assert hs.sample(denoiser, start, 3, plan=made).isfinite().all()


def test_unknowns_at_zero_are_the_plan_and_each_moves_what_it_names() -> None:
    given = table(3)
    for free in (False, True):
        unknowns = Unknowns.of(given, free)
        assert unknowns.size == 4 + (6 if free else 5)
        assert unknowns.plan_at([0.0] * unknowns.size) is given
        for row, same in zip(unknowns.rows([0.0] * unknowns.size), given.table, strict=True):
            assert row.told is None
            assert (row.sigma, row.a, *row.b) == pytest.approx((same.sigma, same.a, *same.b))
    unknowns = Unknowns.of(given, False)
    moved = unknowns.rows([0.0, 0.0, 0.1, 0.0, 0.02, 0.0, 0.3, 0.0, 0.0])
    t, s = given.nodes[1:3]
    assert moved[1].told == pytest.approx(t * 2.718281828**0.1)
    assert moved[0].b[0] == pytest.approx(given.table[0].b[0] * 1.02)
    change = [b - was for b, was in zip(moved[1].b, given.table[1].b, strict=True)]
    assert change == pytest.approx([(1 - s / t) * 0.3, -(1 - s / t) * 0.3])
    assert unknowns.nodes([0.2] + [0.0] * 8)[1] < given.nodes[1]


def test_moments_of_real_samples_are_at_their_floor_and_minor_directions_count() -> None:
    whitened = Whitened.of(lambda x: x.flatten(1), DATA, across)
    fresh = LAW.at(0.0).sample(400, seed=9)
    least = min(range(5), key=lambda j: float(whitened.axes[:, j].norm() ** -1))
    direction = (whitened.axes[:, least] / whitened.axes[:, least].norm()).float()
    flat = fresh - 0.5 * ((fresh - CENTER) @ direction)[:, None] * direction
    floor = whitened.floor(400, 0)
    assert float(whitened.residual(fresh).square().sum()) < 1.5 * floor
    assert float(whitened.residual(flat).square().sum()) > 3 * floor
    y = torch.randn(50_000, 3, generator=torch.Generator().manual_seed(0)).double()
    assert moments(y).norm() < 0.05
    assert moments(y @ torch.tensor([[1.0, 0.5, 0], [0, 1, 0], [0, 0, 1]]).double())[6] == pytest.approx(0.35, abs=0.02)
    assert spaced(16, 784, 16)[-1] == 783


def test_data_may_be_a_numpy_array() -> None:
    small: Any = {"n": 8, "iterations": 1, "progress": False}
    plans = [hs.tune(table(3), Exact(LAW), START, data, **small) for data in (DATA, DATA.numpy())]
    assert plans[0].table == plans[1].table


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((0, Exact(LAW), START), {}, "plan must be"),
        ((4, Exact(LAW), LAW), {}, "start must be"),
        ((4, Exact(LAW), START, "data"), {}, "target must be"),
        ((4, Exact(LAW), START, DATA[:, :3]), {}, "target must be"),
        ((4, Exact(LAW), START, DATA * float("nan")), {}, "target must be"),
        ((4, Exact(LAW), START, DATA.long()), {}, "target must be finite floating data"),
        ((4, Exact(LAW), START, DATA.numpy()[:, :3]), {}, "target must be finite floating data"),
        ((4, Exact(LAW), START, [0.0]), {}, "target must be"),
        ((True, Exact(LAW), START), {}, "tune: plan must be"),
        ((4, Exact(LAW), START), {"steps": 3}, "options must be among"),
        ((4, Exact(LAW), START), {"features": torch.abs}, "features must go with data"),
        ((4, Exact(LAW), START), {"n": 4}, "n must be"),
        ((4, Exact(LAW), START), {"seed": -1}, "seed"),
        ((table(4, 3.0), Exact(LAW), START), {}, "begins at noise level"),
        ((table(4), Exact(LAW), START), {"budget": 500}, "budget must be at least"),
    ],
)
def test_tune_refuses_before_any_call(arguments: tuple, options: dict, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        hs.tune(*arguments, **options)


def test_a_plan_with_free_history_keeps_it() -> None:
    given = hs.Plan((2.0, 0.5, 0.0), (Row(2.0, 0.25, (0.75, 0.1, -0.1)), Row(0.5, 0.0, (1.2, -0.2))), 3.6, 1.0, 1.0)
    made = hs.tune(given, Exact(LAW), START, progress=False, n=32, iterations=2)
    assert made.ghost == 3.6
    assert [len(row.b) for row in made.table] == [3, 4]
    assert errors(made, Exact(LAW)) < errors(given, Exact(LAW))
