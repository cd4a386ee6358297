"""Reading one image file."""

from __future__ import annotations

import warnings
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from headstart.data.dataset import DataError

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
MODES = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB", "RGBA": "RGBA"}
COLOURS = {1: "grayscale", 3: "RGB", 4: "RGBA"}


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
            with Image.open(file) as opened:
                image = ImageOps.exif_transpose(opened)
                mode = "RGBA" if image.mode == "P" and "transparency" in image.info else MODES.get(image.mode)
                if mode is None:
                    raise DataError(f"{name}: image mode must be one of {', '.join(MODES)}, got {image.mode}")
                image = image.convert(mode)
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError(f"{name}: not a readable image (no known format)") from None
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(f"{name}: not a readable image ({str(error).split(chr(10))[0]})") from None
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
