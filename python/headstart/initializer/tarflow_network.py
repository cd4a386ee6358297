"""The network of a `TarFlow`: blocks of causal transformer layers, each an affine autoregressive map of patches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from headstart import ops
from headstart.fitting.network import FlowNetwork
from headstart.initializer.tarflow_inverse import invert

HEAD = 64  # channels of an attention head


class Architecture(NamedTuple):
    """Sizes of the network: samples `shape` [C, H, W] in square patches, `blocks` blocks of `layers` layers."""

    shape: tuple[int, int, int]
    patch: int
    channels: int
    blocks: int
    layers: int
    classes: int

    @property
    def tokens(self) -> int:
        return self.shape[1] * self.shape[2] // self.patch**2

    @property
    def width(self) -> int:
        """Values in a patch."""
        return self.shape[0] * self.patch**2


class Layer(nn.Module):
    """`h + attention(norm(h))`, then `h + mlp(norm(h))`, every token seeing itself and those before it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = max(1, channels // HEAD)
        self.norm0, self.norm1 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))

    def project(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each `[B, heads, T, channels / heads]`."""
        q, k, v = self.qkv(self.norm0(h)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v

    def finish(self, h: Tensor, attended: Tensor) -> Tensor:
        h = h + self.out(attended.transpose(1, 2).flatten(2))
        return h + self.mlp(self.norm1(h))

    def forward(self, h: Tensor) -> Tensor:
        q, k, v = self.project(h)
        return self.finish(h, functional.scaled_dot_product_attention(q, k, v, is_causal=True))


class Block(nn.Module):
    """`z_t = (x_t - mu_t) exp(-alpha_t)`, `(mu_t, alpha_t)` read from `x_1 .. x_{t-1}` and the class.

    A learned start token stands before the first patch, so that it is transformed as well.
    """

    def __init__(self, size: Architecture, reverse: bool) -> None:
        super().__init__()
        self.reverse, self.classes = reverse, size.classes
        self.patch = nn.Linear(size.width, size.channels)
        self.position = nn.Parameter(0.02 * torch.randn(size.tokens, size.channels))
        self.label = nn.Embedding(size.classes + 1, size.channels)
        made = nn.ModuleList(Layer(size.channels) for _ in range(size.layers))
        self.layers: Sequence[Layer] = made  # type: ignore[assignment]
        self.norm = nn.LayerNorm(size.channels)
        self.head = nn.Linear(size.channels, 2 * size.width)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def turn(self, x: Tensor) -> Tensor:
        """Patches in this block's order, and back."""
        return x.flip(1) if self.reverse else x

    def affine(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """`mu` and `alpha` `[B, T, width]`, at the weights' precision even under autocast: exponents need it."""
        with torch.autocast(h.device.type, enabled=False):
            mu, alpha = self.head(self.norm(h.to(self.head.weight.dtype))).chunk(2, dim=2)
        return mu, alpha

    def parameters_of(self, x: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """`mu` and `alpha` of every patch of `x` `[B, T, width]`, patches in this block's order."""
        entry = functional.pad(self.patch(x[:, :-1]), (0, 0, 1, 0))
        h = entry + self.position + self.label(label)[:, None]
        for layer in self.layers:
            h = layer(h)
        return self.affine(h)

    def forward(self, x: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """`z` and `log |det dz/dx|` `[B]`."""
        x = self.turn(x)
        mu, alpha = self.parameters_of(x, label)
        return self.turn((x - mu) * (-alpha).exp()), -alpha.sum((1, 2))


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


def check_architecture(size: Architecture) -> None:
    """Images in whole patches, whole heads, and numbers above 0."""
    for name in ("patch", "channels", "blocks", "layers"):
        value = getattr(size, name)
        if not isinstance(value, int) or not 1 <= value <= 2**16:
            raise ValueError(f"TarFlow: {name} must be an integer of at least 1, got {value!r}")
    shape = size.shape
    if len(shape) != 3 or shape[1] % size.patch or shape[2] % size.patch:
        raise ValueError(f"TarFlow: samples must be [C, H, W] with sides divisible by {size.patch}, got {list(shape)}")
    if size.channels > HEAD and size.channels % HEAD:
        raise ValueError(f"TarFlow: channels must be a multiple of {HEAD} above it, got {size.channels}")
