"""Trains the zoo's classifier: `python -m bench.zoo.train_classifier --out DIR`.

Cross-entropy on Fashion-MNIST's 60,000 training images, mirrored and shifted by up to two pixels at random, weights
averaged over steps. The budget is wall time, as in `bench.zoo.train`; the test images are looked at once, at the end.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from bench.zoo.train import FOLDER, load_training_images
from headstart.io import read_dataset
from headstart.io.output import write
from headstart.zoo.network import FORMAT, Classifier

BATCH, RATE, SHIFT = 128, 3e-3, 2


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """The batch mirrored or not, and moved by at most two pixels in each direction (background -1 comes in)."""
    images = images.flip(-1) if torch.rand((), generator=generator) < 0.5 else images
    down, right = torch.randint(-SHIFT, SHIFT + 1, (2,), generator=generator).tolist()
    padded = functional.pad(images, (SHIFT,) * 4, value=-1.0)
    side = images.shape[-1]
    return padded[..., SHIFT + down :, SHIFT + right :][..., :side, :side]


def train(images: Tensor, labels: Tensor, seconds: float, seed: int) -> tuple[Classifier, int]:
    """The averaged network after `seconds`, and the steps it took."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    network = Classifier()
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=1e-2)
    average = {name: value.detach().clone() for name, value in network.state_dict().items()}
    began, step = time.monotonic(), 0
    while (spent := (time.monotonic() - began) / seconds) < 1:
        optimizer.param_groups[0]["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * spent)) * min(1.0, (step + 1) / 100)
        index = torch.randint(len(images), (BATCH,), generator=generator)
        loss = functional.cross_entropy(network(augment(images[index], generator)), labels[index], label_smoothing=0.05)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        step += 1
        decay = min(0.995, step / (10 + step))
        with torch.no_grad():
            for name, value in network.state_dict().items():
                average[name].lerp_(value, 1 - decay)
        if step % 200 == 0:
            print(f"{time.monotonic() - began:6.0f} s  step {step}  loss {loss.item():.3f}", flush=True)
    network.load_state_dict(average)
    return network.eval(), step


def accuracy(network: Classifier, images: Tensor, labels: Tensor) -> float:
    """Share of images whose class is found."""
    with torch.no_grad():
        found = torch.cat([network(part).argmax(1) for part in images.split(500)])
    return float((found == labels).double().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the weights and the log")
    parser.add_argument("--data", type=Path, default=Path(FOLDER), help="folder of Fashion-MNIST's idx files")
    parser.add_argument("--seconds", type=float, default=400, help="wall time to train for")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    network, steps = train(*load_training_images(arguments.data), arguments.seconds, arguments.seed)
    weights = {name: value.half().contiguous() for name, value in network.state_dict().items()}
    network.load_state_dict(weights)  # what is shipped is what is tested
    test = read_dataset(arguments.data / "t10k-images-idx3-ubyte.gz")
    assert test.labels is not None
    log = {
        "parameters": sum(value.numel() for value in weights.values()), "steps": steps, "batch": BATCH, "rate": RATE,
        "seconds": arguments.seconds, "seed": arguments.seed, "threads": torch.get_num_threads(),
        "torch": str(torch.__version__), "test_accuracy": accuracy(network, test.images, test.labels),
    }  # fmt: skip
    header = {"format": FORMAT, "test_accuracy": f"{log['test_accuracy']:.4f}"}
    write(arguments.out / "fashion-classifier.safetensors", lambda path: save_file(weights, path, metadata=header))
    write(arguments.out / "fashion-classifier.json", lambda path: path.write_text(json.dumps(log) + "\n"))
    print(json.dumps(log))


if __name__ == "__main__":
    main()
