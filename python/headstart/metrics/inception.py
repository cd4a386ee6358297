"""The 2048 pooled features of the Inception network that FID is defined on, from a weights file of the user's.

The network is TensorFlow's graph of 2015-12-05, whose weights torch-fidelity and pytorch-fid publish as
`weights-inception-2015-12-05-6726825d.pth` and `pt_inception-2015-12-05-6726825d.pth` (the same bytes). Parameter names
are theirs. Three things set it apart from torchvision's: averages leave padding out, the last block takes a maximum
where others average, and images are resized as TensorFlow 1 does it. Architecture: "Rethinking the Inception
Architecture for Computer Vision" (Szegedy et al., 2015, https://arxiv.org/abs/1512.00567).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from headstart.argument import require_path
from headstart.io.bound import DataError
from headstart.io.tensor_file import read_tensors
from headstart.metrics.check import as_device, as_images

SIDE = 299
Shape = tuple[int, int]


class Unit(nn.Module):
    """Convolution without bias, batch normalization, ReLU."""

    def __init__(self, channels: int, width: int, kernel: int | Shape, stride: int = 1, padding: int | Shape = 0):
        super().__init__()
        self.conv = nn.Conv2d(channels, width, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(width, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(x)))


class Mixed(nn.Module):
    """Branches side by side, their outputs concatenated; the last branch pools.

    Args:
        channels: of the input.
        branches: chains of units, each unit `(name, width, kernel, stride, padding)`; a chain's last entry may be two
            units that both see what came before them.
        pool: "mean" or "max" around a 1 x 1 unit, or "halve": a maximum at stride 2, without a unit.
        pooled: width of that unit.
    """

    def __init__(self, channels: int, branches: list[list[Any]], pool: str, pooled: int = 0) -> None:
        super().__init__()
        self.chains: list[list[tuple[str, ...]]] = []
        self.pool, self.width = pool, pooled if pool != "halve" else channels
        for branch in branches:
            inside, chain = channels, []
            for entry in branch:
                units = entry if isinstance(entry, list) else [entry]
                for name, width, *form in units:
                    self.add_module(f"branch{name}", Unit(inside, width, *form))
                chain.append(tuple(f"branch{unit[0]}" for unit in units))
                inside = sum(unit[1] for unit in units)
            self.chains.append(chain)
            self.width += inside
        if pool != "halve":
            self.branch_pool = Unit(channels, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        out = []
        for chain in self.chains:
            y = x
            for names in chain:
                y = torch.cat([self.get_submodule(name)(y) for name in names], 1)
            out.append(y)
        if self.pool == "halve":
            return torch.cat([*out, functional.max_pool2d(x, 3, 2)], 1)
        if self.pool == "max":
            return torch.cat([*out, self.branch_pool(functional.max_pool2d(x, 3, 1, 1))], 1)
        return torch.cat([*out, self.branch_pool(functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False))], 1)


ROW, COLUMN = ((1, 7), 1, (0, 3)), ((7, 1), 1, (3, 0))
FLAT, TALL = ((1, 3), 1, (0, 1)), ((3, 1), 1, (1, 0))


def block_35(channels: int, pooled: int) -> Mixed:
    triple = [("3x3dbl_1", 64, 1), ("3x3dbl_2", 96, 3, 1, 1), ("3x3dbl_3", 96, 3, 1, 1)]
    return Mixed(channels, [[("1x1", 64, 1)], [("5x5_1", 48, 1), ("5x5_2", 64, 5, 1, 2)], triple], "mean", pooled)


def block_17(narrow: int) -> Mixed:
    single = [("7x7_1", narrow, 1), ("7x7_2", narrow, *ROW), ("7x7_3", 192, *COLUMN)]
    double = [("7x7dbl_1", narrow, 1), ("7x7dbl_2", narrow, *COLUMN), ("7x7dbl_3", narrow, *ROW)]
    double += [("7x7dbl_4", narrow, *COLUMN), ("7x7dbl_5", 192, *ROW)]
    return Mixed(768, [[("1x1", 192, 1)], single, double], "mean", 192)


def block_8(channels: int, pool: str) -> Mixed:
    single: list[Any] = [("3x3_1", 384, 1), [("3x3_2a", 384, *FLAT), ("3x3_2b", 384, *TALL)]]
    double: list[Any] = [("3x3dbl_1", 448, 1), ("3x3dbl_2", 384, 3, 1, 1)]
    double.append([("3x3dbl_3a", 384, *FLAT), ("3x3dbl_3b", 384, *TALL)])
    return Mixed(channels, [[("1x1", 320, 1)], single, double], pool, 192)


def inception() -> nn.Sequential:
    """The network up to its pooled features: `[N, 3, 299, 299] in [-1, 1] -> [N, 2048]`."""
    to_17 = [("3x3dbl_1", 64, 1), ("3x3dbl_2", 96, 3, 1, 1), ("3x3dbl_3", 96, 3, 2)]
    to_8 = [("7x7x3_1", 192, 1), ("7x7x3_2", 192, *ROW), ("7x7x3_3", 192, *COLUMN), ("7x7x3_4", 192, 3, 2)]
    layers: dict[str, nn.Module] = {
        "Conv2d_1a_3x3": Unit(3, 32, 3, 2),
        "Conv2d_2a_3x3": Unit(32, 32, 3),
        "Conv2d_2b_3x3": Unit(32, 64, 3, 1, 1),
        "pool_1": nn.MaxPool2d(3, 2),
        "Conv2d_3b_1x1": Unit(64, 80, 1),
        "Conv2d_4a_3x3": Unit(80, 192, 3),
        "pool_2": nn.MaxPool2d(3, 2),
        "Mixed_5b": block_35(192, 32),
        "Mixed_5c": block_35(256, 64),
        "Mixed_5d": block_35(288, 64),
        "Mixed_6a": Mixed(288, [[("3x3", 384, 3, 2)], to_17], "halve"),
        **{f"Mixed_6{name}": block_17(narrow) for name, narrow in zip("bcde", (128, 160, 160, 192), strict=True)},
        "Mixed_7a": Mixed(768, [[("3x3_1", 192, 1), ("3x3_2", 320, 3, 2)], to_8], "halve"),
        "Mixed_7b": block_8(1280, "mean"),
        "Mixed_7c": block_8(2048, "max"),
        "pool_3": nn.AdaptiveAvgPool2d(1),
        "features": nn.Flatten(),
    }
    network = nn.Sequential()
    for name, layer in layers.items():
        network.add_module(name, layer)
    return network


def resize_rows(side: int, out: int) -> Tensor:
    """Matrix `[out, side]` of TensorFlow 1's bilinear resize: output i sits at input `i side / out`, corners first."""
    place = torch.arange(out, dtype=torch.float64, device="cpu") * (side / out)
    low = place.floor().long().clamp_max(side - 1)
    high = (low + 1).clamp_max(side - 1)
    eye = torch.eye(side, dtype=torch.float64, device="cpu")
    share = (place - low)[:, None]
    return (1 - share) * eye[low] + share * eye[high]


class InceptionFeatures:
    """The feature map of FID and KID: `images [N, C, H, W] in [-1, 1] -> [N, 2048]`.

    Images are rounded to 8 bits and repeated to three channels if grey. Nothing is downloaded, and nothing in the file
    is run.

    Args:
        path: the weights, see the module.
        device: where to run.

    Raises:
        ValueError: a file that does not hold this network's weights, or is larger than the memory.
        OSError: no such file.
    """

    def __init__(self, path: str | Path, device: torch.device | str = "cpu") -> None:
        path, device = require_path("InceptionFeatures", path), as_device("InceptionFeatures", device)
        try:
            weights = read_tensors(path)
        except DataError as error:
            raise DataError(
                f"{path}: not a file of Inception weights ({str(error).removeprefix(f'{path}: ')})"
            ) from None
        weights = weights if isinstance(weights, dict) else {}
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):  # its first weights are drawn, and replaced
            network = inception().float()
        needed = network.state_dict()
        counters = {name for name in needed if name.endswith("num_batches_tracked")}
        missing = [
            name
            for name, value in needed.items()
            if name not in counters and getattr(weights.get(name), "shape", None) != value.shape
        ]
        if missing:
            raise ValueError(f"{path}: not the weights of FID's Inception network: no {missing[0]} of its shape")
        network.load_state_dict({name: weights[name] for name in needed if name not in counters}, strict=False)
        self.network = network.eval().requires_grad_(False).to(device)
        self.device = device

    def __call__(self, images: Tensor) -> Tensor:
        images = as_images("InceptionFeatures", images)
        levels = (images.to(self.device).float().clamp(-1, 1) * 127.5 + 127.5).round().expand(-1, 3, -1, -1)
        down, across = (resize_rows(side, SIDE).to(levels) for side in levels.shape[2:])
        with torch.no_grad():
            return self.network((down @ levels @ across.T - 128) / 128)
