"""The network of a `TarFlow`: causal blocks over the patches of an image, and its inverse a patch at a time.

Blocks go over the patches of an image in alternating order. The inverse takes one patch a step and keeps the keys and
values of the patches before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from headstart import ops
from headstart.fitting.flow import FlowNetwork

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


class TarFlowLayer(nn.Module):
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


class TarFlowBlock(nn.Module):
    """`z_t = (x_t - mu_t) exp(-alpha_t)`, `(mu_t, alpha_t)` read from `x_1 .. x_{t-1}` and the class.

    A learned start token stands before the first patch, so that it is transformed as well.
    """

    def __init__(self, size: Architecture, reverse: bool) -> None:
        super().__init__()
        self.reverse, self.classes = reverse, size.classes
        self.patch = nn.Linear(size.width, size.channels)
        self.position = nn.Parameter(0.02 * torch.randn(size.tokens, size.channels, dtype=torch.float32, device="cpu"))
        self.label = nn.Embedding(size.classes + 1, size.channels)
        made = nn.ModuleList(TarFlowLayer(size.channels) for _ in range(size.layers))
        self.layers: Sequence[TarFlowLayer] = made  # type: ignore[assignment]
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


class TarFlowNetwork(FlowNetwork):
    """`z = f(x, label)` for standardized points `[B, D]`: patches through the blocks, in alternating order.

    Reference: "Normalizing Flows are Capable Generative Models" (Zhai et al., 2024, https://arxiv.org/abs/2412.06329).
    """

    def __init__(self, size: Architecture) -> None:
        super().__init__()
        self.size, self.classes = size, size.classes
        made = nn.ModuleList(TarFlowBlock(size, reverse=index % 2 == 1) for index in range(size.blocks))
        self.blocks: Sequence[TarFlowBlock] = made  # type: ignore[assignment]
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
        return torch.full((len(like),), self.classes, device=like.device, dtype=torch.int64) if label is None else label

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
        ValueError: sizes that do not fit each other.
    """
    check_architecture(size)
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(seed)
        return TarFlowNetwork(size).float()


WARM = 3  # steps before a capture, for libraries that set themselves up in their first calls


class Decoder:
    """`x_t = z_t exp(alpha_t) + mu_t` of one block, one patch a step.

    All that a step reads and writes are tensors of fixed size and place (the position too), so that a CUDA graph of one
    step serves every patch. With guidance `w` a second half of the batch runs with the null label and, as in the paper,
    `mu = mu_c + w (mu_c - mu_0)` and `alpha = alpha_c + w (alpha_c - alpha_0)`, both halves fed the guided patches.

    Args:
        block: the block.
        z: its latents `[B, T, width]`, in its order.
        label: classes `[B]`.
        guidance: `w`; 0 is none.
    """

    def __init__(self, block: TarFlowBlock, z: Tensor, label: Tensor, guidance: float) -> None:
        self.block, self.z, self.guidance = block, z, guidance
        batch, tokens, _ = z.shape
        self.label = torch.cat([label, torch.full_like(label, block.classes)]) if guidance else label
        self.class_embedding = block.label(self.label)
        self.copies = 2 if guidance else 1
        heads, channels = block.layers[0].heads, block.position.shape[1]
        size = (len(block.layers), self.copies * batch, heads, tokens, channels // heads)
        self.keys, self.values = z.new_zeros(size), z.new_zeros(size)
        self.places = torch.arange(tokens, device=z.device, dtype=torch.int64)
        self.position = torch.zeros(1, dtype=torch.int64, device=z.device)
        self.entry = z.new_empty(self.copies * batch, channels)
        self.x = torch.empty_like(z)
        self.reset()

    def reset(self) -> None:
        """Back to the first patch."""
        self.position.zero_()
        self.entry.copy_(self.block.position[0] + self.class_embedding)

    def step(self) -> None:
        """Inverts the patch at `position`, and goes on to the next."""
        seen = (self.places <= self.position)[None, None, None]
        h = self.entry[:, None]
        for layer, keys, values in zip(self.block.layers, self.keys, self.values, strict=True):
            q, k, v = layer.project(h)
            keys.index_copy_(2, self.position, k)
            values.index_copy_(2, self.position, v)
            h = layer.finish(h, functional.scaled_dot_product_attention(q, keys, values, attn_mask=seen))
        mu, alpha = self.guide(*self.block.affine(h))
        x = self.z.index_select(1, self.position) * alpha.exp() + mu
        self.x.index_copy_(1, self.position, x)
        self.position.add_(1)
        at = self.block.position.index_select(0, self.position.clamp_max(len(self.places) - 1))
        self.entry.copy_(self.block.patch(x[:, 0]).repeat(self.copies, 1) + at + self.class_embedding)

    def guide(self, mu: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
        if not self.guidance:
            return mu, alpha
        (mu, mu_null), (alpha, alpha_null) = mu.chunk(2), alpha.chunk(2)
        return mu + self.guidance * (mu - mu_null), alpha + self.guidance * (alpha - alpha_null)


def invert(network: TarFlowNetwork, z: Tensor, label: Tensor | None, guidance: float = 0.0) -> Tensor:
    """Points `[B, D]` of latents `z` `[B, D]`, without gradients; on a GPU a step is a captured graph.

    The arithmetic is that of `network`, in another order: `x -> z -> x` returns to float32 rounding, which exponents
    amplify along the sequence.
    """
    with torch.no_grad():
        x, label = network.patches(z), network.known(label, z)
        for block in reversed(network.blocks):
            decoder = Decoder(block, block.turn(x).contiguous(), label, guidance)
            step = decoder.step if eager_reason(z) is not None else capture(decoder)
            for _ in range(x.shape[1]):
                step()
            x = block.turn(decoder.x)
        return network.points(x)


def eager_reason(z: Tensor) -> str | None:
    """Why steps on `z` are not captured in a CUDA graph, or None where they are."""
    if not z.is_cuda:
        return f"graphs are for CUDA, the latents are on {z.device.type}"
    if len(z) == 0:
        return "there is nothing to do"
    if torch.cuda.is_current_stream_capturing():
        return "a graph is being captured already: the steps become part of it"
    return None


def capture(decoder: Decoder) -> Callable[[], None]:
    """A replayable CUDA graph of the decoder's step, the decoder at its first patch."""
    with torch.cuda.device(decoder.z.device):
        here, aside = torch.cuda.current_stream(), torch.cuda.Stream()
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            for _ in range(min(WARM, decoder.z.shape[1])):
                decoder.step()
        here.wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            decoder.step()
        decoder.reset()
    return graph.replay
