"""Scores of samples against held-out images, as seen: rounded to 8 bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headstart.compare.case import Case
from headstart.io.bound import DataError
from headstart.io.output import write
from headstart.io.tensor_file import read_tensors
from headstart.metrics import (
    GradientFeatures,
    Lite0Features,
    frechet_distance,
    max_sliced_wasserstein,
    sliced_wasserstein,
    statistics,
)
from headstart.metrics.frechet import Statistics, pair_sums
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


class Distances:
    """Sliced Wasserstein and Frechet distance `(SWD, FD)` of images to held-out ones, both as seen: clipped to [-1, 1].

    Args:
        train: images that the feature map, gradients, is fitted on, and whose groups show the floor.
        test: held-out images.
    """

    def __init__(self, train: Tensor, test: Tensor) -> None:
        self.features = GradientFeatures.fit(train)
        self.train, self.test = train, test
        self.reference = statistics(test, self.features)

    def __call__(self, x: Tensor) -> tuple[float, float]:
        x = x.detach().float().cpu().clamp(-1, 1)
        return sliced_wasserstein(x, self.test), frechet_distance(statistics(x, self.features), self.reference)

    def floor(self, n: int) -> tuple[float, float]:
        """Mean score of disjoint groups of `n` training images (at most all): what a perfect sampler would show."""
        scores = [self(group) for group in self.train.split(n) if len(group) == n]
        swd, fd = torch.tensor(scores, dtype=torch.float64).mean(0).tolist()
        return swd, fd


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
        assert case.validation is not None
        assert case.test is not None
        self.features, self.classifier, self.cache = features, classifier, cache
        self.train, self.held = case.train, case.test.images
        self.known = case.train.images.flatten(1).double()
        self.test = self.kept("test", self.held).double()
        self.reference = Anchor(statistics(self.test))
        self.validation = Anchor(statistics(self.kept("validation", case.validation.images)))
        self.within = float(pair_sums(self.test, self.test)[0].sum()) / (len(self.test) * (len(self.test) - 1))
        unseen = case.validation.images[:MOST_NEAR].flatten(1).double()
        self.far = nearest(unseen, self.known, 1).distance[:, 0]

    def kept(self, name: str, images: Tensor) -> Tensor:
        """Features of held-out images, read back where an earlier run left them.

        Raises:
            DataError: a file that is damaged, or of other images.
        """
        if self.cache is None:
            return self.embed(images)
        path = self.cache / f"{name}.pt"
        if not path.exists():
            features = self.embed(images)
            write(path, lambda temporary: torch.save(features, temporary))
        features = read_tensors(path)
        if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(images):
            raise DataError(f"{path}: must hold features of {len(images)} images; delete it, and they are made again")
        return features

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
        test, every = self.held, torch.ones(len(images), dtype=torch.int64)
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
        images, labels = self.train.images, self.train.labels
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


class Anchor:
    """The set that distances are measured to: its mean, and the root of its covariance, worked out once.

    Args:
        reference: statistics of its features.
    """

    def __init__(self, reference: Statistics) -> None:
        value, vectors = torch.linalg.eigh(reference.covariance)
        self.mean, self.trace = reference.mean, reference.covariance.trace()
        self.root = vectors * value.clamp_min(0).sqrt() @ vectors.T

    def distances(self, features: Tensor, counts: list[Tensor]) -> list[float]:
        """Frechet distance of the rows of `features` `[n, F]`, each as often as a count `[n]` says, for every count.

        `tr sqrt(R^{1/2} C R^{1/2})` is the sum of the singular values of the centred rows times `R^{1/2}` over
        `sqrt(n - 1)`: of a matrix with as many rows as distinct samples.
        """
        x = features.double() - self.mean
        y = x @ self.root
        return [self.distance(x, y, count) for count in counts]

    def distance(self, x: Tensor, y: Tensor, count: Tensor) -> float:
        rows, n = count.nonzero().squeeze(1), int(count.sum())
        weight = count[rows].double()
        mean, turned = weight @ x[rows] / n, weight @ y[rows] / n
        centred = weight.sqrt()[:, None] * (y[rows] - turned)
        gram = centred @ centred.T if len(rows) < centred.shape[1] else centred.T @ centred
        cross = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt().sum() / (n - 1) ** 0.5
        spread = (weight @ x[rows].square().sum(1) - n * mean.square().sum()) / (n - 1)
        return max(0.0, float(mean.square().sum() + spread + self.trace - 2 * cross))


def resamples(n: int, replicates: int, seed: int) -> list[Tensor]:
    """How often each of `n` samples is drawn, `[n]`, for every replicate."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(n, (n,), generator=generator).bincount(minlength=n) for _ in range(replicates)]
