"""Feature maps of pictures for samples that are latents, and real pictures to compare them with."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from headstart.io import stream
from headstart.io.progress import track


@dataclass(frozen=True)
class OnPictures:
    """A feature map of samples: that of their pictures.

    Fields:
        function: of images `[N, C, H, W]` in [-1, 1].
        decode: pictures uint8 `[N, H, W, C]` of samples.
    """

    function: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor], np.ndarray]

    def __call__(self, x: Tensor) -> Tensor:
        return self.function(torch.from_numpy(self.decode(x)).permute(0, 3, 1, 2).to(x.device).float() / 127.5 - 1)


def features_of(
    source: str, classes: Collection[int] | None, maps: Mapping[str, OnPictures], batch: int, device: torch.device,
    progress: bool,
) -> dict[str, Tensor]:  # fmt: skip
    """Features `[M, F]` of the images at `source`, read a batch at a time, under every map.

    Raises:
        DataError: as `stream`.
    """
    found: dict[str, list[Tensor]] = {name: [] for name in maps}
    with track("features of the images, batches", 0, progress) as advance:
        for part in stream(source, batch, classes=classes):
            images = part.images.to(device)
            for name, one in maps.items():
                found[name].append(one.function(images))
            advance()
    return {name: torch.cat(rows) for name, rows in found.items()}
