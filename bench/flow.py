"""How well flows learn the noised law: `python -m bench.flow toy|images --out FILE.json`.

`toy`: the 25-mode mixture in two dimensions at sigma = 1.055, 10,000 training points, a coupling flow with fixed and
with dynamic noise at the settings of the paper (5 layers, conditioner 3 x 50, Adam 1e-3, batch 1000, at most 3000
epochs) but a patience of 200, and `hs.fit`'s mixture; nats a point on 100,000 fresh points, beside the entropy
(the exact law's own). `images`: a small TarFlow and `hs.fit`'s mixture on the 2,000 shipped Fashion-MNIST images at
sigma = 3; nats per dimension on the 500 test images, 4 noised copies of each, the same for both. Lower is better
everywhere. A killed run resumes from the checkpoints beside FILE.json; its seconds are those of all its parts.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import headstart as hs
from bench import laws
from headstart import ops
from headstart.fitting import FlowReport
from headstart.io.output import write

TOY_SIGMA, TOY_POINTS, TOY_TEST = 1.055, 10_000, 100_000
IMAGE_SIGMA, COPIES = 3.0, 4


def describe(flow: Any, nll: Tensor, seconds: float) -> dict[str, Any]:
    """A contender's test likelihood with its standard error, its time, and how its training went."""
    row = {"nll": float(nll.mean()), "error": float(nll.std()) / len(nll) ** 0.5, "seconds": round(seconds, 1)}
    report = flow.report
    if isinstance(report, FlowReport):
        row |= {"epochs": report.epochs, "best": report.best, "heldout": -float(report.heldout_log_likelihood or 0)}
    return row


def toy(arguments: argparse.Namespace) -> dict[str, Any]:
    """Coupling flows against a mixture and the entropy."""
    law = laws.modes(2)
    data = law.sample(TOY_POINTS, seed=1).float()
    x = law.sample(TOY_TEST, seed=2, sigma=TOY_SIGMA)
    exact = -law.log_prob(x, TOY_SIGMA)
    rows: dict[str, Any] = {"entropy": {"nll": float(exact.mean()), "error": float(exact.std()) / TOY_TEST**0.5}}
    settings = {"epochs": arguments.epochs or 3000, "patience": 200, "seed": arguments.seed, "progress": True}
    for name, noise in (("fixed", hs.Fixed()), ("dynamic", hs.Dynamic())):
        checkpoint = arguments.out.with_suffix(f".{name}.pt")
        flow = hs.Flow.fit(data, TOY_SIGMA, noise=noise, checkpoint=checkpoint, **settings)
        rows[f"flow, {name}"] = describe(flow, -flow.log_prob(x.float()), flow.report.seconds)
    began = time.perf_counter()
    mixture = hs.fit(data, components=25)
    rows["mixture"] = describe(mixture, -mixture.log_prob(x, TOY_SIGMA), time.perf_counter() - began)
    for row in rows.values():
        row["above_entropy"] = row["nll"] - rows["entropy"]["nll"]
    return rows


def images(arguments: argparse.Namespace) -> dict[str, Any]:
    """A small TarFlow against the default mixture."""
    train, test = hs.zoo.images(split="train")[0], hs.zoo.images(split="test")[0]
    clean = test.repeat(COPIES, 1, 1, 1)
    x = ops.noise(clean, IMAGE_SIGMA, seed=11, step=0)
    dim = x[0].numel()
    rows: dict[str, Any] = {}
    began = time.perf_counter()
    mixture = hs.fit(train)
    rows["mixture"] = describe(mixture, -mixture.log_prob(x, IMAGE_SIGMA) / dim, time.perf_counter() - began)
    flow = hs.TarFlow.fit(
        train, IMAGE_SIGMA, patch=arguments.patch, channels=arguments.channels, blocks=arguments.blocks,
        layers=arguments.layers, epochs=arguments.epochs or 40, batch=50, learning_rate=arguments.rate, heldout=0.05,
        average=0.99, seed=arguments.seed, checkpoint=arguments.out.with_suffix(".pt"), progress=True,
    )  # fmt: skip
    rows["tarflow"] = describe(flow, -flow.log_prob(x) / dim, flow.report.seconds)
    rows["tarflow"]["heldout"] /= dim
    rows["tarflow"] |= {"architecture": flow.network.config(), "learning_rate": arguments.rate}
    began = time.perf_counter()
    flow.sample(64)
    rows["tarflow"]["seconds_for_64_samples"] = round(time.perf_counter() - began, 2)
    white = -hs.Classic((1, 28, 28), IMAGE_SIGMA).log_prob(x - clean) / dim
    rows["noise alone"] = {"nll": float(white.mean())}
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["toy", "images"])
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--epochs", type=int, help="default: 3000 for toy, 40 for images")
    parser.add_argument("--patch", type=int, default=4)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rows = toy(arguments) if arguments.what == "toy" else images(arguments)
    machine = {"machine": platform.processor() or platform.machine(), "threads": torch.get_num_threads()}
    result = {"what": arguments.what, "seed": arguments.seed, "torch": torch.__version__, **machine, "rows": rows}
    write(arguments.out, lambda path: path.write_text(json.dumps(result, indent=1) + "\n"))
    for name, row in rows.items():
        print(f"{name:16}", {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()})


if __name__ == "__main__":
    main()
