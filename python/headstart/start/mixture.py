"""Gaussian mixtures and the single Gaussian: the law of the data and of every noised copy of it, in closed form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from headstart import ops
from headstart.fitting import Fit
from headstart.fitting.covariance import Covariance, Full, LowRank, check_covariance
from headstart.fitting.gaussian import fit_gaussian
from headstart.fitting.law import Normal
from headstart.io.keyword import gather
from headstart.ops.component import change, wide
from headstart.ops.library import exact
from headstart.start.check import check_data, check_labels, check_points
from headstart.start.family import Mixture
from headstart.start.learn import MixtureOptions, Recipe, learn

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from headstart.start.learn import MixtureKeywords


class GaussianMixture(Mixture):
    """`p(x) = sum_k w_k N(x; mu_k, S_k)`; with noise, `p_sigma(x) = sum_k w_k N(x; mu_k, S_k + sigma^2 I)`.

    Args:
        components: means and covariances of K components in D dimensions.
        weight: `w` `[K]`, at least 0; it is scaled to sum to 1.
        shape: shape of one sample, of D values.
        class_weight: `p(k | class)` `[C, K]`, or None. A row of zeros is a class without data.
        report: how it was fitted, or None.

    Attributes:
        conditional: whether it has class weights.

    Raises:
        ValueError: shapes disagree, or weights are negative or not finite.
    """

    @classmethod
    @exact
    def fit(
        cls,
        data: Tensor,
        components: int | Literal["auto"] = 32,
        covariance: Covariance = LowRank(64),
        seed: int = 0,
        max_iter: int = 100,
        tol: float = 1e-4,
        device: torch.device | str | None = None,
        **options: Unpack[MixtureKeywords],
    ) -> Self:
        """Fit to clean data by EM from k-means++ seeds, in minibatches; the fit serves every sigma.

        The same data and seed give the same mixture on one machine. 5 % of the points are held out (none below
        200 points). Components that collapse are dropped; `report` says how many. No variance falls below 1e-6 of
        the data's mean variance, so constant pixels are allowed.

        Args:
            data: points `[N, *shape]`, floating.
            components: number of components K, at most N; or "auto": the number, and the rank up to the given one,
                of the best held-out likelihood, by trial on a part of the data (`report.candidates`).
            covariance: `Isotropic()`, `Diagonal()`, `Full()` (small D) or `LowRank(rank)`.
            seed: seed of the held-out split and of the first centres, in [0, 2^64).
            max_iter: most EM iterations.
            tol: EM stops when the mean log-likelihood of a point rises by less than this, in nats per dimension.
            device: where to fit; None: where the data is.
            progress: show a progress bar (False).
            labels: classes `[N]` of integers from 0, for a class-conditional start; or None. Components are shared, and
                each class has weights of its own.
            by_class: fit a mixture of `components` components to each class by itself instead, and join them. With
                1,000 points a class or more it keeps classes apart better; with a few hundred, share.

        Raises:
            ValueError: data of another kind, labels of another length, a number out of its range, or equal points.
            TypeError: an unknown keyword.
        """
        recipe = Recipe(components, covariance, seed, max_iter, tol, Normal())
        return learn(cls, data, recipe, device, gather("fit", MixtureOptions, options))

    @classmethod
    def of(cls, fit: Fit, shape: tuple[int, ...]) -> Self:
        return cls(fit.components, fit.weight, shape, fit.class_weight, fit.report)

    def draw(self, component: Tensor, sigma: float, seed: int, offset: int) -> Tensor:
        return ops.mixture_sample(component, self.components, sigma, seed, 0, offset)

    def posterior(
        self, name: str, x: Tensor, sigma: float, labels: int | Tensor | None, denoise: bool
    ) -> ops.Posterior:
        flat = check_points(name, x, self.shape)
        dtype = flat.dtype if flat.dtype in (torch.float32, torch.float64) else self.components.mean.dtype
        held, inner = (self.widened, torch.float64) if wide(self.extremes, sigma) else (self.components, dtype)
        components = change(held, lambda tensor: tensor.to(flat.device, inner))
        log_weight = self.rows(name, labels, len(x)).log().to(flat.device, inner)
        log_row = log_weight[0] if labels is None else log_weight.contiguous()
        found = ops.mixture_posterior(flat.to(inner).contiguous(), components, log_row, sigma, denoise, respond=False)
        log_prob = found.log_prob.to(dtype)
        denoised = None if found.denoised is None else found.denoised.to(dtype)
        lost = overflown(flat, log_prob)
        if lost is not None:
            wide_x, log_row = flat[lost].double(), log_row if log_row.dim() == 1 else log_row[lost]
            far = far_posterior(wide_x, change(self.widened, lambda t: t.to(flat.device)), log_row, sigma, denoise)
            log_prob[lost] = far.log_prob.to(dtype)
            if denoised is not None and far.denoised is not None:
                denoised[lost] = far.denoised.to(dtype)
        return ops.Posterior(log_prob, None, denoised)


FAR = 1e100  # where a square still fits in float64, and no mean or variance matters any more


def overflown(x: Tensor, log_prob: Tensor) -> Tensor | None:
    """Indices of finite points `x` `[B, D]` whose squared distances overflowed; None: none, or not to be asked.

    Asking reads the densities, which a graph capture or a compiler does not allow.
    """
    if torch.compiler.is_compiling() or x.is_meta or (x.is_cuda and torch.cuda.is_current_stream_capturing()):
        return None
    lost = ~log_prob.isfinite()
    if not bool(lost.any()):
        return None
    index = (lost & x.isfinite().all(1)).nonzero()[:, 0]
    return index if len(index) else None


def far_posterior(x: Tensor, components: ops.Components, log_row: Tensor, sigma: float, denoise: bool) -> ops.Posterior:
    """The posterior of points `x` `[B, D]` far outside, in float64; components are float64 too.

    Beyond `FAR` the density's logarithm is below every number, and the denoiser is linear: `D(x) = s D(x / s)`.
    """
    size = x.abs().amax(1, keepdim=True)
    scale = (size / FAR).clamp_min(1)
    found = ops.mixture_posterior((x / scale).contiguous(), components, log_row.double(), sigma, denoise, respond=False)
    log_prob = torch.where(scale[:, 0] > 1, -torch.inf, found.log_prob)
    return ops.Posterior(log_prob, None, None if found.denoised is None else scale * found.denoised)


class Gaussian:
    """`p(x) = N(x; mu, S)`, or one Gaussian a class: mixtures whose components need no search."""

    @staticmethod
    @exact
    def fit(
        data: Tensor,
        covariance: Covariance = Full(),
        labels: Tensor | None = None,
        device: torch.device | str | None = None,
    ) -> GaussianMixture:
        """The most likely Gaussian of clean data, as a `GaussianMixture` of one component (or one a class).

        No variance falls below 1e-6 of the data's mean variance, so constant pixels are allowed.

        Args:
            data: points `[N, *shape]`, floating.
            covariance: `Isotropic()`, `Diagonal()`, `Full()` (small D) or `LowRank(rank)`.
            labels: classes `[N]` of integers from 0, for a component and a row of class weights for each; or None.
            device: where to fit; None: where the data is.

        Raises:
            ValueError: data or labels of another kind or length, a covariance of no family, or equal points.
        """
        data = check_data("fit", data)
        data = data.to(ops.check.require_device("fit", device)) if device is not None else data
        known = None if labels is None else check_labels("fit", labels, len(data)).to(data.device)
        check_covariance(covariance)
        fit = fit_gaussian(data.flatten(1), covariance, known)
        class_weight = None if labels is None else fit.class_weight
        return GaussianMixture(fit.components, fit.weight, tuple(data.shape[1:]), class_weight, fit.report)
