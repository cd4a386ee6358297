"""Guidance wherever denoisers go: samplers, levels a sample, memory orders, starts, plans, the shipped network."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from guided_law import CLASSES, GUIDANCE, LABEL, NULL, SOLVERS, START, STEPS, Law, N, composed, edm, run
from torch import Tensor

import headstart as hs
from headstart import zoo
from headstart.solver import Row, Solver


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_fixed_shape_sampler_has_the_bits_of_sample(solver: Solver, dtype: torch.dtype) -> None:
    denoiser = hs.guided(edm(Law(), dtype=dtype), 2.0, null=NULL, interval=(0.1, 5.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sampler = hs.Sampler(denoiser, START, STEPS, solver, batch=N, cond={"label": LABEL})
    for label in (LABEL, LABEL.flip(0)):
        given = {"cond": {"label": label}, "dtype": torch.float32}
        expected, info = run(denoiser, solver, **given, return_info=True)
        assert torch.equal(sampler(3, cond={"label": label}), expected)
        assert sampler.nfe == info.nfe
    exact = run(hs.guided(edm(Law()), 2.0, null=NULL, interval=(0.1, 5.0)), solver, cond={"label": LABEL.flip(0)})
    assert (expected - exact).abs().max() < (1e-4 if dtype == torch.float32 else 1.0)


def test_integrate_takes_it() -> None:
    x, grid = 3 * torch.randn(N, 2, dtype=torch.float64), torch.tensor([3.0, 1.0, 0.4])
    denoiser, reference = GUIDANCE["factors"](Law(), Law(4.0))
    got = hs.integrate(denoiser, x, grid, hs.Heun(), cond={"label": LABEL})
    assert torch.allclose(got, hs.integrate(reference, x, grid, hs.Heun(), cond={"label": LABEL}), atol=1e-9)


def test_levels_of_each_sample() -> None:
    x, sigma = torch.randn(N, 2, dtype=torch.float64), torch.logspace(-2, 1, N, dtype=torch.float64)
    for batched in (False, True):
        denoiser = hs.guided(zoo_like(), 2.0, null=NULL, interval=(0.1, 2.0), batched=batched)
        each = [denoiser(x[i : i + 1], sigma[i], label=LABEL[i : i + 1]) for i in range(N)]
        assert torch.allclose(denoiser(x, sigma, label=LABEL), torch.cat(each), atol=1e-12)
        assert torch.equal(denoiser(x[:0], 1.0, label=LABEL[:0]), x[:0])


def zoo_like() -> hs.EDM:
    """A network that takes levels of each sample, and returns channels-last tensors of images."""

    def net(x: Tensor, c_noise: Tensor, label: Tensor) -> Tensor:
        shape = (-1, *[1] * (x.dim() - 1))
        raw = torch.tanh(x + 0.3 * label.to(x).reshape(shape)) * torch.cos(c_noise.to(x)).reshape(shape) + 0.1
        return raw.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else raw

    return hs.EDM(net, 0.6)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("n", [1, 3])
def test_channels_last_networks(solver: Solver, n: int) -> None:
    start, cond = hs.Classic((3, 4, 6), 5.0), {"label": LABEL[:n]}
    twice = hs.guided(zoo_like(), 2.0, null=NULL, batched=False)
    got = hs.sample(hs.guided(zoo_like(), 2.0, null=NULL), start, n, 5, solver, cond=cond)
    assert got.is_contiguous()
    assert torch.allclose(got, hs.sample(twice, start, n, 5, solver, cond=cond), atol=1e-6)
    opaque = hs.sample(lambda x, t, label: twice(x, t, label=label), start, n, 5, solver, cond=cond)
    assert torch.allclose(got, opaque, atol=1e-4)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("make", [lambda net: net, hs.EDM])
def test_a_network_may_return_its_input(solver: Solver, make: Callable[..., Any]) -> None:
    """Buffers are reused between rows; a raw prediction that is one of them must survive that."""
    same = run(hs.guided(make(lambda x, t, label: x), 2.0, null=NULL), solver)
    assert torch.equal(same, run(hs.guided(make(lambda x, t, label: x.clone()), 2.0, null=NULL), solver))


def conditional_start() -> hs.GaussianMixture:
    law, labels = Law(), torch.arange(90) % CLASSES
    noise = torch.randn(90, 2, generator=torch.Generator().manual_seed(0))
    data = law.mean[labels].float() + law.variance[labels, None].float().sqrt() * noise
    return hs.GaussianMixture.fit(data, components=3, covariance=hs.Full(), max_iter=5, labels=labels)


@pytest.mark.parametrize("solver", [hs.Heun(), hs.DPMpp2M(), hs.DPMppSDE2M()])
def test_start_and_network_get_the_same_classes(solver: Solver, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sample's own classes, not the guide's, batch by batch; and the same samples in any batch."""
    start, label, given = conditional_start().at(1.5), torch.arange(20) % CLASSES, []
    drawn, told = [], []
    plain = type(start).sample

    def spied(self: Any, n: int, **named: Any) -> Tensor:
        drawn.append(named["labels"].tolist())
        return plain(self, n, **named)

    def net(x: Tensor, c_noise: Tensor, label: Tensor) -> Tensor:  # products and sums only: the same in any batch
        told.append(label.tolist())
        return 0.3 * x / (1 + x * x) + 0.1 * label.to(x).view(-1, 1) * c_noise

    monkeypatch.setattr(type(start), "sample", spied)
    denoiser = hs.guided(hs.EDM(net), 2.0, null=NULL)
    for batch in (None, 6):
        given.append(hs.sample(denoiser, start, 20, 4, solver, seed=5, cond={"label": label}, batch=batch))
    assert torch.equal(*given)
    parts = [label.tolist(), *[part.tolist() for part in label.split(6)]]
    assert drawn == parts
    calls = len(told) // len(parts)
    assert told == [[*part, *[CLASSES] * len(part)] for part in parts for _ in range(calls)]


def test_plans_run_guided_and_are_validated_so() -> None:
    """With free history too: the start's own predictions, then guided ones; every branch of a check is counted."""
    mixture, law = hs.GaussianMixture.fit(conditional_start().at(0.5).sample(60), 2, hs.Full(), max_iter=5), Law()
    start, rows = mixture.at(1.5), (Row(1.5, 0.4, (0.8, -0.3, 0.1)), Row(0.6, 0.0, (1.3, -0.4, 0.2, -0.1)))
    plan = hs.Plan((1.5, 0.6, 0.0), rows, 3.0, 0.1, 0.2)
    got = []
    for denoiser in (hs.guided(edm(law), 2.0, null=NULL), composed(law, law, 2.0, 3)):
        x, info = hs.sample(denoiser, start, N, plan=plan, dtype=torch.float64, cond={"label": LABEL}, return_info=True)
        got.append((x, info.nfe))
    assert torch.allclose(got[0][0], got[1][0], atol=1e-6)
    assert (got[0][1], got[1][1]) == (4, 2)
    law.rows.clear()
    found = hs.validate(plan, hs.guided(edm(law), 2.0, null=NULL), start, n=N, cond={"label": LABEL}, fine_steps=5)
    assert found.calls == 2 * len(law.rows) == 2 * (4 * 2 + 9)
    found = hs.validate(plan, hs.guided(edm(law), 1.0, null=NULL), start, n=N, cond={"label": LABEL}, fine_steps=5)
    assert found.calls == 4 * 2 + 9


def test_guided_images_move_towards_their_class() -> None:
    """On the shipped network: further along the line from the mean of all images to that of their class."""
    images, labels = zoo.images(split="test")
    centre = images.mean(0)
    label = torch.tensor([1, 4, 5, 8] * 3)
    towards = torch.stack([images[labels == c].mean(0) - centre for c in label.tolist()]).flatten(1)
    net, along = zoo.denoiser(), []
    for weight in (0.0, 1.0, 2.5):
        denoiser = hs.guided(net, weight, null={"label": net.net.classes})  # type: ignore[attr-defined]
        x = hs.sample(denoiser, hs.Classic((1, 28, 28)), len(label), 6, cond={"label": label}, seed=1)
        along.append(float(((x - centre).flatten(1) * towards).sum(1).mean() / towards.square().sum(1).mean()))
    assert along[0] + 0.3 < along[1] < along[2] - 0.05
