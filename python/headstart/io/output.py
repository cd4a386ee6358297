"""Writing results: every file and folder appears whole or not at all.

A file is written in a workspace, a folder of its own beside the target, flushed to the disk and renamed; a failure on
the way (full disk, Ctrl-C) removes the workspace and leaves whatever was there before.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from safetensors.torch import save_file

from headstart.argument import require_path
from headstart.io.bound import DataError
from headstart.io.member import SUFFIXES, Folder
from headstart.io.workspace import blank, is_stream, make_folders, pour, workspace

if TYPE_CHECKING:
    from torch import Tensor


def write(path: str | bytes | os.PathLike[Any], save: Callable[[Path], object]) -> None:
    """Calls `save(temporary)` and renames `temporary` to `path`; on any failure `path` stays as it was.

    A link stays a link: what it points to is replaced. Into a pipe or device the whole content is poured once it is
    complete. Several threads and processes may write one path: each writes a whole file, the last one stays.

    Args:
        path: file to appear; its folder is made where missing; `~` is the home folder.
        save: writes the whole content to the path it is given, which keeps the suffix of `path`.

    Raises:
        IsADirectoryError: `path` is a folder.
        OSError: the folder cannot be made or written to, or the disk is full; nothing is left behind.
    """
    path = require_path("write", path)
    if path.is_dir():
        raise IsADirectoryError(21, "is a folder; a file is written", str(path))
    if is_stream(path):
        pour(path, save)
        return
    target = Path(os.path.realpath(path))
    before = target.stat().st_mode if target.exists() else None  # a name that is too long fails here
    make_folders(target.parent)
    with workspace(target.parent, path) as folder:
        temporary = folder / f"new{target.suffix}"
        mode = blank(temporary) if before is None else before
        save(temporary)
        with temporary.open("rb+") as handle:
            os.fsync(handle.fileno())
        temporary.chmod(mode & 0o777)  # some libraries make private files
        os.replace(temporary, target)


@contextmanager
def staged(out: str | os.PathLike[Any]) -> Iterator[Path]:
    """A temporary folder whose files move into `out` when the block ends without an error.

    The files of one run appear together: after a failure `out` holds what it held before (and does not exist where it
    did not). Files of the same name are replaced, others stay.

    Raises:
        OSError: `out` is not a folder, or cannot be made or written to.
    """
    out = require_path("write", out, "out")
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(20, "is a file, not a folder", str(out))
    out = Path(os.path.realpath(out))
    missing = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        make_folders(out.parent)
        with workspace(out if out.exists() else out.parent, out) as folder:
            (folder / "new").mkdir()
            yield folder / "new"
            if out.exists():
                move_all(folder / "new", out, folder)
            else:
                (folder / "new").rename(out)
    except BaseException:
        for folder in missing:  # innermost first; rmdir refuses a folder with anything in it
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        raise


def move_all(new: Path, out: Path, folder: Path) -> None:
    """Moves the files of `new` into `out`, all or none: what they replace waits in `folder` until all are there.

    Raises:
        OSError: one cannot be moved; its message says so where files of both runs are left in `out`.
    """
    old = folder / "old"
    old.mkdir()
    moved: list[str] = []
    try:
        for name in sorted(path.name for path in new.iterdir()):
            moved.append(name)
            if os.path.lexists(out / name):
                if (out / name).is_dir():
                    raise IsADirectoryError(21, "is a folder; a file is written", str(out / name))
                os.rename(out / name, old / name)
            os.rename(new / name, out / name)
    except BaseException:
        try:
            for name in reversed(moved):
                if not (new / name).exists():
                    os.rename(out / name, new / name)
                if os.path.lexists(old / name):
                    os.rename(old / name, out / name)
        except OSError as error:
            raise OSError(error.errno, "now holds files of this run and of the one before", str(out)) from error
        raise


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


FLOATS = "samples.safetensors"
READ = (*SUFFIXES, ".npy")  # of files that are samples wherever a folder is read
COMPANIONS = ("samples.npz", FLOATS, "dataset.json")


def sample_names(n: int, seed: int, offset: int = 0) -> list[str]:
    """File names, without suffix, of samples `offset .. offset + n - 1` of a seed."""
    return [f"seed{seed}-{offset + index:06d}" for index in range(n)]


def require_alone(out: Path, names: Sequence[str]) -> None:
    """Refuses a folder in which a run's samples would lie beside others, and be read as one set with them.

    Args:
        out: folder, which may not exist.
        names: of the run's samples, without suffix.

    Raises:
        DataError: it holds images, arrays or labels that the run would not replace.
    """
    out = require_path("write", out, "out")
    if not out.is_dir():
        return
    own = {*(f"{name}.png" for name in names), "grid.png", "samples.npz", FLOATS}
    others = [
        name
        for name in sorted(Folder(out).names())
        if name not in own and (Path(name).suffix.lower() in READ or Path(name).name in COMPANIONS)
    ]
    if others:
        more = f" and {len(others) - 1} more" if others[1:] else ""
        raise DataError(f"{out}: holds samples of another run ({others[0]}{more}); remove them, or name another folder")


def clipped_share(x: Tensor) -> float:
    """Share of the values outside [-1, 1] by more than half a grey level: a picture cannot hold them."""
    return float((x.abs() > 1 + 1 / 255).double().mean())


def write_samples(
    out: Path, pixels: np.ndarray, seed: int, offset: int = 0, names: Sequence[str] = (), values: Tensor | None = None
) -> list[Path]:
    """One run's files in folder `out`: a PNG a sample, `grid.png`, and `samples.npz` with `arr_0`.

    Args:
        out: folder; made where missing, together with all files or not at all.
        pixels: uint8 [N, H, W, C].
        seed, offset: name sample i `seed{seed}-{offset + i:06d}.png`.
        names: file names without suffix, in place of the above.
        values: the samples before they were clipped and rounded, [N, C, H, W], for `samples.safetensors`; None: no
            such file.

    Raises:
        DataError: the folder holds samples of another run.
        OSError: as `staged`.
    """
    out, names = require_path("write", out, "out"), names or sample_names(len(pixels), seed, offset)
    require_alone(out, names)
    with staged(out) as folder:
        for name, image in zip(names, pixels, strict=True):
            picture(image).save(folder / f"{name}.png")
        picture(tile(pixels)).save(folder / "grid.png")
        write_npz(folder / "samples.npz", {"arr_0": pixels})
        if values is not None:
            tensors = {"images": values.detach().float().cpu().contiguous()}
            write(folder / FLOATS, lambda temporary: save_file(tensors, temporary))
        elif (out / FLOATS).exists():
            raise DataError(f"{out}: holds {FLOATS} of another run; remove it, or name another folder")
    found = [f"{name}.png" for name in names] + ["grid.png", "samples.npz"] + ([] if values is None else [FLOATS])
    return [out / name for name in found]
