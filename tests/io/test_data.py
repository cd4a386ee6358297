"""Data sets round trip in every format, bad ones are refused in one sentence, and writes are whole or not at all."""

from __future__ import annotations

import errno
import gzip
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from headstart import zoo
from headstart.io import DataError, read_dataset, read_idx
from headstart.io.output import staged, tile, to_bytes, write, write_npz, write_png, write_samples

GREY = np.arange(5 * 6 * 7, dtype=np.uint8).reshape(5, 6, 7)
COLOUR = (np.arange(5 * 6 * 7 * 3) % 251).astype(np.uint8).reshape(5, 6, 7, 3)
LABELS = np.array([0, 2, 1, 2, 0], dtype=np.uint8)


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def save_folder(folder: Path, pixels: np.ndarray, labels: np.ndarray | None = None) -> Path:
    for index, image in enumerate(pixels):
        place = folder if labels is None else folder / f"class{labels[index]}"
        write_png(place / f"{index:03d}.png", image if image.ndim == 3 else image[..., None])
    return folder


def expected(pixels: np.ndarray) -> torch.Tensor:
    pixels = pixels if pixels.ndim == 4 else pixels[..., None]
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


@pytest.mark.parametrize("pixels", [GREY, COLOUR], ids=["grey", "colour"])
@pytest.mark.parametrize("form", ["folder", "npy", "npz", "pt", "pt-dict", "npy-nchw"])
def test_every_format_gives_the_same_images(tmp_path: Path, form: str, pixels: np.ndarray) -> None:
    channels_first = pixels[:, None] if pixels.ndim == 3 else pixels.transpose(0, 3, 1, 2)
    path = tmp_path / f"data.{form.split('-')[0]}"
    if form == "folder":
        save_folder(path, pixels)
    elif form == "npy":
        np.save(path, pixels)
    elif form == "npy-nchw":
        np.save(path, channels_first)
    elif form == "npz":
        write_npz(path, {"arr_0": pixels})
    elif form == "pt":
        torch.save(torch.from_numpy(np.ascontiguousarray(channels_first)), path)
    else:
        torch.save({"images": torch.from_numpy(pixels)}, path)
    dataset = read_dataset(path)
    assert dataset.images.dtype == torch.float32
    assert torch.equal(dataset.images, expected(pixels))
    assert dataset.labels is None


@pytest.mark.parametrize("form", ["folder", "npz", "pt", "pair", "idx", "idx.gz"])
def test_labels_come_along(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"data.{form}"
    if form == "folder":
        save_folder(path, GREY, LABELS)
    elif form == "npz":
        write_npz(path, {"images": GREY, "labels": LABELS})
    elif form in ("pt", "pair"):
        path = tmp_path / "data.pt"
        held = (torch.from_numpy(GREY), torch.from_numpy(LABELS))
        torch.save(held if form == "pair" else dict(zip(("x", "y"), held, strict=True)), path)
    else:
        end, pack = (".gz", gzip.compress) if form.endswith("gz") else ("", bytes)
        path = tmp_path / f"some-images-idx3-ubyte{end}"
        path.write_bytes(pack(idx(GREY)))
        (tmp_path / f"some-labels-idx1-ubyte{end}").write_bytes(pack(idx(LABELS)))
    dataset = read_dataset(path)
    order = LABELS.argsort(kind="stable") if form == "folder" else np.arange(5)
    assert torch.equal(dataset.images, expected(GREY[order]))
    assert dataset.labels is not None
    assert dataset.labels.tolist() == LABELS[order].tolist()
    assert torch.equal(dataset.only(2).images, expected(GREY[LABELS == 2]))
    with pytest.raises(DataError, match="no sample has label 7"):
        dataset.only(7)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "uint32", "uint64"])
def test_labels_of_every_integer_type(tmp_path: Path, dtype: str) -> None:
    write_npz(tmp_path / "data.npz", {"images": GREY, "labels": LABELS.astype(dtype)})
    torch.save((torch.from_numpy(GREY), torch.from_numpy(LABELS.astype(dtype))), tmp_path / "data.pt")
    for name in ("data.npz", "data.pt"):
        labels = read_dataset(tmp_path / name).labels
        assert labels is not None
        assert labels.dtype == torch.int64
        assert labels.tolist() == LABELS.tolist()


def test_floats_keep_values_and_shape(tmp_path: Path) -> None:
    points = np.random.default_rng(0).normal(size=(9, 2))
    np.save(tmp_path / "points.npy", points)
    dataset = read_dataset(tmp_path / "points.npy")
    assert torch.equal(dataset.images, torch.from_numpy(points).float())
    with pytest.raises(DataError, match="no labels"):
        dataset.only(0)


def test_folder_is_sorted_recursive_and_resized(tmp_path: Path) -> None:
    save_folder(tmp_path / "data" / "deep", GREY)
    (tmp_path / "data" / "notes.txt").write_text("no image")
    (tmp_path / "data" / ".hidden.png").write_text("no image either")
    dataset = read_dataset(tmp_path / "data", size=4)
    assert list(dataset.images.shape) == [5, 1, 4, 4]
    assert dataset.labels is None  # one subfolder is no class
    assert dataset.images.min() >= -1
    assert dataset.images.max() <= 1


def test_palette_and_one_bit_images(tmp_path: Path) -> None:
    Image.fromarray(COLOUR[0]).convert("P").save(tmp_path / "a.png")
    assert list(read_dataset(tmp_path).images.shape) == [1, 3, 6, 7]
    Image.fromarray(GREY[0]).convert("1").save(tmp_path / "a.png")
    assert list(read_dataset(tmp_path).images.shape) == [1, 1, 6, 7]


def put(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def npy(path: Path, array: np.ndarray, cut: int = 0) -> None:
    np.save(path, array, allow_pickle=True)
    if cut:
        put(path, path.read_bytes()[:-cut])


class Opaque:
    """Something only pickle can hold."""


BAD = {
    "gone.npy": (lambda path: None, "no such file"),
    "empty": (lambda path: path.mkdir(), "no images"),
    "int.npy": (lambda path: npy(path, np.zeros((3, 4), np.int64)), r"uint8 or floating, got int64 \[3, 4\]"),
    "flat.npy": (lambda path: npy(path, np.zeros(9, np.float32)), r"\[N, \*shape\]"),
    "none.npy": (lambda path: npy(path, np.zeros((0, 4), np.float32)), "at least one sample"),
    "bytes.npy": (lambda path: npy(path, np.zeros((3, 9), np.uint8)), "bytes must be images"),
    "channels.npy": (lambda path: npy(path, np.zeros((3, 5, 6, 7), np.uint8)), "bytes must be images"),
    "nan.npy": (lambda path: npy(path, np.full((3, 4), np.nan)), "finite"),
    "object.npy": (lambda path: npy(path, np.array([{}, None])), "pickled objects are refused"),
    "cut.npy": (lambda path: npy(path, GREY, cut=9), "cut short"),
    "text.npy": (lambda path: put(path, b"hello"), "pickled objects are refused|cut short"),
    "text.npz": (lambda path: put(path, b"hello"), "not a readable|pickled"),
    "zero.npy": (lambda path: put(path, b""), "cut short"),
    "names.npz": (lambda path: write_npz(path, {"a": GREY, "b": GREY}), "needs an array named"),
    "labels.npz": (lambda path: write_npz(path, {"images": GREY, "labels": LABELS[:3]}), "labels must be 5"),
    "float.npz": (lambda path: write_npz(path, {"images": GREY, "labels": LABELS * 0.5}), "non-negative integers"),
    "names.pt": (lambda path: torch.save({1: torch.zeros(3, 4), 2: torch.ones(3)}, path), "needs an array .* 1, 2"),
    "below.npz": (lambda path: write_npz(path, {"x": GREY, "y": LABELS.astype(np.int16) - 1}), "non-negative"),
    "object.pt": (lambda path: torch.save(Opaque(), path), "pickled objects are refused"),
    "pickle.pt": (lambda path: put(path, pickle.dumps(Opaque())), "refused|not a readable"),
    "list.pt": (lambda path: torch.save([1, 2, 3], path), "must hold a tensor"),
    "text.pt": (lambda path: put(path, b"hello"), "not a readable"),
    "int.pt": (lambda path: torch.save(torch.zeros(3, 4, dtype=torch.int32), path), "got int32"),
    "cut-idx3-ubyte": (lambda path: put(path, idx(GREY)[:-5]), "cut short"),
    "head-idx3-ubyte": (lambda path: put(path, idx(GREY)[:6]), "cut short"),
    "cut-idx3-ubyte.gz": (lambda path: put(path, gzip.compress(idx(GREY))[:-12]), "gzip"),
    "type-idx3-ubyte": (lambda path: put(path, b"\0\0\x0d\1" + bytes(8)), "0x08"),
    "text-idx3-ubyte": (lambda path: put(path, b"hello"), "not an idx file"),
    "movie.avi": (lambda path: put(path, b"hello"), "data must be a folder"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_data_is_refused_by_name(tmp_path: Path, name: str) -> None:
    make, message = BAD[name]
    make(tmp_path / name)
    with pytest.raises(DataError, match=message) as caught:
        read_dataset(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (np.zeros((6, 9, 1), np.uint8), "6x9x1.*a.png is 6x7x1; --size"),
        (np.zeros((6, 7, 3), np.uint8), "6x7x3.*a.png is 6x7x1"),
        (None, "not a readable image"),
    ],
)
def test_a_bad_image_in_a_folder_is_named(tmp_path: Path, second: np.ndarray | None, message: str) -> None:
    write_png(tmp_path / "a.png", GREY[0][..., None])
    if second is None:
        whole = (tmp_path / "a.png").read_bytes()
        put(tmp_path / "b.png", whole[: len(whole) // 2])
    else:
        write_png(tmp_path / "b.png", second)
    with pytest.raises(DataError, match=message) as caught:
        read_dataset(tmp_path)
    assert "b.png" in str(caught.value)


def test_modes_of_more_than_eight_bits_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(DataError, match=r"deep.png: image mode"):
        read_dataset(tmp_path)


def test_size_is_for_folders(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", GREY)
    with pytest.raises(DataError, match="--size"):
        read_dataset(tmp_path / "a.npy", size=8)


def test_zoo_images_are_balanced_and_stated() -> None:
    for split, each in (("train", 200), ("test", 50)):
        x, labels = zoo.images("fashion", split)
        assert list(x.shape) == [10 * each, 1, 28, 28]
        assert x.dtype == torch.float32
        assert (float(x.min()), float(x.max())) == (-1, 1)
        assert labels.bincount().tolist() == [each] * 10
    assert torch.equal(read_dataset("zoo:fashion").images, zoo.images("fashion")[0])
    with pytest.raises(DataError, match="name must be"):
        read_dataset("zoo:nothing")
    with pytest.raises(ValueError, match="split"):
        zoo.images("fashion", "validation")


def test_subset_is_made_again_bit_for_bit(tmp_path: Path) -> None:
    from bench.zoo.subset import make_subset

    labels = np.repeat(np.arange(10, dtype=np.uint8), 8)
    pixels = np.random.default_rng(0).integers(0, 256, (80, 28, 28), dtype=np.uint8)
    for prefix in ("train", "t10k"):
        put(tmp_path / f"{prefix}-images-idx3-ubyte.gz", gzip.compress(idx(pixels)))
        put(tmp_path / f"{prefix}-labels-idx1-ubyte.gz", gzip.compress(idx(labels)))
    for name in ("one.npz", "two.npz"):
        make_subset(tmp_path / name, tmp_path, train=5, test=2)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    with np.load(tmp_path / "one.npz") as file:
        assert np.bincount(file["train_labels"]).tolist() == [5] * 10
        assert len(np.unique(file["train_images"], axis=0)) == 50
    assert np.array_equal(read_idx(tmp_path / "t10k-images-idx3-ubyte.gz"), pixels)


def test_bytes_round_trip_and_clip() -> None:
    assert np.array_equal(to_bytes(expected(COLOUR)), COLOUR)
    wild = torch.tensor([-9.0, 9.0, 0.0, 1.0]).view(1, 1, 2, 2)
    assert to_bytes(wild).ravel().tolist() == [0, 255, 128, 255]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_has_no_bytes(value: float) -> None:
    images = torch.zeros(3, 1, 2, 2)
    images[1, 0, 0, 1] = value
    with pytest.raises(ValueError, match=r"1 of 3 that are not \(index 1\)"):
        to_bytes(images)


def test_png_grid_and_npz_hold_the_same_pixels(tmp_path: Path) -> None:
    write_samples(tmp_path / "new" / "out", COLOUR, seed=3, offset=10)
    out = tmp_path / "new" / "out"
    with np.load(out / "samples.npz") as file:
        assert np.array_equal(file["arr_0"], COLOUR)
    for index, pixels in enumerate(COLOUR):
        assert np.array_equal(np.asarray(Image.open(out / f"seed3-{10 + index:06d}.png")), pixels)
    grid = np.asarray(Image.open(out / "grid.png"))
    assert np.array_equal(grid, tile(COLOUR))
    assert np.array_equal(grid[2:8, 2:9], COLOUR[0])
    assert len(list(out.iterdir())) == 7
    write_samples(out, GREY[..., None], seed=3, offset=10)  # the same run again takes the place of the first
    assert len(list(out.iterdir())) == 7
    assert read_dataset(out).images.shape == (5, 1, 6, 7)


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
@pytest.mark.parametrize("existing", [False, True])
def test_an_interrupted_run_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: BaseException, existing: bool
) -> None:
    out = tmp_path / "deep" / "out"
    if existing:
        write_samples(out, GREY[..., None], seed=0)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def fail(*args: object) -> None:
        raise stop

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(type(stop)):
        write_samples(out, COLOUR, seed=0)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert (tmp_path / "deep").exists() == existing
    with pytest.raises(type(stop)):
        write(tmp_path / "one.txt", lambda path: path.write_text("half"))
    assert sorted(path.name for path in tmp_path.iterdir()) == (["deep"] if existing else [])


def test_written_files_are_as_open_as_any_other(tmp_path: Path) -> None:
    def save(path: Path) -> None:
        path.write_text("private until then")
        path.chmod(0o600)

    mask = os.umask(0o027)
    try:
        write(tmp_path / "file", save)
    finally:
        os.umask(mask)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_staged_refuses_a_file(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(NotADirectoryError), staged(tmp_path / "out"):
        pass
