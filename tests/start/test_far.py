"""Points far outside, rank-deficient data, arrays: right values or a refusal by name."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

import headstart as hs
from headstart import ops
from headstart.start import (
    Covariance,
    Diagonal,
    Full,
    Gaussian,
    GaussianMixture,
    Isotropic,
    LowRank,
    StudentTMixture,
    fit,
)

FAMILIES: dict[str, Covariance] = {
    "full": Full(), "rank": LowRank(2), "diagonal": Diagonal(), "isotropic": Isotropic()
}  # fmt: skip


def normal(*shape: int, seed: int = 0) -> Tensor:
    return ops.normal(shape, seed, 0, dtype=torch.float64, device="cpu")


def noised_density(distance: float, df: float, dim: int, scale: float, sigma: float) -> float:
    """`log int N(x; 0, (scale / w + sigma^2) I) g(w) dw` on a fine grid of `log w` that reaches any distance."""
    log_w = np.linspace(-900, 6, 1_500_001)
    log_total = np.logaddexp(math.log(scale) - log_w, 2 * math.log(sigma))
    gamma = 0.5 * df * (math.log(0.5 * df) + log_w - np.exp(log_w)) - math.lgamma(0.5 * df)
    values = gamma - 0.5 * dim * (math.log(2 * math.pi) + log_total)
    values -= 0.5 * np.exp(math.log(dim) + 2 * math.log(distance) - log_total)
    peak = values.max()
    return float(peak + np.log(np.exp(values - peak).sum() * (log_w[1] - log_w[0])))


def student(df: float, dim: int) -> StudentTMixture:
    components = ops.Components(torch.zeros(1, dim).double(), torch.full((1, dim), 0.7).double())
    return StudentTMixture(components, torch.ones(1), (dim,), df=torch.tensor([df]).double())


@pytest.mark.parametrize("df", [0.5, 3.0, 10.0, 200.0])
@pytest.mark.parametrize("sigma", [1e-3, 0.5, 30.0])
@pytest.mark.parametrize("dim", [1, 3])
def test_noised_student_keeps_its_tail(df: float, sigma: float, dim: int) -> None:
    made = student(df, dim)
    for distance in (10.0, 100.0, 1e4, 1e8, 1e30, 1e100):
        x = torch.full((1, dim), distance, dtype=torch.float64)
        wanted = noised_density(distance, df, dim, 0.7, sigma)
        assert float(made.log_prob(x, sigma)) == pytest.approx(wanted, rel=1e-7)


@pytest.mark.parametrize("distance", [1e4, 1e30, 1e100, 1e130, 1e200, 1e300])
def test_far_out_noise_does_not_matter(distance: float) -> None:
    """`t * N(0, sigma^2 I)` tends to `t`, and its denoiser to `x`."""
    made = student(10.0, 2)
    x = torch.full((1, 2), distance, dtype=torch.float64)
    clean = float(made.log_prob(x, 0.0))
    assert math.isfinite(clean)
    assert float(made.log_prob(x, 0.01)) == pytest.approx(clean, rel=1e-6)
    torch.testing.assert_close(made.denoise(x, 0.01) / distance, torch.ones_like(x), rtol=1e-6, atol=0)


def test_the_known_value() -> None:
    made = hs.StudentTMixture(
        ops.Components(torch.zeros(1, 1).double(), torch.ones(1, 1).double()),
        torch.ones(1), (1,), df=torch.tensor([10.0]),
    )  # fmt: skip
    x = torch.tensor([[1e4]]).double()
    assert float(made.log_prob(x, 1e-3)) == pytest.approx(-89.59342, abs=1e-4)


def test_a_far_point_gets_the_same_bits_in_every_batch() -> None:
    made = student(3.0, 2)
    x = torch.tensor([[0.1, 0.2], [30.0, 1.0], [1e6, 1.0], [1e20, -1e20], [2.0, 1e150]], dtype=torch.float64)
    whole, denoised = made.log_prob(x, 0.5), made.denoise(x, 0.5)
    for i in range(len(x)):
        assert torch.equal(made.log_prob(x[i : i + 1], 0.5), whole[i : i + 1])
        torch.testing.assert_close(made.denoise(x[i : i + 1], 0.5), denoised[i : i + 1], rtol=1e-14, atol=0)


def test_the_score_far_out_is_the_denoisers() -> None:
    made = student(3.0, 2)
    x = torch.tensor([[300.0, -100.0], [1e5, 2e5], [1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    (score,) = torch.autograd.grad(made.log_prob(x, 2.0).sum(), x)
    torch.testing.assert_close(made.denoise(x.detach(), 2.0), (x + 4 * score).detach(), rtol=1e-9, atol=0)


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gaussian_far_out(kind: str, dtype: torch.dtype) -> None:
    """Never NaN: the density falls below every number, and the denoiser is linear."""
    made = GaussianMixture.fit(normal(300, 4).to(dtype), 2, FAMILIES[kind])
    direction = torch.tensor([[1.0, -2.0, 0.5, 1.0]], dtype=dtype)
    near = made.denoise(1e10 * direction.double(), 1.0) / 1e10
    sizes = (1e15, 1e20, 1e30) if dtype == torch.float32 else (1e30, 1e150, 1e170, 1e200, 1e300)
    for size in sizes:
        x = torch.cat([size * direction, direction])
        log_prob, denoised = made.log_prob(x, 1.0), made.denoise(x, 1.0)
        assert float(log_prob[0]) < -1e20
        assert torch.equal(log_prob[1:], made.log_prob(direction, 1.0))
        torch.testing.assert_close((denoised[:1] / size).double(), near, rtol=2e-5, atol=1e-6)
        torch.testing.assert_close(denoised[1:], made.denoise(direction, 1.0))


def test_what_is_not_finite_stays_so() -> None:
    made = GaussianMixture.fit(normal(300, 4), 2, LowRank(2))
    x = normal(3, 4)
    x[1, 0] = math.nan
    assert made.log_prob(x, 1.0).isnan().tolist() == [False, True, False]


def one_hot(n: int, *sizes: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    one = torch.nn.functional.one_hot
    return torch.cat([one(torch.randint(k, (n,), generator=generator), k) for k in sizes], 1).float()


FITS: dict[str, Callable[[Tensor], object]] = {
    "full": lambda x: GaussianMixture.fit(x, 8, Full(), max_iter=4),
    "rank": lambda x: GaussianMixture.fit(x, 8, LowRank(3), max_iter=4),
    "student": lambda x: StudentTMixture.fit(x, 1, Full(), max_iter=4),
    "gaussian": lambda x: Gaussian.fit(x),
    "frechet": lambda x: hs.metrics.frechet_distance(hs.metrics.statistics(x[:9]), hs.metrics.statistics(x)),
    "max_sliced": lambda x: hs.metrics.max_sliced_wasserstein(x[:9], x, steps=2),
}


@pytest.mark.parametrize("name", FITS)
@pytest.mark.parametrize("fails", ["torch", "torch and numpy"])
def test_a_decomposition_that_gives_up_is_tried_otherwise(
    name: str, fails: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, calls = one_hot(200, 5, 7, 9), []
    wanted = FITS[name](x)

    def give_up(*_: object, **__: object) -> None:
        calls.append(1)
        raise torch.linalg.LinAlgError("linalg.eigh: The algorithm failed to converge")

    def numpy_gives_up(*_: object, **__: object) -> None:
        raise np.linalg.LinAlgError("Eigenvalues did not converge")

    monkeypatch.setattr(torch.linalg, "eigh", give_up)
    if fails == "torch and numpy":
        monkeypatch.setattr(np.linalg, "eigh", numpy_gives_up)
    found = FITS[name](x)
    assert calls
    if isinstance(wanted, GaussianMixture | StudentTMixture):
        assert isinstance(found, GaussianMixture | StudentTMixture)
        torch.testing.assert_close(found.log_prob(x[:9], 0.3), wanted.log_prob(x[:9], 0.3), rtol=1e-3, atol=1e-2)
    elif isinstance(wanted, float):
        assert found == pytest.approx(wanted, rel=1e-7)


def test_eigh_by_every_way_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from headstart.ops.array import eigh

    frame = torch.linalg.qr(normal(6, 6)).Q
    value = torch.tensor([-2.0, 0.0, 0.0, 1.0, 2.5, 4.0]).double()
    matrix = frame * value @ frame.T

    def give_up(*_: object, **__: object) -> None:
        raise torch.linalg.LinAlgError("no")

    monkeypatch.setattr(torch.linalg, "eigh", give_up)
    found = eigh(matrix)
    torch.testing.assert_close(found.value, value, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.vector * found.value @ found.vector.T, matrix, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["fit", "mixture", "gaussian", "student", "labels"])
def test_fits_take_arrays_by_value(kind: str) -> None:
    def made(x: object, labels: object) -> GaussianMixture | StudentTMixture:
        if kind == "fit":
            return fit(x, 2, max_iter=3)  # type: ignore[arg-type]
        if kind == "gaussian":
            return Gaussian.fit(x)  # type: ignore[arg-type]
        if kind == "student":
            return StudentTMixture.fit(x, 1, Full(), max_iter=3)  # type: ignore[arg-type]
        return GaussianMixture.fit(x, 2, Full(), max_iter=3, labels=labels if kind == "labels" else None)  # type: ignore[arg-type]

    x, labels = normal(300, 3).float(), torch.arange(300) % 2
    wanted = made(x, labels).log_prob(x[:5], 0.5)
    for array in (x.numpy().copy(), x.flip(0).numpy()[::-1], x.numpy().astype(">f4")):
        found = made(array, labels.numpy())
        array[:] = 0  # what was fitted holds values of its own
        assert torch.equal(found.log_prob(x[:5], 0.5), wanted)
        assert torch.equal(found.log_prob(x[:5].numpy(), 0.5), wanted)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"fit: data must be floating .* got uint8"):
        made(np.zeros((300, 3), np.uint8), labels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_iter": math.nan}, "fit: max_iter must be an integer"),
        ({"max_iter": True}, "fit: max_iter must be an integer"),
        ({"tol": math.inf}, "fit: tol must be at least 0 and finite"),
        ({"tol": math.nan}, "fit: tol must be"),
        ({"tol": "1e-3"}, "fit: tol must be"),
        ({"components": 2.0}, "fit: components must be an integer"),
        ({"components": True}, "fit: components must be an integer"),
    ],
)
def test_numbers_of_a_fit(options: dict[str, object], message: str) -> None:
    given = {"components": 2, "covariance": Full(), **options}
    with pytest.raises(ValueError, match=message):
        GaussianMixture.fit(normal(50, 2), **given)  # type: ignore[arg-type]


def test_integers_of_numpy_are_integers() -> None:
    x = normal(60, 3)
    made = GaussianMixture.fit(x, np.int64(2), LowRank(np.int64(1)), max_iter=np.uint8(3))  # type: ignore[arg-type]
    same = GaussianMixture.fit(x, 2, LowRank(1), max_iter=3)
    assert torch.equal(made.log_prob(x, 0.5), same.log_prob(x, 0.5))
    assert made.report is not None
    assert made.report.covariance == "LowRank(rank=1)"
