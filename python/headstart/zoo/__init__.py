"""A small network and images that ship with the package: enough to see the method work, with no download.

`fashion`: a class-conditional EDM-preconditioned U-Net trained on Fashion-MNIST by `bench/zoo/train.py`, and 2,000
training and 500 test images of Fashion-MNIST chosen by `bench/zoo/subset.py` (Zalando SE, MIT licence).
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from headstart import ops
from headstart.argument import require_path, shown
from headstart.denoiser import EDM
from headstart.zoo.network import UNet, locate


def denoiser(name: str = "fashion", device: str | torch.device = "cpu") -> EDM:
    """The network of the zoo, as a denoiser `D(x, sigma, label=None)` of images `[B, *shape]` in [-1, 1].

    Args:
        name: "fashion", of `shape` `[1, 28, 28]`, or a file that `bench/zoo/train.py` wrote; labels are 0..9 (`[B]`,
            int64), None is unconditional.
        device: where the weights go (float32).

    Raises:
        ValueError: an unknown name, or a file of another format.
        FileNotFoundError: no such file, or the weights are not part of this installation.
    """
    if not isinstance(name, str) or not name.endswith(".safetensors"):
        return read(locate(name, ".safetensors"), device)
    path = require_path("zoo", name, "name")
    if not path.exists():
        raise FileNotFoundError(2, "no such file", name)
    if not path.is_file():
        raise ValueError(f"zoo: {path}: is a folder, pipe or device; only regular files are read")
    return read(path, device)


def read(path: Path, device: str | torch.device = "cpu") -> EDM:
    """The denoiser of a file that `bench/zoo/train.py` wrote, see `denoiser`.

    Raises:
        ValueError: the file is damaged or of another format.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"zoo: {path} is truncated or no safetensors file ({str(error)[:200]})") from None
    if header.get("format") != "headstart-zoo":
        raise ValueError(f"zoo: {path.name} must have format headstart-zoo, got {str(header.get('format'))[:100]!r}")
    try:
        config = json.loads(header["network"])
        side, sigma_data = int(header.get("side", 28)), float(header["sigma_data"])
        blocks = len(config["widths"]) * config["depth"]
        if blocks > len(weights):  # each has several; said before as many are made
            raise ValueError(f"{len(config['widths'])} levels of {config['depth']} blocks, {len(weights)} tensors")
        with torch.device("meta"):
            network = UNet(**config)
        network.load_state_dict({key: value.float() for key, value in weights.items()}, assign=True)
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
        reason = " ".join(str(error)[:300].split())
        raise ValueError(f"zoo: {path} is damaged or of another version: {reason}") from None
    network = network.to(ops.check.require_device("zoo", device)).eval().requires_grad_(False)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return EDM(network, sigma_data, shape=(config["channels"], side, side))


def images(name: str = "fashion", split: str = "train") -> tuple[Tensor, Tensor]:
    """Images `[N, 1, 28, 28]`, float32 in [-1, 1], and labels `[N]`, int64; class-balanced, in mixed order.

    Args:
        name: "fashion".
        split: "train" (N = 2,000, part of what the network was trained on) or "test" (N = 500, held out).

    Raises:
        ValueError: an unknown name or split.
        FileNotFoundError: the images are not part of this installation.
    """
    if not isinstance(split, str) or split not in ("train", "test"):
        raise ValueError(f"zoo.images: split must be train or test, got {shown(split)}")
    with np.load(locate(name, "-images.npz"), allow_pickle=False) as file:
        pixels, labels = file[f"{split}_images"], file[f"{split}_labels"]
    return torch.from_numpy(pixels)[:, None].float() / 127.5 - 1, torch.from_numpy(labels).long()
