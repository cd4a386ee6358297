"""One memory bound and one rule for every reader: regular files, no more than fits, the file's name in each message."""

from __future__ import annotations

import gzip
import io
import json
import os
import socket
import struct
import subprocess
import sys
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import headstart as hs
from headstart.io import DataError, bound, read_classes, read_dataset, stream
from headstart.io.bound import available, brief

FREE = 2**21  # bytes that the tests' machine has
ZEROS = np.zeros((3000, 16, 16), np.uint8)  # 0.77 MB, 3.8 MB as it is read; a few kB where packed


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def pack(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def header(descr: str, shape: str, content: bytes = b"1234") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (64 - (len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + content


def folder_of(path: Path, members: dict[str, bytes]) -> Path:
    path.mkdir()
    for name, content in members.items():
        (path / name).write_bytes(content)
    return path


LARGE: dict[str, Callable[[Path], object]] = {
    "large.npy": lambda path: np.save(path, ZEROS),
    "large.npz": lambda path: np.savez_compressed(path, images=ZEROS),
    "large.pt": lambda path: torch.save(torch.zeros(1_000_000), path),
    "old.pt": lambda path: torch.save(torch.zeros(1_000_000), path, _use_new_zipfile_serialization=False),
    "large.safetensors": lambda path: save_file({"images": torch.zeros(1_000_000)}, path),
    "large-idx3-ubyte": lambda path: path.write_bytes(idx(ZEROS)),
    "large-idx3-ubyte.gz": lambda path: path.write_bytes(gzip.compress(idx(ZEROS))),
    "large.zip": lambda path: pack(path, {f"{i}.png": png(np.zeros((64, 64), np.uint8)) for i in range(200)}),
    "large": lambda path: folder_of(path, {f"{i}.png": png(np.zeros((64, 64), np.uint8)) for i in range(200)}),
    "latents.zip": lambda path: pack(path, {"0.npy": npy(np.zeros((4, 512, 512), np.float32))}),
}


@pytest.mark.parametrize("name", LARGE)
def test_no_reader_takes_more_memory_than_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    LARGE[name](tmp_path / name)
    monkeypatch.setattr(bound, "available", lambda: FREE)
    with pytest.raises(DataError, match=r"GiB of memory, .* are free") as caught:
        read_dataset(tmp_path / name)
    assert name in str(caught.value)
    monkeypatch.setattr(bound, "available", lambda: 2**34)
    assert name in ("large.pt", "old.pt", "large.safetensors") or len(read_dataset(tmp_path / name).images) > 0


def test_a_stream_needs_memory_for_a_batch_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    LARGE["large"](tmp_path / "large")
    monkeypatch.setattr(bound, "available", lambda: FREE)
    assert sum(len(part.images) for part in stream(tmp_path / "large", 20)) == 200
    with pytest.raises(DataError, match="large: takes"):
        next(iter(stream(tmp_path / "large", 200)))


def test_the_free_memory_follows_the_limits_of_the_process() -> None:
    code = (
        "import resource; from headstart.io.bound import available;"
        "whole = available(); resource.setrlimit(resource.RLIMIT_DATA, (3 * 2**29, 3 * 2**29)); print(available())"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0 < int(found.stdout) < 3 * 2**29
    assert available() > 0


def bomb(width: int, height: int) -> bytes:
    """A PNG of RGBA zeros, a thousandth of its size."""
    squeeze = zlib.compressobj(9)
    data = b"".join([squeeze.compress(b"\0" * (1 + 4 * width)) for _ in range(height)] + [squeeze.flush()])

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [None, 8])
def test_a_picture_of_too_many_pixels_is_refused_before_it_is_unpacked(tmp_path: Path, size: int | None) -> None:
    (tmp_path / "a.png").write_bytes(bomb(9000, 9000))
    with pytest.raises(DataError, match=r"a\.png: 9,000 x 9,000 pixels take more than"):
        read_dataset(tmp_path, size=size)


def test_programs_in_pictures_are_no_pictures(tmp_path: Path) -> None:
    """PostScript would be given to a program of the system."""
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n")
    with pytest.raises(DataError, match=r"a\.png: not a readable image \(no known format\)"):
        read_dataset(tmp_path)


def special(path: Path, kind: str) -> None:
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "socket":
        place = os.getcwd()
        os.chdir(path.parent)  # a socket's name is short
        try:
            socket.socket(socket.AF_UNIX).bind(path.name)
        finally:
            os.chdir(place)
    else:
        path.symlink_to(path.with_name("nothing"))


WORDS = {
    "pipe": r"is a pipe \(FIFO\); only regular files",
    "device": "is a device; only",
    "socket": "is a socket; only",
}


@pytest.mark.parametrize("kind", [*WORDS, "dangling"])
@pytest.mark.parametrize(
    "name", ["a.npy", "a.npz", "a.pt", "a.safetensors", "a-idx3-ubyte", "a.gz", "a.zip", "in/b.png", "in/dataset.json"]
)
def test_only_regular_files_are_read(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / name
    if name.startswith("in/"):
        folder_of(tmp_path / "in", {"a.png": png(np.zeros((8, 8), np.uint8))})
    special(path, kind)
    with pytest.raises(DataError, match=WORDS.get(kind, "a link to nothing")) as caught:
        read_dataset(path.parent if name.startswith("in/") else path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("kind", WORDS)
def test_saved_values_are_regular_files_too(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "saved.safetensors"
    special(path, kind)
    for read in (hs.load, hs.load_plan, hs.adapters.edm.load, lambda place: hs.zoo.denoiser(str(place))):
        with pytest.raises(ValueError, match=f"{WORDS[kind]}|is a folder, pipe or device") as caught:
            read(path)
        assert str(path) in str(caught.value)


def test_a_folder_with_the_name_of_a_picture_is_a_folder(tmp_path: Path) -> None:
    folder_of(tmp_path / "in", {"a.png": png(np.zeros((8, 8), np.uint8))})
    folder_of(tmp_path / "in" / "b.png", {"c.png": png(np.ones((8, 8), np.uint8))})
    assert len(read_dataset(tmp_path / "in").images) == 2


def test_the_home_folder_has_a_short_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    np.save(tmp_path / "data.npy", ZEROS[:3])
    assert len(read_dataset("~/data.npy").images) == len(next(iter(stream("~/data.npy"))).images) == 3


DEEP = b"\x93NUMPY\x02\x00" + struct.pack("<I", 9000) + b"(" * 9000
STRANGE: dict[str, tuple[bytes, str]] = {
    "lying shape": (header("'<f4'", "(1000000000000, 3)"), "cut short or damaged: shape"),
    "overflow": (header("'<f4'", "(4294967296, 4294967296)"), "cut short or damaged: shape"),
    "negative": (header("'<f4'", "(-1, 3)", b"1234" * 30), "cut short or damaged: shape"),
    "deep": (DEEP, "not a readable .npy file"),
    "code": (header("__import__('os').system('true')", "(1,)"), "not a readable .npy file"),
    "records": (header("[('a','<f4'),('b','<f4')]", "(10,3)", b"\0" * 240), "must hold numbers"),
    "text": (header("'<U4'", "(10,3)", b"\0" * 480), "must hold numbers"),
    "version 3": (b"\x93NUMPY\x03\x00" + bytes(60), "not a readable .npy file"),
    "long shape": (header("'<f4'", "(" + "9" * 5000 + ",)"), "not a readable .npy file|cut short"),
}


@pytest.mark.parametrize("place", ["a.npy", "a.npz", "a.zip"])
@pytest.mark.parametrize("kind", STRANGE)
def test_strange_headers_are_one_line(tmp_path: Path, kind: str, place: str) -> None:
    content, message = STRANGE[kind]
    if place == "a.npy":
        (tmp_path / place).write_bytes(content)
    else:
        pack(tmp_path / place, {"images.npy": content})
    with pytest.raises(DataError, match=message) as caught:
        read_dataset(tmp_path / place)
    assert place in str(caught.value)
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)


def test_numbers_of_the_other_byte_order_are_read(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(5, 3))
    for order in ("<f4", ">f4", ">f8", "<f8"):
        np.save(tmp_path / "a.npy", np.asfortranarray(values.astype(order)))
        assert torch.equal(read_dataset(tmp_path / "a.npy").images, torch.from_numpy(values).float())


def tensors(kind: str) -> torch.Tensor:
    x = torch.zeros(30, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "sparse": x.to_sparse,
            "meta": lambda: x.to("meta"),
            "quantized": lambda: torch.quantize_per_tensor(x, 1.0, 0, torch.quint8),
            "complex": lambda: torch.complex(x, x),
            "expanded": lambda: torch.zeros(1).expand(2**33, 8),
            "conjugate": lambda: torch.complex(x, x).conj(),
        }[kind]()


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("kind", ["sparse", "meta", "quantized", "complex", "expanded", "conjugate"])
def test_strange_tensors_are_one_line(tmp_path: Path, kind: str, old: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save({"images": tensors(kind)}, tmp_path / "a.pt", _use_new_zipfile_serialization=not old)
    with pytest.raises(DataError, match=r"a\.pt"):
        read_dataset(tmp_path / "a.pt")


def test_plain_tensors_of_every_form_of_file_are_read(tmp_path: Path) -> None:
    x = torch.randn(30, 4, requires_grad=True)
    for old in (False, True):
        torch.save({"images": x, "labels": torch.arange(30)}, tmp_path / "a.pt", _use_new_zipfile_serialization=not old)
        found = read_dataset(tmp_path / "a.pt")
        assert torch.equal(found.images, x.detach())
        assert not found.images.requires_grad
        assert found.labels is not None
        assert found.labels.tolist() == list(range(30))
        views = {"images": x.detach().T[:, ::2], "labels": torch.arange(60)[::15]}
        torch.save(views, tmp_path / "a.pt", _use_new_zipfile_serialization=not old)
        assert torch.equal(read_dataset(tmp_path / "a.pt").images, views["images"])


LABELS = {
    "deep": (b"[" * 500_000, "nested too deeply"),
    "long": (b'{"labels": [["a.png", ' + b"1" * 6000 + b"]]}", "must hold|JSON"),
    "above 64 bits": (json.dumps({"labels": [["a.png", 2**70]]}).encode(), "a number from 0 on"),
    "no name": (b'{"labels": [[["a"], 1]]}', "a name is a text"),
    "no text": (b"\xff\xfe\xfd", "must hold"),
    "spaces": (b'{"labels": [' + b" " * (2**26) + b"]}", "at most 67,108,864 are read"),
}


@pytest.mark.parametrize("kind", LABELS)
def test_strange_labels_are_one_line(tmp_path: Path, kind: str) -> None:
    content, message = LABELS[kind]
    members = {"a.png": png(np.zeros((8, 8), np.uint8)), "dataset.json": content}
    for path in (pack(tmp_path / "a.zip", members), folder_of(tmp_path / "in", members)):
        with pytest.raises(DataError, match=message) as caught:
            read_dataset(path)
        assert f"{path}/dataset.json" in str(caught.value)
        assert len(str(caught.value)) < 500
    (tmp_path / "classes.json").write_bytes(content)
    with pytest.raises(DataError, match=r"classes\.json"):
        read_classes(str(tmp_path / "classes.json"))


def test_a_member_that_lies_about_its_size_is_no_bomb(tmp_path: Path) -> None:
    """Said to be 1000 bytes, unpacked to 400 MB: reading stops near what was said, not at the end."""
    path = pack(tmp_path / "a.zip", {"a.png": b"\0" * (2**28 + 2**27)})
    raw = bytearray(path.read_bytes())
    at = raw.index(b"PK\x01\x02")
    raw[at + 24 : at + 28] = struct.pack("<I", 1000)
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"a\.zip/a\.png"):
        read_dataset(path)


def test_values_in_messages_are_short() -> None:
    bomb: object = "A" * 64
    for _ in range(60):
        bomb = (bomb, bomb)
    for value in (bomb, "x" * 10**6, 10**10_000, [bomb], {1: bomb}, ValueError("x" * 10**6), 1e300):
        assert len(brief(value)) < 120
    assert (brief("a"), brief(3), brief(None), brief(True)) == ("'a'", "3", "None", "True")
