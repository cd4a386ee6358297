"""Denoising errors of networks on held-out images: `python -m bench.denoising --out DIR [FILE.safetensors ...]`.

`E |D(x + sigma n, sigma, label) - x|^2` a pixel, over test images of Fashion-MNIST and one noise each, for the zoo's
network and for every file that `bench.zoo.train` wrote; all see the same noise, and a network of larger images
sees them in a black frame, whose pixels are not counted.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

import headstart as hs
from bench.zoo.quality import real_images
from bench.zoo.train import FOLDER
from headstart.io import read_idx
from headstart.io.machine import describe
from headstart.io.output import write

LEVELS = (0.1, 0.2, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 80.0)


@torch.inference_mode()
def errors(network: hs.EDM, x: Tensor, labels: Tensor, noise: Tensor, sigma: float) -> Tensor:
    """Mean squared error of each image `x` `[N, 1, H, W]`; `noise` `[N, 1, S, S]` has room for the largest frame."""
    level, found = torch.tensor(sigma), []
    side = network.shape[-1] if network.shape else x.shape[-1]
    frame, cut = (side - x.shape[-1]) // 2, (noise.shape[-1] - side) // 2
    for part, label, n in zip(x.split(100), labels.split(100), noise.split(100), strict=True):
        framed = functional.pad(part, [frame] * 4, value=-1.0)
        answer = network(framed + sigma * n[..., cut : cut + side, cut : cut + side], level, label=label)
        inner = answer[..., frame : frame + x.shape[-1], frame : frame + x.shape[-1]]
        found.append((inner - part).square().mean((1, 2, 3)))
    return torch.cat(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", help="networks beside the zoo's")
    parser.add_argument("--out", type=Path, required=True, help="folder for denoising.json")
    parser.add_argument("--data", type=Path, default=Path(FOLDER), help="folder of Fashion-MNIST's idx files")
    parser.add_argument("--n", type=int, default=1000, help="images")
    parser.add_argument("--seed", type=int, default=0, help="of the noise")
    arguments = parser.parse_args()
    networks = {Path(name).stem: hs.zoo.denoiser(name) for name in ("fashion", *arguments.files)}
    x = real_images(arguments.data, "test")[: arguments.n]
    labels = torch.from_numpy(read_idx(arguments.data / "t10k-labels-idx1-ubyte.gz"))[: len(x)].long()
    side = max(network.shape[-1] for network in networks.values() if network.shape)
    rows = []
    for place, sigma in enumerate(LEVELS):
        noise = hs.Classic((1, side, side), 1.0).sample(len(x), arguments.seed, place * len(x))
        found = {name: errors(network, x, labels, noise, sigma) for name, network in networks.items()}
        first = found["fashion"]
        for name, error in found.items():
            apart = (error - first).std() / len(x) ** 0.5  # of the paired difference
            row = {"network": name, "sigma": sigma, "error": float(error.mean())}
            rows.append(row | {"ratio": float(error.mean() / first.mean()), "ratio_se": float(apart / first.mean())})
            print(f"sigma {sigma:5.1f}  {name:<12} {row['error']:.5f}  {rows[-1]['ratio']:.4f}", flush=True)
    weights = {name: sum(p.numel() for p in network.net.parameters()) for name, network in networks.items()}
    report = {"machine": describe(), "n": len(x), "seed": arguments.seed, "weights": weights, "rows": rows}
    arguments.out.mkdir(parents=True, exist_ok=True)
    write(arguments.out / "denoising.json", lambda path: path.write_text(json.dumps(report, indent=1) + "\n"))


if __name__ == "__main__":
    main()
