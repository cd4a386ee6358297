"""TarFlow: the map inverts, its determinant is autograd's, the cache changes nothing, images are learned."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import headstart as hs
from headstart.start.noised_flow import Frame
from headstart.start.tarflow_network import Architecture, Decoder, TarFlowNetwork, eager_reason, make_tarflow_network

SIZES = [
    Architecture((1, 2, 2), 1, 8, 1, 1, 0),
    Architecture((2, 4, 2), 2, 8, 2, 1, 3),
    Architecture((1, 2, 6), 2, 16, 3, 2, 2),
    Architecture((3, 2, 2), 2, 8, 2, 1, 2),  # one patch
]


def network(size: Architecture, scale: float = 0.3) -> TarFlowNetwork:
    """A network in float64 whose heads are not zero, as training would leave them."""
    made = make_tarflow_network(size, seed=1).double()
    generator = torch.Generator().manual_seed(2)
    for block in made.blocks:
        block.head.weight.data = scale * torch.randn(block.head.weight.shape, generator=generator, dtype=torch.float64)
    return made.requires_grad_(False)


def batch(size: Architecture, n: int = 5) -> tuple[Tensor, Tensor | None]:
    x = torch.randn(n, math.prod(size.shape), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return x, torch.arange(n) % size.classes if size.classes else None


@pytest.mark.parametrize("size", SIZES)
def test_patches_are_a_permutation(size: Architecture) -> None:
    made, x = network(size), batch(size)[0]
    patches = made.patches(x)
    assert patches.shape == (5, size.tokens, size.width)
    assert torch.equal(made.points(patches), x)
    image = x.reshape(5, *size.shape)[:, :, : size.patch, : size.patch]
    assert torch.equal(patches[:, 0].sort().values, image.flatten(1).sort().values)


@pytest.mark.parametrize("size", SIZES)
def test_inverse_and_determinant(size: Architecture) -> None:
    made, (x, label) = network(size), batch(size)
    z, log_det = made(x, label)
    assert torch.allclose(made.inverse(z, label), x, atol=1e-10)
    for row in range(len(x)):
        of = None if label is None else label[row : row + 1]
        jacobian = torch.autograd.functional.jacobian(lambda a, of=of: made(a[None], of)[0][0], x[row])
        assert torch.allclose(torch.linalg.slogdet(jacobian).logabsdet, log_det[row], atol=1e-9)


def test_inverse_in_float32() -> None:
    size = Architecture((1, 8, 8), 2, 32, 4, 2, 0)
    made = network(size, 0.1).float()
    x = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(made.inverse(made(x)[0]), x, atol=1e-4)


def test_a_patch_depends_on_those_before_it_alone() -> None:
    size = SIZES[2]
    made, (x, label) = network(size), batch(size, 1)
    for block in made.blocks:
        jacobian = torch.autograd.functional.jacobian(
            lambda a, block=block: torch.cat(block.parameters_of(a, label), dim=2)[0], made.patches(x)
        )[:, :, 0]
        reach = jacobian.abs().amax((1, 3))  # [T out, T in]
        assert bool((reach.triu() == 0).all())
        assert bool((reach.tril(-1)[1:].sum(1) > 0).all())


def slow_inverse(made: TarFlowNetwork, z: Tensor, label: Tensor, guidance: float) -> Tensor:
    """The same inverse by whole passes, one a patch, without a cache."""
    x, null = made.patches(z), torch.full_like(label, made.classes)
    for block in reversed(made.blocks):
        latent = block.turn(x)
        out = torch.zeros_like(latent)
        for t in range(latent.shape[1]):
            mu, alpha = block.parameters_of(out, label)
            if guidance:
                mu_null, alpha_null = block.parameters_of(out, null)
                mu, alpha = (1 + guidance) * mu - guidance * mu_null, (1 + guidance) * alpha - guidance * alpha_null
            out[:, t] = latent[:, t] * alpha[:, t].exp() + mu[:, t]
        x = block.turn(out)
    return made.points(x)


@pytest.mark.parametrize("guidance", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("size", SIZES[1:])
def test_the_cache_changes_nothing(size: Architecture, guidance: float) -> None:
    made, (z, label) = network(size, 0.1), batch(size)
    assert label is not None
    found = made.inverse(z, label, guidance)
    assert torch.allclose(found, slow_inverse(made, z, label, guidance), atol=1e-10)
    if guidance:
        assert not torch.allclose(found, made.inverse(z, label), atol=1e-3)


def test_a_step_reads_and_writes_tensors_in_place() -> None:
    """What a captured graph needs: a decoder used again, from other latents in the same place, gives their inverse."""
    size = SIZES[2]
    made, (z, label) = network(size), batch(size)
    assert label is not None
    block = made.blocks[0]
    places = made.patches(z).clone()
    decoder = Decoder(block, places, label, 0.0)
    held = [tensor.data_ptr() for tensor in (decoder.x, decoder.keys, decoder.values, decoder.entry, decoder.position)]
    for latents in (z, 2 * z):
        places.copy_(made.patches(latents))
        decoder.reset()
        for _ in range(size.tokens):
            decoder.step()
        assert torch.allclose(block(block.turn(decoder.x), label)[0], block.turn(places), atol=1e-10)
    now = [tensor.data_ptr() for tensor in (decoder.x, decoder.keys, decoder.values, decoder.entry, decoder.position)]
    assert held == now
    assert "graphs are for CUDA" in str(eager_reason(z))


@pytest.mark.cuda
def test_the_captured_step_is_the_eager_one(monkeypatch: pytest.MonkeyPatch) -> None:
    size = Architecture((1, 8, 8), 2, 64, 2, 2, 2)
    made, (z, label) = network(size, 0.1).float().cuda(), batch(size)
    assert label is not None
    z, label = z.float().cuda(), label.cuda()
    assert eager_reason(z) is None
    captured = made.inverse(z, label, 1.0)
    monkeypatch.setattr("headstart.start.tarflow_network.eager_reason", lambda z: "asked to")
    assert torch.allclose(captured, made.inverse(z, label, 1.0), atol=1e-5)
    assert torch.allclose(made.inverse(made(z, label)[0], label), z, atol=1e-3)


def stripes(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images `[n, 1, 4, 4]` of two classes, right half equal to the left, the second class brighter."""
    half = torch.randn(n, 1, 4, 2, generator=torch.Generator().manual_seed(seed))
    labels = torch.arange(n) % 2
    return 2 * half.repeat(1, 1, 1, 2) + 6 * labels[:, None, None, None], labels


SMALL: dict[str, Any] = {"patch": 2, "channels": 32, "blocks": 2, "layers": 1, "batch": 100, "learning_rate": 5e-3}


@pytest.fixture(scope="module")
def fitted() -> hs.TarFlow:
    data, labels = stripes(1000)
    return hs.TarFlow.fit(data, 1.0, **SMALL, epochs=40, average=0.98, labels=labels)


def test_the_likelihood_rises_to_near_the_truth(fitted: hs.TarFlow) -> None:
    """The truth is Gaussian in each class: variance 9 along each pair's sum, 1 along its difference."""
    data, labels = stripes(1000, seed=9)
    x = data + torch.randn(data.shape, generator=torch.Generator().manual_seed(10))
    centred = (x - 6 * labels[:, None, None, None]).unflatten(3, (2, 2))
    along, across = centred.sum(-2) / 2**0.5, (centred[..., 0, :] - centred[..., 1, :]) / 2**0.5
    truth = -0.5 * (along.square() / 9 + across.square()).sum((1, 2, 3)) - 8 * math.log(3) - 8 * math.log(2 * math.pi)
    start, gap = fitted.report.history[0], float((truth - fitted.log_prob(x, labels)).mean())
    assert -0.05 < gap < 0.6
    assert float(truth.mean()) - start > 3 * gap


def test_samples_follow_the_law(fitted: hs.TarFlow) -> None:
    x = fitted.sample(2000, seed=1, labels=1).flatten(1)
    data = stripes(4000, seed=9)[0][1::2].flatten(1)
    assert torch.allclose(x.mean(0), data.mean(0), atol=0.35)
    covariance, exact = torch.cov(x.mT), torch.cov(data.mT) + torch.eye(16)
    assert float((covariance - exact).norm() / exact.norm()) < 0.2
    mixed = fitted.sample(1000, seed=2).mean((1, 2, 3))
    assert float((mixed > 3).float().mean()) == pytest.approx(0.5, abs=0.06)


def test_samples_have_addresses(fitted: hs.TarFlow) -> None:
    assert isinstance(fitted, hs.initializer.Start)
    whole, parts = fitted.sample(6, seed=7), [fitted.sample(4, seed=7), fitted.sample(2, seed=7, offset=4)]
    assert torch.allclose(whole, torch.cat(parts), atol=1e-4)
    assert fitted.sample(0).shape == (0, 1, 4, 4)
    with pytest.raises(ValueError, match="where this TarFlow was trained"):
        fitted.at(2.0)


def test_guidance_goes_away_from_the_other_class(fitted: hs.TarFlow) -> None:
    plain, guided = (flow.sample(300, seed=1, labels=1).mean() for flow in (fitted, fitted.guided(1.5)))
    assert float(guided) > float(plain)
    assert torch.equal(fitted.guided(0.0).sample(5, labels=1), fitted.sample(5, labels=1))
    for wrong in (-1.0, math.inf):
        with pytest.raises(ValueError, match="guidance must be"):
            fitted.guided(wrong)


def test_density_integrates_to_one() -> None:
    size = Architecture((1, 1, 2), 1, 8, 2, 1, 0)
    flow = hs.TarFlow(network(size), Frame((1, 1, 2), 1.0, torch.tensor([1.0, -1.0]).double(), 2.5, None))
    line = torch.linspace(-60, 60, 401, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line).reshape(-1, 1, 1, 2)
    assert float(flow.log_prob(grid).exp().sum()) * 0.09 == pytest.approx(1, abs=1e-3)


def test_resuming_gives_the_same_bits(tmp_path: Path) -> None:
    """Dropped labels, averaged weights and fresh noise included."""
    data, labels = stripes(80)
    settings: dict[str, Any] = {**SMALL, "batch": 32, "average": 0.9, "labels": labels, "seed": 5}
    whole = hs.TarFlow.fit(data, 1.0, epochs=4, **settings)
    hs.TarFlow.fit(data, 1.0, epochs=2, checkpoint=tmp_path / "run.pt", **settings)
    resumed = hs.TarFlow.fit(data, 1.0, epochs=4, checkpoint=tmp_path / "run.pt", **settings)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name
    assert resumed.report.history == whole.report.history


def test_files_last(fitted: hs.TarFlow, tmp_path: Path) -> None:
    fitted.save(tmp_path / "start.safetensors")
    back = hs.load(tmp_path / "start.safetensors")
    assert isinstance(back, hs.TarFlow)
    assert back.report == fitted.report
    assert torch.equal(back.sample(4, seed=3), fitted.sample(4, seed=3))
    assert back.guided(1.0).guidance == 1.0


def test_bad_input_is_refused() -> None:
    data, labels = stripes(20)
    for change, message in (
        ({"data": data.flatten(1)}, r"samples must be \[C, H, W\]"),
        ({"patch": 3}, "sides divisible by 3"),
        ({"channels": 100}, "channels must be a multiple of 64"),
        ({"blocks": 0}, "blocks must be an integer of at least 1"),
        ({"average": 1.0}, "average must be in"),
        ({"scale": 0.0}, "scale must be above 0"),
        ({"labels": labels.float()}, "labels must be integers"),
    ):
        with pytest.raises(ValueError, match=message):
            hs.TarFlow.fit(**{"data": data, "sigma": 1.0, **change})
    plain = hs.TarFlow.fit(data, 1.0, **SMALL, epochs=1)
    with pytest.raises(ValueError, match="fitted without labels"):
        plain.guided(1.0)
