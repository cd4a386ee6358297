"""Arrays of others as tensors, by value, and eigenvalues of symmetric matrices that LAPACK may give up on."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


def tensor_of(value: Any) -> Any:
    """A numpy array as a tensor with a copy of its values; a tensor without pending negations; anything else as it is.

    Later writes into the array do not reach the tensor. Arrays of any strides and byte order are taken; those whose
    numbers no tensor holds (objects, text, long doubles) come back as they are, for the caller's check to refuse.
    """
    if isinstance(value, Tensor):
        return value.resolve_conj().resolve_neg() if value.layout is torch.strided else value
    if not isinstance(value, np.ndarray) or isinstance(value, np.ma.MaskedArray) or value.dtype.kind not in "fiubc":
        return value
    native = np.array(value, dtype=value.dtype.newbyteorder("="), order="C", copy=True, subok=False)
    try:
        return torch.from_numpy(native)
    except TypeError:
        return value


class Eigen(NamedTuple):
    """Eigenvalues `[D]`, ascending, and eigenvectors `[D, D]` in columns."""

    value: Tensor
    vector: Tensor


def eigh(matrix: Tensor) -> Eigen:
    """Eigenvalues and eigenvectors of a finite symmetric `matrix` `[D, D]`.

    LAPACK's divide and conquer does not converge on some rank-deficient matrices. Then numpy's library has a try, and
    then a singular value decomposition, whose left vectors are eigenvectors too: signs of the eigenvalues come from
    Rayleigh quotients.
    """
    try:
        return Eigen(*torch.linalg.eigh(matrix))
    except RuntimeError:
        pass
    try:
        value, vector = (torch.from_numpy(part).to(matrix) for part in np.linalg.eigh(matrix.cpu().numpy()))
    except np.linalg.LinAlgError:
        vector = torch.linalg.svd(matrix).U
        value = (vector * (matrix @ vector)).sum(0)
        order = value.argsort()
        value, vector = value[order], vector[:, order]
    return Eigen(value, vector)
