"""Mixtures: weights, classes and files, which every family shares, and a mixture at a noise level, which is a start."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from headstart import ops
from headstart.fitting import Fit, FitReport
from headstart.ops.array import tensor_of
from headstart.ops.component import change, extremes, widen
from headstart.ops.library import exact
from headstart.start.check import check_address, check_labels, check_mixture, check_points, check_sigma
from headstart.start.file import write
from headstart.start.transport import transport

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class MixtureStart:
    """A mixture at noise level `sigma`: the law of `x_0 + sigma n`.

    Args:
        mixture: the law of `x_0`.
        sigma: noise level, in units of the data.
    """

    mixture: Mixture
    sigma: float

    @property
    def shape(self) -> tuple[int, ...]:
        return self.mixture.shape

    @property
    def conditional(self) -> bool:
        return self.mixture.conditional

    @exact
    def sample(self, n: int, seed: int = 0, offset: int = 0, labels: int | Tensor | None = None) -> Tensor:
        """Samples `offset .. offset + n - 1` of `seed`, `[n, *shape]`: the same bits in any split into batches.

        Args:
            n: samples wanted.
            seed: seed of the noise.
            offset: index of the first sample.
            labels: classes `[n]`, or one for all, or None.
        """
        n, seed, offset = check_address("sample", n, seed, offset)
        device = self.mixture.components.mean.device
        cdf = self.mixture.rows("sample", labels, n).cumsum(1).to(device)
        u = ops.uniform(n, seed, 0, offset, stream=ops.Stream.COMPONENT, device=device)
        cdf = (cdf / cdf[:, -1:]).expand(n, -1).contiguous()
        component = torch.searchsorted(cdf, u[:, None])[:, 0]
        x = self.mixture.draw(component, self.sigma, seed, offset)
        return x.reshape(n, *self.shape)

    def require_labels(self, name: str, labels: Tensor, n: int) -> None:
        """Refuses classes `[n]`, or one for all, that are not in the law."""
        self.mixture.rows(name, labels, n)

    def transport(self, z: Tensor, labels: int | Tensor | None = None) -> Tensor:
        """Where the classic latents `80 z` are at `sigma` on the mixture's own probability-flow ODE, `[n, *shape]`.

        The same `z` then gives nearly the same sample as the classic start, at no network call.

        Args:
            z: unit normals `[n, *shape]`.
            labels: classes `[n]`, or one for all, or None.
        """
        return self.mixture.transport(z, self.sigma, labels=labels)

    def from_latents(self, z: Tensor, labels: int | Tensor | None = None) -> Tensor:
        """`transport`, by the name that `sample(latents=z)` knows."""
        return self.transport(z, labels)

    @exact
    def history(self, x: Tensor, above: float, labels: int | Tensor | None = None) -> list[Tensor]:
        """Denoised predictions of the start itself for states `x` `[n, *shape]`, at `sigma` and at `above`.

        The state at `above` is one Euler step up the mixture's flow: `above / sigma x + (1 - above / sigma) D(x)`.
        """
        ratio, near = above / self.sigma, self.denoise(x, labels)
        higher = ops.affine(x.contiguous(), ratio, [(1 - ratio, near)])
        return [near, self.mixture.denoise(higher, above, labels)]

    def log_prob(self, x: Tensor, labels: int | Tensor | None = None) -> Tensor:
        """Log-density in nats of `x` `[n, *shape]`, as `[n]`."""
        return self.mixture.log_prob(x, self.sigma, labels)

    def denoise(self, x: Tensor, labels: int | Tensor | None = None) -> Tensor:
        """Posterior mean of `x_0` given `x` `[n, *shape]`."""
        return self.mixture.denoise(x, self.sigma, labels)


class Mixture(ABC):
    """`p(x) = sum_k w_k p_k(x)`; a family gives the law `p_k` of a component, and of its noised copies.

    A family is a subclass with `draw`, `posterior` and `of`; tensors that its constructor takes beside the arguments
    below are named in `OWN`.

    Args:
        components: means and scale matrices of K components in D dimensions.
        weight: `w` `[K]`, at least 0; it is scaled to sum to 1.
        shape: shape of one sample, of D values.
        class_weight: `p(k | class)` `[C, K]`, or None. A row of zeros is a class without data.
        report: how it was fitted, or None.

    Attributes:
        conditional: whether it has class weights.

    Raises:
        ValueError: shapes disagree, or weights are negative or not finite.
    """

    OWN: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        components: ops.Components,
        weight: Tensor,
        shape: tuple[int, ...],
        class_weight: Tensor | None = None,
        report: FitReport | None = None,
    ) -> None:
        family = type(self).__name__
        if not isinstance(shape, tuple | list):
            raise TypeError(f"{family}: shape must be a tuple of integers, got {shape!r}")
        self.components, self.shape, self.report = components, tuple(shape), report
        self.weight, self.class_weight = check_mixture(family, components, weight, self.shape, class_weight)
        self.extremes = extremes(components)
        self.transport_levels: dict[tuple[float, float], list[float]] = {}  # chosen once for each way down

    def __repr__(self) -> str:
        classes = "" if self.class_weight is None else f", classes={len(self.class_weight)}"
        return f"<{type(self).__name__} shape={self.shape}, components={len(self.weight)}{classes}>"

    @classmethod
    @abstractmethod
    def of(cls, fit: Fit, shape: tuple[int, ...]) -> Self:
        """The mixture that a fit found."""

    @abstractmethod
    def draw(self, component: Tensor, sigma: float, seed: int, offset: int) -> Tensor:
        """Samples `offset ...` of `seed` of given components `[n]` at a noise level, `[n, D]`."""

    @abstractmethod
    def posterior(
        self, name: str, x: Tensor, sigma: float, labels: int | Tensor | None, denoise: bool
    ) -> ops.Posterior:
        """Log-density and posterior mean of `x`, in its dtype; `name` is that of the caller."""

    @property
    def conditional(self) -> bool:
        return self.class_weight is not None

    @cached_property
    def widened(self) -> ops.Components:
        """The components in float64."""
        return change(self.components, Tensor.double) if self.components.axes is None else widen(self.components)

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that tell mixtures apart by their components.

        Of shape, means, variances, spreads and each component's first axis, rounded to float32: the same on every
        device, after `save` and `load`, in float64, and for the mixture of one class by `given`.
        """
        mean, variance, axes, spread = self.components
        parts = [mean, variance, *(() if axes is None or spread is None else (spread, axes[:, :1]))]
        digest = hashlib.sha256(repr((type(self).__name__, self.shape)).encode())
        for tensor in (*parts, *(getattr(self, name) for name in self.OWN)):
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def at(self, sigma: float | Tensor) -> MixtureStart:
        """The law of `x_0 + sigma n`, a start; it shares this mixture's tensors."""
        return MixtureStart(self, check_sigma("at", sigma))

    def replace(self, **fields: Any) -> Self:
        """This mixture with some arguments of its constructor replaced."""
        names = ("components", "weight", "shape", "class_weight", "report", *self.OWN)
        return type(self)(**{**{name: getattr(self, name) for name in names}, **fields})

    def given(self, label: int) -> Self:
        """The mixture of one class; means and covariances are shared."""
        return self.replace(
            weight=self.rows("given", torch.tensor([label], dtype=torch.int64, device="cpu"), 1)[0], class_weight=None
        )

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """This mixture with its components on another device or in another dtype."""
        device = None if device is None else ops.check.require_device("to", device)
        return self.replace(
            components=change(self.components, lambda tensor: tensor.to(device, dtype)),
            weight=self.weight.to(device),
            class_weight=None if self.class_weight is None else self.class_weight.to(device),
            **{name: getattr(self, name).to(device) for name in self.OWN},
        )

    def rows(self, name: str, labels: int | Tensor | None, n: int) -> Tensor:
        """Weights `[n, K]` of the classes `labels` (`[n]`, or one for all), or `[1, K]` without labels."""
        if labels is None:
            return self.weight[None]
        if self.class_weight is None:
            raise ValueError(f"{name}: labels were given, but this mixture was fitted without labels")
        labels = torch.as_tensor(labels, device=getattr(labels, "device", "cpu"))
        labels = check_labels(name, labels.expand(n) if labels.ndim == 0 else labels, n)
        row = self.class_weight[labels.to(self.class_weight.device).clamp_max(len(self.class_weight) - 1)]
        absent = (labels >= len(self.class_weight)) | (row.sum(1) == 0).to(labels.device)
        if absent.any():
            raise ValueError(f"{name}: no point of class {int(labels[absent][0])} was in the data of the fit")
        return row

    @cached_property
    def classes(self) -> dict[int, Self]:
        """Each class as a mixture of its own components, where no component belongs to two; empty otherwise."""
        if self.class_weight is None or int((self.class_weight > 0).sum(0).max()) > 1:
            return {}
        return {label: self.part(row) for label, row in enumerate(self.class_weight) if row.any()}

    def part(self, weight: Tensor) -> Self:
        """The components with a positive weight `[K]`; their tensors are shared where they lie together."""
        own = weight.nonzero()[:, 0]
        first, last = int(own[0]), int(own[-1]) + 1
        index = slice(first, last) if last - first == len(own) else own
        return self.replace(
            components=change(self.components, lambda tensor: tensor[index]),
            weight=weight[index],
            class_weight=None,
            **{name: getattr(self, name)[index] for name in self.OWN},
        )

    def split(self, name: str, x: Tensor, labels: int | Tensor | None) -> list[tuple[Tensor, Self]]:
        """Indices of the points `x` of each class, with the mixture of its own components; empty where classes share
        components, or without labels or points."""
        own = {} if labels is None else self.classes
        if not own or check_points(name, x, self.shape).numel() == 0:
            return []
        self.rows(name, labels, len(x))  # checks them
        asked = torch.as_tensor(labels, device=x.device).expand(len(x))
        return [((asked == label).nonzero()[:, 0], own[int(label)]) for label in asked.unique()]

    @exact
    def evaluate(self, name: str, x: Tensor, sigma: float, labels: int | Tensor | None, denoise: bool) -> ops.Posterior:
        """`posterior`, at the cost of each point's own class where classes share no component."""
        parts = self.split(name, x, labels)
        if not parts:
            return self.posterior(name, x, sigma, labels, denoise)
        found = [law.posterior(name, x[some], sigma, None, denoise) for some, law in parts]
        order = torch.cat([some for some, _ in parts]).argsort()
        log_prob, denoised = torch.cat([part.log_prob for part in found])[order], None
        if denoise:
            denoised = torch.cat([part.denoised for part in found if part.denoised is not None])[order]
        return ops.Posterior(log_prob, None, denoised)

    def log_prob(self, x: Tensor, sigma: float | Tensor = 0.0, labels: int | Tensor | None = None) -> Tensor:
        """Log-density in nats of `x` `[B, *shape]` at noise level `sigma`, as `[B]`.

        Args:
            x: points, floating.
            sigma: noise level, in units of the data.
            labels: classes `[B]`, or one for all, or None.
        """
        x, sigma = tensor_of(x), check_sigma("log_prob", sigma)
        return self.evaluate("log_prob", x, sigma, labels, denoise=False).log_prob

    def denoise(self, x: Tensor, sigma: float | Tensor, labels: int | Tensor | None = None) -> Tensor:
        """Posterior mean `E[x_0 | x_0 + sigma n = x]` `[B, *shape]`: the exact denoiser of this mixture.

        Args:
            x: points `[B, *shape]`, floating.
            sigma: noise level, or one for each point `[B]`.
            labels: classes `[B]`, or one for all, or None.
        """
        x = tensor_of(x)
        if isinstance(sigma, Tensor) and sigma.numel() != 1:
            check_points("denoise", x, self.shape)
            return self.denoise_levels(x, sigma, labels)
        sigma = check_sigma("denoise", sigma)
        denoised = self.evaluate("denoise", x, sigma, labels, denoise=True).denoised
        assert denoised is not None
        return denoised.reshape(x.shape).to(x.dtype)

    @exact
    def transport(
        self, z: Tensor, sigma: float | Tensor, sigma_max: float = 80.0, labels: int | Tensor | None = None
    ) -> Tensor:
        """`sigma_max z` `[B, *shape]` carried to `sigma` on this mixture's own flow; see `transport.py`."""
        return transport(self, z, check_sigma("transport", sigma), sigma_max, labels)

    @exact
    def denoise_levels(self, x: Tensor, sigma: Tensor, labels: int | Tensor | None) -> Tensor:
        """`denoise` with a noise level for each point, a level at a time."""
        if sigma.numel() != len(x):
            raise ValueError(f"denoise: sigma must be a number or [{len(x)}], got {list(sigma.shape)}")
        labels = labels if labels is None else torch.as_tensor(labels, device=x.device).expand(len(x))
        out, sigma = torch.empty_like(x), sigma.reshape(-1).to(x.device)
        for level in sigma.unique():
            some = sigma == level
            out[some] = self.denoise(x[some], level, labels if labels is None else labels[some])
        return out

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, whole or not at all; `headstart.load` reads it."""
        tensors = {"weight": self.weight, "class_weight": self.class_weight, **self.components._asdict()}
        tensors |= {name: getattr(self, name) for name in self.OWN}
        header: dict[str, Any] = {"family": type(self).__name__, "shape": self.shape, "provenance": {}}
        if self.report is not None:
            header["provenance"] = {"fit": self.report.to_dict(), "torch": torch.__version__}
        write(path, header, {name: tensor for name, tensor in tensors.items() if tensor is not None})

    @classmethod
    def from_file(cls, header: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """The mixture from a file's header and tensors."""
        optional = {name: tensors.get(name) for name in ("axes", "spread")}
        components = ops.Components(tensors["mean"], tensors["variance"], **optional)
        report = header["provenance"].get("fit")
        report = FitReport.from_dict(report) if report is not None else None
        own = {name: tensors[name] for name in cls.OWN}
        shape, class_weight = tuple(header["shape"]), tensors.get("class_weight")
        return cls(components, tensors["weight"], shape, class_weight, report, **own)
