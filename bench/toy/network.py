"""The trained denoiser of the toy problems: a small EDM-preconditioned network."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn

import headstart as hs
from bench.toy.law import Toy
from headstart.io.output import write

HIDDEN, BATCH = 256, 1024
MEAN, SPREAD = -0.4, 1.6  # of ln sigma in training: 0.02 to 20 within two standard deviations


class Network(nn.Module):
    """`F(x, c_noise)`: three hidden layers, the noise level through sines."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("frequency", math.pi * 2.0 ** torch.arange(-1, 4))
        widths = [dim + 2 * len(self.frequency), HIDDEN, HIDDEN, HIDDEN]
        layers = [layer for a, b in zip(widths, widths[1:]) for layer in (nn.Linear(a, b), nn.SiLU())]  # noqa: B905, RUF007
        self.layers = nn.Sequential(*layers, nn.Linear(HIDDEN, dim))

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        phase = c_noise.expand(len(x))[:, None] * self.frequency
        return self.layers(torch.cat([x, phase.sin(), phase.cos()], 1))


def network(toy: Toy, data: Tensor, seed: int, steps: int, path: Path) -> hs.EDM:
    """The denoiser trained on `data`, its averaged weights kept in `path`.

    Loss: `E |D(x_0 + sigma n, sigma) - x_0|^2 / c_out^2`, `ln sigma ~ N(MEAN, SPREAD^2)` ("Elucidating the Design Space
    of Diffusion-Based Generative Models", Karras et al., 2022, https://arxiv.org/abs/2206.00364).
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = Network(toy.dim)
        denoiser = hs.EDM(net, sigma_data=1.0)
        if path.exists():
            net.load_state_dict(torch.load(path, weights_only=True))
            return denoiser
        average = torch.optim.swa_utils.AveragedModel(
            net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.998)
        )
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        data = data.float()
        for _ in range(steps):
            x0 = data[torch.randint(len(data), (BATCH,))]
            sigma = (MEAN + SPREAD * torch.randn(BATCH)).exp()
            error = denoiser(x0 + sigma[:, None] * torch.randn_like(x0), sigma) - x0
            loss = (error.square().mean(1) * (sigma**2 + 1) / sigma**2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            average.update_parameters(net)
        net.load_state_dict(average.module.state_dict())
        write(path, lambda temporary: torch.save(net.state_dict(), temporary))
    return denoiser
