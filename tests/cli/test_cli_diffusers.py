"""`headstart fit` and `headstart sample` on a folder of images and a network of diffusers trained on it."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import headstart as hs
from headstart.cli import app
from headstart.io import read_dataset
from headstart.io.output import to_bytes

nets = pytest.importorskip("bench.agreement.network", reason='needs pip install "headstart[diffusers]"')
diffusers = nets.diffusers


def call(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def draw_images(folder: Path, n: int) -> None:
    """Colour images 8 x 8: a bright half, left or right, of one of two colours on a dark ground."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for i in range(n):
        pixels = random.integers(20, 50, (8, 8, 3), dtype=np.uint8)
        side, colour = slice(0, 4) if i % 2 else slice(4, 8), (220, 60, 40) if i % 3 else (40, 90, 220)
        pixels[:, side] = np.clip(np.array(colour) + random.integers(-15, 15, (8, 4, 3)), 0, 255)
        Image.fromarray(pixels).save(folder / f"{i:03}.png")


def train(images: torch.Tensor, steps: int) -> tuple[Any, Any]:
    """The training loop of diffusers' unconditional example, on so small a network that seconds are enough."""
    network, scheduler = nets.unet().train().requires_grad_(True), diffusers.DDPMScheduler()
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        clean = images[torch.randint(len(images), (48,), generator=generator)]
        noise = torch.randn(clean.shape, generator=generator)
        t = torch.randint(1000, (48,), generator=generator)
        loss = (network(scheduler.add_noise(clean, noise, t), t).sample - noise).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network, scheduler


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images, and with the network that was trained on them as its pipeline saves it."""
    place = tmp_path_factory.mktemp("unseen")
    draw_images(place / "images", 120)
    network, scheduler = train(read_dataset(place / "images").images, 100)
    diffusers.DDPMPipeline(network, scheduler).save_pretrained(place / "pipeline")
    call("fit", place / "images", "--out", place / "start.safetensors", "--components", 4, "--rank", 4)
    return place


def test_unseen_images_end_to_end(place: Path, tmp_path: Path) -> None:
    shared = ["--denoiser", f"diffusers:{place / 'pipeline'}", "--n", 48, "--steps", 6]
    text = call("sample", *shared, "--start", place / "start.safetensors", "--out", tmp_path / "out", "--sigma", 1.0)
    assert "wrote 48 images, grid.png, samples.npz" in text
    assert "6 network calls a sample" in text
    with np.load(tmp_path / "out" / "samples.npz") as file:
        samples = file["arr_0"]
    assert samples.shape == (48, 8, 8, 3)
    network, law = hs.diffusers.load(place / "pipeline"), hs.load(place / "start.safetensors")
    assert network.shape == (3, 8, 8)
    x = hs.sample(network, law.at(1.0), 48, 6)
    assert np.array_equal(to_bytes(x), samples)
    images = read_dataset(place / "images").images
    apart = ((x[:, None] - images).flatten(2).square().mean(2).sqrt().min(1).values).mean()
    assert apart < 0.35  # root mean square to the nearest image; the start's own samples at sigma = 1 are 1 apart
    halves = samples.reshape(48, 8, 2, 4, 3).mean((1, 3, 4))
    assert (halves[:, 0] > halves[:, 1]).mean() == pytest.approx(0.5, abs=0.3)


def spoil(folder: Path, kind: str) -> None:
    """One image of the folder cut short, or with other channels."""
    path = folder / "005.png"
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:150])
    else:
        Image.open(path).convert(kind).save(path)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("cut", "not a readable image (image file is truncated)"),
        ("L", "image is 8x8x1, grayscale (height x width x channels), 000.png is 8x8x3, RGB; channels must be equal"),
        ("RGBA", "image is 8x8x4, RGBA (height x width x channels), 000.png is 8x8x3, RGB; channels must be equal"),
    ],
)
def test_one_image_unlike_the_others_is_one_clear_line(kind: str, says: str, place: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    shutil.copytree(place / "images", folder)
    np.save(tmp_path / "samples.npy", np.zeros((4, 8, 8, 3), np.uint8))
    spoil(folder, kind)
    for command in (("fit", folder, "--out", tmp_path / "x.safetensors"), ("eval", tmp_path / "samples.npy", folder)):
        assert call(*command, code=1) == f"error: {folder / '005.png'}: {says}"
    assert not (tmp_path / "x.safetensors").exists()


def test_a_start_of_other_channels_than_the_network_is_named(place: Path, tmp_path: Path) -> None:
    hs.fit(torch.rand(20, 1, 8, 8), components=1, covariance=hs.LowRank(2)).save(tmp_path / "gray.safetensors")
    shared = ["--denoiser", f"diffusers:{place / 'pipeline'}", "--out", tmp_path / "out", "--n", 1, "--steps", 2]
    text = call("sample", *shared, "--start", tmp_path / "gray.safetensors", "--sigma", 1.0, code=1)
    assert "denoises samples of shape (3, 8, 8), got (1, 8, 8)" in text


def test_the_classic_start_takes_the_shape_of_the_network(place: Path, tmp_path: Path) -> None:
    shared = ["--denoiser", f"diffusers:{place / 'pipeline'}", "--out", tmp_path / "out", "--n", 2, "--steps", 2]
    assert "wrote 2 images" in call("sample", *shared, "--start", "classic")
    text = call("sample", *shared, "--start", "classic", "--shape", "3,9,9", code=1)
    assert "denoises samples of shape (3, 8, 8), got (3, 9, 9)" in text


def test_a_folder_of_network_and_scheduler(place: Path, tmp_path: Path) -> None:
    """Without the pipeline's index, in folders of their own or in one."""
    whole = hs.diffusers.load(place / "pipeline")
    flat, parts = tmp_path / "flat", tmp_path / "parts"
    for part in ("unet", "scheduler"):
        shutil.copytree(place / "pipeline" / part, flat, dirs_exist_ok=True)
        shutil.copytree(place / "pipeline" / part, parts / part)
    x = nets.normals(2, 3, 8, 8)
    for folder in (flat, parts):
        assert torch.equal(hs.diffusers.load(folder)(x, 2.0), whole(x, 2.0))
    assert hs.diffusers.load(flat, dtype=torch.bfloat16).dtype == torch.bfloat16


def test_a_missing_library_names_its_extra(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ImportError, match=r'needs diffusers: pip install "headstart\[diffusers\]"'):
        hs.diffusers.load(place / "pipeline")


def test_folders_that_cannot_be_read(place: Path, tmp_path: Path) -> None:
    def message(folder: Path) -> str:
        shared = ["--start", place / "start.safetensors", "--out", tmp_path / "out", "--n", 1]
        return call("sample", "--denoiser", f"diffusers:{folder}", *shared, code=1)

    broken = tmp_path / "broken"
    assert "no such folder" in message(broken)
    broken.mkdir()
    assert "holds no network (unet/config.json" in message(broken)
    shutil.copytree(place / "pipeline" / "unet", broken, dirs_exist_ok=True)
    assert "holds no scheduler" in message(broken)
    shutil.copytree(place / "pipeline" / "scheduler", broken, dirs_exist_ok=True)
    config = json.loads((broken / "config.json").read_text())
    for name in ("DDPMPipeline", "os", None):
        (broken / "config.json").write_text(json.dumps(config | {"_class_name": name}))
        assert f"_class_name must be a ModelMixin of diffusers, got {name!r}" in message(broken)
    (broken / "config.json").write_text("{")
    assert "must be a configuration in JSON" in message(broken)
    (broken / "config.json").write_text(json.dumps(config))
    weights = next(broken.glob("*.safetensors"))
    weights.rename(weights.with_name("diffusion_pytorch_model.bin"))
    assert "holds no safetensors weights; pickles are not opened" in message(broken)
