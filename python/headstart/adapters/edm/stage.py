"""The stages of a U-Net in the order they run, under the names that EDM and EDM2 give them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Stage(NamedTuple):
    """One stage.

    Fields:
        name: `{r}x{r}_{part}`, with r the side of its output.
        part: "conv", "down", "block", "in" or "up".
        level: of resolution, 0 the finest.
        channels, out_channels: of its input and output; a decoder's "block" also takes the encoder's newest output.
        attends: r is one of the attending resolutions.
        last: the last stage of its level.
    """

    name: str
    part: str
    level: int
    channels: int
    out_channels: int
    attends: bool
    last: bool


def encoder(
    resolution: int, channels: int, stem: int, widths: Sequence[int], depth: int, attending: Sequence[int]
) -> list[Stage]:
    """From `channels` at `resolution`: a convolution to `stem`, then `depth` blocks a level, halving between levels.

    Args:
        resolution: side of the input.
        channels: of the input.
        stem: channels after the first convolution.
        widths: channels of every level, finest first.
        depth: blocks a level.
        attending: resolutions whose blocks attend.
    """
    stages, current = [], channels
    for level, width in enumerate(widths):
        side = resolution >> level
        part, out = ("down", current) if level else ("conv", stem)
        stages.append(Stage(f"{side}x{side}_{part}", part, level, current, out, False, depth == 0))
        current = out
        for i in range(depth):
            attends, last = side in attending, i == depth - 1
            stages.append(Stage(f"{side}x{side}_block{i}", "block", level, current, width, attends, last))
            current = width
    return stages


def decoder(
    resolution: int, skips: Sequence[int], widths: Sequence[int], depth: int, attending: Sequence[int]
) -> list[Stage]:
    """Back up: two stages at the coarsest level, an "up" at the others, then `depth + 1` blocks that take a skip each.

    `skips`: output channels of the encoder's stages; the others as in `encoder`.
    """
    stages, waiting = [], list(skips)
    current = waiting[-1]
    for level in reversed(range(len(widths))):
        side = resolution >> level
        parts = [("up", "up")] if level < len(widths) - 1 else [("in0", "in"), ("in1", "in")]
        for suffix, part in parts:
            stages.append(Stage(f"{side}x{side}_{suffix}", part, level, current, current, suffix == "in0", False))
        for i in range(depth + 1):
            taken, attends, last = current + waiting.pop(), side in attending, i == depth
            stages.append(Stage(f"{side}x{side}_block{i}", "block", level, taken, widths[level], attends, last))
            current = widths[level]
    return stages
