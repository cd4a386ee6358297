"""Odd values that callers pass by mistake, of every kind, in a fixed order."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Subclass(Tensor):
    """A tensor of a class of its own."""


SCALARS: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "True": lambda: True,
    "False": lambda: False,
    "0": lambda: 0,
    "-1": lambda: -1,
    "3": lambda: 3,
    "2^63": lambda: 2**63,
    "2^64": lambda: 2**64,
    "-2^70": lambda: -(2**70),
    "10^30": lambda: 10**30,
    "0.5": lambda: 0.5,
    "-0.0": lambda: -0.0,
    "-2.5": lambda: -2.5,
    "inf": lambda: math.inf,
    "-inf": lambda: -math.inf,
    "nan": lambda: math.nan,
    "1e308": lambda: 1e308,
    "1e-308": lambda: 1e-308,
    "1e-320": lambda: 1e-320,
    "complex": lambda: 2 + 1j,
    "np.int64": lambda: np.int64(3),
    "np.uint8": lambda: np.uint8(250),
    "np.float32": lambda: np.float32(0.5),
    "np.bool": lambda: np.bool_(True),
    "np.array(2)": lambda: np.array(2),
    "0-d tensor": lambda: torch.tensor(2.0),
    "0-d int tensor": lambda: torch.tensor(2),
    "Decimal": lambda: Decimal("1.5"),
    "Fraction": lambda: Fraction(3, 2),
    "'3'": lambda: "3",
    "''": lambda: "",
    "'cuda'": lambda: "cuda",
    "b'3'": lambda: b"3",
    "'a\\0b'": lambda: "a\0b",
    "[]": lambda: [],
    "()": lambda: (),
    "{}": lambda: {},
    "(1, 2)": lambda: (1, 2),
    "[1.0, 0.5]": lambda: [1.0, 0.5],
    "range": lambda: range(3),
    "object()": object,
    "class": lambda: dict,
    "function": lambda: len,
    "module": lambda: math,
    "float16": lambda: torch.float16,
    "int64": lambda: torch.int64,
}

TENSORS: dict[str, Callable[[Tensor], Any]] = {
    "no rows": lambda t: t[:0],
    "empty": lambda t: torch.empty(0),
    "0-dim": lambda t: torch.tensor(1.0),
    "an axis more": lambda t: t[..., None],
    "first row": lambda t: t[0],
    "one row": lambda t: t[:1],
    "flat": lambda t: t.flatten(),
    "transposed": lambda t: t.mT if t.ndim > 1 else t,
    "strided": lambda t: t.repeat_interleave(2, 0)[::2],
    "expanded": lambda t: t[:1].expand_as(t),
    "offset": lambda t: torch.cat([t.flatten()[:1], t.flatten()])[1:].view(t.shape),
    "NaN": lambda t: real(t) * math.nan,
    "one NaN": lambda t: torch.cat([real(t).flatten()[:-1], torch.tensor([math.nan])]).view(t.shape),
    "inf": lambda t: real(t) + math.inf,
    "huge": lambda t: real(t) * 1e30,
    "tiny": lambda t: real(t) * 1e-30,
    "huge float64": lambda t: t.double() * 1e200,
    "denormal": lambda t: real(t) * 1e-41,
    "zeros": torch.zeros_like,
    "negative": lambda t: -t.abs() - 1,
    "float64": lambda t: t.double(),
    "float16": lambda t: t.half(),
    "bfloat16": lambda t: t.bfloat16(),
    "float8": lambda t: t.to(torch.float8_e4m3fn),
    "int64": lambda t: t.long(),
    "int32": lambda t: t.int(),
    "uint8": lambda t: (real(t).clamp(-1, 1) * 127.5 + 127.5).byte(),
    "bool": lambda t: t > 0,
    "complex": lambda t: torch.complex(real(t), real(t)),
    "conj view": lambda t: torch.complex(real(t), real(t)).conj(),
    "neg view": lambda t: torch._neg_view(t),
    "conj imag": lambda t: torch.complex(torch.zeros_like(real(t)), real(t)).conj().imag,
    "meta": lambda t: t.to("meta"),
    "sparse": lambda t: t.to_sparse(),
    "csr": lambda t: (t if t.ndim == 2 else t.reshape(len(t), -1)).to_sparse_csr() if t.ndim else t,
    "requires_grad": lambda t: real(t).clone().requires_grad_(),
    "Parameter": lambda t: torch.nn.Parameter(real(t).clone()),
    "subclass": lambda t: t.as_subclass(Subclass),
    "inference": lambda t: inference(t),
    "numpy": lambda t: t.numpy(),
    "numpy flipped": lambda t: np.flip(t.numpy()),
    "numpy float16": lambda t: t.numpy().astype(np.float16),
    "numpy big-endian": lambda t: t.numpy().astype(">f4"),
    "numpy objects": lambda t: t.numpy().astype(object),
    "list": lambda t: t.tolist(),
    "None inside": lambda t: [t, None],
}


def real(t: Tensor) -> Tensor:
    """As floats, where they are integers."""
    return t if t.is_floating_point() else t.float()


def inference(t: Tensor) -> Tensor:
    """Made in inference mode."""
    with torch.inference_mode():
        return t.clone()


def nan_of(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return x * math.nan


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "gives None": lambda *a, **k: None,
    "gives NaN": nan_of,
    "gives a float": lambda *a, **k: 0.5,
    "gives integers": lambda x, *a, **k: x.long(),
    "gives a row": lambda x, *a, **k: x[:1],
    "gives float64": lambda x, *a, **k: x.double(),
    "gives x": lambda x, *a, **k: x,
    "gives numpy": lambda x, *a, **k: x.numpy(),
}


def is_finite(value: Any, depth: int = 0) -> bool:
    """Whether no number in it is NaN or infinite; functions that give NaN count as such numbers."""
    if value is nan_of:
        return False
    if isinstance(value, Tensor):
        if value.is_meta or value.layout is not torch.strided or value.numel() == 0:
            return True
        return bool(value.detach().to(torch.complex128 if value.is_complex() else torch.float64).isfinite().all())
    if isinstance(value, np.ndarray):
        return value.dtype.kind not in "fc" or bool(np.isfinite(value.astype(np.complex128)).all())
    if isinstance(value, float | complex | np.floating | np.complexfloating):
        return bool(np.isfinite(value))
    return all(is_finite(part, depth + 1) for part in parts_of(value, depth))


def has_nan(value: Any, depth: int = 0) -> bool:
    """Whether some number in a result is NaN."""
    if isinstance(value, Tensor):
        if value.is_meta or value.layout is not torch.strided or not (value.is_floating_point() or value.is_complex()):
            return False
        return bool(value.detach().to(torch.complex128).isnan().any())
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "fc" and bool(np.isnan(value).any())
    if isinstance(value, float | complex | np.floating | np.complexfloating):
        return bool(np.isnan(value))
    return any(has_nan(part, depth + 1) for part in parts_of(value, depth))


def parts_of(value: Any, depth: int) -> list[Any]:
    """What a value holds: items, or attributes of an object."""
    if depth > 3 or isinstance(value, str | bytes | type | range) or callable(value):
        return []
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, list | tuple):
        return list(value)
    return (
        list(vars(value).values())
        if type(value).__module__.startswith("headstart") and hasattr(value, "__dict__")
        else []
    )
