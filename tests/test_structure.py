"""The directions in which modules may import each other."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import headstart

ROOT = Path(headstart.__file__).parent
FORBIDDEN = {
    "solver": ["headstart.start", "headstart.ops", "headstart.sampling._sample", "headstart.fitting", "torch"],
    "initializer": ["headstart.solver", "headstart.sampling._sample", "headstart.solver.grid", "headstart.cli"],
    "fitting": ["headstart.solver", "headstart.sampling._sample", "headstart.cli"],
    "ops": [
        "headstart.solver",
        "headstart.start",
        "headstart.sampling._sample",
        "headstart.denoiser",
        "headstart.solver.grid",
    ],
    "adapters/edm": ["headstart.solver", "headstart.sampling._sample", "headstart.fitting", "headstart.cli"],
    "bench": ["headstart.cli"],
    "metrics": ["headstart.solver", "headstart.start", "headstart.sampling._sample", "headstart.cli"],
    "data": [
        "headstart.start",
        "headstart.fitting",
        "headstart.sampling._sample",
        "headstart.metrics",
        "headstart.cli",
    ],
    "compare": ["headstart.cli", "headstart.bench"],
    "sample.py": ["headstart.fitting", "headstart.cli", "headstart.sampling.sampler"],
    "sampler.py": ["headstart.fitting", "headstart.cli", "headstart.sampling._sample"],
    "request.py": ["headstart.fitting", "headstart.cli", "headstart.sampling._sample", "headstart.sampling.loop"],
    "descent.py": ["headstart.start", "headstart.sampling._sample", "headstart.fitting", "headstart.cli"],
    "branch.py": [
        "headstart.start",
        "headstart.sampling._sample",
        "headstart.sampling.loop",
        "headstart.fitting",
        "headstart.cli",
    ],
    "guidance.py": [
        "headstart.start",
        "headstart.solver",
        "headstart.ops",
        "headstart.sampling.loop",
        "headstart.sampling._sample",
    ],
    "capture.py": ["headstart"],
    "grid.py": ["headstart"],
    "denoiser.py": ["headstart"],
}


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("room", FORBIDDEN)
def test_imports_flow_one_way(room: str) -> None:
    files = [ROOT / room] if room.endswith(".py") else sorted((ROOT / room).rglob("*.py"))
    assert files
    for path in files:
        for name in imports(path):
            for barred in FORBIDDEN[room]:
                assert not f"{name}.".startswith(f"{barred}."), f"{path} imports {name}"


def test_optional_libraries_wait_until_they_are_used() -> None:
    """Naming the adapters imports them alone: what they adapt comes with the first network or file."""
    code = "import sys, headstart as hs; hs.diffusers.denoiser; hs.adapters.kdiffusion.model; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "headstart.adapters.diffusers" in loaded
    assert not {"diffusers", "k_diffusion", "matplotlib", "transformers", "zuko"} & set(loaded)
