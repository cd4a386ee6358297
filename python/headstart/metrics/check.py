"""What the metrics take for samples, and in which units.

Floats stay as they are. Bytes (uint8) are levels of pictures, 0 to 255, and become `x / 127.5 - 1`, the [-1, 1] of this
package. Numpy arrays are taken by value. Everything else (other integers, truth values, complex numbers, sparse
tensors) is refused by name.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from headstart.ops.array import tensor_of
from headstart.ops.check import describe, is_integer

MOST = 2**62  # of a number without a bound of its own: what torch counts with ends a little above
WIDE = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
RANGE_ROWS = 4096  # rows of a look at the range
SIGNED, LARGER = -0.5, 50.0  # see require_same_range


def as_samples(op: str, name: str, x: Any) -> Tensor:
    """`x` `[N, *shape]` as a floating tensor, by the module's rule.

    Raises:
        TypeError: not an array of floats or bytes.
        ValueError: without an axis of samples and one of values.
    """
    x = tensor_of(x)
    sound = isinstance(x, Tensor) and x.layout is torch.strided and not x.is_meta
    if not sound or not (x.is_floating_point() or x.dtype == torch.uint8):
        raise TypeError(f"{op}: {name} must be floating, or uint8 levels of pictures, [N, *shape], got {describe(x)}")
    if x.ndim < 2 or 0 in x.shape[1:]:
        raise ValueError(f"{op}: {name} must be [N, *shape] with values in each sample, got {describe(x)}")
    return from_levels(x)


def from_levels(x: Tensor) -> Tensor:
    """Bytes as `x / 127.5 - 1`; floats as they are."""
    if x.dtype == torch.uint8:
        return x.float() / 127.5 - 1
    return x.detach().float() if x.dtype not in WIDE else x.detach()  # 8-bit floats have hardly an operation


def as_images(op: str, images: Any) -> Tensor:
    """Images `[N, C, H, W]` in [-1, 1] for a map of features; values somewhat outside are clipped by the map.

    Raises:
        TypeError: not an array of floats or bytes.
        ValueError: of another rank or number of channels, or in [0, 255].
    """
    images = as_samples(op, "images", images)
    if images.ndim != 4:
        raise ValueError(f"{op}: images must be [N, C, H, W], got {describe(images)}")
    low, high = extent(images)
    if low >= 0 and high > 2:
        raise ValueError(f"{op}: images must be in [-1, 1], got values from {low:g} to {high:g}; x / 127.5 - 1 of them")
    return images


def require_same_range(op: str, samples: Tensor, data: Tensor) -> None:
    """Refuses pictures in other units than those they are compared with.

    `[0, 1]` or `[0, 255]` against `[-1, 1]`: one side has no value below 0, while the other reaches down to half of
    its largest magnitude. `[0, 255]` against `[0, 1]`: neither has one, and their largest values are 50 times apart.
    A side of one value, such as a black picture, is let through: it has no range.

    Args:
        op: The caller.
        samples, data: `[N, *shape]`; only images `[N, C, H, W]` of 1, 3 or 4 channels are looked at.

    Raises:
        ValueError: As said.
    """
    if samples.ndim != 4 or samples.shape[1] not in (1, 3, 4):
        return
    (low, high), (least, most) = extent(samples), extent(data)
    if low == high or least == most or not all(map(math.isfinite, (low, high, least, most))):
        return
    signed = [bottom <= SIGNED * max(-bottom, top) for bottom, top in ((low, high), (least, most))]
    unsigned = low >= 0, least >= 0
    apart = all(unsigned) and not 1 / LARGER < high / most < LARGER
    if (signed[0] and unsigned[1]) or (signed[1] and unsigned[0]) or apart:
        raise ValueError(
            f"{op}: samples and data must be in the same units, got values from {low:g} to {high:g} against {least:g} "
            f"to {most:g}; 2 x - 1 carries [0, 1] to [-1, 1], and x / 127.5 - 1 carries [0, 255]"
        )


def extent(x: Tensor) -> tuple[float, float]:
    """The least and the largest value; (0, 0) of nothing."""
    if x.numel() == 0:
        return 0.0, 0.0
    ends = [torch.stack(part.aminmax()).double() for part in x.split(RANGE_ROWS)]
    both = torch.stack(ends)
    return float(both[:, 0].min()), float(both[:, 1].max())


def as_device(op: str, device: Any) -> torch.device:
    """A device that torch has here.

    Raises:
        TypeError: Neither its name nor a device.
        ValueError: One that torch does not know, or that this machine lacks.
    """
    if not isinstance(device, str | torch.device):
        raise TypeError(f"{op}: device must be a name or a torch.device, got {device!r}")
    try:
        return torch.empty(0, device=device, dtype=torch.float32).device
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{op}: device must be one that torch has here, got {device!r} ({reason})") from None


def require_count(op: str, name: str, value: Any, least: int, most: int | None = None) -> int:
    """An integer of Python or numpy of at least `least` (and at most `most`), as Python's.

    Raises:
        ValueError: It is none.
    """
    if not is_integer(value) or not least <= value <= (MOST if most is None else most):
        wanted = f"an integer of at least {least}" if most is None else f"an integer from {least} to {most}"
        raise ValueError(f"{op}: {name} must be {wanted}, got {value!r}")
    return int(value)


def require_seed(op: str, seed: Any) -> int:
    """A seed in [0, 2^64), as Python's integer.

    Raises:
        ValueError: It is none.
    """
    if not is_integer(seed) or not 0 <= seed < 2**64:
        raise ValueError(f"{op}: seed must be an integer in [0, 2^64), got {seed!r}")
    return int(seed)
