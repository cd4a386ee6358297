"""Gaussian mixtures: the law of the data and of every noised copy of it, in closed form."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headstart import ops
from headstart.fitting import FitReport, fit_mixture
from headstart.fitting.problem import change, extremes, wide, widen
from headstart.initializer.check import check_data, check_labels, check_mixture, check_points, check_sigma
from headstart.initializer.covariance import Covariance, LowRank
from headstart.initializer.file import write
from headstart.initializer.mixture_start import MixtureStart
from headstart.progress import track


class GaussianMixture:
    """`p(x) = sum_k w_k N(x; mu_k, S_k)`; with noise, `p_sigma(x) = sum_k w_k N(x; mu_k, S_k + sigma^2 I)`.

    Args:
        components: Means and covariances of K components in D dimensions.
        weight: `w` `[K]`, at least 0; it is scaled to sum to 1.
        shape: Shape of one sample, of D values.
        class_weight: `p(k | class)` `[C, K]`, or None. A row of zeros is a class without data.
        report: How it was fitted, or None.

    Attributes:
        conditional: Whether it has class weights.

    Raises:
        ValueError: Shapes disagree, or weights are negative or not finite.
    """

    def __init__(
        self,
        components: ops.Components,
        weight: Tensor,
        shape: tuple[int, ...],
        class_weight: Tensor | None = None,
        report: FitReport | None = None,
    ) -> None:
        self.components, self.shape, self.report = components, tuple(shape), report
        self.weight, self.class_weight = check_mixture(components, weight, self.shape, class_weight)
        self.extremes = extremes(components)

    @classmethod
    def fit(
        cls,
        data: Tensor,
        components: int = 32,
        covariance: Covariance = LowRank(64),
        seed: int = 0,
        max_iter: int = 100,
        tol: float = 1e-4,
        device: torch.device | str | None = None,
        progress: bool = False,
        labels: Tensor | None = None,
    ) -> GaussianMixture:
        """Fit to clean data by EM from k-means++ seeds, in minibatches; the fit serves every sigma.

        The same data and seed give the same mixture on one machine. 5 % of the points are held out (none below
        200 points). Components that collapse are dropped; `report` says how many. No variance falls below 1e-6 of
        the data's mean variance, so constant pixels are allowed.

        Args:
            data: Points `[N, *shape]`, floating.
            components: Number of components K, at most N.
            covariance: `Isotropic()`, `Diagonal()`, `Full()` (small D) or `LowRank(rank)`.
            seed: Seed of the held-out split and of the first centres, in [0, 2^64).
            max_iter: Most EM iterations.
            tol: EM stops when the mean log-likelihood of a point rises by less than this, in nats per dimension.
            device: Where to fit; None: where the data is.
            progress: Show a progress bar.
            labels: Classes `[N]` of integers from 0, for a class-conditional start; or None.

        Raises:
            ValueError: Data, labels or a number is not as above, or all points are equal.
        """
        data = check_data("fit", data)
        data = data.to(device) if device is not None else data
        labels = None if labels is None else check_labels("fit", labels, len(data)).to(data.device)
        if not 1 <= components <= len(data):
            raise ValueError(f"fit: components must be from 1 to N = {len(data)} points, got {components}")
        if not hasattr(covariance, "estimate") or isinstance(covariance, type):
            families = "Isotropic(), Diagonal(), Full() or LowRank(rank)"
            raise ValueError(f"fit: covariance must be {families}, got {covariance!r}")
        if not ops.check.is_integer(seed) or not 0 <= seed < 2**64:
            raise ValueError(f"fit: seed must be an integer in [0, 2^64), got {seed!r}")
        if max_iter < 1 or not tol >= 0:
            raise ValueError(f"fit: max_iter must be at least 1 and tol at least 0, got {max_iter} and {tol}")
        dim = data[0].numel()
        with track("fit", max_iter + 2, progress) as advance:  # two stages, each with one E step more than M steps

            def tick(log_likelihood: float) -> None:
                advance(f"fit: {log_likelihood / dim:.4f} nats per dimension")

            fit = fit_mixture(data.flatten(1), components, covariance, int(seed), max_iter, tol, labels, tick)
        return cls(fit.components, fit.weight, tuple(data.shape[1:]), fit.class_weight, fit.report)

    @property
    def conditional(self) -> bool:
        return self.class_weight is not None

    @cached_property
    def widened(self) -> ops.Components:
        """The components for noise levels where float32 would not do."""
        return widen(self.components)

    def at(self, sigma: float | Tensor) -> MixtureStart:
        """The law of `x_0 + sigma n`, a start; it shares this mixture's tensors."""
        return MixtureStart(self, check_sigma("at", sigma))

    def given(self, label: int) -> GaussianMixture:
        """The mixture of one class; means and covariances are shared."""
        row = self.rows("given", torch.tensor([label]), 1)[0]
        return GaussianMixture(self.components, row, self.shape, None, self.report)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> GaussianMixture:
        """This mixture with its components on another device or in another dtype."""
        components = change(self.components, lambda tensor: tensor.to(device, dtype))
        class_weight = self.class_weight if self.class_weight is None else self.class_weight.to(device)
        return GaussianMixture(components, self.weight.to(device), self.shape, class_weight, self.report)

    def rows(self, name: str, labels: int | Tensor | None, n: int) -> Tensor:
        """Weights `[n, K]` of the classes `labels` (`[n]`, or one for all), or `[1, K]` without labels."""
        if labels is None:
            return self.weight[None]
        if self.class_weight is None:
            raise ValueError(f"{name}: labels were given, but this mixture was fitted without labels")
        labels = torch.as_tensor(labels)
        labels = check_labels(name, labels.expand(n) if labels.ndim == 0 else labels, n)
        row = self.class_weight[labels.to(self.class_weight.device).clamp_max(len(self.class_weight) - 1)]
        absent = (labels >= len(self.class_weight)) | (row.sum(1) == 0).to(labels.device)
        if absent.any():
            raise ValueError(f"{name}: no point of class {int(labels[absent][0])} was in the data of the fit")
        return row

    def log_prob(self, x: Tensor, sigma: float | Tensor = 0.0, labels: int | Tensor | None = None) -> Tensor:
        """Log-density in nats of `x` `[B, *shape]` at noise level `sigma`, as `[B]`.

        Args:
            x: Points, floating.
            sigma: Noise level, in units of the data.
            labels: Classes `[B]`, or one for all, or None.
        """
        sigma = check_sigma("log_prob", sigma)
        return self.posterior("log_prob", x, sigma, labels, denoise=False).log_prob

    def denoise(self, x: Tensor, sigma: float | Tensor, labels: int | Tensor | None = None) -> Tensor:
        """Posterior mean `E[x_0 | x_0 + sigma n = x]` `[B, *shape]`: the exact denoiser of this mixture.

        Args:
            x: Points `[B, *shape]`, floating.
            sigma: Noise level, or one for each point `[B]`.
            labels: Classes `[B]`, or one for all, or None.
        """
        if isinstance(sigma, Tensor) and sigma.numel() != 1:
            return self.denoise_levels(x, sigma, labels)
        sigma = check_sigma("denoise", sigma)
        denoised = self.posterior("denoise", x, sigma, labels, denoise=True).denoised
        assert denoised is not None
        return denoised.reshape(x.shape).to(x.dtype)

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

    def posterior(
        self, name: str, x: Tensor, sigma: float, labels: int | Tensor | None, denoise: bool
    ) -> ops.Posterior:
        """The op's posterior of `x`, no responsibilities, in the dtype of `x` (of the components for 16-bit `x`)."""
        flat = check_points(name, x, self.shape)
        dtype = flat.dtype if flat.dtype in (torch.float32, torch.float64) else self.components.mean.dtype
        held, inner = (self.widened, torch.float64) if wide(self.extremes, sigma) else (self.components, dtype)
        components = change(held, lambda tensor: tensor.to(flat.device, inner))
        log_weight = self.rows(name, labels, len(x)).log().to(flat.device, inner)
        log_row = log_weight[0] if labels is None else log_weight.contiguous()
        found = ops.mixture_posterior(flat.to(inner).contiguous(), components, log_row, sigma, denoise, respond=False)
        denoised = None if found.denoised is None else found.denoised.to(dtype)
        return ops.Posterior(found.log_prob.to(dtype), None, denoised)

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, whole or not at all; `headstart.load` reads it."""
        tensors = {"weight": self.weight, "class_weight": self.class_weight, **self.components._asdict()}
        header: dict[str, Any] = {"family": type(self).__name__, "shape": self.shape, "provenance": {}}
        if self.report is not None:
            header["provenance"] = {"fit": self.report.to_dict(), "torch": torch.__version__}
        write(path, header, {name: tensor for name, tensor in tensors.items() if tensor is not None})

    @classmethod
    def from_file(cls, header: dict[str, Any], tensors: dict[str, Tensor]) -> GaussianMixture:
        """The mixture from a file's header and tensors."""
        optional = {name: tensors.get(name) for name in ("axes", "spread")}
        components = ops.Components(tensors["mean"], tensors["variance"], **optional)
        report = header["provenance"].get("fit")
        report = FitReport.from_dict(report) if report is not None else None
        return cls(components, tensors["weight"], tuple(header["shape"]), tensors.get("class_weight"), report)
