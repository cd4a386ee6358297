"""The same bits on another processor: the CPU loops built for 64-bit ARM, whose vector unit is NEON, and emulated."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from headstart import ops

HERE = Path(__file__).parent
SOURCES = HERE.parents[1] / "csrc"
COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
FLAGS = ["-std=c++17", "-O2", "-static", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]


@pytest.mark.skipif(not shutil.which(COMPILER) or not shutil.which(EMULATOR), reason=f"needs {COMPILER} and {EMULATOR}")
def test_noise_and_rows_have_the_same_bits_on_arm(tmp_path: Path) -> None:
    sources = [*sorted((SOURCES / "cpu").glob("*.cpp")), HERE / "arm" / "rows.cpp"]
    program = tmp_path / "rows"
    flags = [*FLAGS, "-DHEADSTART_ISA=baseline", "-Wall", "-Wextra", "-Werror", "-Wno-psabi", "-pthread"]
    subprocess.run([COMPILER, *flags, *map(str, sources), "-o", str(program)], check=True)
    rows = subprocess.run([EMULATOR, str(program)], check=True, capture_output=True).stdout
    i = torch.arange(7 * 1003).view(7, 1003)
    x, y = (i % 97).float() / 64 - 0.5, (i % 89).float() / 32
    expected = ops.affine(x, 0.7, [(0.3, y)], ops.Noise(0.9, 0x9E3779B97F4A7C15, 6, 5))
    assert rows == expected.numpy().tobytes()
