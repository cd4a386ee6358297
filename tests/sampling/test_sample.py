"""The composer: addressing, batches, preconditioning folded into rows, honest counts, refusals."""

from __future__ import annotations

import math

import pytest
import torch

import headstart as hs
from conftest import GaussianLaw
from headstart.solver import Solver

SOLVERS = [
    hs.Euler(), hs.Ancestral(0.5), hs.DDPM(), hs.EulerMaruyama(), hs.Heun(), hs.Heun(churn=hs.Churn(5.0)),
    hs.DPMpp2M(), hs.DPMpp3M(), hs.DPMppSDE2M(), hs.DPMppSDE3M(),
]  # fmt: skip


class Network:
    """A raw network whose result depends on everything it is given, and that counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, x: torch.Tensor, c_noise: torch.Tensor, label: torch.Tensor | None = None) -> torch.Tensor:
        self.calls += 1
        tilt = 0.0 if label is None else 0.1 * label.to(x).reshape(-1, *[1] * (x.dim() - 1))
        return torch.tanh(x + tilt) * torch.cos(c_noise) + 0.1


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_preconditioning_in_the_row_changes_nothing(solver: Solver, dtype: torch.dtype) -> None:
    """`EDM(net)` folded into the affine rows against the same denoiser as an opaque callable."""
    edm = hs.EDM(Network(), sigma_data=0.7)
    start = hs.Classic((3, 5), 10.0)
    folded = hs.sample(edm, start, 6, 7, solver, seed=4, dtype=dtype)
    opaque = hs.sample(lambda x, sigma: edm(x, sigma), start, 6, 7, solver, seed=4, dtype=dtype)
    assert torch.allclose(folded, opaque, atol=1e-5 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("solver", SOLVERS)
def test_nfe_is_what_the_network_sees(solver: Solver) -> None:
    net = Network()
    _, info = hs.sample(hs.EDM(net), hs.Classic((4,), 10.0), 3, 5, solver, return_info=True)
    assert net.calls == info.nfe == (9 if isinstance(solver, hs.Heun) else 5)
    assert info.seconds > 0
    assert info.bytes >= 5 * 2 * 3 * 4 * 4


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", ["classic", "mixture", "empirical"])
def test_a_sample_is_the_same_in_any_batch(solver: Solver, name: str) -> None:
    data = torch.randn(50, 3, 5, generator=torch.Generator().manual_seed(0))
    starts = {
        "classic": hs.Classic((3, 5), 2.0),
        "mixture": hs.GaussianMixture.fit(data, components=2, covariance=hs.LowRank(3), max_iter=3).at(2.0),
        "empirical": hs.Empirical(data).at(2.0),
    }
    start = starts[name]

    def denoiser(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:  # products and sums only: the same in any batch
        return 0.3 * x / (1 + x * x)

    whole = hs.sample(denoiser, start, 23, 4, solver, seed=2**40 + 3)
    assert torch.equal(whole, hs.sample(denoiser, start, 23, 4, solver, seed=2**40 + 3, batch=7))
    parts = [
        hs.sample(denoiser, start, n, 4, solver, seed=2**40 + 3, offset=at) for at, n in ((0, 1), (1, 9), (10, 13))
    ]
    assert torch.equal(whole, torch.cat(parts))
    assert not torch.equal(whole, hs.sample(denoiser, start, 23, 4, solver, seed=3))


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_folded_conditional_sample_is_the_same_in_any_batch(solver: Solver) -> None:
    """Preconditioned network, class-conditional start, labels split with the batch: bit for bit."""
    generator = torch.Generator().manual_seed(0)
    data, labels = torch.randn(60, 3, 5, generator=generator), torch.arange(60) % 3
    data += labels.view(-1, 1, 1)
    start = hs.GaussianMixture.fit(data, components=3, covariance=hs.LowRank(2), max_iter=3, labels=labels).at(2.0)

    def net(x: torch.Tensor, c_noise: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return 0.3 * x / (1 + x * x) + 0.1 * label.to(x).view(-1, 1, 1) * c_noise

    label = torch.arange(20) % 3
    edm = hs.EDM(net, sigma_data=0.7)
    whole = hs.sample(edm, start, 20, 4, solver, seed=5, cond={"label": label})
    assert torch.equal(whole, hs.sample(edm, start, 20, 4, solver, seed=5, cond={"label": label}, batch=6))
    tail = hs.sample(edm, start, 8, 4, solver, seed=5, offset=12, cond={"label": label[12:]})
    assert torch.equal(whole[12:], tail)


def test_conditions_are_split_with_the_batch() -> None:
    label = torch.arange(10)
    edm = hs.EDM(Network())
    start = hs.Classic((4,), 5.0)
    whole = hs.sample(edm, start, 10, 3, cond={"label": label})
    assert torch.allclose(whole, hs.sample(edm, start, 10, 3, cond={"label": label}, batch=3))
    assert not torch.allclose(whole[1:], hs.sample(edm, start, 10, 3, cond={"label": torch.zeros(10)})[1:])


def test_latents_replace_the_draw(gaussian: GaussianLaw) -> None:
    z = torch.randn(9, 2, generator=torch.Generator().manual_seed(0))
    got = hs.sample(gaussian, hs.Classic((2,), 50.0), 9, 400, hs.Heun(), latents=z, batch=4, dtype=torch.float64)
    assert torch.allclose(got, gaussian.flow(50.0 * z.double(), 50.0, 0.0), atol=1e-3)


def test_the_users_state_is_left_alone(gaussian: GaussianLaw) -> None:
    x = torch.ones(4, 2, dtype=torch.float64)
    before = x.clone()
    hs.integrate(gaussian, x, torch.tensor([3.0, 1.0, 0.5, 0.0]), hs.Heun())
    assert torch.equal(x, before)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_denoiser_may_return_its_input(solver: Solver) -> None:
    """Buffers are reused between rows; a prediction that is the state itself must survive that."""
    start = hs.Classic((4,), 5.0)
    same = hs.sample(lambda x, sigma: x, start, 3, 6, solver)
    copied = hs.sample(lambda x, sigma: x.clone(), start, 3, 6, solver)
    assert torch.equal(same, copied)


@pytest.mark.parametrize("solver", [hs.Euler(), hs.Heun(), hs.DPMpp2M()])
def test_a_denoiser_may_keep_its_states(solver: Solver) -> None:
    kept, copies = [], []

    def denoiser(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        kept.append(x)
        copies.append(x.clone())
        return 0.5 * x

    hs.sample(denoiser, hs.Classic((4,), 5.0), 3, 6, solver)
    assert all(torch.equal(a, b) for a, b in zip(kept, copies, strict=True))


def test_16_bit_networks() -> None:
    seen = []

    def net(x: torch.Tensor, c_noise: torch.Tensor) -> torch.Tensor:
        seen.append((x.dtype, c_noise.dtype))
        return (0.5 * x * c_noise).to(x.dtype)

    got = hs.sample(hs.EDM(net, dtype=torch.bfloat16), hs.Classic((64,), 10.0), 5, 4)
    exact = hs.sample(hs.EDM(lambda x, c_noise: 0.5 * x * c_noise), hs.Classic((64,), 10.0), 5, 4)
    assert set(seen) == {(torch.bfloat16, torch.float32)}
    assert got.dtype == torch.float32
    assert (got - exact).abs().max() < 0.02 * exact.abs().max()


def test_edm_takes_levels_of_each_sample() -> None:
    edm = hs.EDM(Network(), sigma_data=0.6)
    x, sigma = torch.randn(3, 2, 2, dtype=torch.float64), torch.tensor([0.1, 1.0, 30.0], dtype=torch.float64)
    each = torch.cat([edm(x[i : i + 1], sigma[i]) for i in range(3)])
    net = lambda x, c_noise: torch.tanh(x) * torch.cos(c_noise.reshape(-1, 1, 1)) + 0.1  # noqa: E731
    assert torch.allclose(hs.EDM(net, sigma_data=0.6)(x, sigma), each, atol=1e-12)


def test_no_samples(gaussian: GaussianLaw) -> None:
    assert hs.sample(gaussian, hs.Classic((2,), 5.0), 0, 3).shape == (0, 2)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"steps": None}, "sample: steps or grid must be given"),
        ({"steps": 0}, "log_uniform: steps must be an integer from 1 to 16777216, got 0"),
        ({"n": -1}, "sample: n must be an integer of at least 0, got -1"),
        ({"batch": 0}, "sample: batch must be an integer of at least 1, got 0"),
        (
            {"grid": torch.tensor([4.0, 1.0, 0.0]), "steps": 2},
            "sample: grid must begin at the start's sigma 5.0, got 4.0",
        ),
        ({"grid": torch.tensor([5.0, 1.0, 0.0])}, r"sample: grid must have steps \+ 1 = 4 levels, got 3"),
        ({"grid": torch.tensor([5.0, 6.0, 1.0, 0.0])}, "grid: levels must descend"),
        ({"latents": torch.zeros(3, 2)}, r"sample: latents must be \[4, 2\], got \[3, 2\]"),
        ({"denoiser": lambda x, sigma: x[:, :1]}, r"sample: the denoiser must return a tensor \[4, 2\], got \[4, 1\]"),
        ({"denoiser": lambda x, sigma: None}, "sample: the denoiser must return a tensor .*, got NoneType"),
        ({"dtype": torch.float16}, "sample: the state must be float32 or float64, got torch.float16"),
        ({"grid": torch.tensor([5.0, 2.0, 1.0, 0.5])}, "sample: grid must end in 0, got 0.5"),
        ({"offset": 2**32 - 2}, r"sample: offset \+ rows must be at most 2\^32"),
        ({"seed": -1}, r"sample: seed must be an integer in \[0, 2\^64\), got -1"),
        ({"seed": 2**64}, "sample: seed must be an integer"),
        ({"seed": 1.0}, "sample: seed must be an integer"),
        ({"seed": True}, "sample: seed must be an integer"),
    ],
)
def test_bad_input(change: dict, error: str, gaussian: GaussianLaw) -> None:
    called = []

    def denoiser(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        called.append(sigma)
        return gaussian(x, sigma)

    arguments = {"denoiser": denoiser, "start": hs.Classic((2,), 5.0), "n": 4, "steps": 3}
    with pytest.raises((TypeError, ValueError), match=error):
        hs.sample(**{**arguments, **change})
    assert not called


def test_bad_edm() -> None:
    for sigma_data in (0.0, -1.0, math.inf):
        with pytest.raises(ValueError, match="EDM: sigma_data must be positive"):
            hs.EDM(Network(), sigma_data)
