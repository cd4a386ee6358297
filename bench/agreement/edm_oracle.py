"""What EDM's and EDM2's own code makes of small networks: the oracle of `bench.agreement` and of their tests.

    python bench/agreement/edm_oracle.py edm CHECKOUT FOLDER     pickles and outputs, of the draws in FOLDER/draws.pt
    python bench/agreement/edm_oracle.py edm CHECKOUT            the figures in edm_figures.json recorded again

Weights are a formula of tensor name and index, so that the figures hold without the checkout.
"""

from __future__ import annotations

import hashlib
import json
import math
import pickle
import sys
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

FIGURES = Path(__file__).with_name("edm_figures.json")
LEVELS: tuple[Any, ...] = (0.05, 0.7, 20.0, [0.1, 1.0, 5.0])
BATCH, STEPS, EVERY = 3, 6, 37
CHURN, CHURN_NOISE, GUIDANCE = 1.0, 1.003, 1.7
LABEL = [0, 2, 1]


class Case(NamedTuple):
    """A network: its class in the project, its arguments, and the type its tensors are stored in."""

    name: str
    arguments: dict[str, Any]
    half: bool = False


DDPMPP = {
    "model_type": "SongUNet",
    "model_channels": 16,
    "channel_mult": [1, 2],
    "num_blocks": 2,
    "attn_resolutions": [4],
}
NCSNPP = {
    "model_type": "SongUNet", "model_channels": 16, "channel_mult": [2, 2], "num_blocks": 1, "attn_resolutions": [4, 8],
    "embedding_type": "fourier", "encoder_type": "residual", "channel_mult_noise": 2, "resample_filter": [1, 3, 3, 1],
}  # fmt: skip
SKIP = {
    "model_type": "SongUNet", "model_channels": 8, "channel_mult": [1, 2, 1], "num_blocks": 1, "attn_resolutions": [4],
    "encoder_type": "skip", "decoder_type": "skip", "resample_filter": [1, 3, 3, 1],
}  # fmt: skip
ADM = {
    "model_type": "DhariwalUNet", "model_channels": 32, "channel_mult": [1, 2], "num_blocks": 1,
    "attn_resolutions": [4, 8],
}  # fmt: skip
NETWORKS = {"ddpmpp": DDPMPP, "ncsnpp": NCSNPP, "skip": SKIP, "adm": ADM}
FACTORS: dict[str, dict[str, Any]] = {
    "VPPrecond": {"beta_d": 18.0, "M": 100},  # few steps: their float32 c_noise stays close to ours
    "VEPrecond": {"label_dim": 3},
    "iDDPMPrecond": {"augment_dim": 2},
    "EDMPrecond": {"label_dim": 3, "augment_dim": 2, "sigma_data": 0.6},
}
LATENT = {"img_resolution": 8, "img_channels": 4, "model_channels": 16, "channels_per_head": 16, "num_blocks": 1}
OPTIONS = {
    "label_dim": 3, "channel_mult": [1, 2, 2], "attn_resolutions": [4],
    "channel_mult_noise": 1, "channel_mult_emb": 2, "resample_filter": [1, 3, 3, 1], "clip_act": 2,
    "concat_balance": 0.3, "label_balance": 0.7, "sigma_data": 0.4,
}  # fmt: skip
CASES = {
    "edm": {
        f"{network}-{factors}": Case(factors, {"img_resolution": 8, "img_channels": 3, **NETWORKS[network], **own})
        for network in NETWORKS
        for factors, own in FACTORS.items()
    },
    "edm2": {
        "plain": Case("Precond", {**LATENT, "label_dim": 0, "channel_mult": [1, 2], "attn_resolutions": [4]}),
        "options": Case("Precond", {**LATENT, **OPTIONS}),
        "stored-half": Case("Precond", {**LATENT, "label_dim": 3, "channel_mult": [1, 2]}, half=True),
    },
}


def numbers(name: str, shape: tuple[int, ...]) -> Tensor:
    """Uniform numbers in [-0.5, 0.5), a function of name and index alone."""
    z = np.arange(math.prod(shape), dtype=np.uint64) + np.uint64(zlib.crc32(name.encode()) << 20)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
    z ^= z >> np.uint64(31)
    return torch.from_numpy((z >> np.uint64(11)).astype(np.float64) / 2**53 - 0.5).reshape(shape)


def weight(name: str, shape: tuple[int, ...]) -> Tensor:
    """The tensor of that name: of unit scale over its inputs, norms about 1, nothing zero."""
    v = numbers(name, shape)
    if len(shape) > 1:
        return (v * math.sqrt(12 / math.prod(shape[1:]))).float()
    return (v + 1 if "norm" in name and name.endswith("weight") else v + 0.8 if not shape else v).float()


def is_free(name: str) -> bool:
    """Whether a tensor is learned or random: filters and levels are functions of the arguments."""
    return not name.endswith("resample_filter") and name != "u"


def inputs(arguments: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
    """States of unit scale, and conditions by the names that `headstart` gives them."""
    side = arguments["img_resolution"]
    cond = {"label": torch.tensor(LABEL)} if arguments.get("label_dim") else {}
    if size := arguments.get("augment_dim"):
        cond["augment_labels"] = numbers("augment", (BATCH, size)).float()
    return 3 * numbers("x", (BATCH, arguments["img_channels"], side, side)).float(), cond


def noised(x: Tensor, level: Any) -> tuple[Tensor, Tensor]:
    """States and levels of a call."""
    sigma = torch.tensor(level)
    return x * (1 + sigma.reshape(-1, 1, 1, 1)), sigma


def summary(out: Tensor) -> list[float]:
    """Norm and some entries, to nine digits."""
    flat = out.detach().double().flatten()
    return [float(f"{value:.9g}") for value in [flat.norm().item(), *flat[::EVERY].tolist()]]


def names(tensors: dict[str, Tensor]) -> str:
    """A digest of names and shapes."""
    lines = sorted(f"{name} {list(value.shape)}" for name, value in tensors.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def ramp() -> Tensor:
    """Images `[1, 3, 3, 501]` through and beyond the range of bytes, halves between two bytes among them."""
    even = torch.arange(4505) / 4505 * 2.4 - 1.2
    halves = torch.tensor([0.5, 1.5, 2.5, 127.5]) / 127.5 - 1
    return torch.cat([even, halves]).reshape(1, 3, 3, 501)


def latents() -> Tensor:
    """Final latents `[2, 4, 3, 5]`."""
    return 4 * numbers("latents", (2, 4, 3, 5)).float()


def main(project: str, checkout: str, folder: Path | None) -> None:
    """Runs the project's code on every case."""
    sys.path.insert(0, checkout)
    if project == "edm":
        from generate import edm_sampler
        from training import networks
    else:
        from generate_images import edm_sampler
        from training import networks_edm2 as networks
    figures = {key: run(networks, CASES[project], key, edm_sampler, folder) for key in CASES[project]}
    if project == "edm2":
        figures["latents"] = encoders(folder)
    if folder is None:
        known = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
        known = {**known, project: figures}
        rows = ",\n".join(f'"{name}": {{\n{lines(known[name])}\n}}' for name in sorted(known))
        FIGURES.write_text(f"{{\n{rows}\n}}\n")


def lines(cases: dict[str, Any]) -> str:
    """One line a case."""
    return ",\n".join(f'"{key}": {json.dumps(cases[key], sort_keys=True)}' for key in sorted(cases))


def made(networks: Any, case: Case) -> Any:
    """The project's network of a case."""
    net = getattr(networks, case.name)(**case.arguments).eval().requires_grad_(False)
    for name, value in [*net.named_parameters(), *net.named_buffers()]:
        if is_free(name):
            value.copy_(weight(name, tuple(value.shape)))
    return net.half() if case.half else net


def run(networks: Any, cases: dict[str, Case], key: str, edm_sampler: Any, folder: Path | None) -> dict[str, Any]:
    """One network's figures; in a folder, its pickle and whole outputs."""
    case, net = cases[key], made(networks, cases[key])
    x, cond = inputs(case.arguments)
    classes = torch.eye(3)[cond["label"]] if "label" in cond else None
    extra = {name: value for name, value in cond.items() if name != "label"}
    outputs = {str(level): net(*noised(x, level), classes, **extra) for level in LEVELS}
    outputs["no class"] = net(*noised(x, 0.7))
    options: dict[str, Any] = {"num_steps": STEPS} | ({} if hasattr(net, "sigma_min") else {"dtype": torch.float64})
    outputs["sample"] = edm_sampler(net, x, classes, **options)
    raw = net.model if hasattr(net, "model") else net.unet
    outputs["half"] = raw(x.half(), torch.tensor([0.3]), classes, **extra)[:, : x.shape[1]]
    figures = {"tensors": names(net.state_dict()), **{name: summary(out) for name, out in outputs.items()}}
    if folder is not None:
        if not hasattr(net, "u"):  # the levels that churn raises to are rounded to the table, by that sampler alone
            draws = iter(torch.load(folder / "draws.pt", weights_only=True))
            churn = {"S_churn": CHURN, "S_noise": CHURN_NOISE, "randn_like": lambda like: next(draws)}
            outputs["churn"] = edm_sampler(net, x, classes, **options, **churn)
        if "plain" in cases:
            guide = made(networks, cases["plain"])
            outputs["autoguidance"] = edm_sampler(net, x, classes, guide, guidance=GUIDANCE, **options)
        with (folder / f"{key}.pkl").open("wb") as file:
            pickle.dump({"ema": net}, file)
        torch.save(outputs, folder / f"{key}.pt")
    return figures


def encoders(folder: Path | None) -> dict[str, Any]:
    """Digests of the bytes that EDM2 makes of images and latents; in a folder, the bytes."""
    from training.encoders import StabilityVAEEncoder, StandardRGBEncoder

    vae = StabilityVAEEncoder()
    vae._vae, vae.init = type("Identity", (), {"decode": staticmethod(lambda x: {"sample": x})}), lambda device: None
    images = {"rgb": StandardRGBEncoder().decode(ramp()), "vae": vae.decode(latents())}
    final = vae.encode_latents(torch.cat([latents(), torch.zeros_like(latents())], dim=1))
    if folder is not None:
        torch.save({**images, "final": final}, folder / "latents.pt")
    digests = {name: hashlib.sha256(out.numpy().tobytes()).hexdigest() for name, out in images.items()}
    return {**digests, "final": summary(final)}


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]) if len(sys.argv) > 3 else None)
