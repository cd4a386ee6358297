"""One pool of threads: the kernels run on the OpenMP runtime that torch has loaded."""

from __future__ import annotations

import ctypes
from pathlib import Path

from headstart import _core


def share() -> bool:
    """Hands torch's GNU OpenMP runtime to the kernels; False where torch has none (then they start plain threads)."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return False
    paths = {line.split(maxsplit=5)[-1].strip() for line in maps.read_text().splitlines() if "libgomp" in line}
    torch_first = sorted(paths, key=lambda path: "torch" not in path)
    if not torch_first:
        return False
    runtime = ctypes.CDLL(torch_first[0])
    names = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")
    parallel, thread, team = (ctypes.cast(getattr(runtime, name), ctypes.c_void_p).value or 0 for name in names)
    _core.set_openmp(parallel, thread, team)
    return True
