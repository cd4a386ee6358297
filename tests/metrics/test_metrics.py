"""Distances against closed forms: Gaussians, shifts, identical samples; symmetry; invariance to splitting."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from headstart import ops, zoo
from headstart.io.output import to_bytes
from headstart.metrics import (
    GradientFeatures,
    Moments,
    Statistics,
    frechet_distance,
    kernel_distance,
    max_sliced_wasserstein,
    memorization,
    neighbour_sheet,
    neighbours,
    sliced_wasserstein,
    statistics,
    tail_ratios,
)
from headstart.metrics.wasserstein import coupling, directions, unequal_axes
from headstart.start import Empirical


def normal(*shape: int, seed: int = 0) -> Tensor:
    return ops.normal(shape, seed, 0, dtype=torch.float64, device="cpu")


@pytest.mark.parametrize(("n", "d"), [(1, 1), (7, 3), (200, 33)])
def test_identical_samples_are_at_distance_zero(n: int, d: int) -> None:
    x = normal(n, d)
    assert sliced_wasserstein(x, x.flip(0)) == pytest.approx(0, abs=1e-12)
    assert max_sliced_wasserstein(x, x.flip(0), steps=3).distance == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (2, 3), (4, 4), (6, 9), (5, 1)])
def test_coupling_has_the_right_marginals(n: int, m: int) -> None:
    left, right, mass = coupling(n, m)
    assert torch.allclose(torch.zeros(n).double().index_add(0, left, mass), torch.full((n,), 1 / n).double())
    assert torch.allclose(torch.zeros(m).double().index_add(0, right, mass), torch.full((m,), 1 / m).double())
    assert (left.diff() >= 0).all()
    assert (right.diff() >= 0).all()


def test_unequal_numbers_equal_repeated_samples() -> None:
    x, y = normal(6, 3), normal(4, 3, seed=1)
    repeated = sliced_wasserstein(x.repeat(2, 1), y.repeat(3, 1))
    assert sliced_wasserstein(x, y) == pytest.approx(repeated, rel=1e-12)


@pytest.mark.parametrize("d", [1, 2, 40])
def test_shift_moves_by_its_projection(d: int) -> None:
    x, shift, v = normal(300, d), normal(1, d, seed=1), directions(64, d)
    expected = float((v @ shift[0]).square().mean().sqrt())
    assert sliced_wasserstein(x, x + shift, v=v) == pytest.approx(expected, rel=1e-10)
    found = max_sliced_wasserstein(x, x + shift)
    assert found.distance == pytest.approx(float(shift.norm()), rel=1e-6)
    assert abs(float(found.direction @ shift[0])) == pytest.approx(float(shift.norm()), rel=1e-6)


def test_bulk_leaves_out_the_tails() -> None:
    """Of W2(x, x scaled by 2) on N(0, 1), the part between quantiles a and 1 - a is `int z^2 phi(z) dz` there."""
    x = torch.special.ndtri((torch.arange(20_000).double() + 0.5) / 20_000)[:, None]
    z = float(torch.special.ndtri(torch.tensor(0.9).double()))
    inside = 0.8 - 2 * z * math.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    found = sliced_wasserstein(x, 2 * x[:15_000:2], v=torch.ones(1, 1).double(), bulk=(0, 1))
    assert found > 0.4  # another law: the check below is not empty
    assert sliced_wasserstein(x, 2 * x, bulk=(0.1, 0.9)) == pytest.approx(math.sqrt(inside), rel=1e-3)
    outlier = torch.cat([x, x.new_tensor([[1e6]])])
    assert sliced_wasserstein(x, outlier, bulk=(0.1, 0.9)) < 1e-3
    found = max_sliced_wasserstein(torch.cat([x, x.flip(0)], 1), torch.cat([x, 2 * x.flip(0)], 1), bulk=(0.1, 0.9))
    assert found.distance == pytest.approx(math.sqrt(inside), rel=0.02)


def test_tail_ratios_of_a_scaled_sample_are_the_scale() -> None:
    x, v = normal(40_000, 3), directions(1, 3)[0]
    x = x - (x @ v).median() * v
    ratio = tail_ratios(3 * x, x, v)
    assert list(ratio) == [0.9, 0.99, 0.999]
    assert all(value == pytest.approx(3, rel=1e-12) for value in ratio.values())


def test_sliced_distance_between_gaussians_matches_the_closed_form() -> None:
    d, scale, shift = 5, 1.7, 0.8
    x, y = normal(9000, d), scale * normal(8000, d, seed=1) + shift / math.sqrt(d)
    expected = math.sqrt((scale - 1) ** 2 + shift**2 / d)  # E over v of (scale - 1)^2 + (v . shift)^2
    assert sliced_wasserstein(x, y, projections=400) == pytest.approx(expected, rel=0.03)


def test_max_sliced_finds_a_stretched_axis() -> None:
    d = 60
    x, y = normal(2000, d), normal(2000, d, seed=1)
    axis = directions(1, d, seed=5)[0]
    found = max_sliced_wasserstein(x, y + 2 * (y @ axis)[:, None] * axis)
    assert found.distance == pytest.approx(2.0, rel=0.08)
    assert abs(float(found.direction @ axis)) > 0.95
    assert found.distance >= sliced_wasserstein(x, y + 2 * (y @ axis)[:, None] * axis)


def test_distances_are_symmetric_and_seeded() -> None:
    x, y = normal(50, 2, 3, 3), normal(70, 2, 3, 3, seed=1) * 2
    assert sliced_wasserstein(x, y, seed=3) == pytest.approx(sliced_wasserstein(y, x, seed=3), rel=1e-12)
    assert sliced_wasserstein(x, y, seed=3) == sliced_wasserstein(x, y, seed=3)
    assert sliced_wasserstein(x, y, seed=3) != sliced_wasserstein(x, y, seed=4)
    assert torch.equal(directions(5, 7), directions(9, 7)[:5])
    p, q = statistics(x), statistics(y)
    assert frechet_distance(p, q) == pytest.approx(frechet_distance(q, p), rel=1e-9)


def test_frechet_distance_of_gaussians() -> None:
    turn = torch.linalg.qr(normal(6, 6)).Q
    a, b = torch.linspace(0.1, 3, 6).double(), torch.linspace(2, 0, 6).double()
    m = normal(6, seed=2)
    p = Statistics(m, turn @ a.diag() @ turn.T, 10)
    q = Statistics(torch.zeros(6).double(), turn @ b.diag() @ turn.T, 10)
    expected = float(m.square().sum() + (a.sqrt() - b.sqrt()).square().sum())
    assert frechet_distance(p, q) == pytest.approx(expected, rel=1e-7)  # a zero eigenvalue: root of rounding
    assert frechet_distance(p, p) == pytest.approx(0, abs=1e-10)


def test_frechet_distance_of_covariances_that_do_not_commute() -> None:
    from scipy.linalg import sqrtm

    a, b = (statistics(normal(30, 5, seed=seed)).covariance for seed in (0, 1))
    zero = torch.zeros(5).double()
    expected = float(a.trace() + b.trace()) - 2 * float(sqrtm((a @ b).numpy()).real.trace())
    assert frechet_distance(Statistics(zero, a, 30), Statistics(zero, b, 30)) == pytest.approx(expected, rel=1e-9)


def test_statistics_do_not_depend_on_the_batch() -> None:
    x = normal(37, 1, 4, 4).float()
    one, many = statistics(x, lambda part: part.flatten(1) * 2, batch=37), statistics(x * 2, batch=5)
    assert torch.allclose(one.mean, many.mean)
    assert torch.allclose(one.covariance, torch.cov(2 * x.flatten(1).double().T))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sliced_wasserstein(torch.zeros(3, 2), torch.zeros(3, 4)), "y must be"),
        (lambda: sliced_wasserstein(torch.zeros(0, 2), torch.zeros(3, 2)), "not empty"),
        (lambda: max_sliced_wasserstein(torch.zeros(3, 2), torch.full((3, 2), math.nan)), "finite"),
        (lambda: sliced_wasserstein(torch.zeros(3, 2), torch.zeros(3, 2), bulk=(0.9, 0.1)), "bulk"),
        (lambda: tail_ratios(torch.zeros(3, 2), torch.zeros(3, 2), torch.zeros(3)), "direction"),
        (lambda: statistics(torch.zeros(1, 2)), "at least 2"),
        (lambda: statistics(torch.zeros(4, 2), lambda x: x[:1]), "features"),
        (lambda: frechet_distance(statistics(torch.rand(4, 2)), statistics(torch.rand(4, 3))), "2 features"),
        (
            lambda: memorization(normal(3, 2), normal(3, 2), normal(9, 2)),
            "at least 100 points, got 9",
        ),
        (lambda: memorization(normal(3, 2), normal(3, 4), normal(100, 2)), "y must be"),
        (lambda: GradientFeatures.fit(torch.zeros(9, 1, 8, 8)), "N > 32"),
        (lambda: kernel_distance(normal(4, 2), normal(4, 3)), r"\[4, 2\] and \[4, 3\]"),
        (lambda: kernel_distance(normal(4, 2), normal(4, 2), subset=3), "half the smaller set, 2, got 3"),
        (lambda: kernel_distance(normal(4, 2), torch.full((4, 2), math.inf)), "finite"),
        (lambda: neighbours(normal(4, 2), normal(3, 2), 4), "count"),
        (lambda: statistics([normal(4, 2), normal(4, 3)]), r"must be \[B, 2\]"),
    ],
)
def test_wrong_input_is_named(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]


def test_gradient_features_see_blur_and_noise() -> None:
    train, test = zoo.images("fashion")[0], zoo.images("fashion", "test")[0]
    features = GradientFeatures.fit(train)
    reference = statistics(test, features)
    real = train[:400]
    kernel = torch.tensor([0.2, 0.6, 0.2])
    blurred = torch.nn.functional.conv2d(real, (kernel[:, None] * kernel)[None, None], padding=1)
    noisy = real + 0.1 * normal(*real.shape).float()
    floor, blur, noise = (frechet_distance(statistics(x, features), reference) for x in (real, blurred, noisy))
    assert blur > 3 * floor
    assert noise > 3 * floor


def test_memorization_tells_copies_from_fresh_samples() -> None:
    train, heldout, fresh = normal(500, 3, 2), normal(400, 3, 2, seed=1), normal(600, 3, 2, seed=2)
    alike = memorization(fresh, train, heldout)
    assert alike.ratio == pytest.approx(1, abs=0.1)
    assert alike.copies < 0.04
    brute = (fresh.flatten(1)[:, None] - train.flatten(1)).norm(dim=2).min(1).values
    torch.testing.assert_close(alike.samples, brute)
    near = memorization(train[:100] + 0.01 * fresh[:100], train, heldout)
    assert near.ratio < 0.05
    assert near.copies == 1
    assert memorization(train, train, heldout).ratio == 0  # exactly: no expanded square
    half = memorization(torch.cat([train[:300], 5 + fresh[:300]]), train, heldout)
    assert half.copies == pytest.approx(0.5)
    drawn = Empirical(train).at(0.0).sample(200)
    assert memorization(drawn, train, heldout).copies == 1
    assert memorization(3 * fresh, train, heldout).ratio > 1.5


def test_memorization_does_not_depend_on_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    train, heldout, fresh = normal(50, 3), normal(120, 3, seed=1), normal(60, 3, seed=2)
    whole = memorization(fresh, train, heldout)
    monkeypatch.setattr("headstart.metrics.neighbour.CHUNK_BYTES", 8 * 50 * 7)
    assert torch.equal(memorization(fresh, train, heldout).samples, whole.samples)


@pytest.mark.parametrize(("n", "m", "shift"), [(30, 30, 0.0), (30, 50, 0.0), (30, 50, 0.5)])
def test_kernel_distance_is_unbiased_and_knows_its_error(n: int, m: int, shift: float) -> None:
    """Draws from two laws on five points each, whose distance is a finite sum."""
    points, runs = normal(5, 3), 300
    p, q = points, points + shift
    kernel = [(a @ b.T / 3 + 1).pow(3).mean() for a, b in ((p, p), (q, q), (p, q))]
    generator = torch.Generator().manual_seed(0)
    found = [
        kernel_distance(*(law[torch.randint(5, (size,), generator=generator)] for law, size in ((p, n), (q, m))))
        for _ in range(runs)
    ]
    values = torch.tensor([one.value for one in found]).double()
    spread = float(values.std())
    assert abs(float(values.mean() - (kernel[0] + kernel[1] - 2 * kernel[2]))) < 4 * spread / math.sqrt(runs)
    error = math.sqrt(sum(one.error**2 for one in found) / runs)
    assert 0.85 * spread < error < 1.6 * spread


def test_kernel_distance_in_subsets_and_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = normal(90, 6), normal(100, 6, seed=1) + 0.3
    full, parts = kernel_distance(x, y), kernel_distance(x, y, subset=30)
    assert abs(full.value - parts.value) < 3 * (full.error + parts.error)
    assert parts == kernel_distance(x, y, subset=30)
    assert parts != kernel_distance(x, y, subset=30, seed=1)
    monkeypatch.setattr("headstart.metrics.frechet.CHUNK_BYTES", 8 * 100 * 7)
    assert kernel_distance(x, y) == pytest.approx(full, rel=1e-12)


def test_moments_of_a_stream_far_from_zero() -> None:
    """A mean of 1e6 and a variance of 1: squares of the values would leave no digits."""
    x = normal(1000, 4)
    streamed = statistics(iter((x + 1e6).split(7)))
    torch.testing.assert_close(streamed.covariance, torch.cov(x.T), rtol=1e-8, atol=1e-9)
    assert streamed.n == 1000
    moments = Moments()
    moments.add(x[:0])
    moments.add(x)
    assert torch.allclose(moments.statistics().mean, x.mean(0))


@pytest.mark.parametrize("chunk", [2**27, 8 * 50 * 7])
def test_distances_do_not_depend_on_the_chunk(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = normal(200, 50).float(), 1.2 * normal(150, 50, seed=1).float()
    whole = sliced_wasserstein(x, y), max_sliced_wasserstein(x, y, steps=4)
    monkeypatch.setattr("headstart.metrics.wasserstein.CHUNK_BYTES", chunk)
    monkeypatch.setattr("headstart.metrics.wasserstein.WHOLE_BYTES", 0)
    assert sliced_wasserstein(x, y) == pytest.approx(whole[0], rel=1e-12)
    assert max_sliced_wasserstein(x, y, steps=4).distance == pytest.approx(whole[1].distance, rel=1e-9)


def test_unequal_axes_are_found_without_covariances(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = normal(300, 40), normal(300, 40, seed=1)
    y[:, 3] *= 4
    x[:, 17] *= 3
    means = x.mean(0), y.mean(0)
    exact = unequal_axes(x, y, means, 2)
    monkeypatch.setattr("headstart.metrics.wasserstein.FULL_AXES", 8)
    found = unequal_axes(x, y, means, 2)
    assert torch.allclose((exact * found).sum(1).abs(), torch.ones(2).double(), atol=1e-6)
    assert found.abs().argmax(1).tolist() == [3, 17]


def test_neighbours_are_the_nearest_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    train, fresh = normal(80, 3, 2), normal(20, 3, 2, seed=1)
    fresh[4] = train[33]
    monkeypatch.setattr("headstart.metrics.wasserstein.CHUNK_BYTES", 8 * 6 * 30)  # the search goes in three parts
    found = neighbours(fresh, train, 5)
    brute = (fresh.flatten(1)[:, None] - train.flatten(1)).norm(dim=2)
    assert torch.equal(found.indices, brute.argsort(1)[:, :5])
    torch.testing.assert_close(found.distance, brute.sort(1).values[:, :5])
    assert (found.indices[4, 0], found.distance[4, 0]) == (33, 0)


def test_neighbour_sheet_shows_copies_first() -> None:
    train = zoo.images("fashion")[0][:60]
    samples = torch.cat([train[:3] * 0.5, train[7:8]])
    sheet = neighbour_sheet(samples, train, columns=2, count=2)
    assert sheet.shape == (3 * 30 + 2, 2 * 30 + 2, 1)
    pixels = to_bytes(train[7:8])[0]
    assert np.array_equal(sheet[2:30, 2:30], pixels)  # the sample nearest to a training image
    assert np.array_equal(sheet[32:60, 2:30], pixels)  # and that image below it
    with pytest.raises(ValueError, match="must be images"):
        neighbour_sheet(train.flatten(1), train.flatten(1))
