"""Coupling flows: laws of known shape are learned, densities are exact, runs resume, files last."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy import stats
from torch import Tensor

import headstart as hs
from headstart.fitting import training
from headstart.start.transform import halves

pytest.importorskip("zuko", reason="zuko is not installed: pip install headstart[flows]")

SIGMA = 0.5
QUICK = {"epochs": 3, "batch": 64, "transform": hs.Coupling(2, (8,))}


def bent(n: int, seed: int = 0) -> Tensor:
    """A law that no Gaussian is near: `x_2 = |x_1| + 0.1 n`, off centre."""
    z = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed))
    return torch.stack([2 + z[:, 0], z[:, 0].abs() + 0.1 * z[:, 1]], dim=1)


@pytest.fixture(scope="module")
def fitted() -> hs.Flow:
    return hs.Flow.fit(bent(2000), SIGMA, epochs=45, batch=200, learning_rate=5e-3, noise=hs.Dynamic())


@pytest.fixture(scope="module")
def conditional() -> hs.Flow:
    labels = torch.arange(600) % 3
    labels[labels == 1] = 2  # class 1 has no points, class 2 has twice as many as class 0
    data = bent(600) + 8.0 * labels[:, None]
    return hs.Flow.fit(data, SIGMA, hs.Coupling(2, (16,)), epochs=60, batch=100, learning_rate=1e-2, labels=labels)


def noised(n: int, seed: int) -> Tensor:
    return bent(n, seed) + SIGMA * torch.randn(n, 2, generator=torch.Generator().manual_seed(seed + 1000))


def test_the_likelihood_rises_to_near_the_truth(fitted: hs.Flow) -> None:
    """The truth by quadrature over `x_1`; a Gaussian of the same moments is far from it."""
    x, line = noised(4000, 5).double(), torch.linspace(-6, 6, 2001, dtype=torch.float64)
    first = torch.from_numpy(stats.norm.logpdf(line)) - (x[:, :1] - 2 - line) ** 2 / (2 * SIGMA**2) - math.log(SIGMA)
    joint = first - (x[:, 1:] - line.abs()) ** 2 / (2 * (SIGMA**2 + 0.01)) - 0.5 * math.log(SIGMA**2 + 0.01)
    truth = joint.logsumexp(1) + math.log(12 / 2000) - math.log(2 * math.pi)
    gaussian = torch.distributions.MultivariateNormal(x.mean(0), torch.cov(x.mT)).log_prob(x)
    learned = fitted.log_prob(x)
    assert fitted.report is not None
    assert fitted.report.history[-1] > fitted.report.history[0]
    assert float((truth - learned).mean()) < 0.05 < 0.1 < float((truth - gaussian).mean())
    assert float((truth - learned).mean()) > -0.02


def energy(a: Tensor, b: Tensor) -> float:
    """Energy distance between two samples, from above 0 by their sizes."""
    return float(2 * torch.cdist(a, b).mean() - torch.cdist(a, a).mean() - torch.cdist(b, b).mean())


def test_samples_follow_the_law(fitted: hs.Flow) -> None:
    """The distance to fresh data is near that of two samples of the data, 0.0017, and far from a Gaussian's, 0.018."""
    ours, here, there = fitted.sample(2000, seed=1), noised(2000, 7), noised(2000, 8)
    z = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0))
    gaussian = here.mean(0) + z @ torch.linalg.cholesky(torch.cov(here.mT)).mT
    assert energy(there, here) < energy(ours, here) < 0.008 < 0.012 < energy(gaussian, here)
    assert torch.allclose(ours.mean(0), here.mean(0), atol=0.1)


@pytest.mark.parametrize("base", [hs.GaussianBase(), hs.StudentTBase(3.0)], ids=["gaussian", "student"])
@pytest.mark.parametrize("transform", [hs.Coupling(3, (8,)), hs.Spline(3, (8,), 4)], ids=["affine", "spline"])
def test_density_integrates_to_one_and_is_that_of_the_map(transform: Any, base: Any) -> None:
    flow = hs.Flow.fit(bent(300), SIGMA, transform, base, epochs=20, batch=100, learning_rate=1e-2)
    flow = flow.to(dtype=torch.float64)
    half, steps = 50.0, 501
    line = torch.linspace(-half, half, steps, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)
    total = float(flow.log_prob(grid).exp().sum()) * (2 * half / (steps - 1)) ** 2
    assert total == pytest.approx(1, abs=2e-3)
    y = torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z, log_det = flow.network(y)
    for row, found in zip(y, log_det, strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda a: flow.network(a[None])[0][0], row)
        assert torch.allclose(found, torch.linalg.slogdet(jacobian).logabsdet, atol=1e-10)
    assert torch.allclose(flow.network.inverse(z), y, atol=1e-9)


def test_denoise_is_tweedies_formula(fitted: hs.Flow) -> None:
    """On a law without bends the flow's denoiser is the Gaussian one."""
    x = 3 * torch.randn(4000, 2, generator=torch.Generator().manual_seed(0))
    flow = hs.Flow.fit(x, 2.0, hs.Coupling(2, (8,)), noise=hs.Dynamic(), epochs=30, batch=200, learning_rate=5e-3)
    point = torch.tensor([[1.0, -2.0], [3.0, 0.0]])
    assert torch.allclose(flow.denoise(point), 9 / 13 * point, atol=0.35)
    assert fitted.denoise(point[:0]).shape == (0, 2)


def test_samples_have_addresses(fitted: hs.Flow, conditional: hs.Flow) -> None:
    """Latents and classes are the same bits in any batch; the network may round another way."""
    for flow in (fitted, conditional):
        assert isinstance(flow, hs.initializer.Start)
        whole = flow.sample(64, seed=7)
        parts = torch.cat([flow.sample(40, seed=7), flow.sample(24, seed=7, offset=40)])
        assert torch.allclose(whole, parts, rtol=1e-5, atol=1e-5)
        latents = flow.network.latents(64, 7, 0)
        assert torch.equal(latents[40:], flow.network.latents(24, 7, 40))
        assert not torch.allclose(whole, flow.sample(64, seed=8))
        assert flow.sample(0).shape == (0, 2)
        assert flow.log_prob(whole[:0]).shape == (0,)


def test_classes(conditional: hs.Flow) -> None:
    assert conditional.conditional
    for label, centre in ((0, 2.0), (2, 18.0)):
        x = conditional.sample(500, labels=label)
        assert float(x[:, 0].mean()) == pytest.approx(centre, abs=0.5)
        assert float(conditional.log_prob(x, label).mean()) > float(conditional.log_prob(x, 2 - label).mean())
    mixed = conditional.sample(3000, seed=3)
    assert float((mixed[:, 0] > 10).float().mean()) == pytest.approx(2 / 3, abs=0.03)
    each = torch.stack([conditional.log_prob(mixed, k) for k in (0, 2)]) + torch.tensor([[1 / 3], [2 / 3]]).log()
    assert torch.allclose(conditional.log_prob(mixed), each.logsumexp(0), atol=1e-4)
    with pytest.raises(ValueError, match="no point of class 1"):
        conditional.sample(3, labels=torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match="no point of class 7"):
        conditional.log_prob(mixed, 7)


def test_the_sampler_takes_a_flow(conditional: hs.Flow) -> None:
    label = torch.tensor([0, 2, 2])
    x = hs.sample(
        lambda x, sigma, label: x, conditional.at(SIGMA), 3, grid=torch.tensor([SIGMA, 0.0]), cond={"label": label}
    )
    assert torch.equal(x, conditional.sample(3, labels=label))


def test_a_flow_serves_its_sigma_alone(fitted: hs.Flow) -> None:
    assert fitted.at(SIGMA) is fitted
    with pytest.raises(ValueError, match=r"sigma must be 0.5, where this Flow was trained, got 3; .*GaussianMixture"):
        fitted.at(3.0)


def test_heavy_tails_need_a_heavy_base() -> None:
    """On Student-t data the learned df falls, and the 0.9999 quantile of the radius follows."""
    generator = torch.Generator().manual_seed(0)
    chi = torch.randn(4000, 3, generator=generator).square().sum(1, keepdim=True)
    data = torch.randn(4000, 2, generator=generator) * (3 / chi).sqrt()
    settings: dict[str, Any] = {"epochs": 30, "batch": 200, "learning_rate": 5e-3, "noise": hs.Dynamic()}
    plain = hs.Flow.fit(data, 0.2, hs.Coupling(2, (8,)), **settings)
    heavy = hs.Flow.fit(data, 0.2, hs.Coupling(2, (8,)), hs.StudentTBase(8.0), **settings)
    assert 2 < float(heavy.network.base.df) < 6
    assert heavy.report.heldout_log_likelihood > plain.report.heldout_log_likelihood
    radius = [flow.sample(200_000, seed=1).norm(dim=1).quantile(0.9999).item() for flow in (plain, heavy)]
    exact = (2 * stats.f.ppf(0.9999, 2, 3)) ** 0.5
    assert abs(math.log(radius[1] / exact)) < abs(math.log(radius[0] / exact))


@pytest.mark.parametrize("df", [0.7, 3.0, 40.0])
def test_the_student_base_draws_its_own_density(df: float) -> None:
    """`|z|^2 / D` is F-distributed; draws are the same bits in any batch; the density is scipy's."""
    base, like = hs.StudentTBase(df).build(), torch.empty(0, dtype=torch.float64)
    z = base.latents(20_000, 3, 5, 0, like)
    assert stats.kstest((z.square().sum(1) / 3).numpy(), stats.f(3, df).cdf).pvalue > 1e-3
    assert torch.equal(z[150:170], base.latents(20, 3, 5, 150, like))
    exact = stats.multivariate_t(shape=torch.eye(3).numpy(), df=float(base.df.detach())).logpdf(z[:100].numpy())
    assert torch.allclose(base.log_prob(z[:100]), torch.from_numpy(exact), rtol=1e-10)


def test_regimes_of_noise() -> None:
    """Fixed noise is one copy, so a large network learns it by heart; fresh noise cannot be."""
    data, settings = bent(60), {"epochs": 120, "batch": 60, "learning_rate": 1e-2, "patience": None, "heldout": 0.3}
    fixed = hs.Flow.fit(data, SIGMA, noise=hs.Fixed(), **settings).report
    dynamic = hs.Flow.fit(data, SIGMA, noise=hs.Dynamic(), **settings).report
    assert fixed.noise == "Fixed()"
    assert dynamic.noise == "Dynamic()"
    assert fixed.history[-1] < fixed.heldout_log_likelihood - 0.5  # it got worse again: the best weights were kept
    assert fixed.history[-1] < dynamic.history[-1]
    assert fixed.best < fixed.epochs
    a, b = (noise.each(data, 1.0, 0, 1, 0) for noise in (hs.Fixed(), hs.Dynamic()))
    assert torch.equal(a, data)
    assert not torch.equal(b, hs.Dynamic().each(data, 1.0, 0, 2, 0))
    assert torch.equal(b[10:], hs.Dynamic().each(data[10:], 1.0, 0, 1, 10))


def test_patience_stops_and_keeps_the_best() -> None:
    report = hs.Flow.fit(bent(60), SIGMA, epochs=400, batch=60, learning_rate=1e-2, patience=10, heldout=0.3).report
    assert report.stopped
    assert report.epochs == report.best + 10
    assert report.heldout_log_likelihood == max(report.history)
    whole = hs.Flow.fit(bent(60), SIGMA, heldout=0.0, **QUICK).report
    assert (whole.heldout, whole.heldout_log_likelihood, whole.best) == (0, None, 3)


class Interrupt:
    """A noising that is interrupted in the middle of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def __repr__(self) -> str:
        return "Dynamic()"

    def once(self, data: Tensor, sigma: float, seed: int) -> Tensor:
        return data

    def each(self, batch: Tensor, sigma: float, seed: int, epoch: int, first: int) -> Tensor:
        if epoch == self.epoch and first > 0:
            raise KeyboardInterrupt
        return hs.Dynamic().each(batch, sigma, seed, epoch, first)


def test_resuming_gives_the_same_bits(tmp_path: Path) -> None:
    """Stopped in its fourth epoch, or run to its end and prolonged: the weights are those of one run."""
    settings: dict[str, Any] = {"batch": 64, "transform": hs.Coupling(2, (8,)), "labels": torch.arange(200) % 2}
    whole = hs.Flow.fit(bent(200), SIGMA, epochs=6, noise=hs.Dynamic(), **settings)
    path = tmp_path / "run.pt"
    with pytest.raises(KeyboardInterrupt):
        hs.Flow.fit(bent(200), SIGMA, epochs=6, noise=Interrupt(4), checkpoint=path, **settings)
    resumed = hs.Flow.fit(bent(200), SIGMA, epochs=6, noise=hs.Dynamic(), checkpoint=path, **settings)
    hs.Flow.fit(bent(200), SIGMA, epochs=2, noise=hs.Dynamic(), checkpoint=tmp_path / "long.pt", **settings)
    longer = hs.Flow.fit(bent(200), SIGMA, epochs=6, noise=hs.Dynamic(), checkpoint=tmp_path / "long.pt", **settings)
    for other in (resumed, longer):
        assert other.report.history == whole.report.history
        assert other.report.epochs == 6
        for name, value in whole.network.state_dict().items():
            assert torch.equal(value, other.network.state_dict()[name]), name
    assert sorted(file.name for file in tmp_path.iterdir()) == ["long.pt", "run.pt"]


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    hs.Flow.fit(bent(100), SIGMA, checkpoint=path, **QUICK)
    for change, message in (
        ({"seed": 1}, "seed is 0 there, 1 here"),
        ({"learning_rate": 0.1}, "learning_rate is 0.001 there, 0.1 here"),
        ({"noise": hs.Dynamic()}, "noise is"),
        ({"transform": hs.Coupling(3, (8,))}, "network is"),
    ):
        with pytest.raises(ValueError, match=message):
            hs.Flow.fit(bent(100), SIGMA, checkpoint=path, **{**QUICK, **change})
    with pytest.raises(ValueError, match="data is"):
        hs.Flow.fit(bent(100).flip(0), SIGMA, checkpoint=path, **QUICK)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ValueError, match="damaged or no training run"):
        hs.Flow.fit(bent(100), SIGMA, checkpoint=path, **QUICK)


@pytest.mark.parametrize("base", [hs.GaussianBase(), hs.StudentTBase()], ids=["gaussian", "student"])
def test_files_last(base: Any, tmp_path: Path) -> None:
    labels = torch.arange(100) % 2
    made = hs.Flow.fit(bent(100).reshape(100, 1, 2), SIGMA, hs.Spline(2, (8, 8), 4), base, epochs=2, labels=labels)
    made.save(tmp_path / "flow.safetensors")
    back = hs.load(tmp_path / "flow.safetensors")
    assert isinstance(back, hs.Flow)
    assert (back.sigma, back.shape, back.report) == (SIGMA, (1, 2), made.report)
    assert torch.equal(back.sample(20, seed=3), made.sample(20, seed=3))
    assert torch.equal(back.log_prob(made.sample(5), 1), made.log_prob(made.sample(5), 1))


def test_damaged_files_are_refused(fitted: hs.Flow, tmp_path: Path) -> None:
    path = tmp_path / "flow.safetensors"
    fitted.save(path)
    tensors = load_file(path)
    header: dict[str, Any] = {
        "format": "headstart", "version": 1, "family": "Flow", "shape": [2], "sigma": 0.5, "scale": 1.0,
        "provenance": {}, "network": fitted.network.config(),
    }  # fmt: skip

    def refuse(message: str, change: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        save_file(tensors, path, {"headstart": json.dumps({**header, **change})})
        with pytest.raises(ValueError, match=message):
            hs.load(path)

    name = "network.transform.transforms.0.hyper.0.weight"
    transform = header["network"]["transform"]
    save_file(tensors, path, {"headstart": json.dumps(header)})
    assert isinstance(hs.load(path), hs.Flow)
    refuse("damaged", {"sigma": -1}, tensors)
    refuse("damaged", {"scale": "wide"}, tensors)
    refuse("damaged: mean", {"shape": [3]}, tensors)
    refuse("damaged", {"network": {}}, tensors)
    refuse("damaged", {"network": {**header["network"], "transform": {**transform, "kind": "eval"}}}, tensors)
    refuse("damaged", {"network": {**header["network"], "transform": {**transform, "layers": 10**9}}}, tensors)
    refuse("not those of the network", {}, {key: value for key, value in tensors.items() if key != name})
    refuse("not finite", {}, {**tensors, name: tensors[name] * math.nan})


def test_bad_input_is_refused_before_any_work() -> None:
    data = bent(50)
    for change, message in (
        ({"data": data.int()}, "data must be floating"),
        ({"data": data[:, :1]}, "at least 2 values, got 1; a GaussianMixture takes one"),
        ({"sigma": 0.0}, "sigma must be finite and above 0"),
        ({"transform": "coupling"}, "Coupling.* or Spline.* is needed, got 'coupling'"),
        ({"base": hs.GaussianBase}, "GaussianBase.* or StudentTBase.* is needed"),
        ({"noise": "dynamic"}, "noise must be Fixed"),
        ({"epochs": 0}, "epochs must be an integer of at least 1, got 0"),
        ({"batch": 2.5}, "batch must be an integer"),
        ({"learning_rate": math.nan}, "learning_rate must be above 0"),
        ({"heldout": 1.0}, r"heldout must be in \[0, 1\)"),
        ({"heldout": 0.999}, "a point that is not held out"),
        ({"seed": -1}, "seed must be in"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, r"labels must be integers \[50\]"),
    ):
        with pytest.raises(ValueError, match=message):
            hs.Flow.fit(**{"data": data, "sigma": SIGMA, **change})
    for make, message in (
        (lambda: hs.Coupling(0), "layers must be"),
        (lambda: hs.Spline(bins=1), "bins must be"),
        (lambda: hs.Coupling(hidden=(0,)), "hidden must be"),
        (lambda: hs.StudentTBase(0.0), "df must be"),
        (lambda: training.Training(hs.Fixed(), 1, 1, 0.1, patience=0), "patience must be"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    with pytest.raises(ValueError, match="fitted without labels"):
        hs.Flow.fit(data, SIGMA, **QUICK).sample(3, labels=0)


def test_divergence_is_said() -> None:
    data = bent(50)
    data[0] = 1e18
    with pytest.raises(ValueError, match=r"not finite|finite variance"):
        hs.Flow.fit(data * 1e18, SIGMA, epochs=3)


@pytest.mark.parametrize("dim", [2, 3, 5, 64])
def test_every_pair_of_coordinates_is_told_apart(dim: int) -> None:
    masks = torch.stack([halves(dim, layer) for layer in range(2 * max(1, (dim - 1).bit_length()))])
    assert bool(masks.any(1).all())
    assert bool((~masks).any(1).all())
    assert len({tuple(column.tolist()) for column in masks.mT}) == dim


def test_a_missing_zuko_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zuko", None)
    with pytest.raises(ImportError, match=r"pip install .headstart\[flows\]"):
        hs.Flow.fit(bent(50), SIGMA)
