"""Flows of noised data at one sigma: units and classes of the data, training, densities and draws.

Data are standardized into that frame before training; a file holds it beside the network, and both are restored here.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from headstart import ops
from headstart.argument import require_number, shown
from headstart.fitting import FlowReport, Points, Training, fit_flow
from headstart.fitting.flow import FlowNetwork
from headstart.io.progress import track
from headstart.ops.library import exact
from headstart.start.check import check_address, check_data, check_labels, check_points, check_sigma
from headstart.start.file import write


class Frame(NamedTuple):
    """The frame of a flow: `x = mean + scale y`, `y` standardized.

    Attributes:
        shape: of one sample, of D values.
        sigma: noise level of the law, in units of the data.
        mean: `[D]`.
        scale: divisor of the data: the standard deviation of a coordinate of the noised data, the mean over
            coordinates taken in its square, where no other was asked for.
        class_weight: share of each class in the data `[C]`, float64, or None.
    """

    shape: tuple[int, ...]
    sigma: float
    mean: Tensor
    scale: float
    class_weight: Tensor | None

    def draw(self, n: int, seed: int, offset: int) -> Tensor | None:
        """Classes `[n]` with the shares of the data."""
        if self.class_weight is None:
            return None
        cdf = self.class_weight.cumsum(0)
        u = ops.uniform(n, seed, 0, offset, stream=ops.Stream.COMPONENT, device=cdf.device)
        return torch.searchsorted(cdf / cdf[-1], u)

    def classes(self, name: str, labels: int | Tensor, n: int) -> Tensor:
        """Labels `[n]`, or one for all, as classes of the data."""
        weight = self.class_weight
        if weight is None:
            raise ValueError(f"{name}: labels were given, but this flow was fitted without labels")
        labels = torch.as_tensor(labels, device=getattr(labels, "device", "cpu"))
        labels = check_labels(name, labels.expand(n) if labels.ndim == 0 else labels, n).to(weight.device)
        absent = (labels >= len(weight)) | (weight[labels.clamp_max(len(weight) - 1)] == 0)
        if absent.any():
            raise ValueError(f"{name}: no point of class {int(labels[absent][0])} was in the data of the fit")
        return labels


Net = TypeVar("Net", bound=FlowNetwork)


def standardize(
    data: Tensor, sigma: float | Tensor, labels: Tensor | None, device: torch.device | str | None,
    scale: float | None = None,
) -> tuple[Points, Frame]:  # fmt: skip
    """Points `(x_0 - mean) / scale` and their frame; `scale^2` is the mean variance of `x_0 + sigma n` where not given.

    Raises:
        ValueError: data, sigma, labels or scale are not what `fit` asks for.
    """
    data = check_data("fit", data)
    sigma = check_sigma("fit", sigma, positive=True)
    labels = None if labels is None else check_labels("fit", labels, len(data))
    data = data.to(ops.check.require_device("fit", device)) if device is not None else data
    flat, shape = data.flatten(1).float(), tuple(data.shape[1:])
    mean = flat.mean(0, dtype=torch.float64)
    centred = flat - mean.float()
    variance = float(centred.square().mean(dtype=torch.float64))
    if not math.isfinite(variance):
        raise ValueError("fit: data must have a finite variance, got one that overflows; scale it")
    if scale is None:
        scale = math.sqrt(variance + sigma**2)
    elif not 0 < (scale := require_number("fit", "scale", scale)) < math.inf:
        raise ValueError(f"fit: scale must be above 0 and finite, got {scale}")
    labels = None if labels is None else labels.to(data.device, copy=True)
    weight = None if labels is None else labels.bincount().double() / len(labels)
    return Points(centred / scale, labels), Frame(shape, sigma, mean.float(), scale, weight)


def train(
    network: FlowNetwork, points: Points, frame: Frame, training: Training, title: str, progress: bool
) -> FlowReport:
    """Trains a network on standardized points; the report is in units of the data."""
    dim = len(frame.mean)
    shift = dim * math.log(frame.scale)
    network = network.to(points.x.device)
    with track("fit", training.epochs, progress) as advance:

        def tick(log_likelihood: float) -> None:
            advance(f"fit: {(log_likelihood - shift) / dim:.4f} nats per dimension")

        return fit_flow(network, points, frame.sigma / frame.scale, training, tick, title).shifted(-shift)


def restore(
    header: dict[str, Any], tensors: dict[str, Tensor], build: Callable[[tuple[int, ...], int], Net]
) -> tuple[Net, Frame, FlowReport | None]:
    """Network, frame and report of a file; `build(shape, classes)` makes the network that its header describes.

    Raises:
        KeyError, TypeError, ValueError: something is missing, or of another kind, shape or range.
    """
    shape = tuple(header["shape"])
    if not shape or not all(isinstance(size, int) and size > 0 for size in shape):
        raise ValueError(f"shape must be of integers above 0, got {shape}")
    mean, weight = tensors["mean"], tensors.get("class_weight")
    sigma, scale = check_sigma("load", header["sigma"], positive=True), check_sigma("load", header["scale"], True)
    if tuple(mean.shape) != (math.prod(shape),) or (weight is not None and weight.ndim != 1):
        raise ValueError(f"mean must be [{math.prod(shape)}], got {list(mean.shape)}")
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise ValueError("a tensor is not finite")
    if weight is not None and (bool((weight < 0).any()) or not bool(weight.sum() > 0)):
        raise ValueError("class_weight must be at least 0 and not all 0")
    with torch.device("cpu"):
        network = build(shape, 0 if weight is None else len(weight)).to(mean.dtype)
    prefix = "network."
    weights = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError("its tensors are not those of the network it describes") from error
    report = header["provenance"].get("fit")
    report = None if report is None else FlowReport.from_dict(report)
    return network, Frame(shape, sigma, mean, scale, weight), report


Own = TypeVar("Own", bound="NoisedFlow")
NUMBERS = 2**27  # in the largest temporaries: half a gigabyte of float32


class NoisedFlow:
    """The law of `x_0 + sigma n` as `x = mean + scale f^-1(z)`; families add `f`, `fit` and how files name it.

    It is a start itself, at the one sigma it was trained at.
    """

    def __init__(self, network: FlowNetwork, frame: Frame, report: FlowReport | None = None) -> None:
        name = type(self).__name__
        if not isinstance(network, FlowNetwork):
            raise TypeError(f"{name}: network must be that of a fitted flow, got {shown(network)}; {name}.fit makes it")
        if not isinstance(frame, Frame):
            raise TypeError(f"{name}: frame must be a Frame, got {shown(frame)}; {name}.fit makes it")
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
