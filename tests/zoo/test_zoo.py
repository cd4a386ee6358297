"""The zoo's training script and the files it writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import headstart as hs
from bench.zoo.train import grow, load_training_images, train
from headstart.zoo.network import UNet

SETTINGS: dict[str, Any] = {
    "name": "tiny", "side": 32, "grow": None, "minutes": None, "budget": 24, "widths": [8, 32], "sigma_max": None,
    "batch": 8, "rate": 1e-3, "seed": 0, "device": "cpu",
}  # fmt: skip


def write_idx(path: Path, array: np.ndarray) -> None:
    """An idx file of bytes, not compressed."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Forty images in the files that the training script reads."""
    images, labels = hs.zoo.images()
    pixels = ((images[:40, 0] + 1) * 127.5).round().byte().numpy()
    write_idx(tmp_path / "train-images-idx3-ubyte.gz", pixels)
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", labels[:40].byte().numpy())
    return tmp_path


def test_larger_images_are_framed_in_black(folder: Path) -> None:
    small, labels = load_training_images(folder)
    large, same = load_training_images(folder, 32)
    assert large.shape == (40, 1, 32, 32)
    assert torch.equal(large[:, :, 2:-2, 2:-2], small)
    assert torch.equal(labels, same)
    large[:, :, 2:-2, 2:-2] = -1
    assert (large == -1).all()


def test_a_trained_file_is_a_denoiser_of_its_shape(folder: Path, tmp_path: Path) -> None:
    train(tmp_path / "run", folder, 1.0, SETTINGS)
    log = json.loads((tmp_path / "run/tiny.json").read_text())
    assert (log["images"], log["side"]) == (24, 32)
    network = hs.zoo.denoiser(str(tmp_path / "run/tiny.safetensors"))
    assert network.shape == (1, 32, 32)
    x = hs.sample(network, hs.Classic(network.shape, 80.0), n=2, steps=2, cond={"label": torch.tensor([1, 2])})
    assert x.isfinite().all()


def test_a_deeper_network_begins_with_the_levels_it_shares() -> None:
    path = Path(hs.zoo.__file__).with_name("fashion.safetensors")
    network, small = UNet(widths=(48, 128, 64)), load_file(path)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    grow(network, path)
    held = network.state_dict()
    for name, of in (("head.weight", "head.weight"), ("down.3.conv1.weight", "down.3.conv1.weight"),
                     ("up.5.conv0.weight", "up.3.conv0.weight"), ("label.weight", "label.weight")):  # fmt: skip
        assert torch.equal(held[name], small[of].float()), name
    assert torch.equal(held["up.0.conv0.weight"], before["up.0.conv0.weight"])
    assert torch.equal(held["middle.conv0.weight"], before["middle.conv0.weight"])


def test_files_that_are_no_network_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        hs.zoo.denoiser(str(tmp_path / "nowhere.safetensors"))
    with pytest.raises(ValueError, match="name must be one of"):
        hs.zoo.denoiser("cifar")
    start = hs.fit(torch.randn(50, 2))
    start.save(tmp_path / "start.safetensors")
    with pytest.raises(ValueError, match="must have format headstart-zoo"):
        hs.zoo.denoiser(str(tmp_path / "start.safetensors"))
