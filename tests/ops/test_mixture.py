"""The mixture ops against dense linear algebra in float64, and against their own law."""

from __future__ import annotations

import math

import pytest
import torch

from conftest import random_components
from headstart import _core, ops
from headstart.ops import reference

KINDS = ["isotropic", "diagonal", "full", "rank1", "rank3", "rank7"]


def case(kind: str, k: int, d: int, rows: int, dtype: torch.dtype) -> tuple[torch.Tensor, ops.Components, torch.Tensor]:
    components = random_components(kind, k, d, dtype=dtype)
    generator = torch.Generator().manual_seed(1)
    x = 3 * torch.randn(rows, d, generator=generator, dtype=torch.float64)
    weight = torch.rand(k, generator=generator, dtype=torch.float64)
    return x.to(dtype), components, (weight / weight.sum()).log().to(dtype)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("k", "d", "rows"), [(1, 1, 3), (3, 2, 17), (25, 5, 33), (4, 40, 9), (3, 150, 21)])
@pytest.mark.parametrize("sigma", [0.0, 0.3, 5.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_posterior(kind: str, k: int, d: int, rows: int, sigma: float, dtype: torch.dtype) -> None:
    x, components, log_weight = case(kind, k, d, rows, dtype)
    got = ops.mixture_posterior(x, components, log_weight, sigma)
    exact = reference.mixture_posterior(x, components, log_weight, sigma)
    unit = 1e-6 if dtype == torch.float32 else 1e-13
    assert ((got.log_prob - exact.log_prob).abs() / (1 + exact.log_prob.abs())).max() < 3 * unit
    rounding = 0.1 * (1 + exact.log_prob.abs().max())  # of log-densities, which responsibilities inherit
    assert (got.responsibility - exact.responsibility).abs().max() < unit * rounding
    assert (got.responsibility.sum(dim=1) - 1).abs().max() < 3 * unit
    assert (got.denoised - exact.denoised).abs().max() < 10 * unit * rounding
    assert ops.mixture_posterior(x, components, log_weight, sigma, denoise=False).denoised is None


@pytest.mark.parametrize("kind", ["diagonal", "full", "rank3"])
def test_far_tails_stay_finite(kind: str) -> None:
    x, components, log_weight = case(kind, 4, 6, 5, torch.float32)
    far = x + 40 * 5.0
    got = ops.mixture_posterior(far, components, log_weight, 5.0)
    exact = reference.mixture_posterior(far, components, log_weight, 5.0)
    assert ((got.log_prob - exact.log_prob).abs() / exact.log_prob.abs()).max() < 1e-5
    assert torch.allclose(got.responsibility.sum(dim=1), torch.ones(5), atol=1e-6)


def test_weights_of_each_sample_and_excluded_components() -> None:
    x, components, _ = case("rank3", 4, 150, 6, torch.float32)
    log_weight = torch.full((6, 4), -math.inf)
    log_weight[torch.arange(6), torch.arange(6) % 4] = 0.0
    got = ops.mixture_posterior(x, components, log_weight, 1.0)
    exact = reference.mixture_posterior(x, components, log_weight, 1.0)
    assert torch.equal(got.responsibility, (log_weight == 0).float())
    assert torch.allclose(got.denoised.double(), exact.denoised, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
def test_sampling_equals_the_reference(kind: str, isa: str) -> None:
    components = random_components(kind, 3, 21, dtype=torch.float32)
    component = torch.tensor([2, 0, 1, 1, 2])
    before = _core.isa()
    try:
        if not _core.set_isa(isa):
            pytest.skip(f"this machine has no {isa}")
        got = ops.mixture_sample(component, components, 0.7, seed=3, step=1, offset=9)
        parts = [ops.mixture_sample(component[i : i + 1], components, 0.7, 3, 1, 9 + i) for i in range(5)]
    finally:
        _core.set_isa(before)
    exact = reference.mixture_sample(component, components, 0.7, 3, 1, 9)
    assert (got - exact).abs().max() < 1e-5
    assert torch.equal(got, torch.cat(parts))


def test_samples_have_the_covariance_they_should() -> None:
    components = random_components("rank3", 1, 5, dtype=torch.float64)
    x = ops.mixture_sample(torch.zeros(200_000, dtype=torch.int64), components, 0.5, seed=1)
    exact = reference.covariance(components)[0] + 0.25 * torch.eye(5)
    assert (torch.cov(x.mT) - exact).abs().max() < 0.05
    assert (x.mean(dim=0) - components.mean[0]).abs().max() < 0.03


@pytest.mark.parametrize("kind", ["diagonal", "full", "rank3"])
@pytest.mark.parametrize("d", [6, 150])
def test_denoiser_is_the_score(kind: str, d: int) -> None:
    """Tweedie: `E[x0 | x] = x + sigma^2 grad log p(x)`."""
    x, components, log_weight = case(kind, 3, d, 4, torch.float64)
    at = x.clone().requires_grad_()
    exact = reference.mixture_posterior(at, components, log_weight, 0.8, denoise=False)
    (score,) = torch.autograd.grad(exact.log_prob.sum(), at)
    got = ops.mixture_posterior(x, components, log_weight, 0.8)
    assert torch.allclose(got.denoised, x + 0.64 * score, atol=1e-9)


def test_responsibilities_sum_to_one_in_many_dimensions() -> None:
    x, components, log_weight = case("isotropic", 4, 12_288, 5, torch.float32)
    got = ops.mixture_posterior(x, components, log_weight, 3.0)
    assert (got.responsibility.sum(dim=1) - 1).abs().max() < 1e-6


def test_nan_stays_with_its_sample() -> None:
    x, components, log_weight = case("full", 3, 4, 5, torch.float32)
    clean = ops.mixture_posterior(x, components, log_weight, 1.0)
    x[2, 1] = math.nan
    got = ops.mixture_posterior(x, components, log_weight, 1.0)
    others = torch.tensor([0, 1, 3, 4])
    assert got.denoised[2].isnan().all()
    assert torch.equal(got.denoised[others], clean.denoised[others])


def test_no_axes_are_no_axes() -> None:
    x, plain, log_weight = case("isotropic", 3, 150, 5, torch.float32)
    empty = ops.Components(plain.mean, plain.variance, torch.zeros(3, 0, 150), torch.zeros(3, 0))
    one, two = (ops.mixture_posterior(x, components, log_weight, 1.0) for components in (plain, empty))
    assert torch.equal(one.denoised, two.denoised)


@pytest.mark.parametrize(("columns", "inside"), [(128, True), (129, False)])
def test_above_the_fused_columns_a_kernel_is_given_its_projection(
    columns: int, inside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What kernels rely on and do not check: of axes and projection there is one, by the one limit."""
    launched: list[_core.MixtureParams] = []
    monkeypatch.setattr(_core, "mixture", lambda place, params: launched.append(params))
    x, components, log_weight = case("rank3", 2, columns, 4, torch.float32)
    ops.mixture_posterior(x, components, log_weight, 1.0)
    (params,) = launched
    assert (params.axes != 0, params.projection != 0) == (inside, not inside)
    assert (params.coefficient != 0) == (not inside)
    assert _core.FUSED_COLUMNS == 128


def test_parameters_have_no_other_names() -> None:
    assert _core.UniformParams(rows=3).rows == 3  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="UniformParams has no field row"):
        _core.UniformParams(row=3)  # type: ignore[call-arg]


@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("d", [2, 150])
def test_components_beyond_any_exponent_weigh_nothing(d: int, dtype: torch.dtype, isa: str) -> None:
    """Log-densities apart by more than the rounded exponent of their ratio can hold: no part of one in the other."""
    before = _core.isa()
    if not _core.set_isa(isa):
        pytest.skip(f"this machine has no {isa}")
    try:
        for gap in (1e3, 8.7e6, 9e6, 6.7e15, 7e15, 1e30):
            components = ops.Components(torch.zeros(2, d, dtype=dtype), torch.ones(2, 1, dtype=dtype))
            log_weight = torch.tensor([0.0, -gap], dtype=dtype)
            got = ops.mixture_posterior(torch.ones(3, d, dtype=dtype), components, log_weight, 1.0)
            alone = ops.Components(torch.zeros(1, d, dtype=dtype), torch.ones(1, 1, dtype=dtype))
            one = ops.mixture_posterior(torch.ones(3, d, dtype=dtype), alone, log_weight[:1], 1.0)
            assert torch.equal(got.responsibility, torch.tensor([[1.0, 0.0]], dtype=dtype).expand(3, 2))
            assert torch.equal(got.log_prob, one.log_prob)
    finally:
        _core.set_isa(before)


def test_empty() -> None:
    x, components, log_weight = case("full", 3, 4, 0, torch.float32)
    got = ops.mixture_posterior(x, components, log_weight, 1.0)
    assert got.log_prob.shape == (0,)
    assert got.denoised.shape == (0, 4)
    assert ops.mixture_sample(torch.zeros(0, dtype=torch.int64), components, 1.0, 0).shape == (0, 4)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"x": torch.ones(3, 5)}, r"mixture_posterior: x must be \[B, 4\], got float32 \[3, 5\]"),
        ({"x": torch.ones(3, 4).int()}, "mixture_posterior: x must be float32 or float64, got int32"),
        ({"x": torch.ones(3, 4).double()}, "mixture_posterior: mean must be float64, got float32"),
        ({"log_weight": torch.zeros(2)}, r"mixture_posterior: log_weight must be \[3\] or \[3, 3\] on cpu, got"),
        ({"sigma": -1.0}, "mixture_posterior: sigma must be finite and at least 0, got -1.0"),
        ({"sigma": math.nan}, "mixture_posterior: sigma must be finite"),
    ],
)
def test_bad_input(change: dict, error: str) -> None:
    arguments = {
        "x": torch.ones(3, 4),
        "components": random_components("rank2", 3, 4, dtype=torch.float32),
        "log_weight": torch.zeros(3),
        "sigma": 1.0,
    }
    with pytest.raises((TypeError, ValueError), match=error):
        ops.mixture_posterior(**{**arguments, **change})


@pytest.mark.parametrize("name", ["variance", "spread"])
@pytest.mark.parametrize("value", [-1.0, -1e-3, math.nan])  # -1e-3: the noise would hide it
def test_a_variance_below_zero_is_refused(name: str, value: float) -> None:
    components = random_components("rank2", 3, 4, dtype=torch.float32)
    values = getattr(components, name).clone()
    values[1, 0] = value
    components = components._replace(**{name: values})
    for op, call in (
        ("mixture_posterior", lambda: ops.mixture_posterior(torch.ones(2, 4), components, torch.zeros(3), 0.5)),
        ("mixture_sample", lambda: ops.mixture_sample(torch.zeros(2, dtype=torch.int64), components, 0.5, 0)),
    ):
        with pytest.raises(ValueError, match=f"{op}: {name} must be at least 0, got"):
            call()


def test_a_singular_covariance_needs_noise() -> None:
    components = ops.Components(torch.zeros(1, 3), torch.zeros(1, 1))
    with pytest.raises(ValueError, match="sigma must be positive where a covariance is singular"):
        ops.mixture_posterior(torch.ones(1, 3), components, torch.zeros(1), 0.0)
    assert ops.mixture_posterior(torch.ones(1, 3), components, torch.zeros(1), 0.1).log_prob.isfinite()


def test_component_out_of_range() -> None:
    components = random_components("full", 3, 4, dtype=torch.float32)
    with pytest.raises(ValueError, match=r"mixture_sample: component must be in \[0, 3\), got 0 to 3"):
        ops.mixture_sample(torch.tensor([0, 3]), components, 1.0, 0)


def test_compiles_whole() -> None:
    x, components, log_weight = case("rank3", 3, 150, 5, torch.float32)
    component = torch.tensor([0, 2, 1])

    def law(x: torch.Tensor, sigma: float) -> tuple[torch.Tensor, ...]:
        posterior = ops.mixture_posterior(x, components, log_weight, sigma)
        return posterior.log_prob, posterior.denoised * 2, ops.mixture_sample(component, components, sigma, 2**63 + 5)

    compiled = torch.compile(law, fullgraph=True, backend="aot_eager")
    for sigma in (0.1, 0.2, 0.7):
        assert all(torch.allclose(a, b) for a, b in zip(compiled(x, sigma), law(x, sigma), strict=True))
    broken = torch.compile(lambda k: ops.mixture_sample(k, components, 1.0, 0), fullgraph=True, backend="aot_eager")
    with pytest.raises(ValueError, match="component must be in"):
        broken(torch.tensor([0, 40]))


@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("d", "k", "sigma"), [(5, 3, 0.3), (17, 6, 0.5), (40, 4, 3.0)])
def test_many_rows_of_full_covariance(d: int, k: int, sigma: float, dtype: torch.dtype, isa: str) -> None:
    """Enough rows for triangular factors and for packs of samples; a row of NaN and one far out stay on their own."""
    x, components, log_weight = case("full", k, d, 16 * d + 300, dtype)
    x[7], x[9] = math.nan, 1e4
    before = _core.isa()
    if not _core.set_isa(isa):
        pytest.skip(f"this machine has no {isa}")
    try:
        got = ops.mixture_posterior(x, components, log_weight, sigma)
        alone = ops.mixture_posterior(x, components, log_weight, sigma, denoise=False, respond=False)
    finally:
        _core.set_isa(before)
    exact = reference.mixture_posterior(x, components, log_weight, sigma)
    unit = 1e-6 if dtype == torch.float32 else 1e-13
    some = torch.arange(len(x)) != 7
    for name in ("log_prob", "denoised"):
        error = (getattr(got, name) - getattr(exact, name))[some].abs() / (1 + getattr(exact, name)[some].abs())
        assert error.max() < 30 * unit
    scale = unit * (1 + exact.log_prob[some].abs().clamp_max(1e3).max())
    assert (got.responsibility - exact.responsibility)[some].abs().max() < 30 * scale
    assert got.denoised[7].isnan().all()
    assert torch.equal(alone.log_prob[some], got.log_prob[some])
    assert alone.responsibility is None
