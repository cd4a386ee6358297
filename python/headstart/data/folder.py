"""Reading folders of images."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from headstart.data.dataset import DataError, Dataset, to_samples

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
MODES = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB", "RGBA": "RGBA"}


def read_image(path: Path, size: int | None = None) -> np.ndarray:
    """uint8 `[H, W, C]` of one image file (8 bits; grey, palette, RGB or RGBA), upright.

    Args:
        path: the file.
        size: None, or the side of a square the centre of the image is cropped and resized to.

    Raises:
        DataError: a file that cannot be read, or an image of another mode.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as opened:
                image = ImageOps.exif_transpose(opened)
                mode = "RGBA" if image.mode == "P" and "transparency" in image.info else MODES.get(image.mode)
                if mode is None:
                    raise DataError(f"{path}: image mode must be one of {', '.join(MODES)}, got {image.mode}")
                image = image.convert(mode)
    except DataError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: not a readable image ({str(error).split(chr(10))[0]})") from None
    if size is not None:
        image = ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def read_folder(folder: Path, size: int | None = None) -> Dataset:
    """Images of a folder and its subfolders, in order of their names; where all lie in subfolders, these are classes.

    Raises:
        DataError: no images, an unreadable image, or images of different sizes or numbers of channels.
    """
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not paths:
        raise DataError(f"{folder}: no images in this folder (looked for {', '.join(sorted(SUFFIXES))})")
    first = read_image(paths[0], size)
    pixels = np.empty((len(paths), *first.shape), dtype=np.uint8)
    for index, path in enumerate(paths):
        image = read_image(path, size)
        if image.shape != first.shape:
            hint = "" if image.shape[:2] == first.shape[:2] else "; --size makes them equal"
            expected, got = ("x".join(map(str, part.shape)) for part in (first, image))
            raise DataError(f"{path}: image is {got} (height x width x channels), {paths[0].name} is {expected}{hint}")
        pixels[index] = image
    places = [path.relative_to(folder).parts for path in paths]
    classes = tuple(sorted({place[0] for place in places if len(place) > 1}))
    if len(classes) < 2 or any(len(place) == 1 for place in places):
        return Dataset(to_samples(pixels, str(folder)))
    return Dataset(to_samples(pixels, str(folder)), torch.tensor([classes.index(p[0]) for p in places]), classes)
