"""Training by maximum likelihood on noised data: one loop for every flow, which can be stopped and resumed."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from headstart import ops
from headstart.fitting.report import FlowReport
from headstart.fitting.training import Checkpoint, Training, add_noise, digest
from headstart.io.workspace import terminable


class FlowNetwork(nn.Module, ABC):
    """An invertible map `z = f(x, label)` of standardized points `[B, D]`, and the law of `z`.

    Attributes:
        classes: number of classes; the label of that number is the null label. 0: no labels.
        row: numbers that one point takes on its way, roughly: batches follow it.
    """

    classes: int
    row: int

    @abstractmethod
    def log_prob(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        """Log-density in nats of `x` `[B, D]` given classes `[B]`, as `[B]`."""

    @abstractmethod
    def inverse(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """`x` `[B, D]` with `f(x, label) = z`."""

    @abstractmethod
    def latents(self, n: int, seed: int, offset: int) -> Tensor:
        """Draws `offset .. offset + n - 1` of the law of `z`, `[n, D]`, addressed."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """The architecture as JSON values."""


CLIP = 1.0  # largest norm of the gradient of the loss, which is in nats per dimension


class TrainingRun:
    """Weights, their average, optimizer and history of a training run."""

    def __init__(self, network: FlowNetwork, training: Training) -> None:
        self.network, self.training = network, training
        self.optimizer = torch.optim.AdamW(network.parameters(), training.learning_rate, weight_decay=training.decay)
        self.average = {name: value.clone() for name, value in self.weights().items()}
        self.best = {name: value.clone() for name, value in self.average.items()}
        self.log: dict[str, Any] = {"epoch": 0, "best": 0, "seconds": 0.0, "train": [], "heldout": []}

    def weights(self) -> dict[str, Tensor]:
        return {name: value.detach() for name, value in self.network.named_parameters()}

    def state(self) -> dict[str, Any]:
        held = {"average": self.average, "best": self.best, "log": self.log}
        return {"network": self.weights(), "optimizer": self.optimizer.state_dict(), **held}

    def restore(self, state: dict[str, Any]) -> None:
        self.load(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average, self.best, self.log = state["average"], state["best"], state["log"]

    @torch.no_grad()
    def load(self, weights: dict[str, Tensor]) -> None:
        for name, parameter in self.network.named_parameters():
            parameter.copy_(weights[name])

    def update(self, loss: Tensor) -> None:
        """One step of the optimizer, and of the average."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), CLIP)
        self.optimizer.step()
        for name, value in self.weights().items() if self.training.average else ():
            self.average[name].lerp_(value, 1 - self.training.average)

    def stalled(self) -> bool:
        """Whether the held-out likelihood has not risen for `patience` epochs."""
        patience = self.training.patience
        return patience is not None and bool(self.log["heldout"]) and self.log["epoch"] - self.log["best"] >= patience

    def note(self, train: float, heldout: float | None) -> None:
        """Adds an epoch; the best weights so far are kept."""
        if not math.isfinite(train) or (heldout is not None and not math.isfinite(heldout)):
            raise ValueError("fit: the likelihood is not finite; lower learning_rate, or look for outliers in the data")
        log = self.log
        log["epoch"] += 1
        log["train"].append(train)
        better = heldout is None or heldout > max(log["heldout"], default=-math.inf)
        if heldout is not None:
            log["heldout"].append(heldout)
        if better:
            log["best"] = log["epoch"]
            weights = self.average if self.training.average else self.weights()
            self.best = {name: value.clone() for name, value in weights.items()}

    def report(self, kept: int, heldout: int) -> FlowReport:
        """The report of the run, given the numbers of points trained on and held out."""
        log, found = self.log, self.log["heldout"]
        return FlowReport(
            n=kept,
            heldout=heldout,
            noise=repr(self.training.noise),
            epochs=log["epoch"],
            best=log["best"],
            stopped=self.stalled(),
            log_likelihood=log["train"][log["best"] - 1],
            heldout_log_likelihood=found[log["best"] - 1] if found else None,
            seconds=log["seconds"],
            seed=self.training.seed,
            history=tuple(found or log["train"]),
        )


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
    checkpoint is written each half minute, at the end, and on Ctrl-C, SIGTERM or any other failure; a disk that is full
    costs the checkpoint, with a warning, and not the run.

    Args:
        network: on the device of the points.
        points: clean points and labels.
        sigma: noise level, in their units.
        training: how to train.
        tick: called after each epoch with the held-out log-likelihood (the training one where none is held out).
        title: the network's architecture, as text: a checkpoint of another one is refused.

    Raises:
        ValueError: the likelihood stops being finite, or the checkpoint is damaged or another run's.
    """
    kept, heldout = split(points, sigma, training)
    identity = {**training.identity(), "network": title, "sigma": sigma, "shape": list(points.x.shape)}
    identity |= {"data": digest(points.x), "labels": digest(points.labels)} if training.checkpoint is not None else {}
    checkpoint, run = Checkpoint(training.checkpoint, identity), TrainingRun(network, training)
    state = checkpoint.read(points.x.device)
    if state is not None:
        run.restore(state)
    began = time.perf_counter() - run.log["seconds"]
    with terminable():
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


def learn(run: TrainingRun, points: Points, sigma: float) -> float:
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


def drop(labels: Tensor | None, run: TrainingRun, epoch: int, first: int) -> Tensor | None:
    """Labels, some of them replaced by the null label, which is the number of classes."""
    training = run.training
    if labels is None or training.drop == 0:
        return labels
    u = ops.uniform(len(labels), training.seed, epoch, first, stream=ops.Stream.DROP, device=labels.device)
    return torch.where(u <= training.drop, run.network.classes, labels)


@torch.no_grad()
def evaluate(run: TrainingRun, points: Points) -> float:
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
