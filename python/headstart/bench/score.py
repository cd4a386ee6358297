"""Scores of samples against held-out images, as seen: rounded to 8 bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headstart.bench.case import Case
from headstart.bench.resample import Anchor, resamples
from headstart.io.output import write
from headstart.metrics import (
    GradientFeatures,
    Lite0Features,
    max_sliced_wasserstein,
    sliced_wasserstein,
    statistics,
)
from headstart.metrics.frechet import pair_sums
from headstart.metrics.neighbour import LEVEL, nearest

REPLICATES = 40
ASCENT = 15  # steps of the max-sliced distance
MOST_NEAR = 1000  # samples and held-out images whose nearest neighbours are looked for
FLOORS = 4


def find_features(name: str, size: int, train: Tensor, device: str) -> Callable[[Tensor], Tensor]:
    """The feature map called `name`: "lite0", or "gradient", which needs no extra.

    Raises:
        ValueError: an unknown name.
        ImportError: the extra `headstart[metrics]` is not installed.
    """
    if name == "gradient":
        return GradientFeatures.fit(train)
    if name != "lite0":
        raise ValueError(f"bench: features must be lite0 or gradient, got {name!r}")
    return Lite0Features(size, device)


class Score:
    """Every score of a set of samples.

    Args:
        case: whose validation and test images to compare with.
        features: for Frechet and kernel distance.
        classifier: logits of images, or None.
        cache: folder where the features of the held-out images are kept, or None.
    """

    def __init__(
        self, case: Case, features: Callable[[Tensor], Tensor], classifier: Callable[[Tensor], Tensor] | None,
        cache: Path | None = None,
    ) -> None:  # fmt: skip
        self.case, self.features, self.classifier, self.cache = case, features, classifier, cache
        self.known = case.train.images.flatten(1).double()
        self.test = self.kept("test", case.test.images).double()
        self.reference = Anchor(statistics(self.test))
        self.validation = Anchor(statistics(self.kept("validation", case.validation.images)))
        self.within = float(pair_sums(self.test, self.test)[0].sum()) / (len(self.test) * (len(self.test) - 1))
        unseen = case.validation.images[:MOST_NEAR].flatten(1).double()
        self.far = nearest(unseen, self.known, 1).distance[:, 0]

    def kept(self, name: str, images: Tensor) -> Tensor:
        """Features of held-out images, read back where an earlier run left them."""
        if self.cache is None:
            return self.embed(images)
        path = self.cache / f"{name}.pt"
        if not path.exists():
            features = self.embed(images)
            write(path, lambda temporary: torch.save(features, temporary))
        return torch.load(path, weights_only=True)

    def embed(self, images: Tensor) -> Tensor:
        """Features `[N, F]`, on the CPU."""
        with torch.no_grad():
            return torch.cat([self.features(part).float().cpu() for part in images.split(250)])

    def kernel_distance(self, features: Tensor) -> float:
        """`metrics.kernel_distance` to the test images, whose own term is worked out once."""
        x, n, m = features.double(), len(features), len(self.test)
        own, cross = pair_sums(x, x)[0].sum() / (n * (n - 1)), pair_sums(x, self.test)[0].sum() / (n * m)
        return float(own) + self.within - 2 * float(cross)

    def __call__(
        self, images: Tensor, labels: Tensor | None, features: Tensor, seed: int, replicates: int = REPLICATES
    ) -> dict[str, Any]:
        """Scores of `images` `[N, *shape]` in [-1, 1], with their `features` and the classes that were asked for.

        `fd`, `kid`, `swd`, `max_swd` are against the test images, `fd_validation` against the validation images,
        `neighbour` and `copies` as in `metrics.memorization`, against the training images.
        """
        test, every = self.case.test.images, torch.ones(len(images), dtype=torch.int64)
        fd, *others = self.reference.distances(features, [every, *resamples(len(images), replicates, seed)])
        near = nearest(images[:MOST_NEAR].flatten(1).double(), self.known, 1).distance[:, 0]
        scores: dict[str, Any] = {
            "fd": fd,
            "fd_validation": self.validation.distances(features, [every])[0],
            "kid": self.kernel_distance(features),
            "swd": sliced_wasserstein(images, test),
            "max_swd": max_sliced_wasserstein(images, test, steps=ASCENT).distance,
            "neighbour": float(near.median() / self.far.median()),
            "copies": float((near < self.far.quantile(LEVEL)).double().mean()),
            "fd_replicates": others,
        }
        if labels is not None and self.classifier is not None:
            right = (self.classifier(images).argmax(1).cpu() == labels.cpu()).double()
            scores["agreement"] = float(right.mean())
            scores["agreement_by_class"] = [float(right[labels.cpu() == c].mean()) for c in labels.unique().tolist()]
        return scores

    def floor(self, n: int) -> dict[str, Any]:
        """Mean scores of disjoint groups of `n` training images: what a perfect sampler of that law would show."""
        images, labels = self.case.train.images, self.case.train.labels
        groups = [g for g in torch.arange(len(images)).split(min(n, len(images))) if len(g) == min(n, len(images))]
        rows = []
        for group in groups[:FLOORS]:
            part = images[group]
            asked = None if labels is None else labels[group]
            rows.append(self(part, asked, self.embed(part), 0, replicates=0))
        names = [
            name for name, value in rows[0].items() if isinstance(value, float) and name not in ("neighbour", "copies")
        ]
        return {"n": min(n, len(images)), "groups": len(rows)} | {k: sum(r[k] for r in rows) / len(rows) for k in names}
