"""EDM2's networks and latents: the same outputs and the same bytes as EDM2's own code."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch

import headstart as hs
from bench.agreement import edm as agreement
from bench.agreement import edm_oracle as oracle
from bench.agreement import edm_pickle
from headstart.adapters import edm
from headstart.adapters.edm.unet import blend, join, normalize, outer, resample, silu

CASES = oracle.CASES["edm2"]


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("edm2")
    try:
        agreement.run_oracle("edm2", folder)
    except ImportError as absent:
        pytest.skip(str(absent))
    return folder


@pytest.mark.parametrize("key", CASES)
def test_recorded_outputs(key: str, tmp_path: Path) -> None:
    errors = agreement.recorded("edm2", key, tmp_path)
    assert len(errors) == 7
    assert {name: error for name, error in errors.items() if not error < agreement.bar(name)} == {}


@pytest.mark.parametrize("key", CASES)
def test_outputs_of_a_checkout(key: str, live: Path) -> None:
    errors = agreement.live("edm2", key, live)
    assert {name: error for name, error in errors.items() if not error < agreement.bar(name)} == {}


def test_magnitudes_are_kept() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(4, 48, 16, 16), torch.randn(4, 16, 16, 16)

    def magnitude(x: torch.Tensor) -> float:
        return x.square().mean().sqrt().item()

    assert magnitude(silu(a)) == pytest.approx(1, abs=0.02)
    assert magnitude(blend(a, torch.randn_like(a), 0.3)) == pytest.approx(1, abs=0.02)
    joined = join(a, b, 0.5)
    assert magnitude(joined) == pytest.approx(1, abs=0.02)
    assert joined[:, :48].norm().item() == pytest.approx(joined[:, 48:].norm().item(), rel=0.03)
    assert normalize(7 * a, 1).square().mean(1).sqrt().sub(1).abs().max() < 1e-3
    flat = torch.full((1, 2, 8, 8), 1.5)
    for part in ("up", "down"):
        inner = resample(flat, part, outer((1, 3, 3, 1)))[..., 1:-1, 1:-1]
        assert torch.allclose(inner, torch.full_like(inner, 1.5))


def test_a_network_without_classes_guides_one_with(tmp_path: Path) -> None:
    files = {key: {"ema": edm_pickle.network(CASES[key])} for key in ("plain", "options")}
    guide, main = (edm.load(edm_pickle.save(tmp_path / key, value)) for key, value in files.items())
    x, cond = oracle.inputs(CASES["options"].arguments)
    assert torch.equal(guide(x, 0.7, **cond), guide(x, 0.7))
    assert (guide.classes, main.classes) == (None, 3)


def test_normalization_and_bytes_are_edm2s() -> None:
    recorded, moments = json.loads(oracle.FIGURES.read_text())["edm2"]["latents"], edm.Moments()
    final = oracle.latents()
    made = {"rgb": edm.rgb_bytes(oracle.ramp()), "vae": edm.vae_bytes(moments.raw(final))}
    for name, out in made.items():
        assert hashlib.sha256(out.numpy().tobytes()).hexdigest() == recorded[name], name
    assert oracle.summary(moments.final(final)) == pytest.approx(recorded["final"], rel=1e-6)
    assert torch.allclose(moments.raw(moments.final(final)), final, atol=1e-5)


def test_normalized_latents_have_the_final_moments() -> None:
    raw = torch.tensor([5.81, 3.25, 0.12, -2.15])[:, None, None] + torch.tensor([4.17, 4.62, 3.71, 3.28])[
        :, None, None
    ] * torch.randn(64, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    final = edm.Moments().final(raw)
    assert final.mean((0, 2, 3)).abs().max() < 0.03
    assert (final.std((0, 2, 3)) - 0.5).abs().max() < 0.02


def test_posteriors_are_drawn_by_address() -> None:
    posterior = torch.cat([oracle.latents(), torch.full_like(oracle.latents(), 0.3)], dim=1)
    moments = edm.Moments()
    whole = moments.draw(posterior, seed=5)
    assert torch.equal(whole[1:], moments.draw(posterior[1:], seed=5, offset=1))
    exact = torch.cat([oracle.latents(), torch.zeros_like(oracle.latents())], dim=1)
    assert torch.equal(moments.draw(exact), moments.final(oracle.latents()))
    with pytest.raises(ValueError, match="posteriors must be"):
        moments.draw(oracle.latents())
    with pytest.raises(ValueError, match="latents must be"):
        moments.raw(posterior)
    with pytest.raises(ValueError, match="above 0"):
        edm.Moments(std=0.0)


@pytest.fixture(scope="module")
def vae_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
    torch.manual_seed(0)
    kinds = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    vae = diffusers.AutoencoderKL(block_out_channels=(8, 8), norm_num_groups=4, sample_size=16, **kinds)
    folder = tmp_path_factory.mktemp("vae")
    vae.save_pretrained(folder)
    return folder


def test_vae_decodes_in_batches_and_tiles(vae_folder: Path) -> None:
    from diffusers import AutoencoderKL

    final = torch.randn(3, 4, 12, 12, generator=torch.Generator().manual_seed(0))
    vae = edm.VAE(vae_folder, batch=2)
    images = vae.decode(final)
    with torch.no_grad():
        theirs = AutoencoderKL.from_pretrained(vae_folder).decode(edm.Moments().raw(final)).sample
    assert images.shape == (3, 3, 24, 24)
    wanted = theirs.clamp(0, 1).mul(255).to(torch.uint8)
    assert (images.int() - wanted.int()).abs().max() <= 1  # batches of another size may round the last bit otherwise
    assert torch.equal(images[2:], edm.VAE(vae_folder).decode(final[2:]))
    tiled = edm.VAE(vae_folder, tiled=True).decode(final)
    assert tiled.shape == images.shape
    assert (tiled.float() - images.float()).abs().mean() < 40
    assert not torch.equal(tiled, images)


def test_vae_encodes(vae_folder: Path) -> None:
    images = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    vae = edm.VAE(vae_folder, batch=2)
    posterior = vae.posterior(images)
    assert posterior.shape == (3, 8, 8, 8)
    assert (posterior[:, 4:] > 0).all()
    assert torch.equal(vae.encode(images, seed=3), edm.Moments().draw(posterior, seed=3))
    with pytest.raises(ValueError, match="images must be uint8"):
        vae.posterior(images.float())


def test_vae_needs_a_folder(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="not a folder"):
        edm.VAE(tmp_path / "none")
    with pytest.raises(ValueError, match="batch must be"):
        edm.VAE(tmp_path, batch=0)


def test_latents_are_sampled_and_decoded(tmp_path: Path, vae_folder: Path) -> None:
    net = edm.load(edm_pickle.save(tmp_path / "net.pkl", {"ema": edm_pickle.network(CASES["stored-half"])}))
    x = hs.sample(net, hs.Classic(net.shape, 3.0), 2, steps=3, cond={"label": torch.tensor([0, 2])})
    assert edm.VAE(vae_folder).decode(x).shape == (2, 3, 16, 16)
