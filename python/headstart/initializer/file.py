"""An initializer as one safetensors file: tensors and a JSON header. Reading it runs no code."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from headstart import output

if TYPE_CHECKING:
    from headstart.initializer.family import Mixture
    from headstart.initializer.flow import Flow
    from headstart.initializer.tarflow import TarFlow

FORMAT, VERSION = "headstart", 1


def write(path: str | Path, header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write tensors and a header; the file appears whole or not at all.

    Args:
        path: File to write or replace; its folder is made where missing.
        header: JSON values; format and version are added.
        tensors: Named tensors.

    Raises:
        OSError: The file cannot be written.
    """
    text = json.dumps({"format": FORMAT, "version": VERSION, **header})
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    try:
        output.write(Path(path), lambda temporary: save_file(tensors, temporary, {FORMAT: text}))
    except SafetensorError as error:  # the library keeps the system's error as text
        code = re.search(r"os error (\d+)", str(error))
        if code is None:
            raise OSError(f"save: cannot write {path}: {error}") from error
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from error


def read(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors (on the CPU) of a file that `write` made.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is truncated, foreign, or of a later version.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"load: there is no file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"load: {path} is truncated or no safetensors file ({error})") from error
    try:
        header = json.loads(metadata[FORMAT])
        version = int(header["version"])
        if header["format"] != FORMAT or version < 1:
            raise ValueError(f"format {header['format']!r}, version {version}")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"load: {path} is a safetensors file, but not one that headstart saved") from error
    if version > VERSION:
        raise ValueError(f"load: {path} has version {version}, this headstart reads up to {VERSION}: upgrade headstart")
    return header, tensors


def load(path: str | Path) -> Mixture | Flow | TarFlow:
    """The initializer saved at `path`, on the CPU.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is truncated, foreign, of a later version, of an unknown family, or its tensors are
            missing or disagree in shape.
        ImportError: A `Flow`, and zuko is missing.
    """
    from headstart.initializer.flow import Flow  # families import this file
    from headstart.initializer.mixture import GaussianMixture
    from headstart.initializer.student import StudentTMixture
    from headstart.initializer.tarflow import TarFlow

    families: dict[Any, type[Mixture | Flow | TarFlow]] = {
        family.__name__: family for family in (GaussianMixture, StudentTMixture, Flow, TarFlow)
    }
    header, tensors = read(path)
    family = header.get("family")
    if family not in families:
        raise ValueError(f"load: {path} holds the family {family!r}, known are {sorted(families)}")
    try:
        return families[family].from_file(header, tensors)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"load: {path} is damaged: {error}") from error
