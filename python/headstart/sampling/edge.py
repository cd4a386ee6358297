"""The edges of a run: checks of what goes in, conditions in one form, a look at what comes out.

A first mistake is answered by one line that says what to write. Samples that are not finite are never handed over
without a word: `sample` and `integrate` look once, at the end, and warn with `NotFinite`, which names the samples; the
others are as good as ever, so nothing is thrown away. `warnings.simplefilter("error", NotFinite)` makes it an error. A
`Sampler` on a GPU, whose calls do not wait, counts on the device, see there.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headstart import ops, solver
from headstart.denoiser import Preconditioned, denoise
from headstart.guidance import has_rows
from headstart.ops.check import describe, is_integer
from headstart.start.protocol import ClassStart, ConditionalStart, Start

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


LABEL = "label"  # the condition that a start of classes is told too


def settle(op: str, cond: Mapping[str, Any] | None, n: int, start: Start | None = None) -> dict[str, Any]:
    """The conditions with `label` as a tensor, int64 `[n]` for integers in any form (a 0-dim tensor stays one).

    Args:
        op: name of the caller.
        cond: conditions of the denoiser, or None.
        n: samples.
        start: what is told the label too, where it is of classes.

    Raises:
        TypeError: `cond` is no mapping of names.
        ValueError: labels that are not one for all or `n`, or no integers for a start of classes; or classes under
            another name than `label`, which such a start would not see; or a condition whose gradient is asked for.
    """
    if cond is None:
        return {}
    if not isinstance(cond, Mapping) or not all(isinstance(name, str) for name in cond):
        got = describe(cond)
        raise TypeError(f"{op}: cond must be a mapping of names, such as {{'label': labels}}, got {got}")
    for name, value in cond.items():
        require_no_gradient(op, f"cond[{name!r}]", value)
    classes = isinstance(start, ConditionalStart) and start.conditional
    found = dict(cond)
    if LABEL in found:
        found[LABEL] = label_of(op, found[LABEL], n, classes)
        if classes and found[LABEL] is not None and isinstance(start, ClassStart):
            start.require_labels(op, found[LABEL], n)  # before the network is called for the batches ahead of them
    elif classes:
        for name, value in found.items():
            if has_rows(value, n) or is_integer(value):
                raise ValueError(
                    f"{op}: the start has classes and is told cond['label'] alone, got {name!r}; name the classes "
                    f"label, with a denoiser lambda x, sigma, label: D(x, sigma, {name}=label), or draw the start from "
                    "all classes on purpose, with label None"
                )
    return found


def require_no_gradient(op: str, name: str, value: Any) -> None:
    """Refuses a tensor whose gradient is asked for, in a list, tuple or mapping too: samples have none.

    Raises:
        ValueError: it requires one where gradients are on.
    """
    if not torch.is_grad_enabled():
        return
    if isinstance(value, Tensor):
        if value.requires_grad:
            raise ValueError(
                f"{op}: {name} requires a gradient, which {op} does not give; detach it, or call in torch.no_grad()"
            )
    elif isinstance(value, (list, tuple, Mapping)):
        for part in value.values() if isinstance(value, Mapping) else value:
            require_no_gradient(op, name, part)


def label_of(op: str, value: Any, n: int, strict: bool) -> Any:
    """Labels as `settle` gives them; `strict`: they must be classes, else what is no integer stays as it is."""
    if value is None:
        return None
    labels = value
    if isinstance(value, (list, tuple, np.ndarray)) or is_integer(value):
        try:
            labels = torch.as_tensor(int(value) if is_integer(value) else value, device="cpu")
        except (TypeError, ValueError, RuntimeError):
            labels = value
        if is_integer(value):
            labels = labels.expand(n)
    integers = isinstance(labels, Tensor) and not (
        labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool
    )
    if strict and (not integers or labels.ndim > 1):
        raise ValueError(f"{op}: labels must be integers [{n}] or one for all, got {shown(value)}")
    if isinstance(labels, Tensor) and labels.ndim and len(labels) != n:
        raise ValueError(f"{op}: labels must be [{n}], one a sample, or one for all, got {shown(value)}")
    if not isinstance(labels, Tensor):
        if isinstance(value, (list, tuple)) and len(value) != n:
            raise ValueError(f"{op}: labels must be [{n}], one a sample, or one for all, got {len(value)}")
        return value
    return labels.long().contiguous() if integers else labels


def shown(value: Any) -> str:
    return describe(value) if isinstance(value, Tensor) else repr(value)[:80]


def part_of(value: Any, n: int, first: int, count: int) -> Any:
    """Rows `first .. first + count - 1` of a condition with a row for each of the `n` samples; any other whole.

    Tensors, numpy arrays, lists and tuples of that leading size have such rows, and a dict's values are asked one by
    one.

    Raises:
        TypeError: rows within a mapping of another kind, which cannot be made again with fewer.
    """
    if count == n or not has_rows(value, n):
        return value
    if isinstance(value, Mapping):
        if type(value) is not dict:
            raise TypeError(f"cond: a mapping with a row a sample must be a dict, got {type(value).__name__}")
        return {name: part_of(part, n, first, count) for name, part in value.items()}
    return value[first : first + count]


def on(cond: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """The conditions with the labels, which start and denoiser share, where the state is."""
    label = cond.get(LABEL)
    return {**cond, LABEL: label.to(device)} if isinstance(label, Tensor) else dict(cond)


SHOWN = 5


class NotFinite(RuntimeWarning):
    """Samples with NaN or infinity.

    Attributes:
        samples: their indices in the result.
    """

    def __init__(self, message: str, samples: tuple[int, ...]) -> None:
        super().__init__(message)
        self.samples = samples

    def __reduce__(self) -> tuple[type[NotFinite], tuple[str, tuple[int, ...]]]:
        return type(self), (str(self), self.samples)


def sound(x: Tensor) -> bool:
    """Whether the sum of all is finite, which only finite values have: a pass at the speed of memory; waits."""
    return math.isfinite(float(x.sum()))


def broken(x: Tensor) -> Tensor:
    """Whether each sample of `x` `[n, *shape]` has a NaN or an infinity, `[n]`, on its device, in one pass."""
    return ~x.flatten(1).sum(1, dtype=torch.float64).isfinite() if x.ndim > 1 else ~x.isfinite()


class Watched:
    """A denoiser that stops at the first call whose state or result is not finite; for finding out, as it waits.

    Args:
        denoiser: as in `sample`; a guided or preconditioned one is called as it calls itself.

    Raises:
        ArithmeticError: from a call, with its number and noise level.
    """

    def __init__(self, denoiser: Any) -> None:
        self.denoiser, self.calls = denoiser, 0

    def __call__(self, x: Tensor, sigma: Tensor, **cond: Any) -> Tensor:
        self.calls += 1
        at = f"at network call {self.calls} (sigma {float(sigma):.4g})"
        if bool(broken(x).any()):
            raise ArithmeticError(f"the state is not finite {at}, before the network")
        inner = self.denoiser if callable(self.denoiser) else partial(denoise, self.denoiser)
        out: Tensor = inner(x, sigma, **cond)
        if isinstance(out, Tensor) and out.ndim == x.ndim and bool(broken(out).any()):
            raise ArithmeticError(f"the network's result is not finite {at}")
        return out


def warn_unless_finite(op: str, x: Tensor, stacklevel: int = 3) -> None:
    """Warns where samples are not finite; waits for the device, and looks at nothing while it is being captured.

    Raises:
        NotFinite: where the user has made it an error.
    """
    if ops.library.is_odd(x) or (x.is_cuda and torch.cuda.is_current_stream_capturing()):
        return
    if sound(x):
        return
    bad = broken(x)
    if not bool(bad.any()):  # the sum overflowed
        return
    samples = tuple(bad.nonzero()[:, 0].tolist())
    first = ", ".join(map(str, samples[:SHOWN])) + (", ..." if len(samples) > SHOWN else "")
    message = (
        f"{op}: {len(samples)} of {len(x)} samples are not finite (index {first}): the denoiser, or the state that it "
        "began at, has NaN or infinity there"
    )
    warnings.warn(NotFinite(message, samples), stacklevel=stacklevel)
