"""Trains the zoo's Fashion-MNIST networks: `python -m bench.zoo.train --out DIR`, and for the larger one of 32 x 32
images `--name fashion32 --side 32 --widths 48 128 216`, with `--batch 512 --minutes 9` on a GPU.

EDM denoising score matching (Karras et al., 2022, https://arxiv.org/abs/2206.00364): for `x = x0 + sigma n` with
`ln sigma ~ N(-0.6, 1.5^2)`, minimize `E ||F(c_in x, c_noise, label) - (x0 - c_skip x) / c_out||^2`, labels dropped with
probability 0.1, weights averaged over steps (EMA). The budget is wall time, or images seen: the learning rate follows
the share of it that is spent. A killed run resumes from DIR. A network for short horizons only, `--sigma-max 3`, never
sees a level above it. `--grow FILE` begins with the tensors of a network with fewer levels, where they fit.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from headstart.denoiser import edm_preconditioning
from headstart.io import read_idx
from headstart.io.output import write
from headstart.zoo.network import UNet

FOLDER = "/usr/share/datasets/fashion-mnist"  # Debian package dataset-fashion-mnist


def load_training_images(folder: Path, side: int = 28) -> tuple[Tensor, Tensor]:
    """All training images `[60000, 1, side, side]` in [-1, 1], in a black frame, and their labels `[60000]`."""
    images = torch.from_numpy(read_idx(folder / "train-images-idx3-ubyte.gz"))
    labels = torch.from_numpy(read_idx(folder / "train-labels-idx1-ubyte.gz"))
    framed = functional.pad(images[:, None], [(side - images.shape[-1]) // 2] * 4)
    return framed.float() / 127.5 - 1, labels.long()


def draw_sigma(
    batch: int, generator: torch.Generator, mean: float = -0.6, std: float = 1.5, sigma_max: float = math.inf
) -> Tensor:
    """Noise levels `[batch]`, log-normal below `sigma_max`, one in each of `batch` equally likely strata."""
    u = (torch.randperm(batch, generator=generator) + torch.rand(batch, generator=generator)) / batch
    u = u * 0.5 * (1 + math.erf((math.log(sigma_max) - mean) / (std * math.sqrt(2))))
    z = torch.special.ndtri(u.double().clamp(1e-6, 1 - 1e-6))
    return (mean + std * z).exp()


def loss(
    network: UNet, x0: Tensor, label: Tensor, sigma_data: float, generator: torch.Generator, sigma_max: float = math.inf
) -> Tensor:
    """Mean squared error of the raw network against its EDM target."""
    batch = x0.shape[0]
    sigma = draw_sigma(batch, generator, sigma_max=sigma_max)
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


def grow(network: UNet, path: Path) -> None:
    """Copies the tensors of a network with fewer levels, the finest first, that fit into `network`."""
    held, given = network.state_dict(), load_file(path)
    deeper = len(network.levels) - sum(name.startswith("up.") and name.endswith("conv0.weight") for name in given)
    for name, tensor in given.items():
        part, _, rest = name.partition(".")
        if part == "up":
            number, _, rest = rest.partition(".")
            rest = f"{int(number) + deeper}.{rest}"
        place = held.get(f"{part}.{rest}")
        if place is not None and place.shape == tensor.shape and part not in ("attention", "middle"):
            place.copy_(tensor)


class Training:
    """Network, averaged weights, optimizer and log of one run, kept in folder `out`."""

    def __init__(self, out: Path, settings: dict[str, Any]) -> None:
        self.out = out
        torch.manual_seed(settings["seed"])
        self.generator = torch.Generator().manual_seed(settings["seed"])
        network = UNet(widths=tuple(settings["widths"])).to(settings["device"])
        if settings.get("grow"):
            grow(network, Path(settings["grow"]))
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=settings["rate"], betas=(0.9, 0.99), weight_decay=1e-3
        )
        self.average = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
        self.step = 0
        parameters = sum(p.numel() for p in self.network.parameters())
        self.log = {**settings, "parameters": parameters, "seconds": 0.0, "images": 0, "curve": []}
        if self.checkpoint.exists():
            state = torch.load(self.checkpoint, weights_only=True)
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.generator.set_state(state["generator"])
            self.average, self.log, self.step = state["average"], state["log"], state["step"]

    @property
    def checkpoint(self) -> Path:
        return self.out / "checkpoint.pt"

    def update(self, images: Tensor, labels: Tensor, rate: float) -> float:
        """One optimizer step on a random batch, warmed up over the first 200; returns the loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate * min(1.0, (self.step + 1) / 200)
        index = torch.randint(len(images), (self.log["batch"],), generator=self.generator).to(images.device)
        sigma_data, sigma_max = self.log["sigma_data"], self.log["sigma_max"] or math.inf
        value = loss(self.network, images[index], labels[index], sigma_data, self.generator, sigma_max)
        self.optimizer.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        decay = min(0.9985, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, parameter in self.network.state_dict().items():
                self.average[name].lerp_(parameter, 1 - decay)
        return value.item()

    def note(self, seconds: float, recent: list[float]) -> None:
        """Adds a point to the loss curve."""
        self.log["seconds"], self.log["images"] = seconds, self.step * self.log["batch"]
        self.log["curve"].append([self.step, round(sum(recent) / len(recent), 5)])
        print(f"{seconds / 60:6.1f} min  step {self.step}  loss {self.log['curve'][-1][1]:.4f}", flush=True)

    def save(self) -> None:
        """Writes what a resumed run needs."""
        state = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "average": self.average,
            "log": self.log,
            "step": self.step,
        }
        write(self.checkpoint, lambda path: torch.save(state, path))

    def export(self) -> None:
        """Writes the averaged weights as float16 safetensors, and the log as JSON."""
        weights = {name: value.half().contiguous() for name, value in self.average.items()}
        network, sigma_data = json.dumps(self.network.config), str(self.log["sigma_data"])
        side = str(self.log.get("side", 28))
        header = {"format": "headstart-zoo", "network": network, "sigma_data": sigma_data, "side": side}
        name = self.log.get("name", "fashion")
        write(self.out / f"{name}.safetensors", lambda path: save_file(weights, path, metadata=header))
        write(self.out / f"{name}.json", lambda path: path.write_text(json.dumps(self.log) + "\n"))


def train(out: Path, folder: Path, minutes: float, settings: dict[str, Any]) -> None:
    """Trains until `minutes` of wall time or `settings["budget"]` images are spent, saving as it goes; exports."""
    images, labels = load_training_images(folder, settings["side"])
    settings = {**settings, "sigma_data": round(images.square().mean().sqrt().item(), 4)}
    images, labels = images.to(settings["device"]), labels.to(settings["device"])
    run = Training(out, settings)
    start, saved, recent = time.monotonic() - run.log["seconds"], run.log["seconds"], []
    budget = settings["budget"]

    def spent() -> float:
        return run.step * settings["batch"] / budget if budget else (time.monotonic() - start) / (60 * minutes)

    while (share := spent()) < 1:
        recent.append(run.update(images, labels, settings["rate"] * 0.5 * (1 + math.cos(math.pi * share))))
        if run.step % 50 == 0:
            run.note(time.monotonic() - start, recent)
            recent = []
        if time.monotonic() - start - saved > 120:
            saved = time.monotonic() - start
            run.log["seconds"] = saved
            run.save()
    run.log["seconds"], run.log["images"] = time.monotonic() - start, run.step * settings["batch"]
    run.export()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for weights, log and checkpoint")
    parser.add_argument("--data", type=Path, default=Path(FOLDER), help="folder of Fashion-MNIST's idx files")
    parser.add_argument("--minutes", type=float, default=90, help="wall time to train for, in all")
    parser.add_argument("--budget", type=int, help="images to train on, in place of minutes: the same on any machine")
    parser.add_argument("--name", default="fashion", help="of the files written")
    parser.add_argument("--side", type=int, default=28, help="of the images; a black frame makes up for the rest")
    parser.add_argument("--grow", help="safetensors file of a smaller network to begin with")
    parser.add_argument("--widths", type=int, nargs="+", default=[48, 128], help="feature channels a level")
    parser.add_argument("--sigma-max", type=float, help="train on levels below it only")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    names = ("name", "side", "grow", "minutes", "budget", "widths", "sigma_max", "batch", "rate", "seed", "device")
    settings = {name: getattr(arguments, name) for name in names}
    settings |= {
        "machine": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
    }
    train(arguments.out, arguments.data, arguments.minutes, settings)


if __name__ == "__main__":
    main()
