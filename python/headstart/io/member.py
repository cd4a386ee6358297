"""Images and arrays inside a folder or a zip file, with the labels they come with: one at a time, never unpacked.

EDM's data sets are zip files (or folders) of PNG members beside a `dataset.json` with
`{"labels": [["00000/img00000000.png", 3], ...]}` or `{"labels": null}`; EDM2's latents are npy members `[2 C, h, w]`
named `img-mean-std-*.npy`, the mean and the standard deviation of an encoder. Without `dataset.json`, classes are the
subfolders where all images lie in some ("Elucidating the Design Space of Diffusion-Based Generative Models", Karras et
al., 2022, https://arxiv.org/abs/2206.00364; "Analyzing and Improving the Training Dynamics of Diffusion Models", Karras
et al., 2024, https://arxiv.org/abs/2312.02696).

Reading one image file.
"""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from headstart import ops
from headstart.io.array_file import BROKEN, read_npy
from headstart.io.bound import (
    MAX_TEXT_BYTES,
    DataError,
    brief,
    open_regular,
    parse_json,
    read_stream,
    size_of,
    special_kind,
)

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
MODES = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB", "RGBA": "RGBA"}
COLOURS = {1: "grayscale", 3: "RGB", 4: "RGBA"}
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")  # by content; others run programs of the system
MAX_BYTES = 2**28  # of one image or latent, packed or not


def read_image(file: BinaryIO, name: str, size: int | None = None) -> np.ndarray:
    """uint8 `[H, W, C]` of one image (8 bits; grey, palette, RGB or RGBA), upright.

    Args:
        file: the content.
        name: what errors call it.
        size: None, or the side of a square the centre of the image is cropped and resized to.

    Raises:
        DataError: a file that cannot be read, or an image of another mode.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(file, formats=FORMATS) as opened:
                width, height = opened.size
                if width * height * max(3, len(opened.getbands())) > MAX_BYTES:
                    raise DataError(f"{name}: {width:,} x {height:,} pixels take more than {MAX_BYTES:,} bytes")
                image = ImageOps.exif_transpose(opened)
                mode = "RGBA" if image.mode == "P" and "transparency" in image.info else MODES.get(image.mode)
                if mode is None:
                    raise DataError(f"{name}: image mode must be one of {', '.join(MODES)}, got {image.mode}")
                image = image.convert(mode)
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError(f"{name}: not a readable image (no known format)") from None
    except (*BROKEN, OSError, SyntaxError, ValueError, TypeError, KeyError, Image.DecompressionBombError) as error:
        raise DataError(f"{name}: not a readable image ({brief(error)})") from None
    if size is not None:
        image = ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def describe(sample: np.ndarray) -> str:
    """Its size in words: `64x64x1, grayscale` of an image, `float32 4x64x64` of another array."""
    size = "x".join(map(str, sample.shape))
    if sample.dtype != np.uint8:
        return f"{sample.dtype} {size}"
    return f"{size}, {COLOURS[sample.shape[-1]]}" if sample.shape[-1] in COLOURS else size


META = "dataset.json"
MOMENTS = "mean-std"  # in a member's name: an encoder's mean and standard deviation


class Place(Protocol):
    """Where members lie: a folder or a zip file.

    Attributes:
        path: what errors call it.
    """

    path: Path

    def names(self) -> list[str]:
        """All files, relative, with forward slashes."""
        ...

    def read(self, name: str) -> bytes:
        """The content of one."""
        ...


class Folder:
    """Files of a folder and its subfolders; hidden ones are left out."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> list[str]:
        inside = ((path.relative_to(self.path), path) for path in self.path.rglob("*"))
        shown = ((place, path) for place, path in inside if not any(part.startswith(".") for part in place.parts))
        return [place.as_posix() for place, path in shown if not path.is_dir()]

    def read(self, name: str) -> bytes:
        path, most = self.path / name, most_bytes(name)
        try:
            with open_regular(path) as file:
                if size_of(file) > most:
                    raise DataError(f"{path}: holds {size_of(file):,} bytes, at most {most:,} are read")
                return read_stream(file, most, path)
        except FileNotFoundError:
            raise DataError(f"{path}: a link to nothing") from None


class Archive:
    """Members of a zip file.

    Raises:
        DataError: not a zip file, or a damaged, encrypted or very large member.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if (special := special_kind(path)) is not None:
            raise DataError(f"{path}: is {special}; only regular files are read")
        try:
            self.file = zipfile.ZipFile(path)
        except (ValueError, *BROKEN) as error:
            raise DataError(f"{path}: not a readable zip file, or cut short ({brief(error)})") from None

    def names(self) -> list[str]:
        return [name for name in self.file.namelist() if not name.endswith("/") and "__MACOSX/" not in name]

    def read(self, name: str) -> bytes:
        shown, most = f"{self.path}/{name}", most_bytes(name)
        try:
            info = self.file.getinfo(name)
            if info.file_size > most:
                raise DataError(f"{shown}: holds {info.file_size:,} bytes, at most {most:,} are read")
            with self.file.open(info) as stream:
                return read_stream(stream, most, shown)
        except BROKEN as error:
            raise DataError(f"{shown}: damaged, encrypted or cut short ({brief(error)})") from None


def most_bytes(name: str) -> int:
    """The bytes that are read of a member."""
    return MAX_TEXT_BYTES if name == META else MAX_BYTES


class Members:
    """Samples of a place in order of their names, with labels where there are any.

    Args:
        place: where they lie.
        size: None, or the side of a square that images are cropped and resized to.
        classes: None, or the labels to keep; others are never read.
        seed: of EDM2 latents: None for an encoder's means, else `mean + std z`, z addressed by this seed and the
            member's place among all, so that a class's latents are the same read alone.

    Attributes:
        names: of the members kept.
        labels: of the members kept, or None.
        classes: names of the classes, where they are subfolders.

    Raises:
        DataError: no images, or labels that cannot be read or are missing.
    """

    def __init__(
        self, place: Place, size: int | None = None, classes: Collection[int] | None = None, seed: int | None = None
    ) -> None:
        self.place, self.size, self.seed = place, size, seed
        every = place.names()
        found = sorted(name for name in every if Path(name).suffix.lower() in (*SUFFIXES, ".npy"))
        if "samples.npz" in every:  # what `headstart sample` wrote: its overview is no sample
            found = [name for name in found if name != "grid.png"]
        if not found:
            suffixes = ", ".join(sorted(SUFFIXES))
            raise DataError(f"{place.path}: no images in this {self.kind} (looked for {suffixes}, .npy)")
        labels, self.classes = self._read_labels(found, META in every)
        self.names, self.labels = found, labels
        self.index = list(range(len(found)))
        if classes is not None:
            if labels is None:
                raise DataError(f"{place.path}: classes were asked for, but the data have no labels")
            self.index = [i for i, label in enumerate(labels) if label in classes]
            if not self.index:
                raise DataError(f"{place.path}: no sample has a label among {sorted(classes)[:20]}")
            self.names, self.labels = [found[i] for i in self.index], [labels[i] for i in self.index]

    @property
    def kind(self) -> str:
        return "zip file" if isinstance(self.place, Archive) else "folder"

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> np.ndarray:
        """One sample: uint8 `[H, W, C]` of an image, or an array `[C, h, w]` of an npy member.

        Raises:
            DataError: it cannot be read.
        """
        name = self.names[index]
        shown = f"{self.place.path}/{name}"
        content = self.place.read(name)
        if not name.lower().endswith(".npy"):
            return read_image(io.BytesIO(content), shown, self.size)
        array = read_npy(io.BytesIO(content), len(content), shown)
        if array.ndim < 3 or array.dtype.kind not in "fu" or (array.dtype.kind == "u" and array.dtype != np.uint8):
            raise DataError(f"{shown}: must be uint8 or floating [C, h, w], got {array.dtype} {list(array.shape)}")
        array = array.reshape(-1, *array.shape[-2:])
        if array.dtype == np.uint8:
            return array.transpose(1, 2, 0)
        return self._latent(array, shown, self.index[index]) if MOMENTS in name else array

    def _latent(self, array: np.ndarray, shown: str, at: int) -> np.ndarray:
        if array.shape[0] % 2:
            raise DataError(f"{shown}: must be a mean and a std of as many channels, got {list(array.shape)}")
        mean, std = np.split(array.astype(np.float32), 2)
        if self.seed is None:
            return mean
        z = ops.normal((1, *mean.shape), self.seed, 0, at, device="cpu")[0].numpy()
        return mean + std * z

    def _read_labels(self, names: list[str], stated: bool) -> tuple[list[int] | None, tuple[str, ...]]:
        """Labels by `dataset.json` or by subfolder, and the subfolders' names."""
        if not stated:
            tops = [name.split("/")[0] if "/" in name else None for name in names]
            classes = sorted({top for top in tops if top is not None})
            if len(classes) < 2 or None in tops:
                return None, ()
            return [classes.index(top) for top in tops if top is not None], tuple(classes)
        shown = f"{self.place.path}/{META}"
        raw = self.place.read(META)
        try:
            listed = parse_json(raw, META)["labels"]
            known = None if listed is None else {as_name(name): to_label(label) for name, label in listed}
        except (ValueError, KeyError, TypeError) as error:
            reason = f"{type(error).__name__}: {brief(error)}"
            raise DataError(f'{shown}: must hold {{"labels": [["name", number], ...]}} or null ({reason})') from None
        if known is None:
            return None, ()
        absent = next((name for name in names if name not in known), None)
        if absent is not None:
            raise DataError(f"{shown}: has no label for {absent}")
        return [known[name] for name in names], ()


def to_label(value: object) -> int:
    """The class of an entry of `dataset.json`: a number, or a vector with a single 1."""
    if isinstance(value, list) and value.count(1) == 1 and value.count(0) == len(value) - 1:
        return value.index(1)
    if not isinstance(value, int) or not 0 <= value < 2**63:
        raise ValueError(f"a label is a number from 0 on, got {brief(value)}")
    return value


def as_name(value: object) -> str:
    """The name in an entry of `dataset.json`."""
    if not isinstance(value, str):
        raise ValueError(f"a name is a text, got {brief(value)}")
    return value
