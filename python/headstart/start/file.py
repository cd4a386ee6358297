"""An initializer as one safetensors file: tensors and a JSON header. Reading it runs no code."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from headstart.argument import require_path
from headstart.io import output
from headstart.io.bound import DataError, brief, parse_json
from headstart.io.tensor_file import read_safetensors_file

FORMAT, VERSION = "headstart", 1


def write(path: str | Path, header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write tensors and a header; the file appears whole or not at all.

    Args:
        path: file to write or replace; its folder is made where missing.
        header: JSON values; format and version are added.
        tensors: named tensors.

    Raises:
        OSError: the file cannot be written.
    """
    path = require_path("save", path)
    text = json.dumps({"format": FORMAT, "version": VERSION, **header})
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    try:
        output.write(path, lambda temporary: save_file(tensors, temporary, {FORMAT: text}))
    except SafetensorError as error:  # the library keeps the system's error as text
        code = re.search(r"os error (\d+)", str(error))
        if code is None:
            raise OSError(f"save: cannot write {path}: {error}") from error
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from error


def read(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors (on the CPU) of a file that `write` made.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, foreign, of a later version, or larger than the memory.
    """
    path = require_path("load", path)
    try:
        metadata, tensors = read_safetensors_file(path)
        header = parse_json(metadata.get(FORMAT, "null"), path)
    except FileNotFoundError:
        raise FileNotFoundError(f"load: there is no file {path}") from None
    except DataError as error:
        raise ValueError(f"load: {error}") from error
    try:
        version = int(header["version"])
        if header["format"] != FORMAT or version < 1:
            raise ValueError(f"format {brief(header['format'])}, version {brief(version)}")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"load: {path} is a safetensors file, but not one that headstart saved") from error
    if version > VERSION:
        raise ValueError(
            f"load: {path} has version {brief(version)}, this headstart reads up to {VERSION}: upgrade headstart"
        )
    return header, tensors
