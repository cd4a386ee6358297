"""What the metrics take: units, types and arrays by one rule, and nothing that says 0 of what it cannot measure."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from headstart import ops, zoo
from headstart.metrics import (
    Evaluator,
    GradientFeatures,
    Statistics,
    evaluate,
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


def normal(*shape: int, seed: int = 0) -> Tensor:
    return ops.normal(shape, seed, 0, dtype=torch.float64, device="cpu")


def images(n: int = 120, seed: int = 0) -> Tensor:
    return (0.5 * normal(n, 1, 8, 8, seed=seed)).clamp(-1, 1).float()


X, Y = normal(130, 6), 1.5 * normal(130, 6, seed=1)
DISTANCES: dict[str, Callable[[Any, Any], Any]] = {
    "sliced_wasserstein": sliced_wasserstein,
    "max_sliced_wasserstein": lambda x, y: max_sliced_wasserstein(x, y, steps=2).distance,
    "kernel_distance": lambda x, y: kernel_distance(x, y).value,
    "tail_ratios": lambda x, y: tail_ratios(x, y, torch.ones(6), (0.5, 0.9)),
    "neighbours": lambda x, y: neighbours(x, y, 2).distance.tolist(),
    "memorization": lambda x, y: memorization(x, y, Y.flip(1)).ratio,
    "statistics": lambda x, y: frechet_distance(statistics(x), statistics(y)),
    "evaluate": lambda x, y: [figure.value for figure in evaluate(x, y, {"all": None}).figures],
}


@pytest.mark.parametrize("name", DISTANCES)
def test_arrays_are_taken_by_value(name: str) -> None:
    distance = DISTANCES[name]
    wanted = distance(X, Y)
    assert distance(X.numpy(), Y.numpy()) == wanted
    assert distance(X.flip(0).numpy()[::-1], Y) == wanted  # negative strides, which no tensor has
    assert distance(X.numpy().astype(">f8"), Y.numpy().astype(">f8")) == wanted


@pytest.mark.parametrize("name", DISTANCES)
def test_bytes_are_levels_of_pictures(name: str) -> None:
    levels, others = ((part.clamp(-1, 1) * 127.5 + 127.5).round() for part in (X, Y))
    wanted = DISTANCES[name](levels.float() / 127.5 - 1, others.float() / 127.5 - 1)
    assert DISTANCES[name](levels.byte(), others.byte()) == wanted
    assert DISTANCES[name](levels.byte().numpy(), others.float() / 127.5 - 1) == wanted


BAD: dict[str, Callable[[Tensor], Any]] = {
    "complex": lambda x: x + 5j,
    "int64": lambda x: x.long(),
    "bool": lambda x: x > 0,
    "sparse": lambda x: x.to_sparse(),
    "meta": lambda x: x.to("meta"),
    "list": lambda x: x.tolist(),
    "objects": lambda x: x.numpy().astype(object),
    "None": lambda x: None,
}


@pytest.mark.parametrize("name", DISTANCES)
@pytest.mark.parametrize("bad", BAD)
def test_what_has_no_values_is_refused_by_name(name: str, bad: str) -> None:
    for pair in ((BAD[bad](X), Y), (X, BAD[bad](Y))):
        with pytest.raises((TypeError, ValueError), match=r"^[a-z_]+: [a-z]+ must be "):
            DISTANCES[name](*pair)


UNITS: dict[str, Callable[[Tensor], Tensor]] = {
    "[0, 1]": lambda x: (x + 1) / 2,
    "[0, 255]": lambda x: (x + 1) * 127.5,
}


@pytest.mark.parametrize("units", UNITS)
def test_pictures_in_other_units_are_refused(units: str) -> None:
    samples, data = images(), images(seed=1)
    other = UNITS[units]
    for pair in ((other(samples), data), (samples, other(data))):
        with pytest.raises(ValueError, match="evaluate: samples and data must be in the same units"):
            evaluate(*pair)
    with pytest.raises(ValueError, match="evaluate: samples and data must be in the same units"):
        Evaluator(data, 20, train=other(samples))
    both = evaluate(other(samples), other(data)).figures[0].value  # one unit on both sides is a matter of scale
    scale = float(other(torch.ones(1)) - other(torch.zeros(1)))
    assert both == pytest.approx(scale * evaluate(samples, data).figures[0].value, rel=1e-5)


def test_bytes_of_zero_to_one_and_of_bytes_are_told_apart() -> None:
    samples, data = images(), images(seed=1)
    with pytest.raises(ValueError, match="same units"):
        evaluate((samples + 1) / 2, (data + 1) * 127.5)


def test_samples_of_another_law_are_scored() -> None:
    """Black pictures, saturated ones, and samples that explode are bad, not in other units."""
    data = images()
    for samples in (torch.full_like(data, -1), torch.zeros_like(data), 30 * images(seed=2), (2 * data).clamp(-1, 1)):
        assert evaluate(samples, data).figures[0].value > 0.1


@pytest.mark.parametrize("bad", ["[0, 255]", "complex", "flat"])
def test_gradient_features_take_pictures_in_their_range(bad: str) -> None:
    data = images()
    features = GradientFeatures.fit(data)
    wrong = {"[0, 255]": (data + 1) * 127.5, "complex": data + 1j, "flat": data.flatten(1)}[bad]
    for call in (features, GradientFeatures.fit):
        with pytest.raises((ValueError, TypeError), match=r"^GradientFeatures(\.fit)?: images must be"):
            call(wrong)


def test_gradient_features_of_bytes_and_arrays() -> None:
    levels = ((images() + 1) * 127.5).round().byte()
    floats = levels.float() / 127.5 - 1
    features, other = GradientFeatures.fit(floats), GradientFeatures.fit(levels.numpy())
    assert torch.equal(features.axes, other.axes)
    assert torch.equal(features(levels[:5]), features(floats[:5]))
    assert torch.equal(features(levels[:5].numpy()), features(floats[:5]))


def spots(n: int, seed: int, noise: float = 0.0) -> Tensor:
    """Black pictures with one bright spot in the middle: most of their features hardly vary."""
    move, width, grain = normal(n, 2, seed=seed), normal(n, seed=seed + 50).abs(), normal(n, 1, 32, 32, seed=seed + 90)
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    middle = (16 + 2 * move)[:, :, None, None]
    spot = torch.exp(-((y - middle[:, 0]) ** 2 + (x - middle[:, 1]) ** 2) / (8 * (1 + 0.3 * width[:, None, None])))
    return ((-1 + 1.6 * spot)[:, None] + noise * grain).float()


def test_features_that_hardly_vary_do_not_outweigh_the_others() -> None:
    train = spots(600, 0)
    with pytest.warns(UserWarning, match=r"GradientFeatures.fit: \d+ of 160 features hardly vary"):
        features = GradientFeatures.fit(train)
    raw = GradientFeatures(torch.zeros(160), torch.ones(160), torch.eye(160))(train).std(0)
    overall = float(raw.square().mean().sqrt())
    assert float(raw.min()) < 0.05 * overall  # the case is there
    assert float(features.scale.min()) >= 0.1 * overall * (1 - 1e-6)
    old = GradientFeatures(features.mean, raw + 1e-3, features.axes)
    reference, noisy = spots(300, 1), spots(300, 2, 0.01)
    jump, before = (frechet_distance(statistics(noisy, f), statistics(reference, f)) for f in (features, old))
    assert jump < 0.7 * before


def test_the_floor_leaves_ordinary_pictures_alone() -> None:
    train = zoo.images("fashion")[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        features = GradientFeatures.fit(train)
    raw = GradientFeatures(torch.zeros(160), torch.ones(160), torch.eye(160))(train).std(0)
    torch.testing.assert_close(features.scale, raw + 1e-3)


@pytest.mark.parametrize(
    "alike", [torch.zeros(120, 1, 8, 8), torch.full((120, 1, 8, 8), 0.5), images()[:1].expand(120, -1, -1, -1)]
)
def test_pictures_that_are_all_alike_have_no_features(alike: Tensor) -> None:
    with pytest.raises(ValueError, match=r"GradientFeatures.fit: images must differ"):
        GradientFeatures.fit(alike)


MEAN, COVARIANCE = torch.zeros(4).double(), torch.eye(4).double()
SOUND = Statistics(MEAN, COVARIANCE, 9)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Statistics(MEAN * math.nan, COVARIANCE, 9), "finite"),
        (Statistics(MEAN + math.inf, COVARIANCE, 9), "finite"),
        (Statistics(MEAN, COVARIANCE * math.nan, 9), "finite"),
        (Statistics(MEAN, -COVARIANCE, 9), "negative eigenvalues, got -1"),
        (Statistics(MEAN, COVARIANCE - 2 * torch.diag(torch.eye(4)[0]).double(), 9), "negative eigenvalues"),
        (Statistics(MEAN, COVARIANCE + torch.eye(4).roll(1, 0).double(), 9), "symmetric"),
        (Statistics(MEAN, COVARIANCE[:3], 9), r"covariance \[F, F\]"),
        (Statistics(MEAN[:, None], COVARIANCE, 9), r"mean \[F\]"),
        (Statistics(MEAN, COVARIANCE + 0j, 9), "must be Statistics"),
        (MEAN, "must be Statistics"),
    ],
)
def test_statistics_that_are_none_have_no_distance(wrong: Any, message: str) -> None:
    for name, pair in (("p", (wrong, SOUND)), ("q", (SOUND, wrong)), ("p", (wrong, wrong))):
        with pytest.raises((ValueError, TypeError), match=f"frechet_distance: {name} .*{message}"):
            frechet_distance(*pair)


def exact(x: Tensor, y: Tensor) -> float:
    """From the factors: `tr (A^1/2 B A^1/2)^1/2` is the nuclear norm of `X_c Y_c^T / sqrt((n - 1)(m - 1))`."""
    x, y = x.double(), y.double()
    a, b = x - x.mean(0), y - y.mean(0)
    n, m = len(x) - 1, len(y) - 1
    cross = torch.linalg.svdvals(a @ b.T).sum() / math.sqrt(n * m)
    return float((x.mean(0) - y.mean(0)).square().sum() + a.square().sum() / n + b.square().sum() / m - 2 * cross)


@pytest.mark.parametrize(("n", "m"), [(64, 64), (50, 60), (2, 3), (9, 64)])
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_frechet_distance_of_fewer_samples_than_features(n: int, m: int, scale: float) -> None:
    x, y = (scale * normal(size, 200, seed=seed).relu() for size, seed in ((n, 0), (m, 1)))
    found, wanted = frechet_distance(statistics(x), statistics(y)), exact(x, y)
    assert found == pytest.approx(wanted, rel=1e-7)
    near = x + 1e-4 * y[:n]
    spread = float(statistics(x).covariance.trace())
    assert abs(frechet_distance(statistics(x), statistics(near)) - exact(x, near)) < 1e-10 * spread


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sliced_wasserstein(X, Y, projections=0), "sliced_wasserstein: projections must be"),
        (lambda: sliced_wasserstein(X, Y, projections=-3), "sliced_wasserstein: projections must be"),
        (lambda: sliced_wasserstein(X, Y, projections=2.5), "sliced_wasserstein: projections must be"),
        (lambda: sliced_wasserstein(X, Y, v=torch.ones(0, 6)), "sliced_wasserstein: v must be floating"),
        (lambda: sliced_wasserstein(X, Y, v=10 * torch.eye(6)), "sliced_wasserstein: v must be of unit length"),
        (lambda: sliced_wasserstein(X, Y, v=torch.eye(6) * math.nan), "sliced_wasserstein: v must be of unit length"),
        (lambda: sliced_wasserstein(X, Y, seed=2**64), "sliced_wasserstein: seed must be"),
        (lambda: sliced_wasserstein(X * 1e200, Y), "squares that are finite"),
        (lambda: max_sliced_wasserstein(X, Y, projections=0), "max_sliced_wasserstein: projections must be"),
        (lambda: max_sliced_wasserstein(X, Y, restarts=-1), "max_sliced_wasserstein: restarts must be"),
        (lambda: max_sliced_wasserstein(X, Y, steps=-1), "max_sliced_wasserstein: steps must be"),
        (lambda: tail_ratios(X, Y, torch.ones(6) * math.inf), "tail_ratios: direction must be finite"),
        (lambda: tail_ratios(X, Y, torch.ones(6), (1.5,)), "tail_ratios: levels must be"),
        (lambda: kernel_distance(X, Y, subset=True), "kernel_distance: subset must be"),
        (lambda: neighbour_sheet(images(), images(), columns=0), "neighbour_sheet: columns must be"),
        (lambda: evaluate(X, Y, n=1), "evaluate: n must be"),
        (lambda: evaluate(X, Y, batch=0), "evaluate: batch must be"),
        (lambda: statistics(X, batch=0), "statistics: batch must be"),
        (lambda: statistics("abc"), "statistics: images must be"),
        (lambda: statistics(3), "statistics: images must be"),
        (lambda: statistics(X, 3), "statistics: features must be a function"),
    ],
)
def test_numbers_that_leave_nothing_to_measure_are_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        call()


def test_samples_that_do_not_vary_have_a_ratio() -> None:
    same = torch.ones(200, 3)
    assert tail_ratios(same, same, torch.ones(3), (0.5,)) == {0.5: 1.0}
    assert tail_ratios(same + torch.arange(200)[:, None] / 200, same, torch.ones(3), (0.5,)) == {0.5: math.inf}


def test_arrays_are_copied() -> None:
    from headstart.ops.array import tensor_of

    array = np.ones((3, 2), dtype=np.float32)
    made = tensor_of(array)
    array[:] = 5
    assert bool((made == 1).all())
    assert tensor_of(np.array(["a"])).dtype.kind == "U"  # left for the caller to refuse
    flipped = torch._neg_view(torch.ones(3))
    assert not tensor_of(flipped).is_neg()
    assert torch.equal(tensor_of(flipped), -torch.ones(3))
