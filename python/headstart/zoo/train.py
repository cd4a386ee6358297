"""Trains the zoo's Fashion-MNIST network: `python -m headstart.zoo.train --out DIR`.

EDM denoising score matching (Karras et al., 2022, https://arxiv.org/abs/2206.00364): for `x = x0 + sigma n` with
`ln sigma ~ N(-0.6, 1.5^2)`, minimize `E ||F(c_in x, c_noise, label) - (x0 - c_skip x) / c_out||^2`, labels dropped with
probability 0.1, weights averaged over steps (EMA). The budget is wall time: the learning rate follows the share of it
that is spent, so a slower machine trains on fewer images instead of being cut off. A killed run resumes from DIR.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from headstart.data import read_idx
from headstart.denoiser import edm_preconditioning
from headstart.zoo.network import UNet

FOLDER = "/usr/share/datasets/fashion-mnist"  # Debian package dataset-fashion-mnist


def load_training_images(folder: Path) -> tuple[Tensor, Tensor]:
    """All training images `[60000, 1, 28, 28]` in [-1, 1] and their labels `[60000]`."""
    images = torch.from_numpy(read_idx(folder / "train-images-idx3-ubyte.gz"))
    labels = torch.from_numpy(read_idx(folder / "train-labels-idx1-ubyte.gz"))
    return images[:, None].float() / 127.5 - 1, labels.long()


def draw_sigma(batch: int, generator: torch.Generator, mean: float = -0.6, std: float = 1.5) -> Tensor:
    """Noise levels `[batch]`, log-normal, one in each of `batch` equally likely strata."""
    u = (torch.randperm(batch, generator=generator) + torch.rand(batch, generator=generator)) / batch
    z = torch.special.ndtri(u.double().clamp(1e-6, 1 - 1e-6))
    return (mean + std * z).exp()


def loss(network: UNet, x0: Tensor, label: Tensor, sigma_data: float, generator: torch.Generator) -> Tensor:
    """Mean squared error of the raw network against its EDM target."""
    batch = x0.shape[0]
    sigma = draw_sigma(batch, generator)
    coefficients = torch.tensor([edm_preconditioning(level, sigma_data) for level in sigma.tolist()])
    c_skip, c_out, c_in, c_noise = coefficients.to(x0.device).unbind(dim=1)
    noise = torch.randn(x0.shape, generator=generator).to(x0.device)
    x = x0 + sigma.float().to(x0.device).view(-1, 1, 1, 1) * noise
    dropped = torch.rand(batch, generator=generator).to(x0.device) < 0.1
    label = torch.where(dropped, network.classes, label)
    with torch.autocast(x0.device.type, dtype=torch.bfloat16):
        raw = network(c_in.view(-1, 1, 1, 1) * x, c_noise, label)
    target = (x0 - c_skip.view(-1, 1, 1, 1) * x) / c_out.view(-1, 1, 1, 1)
    return (raw.float() - target).square().mean()


def write(path: Path, save: Any) -> None:
    """Calls `save(temporary)` and renames, so that `path` is never half-written."""
    temporary = path.with_suffix(path.suffix + ".tmp")
    save(temporary)
    os.replace(temporary, path)


def export(out: Path, network: UNet, average: dict[str, Tensor], log: dict[str, Any]) -> None:
    """Writes the averaged weights as float16 safetensors and the log (settings, loss curve, time) as JSON."""
    weights = {name: value.half().contiguous() for name, value in average.items()}
    header = {"format": "headstart-zoo", "network": json.dumps(network.config), "sigma_data": str(log["sigma_data"])}
    write(out / "fashion.safetensors", lambda path: save_file(weights, path, metadata=header))
    write(out / "fashion.json", lambda path: path.write_text(json.dumps(log, indent=1)))


def train(out: Path, folder: Path, minutes: float, batch: int, rate: float, seed: int, device: str) -> None:
    """Trains for `minutes` of wall time in all, checkpointing every two minutes, then exports."""
    out.mkdir(parents=True, exist_ok=True)
    images, labels = load_training_images(folder)
    sigma_data = round(images.square().mean().sqrt().item(), 4)
    images, labels = images.to(device), labels.to(device)
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    network = UNet(widths=(48, 128)).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=1e-3)
    average = {name: value.detach().clone() for name, value in network.state_dict().items()}
    log: dict[str, Any] = {
        "seed": seed, "batch": batch, "rate": rate, "minutes": minutes, "device": device, "sigma_data": sigma_data,
        "machine": platform.processor() or platform.machine(), "threads": torch.get_num_threads(),
        "torch": str(torch.__version__), "parameters": sum(p.numel() for p in network.parameters()),
        "seconds": 0.0, "images": 0, "curve": [],
    }  # fmt: skip
    checkpoint = out / "checkpoint.pt"
    step = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        generator.set_state(state["generator"])
        average, log, step = state["average"], state["log"], state["step"]
    start = time.monotonic() - log["seconds"]
    saved, recent = log["seconds"], []
    while (spent := time.monotonic() - start) < 60 * minutes:
        progress = spent / (60 * minutes)
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 200) * 0.5 * (1 + math.cos(math.pi * progress))
        index = torch.randint(len(images), (batch,), generator=generator).to(device)
        value = loss(network, images[index], labels[index], sigma_data, generator)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        step += 1
        decay = min(0.9985, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, parameter in network.state_dict().items():
                average[name].lerp_(parameter, 1 - decay)
        recent.append(value.item())
        if step % 50 == 0:
            log["seconds"], log["images"] = time.monotonic() - start, step * batch
            log["curve"].append([step, round(sum(recent) / len(recent), 5)])
            print(f"{log['seconds'] / 60:6.1f} min  step {step}  loss {log['curve'][-1][1]:.4f}", flush=True)
            recent = []
            if log["seconds"] - saved > 120:
                state = {
                    "network": network.state_dict(), "optimizer": optimizer.state_dict(), "average": average,
                    "generator": generator.get_state(), "log": log, "step": step,
                }  # fmt: skip
                write(checkpoint, lambda path: torch.save(state, path))
                export(out, network, average, log)
                saved = log["seconds"]
    log["seconds"], log["images"] = time.monotonic() - start, step * batch
    export(out, network, average, log)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for weights, log and checkpoint")
    parser.add_argument("--data", type=Path, default=Path(FOLDER), help="folder of Fashion-MNIST's idx files")
    parser.add_argument("--minutes", type=float, default=90, help="wall time to train for, in all")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    train(
        arguments.out, arguments.data, arguments.minutes, arguments.batch, arguments.rate, arguments.seed,
        arguments.device,
    )  # fmt: skip


if __name__ == "__main__":
    main()
