"""A case small enough for tests: blurred blobs, the exact denoiser of the mixture fitted to them, gradient features."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.nn import functional

from headstart.compare.case import Case, split
from headstart.compare.quality import Quality
from headstart.compare.score import Score, find_features
from headstart.compare.store import Result
from headstart.io import Dataset

SIGMA = 2.0


def blobs(n: int, seed: int) -> Dataset:
    """Images `[n, 1, 8, 8]` of two classes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2
    coarse = torch.rand(n, 1, 3, 3, generator=generator) - 0.5 + (labels[:, None, None, None] - 0.5)
    return Dataset(functional.interpolate(coarse, size=8, mode="bilinear").clamp(-1, 1), labels)


def tiny_case() -> Case:
    case = Case(None, blobs(160, 0), *split(blobs(240, 1)), sigma=SIGMA)

    def denoise(x: torch.Tensor, sigma: torch.Tensor, label: torch.Tensor | None = None) -> torch.Tensor:
        return case.mixture.denoise(x, float(sigma), label)

    case.denoiser = denoise
    return case


def tiny_quality(folder: Path, n: int = 40) -> Quality:
    case = tiny_case()
    score = Score(case, find_features("gradient", 0, case.train.images, "cpu"), None)
    settings = {"denoiser": "blobs", "features": "gradient", "feature_size": None, "n": n}
    return Quality(case, score, Result(folder / "quality.json", "quality", settings), n, SIGMA)
