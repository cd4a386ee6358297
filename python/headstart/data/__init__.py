"""Reading data sets: folders and zip files of images or latents, npy, npz, pt, safetensors and idx files, the zoo.

No file is trusted: pickled objects are refused, sizes are checked against the file, and every error is one sentence
that names the file.
"""

from headstart.data.dataset import DataError, Dataset
from headstart.data.idx import read_idx
from headstart.data.read import read_classes, read_dataset, stream

__all__ = ["DataError", "Dataset", "read_classes", "read_dataset", "read_idx", "stream"]
