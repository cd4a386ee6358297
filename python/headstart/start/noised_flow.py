"""Flows: the law of the noised data at one sigma, with an exact density."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from headstart import ops
from headstart.fitting import FlowReport
from headstart.fitting.flow import FlowNetwork
from headstart.ops.library import exact
from headstart.start.check import check_address, check_points, check_sigma
from headstart.start.file import write
from headstart.start.standard import Frame

Own = TypeVar("Own", bound="NoisedFlow")
NUMBERS = 2**27  # in the largest temporaries: half a gigabyte of float32


class NoisedFlow:
    """The law of `x_0 + sigma n` as `x = mean + scale f^-1(z)`; families add `f`, `fit` and how files name it.

    It is a start itself, at the one sigma it was trained at.
    """

    def __init__(self, network: FlowNetwork, frame: Frame, report: FlowReport | None = None) -> None:
        self.network, self.frame, self.report = network.eval().requires_grad_(False), frame, report

    @property
    def shape(self) -> tuple[int, ...]:
        return self.frame.shape

    @property
    def sigma(self) -> float:
        return self.frame.sigma

    @property
    def conditional(self) -> bool:
        return self.frame.class_weight is not None

    def at(self: Own, sigma: float | Tensor) -> Own:
        """This flow, where `sigma` is its own.

        Raises:
            ValueError: another sigma.
        """
        value, own = check_sigma("at", sigma), self.sigma
        if abs(value - own) > 1e-6 * own:
            name = type(self).__name__
            raise ValueError(
                f"at: sigma must be {own:g}, where this {name} was trained, got {value:g}; "
                f"fit another one there, or a GaussianMixture, which serves every sigma"
            )
        return self

    def to(self: Own, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Own:
        """A copy of this flow on another device or in another dtype."""
        device = None if device is None else ops.check.require_device("to", device)
        moved = copy.copy(self)
        moved.network = copy.deepcopy(self.network).to(device=device, dtype=dtype)
        weight = self.frame.class_weight
        weight = None if weight is None else weight.to(device)
        moved.frame = self.frame._replace(mean=self.frame.mean.to(device, dtype), class_weight=weight)
        return moved

    @torch.no_grad()
    @exact
    def sample(self, n: int, seed: int = 0, offset: int = 0, labels: int | Tensor | None = None) -> Tensor:
        """Samples `offset .. offset + n - 1` of `seed`, `[n, *shape]`.

        A sample's latent (and its class, where none is asked for) is a function of (seed, index) alone, the same bits
        in any split into batches; what the network makes of it is the same up to the rounding of its matrix products,
        which torch may order differently in batches of different sizes.

        Args:
            n: samples wanted.
            seed: seed of the noise.
            offset: index of the first sample.
            labels: classes `[n]`, or one for all, or None: drawn with the shares of the data.
        """
        n, seed, offset = check_address("sample", n, seed, offset)
        label = self.frame.draw(n, seed, offset) if labels is None else self.frame.classes("sample", labels, n)
        x, rows = self.frame.mean.new_empty(n, len(self.frame.mean)), max(1, NUMBERS // self.network.row)
        for first in range(0, n, rows):
            z = self.network.latents(min(rows, n - first), seed, offset + first)
            x[first : first + rows] = self.invert(z, None if label is None else label[first : first + rows])
        return (self.frame.mean + self.frame.scale * x).reshape(n, *self.shape)

    def require_labels(self, name: str, labels: Tensor, n: int) -> None:
        """Refuses classes `[n]`, or one for all, that are not in the law."""
        self.frame.classes(name, labels, n)

    def invert(self, z: Tensor, label: Tensor | None) -> Tensor:
        """Standardized points of latents `z` `[B, D]`."""
        return self.network.inverse(z, label)

    @torch.no_grad()
    @exact
    def log_prob(self, x: Tensor, labels: int | Tensor | None = None) -> Tensor:
        """Log-density in nats of `x` `[n, *shape]`, as `[n]`, in the dtype of `x` (float32 for 16-bit `x`).

        Args:
            x: points, floating.
            labels: classes `[n]`, or one for all, or None: the mixture of all classes, a pass of the network for each.
        """
        flat = check_points("log_prob", x, self.shape)
        label = None if labels is None else self.frame.classes("log_prob", labels, len(flat))
        rows = max(1, NUMBERS // self.network.row)
        parts = [
            self.density(flat[first : first + rows], None if label is None else label[first : first + rows])
            for first in range(0, len(flat), rows)
        ]
        return torch.cat(parts) if parts else flat.new_empty(0)

    def density(self, flat: Tensor, label: Tensor | None) -> Tensor:
        """Log-density `[B]` of points `[B, D]` in units of the data."""
        mean, scale, weight = self.frame.mean, self.frame.scale, self.frame.class_weight
        y = (flat.to(mean) - mean) / scale
        if label is not None or weight is None:
            found = self.network.log_prob(y, label)
        else:
            each = [
                self.network.log_prob(y, torch.full((len(y),), k, device=y.device, dtype=torch.int64))
                + float(weight[k].log())
                for k in weight.nonzero()[:, 0].tolist()
            ]
            found = torch.stack(each).logsumexp(0)
        dtype = flat.dtype if flat.dtype in (torch.float32, torch.float64) else mean.dtype
        return found.to(flat.device, dtype) - len(mean) * math.log(scale)

    @exact
    def denoise(self, x: Tensor, labels: int | Tensor | None = None) -> Tensor:
        """Posterior mean of `x_0` given `x` `[n, *shape]`, by Tweedie's formula `x + sigma^2 grad log p(x)`.

        Exact where `p` is the law of some noised data; a flow that is not quite one may point outside the data.
        """
        flat = check_points("denoise", x, self.shape)
        label = None if labels is None else self.frame.classes("denoise", labels, len(flat))
        parts, rows = [flat[:0]], max(1, NUMBERS // self.network.row)
        for first in range(0, len(flat), rows):
            some = flat[first : first + rows].detach().clone().requires_grad_()
            with torch.enable_grad():
                total = self.density(some, None if label is None else label[first : first + rows]).sum()
            parts.append((some + self.sigma**2 * torch.autograd.grad(total, some)[0]).detach())
        return torch.cat(parts).reshape(x.shape)

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, whole or not at all; `headstart.load` reads it."""
        shape, sigma, mean, scale, weight = self.frame
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        tensors |= {"mean": mean} if weight is None else {"mean": mean, "class_weight": weight}
        header = {"family": type(self).__name__, "shape": shape, "sigma": sigma, "scale": scale, "provenance": {}}
        if self.report is not None:
            header["provenance"] = {"fit": self.report.to_dict(), "torch": torch.__version__}
        write(path, {**header, "network": self.network.config()}, tensors)
