"""Starts: laws are normalized, denoisers are scores, samples have addresses, files last."""

from __future__ import annotations

import errno
import json
import math
import os

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from conftest import random_components
from headstart import ops
from headstart.start import (
    Classic,
    Diagonal,
    Empirical,
    Full,
    GaussianMixture,
    Isotropic,
    LowRank,
    Start,
    StudentTMixture,
    load,
)

KINDS = ["diagonal", "isotropic", "full", "rank3"]


def mixture(kind: str = "rank3", k: int = 3, d: int = 6, dtype: torch.dtype = torch.float64) -> GaussianMixture:
    weight = torch.arange(1.0, k + 1)
    class_weight = torch.eye(k)[[0, k - 1]] + torch.tensor([[0.5], [0.0]])
    return GaussianMixture(random_components(kind, k, d, dtype=dtype), weight, (d,), class_weight)


def every_start() -> list[Start]:
    data = torch.randn(50, 2, 3, generator=torch.Generator().manual_seed(0))
    made = GaussianMixture(mixture(dtype=torch.float32).components, torch.ones(3), (2, 3))
    return [Classic((2, 3)), Empirical(data).at(0.5), made.at(0.0), made.at(2.0)]


@pytest.mark.parametrize("start", every_start(), ids=lambda start: type(start).__name__)
def test_samples_have_addresses(start):
    assert isinstance(start, Start)
    whole = start.sample(64, seed=7)
    assert whole.shape == (64, 2, 3)
    assert whole.dtype == torch.float32
    assert torch.equal(whole, torch.cat([start.sample(32, seed=7), start.sample(32, seed=7, offset=32)]))
    assert torch.equal(whole[17:18], start.sample(1, seed=7, offset=17))
    assert not torch.equal(whole, start.sample(64, seed=8))
    assert start.sample(0).shape == (0, 2, 3)
    assert start.log_prob(whole).shape == (64,)


def test_samples_of_classes_have_addresses():
    start, labels = mixture().at(1.0), torch.tensor([0, 1]).repeat(32)
    whole = start.sample(64, seed=1, labels=labels)
    parts = [start.sample(32, seed=1, labels=labels[:32]), start.sample(32, seed=1, offset=32, labels=labels[32:])]
    assert torch.equal(whole, torch.cat(parts))
    assert torch.equal(start.sample(8, labels=1), start.sample(8, labels=torch.ones(8, dtype=torch.int64)))


def starts_on_a_line() -> list[Start]:
    data = torch.tensor([[-2.0], [0.5], [3.0]], dtype=torch.float64)
    made = mixture("isotropic", d=1)
    return [Classic((1,), 3.0, torch.float64), Empirical(data).at(0.3), made.at(0.0), made.given(1).at(2.0)]


@pytest.mark.parametrize("start", starts_on_a_line(), ids=lambda start: type(start).__name__)
def test_log_prob_is_the_law_of_the_samples(start):
    """It integrates to 1, and its distribution function passes Kolmogorov's test on the samples."""
    grid, n = torch.linspace(-30, 30, 6001, dtype=torch.float64), 20_000
    cdf = start.log_prob(grid[:, None]).exp().cumsum(0) * 0.01
    assert float(cdf[-1]) == pytest.approx(1, abs=1e-6)
    x = start.sample(n, seed=11)[:, 0].sort().values
    at = ((x + 30) / 0.01).long().clamp(0, 5999)
    exact = torch.lerp(cdf[at], cdf[at + 1], (x - grid[at]) / 0.01) - 0.5 * (cdf[at + 1] - cdf[at])
    gap = (exact - (torch.arange(n) + 0.5) / n).abs().max()
    assert gap < 1.95 / math.sqrt(n)  # exceeded once in a thousand laws


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sigma", [0.0, 1.5])
def test_sample_moments(kind, sigma):
    made, n = mixture(kind), 40_000
    x = made.at(sigma).sample(n, seed=2)
    mean, weight = made.components.mean, made.weight
    expected = weight @ mean
    dense = ops.reference.covariance(made.components) + sigma**2 * torch.eye(6)
    between = (mean - expected).mT @ (weight[:, None] * (mean - expected))
    covariance = torch.einsum("k,kde->de", weight, dense) + between
    spread = covariance.diagonal().max().sqrt()
    torch.testing.assert_close(x.mean(0), expected, rtol=0, atol=float(5 * spread / math.sqrt(n)))
    torch.testing.assert_close(torch.cov(x.T), covariance, rtol=0, atol=float(8 * spread**2 / math.sqrt(n)))


@pytest.mark.parametrize("kind", [*KINDS[:3], "rank1"])
@pytest.mark.parametrize("sigma", [0.0, 0.7])
def test_log_prob_integrates_to_one(kind, sigma):
    made, grid = mixture(kind, d=2), torch.linspace(-16, 16, 500, dtype=torch.float64)
    points = torch.cartesian_prod(grid, grid)
    for labels in (None, 0):
        density = made.log_prob(points, sigma, labels=labels).exp()
        assert float(density.sum()) * float(grid[1] - grid[0]) ** 2 == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sigma", [0.3, 5.0])
@pytest.mark.parametrize("label", [None, 1])
def test_denoiser_is_the_score(kind, sigma, label):
    made = mixture(kind)
    x = made.at(sigma).sample(20, seed=4).requires_grad_()
    log_weight = (made if label is None else made.given(label)).weight.log()
    density = ops.reference.mixture_posterior(x, made.components, log_weight, sigma).log_prob
    (score,) = torch.autograd.grad(density.sum(), x)
    denoised = made.denoise(x.detach(), sigma, labels=label)
    torch.testing.assert_close(denoised, x.detach() + sigma**2 * score, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(made.log_prob(x.detach(), sigma, label), density.detach(), rtol=1e-9, atol=1e-9)


def test_denoise_takes_a_level_for_each_point():
    made, x = mixture(), torch.randn(6, 6, dtype=torch.float64)
    sigma, labels = torch.tensor([0.5, 2.0, 0.5, 80.0, 2.0, 0.5]), torch.tensor([0, 1, 1, 0, 0, 1])
    each = [made.denoise(x[i : i + 1], sigma[i], labels=labels[i : i + 1]) for i in range(6)]
    torch.testing.assert_close(made.denoise(x, sigma, labels=labels), torch.cat(each))
    torch.testing.assert_close(made.denoise(x, torch.tensor([0.5])), made.denoise(x, 0.5))
    assert made.denoise(x.half(), 1.0).dtype == torch.float16
    assert made.denoise(x[:0], sigma[:0]).shape == (0, 6)
    with pytest.raises(ValueError, match=r"denoise: sigma must be a number or \[6\], got \[5\]"):
        made.denoise(x, torch.ones(5))


def test_one_fit_serves_every_sigma():
    made = mixture()
    start = made.at(3.0)
    assert start.mixture is made
    assert start.sigma == 3.0
    assert start.shape == (6,)
    assert start.conditional
    assert made.given(0).components.mean.data_ptr() == made.components.mean.data_ptr()
    x = torch.randn(5, 6, dtype=torch.float64)
    assert torch.equal(start.log_prob(x), made.log_prob(x, 3.0))
    assert torch.equal(start.denoise(x, labels=1), made.given(1).denoise(x, 3.0))


def test_to_moves_and_converts():
    made = mixture().to(dtype=torch.float32)
    assert made.at(1.0).sample(2).dtype == torch.float32
    assert made.conditional
    assert made.denoise(torch.zeros(2, 6, dtype=torch.float64), 1.0).dtype == torch.float64


def test_classic_scales_latents():
    start, z = Classic((3,), 80.0), torch.randn(4, 3)
    assert torch.equal(start.from_latents(z), 80 * z)
    assert start.sample(20_000).std() == pytest.approx(80, rel=0.02)


def test_empirical_returns_training_points_of_the_class():
    data, labels = torch.arange(12.0).reshape(12, 1), torch.tensor([0, 2, 2, 0] * 3)
    empirical = Empirical(data, labels)
    seen = empirical.at(0.0).sample(500, labels=2)
    assert set(seen[:, 0].tolist()) == set(data[labels == 2, 0].tolist())
    assert set(empirical.at(0.0).sample(500)[:, 0].tolist()) == set(data[:, 0].tolist())
    with pytest.raises(ValueError, match="no point of class 1"):
        empirical.at(0.0).sample(2, labels=1)
    with pytest.raises(ValueError, match="made without labels"):
        Empirical(data).at(0.0).sample(2, labels=1)


@pytest.mark.parametrize("family", [Isotropic(), Diagonal(), Full(), LowRank(2)], ids=repr)
def test_file_round_trip_is_bit_identical(family, tmp_path):
    data = torch.randn(300, 2, 3, generator=torch.Generator().manual_seed(1))
    made = GaussianMixture.fit(data, 3, family, labels=torch.arange(300) % 4)
    made.save(tmp_path / "start.safetensors")
    back = load(tmp_path / "start.safetensors")
    for a, b in zip(made.components, back.components, strict=True):
        assert (a is None and b is None) or torch.equal(a, b)
    assert torch.equal(made.weight, back.weight)
    assert torch.equal(made.class_weight, back.class_weight)
    assert back.report == made.report
    assert back.shape == (2, 3)
    assert torch.equal(made.at(2.0).sample(5, labels=1), back.at(2.0).sample(5, labels=1))
    assert os.listdir(tmp_path) == ["start.safetensors"]


def test_a_mixture_without_report_or_classes_round_trips(tmp_path):
    made = GaussianMixture(random_components("full", 2, 3), torch.ones(2), (3,))
    made.save(tmp_path / "start")
    back = load(tmp_path / "start")
    assert back.report is None
    assert not back.conditional


def saved(tmp_path) -> tuple[str, dict[str, Tensor], dict]:
    path = str(tmp_path / "start.safetensors")
    made = mixture()
    made.save(path)
    header = {"format": "headstart", "version": 1, "family": "GaussianMixture", "shape": [6], "provenance": {}}
    return path, load_file(path), header


def rewrite(path: str, tensors: dict[str, Tensor], header: dict | str) -> None:
    save_file(tensors, path, {"headstart": header if isinstance(header, str) else json.dumps(header)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 99}, "version 99, this headstart reads up to 1: upgrade headstart"),
        ({"version": "new"}, "not one that headstart saved"),
        ({"version": 0}, "not one that headstart saved"),
        ({"version": math.inf}, "not one that headstart saved"),
        ({"format": "headstart-zoo"}, "not one that headstart saved"),
        ({"family": "Wish"}, "holds the family 'Wish', known are"),
        ({"shape": [7]}, r"damaged: GaussianMixture: mean must be finite \[3, 7\], got float64 \[3, 6\]"),
        ({"shape": None}, "damaged"),
        ({"shape": [6, 0]}, r"damaged: GaussianMixture: shape must be of integers above 0, got \(6, 0\)"),
        ({"shape": [-2, -3]}, "damaged: GaussianMixture: shape must be"),
        ({"shape": [6.0]}, "damaged: GaussianMixture: shape must be"),
        ({"provenance": {"fit": {"n": 1}}}, "damaged"),
        ({"provenance": None}, "damaged"),
    ],
)
def test_files_with_a_wrong_header_are_refused(change, message, tmp_path):
    path, tensors, header = saved(tmp_path)
    rewrite(path, tensors, header)
    load(path)
    rewrite(path, tensors, {**header, **change})
    with pytest.raises(ValueError, match=f"load: .*{message}"):
        load(path)


@pytest.mark.parametrize("name", ["mean", "variance", "axes", "spread", "weight", "class_weight"])
def test_files_with_wrong_tensors_are_refused(name, tmp_path):
    path, tensors, header = saved(tmp_path)
    cut = tensors[name][..., 1:].contiguous()
    rewrite(path, {**tensors, name: cut}, header)
    with pytest.raises(ValueError, match=r"load: .* damaged: GaussianMixture"):
        load(path)
    if name != "class_weight":
        rewrite(path, {key: tensor for key, tensor in tensors.items() if key != name}, header)
        with pytest.raises(ValueError, match=r"load: .* damaged"):
            load(path)
    if "weight" not in name:
        rewrite(path, {**tensors, name: tensors[name].float()}, header)
        with pytest.raises(ValueError, match=r"load: .* must be float32 or float64, like mean, got"):
            load(path)
    rewrite(path, {**tensors, name: tensors[name] * math.nan}, header)
    with pytest.raises(ValueError, match=r"load: .* damaged: GaussianMixture"):
        load(path)


def test_truncated_foreign_and_missing_files_are_refused(tmp_path):
    path, tensors, _ = saved(tmp_path)
    whole = (tmp_path / "start.safetensors").read_bytes()
    for size in (0, 4, 100, len(whole) - 1):
        (tmp_path / "cut").write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"load: .*cut is truncated or no safetensors file"):
            load(tmp_path / "cut")
    (tmp_path / "picture").write_bytes(b"\x89PNG" + bytes(1000))
    with pytest.raises(ValueError, match="no safetensors file"):
        load(tmp_path / "picture")
    save_file(tensors, path)
    with pytest.raises(ValueError, match="not one that headstart saved"):
        load(path)
    rewrite(path, tensors, "[1]")
    with pytest.raises(ValueError, match="not one that headstart saved"):
        load(path)
    with pytest.raises(FileNotFoundError, match="load: there is no file"):
        load(tmp_path / "nothing")


def test_a_failed_save_leaves_nothing_behind(tmp_path, monkeypatch):
    made = mixture()
    made.save(tmp_path / "start")
    with pytest.raises(OSError):
        made.save(tmp_path / "start" / "deep")
    before = (tmp_path / "start").read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        made.save(tmp_path / "start")
    assert os.listdir(tmp_path) == ["start"]
    assert (tmp_path / "start").read_bytes() == before


def test_a_full_disk_is_told_by_its_number(tmp_path, monkeypatch):
    def full(tensors, path, metadata):
        path.write_bytes(b"half")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("headstart.start.file.save_file", full)
    with pytest.raises(OSError) as caught:
        mixture().save(tmp_path / "start")
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(tmp_path / "start")
    assert os.listdir(tmp_path) == []


def test_saved_files_are_as_open_as_any_other(tmp_path):
    mixture().save(tmp_path / "deep" / "start")
    (tmp_path / "plain").touch()
    assert (tmp_path / "deep" / "start").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_bad_arguments_are_refused():
    made, plain = mixture(), GaussianMixture(random_components("full", 2, 3), torch.ones(2), (3,))
    x = torch.zeros(4, 6)
    for call, message in [
        (lambda: made.at(-1.0), "at: sigma must be finite and at least 0, got -1.0"),
        (lambda: made.at(math.nan), "at: sigma must be finite"),
        (lambda: made.denoise(torch.zeros(4, 5), 1.0), r"denoise: x must be floating \[B, 6\], got float32 \[4, 5\]"),
        (lambda: made.log_prob(x.long()), r"log_prob: x must be floating \[B, 6\], got int64 \[4, 6\]"),
        (lambda: plain.at(1.0).sample(2, labels=0), "sample: labels were given, but this mixture was fitted without"),
        (lambda: made.given(5), "given: no point of class 5 was in the data"),
        (lambda: made.given(-1), "given: labels must be at least 0, got -1"),
        (lambda: made.log_prob(x, labels=torch.tensor([0, 1])), r"log_prob: labels must be integers \[4\], got"),
        (lambda: Classic((2,), 0.0), "Classic: sigma must be finite and above 0, got 0.0"),
        (lambda: Empirical(torch.zeros(3)), r"Empirical: data must be floating \[N, \*shape\]"),
        (lambda: Empirical(torch.zeros(3, 2)).at(0.0).log_prob(x[:, :2]), "log_prob: sigma must be finite and above 0"),
        (lambda: GaussianMixture(made.components, torch.zeros(3), (6,)), "weight must be .* not all 0"),
        (lambda: GaussianMixture(made.components, -torch.ones(3), (6,)), "weight must be .* at least 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("turn", ["long", "short", "skew"])
def test_axes_that_are_not_orthonormal_are_refused(turn, tmp_path):
    """In the constructor and in files; a row that does not spread may be anything."""
    made = random_components("rank2", 3, 5, dtype=torch.float32)
    axes = made.axes.clone()
    axes[1] = {"long": 10 * axes[1], "short": 0.9 * axes[1], "skew": axes[1, :1].expand(2, 5)}[turn]
    wrong = made._replace(axes=axes)
    with pytest.raises(ValueError, match="GaussianMixture: axes must be orthonormal rows, got component 1 off by"):
        GaussianMixture(wrong, torch.ones(3), (5,))
    with pytest.raises(ValueError, match="StudentTMixture: axes must be orthonormal"):
        StudentTMixture(wrong, torch.ones(3), (5,), df=torch.full((3,), 5.0))
    right = GaussianMixture(made, torch.ones(3), (5,))
    right.components = wrong
    right.save(tmp_path / "file")
    with pytest.raises(ValueError, match="axes must be orthonormal"):
        load(tmp_path / "file")
    spread = made.spread.clone()
    spread[1] = 0
    GaussianMixture(
        made._replace(axes=torch.where(spread[..., None] > 0, made.axes, 0.0), spread=spread), torch.ones(3), (5,)
    )


@pytest.mark.parametrize("labels", [[0, 1, 0, 1], (0, 1, 0, 1), torch.tensor([0, 1, 0, 1]).byte()])
def test_labels_of_every_form(labels):
    law = GaussianMixture(random_components("rank2", 2, 5, dtype=torch.float32), torch.ones(2), (5,), torch.eye(2))
    wanted = torch.tensor([0, 1, 0, 1])
    assert torch.equal(law.at(1.0).sample(4, labels=labels), law.at(1.0).sample(4, labels=wanted))
    data = torch.randn(4, 5)
    points = Empirical(data, labels=labels).at(1.0)
    assert torch.equal(points.sample(4, labels=labels), Empirical(data, wanted).at(1.0).sample(4, labels=wanted))
    with pytest.raises(ValueError, match=r"labels must be integers \[4\]"):
        law.at(1.0).sample(4, labels=wanted > 0)


@pytest.mark.parametrize("sigma", ["3", b"3", True, None, torch.tensor(1 + 1j), torch.ones(2)])
def test_a_noise_level_is_a_number(sigma):
    with pytest.raises(TypeError, match="at: sigma must be a number"):
        mixture().at(sigma)


def test_weights_and_degrees_of_freedom_are_real():
    made = random_components("rank2", 3, 5, dtype=torch.float32)
    with pytest.raises(TypeError, match="GaussianMixture: weight must be real numbers"):
        GaussianMixture(made, torch.ones(3) + 2j, (5,))
    with pytest.raises(ValueError, match="StudentTMixture: df must be real"):
        StudentTMixture(made, torch.ones(3), (5,), df=torch.full((3,), 5 + 1j))


def test_a_start_says_what_it_is() -> None:
    points = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    start = GaussianMixture.fit(points, 2, labels=torch.arange(200) % 4)
    assert repr(start) == "<GaussianMixture shape=(3,), components=2, classes=4>"
    assert repr(start) in repr(start.at(2.0))
