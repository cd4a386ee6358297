"""Images of another side than the network's: framed in black, never resized."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from headstart.io import Dataset

BLACK = -1.0
Judge = Callable[[Tensor], Tensor]


def frame(data: Dataset, side: int) -> Dataset:
    """The images `[N, C, H, W]` in the middle of black ones `[N, C, side, side]`; their pixels stay as they are.

    Raises:
        ValueError: samples that are not square images, a side below theirs, or one that leaves an odd margin.
    """
    shape = list(data.images.shape[1:])
    if len(shape) != 3 or shape[1] != shape[2]:
        raise ValueError(f"--side: needs square images [C, H, H], got {shape}")
    margin = side - shape[-1]
    if margin < 0 or margin % 2:
        raise ValueError(f"--side: must be the images' {shape[-1]} and an even margin, got {side}; nothing is resized")
    return data._replace(images=functional.pad(data.images, [margin // 2] * 4, value=BLACK))


def crop(images: Tensor, side: int) -> Tensor:
    """The inner `[N, C, side, side]`."""
    edge = (images.shape[-1] - side) // 2
    return images[..., edge : edge + side, edge : edge + side]


def cropped(judge: Judge, side: int) -> Judge:
    """A classifier of images `side` wide, for images in a frame."""
    return lambda images: judge(crop(images, side))


def side_of(denoiser: Any) -> int | None:
    """The side of the images a denoiser was trained on; None where it does not tell."""
    shape = getattr(denoiser, "shape", None)
    if shape is not None:
        return int(shape[-1])
    net = getattr(denoiser, "net", denoiser)
    told = getattr(net, "img_resolution", None) or getattr(getattr(net, "config", None), "sample_size", None)
    return told if isinstance(told, int) else None


def require_side(name: str, denoiser: Any, images: Tensor, device: torch.device | str = "cpu") -> None:
    """Fails before any work where images `[N, *shape]` are none of the denoiser's.

    Raises:
        ValueError: another side than the network was trained on, or it cannot take them, or answers in another shape.
    """
    shape, side = list(images.shape[1:]), side_of(denoiser)
    if side is not None and shape[-1] != side:
        hint = f"; --side {side} frames them in black" if side > shape[-1] else ""
        raise ValueError(f"--train: {name} was trained on images {side} wide, got {shape}{hint}")
    try:
        with torch.no_grad():
            answer = list(denoiser(images[:2].to(device), torch.tensor(1.0, device=device)).shape[1:])
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"--train: {name} cannot take images {shape}: {str(error).splitlines()[0]}") from None
    if answer != shape:
        raise ValueError(f"--train: {name} answers images {shape} in the shape {answer}")
