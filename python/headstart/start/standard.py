"""The frame of a flow: shape, noise level, units and classes of its data.

Data are standardized into that frame before training; a file holds it beside the network, and both are restored here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from headstart import ops
from headstart.fitting import FlowReport, Points, Training, fit_flow
from headstart.fitting.flow import FlowNetwork
from headstart.io.progress import track
from headstart.start.check import check_data, check_labels, check_sigma


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
    elif not 0 < scale < math.inf:
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
