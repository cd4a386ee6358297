"""Reading data sets: folders of images, npy, npz, pt and idx files, and the zoo's own images.

No file is trusted: pickled objects are refused, sizes are checked against the file, and every error is one sentence
that names the file.
"""

from headstart.data.dataset import DataError, Dataset
from headstart.data.idx import read_idx
from headstart.data.read import read_dataset

__all__ = ["DataError", "Dataset", "read_dataset", "read_idx"]
