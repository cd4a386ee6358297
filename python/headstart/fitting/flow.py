"""Training by maximum likelihood on noised data: the loop once, for every flow."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from headstart import ops
from headstart.fitting.checkpoint import Checkpoint, digest
from headstart.fitting.flow_report import FlowReport
from headstart.fitting.network import FlowNetwork
from headstart.fitting.noise import add_noise
from headstart.fitting.run import Run
from headstart.fitting.training import Training


class Points(NamedTuple):
    """Points `[N, D]` and their labels `[N]` or None."""

    x: Tensor
    labels: Tensor | None

    def take(self, rows: Tensor | slice) -> Points:
        return Points(self.x[rows], None if self.labels is None else self.labels[rows])


def fit_flow(
    network: FlowNetwork, points: Points, sigma: float, training: Training, tick: Callable[[float], None],
    title: str = "",
) -> FlowReport:  # fmt: skip
    """Maximizes `E log p(x_0 + sigma n)` over the network's weights; at the end it holds the best ones.

    Everything random is addressed by (seed, epoch, place in the epoch), so that a run resumed from its checkpoint (the
    last whole epoch) takes the same steps as one that was never stopped: the same bits on the CPU. The
    checkpoint is written each half minute, at the end, and on Ctrl-C or any other failure.

    Args:
        network: On the device of the points.
        points: Clean points and labels.
        sigma: Noise level, in their units.
        training: How to train.
        tick: Called after each epoch with the held-out log-likelihood (the training one where none is held out).
        title: The network's architecture, as text: a checkpoint of another one is refused.

    Raises:
        ValueError: The likelihood stops being finite, or the checkpoint is damaged or another run's.
    """
    kept, heldout = split(points, sigma, training)
    identity = {**training.identity(), "network": title, "sigma": sigma, "shape": list(points.x.shape)}
    identity |= {"data": digest(points.x), "labels": digest(points.labels)} if training.checkpoint is not None else {}
    checkpoint, run = Checkpoint(training.checkpoint, identity), Run(network, training)
    state = checkpoint.read(points.x.device)
    if state is not None:
        run.restore(state)
    began = time.perf_counter() - run.log["seconds"]
    try:
        while run.log["epoch"] < training.epochs and not run.stalled():
            train = learn(run, kept, sigma)
            found = evaluate(run, heldout) if len(heldout.x) else None
            run.note(train, found)
            run.log["seconds"] = time.perf_counter() - began
            checkpoint.keep(run.state())
            tick(train if found is None else found)
    finally:
        checkpoint.write()
    run.load(run.best)
    return run.report(len(kept.x), len(heldout.x))


def split(points: Points, sigma: float, training: Training) -> tuple[Points, Points]:
    """The points trained on, as the noising regime keeps them, and noised points that are held out."""
    count = len(points.x)
    held = round(training.heldout * count)
    if count - held < 1:
        raise ValueError(f"fit: data must have a point that is not held out, got {count} points, {held} held out")
    order = shuffle(count, training.seed, 0, points.x.device)
    kept, heldout = points.take(order[held:]), points.take(order[:held])
    once = training.noise.once(kept.x, sigma, training.seed)
    noised = add_noise(heldout.x, sigma, training.seed, 0, len(kept.x))
    return kept._replace(x=once), heldout._replace(x=noised)


def shuffle(count: int, seed: int, epoch: int, device: torch.device) -> Tensor:
    """A permutation of `count` rows, a function of seed and epoch."""
    return ops.uniform(count, seed, epoch, stream=ops.Stream.ORDER, device=device).argsort()


def learn(run: Run, points: Points, sigma: float) -> float:
    """One epoch; the mean log-likelihood of a point on the way."""
    training, epoch = run.training, run.log["epoch"] + 1
    count, dim = points.x.shape
    total = points.x.new_zeros((), dtype=torch.float64)
    run.network.train()
    low = torch.autocast(points.x.device.type, torch.bfloat16, enabled=training.bfloat16 and points.x.is_cuda)
    first = 0
    for rows in shuffle(count, training.seed, epoch, points.x.device).split(training.batch):
        batch = points.take(rows)
        x = training.noise.each(batch.x, sigma, training.seed, epoch, first)
        with low:
            log_prob = run.network.log_prob(x, drop(batch.labels, run, epoch, first))
        run.update(-log_prob.mean() / dim)
        total += log_prob.detach().sum(dtype=torch.float64)
        first += len(rows)
    return float(total) / count


def drop(labels: Tensor | None, run: Run, epoch: int, first: int) -> Tensor | None:
    """Labels, some of them replaced by the null label, which is the number of classes."""
    training = run.training
    if labels is None or training.drop == 0:
        return labels
    u = ops.uniform(len(labels), training.seed, epoch, first, stream=ops.Stream.DROP, device=labels.device)
    return torch.where(u <= training.drop, run.network.classes, labels)


@torch.no_grad()
def evaluate(run: Run, points: Points) -> float:
    """Mean log-likelihood of a point, under the averaged weights where there are any."""
    current = {name: value.clone() for name, value in run.weights().items()} if run.training.average else None
    if current is not None:
        run.load(run.average)
    run.network.eval()
    total, batch = 0.0, run.training.batch
    for first in range(0, len(points.x), batch):
        some = points.take(slice(first, first + batch))
        total += float(run.network.log_prob(some.x, some.labels).sum(dtype=torch.float64))
    if current is not None:
        run.load(current)
    return total / len(points.x)
