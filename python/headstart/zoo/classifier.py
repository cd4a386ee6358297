"""The zoo's classifier: which class an image looks like, for measuring whether samples look like what was asked for.

Three convolutions with group normalization, each followed by a halving of the resolution, a global mean and a linear
map; trained on Fashion-MNIST by `bench/zoo/train_classifier.py`.
"""

from __future__ import annotations

import torch
from safetensors import safe_open
from torch import Tensor, nn

from headstart.zoo import locate

FORMAT = "headstart-zoo-classifier"
SIDE = 28  # of the images it was trained on


class Classifier(nn.Module):
    """Logits `[B, classes]` of images `[B, C, H, W]` in [-1, 1].

    Args:
        channels: image channels C.
        widths: feature channels of the three convolutions.
        classes: number of classes.
    """

    def __init__(self, channels: int = 1, widths: tuple[int, ...] = (32, 64, 96), classes: int = 10) -> None:
        super().__init__()
        self.config = {"channels": channels, "widths": list(widths), "classes": classes}
        layers: list[nn.Module] = []
        for before, after in zip((channels, *widths[:-1]), widths, strict=True):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.GroupNorm(8, after), nn.ReLU(), nn.MaxPool2d(2)]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1] * 9, classes)
        self.pool = nn.AdaptiveAvgPool2d(3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.pool(self.body(images)).flatten(1))


def classifier(name: str = "fashion", device: str | torch.device = "cpu") -> Classifier:
    """The classifier trained on the images of the zoo's `name`.

    Raises:
        ValueError: an unknown name, or a file of another format.
        FileNotFoundError: the weights are not part of this installation.
    """
    path = locate(name, "-classifier.safetensors")
    with safe_open(path, framework="pt") as file:
        header = file.metadata() or {}
        if header.get("format") != FORMAT:
            raise ValueError(f"zoo: {path.name} must have format {FORMAT}, got {header.get('format')!r}")
        weights = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):  # its first weights are drawn, and replaced
        network = Classifier().float()
    network.load_state_dict(weights)
    return network.to(device).eval().requires_grad_(False)
