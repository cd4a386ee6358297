"""What came out: samples that are not finite are never handed over without a word.

One rule: `sample` and `integrate` look once, at the end, and warn with `NotFinite`, which names the samples; the others
are as good as ever, so nothing is thrown away. `warnings.simplefilter("error", NotFinite)` makes it an error. A
`Sampler` on a GPU, whose calls do not wait, counts on the device, see there.
"""

from __future__ import annotations

import math
import warnings
from functools import partial
from typing import Any

import torch
from torch import Tensor

from headstart import ops
from headstart.denoiser import denoise

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
