"""Student-t mixtures: heavy tails that noise does not take away."""

from __future__ import annotations

from functools import cached_property
from numbers import Real
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from headstart import ops
from headstart.fitting import Fit, FitReport
from headstart.fitting.covariance import Covariance
from headstart.fitting.law import StudentT
from headstart.io.keyword import gather
from headstart.ops.array import tensor_of
from headstart.ops.check import describe
from headstart.ops.library import exact
from headstart.start.check import check_data, check_points, dense
from headstart.start.default import choose_size
from headstart.start.family import Mixture
from headstart.start.learn import Recipe, StudentOptions, learn
from headstart.start.scale_mixture import MAX_DF, MIN_DF, Shape, evaluate, radius, radius_table, shape_of

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from headstart.start.learn import StudentKeywords

NUMBERS = 2**22  # in the largest temporary


class StudentTMixture(Mixture):
    """`p(x) = sum_k w_k t(x; mu_k, S_k, df_k)`; with noise, each component is `t(mu_k, S_k, df_k) * N(0, sigma^2 I)`.

    A t component is `mu_k + e / sqrt(w)`, `e ~ N(0, S_k)`, `w ~ Gamma(df_k / 2, rate df_k / 2)`: samples are exact at
    every sigma, densities and denoiser integrate over `w` by quadrature, in float64. The relative error of the density
    is below 1e-8 at every distance from a mean.

    Args:
        components: means and scale matrices of K components in D dimensions; `variance` and `spread` are those of
            `S_k`, and the covariance is `S_k df_k / (df_k - 2)`.
        weight: `w` `[K]`, at least 0; it is scaled to sum to 1.
        shape: shape of one sample, of D values.
        class_weight: `p(k | class)` `[C, K]`, or None. A row of zeros is a class without data.
        report: how it was fitted, or None.
        df: degrees of freedom `[K]`, from 0.5 to 2000.

    Attributes:
        conditional: whether it has class weights.

    Raises:
        ValueError: shapes disagree, weights are negative or not finite, or degrees of freedom are out of range.

    Reference: "Robust mixture modelling using the t distribution" (Peel, McLachlan, 2000,
    https://doi.org/10.1023/A:1008981510081).
    """

    OWN = ("df",)

    def __init__(
        self,
        components: ops.Components,
        weight: Tensor,
        shape: tuple[int, ...],
        class_weight: Tensor | None = None,
        report: FitReport | None = None,
        *,
        df: Tensor,
    ) -> None:
        super().__init__(components, weight, shape, class_weight, report)
        df = tensor_of(df)
        if not dense(df) or df.is_complex():
            raise ValueError(f"StudentTMixture: df must be real [{len(self.weight)}], got {describe(df)}")
        self.df = df.double()
        sound = (self.df >= MIN_DF) & (self.df <= MAX_DF)
        if self.df.shape != self.weight.shape or not bool(sound.all()):
            wanted = f"[{len(self.weight)}] from {MIN_DF} to {MAX_DF:g}"
            raise ValueError(f"StudentTMixture: df must be {wanted}, got {describe(df)}: {df.flatten().tolist()[:8]}")

    @classmethod
    @exact
    def fit(
        cls,
        data: Tensor,
        components: int | Literal["auto"] | None = None,
        covariance: Covariance | None = None,
        seed: int = 0,
        max_iter: int = 200,
        tol: float = 1e-5,
        device: torch.device | str | None = None,
        **options: Unpack[StudentKeywords],
    ) -> Self:
        """Fit to clean data by EM from k-means++ seeds, as `GaussianMixture.fit`, with the degrees of freedom.

        Fit on clean data only: noised data are no t mixture.

        Args:
            data, seed, max_iter, tol, device, progress, labels, by_class: as in `GaussianMixture.fit`.
            components, covariance: as in `headstart.fit`; the covariance family is that of the scale matrices.
            df: range of the degrees of freedom of a component, within 0.5 to 2000 (1 to 1000); equal ends give them.

        Raises:
            ValueError: as `GaussianMixture.fit`, or a range that is none.
            TypeError: an unknown keyword.
        """
        asked = gather("fit", StudentOptions, options)
        ends = asked.df
        if not isinstance(ends, tuple | list) or len(ends) != 2 or not all(isinstance(end, Real) for end in ends):
            raise ValueError(f"fit: df must be a range (least, most), got {ends!r}")
        low, high = map(float, ends)
        if not MIN_DF <= low <= high <= MAX_DF:
            raise ValueError(f"fit: df must be a range within {MIN_DF} to {MAX_DF:g}, got {asked.df}")
        labels = asked.labels if asked.by_class else None
        components, covariance = choose_size(check_data("fit", data), components, covariance, labels)
        recipe = Recipe(components, covariance, seed, max_iter, tol, StudentT(low, high))
        return learn(cls, data, recipe, device, asked)

    @classmethod
    def of(cls, fit: Fit, shape: tuple[int, ...]) -> Self:
        assert fit.df is not None
        return cls(fit.components, fit.weight, shape, fit.class_weight, fit.report, df=fit.df)

    @cached_property
    def table(self) -> Tensor:
        """The table that turns a uniform into `1 / sqrt(w)`."""
        return radius_table(self.df).to(self.components.mean.device)

    def draw(self, component: Tensor, sigma: float, seed: int, offset: int) -> Tensor:
        mean = self.components.mean
        u = ops.uniform(len(component), seed, 0, offset, stream=ops.Stream.SCALE, device=mean.device)
        scale = radius(self.table, component, u).to(mean.dtype)
        centred = self.components._replace(mean=torch.zeros_like(mean))
        x = ops.mixture_sample(component, centred, 0.0, seed, 0, offset).mul_(scale[:, None]).add_(mean[component])
        return ops.noise(x, sigma, seed, 0, offset, out=x, stream=ops.Stream.START)

    def posterior(
        self, name: str, x: Tensor, sigma: float, labels: int | Tensor | None, denoise: bool
    ) -> ops.Posterior:
        flat = check_points(name, x, self.shape)
        dtype = flat.dtype if flat.dtype in (torch.float32, torch.float64) else self.components.mean.dtype
        if sigma == 0 and not bool(torch.stack([shape.value.min() for shape in self.shapes]).min() > 0):
            raise ValueError(f"{name}: sigma must be positive where a scale matrix is singular, got 0")
        log_weight = self.rows(name, labels, len(x)).log().to(flat.device).expand(len(x), -1)
        rows = max(1, NUMBERS // (flat.shape[1] * (len(self.weight) + 2) + 512))
        parts = [
            self.chunk(part.double(), weights, sigma, denoise)
            for part, weights in zip(flat.split(rows), log_weight.split(rows), strict=True)
        ]
        log_prob, denoised = (torch.cat(column).to(dtype) for column in zip(*parts, strict=True))
        return ops.Posterior(log_prob, None, denoised if denoise else None)

    @cached_property
    def shapes(self) -> list[Shape]:
        """Each component in its eigenbasis."""
        return [shape_of(self.widened, k) for k in range(len(self.weight))]

    def chunk(self, x: Tensor, log_weight: Tensor, sigma: float, denoise: bool) -> tuple[Tensor, Tensor]:
        """Log-density `[b]` and posterior mean `[b, D]` (empty if not asked for)."""
        densities, means = [], []
        for shape, df in zip(self.shapes, self.df.tolist(), strict=True):
            density, mean = evaluate(shape.to(x.device), df, x, sigma, denoise)
            densities.append(density)
            means.append(x[:, :0] if mean is None else mean)
        joint = torch.stack(densities, dim=1) + log_weight
        return joint.logsumexp(1), torch.einsum("bk,bkd->bd", joint.softmax(1), torch.stack(means, dim=1))
