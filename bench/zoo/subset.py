"""Makes `fashion-images.npz`: `python -m bench.zoo.subset --out FILE`.

A class-balanced part of Fashion-MNIST, small enough to ship: 200 training and 50 test images of each of the ten
classes, picked by a seed, in mixed order. Fashion-MNIST is Copyright 2017 Zalando SE, MIT (Expat) licence, which
allows redistribution: "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms" (Xiao,
Rasul, Vollgraf, 2017, https://arxiv.org/abs/1708.07747). Its files come with the Debian package
`dataset-fashion-mnist`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from headstart import zoo
from headstart.io import read_idx
from headstart.io.output import write_npz

FOLDER = "/usr/share/datasets/fashion-mnist"  # Debian package dataset-fashion-mnist


def balanced(labels: np.ndarray, each: int, generator: np.random.Generator) -> np.ndarray:
    """Indices of `each` entries of every class of `labels` [N], without repeats, in random order."""
    chosen = [generator.permutation(np.flatnonzero(labels == label))[:each] for label in np.unique(labels)]
    return generator.permutation(np.concatenate(chosen))


def make_subset(out: Path, folder: Path, train: int = 200, test: int = 50, seed: int = 0) -> None:
    """Writes uint8 `train_images` [10 train, 28, 28], `train_labels`, `test_images`, `test_labels` to `out`."""
    generator = np.random.default_rng(seed)
    arrays: dict[str, np.ndarray] = {}
    for split, prefix, each in (("train", "train", train), ("test", "t10k", test)):
        images = read_idx(folder / f"{prefix}-images-idx3-ubyte.gz")
        labels = read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz")
        chosen = balanced(labels, each, generator)
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = images[chosen], labels[chosen]
    write_npz(out, arrays)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(zoo.__file__).with_name("fashion-images.npz"))
    parser.add_argument("--data", type=Path, default=Path(FOLDER), help="folder of Fashion-MNIST's idx files")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    make_subset(arguments.out, arguments.data, seed=arguments.seed)


if __name__ == "__main__":
    main()
