"""How good the zoo's network is: `python -m bench.zoo.quality --out DIR [--n 10000]`.

Frechet distance on EfficientNet-Lite0 features between n class-conditional samples (Heun, 79 calls from sigma = 80, 40
Karras levels, rho 7) and the test images, beside the real-against-real floor at the same n (random training images
against the test images), for n = 2,000 and n = 10,000; and a grid of samples, one row a class. Samples are drawn in
parts that are kept, so a killed run resumes.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path

import torch
from torch import Tensor

import headstart as hs
from bench.zoo.train import FOLDER
from headstart.io import read_idx
from headstart.io.output import tile, to_bytes, write, write_png
from headstart.metrics import Lite0Features, frechet_distance, statistics

PART = 500


def real_images(folder: Path, split: str) -> Tensor:
    """All images of a split, `[N, 1, 28, 28]` in [-1, 1]."""
    name = {"train": "train", "test": "t10k"}[split]
    return torch.from_numpy(read_idx(folder / f"{name}-images-idx3-ubyte.gz"))[:, None].float() / 127.5 - 1


def samples(out: Path, n: int, seed: int, device: str) -> tuple[Tensor, float]:
    """`n` samples, classes in turn, as 8-bit images, and the seconds they took; finished parts are read back."""
    denoiser, start = hs.zoo.denoiser("fashion", device=device), hs.Classic((1, 28, 28), 80.0)
    grid = hs.karras(80.0, 0.002, 40, rho=7.0)
    parts, seconds = [], 0.0
    for first in range(0, n, PART):
        path = out / f"part-{seed}-{first}.pt"
        if not path.exists():
            label = (torch.arange(first, first + PART) % 10).to(device)
            began = time.perf_counter()
            x = hs.sample(
                denoiser, start, PART, grid=grid, solver=hs.Heun(), seed=seed, offset=first, batch=100,
                cond={"label": label}, progress=True,
            )  # fmt: skip
            took = time.perf_counter() - began
            pixels = (x.clamp(-1, 1) * 127.5 + 127.5).round().byte().cpu()
            finished = {"pixels": pixels, "seconds": took}
            write(path, lambda temporary, finished=finished: torch.save(finished, temporary))
        part = torch.load(path, weights_only=True)
        parts.append(part["pixels"])
        seconds += part["seconds"]
    return torch.cat(parts)[:n].float() / 127.5 - 1, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the figures, the grid and the parts")
    parser.add_argument("--data", type=Path, default=Path(FOLDER), help="folder of Fashion-MNIST's idx files")
    parser.add_argument("--n", type=int, default=10_000, help="samples in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    x, seconds = samples(arguments.out, arguments.n, arguments.seed, arguments.device)
    by_class = x[:100].view(10, 10, 1, 28, 28).transpose(0, 1).reshape(100, 1, 28, 28)
    write_png(arguments.out / "grid.png", tile(to_bytes(by_class), columns=10))
    features = Lite0Features(device=arguments.device)
    test = real_images(arguments.data, "test")
    train = real_images(arguments.data, "train")
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(arguments.seed))
    rows = []
    for n in sorted({min(2_000, arguments.n), arguments.n}):
        reference = statistics(test[:n], features)
        figure = frechet_distance(statistics(x[:n], features), reference)
        floor = frechet_distance(statistics(train[order[:n]], features), reference)
        rows.append({"n": n, "solver": "Heun", "nfe": 79, "sigma_max": 80.0, "frechet": figure, "floor": floor})
        print(f"n = {n}: Frechet distance {figure:.3f}, real against real {floor:.3f}")
    report = {
        "features": "EfficientNet-Lite0, 112 px", "rows": rows, "seconds_sampling": seconds, "seed": arguments.seed,
        "device": arguments.device, "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(), "torch": str(torch.__version__), "headstart": hs.__version__,
    }  # fmt: skip
    write(arguments.out / "zoo.json", lambda path: path.write_text(json.dumps(report, indent=1) + "\n"))


if __name__ == "__main__":
    main()
