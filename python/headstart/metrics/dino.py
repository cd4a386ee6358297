"""DINOv2's class-token features, from a folder of the user's.

The folder is a `Dinov2Model` as the `transformers` library saves it (`config.json`, `model.safetensors`), for example
a copy of `facebook/dinov2-large`, whose 1024 features the DINOv2 Frechet distance is usually taken on. References:
"DINOv2: Learning Robust Visual Features without Supervision" (Oquab et al., 2023, https://arxiv.org/abs/2304.07193);
"Exposing Flaws of Generative Model Evaluation Metrics" (Stein et al., 2023, https://arxiv.org/abs/2306.04675).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional

SIDE = 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as the network was trained


class Dinov2Features:
    """The feature map `images [N, C, H, W] in [-1, 1] -> [N, F]`, F = 384, 768, 1024 or 1536 by the network's size.

    Images are rounded to 8 bits, repeated to three channels if grey, and resized to 224 pixels (bicubic, with
    antialiasing where they shrink). Only safetensors weights are read; nothing is downloaded.

    Args:
        path: the folder.
        device: where to run.

    Raises:
        ImportError: `transformers` is not installed.
        ValueError: not a folder of a DINOv2 network.
    """

    def __init__(self, path: str | Path, device: torch.device | str = "cpu") -> None:
        folder = Path(path)
        for name in ("config.json", "model.safetensors"):
            if not (folder / name).is_file():
                raise ValueError(f"{folder}: must be a folder of a DINOv2 network, with {name}")
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
        self.network = network.eval().requires_grad_(False).to(device)
        self.device = device

    def __call__(self, images: Tensor) -> Tensor:
        levels = (images.to(self.device).float().clamp(-1, 1) * 127.5 + 127.5).round().expand(-1, 3, -1, -1)
        pixels = functional.interpolate(levels / 255, (SIDE, SIDE), mode="bicubic", align_corners=False, antialias=True)
        mean, std = (pixels.new_tensor(values)[:, None, None] for values in (MEAN, STD))
        with torch.no_grad():
            return self.network((pixels - mean) / std).last_hidden_state[:, 0]
