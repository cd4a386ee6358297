"""A training run between two epochs: weights, their average, optimizer, history."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from headstart.fitting.flow_report import FlowReport
from headstart.fitting.network import FlowNetwork
from headstart.fitting.training import Training

CLIP = 1.0  # largest norm of the gradient of the loss, which is in nats per dimension


class Run:
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
        """What the run says about itself, with the numbers of points trained on and held out."""
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
