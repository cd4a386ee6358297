"""Builds csrc/cuda for the host (see cuda_runtime.h here) and calls it on CPU tensors."""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
from ctypes import POINTER, Structure, byref, c_char_p, c_double, c_int, c_int64, c_uint32, c_uint64, c_void_p
from pathlib import Path

import torch
from torch import Tensor

HERE = Path(__file__).parent
SOURCES = HERE.parents[2] / "csrc"
TYPE = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}


class Address(Structure):
    _fields_ = [
        ("seed", c_uint64),
        ("offset", c_uint32),
        ("step", c_uint32),
        ("stream", c_uint32),
        ("origin", c_void_p),
    ]


class Affine(Structure):
    _fields_ = [
        *[("rows", c_int64), ("columns", c_int64), ("type", c_int), ("x", c_void_p), ("a", c_double)],
        *[("inputs", c_int), ("y", c_void_p * 4), ("y_type", c_int * 4), ("b", c_double * 4)],
        *[("noise_scale", c_double), ("address", Address), ("out", c_void_p)],
        *[("out_scaled", c_void_p), ("out_scaled_type", c_int), ("scale", c_double)],
    ]


class Mixture(Structure):
    _fields_ = [
        *[("rows", c_int64), ("components", c_int64), ("columns", c_int64), ("rank", c_int64), ("type", c_int)],
        *[("x", c_void_p), ("mean", c_void_p), ("precision", c_void_p), ("keep", c_void_p)],
        *[("variance_columns", c_int64), ("axes", c_void_p), ("drop", c_void_p), ("gain", c_void_p)],
        *[("log_constant", c_void_p), ("log_constant_stride", c_int64), ("projection", c_void_p)],
        *[("whitening", c_void_p), ("log_prob", c_void_p), ("responsibility", c_void_p)],
        *[("denoised", c_void_p), ("coefficient", c_void_p)],
    ]


class MixtureSample(Structure):
    _fields_ = [
        *[("rows", c_int64), ("columns", c_int64), ("rank", c_int64), ("type", c_int), ("component", c_void_p)],
        *[("mean", c_void_p), ("deviation", c_void_p), ("variance_columns", c_int64), ("axes", c_void_p)],
        *[("factor", c_void_p), ("floor", Address), ("along", Address), ("out", c_void_p)],
    ]


class Uniform(Structure):
    _fields_ = [("rows", c_int64), ("address", Address), ("out", c_void_p)]


STRUCTS: dict[str, type[Structure]] = {
    "shim_affine": Affine,
    "loop_affine": Affine,
    "shim_mixture": Mixture,
    "shim_mixture_sample": MixtureSample,
    "loop_mixture_sample": MixtureSample,
    "shim_uniform": Uniform,
}


def missing() -> str | None:
    """Why the kernels cannot be built here, or None."""
    if shutil.which("g++") is None:
        return "needs g++ to build the CUDA kernels for the host"
    return None if SOURCES.is_dir() else f"needs the sources in {SOURCES}"


@functools.cache
def build() -> ctypes.CDLL:
    """Compiles kernels and shim, once a process, and loads them.

    With HEADSTART_SANITIZE set they check addresses and undefined behaviour, in a process that has the sanitizers.
    """
    sources = [*sorted((SOURCES / "cuda").glob("*.cu")), *sorted(HERE.glob("*.cpp"))]
    flags = ["-std=c++17", "-O1", "-fPIC", "-ffp-contract=off", "-fno-strict-aliasing", "-U_FORTIFY_SOURCE"]
    flags += ["-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-DHEADSTART_CUDA_ON_HOST", f"-I{HERE}"]
    flags += ["-include", str(HERE / "cuda_runtime.h")]
    if os.environ.get("HEADSTART_SANITIZE"):
        flags += ["-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    with tempfile.TemporaryDirectory() as folder:
        library = f"{folder}/kernels.so"
        subprocess.run(["g++", *flags, "-shared", "-x", "c++", *map(str, sources), "-o", library], check=True)
        loaded = ctypes.CDLL(library)
    for name, struct in STRUCTS.items():
        function = getattr(loaded, name)
        function.argtypes, function.restype = [POINTER(struct)], c_char_p
    loaded.shim_size.restype = c_int64
    loaded.shim_divide.argtypes, loaded.shim_divide.restype = [c_uint64] * 3, c_uint64
    for which, struct in enumerate([Affine, Mixture, MixtureSample, Uniform]):
        assert loaded.shim_size(which) == ctypes.sizeof(struct), f"{struct.__name__} differs from csrc/kernels.h"
    return loaded


def call(library: ctypes.CDLL, name: str, params: Structure) -> None:
    """Runs one entry point, and fails with its error text if it returns one."""
    error = getattr(library, name)(byref(params))
    assert error is None, error


class Guarded:
    """A tensor inside a larger buffer of sentinels, `shift` elements off a 64-byte boundary."""

    def __init__(self, value: Tensor, shift: int = 0) -> None:
        margin = 64
        self.buffer = torch.full((value.numel() + 3 * margin + shift,), 7, dtype=value.dtype)
        if value.dtype.is_floating_point:
            self.buffer.fill_(float("nan"))
        to_boundary = -(self.buffer.data_ptr() // value.element_size()) % margin
        self.start = margin + to_boundary + shift
        self.inside = self.buffer[self.start : self.start + value.numel()]
        self.inside.copy_(value.reshape(-1))
        self.tensor = self.inside.view(value.shape)

    @property
    def pointer(self) -> int:
        return self.buffer.data_ptr() + self.start * self.buffer.element_size()

    def intact(self) -> bool:
        """Whether the sentinels on both sides still stand."""
        sides = torch.cat([self.buffer[: self.start], self.buffer[self.start + self.inside.numel() :]])
        return bool((sides.isnan() if sides.is_floating_point() else sides == 7).all())
