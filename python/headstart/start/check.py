"""Checks that every family shares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from headstart import ops
from headstart.ops import Components
from headstart.ops.array import tensor_of
from headstart.ops.check import STATE, describe, is_integer, require_address
from headstart.ops.mixture import MAX_SIGMA

if TYPE_CHECKING:
    from typing import TypeGuard

CHECK_ROWS = 4096
MAX_LABEL = 2**20  # a table of weights has a row for each number up to the largest label
ORTHONORMAL = 1e-2  # what rounding to float32, and to 16 bits, may have left


def dense(x: object) -> TypeGuard[Tensor]:
    """Whether it is a tensor with its values in memory, in rows."""
    return isinstance(x, Tensor) and x.layout is torch.strided and not x.is_meta


def check_data(name: str, data: object) -> Tensor:
    """Training data `[N, *shape]`, a tensor or an array, as contiguous float32 or float64, finite and not empty."""
    data = tensor_of(data)
    if isinstance(data, Tensor) and data.layout is not torch.strided:
        raise ValueError(f"{name}: data must be dense, got layout {data.layout}; write data.to_dense()")
    if not dense(data) or not data.is_floating_point() or data.ndim < 2:
        scale = isinstance(data, Tensor) and data.dtype == torch.uint8
        hint = "; scale bytes to floats first: data.float() / 127.5 - 1" if scale else ""
        if isinstance(data, (list, tuple)):
            hint = "; one tensor of a list of samples is torch.stack(data)"
        if isinstance(data, Tensor) and data.ndim == 1:
            hint = "; one value a sample is data[:, None], one sample is data[None]"
        raise ValueError(f"{name}: data must be floating [N, *shape], got {describe(data)}{hint}")
    if data.numel() == 0:
        raise ValueError(f"{name}: data must not be empty, got {describe(data)}")
    data = data.detach()
    data = (data if data.dtype in (torch.float32, torch.float64) else data.float()).contiguous()
    bad = sum(int((~rows.isfinite()).sum()) for rows in data.split(CHECK_ROWS))
    if bad:
        raise ValueError(f"{name}: data must be finite, got {bad} values that are NaN or infinite in {describe(data)}")
    return data


def check_labels(name: str, labels: object, n: int) -> Tensor:
    """Classes `[N]` of integers of any kind, in a tensor, numpy array, list or tuple, as int64."""
    labels = tensor_of(labels)
    if isinstance(labels, Tensor) and not dense(labels):
        raise ValueError(f"{name}: labels must be dense integers [{n}], got {describe(labels)}")
    if isinstance(labels, (list, tuple)):
        with suppress(TypeError, ValueError, RuntimeError):  # refused below, by its type
            labels = torch.as_tensor(labels, device=getattr(labels, "device", "cpu"))
    integers = isinstance(labels, Tensor) and not labels.is_floating_point() and not labels.is_complex()
    if not isinstance(labels, Tensor) or not integers or labels.shape != (n,) or labels.dtype == torch.bool:
        raise ValueError(f"{name}: labels must be integers [{n}], got {describe(labels)}")
    labels = labels.long()
    if n and int(labels.min()) < 0:
        raise ValueError(f"{name}: labels must be at least 0, got {int(labels.min())}")
    if n and int(labels.max()) >= MAX_LABEL:
        raise ValueError(f"{name}: labels must be below 2^20 = {MAX_LABEL}, got {int(labels.max())}; number them")
    return labels


def check_points(name: str, x: object, shape: tuple[int, ...]) -> Tensor:
    """Points `[B, *shape]`, a tensor or an array, as `[B, D]`."""
    x = tensor_of(x)
    if not dense(x) or not x.is_floating_point() or tuple(x.shape[1:]) != shape or x.ndim == 0:
        wanted = ", ".join(["B", *map(str, shape)])
        raise ValueError(f"{name}: x must be floating [{wanted}], got {describe(x)}")
    return x.reshape(len(x), math.prod(shape))


def check_sigma(name: str, sigma: float | Tensor, positive: bool = False) -> float:
    """A noise level as a float, finite and at least (or above) 0."""
    number = isinstance(sigma, Real) or (isinstance(sigma, Tensor | np.ndarray) and math.prod(sigma.shape) == 1)
    if not number or isinstance(sigma, bool) or (isinstance(sigma, Tensor) and (sigma.is_complex() or sigma.is_meta)):
        raise TypeError(f"{name}: sigma must be a number, got {sigma if isinstance(sigma, str) else describe(sigma)!r}")
    value = float(sigma) if not isinstance(sigma, int) or abs(sigma) < 2**512 else math.inf
    if math.isfinite(value) and value > MAX_SIGMA:
        raise ValueError(f"{name}: sigma must be at most {MAX_SIGMA:g}, whose square is finite, got {value:g}")
    if not math.isfinite(value) or value < 0 or (positive and value == 0):
        raise ValueError(f"{name}: sigma must be finite and {'above' if positive else 'at least'} 0, got {value}")
    return value


def check_address(name: str, n: int, seed: int, offset: int) -> tuple[int, int, int]:
    """Samples wanted, seed and first index as integers of Python, which do not wrap around as numpy's do.

    Raises:
        ValueError: no integers, or out of range.
    """
    if not is_integer(n) or n < 0:
        raise ValueError(f"{name}: n must be an integer of at least 0, got {n!r}")
    require_address(name, seed, 0, offset, 0, int(n), 1)
    return int(n), int(seed), int(offset)


def check_mixture(
    family: str, components: Components, weight: Tensor, shape: tuple[int, ...], class_weight: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Consistent shapes and sound weights of a mixture; weights come back in float64, scaled to sum to 1."""
    if not isinstance(components, Components) or not all(dense(part) for part in components[:2]):
        raise TypeError(f"{family}: components must be Components(mean, variance, ...), got {inside(components)}")
    if not all(part is None or dense(part) for part in components):
        raise TypeError(f"{family}: axes and spread must be dense tensors or None, got {inside(components)}")
    mean, variance, axes, spread = components
    if not all(isinstance(size, int) and size > 0 for size in shape):
        raise ValueError(f"{family}: shape must be of integers above 0, got {shape}")
    for name, tensor in components._asdict().items():
        if tensor is not None and (tensor.dtype not in STATE or tensor.dtype != mean.dtype):
            wanted = "float32 or float64, like mean"
            raise ValueError(f"{family}: {name} must be {wanted}, got {describe(tensor)}")
    weight = require_weight(family, "weight", weight, 1)
    k, d = len(weight), math.prod(shape)
    check_shape(family, "mean", mean, [(k, d)])
    if axes is None and spread is None:
        check_shape(family, "variance", variance, [(k, 1), (k, d)])
    else:
        rank = axes.shape[1] if axes is not None and axes.ndim == 3 else 0
        check_shape(family, "variance", variance, [(k, 1)])
        check_shape(family, "axes", axes, [(k, rank, d)])
        check_shape(family, "spread", spread, [(k, rank)])
        check_axes(family, axes, spread)
    if bool((variance < 0).any()) or (spread is not None and bool((spread < 0).any())):
        raise ValueError(f"{family}: variance and spread must be at least 0")
    weight = check_weight(family, "weight", weight, (k,))
    if class_weight is not None:
        class_weight = require_weight(family, "class_weight", class_weight, 2)
        class_weight = check_weight(family, "class_weight", class_weight, (len(class_weight), k))
    return weight, class_weight


def inside(components: object) -> str:
    """The parts of what was given as components."""
    if not isinstance(components, tuple):
        return describe(components)
    return ", ".join("None" if part is None else describe(part) for part in components) or "nothing"


def require_weight(family: str, name: str, weight: object, axes: int) -> Tensor:
    """Weights as a dense tensor of real numbers with so many axes."""
    weight = tensor_of(weight)
    if not dense(weight) or weight.is_complex() or weight.ndim != axes:
        raise TypeError(f"{family}: {name} must be real numbers in {axes} axes, got {describe(weight)}")
    return weight


def check_shape(family: str, name: str, tensor: Tensor | None, allowed: Sequence[tuple[int, ...]]) -> None:
    """A finite tensor of one of the shapes."""
    if tensor is None or tuple(tensor.shape) not in allowed or not bool(tensor.isfinite().all()):
        expected = " or ".join(str(list(size)) for size in allowed)
        raise ValueError(f"{family}: {name} must be finite {expected}, got {describe(tensor)}")


def check_axes(family: str, axes: Tensor | None, spread: Tensor | None) -> None:
    """Orthonormal rows `[K, R, D]`, of those that spread.

    Tried on a sum of the rows with random signs, each of which it must give back: a pass over the axes in place of all
    products of two rows. Plain sums, which no setting of torch's matrix products touches.
    """
    if axes is None or spread is None or axes.numel() == 0:
        return
    signs = ops.normal((axes.shape[1],), 0, 0, device=axes.device, dtype=axes.dtype).sign()
    for k, (rows, width) in enumerate(zip(axes, spread, strict=True)):
        given = signs * (width > 0)
        back = (rows * (rows * given[:, None]).sum(0)).sum(1) * (width > 0)
        error = float((back - given).abs().max())
        if not error < ORTHONORMAL:
            raise ValueError(
                f"{family}: axes must be orthonormal rows, got component {k} off by {error:.2g}; put lengths into "
                "spread (torch.linalg.svd makes both)"
            )


def check_weight(family: str, name: str, weight: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Weights as float64, rows scaled to sum to 1 (as they are if they do; rows of zeros stay)."""
    if not isinstance(weight, Tensor) or weight.is_complex():
        raise ValueError(f"{family}: {name} must be real {list(shape)}, got {describe(weight)}")
    weight = weight.double()
    sound = tuple(weight.shape) == shape and bool(weight.isfinite().all()) and bool((weight >= 0).all())
    if not sound or not bool(weight.sum() > 0):
        wanted = f"{list(shape)}, finite, at least 0 and not all 0"
        raise ValueError(f"{family}: {name} must be {wanted}, got {describe(weight)}")
    total = weight.sum(-1, keepdim=True)
    settled = ((total - 1).abs() < 1e-12) | (total == 0)  # dividing again would change the last bits
    return torch.where(settled, weight, weight / total)
