"""Reading whole folders and zip files of images or latents, at once or a batch at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import torch

from headstart.io.array_file import TO_FLOAT
from headstart.io.bound import DataError, require_memory
from headstart.io.dataset import Dataset, to_samples
from headstart.io.member import Archive, Folder, Members, describe
from headstart.io.progress import track


def open_members(
    path: Path, size: int | None = None, classes: Collection[int] | None = None, seed: int | None = None
) -> Members:
    """The members of a folder or zip file, none of them read yet; arguments as `Members`."""
    return Members(Folder(path) if path.is_dir() else Archive(path), size, classes, seed)


def batches(members: Members, batch: int) -> Iterator[Dataset]:
    """The members `batch` at a time, checked against the first.

    Raises:
        DataError: a member that cannot be read, or of another size, number of channels or type than the first.
    """
    first = members[0]
    require_memory(min(batch, len(members)) * first.size * (first.itemsize + TO_FLOAT), members.place.path)
    for begin in range(0, len(members), batch):
        end = min(begin + batch, len(members))
        held = np.empty((end - begin, *first.shape), dtype=first.dtype)
        for index in range(begin, end):
            sample = members[index]
            require_alike(sample, first, f"{members.place.path}/{members.names[index]}", members.names[0])
            held[index - begin] = sample
        labels = (
            None if members.labels is None else torch.tensor(members.labels[begin:end], dtype=torch.int64, device="cpu")
        )
        yield Dataset(to_samples(held, str(members.place.path)), labels, members.classes)


def require_alike(sample: np.ndarray, first: np.ndarray, name: str, first_name: str) -> None:
    """One line for the sample that differs from the first."""
    if sample.shape == first.shape and sample.dtype == first.dtype:
        return
    if sample.dtype != np.uint8 or first.dtype != np.uint8:
        raise DataError(f"{name}: is {describe(sample)}, but {first_name} is {describe(first)}")
    form, others = "(height x width x channels)", describe(first)
    if sample.shape[-1] != first.shape[-1]:
        raise DataError(f"{name}: image is {describe(sample)} {form}, {first_name} is {others}; channels must be equal")
    sizes = [words.partition(",")[0] for words in (describe(sample), others)]
    raise DataError(f"{name}: image is {sizes[0]} {form}, {first_name} is {sizes[1]}; --size makes them equal")


def read_members(members: Members, batch: int = 256, progress: bool = False) -> Dataset:
    """All members as one data set, `Dataset` in memory.

    Raises:
        DataError: as `batches`.
    """
    images, done = None, 0
    require_memory(len(members) * members[0].size * TO_FLOAT, members.place.path)
    with track("reading", -(-len(members) // batch), progress) as advance:
        for part in batches(members, batch):
            if images is None:
                images = torch.empty(len(members), *part.images.shape[1:], dtype=torch.float32, device="cpu")
            images[done : done + len(part.images)] = part.images
            done += len(part.images)
            advance()
    assert images is not None
    return Dataset(
        images,
        None if members.labels is None else torch.tensor(members.labels, dtype=torch.int64, device="cpu"),
        members.classes,
    )
