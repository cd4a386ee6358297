"""Reading data sets: folders and zip files of images or latents, npy, npz, pt, safetensors and idx files, the zoo.

No file is trusted: pickled objects are refused, sizes are checked against the file, and every error is one sentence
that names the file. A name is imported when it is first asked for: progress bars need no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headstart.io.bound import DataError
    from headstart.io.dataset import Dataset
    from headstart.io.source import read_classes, read_dataset, read_idx, stream

__all__ = ["DataError", "Dataset", "read_classes", "read_dataset", "read_idx", "stream"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    place = {"DataError": "bound", "Dataset": "dataset"}.get(name, "source")
    return getattr(importlib.import_module(f"{__name__}.{place}"), name)
