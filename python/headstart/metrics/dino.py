"""DINOv2's class-token features, from a file or folder of the user's.

The file holds weights as DINOv2's authors publish them (`dinov2_vitl14_pretrain.pth`, its smaller sisters, and those
with registers); the folder is a `Dinov2Model` as the `transformers` library saves it (`config.json`,
`model.safetensors`). The DINOv2 Frechet distance is usually taken on the 1024 features of the large network.
References: "DINOv2: Learning Robust Visual Features without Supervision" (Oquab et al., 2023,
https://arxiv.org/abs/2304.07193); "Exposing Flaws of Generative Model Evaluation Metrics" (Stein et al., 2023,
https://arxiv.org/abs/2306.04675).
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional

from headstart.metrics.vit import VisionTransformer, size_of

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
        path = Path(path)
        if not path.exists():
            raise ValueError(f"{path}: no such file or folder")
        self.call, network = read_file(path) if path.is_file() else read_folder(path)
        self.network = network.eval().requires_grad_(False).to(device)
        self.device = device

    def __call__(self, images: Tensor) -> Tensor:
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
        weights = torch.load(path, weights_only=True, map_location="cpu")
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not a file of DINOv2 weights ({str(error).splitlines()[0]})") from None
    weights = weights if isinstance(weights, dict) else {}
    try:
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
