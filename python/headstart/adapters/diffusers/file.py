"""A saved network of diffusers and its scheduler, read from a folder: nothing is downloaded, no pickle is opened."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from headstart.adapters.diffusers.network import Network, denoiser

PARTS = ("unet", "transformer", "")  # folders of the network in a pipeline's; "": the folder itself


def load(
    path: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None, **options: Any
) -> Network:
    """The denoiser of a folder that `save_pretrained` wrote: a pipeline's, or one with `config.json` and a scheduler.

    Args:
        path: a folder with `unet` or `transformer` (or the network itself), and `scheduler` (or
            `scheduler_config.json` itself).
        device: where the weights go.
        dtype: of the weights; None: float32.
        options: `whole_timesteps`, `timestep_scale` and `null_label` of `denoiser`.

    Raises:
        ImportError: diffusers is not installed.
        FileNotFoundError: no such folder, or one without network, scheduler or safetensors weights.
        ValueError: a configuration that names no network or scheduler of diffusers; as `denoiser`.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise FileNotFoundError(2, "no such folder", str(path))
    place = next((folder / part for part in PARTS if (folder / part / "config.json").is_file()), None)
    if place is None:
        raise FileNotFoundError(
            2, "holds no network (unet/config.json, transformer/config.json, config.json)", str(path)
        )
    if not any(place.glob("*.safetensors")):
        raise FileNotFoundError(2, "holds no safetensors weights; pickles are not opened", str(place))
    rules = next(
        (folder / part for part in ("scheduler", "") if (folder / part / "scheduler_config.json").is_file()), None
    )
    if rules is None:
        raise FileNotFoundError(2, "holds no scheduler (scheduler/scheduler_config.json)", str(path))
    network_class = class_of(place / "config.json", "ModelMixin")
    scheduler = class_of(rules / "scheduler_config.json", "SchedulerMixin").from_pretrained(
        rules, local_files_only=True
    )
    network = network_class.from_pretrained(
        place, local_files_only=True, use_safetensors=True, torch_dtype=dtype,
        low_cpu_mem_usage=find_spec("accelerate") is not None,  # asked for without accelerate, it warns
    )  # fmt: skip
    return denoiser(network.to(device).eval().requires_grad_(False), scheduler, **options)


def class_of(config: Path, kind: str) -> Any:
    """The class of diffusers that a configuration names, a `ModelMixin` or a `SchedulerMixin`.

    Raises:
        ImportError: diffusers is not installed.
        ValueError: it names none.
    """
    try:
        import diffusers
    except ImportError:
        raise ImportError('reading a diffusers folder needs diffusers: pip install "headstart[diffusers]"') from None
    try:
        name = json.loads(config.read_text()).get("_class_name")
    except (UnicodeDecodeError, json.JSONDecodeError, AttributeError):
        raise ValueError(f"{config}: must be a configuration in JSON") from None
    found = getattr(diffusers, name, None) if isinstance(name, str) else None
    if not (isinstance(found, type) and issubclass(found, getattr(diffusers, kind))):
        raise ValueError(f"{config}: _class_name must be a {kind} of diffusers, got {name!r}")
    return found
