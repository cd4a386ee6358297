"""Components of each class by itself against components that classes share: `python -m bench.classes --out DIR`.

Starts are fitted to 200, 1,000 and 6,000 Fashion-MNIST images a class. On held-out images and their labels, with the
same noise for all: the gain in log-likelihood given the class over the shared components, in nats, and the denoising
error given the class over the zoo network's.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor

import headstart as hs
from bench.zoo.quality import real_images
from bench.zoo.train import FOLDER
from headstart.io import read_idx
from headstart.io.machine import describe
from headstart.io.output import write

SIGMAS = (1.0, 1.5, 2.0, 3.0, 5.0)
POINTS = (200, 1000, 6000)  # of a class


def first_of_each(labels: Tensor, count: int) -> Tensor:
    """Rows of the first `count` points of every class."""
    return torch.cat([(labels == c).nonzero()[:count, 0] for c in labels.unique()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for classes.json")
    parser.add_argument("--data", type=Path, default=Path(FOLDER), help="folder of Fashion-MNIST's idx files")
    parser.add_argument("--n", type=int, default=1000, help="held-out images")
    arguments = parser.parse_args()
    x, labels = real_images(arguments.data, "train"), read_labels(arguments.data, "train")
    unseen, asked = real_images(arguments.data, "test")[: arguments.n], read_labels(arguments.data, "t10k")
    asked = asked[: arguments.n]
    network, noise = hs.zoo.denoiser(), hs.Classic((1, 28, 28), 1.0).sample(len(unseen), 0)

    def error(denoised: Tensor) -> float:
        return float((denoised - unseen).square().mean())

    with torch.inference_mode():
        reached = {s: error(network(unseen + s * noise, torch.tensor(s), label=asked)) for s in SIGMAS}
    rows = []
    for count in POINTS:
        kept = first_of_each(labels, count)
        base: dict[float, Tensor] = {}
        for by_class in (False, True):
            law = hs.fit(x[kept], labels=labels[kept], by_class=by_class)
            for sigma in SIGMAS:
                noised = unseen + sigma * noise
                found = law.log_prob(noised, sigma, labels=asked).double()
                gain = found - base.setdefault(sigma, found)
                row = {
                    "points": count, "by_class": by_class, "components": len(law.weight), "sigma": sigma,
                    "gain": float(gain.mean()), "gain_se": float(gain.std()) / len(gain) ** 0.5,
                    "error": error(law.denoise(noised, sigma, labels=asked)) / reached[sigma],
                    "fit_seconds": law.report.seconds if law.report else None,
                }  # fmt: skip
                rows.append(row)
                print(" ".join(f"{k}={v:.4g}" for k, v in row.items() if v is not None), flush=True)
    report = {"machine": describe(), "n": len(unseen), "network_error": list(reached.items()), "rows": rows}
    arguments.out.mkdir(parents=True, exist_ok=True)
    write(arguments.out / "classes.json", lambda path: path.write_text(json.dumps(report, indent=1) + "\n"))


def read_labels(folder: Path, split: str) -> Tensor:
    return torch.from_numpy(read_idx(folder / f"{split}-labels-idx1-ubyte.gz")).long()


if __name__ == "__main__":
    main()
