"""Writing results: every file and folder appears whole or not at all.

A file is written under a temporary name in its own folder, flushed to the disk and renamed; a failure on the way (full
disk, Ctrl-C) removes the temporary file and leaves whatever was there before.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor


def write(path: Path, save: Callable[[Path], object]) -> None:
    """Calls `save(temporary)` and renames `temporary` to `path`; on any failure `path` stays as it was.

    Args:
        path: file to appear; its folder is made where missing.
        save: writes the whole content to the path it is given, which keeps the suffix of `path`.

    Raises:
        OSError: the folder cannot be made or written to, or the disk is full; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        save(temporary)
        with temporary.open("rb+") as handle:
            os.fsync(handle.fileno())
        temporary.chmod(0o666 & ~current_umask())  # some libraries make private files
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A temporary folder beside `out` whose files move into `out` when the block ends without an error.

    The files of one run appear together: after a failure `out` holds what it held before (and does not exist where it
    did not). Files of the same name are replaced, others stay.

    Raises:
        OSError: `out` is not a folder, or cannot be made or written to.
    """
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(20, "is a file, not a folder", str(out))
    missing = [folder for folder in (out, *out.parents) if not folder.exists()]
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".part", dir=out if out.exists() else out.parent))
        try:
            yield folder
            if out.exists():
                for path in sorted(folder.iterdir()):
                    os.replace(path, out / path.name)
            else:
                folder.chmod(0o777 & ~current_umask())
                folder.rename(out)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except BaseException:
        for folder in missing:  # innermost first; rmdir refuses a folder with anything in it
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        raise


def current_umask() -> int:
    """The process's file mode mask (results are ordinary files and folders, not private)."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def to_bytes(images: Tensor) -> np.ndarray:
    """uint8 [N, H, W, C] of images [N, C, H, W] in [-1, 1]: `round(127.5 (x + 1))`, clipped.

    Raises:
        ValueError: images with NaN or infinity, which have no bytes.
    """
    values = images.detach().double().cpu()
    bad = (~values.isfinite()).flatten(1).any(1).nonzero()[:, 0].tolist()
    if bad:
        first = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
        raise ValueError(
            f"to_bytes: images must be finite, got {len(bad)} of {len(values)} that are not (index {first})"
        )
    scaled = ((values + 1) * 127.5).round().clamp(0, 255)
    return scaled.permute(0, 2, 3, 1).byte().numpy()


def picture(pixels: np.ndarray) -> Image.Image:
    """PIL image of uint8 [H, W, C], C = 1 (grey), 3 (RGB) or 4 (RGBA).

    Raises:
        ValueError: another number of channels.
    """
    if pixels.shape[-1] not in (1, 3, 4):
        raise ValueError(f"picture: an image has 1, 3 or 4 channels, got {pixels.shape[-1]}")
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def tile(pixels: np.ndarray, columns: int | None = None, gap: int = 2, background: int = 255) -> np.ndarray:
    """One image [h, w, C] of uint8 images [N, H, W, C], row by row, `gap` pixels apart, nearly square by default."""
    n, height, width, channels = pixels.shape
    columns = columns or max(1, round((n * height / width) ** 0.5))
    rows = -(-n // columns)
    sheet = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, channels), background, dtype=np.uint8)
    for index, image in enumerate(pixels):
        top, left = gap + index // columns * (height + gap), gap + index % columns * (width + gap)
        sheet[top : top + height, left : left + width] = image
    return sheet


def write_png(path: Path, pixels: np.ndarray) -> None:
    """PNG file of uint8 [H, W, C]."""
    write(path, lambda temporary: picture(pixels).save(temporary, format="PNG"))


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Compressed npz file of named arrays; the same arrays give the same bytes."""
    entries: dict[str, Any] = dict(arrays)

    def save(temporary: Path) -> None:
        with temporary.open("wb") as handle:  # given a path, numpy would add .npz to another suffix
            np.savez_compressed(handle, **entries)

    write(path, save)


def write_samples(out: Path, pixels: np.ndarray, seed: int, offset: int = 0, names: Sequence[str] = ()) -> list[Path]:
    """One run's files in folder `out`: a PNG a sample, `grid.png`, and `samples.npz` with `arr_0`.

    Args:
        out: folder; made where missing, together with all files or not at all.
        pixels: uint8 [N, H, W, C].
        seed, offset: name sample i `seed{seed}-{offset + i:06d}.png`.
        names: file names without suffix, in place of the above.
    """
    names = names or [f"seed{seed}-{offset + index:06d}" for index in range(len(pixels))]
    with staged(out) as folder:
        for name, image in zip(names, pixels, strict=True):
            picture(image).save(folder / f"{name}.png")
        picture(tile(pixels)).save(folder / "grid.png")
        write_npz(folder / "samples.npz", {"arr_0": pixels})
    return [out / f"{name}.png" for name in names] + [out / "grid.png", out / "samples.npz"]
