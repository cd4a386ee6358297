"""Denoisers of networks that others trained: `edm`, `diffusers` and `kdiffusion`, each imported when first named."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headstart.adapters import diffusers, edm, kdiffusion

__all__ = ["diffusers", "edm", "kdiffusion"]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
