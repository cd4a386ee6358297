"""k-means++ seeding and a few Lloyd iterations: where EM begins."""

from __future__ import annotations

import torch
from torch import Tensor

from headstart.ops.library import multiplied


def seed_centres(x: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Centres drawn from the points, each with probability proportional to its squared distance to those before.

    Args:
        x: points `[n, D]`.
        count: centres wanted; fewer come back when `x` has fewer distinct points.
        generator: source of the draws (on the CPU).

    Reference: "k-means++: The Advantages of Careful Seeding" (Arthur, Vassilvitskii, 2007,
    https://dl.acm.org/doi/10.5555/1283383.1283494).
    """
    chosen = [int(torch.randint(len(x), (1,), generator=generator, device="cpu", dtype=torch.int64))]
    nearest = squared_distance_to(x, x[chosen[0]])
    while len(chosen) < count and float(nearest.max()) > 0:
        share = (nearest / nearest.sum()).cpu()
        chosen.append(int(torch.multinomial(share, 1, generator=generator)))
        nearest = torch.minimum(nearest, squared_distance_to(x, x[chosen[-1]]))
    return x[chosen]


def squared_distance_to(x: Tensor, point: Tensor) -> Tensor:
    """Squared distances `[n]`, float64; exactly 0 for a duplicate, which the expanded square would not give."""
    return (x - point).square().sum(1, dtype=torch.float64)


def lloyd(x: Tensor, centres: Tensor, iterations: int = 10) -> Tensor:
    """Index `[n]` of each point's centre after Lloyd iterations; an empty centre moves to the farthest point."""
    origin = x.mean(0)  # the expanded square below is safe near the origin only
    centred, centres = x - origin, centres - origin
    assignment, distance = assign(centred, centres)
    for _ in range(iterations):
        onehot = torch.nn.functional.one_hot(assignment, len(centres)).to(x.dtype)
        count = onehot.sum(0)
        centres = multiplied(onehot.mT, centred) / count.clamp_min(1)[:, None]
        empty = (count == 0).nonzero()[:, 0]
        centres[empty] = centred[distance.topk(len(empty)).indices]
        last, (assignment, distance) = assignment, assign(centred, centres)
        if torch.equal(last, assignment):
            break
    return assignment


def assign(x: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Nearest centre of each point and the squared distance to it."""
    distance = centres.square().sum(1) - 2 * multiplied(x, centres.mT)
    nearest = distance.min(dim=1)
    return nearest.indices, nearest.values + x.square().sum(1)
