"""Energy counters: joules since some moment, as the hardware counts them.

Through zeus: NVML's total energy of a GPU, RAPL's of a processor's packages where the kernel lets them be read.
Reference: "Zeus: Understanding and Optimizing GPU Energy Consumption of DNN Training" (You, Chung, Chowdhury, 2023,
https://www.usenix.org/conference/nsdi23/presentation/you).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

RAPL = Path("/sys/class/powercap/intel-rapl")


class Counter(Protocol):
    """A counter of energy.

    Attributes:
        name: what is counted, and by what.
    """

    @property
    def name(self) -> str: ...

    def joules(self) -> float:
        """Energy since some fixed moment, never falling."""
        ...


@dataclass(frozen=True)
class Reading:
    """A counter that asks a function."""

    name: str
    read: Callable[[], float]

    def joules(self) -> float:
        return self.read()


def find_counter(device: torch.device) -> Counter | str:
    """The counter of the device, or a sentence that says why there is none."""
    return gpu_counter(device.index or 0) if device.type == "cuda" else processor_counter()


def gpu_counter(index: int) -> Counter | str:
    """NVML's total energy of one GPU."""
    try:
        from zeus.device import get_gpus
    except ImportError:
        return "no energy counter on this machine: the extra headstart[energy] is not installed"
    try:
        gpus = get_gpus()  # numbered as torch numbers them, CUDA_VISIBLE_DEVICES included
        if not gpus.supports_get_total_energy_consumption(index):
            return f"no energy counter on this machine: GPU {index} has none"
        gpus.get_total_energy_consumption(index)
    except Exception as error:  # zeus has an error of its own for each driver's
        return f"no energy counter on this machine: {error}"
    return Reading(f"NVML total energy, GPU {index}", lambda: gpus.get_total_energy_consumption(index) / 1e3)


def processor_counter() -> Counter | str:
    """RAPL's energy of all packages."""
    if not RAPL.is_dir():
        return f"no energy counter on this machine: the kernel shows no RAPL ({RAPL} is not there)"
    try:
        from zeus.device import get_cpus
    except ImportError:
        return "no energy counter on this machine: the extra headstart[energy] is not installed"
    try:
        cpus = get_cpus()
        count = len(cpus)

        def read() -> float:
            return sum(cpus.get_total_energy_consumption(i).cpu_mj for i in range(count)) / 1e3

        read()
    except Exception as error:  # no right to read, no package: each an error of zeus's own
        return f"no energy counter on this machine: {error}"
    return Reading(f"RAPL packages, {count}", read)
