"""A mixture for each class, joined into one whose components belong to classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from headstart import ops
from headstart.fitting.em import Fit, Recipe, fit_mixture
from headstart.fitting.report import FitReport


def fit_by_class(points: Tensor, labels: Tensor, recipe: Recipe, tick: Callable[[float], None]) -> Fit:
    """`p(x | c) = sum_k w_ck N(x; mu_ck, S_ck)` for each class c, and `p(x) = sum_c (N_c / N) p(x | c)`.

    Args:
        points: checked data `[N, D]`.
        labels: their classes `[N]`, int64.
        recipe: its number of components is that of a class.
        tick: called once an iteration with the log-likelihood of the class at hand.

    Raises:
        ValueError: a class with fewer points than components, or without variance.
    """
    classes, counts = labels.unique(return_counts=True)
    few = counts.argmin()
    if recipe.components > counts[few]:
        raise ValueError(
            f"fit: components must be at most the points of a class with by_class, got {recipe.components}; class "
            f"{int(classes[few])} has {int(counts[few])}"
        )
    fits = []
    for label in classes.tolist():
        try:
            fits.append(fit_mixture(points[labels == label], recipe, None, tick))
        except ValueError as error:
            raise ValueError(f"{error}, in class {label}") from None
    return join(fits, classes, counts)


def join(fits: Sequence[Fit], classes: Tensor, counts: Tensor) -> Fit:
    """The mixture of the fits of `classes` `[C]`, weighted by the `counts` `[C]` of their points."""
    share = (counts.double() / counts.sum()).tolist()
    sizes = [len(fit.weight) for fit in fits]
    weight = torch.cat([part * fit.weight.double() for part, fit in zip(share, fits, strict=True)])
    class_weight = weight.new_zeros(int(classes.max()) + 1, sum(sizes))
    class_weight[classes] = torch.block_diag(*(fit.weight.double()[None] for fit in fits))
    mean, variance, axes, spread = zip(*(fit.components for fit in fits), strict=True)
    low_rank = axes[0] is not None
    components = ops.Components(
        torch.cat(mean),
        torch.cat(variance),
        torch.cat(axes) if low_rank else None,
        torch.cat(spread) if low_rank else None,
    )
    df = None if fits[0].df is None else torch.cat([fit.df for fit in fits if fit.df is not None])
    return Fit(components, weight, class_weight, summary([fit.report for fit in fits]), df)


def summary(reports: Sequence[FitReport]) -> FitReport:
    """One report: sums over classes, and log-likelihoods of a point given its class."""
    unseen = [(r.heldout, r.heldout_log_likelihood) for r in reports if r.heldout_log_likelihood is not None]
    held, n = sum(m for m, _ in unseen), sum(r.n for r in reports)
    return FitReport(
        n=n,
        heldout=held,
        components=sum(r.components for r in reports),
        dropped=sum(r.dropped for r in reports),
        covariance=reports[0].covariance,
        iterations=sum(r.iterations for r in reports),
        converged=all(r.converged for r in reports),
        log_likelihood=sum(r.n * r.log_likelihood for r in reports) / n,
        heldout_log_likelihood=sum(m * value for m, value in unseen) / held if held else None,
        seconds=sum(r.seconds for r in reports),
        seed=reports[0].seed,
        df=None if reports[0].df is None else tuple(value for r in reports for value in r.df or ()),
    )
