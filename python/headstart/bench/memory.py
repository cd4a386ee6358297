"""The most memory a piece of work held."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def resident(name: str) -> int:
    """`VmRSS` (now) or `VmHWM` (the most since it was reset) of this process, in bytes."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(name))
    return 1024 * int(line.split()[1])


def trim() -> None:
    """Hands memory that is free back to the system."""
    release = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if release is not None:
        release(0)


def high_water(run: Callable[[], object], device: torch.device) -> int | None:
    """Bytes that `run()` held at most beyond what was held before; None where the system does not tell.

    On a GPU torch's allocations; on a CPU the process's resident memory, after what earlier calls left to the allocator
    is handed back where the C library can (glibc); elsewhere that does not count again.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    try:
        trim()
        CLEAR.write_text("5")  # VmHWM falls to what is held now
        before = resident("VmRSS")
        run()
        return max(0, resident("VmHWM") - before)
    except (OSError, StopIteration, ValueError):
        run()
        return None
