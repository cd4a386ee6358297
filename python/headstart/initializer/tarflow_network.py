"""The network of a `TarFlow`: blocks over the patches of an image, in alternating order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from headstart import ops
from headstart.fitting.network import FlowNetwork
from headstart.initializer.tarflow_block import Architecture, Block, check_architecture
from headstart.initializer.tarflow_inverse import invert


class TarFlowNetwork(FlowNetwork):
    """`z = f(x, label)` for standardized points `[B, D]`: patches through the blocks, in alternating order.

    Reference: "Normalizing Flows are Capable Generative Models" (Zhai et al., 2024, https://arxiv.org/abs/2412.06329).
    """

    def __init__(self, size: Architecture) -> None:
        super().__init__()
        self.size, self.classes = size, size.classes
        made = nn.ModuleList(Block(size, reverse=index % 2 == 1) for index in range(size.blocks))
        self.blocks: Sequence[Block] = made  # type: ignore[assignment]
        self.row = 16 * size.tokens * size.channels + 2 * size.layers * size.tokens * size.channels

    def patches(self, x: Tensor) -> Tensor:
        """Points `[B, D]` as patches `[B, T, width]`."""
        images = x.reshape(len(x), *self.size.shape)
        return functional.pixel_unshuffle(images, self.size.patch).flatten(2).mT

    def points(self, patches: Tensor) -> Tensor:
        """Points `[B, D]` of patches `[B, T, width]`."""
        _, height, width = self.size.shape
        grid = (height // self.size.patch, width // self.size.patch)
        return functional.pixel_shuffle(patches.mT.unflatten(2, grid), self.size.patch).flatten(1)

    def known(self, label: Tensor | None, like: Tensor) -> Tensor:
        """Labels, the null label where there are none."""
        return torch.full((len(like),), self.classes, device=like.device) if label is None else label

    def forward(self, x: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`z` `[B, D]` and `log |det dz/dx|` `[B]`."""
        label = self.known(label, x)
        z, log_det = self.patches(x), x.new_zeros(len(x))
        for block in self.blocks:
            z, change = block(z, label)
            log_det = log_det + change
        return self.points(z), log_det

    def log_prob(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        z, log_det = self(x, label)
        return log_det - 0.5 * (z.square().sum(1) + z.shape[1] * torch.log(z.new_tensor(2 * torch.pi)))

    def inverse(self, z: Tensor, label: Tensor | None = None, guidance: float = 0.0) -> Tensor:
        return invert(self, z, label, guidance)

    def latents(self, n: int, seed: int, offset: int) -> Tensor:
        like, dim = self.blocks[0].position, self.size.tokens * self.size.width
        return ops.normal((n, dim), seed, 0, offset, stream=ops.Stream.START, dtype=like.dtype, device=like.device)

    def config(self) -> dict[str, Any]:
        return {name: getattr(self.size, name) for name in ("patch", "channels", "blocks", "layers")}


def make_tarflow_network(size: Architecture, seed: int) -> TarFlowNetwork:
    """The network with weights drawn from the seed, torch's own generator left as it was.

    Raises:
        ValueError: Sizes that do not fit each other.
    """
    check_architecture(size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TarFlowNetwork(size)
