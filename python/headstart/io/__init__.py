"""Reading data sets: folders and zip files of images or latents, npy, npz, pt, safetensors and idx files, the zoo.

No file is trusted: pickled objects are refused, sizes are checked against the file, and every error is one sentence
that names the file.
"""

from headstart.io.dataset import DataError, Dataset
from headstart.io.source import read_classes, read_dataset, read_idx, stream

__all__ = ["DataError", "Dataset", "read_classes", "read_dataset", "read_idx", "stream"]
