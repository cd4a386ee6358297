"""DINOv2's class-token features, from a file or folder of the user's.

The file holds weights as DINOv2's authors publish them (`dinov2_vitl14_pretrain.pth`, its smaller sisters, and those
with registers); the folder is a `Dinov2Model` as the `transformers` library saves it (`config.json`,
`model.safetensors`). The DINOv2 Frechet distance is usually taken on the 1024 features of the large network.
References: "DINOv2: Learning Robust Visual Features without Supervision" (Oquab et al., 2023,
https://arxiv.org/abs/2304.07193); "Exposing Flaws of Generative Model Evaluation Metrics" (Stein et al., 2023,
https://arxiv.org/abs/2306.04675).

DINOv2's network, under the parameter names of its published weights.

A vision transformer of 14-pixel patches: class token and patches, learned positions, layers
`x + g1 attention(norm(x))`, `x + g2 mlp(norm(x))` with learned `g1`, `g2`, and a last norm. Some of the networks have
register tokens between the class token and the patches. References: "DINOv2: Learning Robust Visual Features without
Supervision" (Oquab et al., 2023, https://arxiv.org/abs/2304.07193); "Going Deeper with Image Transformers" (Touvron et
al., 2021, https://arxiv.org/abs/2103.17239), the scales of a layer; "Vision Transformers Need Registers" (Darcet et
al., 2023, https://arxiv.org/abs/2309.16588).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional

from headstart.argument import require_path
from headstart.io.bound import DataError
from headstart.io.tensor_file import read_tensors
from headstart.metrics.check import as_device, as_images

PATCH, HEAD = 14, 64
OFFSET = 0.1  # added to the wanted side when positions of networks without registers are resized, as published


class Size(NamedTuple):
    """Sizes of a network: `width` channels, `hidden` in an MLP, `depth` layers, positions of `side^2` patches."""

    width: int
    hidden: int
    depth: int
    side: int
    registers: int = 0
    head: int = HEAD


class ViTAttention(nn.Module):
    """Every token sees every other."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.head = size.head
        self.qkv, self.proj = nn.Linear(size.width, 3 * size.width), nn.Linear(size.width, size.width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, -1, self.head)).permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Scale(nn.Module):
    """A learned factor for each channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width, dtype=torch.float32, device="cpu"))

    def forward(self, x: Tensor) -> Tensor:
        return self.gamma * x


class MLP(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(size.width, size.hidden), nn.Linear(size.hidden, size.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(x)))


class ViTLayer(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(size.width, eps=1e-6) for _ in range(2))
        self.ls1, self.ls2 = Scale(size.width), Scale(size.width)
        self.attn, self.mlp = ViTAttention(size), MLP(size)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class Patches(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, PATCH, PATCH)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class VisionTransformer(nn.Module):
    """The network: normalized images `[N, 3, H, W]` to the normalized class token `[N, width]`; H = W, whole patches.

    Args:
        size: see `Size`.
        offset: see `OFFSET`; 0: positions are resized to the wanted side exactly.
    """

    def __init__(self, size: Size, offset: float = OFFSET) -> None:
        super().__init__()
        self.size, self.offset = size, offset
        self.cls_token = nn.Parameter(torch.zeros(1, 1, size.width, dtype=torch.float32, device="cpu"))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + size.side**2, size.width, dtype=torch.float32, device="cpu"))
        if size.registers:
            self.register_tokens = nn.Parameter(
                torch.zeros(1, size.registers, size.width, dtype=torch.float32, device="cpu")
            )
        self.patch_embed = Patches(size.width)
        self.blocks = nn.ModuleList(ViTLayer(size) for _ in range(size.depth))
        self.norm = nn.LayerNorm(size.width, eps=1e-6)

    def positions(self, side: int) -> Tensor:
        """Positions of the class token and of `side^2` patches `[1, 1 + side^2, width]`, bicubic in between.

        Networks with registers resize to the side itself, with antialiasing; the others by a factor of
        `(side + offset) / stored side`, without.
        """
        if side == self.size.side:
            return self.pos_embed
        first, grid = self.pos_embed[:, :1], self.pos_embed[:, 1:].unflatten(1, (self.size.side,) * 2)
        grid, registers = grid.permute(0, 3, 1, 2), bool(self.size.registers)
        if registers or self.offset == 0:
            grid = functional.interpolate(grid, (side, side), mode="bicubic", antialias=registers)
        else:
            factor = (side + self.offset) / self.size.side
            grid = functional.interpolate(grid, scale_factor=(factor, factor), mode="bicubic")
        return torch.cat([first, grid.flatten(2).transpose(1, 2)], 1)

    def forward(self, x: Tensor) -> Tensor:
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), self.patch_embed(x)], 1)
        tokens = tokens + self.positions(x.shape[-1] // PATCH)
        if self.size.registers:
            registers = self.register_tokens.expand(len(x), -1, -1)
            tokens = torch.cat([tokens[:, :1], registers, tokens[:, 1:]], 1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens[:, 0])


def size_of(weights: Mapping[str, Any]) -> Size:
    """The sizes that weights are of.

    Raises:
        ValueError: not weights of such a network; the message says what is missing.
    """

    def shape(name: str, rank: int) -> tuple[int, ...]:
        found = getattr(weights.get(name), "shape", ())
        if len(found) != rank:
            raise ValueError(f"no {name} of {rank} axes")
        return tuple(found)

    _, places, width = shape("pos_embed", 3)
    side = math.isqrt(places - 1)
    if shape("patch_embed.proj.weight", 4) != (width, 3, PATCH, PATCH) or side**2 != places - 1 or width % HEAD:
        raise ValueError(f"patches must be of {PATCH} pixels in a square, {HEAD} channels a head")
    if "blocks.0.mlp.w12.weight" in weights:
        raise ValueError("the giant network, which is not read from this form; use its folder of transformers")
    depth = sum(name.startswith("blocks.") and name.endswith(".norm1.weight") for name in weights)
    registers = shape("register_tokens", 3)[1] if "register_tokens" in weights else 0
    return Size(width, shape("blocks.0.mlp.fc1.weight", 2)[0], depth, side, registers)


SIDE = 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as the network was trained


class Dinov2Features:
    """The feature map `images [N, C, H, W] in [-1, 1] -> [N, F]`, F = 384, 768, 1024 or 1536 by the network's size.

    Images are rounded to 8 bits, repeated to three channels if grey, and resized to 224 pixels (bicubic, with
    antialiasing where they shrink). Nothing in the files is run, and nothing is downloaded. Positions between the
    stored ones are resized as each form's own code does it, so the two forms differ a little: keep to one of them.

    Args:
        path: the `.pth` file, or the folder.
        device: where to run.

    Raises:
        ImportError: a folder, and `transformers` is not installed.
        ValueError: neither a file nor a folder of a DINOv2 network.
    """

    def __init__(self, path: str | Path, device: torch.device | str = "cpu") -> None:
        path, device = require_path("Dinov2Features", path), as_device("Dinov2Features", device)
        if not path.exists():
            raise ValueError(f"{path}: no such file or folder")
        self.call, network = read_file(path) if path.is_file() else read_folder(path)
        self.network = network.eval().requires_grad_(False).to(device)
        self.device = device

    def __call__(self, images: Tensor) -> Tensor:
        images = as_images("Dinov2Features", images)
        levels = (images.to(self.device).float().clamp(-1, 1) * 127.5 + 127.5).round().expand(-1, 3, -1, -1)
        pixels = functional.interpolate(levels / 255, (SIDE, SIDE), mode="bicubic", align_corners=False, antialias=True)
        mean, std = (pixels.new_tensor(values)[:, None, None] for values in (MEAN, STD))
        with torch.no_grad():
            return self.call(self.network, (pixels - mean) / std)


def read_file(path: Path) -> tuple[Callable[[Any, Tensor], Tensor], nn.Module]:
    """The network of a file of published weights, and how it is called.

    Raises:
        ValueError: not such a file.
    """
    try:
        weights = read_tensors(path)
    except DataError as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise DataError(f"{path}: not a file of DINOv2 weights ({reason})") from None
    weights = weights if isinstance(weights, dict) else {}
    try:
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):  # its first weights are drawn, and replaced
            network = VisionTransformer(size_of(weights))
        network.load_state_dict({name: weights[name] for name in network.state_dict()})
    except (ValueError, KeyError, RuntimeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error).splitlines()[-1].strip()
        raise ValueError(f"{path}: not DINOv2's weights: {reason}") from None
    return lambda network, x: network(x), network.float()


def read_folder(folder: Path) -> tuple[Callable[[Any, Tensor], Tensor], nn.Module]:
    """The network of a folder of transformers', and how it is called.

    Raises:
        ImportError: `transformers` is not installed.
        ValueError: not such a folder.
    """
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise ValueError(f"{folder}: must be DINOv2's .pth file, or a folder of such a network, with {name}")
    try:
        from transformers import Dinov2Model
    except ImportError as error:
        raise ImportError("Dinov2Features needs transformers: pip install 'headstart[dinov2]'") from error
    try:
        loaded: Any = Dinov2Model.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{folder}: not a DINOv2 network ({str(error).splitlines()[0]})") from None
    network, found = loaded
    if found["missing_keys"]:
        raise ValueError(f"{folder}: not DINOv2's weights: no {sorted(found['missing_keys'])[0]}")
    return lambda network, x: network(x).last_hidden_state[:, 0], network
