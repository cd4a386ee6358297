"""Class labels as the vectors that these networks take."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def vectors(x: Tensor, classes: int, label: Tensor | int | None, class_labels: Tensor | None) -> Tensor | None:
    """Class vectors `[B, classes]`, or `[1, classes]` for all: one-hot, zero for no class; None without classes.

    Args:
        x: states `[B, *shape]`.
        classes: number of classes of the network; 0: none, and labels are not looked at, so that such a network can
            guide one with classes.
        label: integers `[B]`, or one for all, 0 to `classes - 1`; `classes` itself, or None: no class. Values on a GPU
            are not read back to check.
        class_labels: vectors in place of `label`, `[B, classes]` or `[1, classes]`.

    Raises:
        ValueError: unlike the above.
    """
    if not classes:
        return None
    if label is None and class_labels is None:
        return torch.zeros(1, classes, device=x.device)
    n = x.shape[0]
    if class_labels is not None:
        if label is not None or list(class_labels.shape) not in ([n, classes], [1, classes]):
            got = f"{list(class_labels.shape)} and {'no label' if label is None else 'a label'}"
            raise ValueError(f"edm: class_labels must be {[n, classes]} without label, got {got}")
        return class_labels.to(x.device, torch.float32)
    label = torch.as_tensor(label, device=x.device).reshape(-1)
    if label.is_floating_point() or label.numel() not in (1, n):
        raise ValueError(f"edm: label must be integers [{n}], got {label.dtype} {list(label.shape)}")
    if label.device.type == "cpu" and label.numel() and not 0 <= int(label.min()) <= int(label.max()) <= classes:
        raise ValueError(f"edm: label must be 0 to {classes}, got {int(label.min())} to {int(label.max())}")
    return functional.one_hot(label.long(), classes + 1)[:, :-1].float()
