"""Registration of the ops with torch, so that `torch.compile` and fake tensors see them whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

_library = torch.library.Library("headstart", "DEF")


def define(schema: str, implementation: Callable[..., Any], fake: Callable[..., Any]) -> None:
    """Registers one op for CPU and CUDA. Eager code calls the implementation directly, which is faster."""
    name = schema.split("(", 1)[0]
    _library.define(schema)
    for key in ("CPU", "CUDA"):
        _library.impl(name, implementation, key)
    torch.library.register_fake(f"headstart::{name}", fake, lib=_library)


def signed(seed: int) -> int:
    """A 64-bit seed as the signed integer that op schemas carry."""
    return seed - 2**64 if seed >= 2**63 else seed
