"""Is a lighter network enough below a short horizon? `python -m bench.lighter --out DIR`.

The zoo's network beside siblings of half and a quarter of its width, trained on levels up to `sigma_T` only and, with
`--controls`, on all levels; every one of them from the same learned start, with the same solver, calls and seeds. Says
parameters, time of a call, denoising error of held-out images below `sigma_T`, and Frechet and sliced Wasserstein
distance to the test images. Networks that are not in `DIR/networks` yet are trained first (`bench.zoo.train`; a
stopped run goes on); rows stay in `DIR/lighter.json` as they are done, samples in `DIR/samples` until then.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import headstart as hs
from bench.zoo.quality import real_images
from bench.zoo.train import FOLDER
from headstart.compare.case import Case
from headstart.compare.run import Experiment, find_ranks, run
from headstart.compare.store import Result, name_of
from headstart.compare.way import Way
from headstart.io import Dataset
from headstart.metrics import Lite0Features, frechet_distance, sliced_wasserstein
from headstart.metrics import statistics as moments

HORIZON, FAR = 3.0, 80.0
SIBLINGS = {
    "half width, sigma <= 3": ((24, 64), HORIZON),
    "quarter width, sigma <= 3": ((16, 32), HORIZON),
    "half width, all levels": ((24, 64), None),
    "quarter width, all levels": ((16, 32), None),
}
WHOLE = "zoo:fashion"
CALLS = (5, 9)
LEVELS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 3.0)
BATCH, PART = 64, 100


def train(folder: Path, name: str, images: int) -> hs.EDM:
    """The sibling, trained where it is not there yet."""
    widths, horizon = SIBLINGS[name]
    out = folder / f"{widths[0]}-{'short' if horizon else 'whole'}"
    if not (out / "fashion.safetensors").is_file():
        command = [sys.executable, "-m", "bench.zoo.train", "--out", str(out), "--budget", str(images)]
        command += ["--rate", "2e-3", "--widths", *map(str, widths)]
        subprocess.run([*command, *(["--sigma-max", str(horizon)] if horizon else [])], check=True)
    return hs.zoo.read(out / "fashion.safetensors")


def seconds(networks: Mapping[str, hs.EDM], rounds: int) -> dict[str, list[float]]:
    """Times of a call on a batch, the networks taking turns."""
    x, sigma = torch.randn(BATCH, 1, 28, 28), torch.tensor(1.0)
    taken: dict[str, list[float]] = {name: [] for name in networks}
    with torch.no_grad():
        for turn in range(rounds + 1):
            for name, network in networks.items():
                began = time.perf_counter()
                network(x, sigma)
                if turn:  # the first warms up
                    taken[name].append(time.perf_counter() - began)
    return taken


def denoising(network: hs.EDM, images: Tensor) -> dict[str, float]:
    """Root-mean-square denoising error a coordinate at each level, the same noise for every network."""
    found = {}
    with torch.no_grad():
        for i, level in enumerate(LEVELS):
            x = hs.ops.noise(images, level, 7, i)
            each = [network(part, torch.tensor(level)) for part in x.split(BATCH)]
            found[f"{level:g}"] = float((torch.cat(each) - images).square().mean().sqrt())
    return found


class Score:
    """Distances to the first `n` test images."""

    def __init__(self, folder: Path, n: int) -> None:
        self.features, self.test = Lite0Features(), real_images(folder, "test")[:n]
        self.reference = moments(self.test, self.features)
        train = real_images(folder, "train")
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
        self.floor = self(train[order[:n]])

    def __call__(self, x: Tensor) -> dict[str, float]:
        x = x.clamp(-1, 1)
        frechet = frechet_distance(moments(x, self.features), self.reference)
        return {"frechet": frechet, "swd": sliced_wasserstein(x, self.test)}


def ways(name: str) -> list[Way]:
    """Those of a network; one that knows nothing above the horizon runs only from there."""
    short = [Way("learned", "2M", "log", calls) for calls in CALLS]
    return [*short, Way("classic", "2M", "log", 13)] if SIBLINGS.get(name, ((), None))[1] is None else short


def describe_networks(networks: Mapping[str, hs.EDM], heldout: Tensor) -> dict[str, Any]:
    """Size, speed and denoising error of each, beside the first."""
    taken, found = seconds(networks, 20), {}
    for name, network in networks.items():
        ratios = [whole / own for whole, own in zip(taken[WHOLE], taken[name], strict=True)]
        found[name] = {
            "parameters": sum(p.numel() for p in network.net.parameters()),  # type: ignore[attr-defined]
            "speed": statistics.median(ratios),
            "speed_quartiles": statistics.quantiles(ratios, n=4)[::2],
            "denoising": denoising(network, heldout),
        }
    return found


def key_of(row: Mapping[str, Any]) -> str:
    """What a row is found by again."""
    return f"{name_of(row['network'])}-{row['start']}-{row['nfe']}-{row['seed']}"


def compare(result: Result, networks: Mapping[str, hs.EDM], score: Score, seeds: int) -> None:
    """The rows that are missing, seed after seed."""
    images = Dataset(hs.zoo.images("fashion")[0])
    q = hs.fit(images.images)
    for seed in range(seeds):
        for name, network in networks.items():
            case = Case(network, images, sigma=HORIZON, batch=PART)
            case.mixture = q
            folder = result.path.parent / "samples" / name_of(name)
            experiment = Experiment(case, result.settings["n"], PART, folder, exact=True)

            def add(way: Way, seed: int, name: str = name, experiment: Experiment[Case] = experiment) -> None:
                x = torch.from_numpy(experiment.gather(way, seed)["arr_0"])
                row = {"network": name, "start": way.start, "nfe": way.nfe, "seed": seed, **score(x)}
                result.add(key_of(row), row)
                experiment.drop(way, seed)
                print(row, flush=True)

            points = [
                (way, seed) for way in ways(name)
                if not result.has(key_of({"network": name, "start": way.start, "nfe": way.nfe, "seed": seed}))
            ]  # fmt: skip
            run(experiment, points, add, name, find_ranks())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for lighter.json and the networks")
    parser.add_argument("--data", type=Path, default=Path(FOLDER), help="folder of Fashion-MNIST's idx files")
    parser.add_argument("--images", type=int, default=256_000, help="images a sibling is trained on")
    parser.add_argument("--n", type=int, default=1000, help="samples a row and seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--controls", action="store_true", help="also the siblings trained on all levels")
    arguments = parser.parse_args()
    networks = {WHOLE: hs.zoo.denoiser("fashion")}
    wanted = [name for name, (_, horizon) in SIBLINGS.items() if horizon or arguments.controls]
    networks |= {name: train(arguments.out / "networks", name, arguments.images) for name in wanted}
    settings = {"n": arguments.n, "images": arguments.images}
    result = Result(arguments.out / "lighter.json", "lighter", settings)
    known = result.found.setdefault("networks", {})
    if known.keys() != networks.keys():
        known |= describe_networks(networks, real_images(arguments.data, "test")[:500])
    score = Score(arguments.data, arguments.n)
    result.found["floor"] = score.floor
    compare(result, networks, score, arguments.seeds)


if __name__ == "__main__":
    main()
