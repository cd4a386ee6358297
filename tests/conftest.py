"""Shared marks and laws with known answers."""

from __future__ import annotations

import pytest
import torch

from headstart import _core, ops


def pytest_collection_modifyitems(items: list[pytest.Item], config: pytest.Config) -> None:
    if torch.cuda.is_available():
        return
    reason = pytest.mark.skip(reason="no GPU on this machine")
    for item in items:
        if "cuda" in item.keywords:
            item.add_marker(reason)


def reason_without_cuda() -> str | None:
    """Why tests on a GPU cannot run here, or None."""
    if not torch.cuda.is_available():
        return "needs a GPU that torch sees"
    return None if _core.build_info()["cuda"] else "headstart was built without CUDA"


def random_components(kind: str, k: int, d: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> ops.Components:
    """Components of every layout: "diagonal", "isotropic", "full", or a rank such as "rank3"."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64) + 0.2

    mean = 2 * torch.randn(k, d, generator=generator, dtype=torch.float64)
    if kind == "diagonal":
        fields: tuple[torch.Tensor | None, ...] = (mean, uniform(k, d), None, None)
    elif kind == "isotropic":
        fields = (mean, uniform(k, 1), None, None)
    else:
        rank = d if kind == "full" else min(int(kind.removeprefix("rank")), d)
        frame = torch.linalg.qr(torch.randn(k, d, d, generator=generator, dtype=torch.float64)).Q
        fields = (mean, uniform(k, 1), frame[:, :rank].contiguous(), 3 * uniform(k, rank))
    return ops.Components(*(None if t is None else t.to(dtype) for t in fields))


class GaussianLaw:
    """`N(mean, diag(variance))`: its denoiser, its probability flow and its noised moments in closed form."""

    def __init__(self) -> None:
        self.mean = torch.tensor([0.5, -1.0], dtype=torch.float64)
        self.variance = torch.tensor([0.09, 2.25], dtype=torch.float64)

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return self.mean + self.variance / (self.variance + sigma**2) * (x - self.mean)

    def flow(self, x: torch.Tensor, sigma: float, sigma_next: float) -> torch.Tensor:
        """Exact solution of the probability-flow ODE."""
        return self.mean + ((self.variance + sigma_next**2) / (self.variance + sigma**2)).sqrt() * (x - self.mean)


class MixtureLaw:
    """Two Gaussians on a line, with the exact denoiser."""

    mean = torch.tensor([-1.0, 2.0], dtype=torch.float64)
    variance = torch.tensor([0.25, 0.64], dtype=torch.float64)
    weight = torch.tensor([0.4, 0.6], dtype=torch.float64)

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        total = self.variance + sigma**2
        joint = self.weight.log() - 0.5 * ((x - self.mean) ** 2 / total + total.log())
        conditional = self.mean + self.variance / total * (x - self.mean)
        return (joint.softmax(dim=1) * conditional).sum(dim=1, keepdim=True)


@pytest.fixture
def gaussian() -> GaussianLaw:
    return GaussianLaw()


@pytest.fixture
def mixture_law() -> MixtureLaw:
    return MixtureLaw()
