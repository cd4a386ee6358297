"""What figures were taken on."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def find_chip(device: torch.device) -> str:
    """The model name of the GPU, or of the processor where the system tells it."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return find_processor()


def find_processor() -> str:
    """The model name of the processor where the system tells it."""
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text().splitlines() if listing.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def answer(command: list[str]) -> str | None:
    """What a command prints, or None where it cannot be run."""
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


def find_commit() -> str | None:
    """The commit of the sources in use, with `+` where files differ from it; None outside a clone of headstart."""
    git = ["git", "-C", str(Path(__file__).parent)]
    top = answer([*git, "rev-parse", "--show-toplevel"])
    if top is None or not (Path(top) / "python/headstart").is_dir():  # an installation inside of another clone
        return None
    return answer([*git, "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"])


def describe(device: torch.device | str = "cpu") -> dict[str, Any]:
    """The machine as JSON values: chip, driver, versions, load at this moment."""
    import torch

    from headstart import _core

    where = torch.device(device)
    about: dict[str, Any] = {
        "name": find_chip(where), "device": where.type, "processor": find_processor(), "processors": os.cpu_count(),
        "threads": torch.get_num_threads(), "load": os.getloadavg()[0], "isa": _core.isa(),
        "build": _core.build_info(), "python": platform.python_version(), "torch": str(torch.__version__),
        "headstart": metadata.version("headstart"), "commit": find_commit(),
    }  # fmt: skip
    if where.type == "cuda":
        at = torch.cuda.get_device_properties(where)
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = (answer(query) or "").partition("\n")[0] or None
        about |= {"driver": driver, "cuda_of_torch": torch.version.cuda, "memory": at.total_memory}
    return about
