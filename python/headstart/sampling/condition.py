"""Conditions of a run: checked before the first network call, classes in one form, rows split with the batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headstart.guidance import has_rows
from headstart.ops.check import describe, is_integer
from headstart.start.protocol import ClassStart, ConditionalStart, Start

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
            another name than `label`, which such a start would not see.
    """
    if cond is None:
        return {}
    if not isinstance(cond, Mapping) or not all(isinstance(name, str) for name in cond):
        got = describe(cond)
        raise TypeError(f"{op}: cond must be a mapping of names, such as {{'label': labels}}, got {got}")
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
