"""Checks of a start, a denoiser and a solver at every public entry, with the one line that a first mistake needs."""

from __future__ import annotations

import math
from typing import Any

import torch

from headstart import ops, solver
from headstart.denoiser import Preconditioned

SOLVERS = {name.lower(): name for name in solver.__all__ if name not in ("Churn", "Row", "Solver", "calls")}


def check_start(op: str, start: Any) -> None:
    """Refuses what is no start at a noise level above 0.

    Raises:
        TypeError: a class, data, a law without a noise level, or a denoiser in the start's place.
        ValueError: noise level 0, or none that is finite.
    """
    if isinstance(start, type):
        raise TypeError(f"{op}: start must be an object, got the class {start.__name__}: write {start.__name__}(...)")
    name = type(start).__name__
    if not hasattr(start, "sigma") and hasattr(start, "at"):
        raise TypeError(f"{op}: start must stand at a noise level, got {name} without one: write start.at(3.0)")
    if isinstance(start, torch.Tensor) or hasattr(start, "__array_interface__"):
        got = ops.check.describe(start)
        raise TypeError(f"{op}: start must be a law, got {got}: write headstart.fit(data).at(3.0)")
    if not all(hasattr(start, part) for part in ("sigma", "shape", "sample")):
        if callable(start) or isinstance(start, Preconditioned):
            raise TypeError(f"{op}: start must be a start, got {name}, a denoiser; the denoiser comes before the start")
        raise TypeError(
            f"{op}: start must have sigma, shape and sample, got {name}; write Classic(shape) or law.at(3.0)"
        )
    sigma = float(start.sigma)
    if not 0 < sigma < math.inf:
        raise ValueError(f"{op}: the start's sigma must be above 0 and finite, got {sigma:g}: write start.at(3.0)")


def check_denoiser(op: str, denoiser: Any) -> None:
    """Refuses what is no denoiser.

    Raises:
        TypeError: a class, a name, a start in the denoiser's place, or what cannot be called.
    """
    if isinstance(denoiser, type):
        name = denoiser.__name__
        raise TypeError(f"{op}: denoiser must be an object, got the class {name}: write {name}(...)")
    if callable(denoiser) or isinstance(denoiser, Preconditioned):
        return
    name, hint = type(denoiser).__name__, ""
    if isinstance(denoiser, str):
        hint = "; write headstart.zoo.denoiser(name) or headstart.adapters.edm.load(file)"
    elif hasattr(denoiser, "sigma") and hasattr(denoiser, "sample"):
        hint = ", a start; the denoiser comes before the start"
    elif hasattr(denoiser, "denoise"):
        hint = "; its own denoiser is its method denoise"
    raise TypeError(f"{op}: denoiser must be a callable D(x, sigma, **cond), got {name}{hint}")


def check_solver(op: str, solver: Any) -> None:
    """Refuses what is no solver.

    Raises:
        TypeError: a name, a class, or an object without rows.
    """
    if isinstance(solver, str):
        known = SOLVERS.get(solver.lower().replace("_", "").replace("+", "p"), "DPMpp2M")
        raise TypeError(f"{op}: solver must be an object, got the name {solver!r}: write headstart.{known}()")
    if isinstance(solver, type):
        raise TypeError(f"{op}: solver must be an object, got the class {solver.__name__}: write {solver.__name__}()")
    if not callable(getattr(solver, "rows", None)):
        name = type(solver).__name__
        hint = (
            ": write headstart.Heun(churn=...)" if name == "Churn" else ", which has no rows; write headstart.DPMpp2M()"
        )
        raise TypeError(f"{op}: solver must be a solver, got {name}{hint}")


def whole(op: str, name: str, value: Any, least: int) -> int:
    """An integer of Python or numpy as one of Python, which does not wrap around.

    Raises:
        ValueError: no integer, or below `least`.
    """
    if not ops.check.is_integer(value) or value < least:
        raise ValueError(f"{op}: {name} must be an integer of at least {least}, got {value!r}")
    return int(value)
