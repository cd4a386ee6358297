"""EDM's zip files and EDM2's latents as they are, class lists, streams; and one clear line for each bad member."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

import headstart as hs
from headstart.cli import app
from headstart.io import DataError, read_classes, read_dataset, stream
from headstart.io.output import write_samples
from headstart.io.tensor_file import read_safetensors_file

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
LABELS = [3, 0, 7, 3, 7, 3]
MOMENTS = np.random.default_rng(1).normal(size=(6, 8, 4, 5)).astype(np.float32)
NAMES = [f"{i // 2:05d}/img{i:08d}.png" for i in range(6)]  # over more than one folder, as EDM writes them
LATENTS = [f"00000/img-mean-std-{i:08d}.npy" for i in range(6)]


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def meta(labels: Any) -> bytes:
    return json.dumps({"labels": labels}).encode()


def images(labels: Any = None) -> dict[str, bytes]:
    """The members of an EDM data set."""
    held = {name: png(image) for name, image in zip(NAMES, PIXELS, strict=True)}
    return held | {"dataset.json": meta(labels)}


def latents() -> dict[str, bytes]:
    """The members of an EDM2 set of latents."""
    held = {name: npy(array) for name, array in zip(LATENTS, MOMENTS, strict=True)}
    return held | {"dataset.json": meta([list(pair) for pair in zip(LATENTS, LABELS, strict=True)])}


def pack(path: Path, members: dict[str, bytes], unpacked: bool = False) -> Path:
    """A zip file, or the same files in a folder."""
    if unpacked:
        for name, content in members.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
        return path
    with zipfile.ZipFile(path.with_suffix(".zip"), "w") as file:
        for name in reversed(members):  # the order of the names counts, not the file's
            file.writestr(name, members[name])
    return path.with_suffix(".zip")


@pytest.mark.parametrize("unpacked", [False, True], ids=["zip", "folder"])
@pytest.mark.parametrize("form", ["numbers", "vectors", "null"])
def test_edm_data_sets(tmp_path: Path, form: str, unpacked: bool) -> None:
    entries = {"numbers": LABELS, "vectors": np.eye(8, dtype=int)[LABELS].tolist(), "null": None}[form]
    listed = None if entries is None else [[name, entry] for name, entry in zip(NAMES, entries, strict=True)]
    dataset = read_dataset(pack(tmp_path / "set", images(listed), unpacked))
    assert torch.equal(dataset.images, torch.from_numpy(PIXELS).permute(0, 3, 1, 2).float() / 127.5 - 1)
    assert dataset.classes == ()  # the folders 00000, 00001, ... are no classes
    if listed is None:
        assert dataset.labels is None
    else:
        assert dataset.labels is not None
        assert dataset.labels.tolist() == LABELS


def test_subfolders_of_a_zip_are_classes_where_nothing_else_is_said(tmp_path: Path) -> None:
    members = {f"{name}/{i}.png": png(PIXELS[i]) for i, name in enumerate(["cat", "dog", "cat"])}
    dataset = read_dataset(pack(tmp_path / "pets", members | {"__MACOSX/cat/0.png": b"", "notes.txt": b""}))
    assert dataset.classes == ("cat", "dog")
    assert dataset.labels is not None
    assert dataset.labels.tolist() == [0, 0, 1]


@pytest.mark.parametrize("unpacked", [False, True], ids=["zip", "folder"])
def test_edm2_latents_are_means_or_draws(tmp_path: Path, unpacked: bool) -> None:
    path = pack(tmp_path / "latents", latents(), unpacked)
    mean, std = torch.from_numpy(MOMENTS).chunk(2, 1)
    assert torch.equal(read_dataset(path).images, mean)
    drawn = read_dataset(path, latent_seed=5).images
    z = (drawn - mean) / std
    assert 0.7 < float(z.std()) < 1.3
    assert abs(float(z.mean())) < 0.3
    assert torch.equal(drawn, read_dataset(path, latent_seed=5).images)
    assert not torch.equal(drawn, read_dataset(path, latent_seed=6).images)
    alone = read_dataset(path, classes=(7,), latent_seed=5)  # the same latents, whichever others are read
    assert torch.equal(alone.images, drawn[torch.tensor(LABELS) == 7])


def test_other_arrays_keep_their_channels(tmp_path: Path) -> None:
    members = {f"{i}.npy": npy(MOMENTS[i].astype(np.float64)) for i in range(3)}
    assert torch.equal(read_dataset(pack(tmp_path / "plain", members)).images, torch.from_numpy(MOMENTS[:3]))
    members = {f"{i}.npy": npy(PIXELS[i].transpose(2, 0, 1)) for i in range(3)}
    wanted = torch.from_numpy(PIXELS[:3]).permute(0, 3, 1, 2).float() / 127.5 - 1
    assert torch.equal(read_dataset(pack(tmp_path / "bytes", members)).images, wanted)


def test_only_the_classes_asked_for_are_read(tmp_path: Path) -> None:
    members = images([[name, label] for name, label in zip(NAMES, LABELS, strict=True)])
    members[NAMES[1]] = b"never read"
    path = pack(tmp_path / "set", members)
    dataset = read_dataset(path, classes=(7, 3))
    assert dataset.labels is not None
    assert dataset.labels.tolist() == [3, 7, 3, 7, 3]
    assert len(dataset.images) == 5
    with pytest.raises(DataError, match=r"no sample has a label among \[9\]"):
        read_dataset(path, classes=[9])
    with pytest.raises(DataError, match="no labels"):
        read_dataset(pack(tmp_path / "plain", images()), classes=[0])
    np.savez(tmp_path / "set.npz", images=PIXELS, labels=np.array(LABELS))
    whole = read_dataset(tmp_path / "set.npz", classes=(0, 7))
    assert whole.labels is not None
    assert whole.labels.tolist() == [0, 7, 7]


def test_class_lists(tmp_path: Path) -> None:
    (tmp_path / "birds.json").write_text("[7, 80]")
    assert read_classes(str(tmp_path / "birds.json")) == read_classes("7,80") == (7, 80)
    (tmp_path / "bad.json").write_text('{"a": 1}')
    for bad in (str(tmp_path / "bad.json"), "7,x", "-1", str(tmp_path / "gone.json")):
        with pytest.raises(DataError, match=bad):
            read_classes(bad)


@pytest.mark.parametrize("batch", [1, 4, 6, 100])
def test_streams_hold_a_batch_at_a_time(tmp_path: Path, batch: int) -> None:
    path = pack(tmp_path / "set", images([[name, label] for name, label in zip(NAMES, LABELS, strict=True)]))
    np.savez(tmp_path / "set.npz", images=PIXELS, labels=np.array(LABELS))
    whole = read_dataset(path)
    for source in (path, tmp_path / "set.npz"):
        parts = list(stream(source, batch))
        assert [len(part.images) for part in parts] == [len(part) for part in torch.arange(6).split(batch)]
        assert torch.equal(torch.cat([part.images for part in parts]), whole.images)
        assert [label for part in parts if part.labels is not None for label in part.labels.tolist()] == LABELS


def test_what_sample_wrote_is_read_without_its_overview(tmp_path: Path) -> None:
    write_samples(tmp_path / "out", PIXELS, seed=0)
    assert len(read_dataset(tmp_path / "out").images) == 6
    save_file({"images": read_dataset(tmp_path / "out").images}, tmp_path / "set.safetensors")
    assert len(read_dataset(tmp_path / "set.safetensors").images) == 6
    hs.fit(torch.randn(60, 2), components=1, max_iter=2).save(tmp_path / "start.safetensors")
    with pytest.raises(DataError, match="holds a start, not samples"):
        read_dataset(tmp_path / "start.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(b"hello")
    with pytest.raises(DataError, match=r"cut.safetensors is truncated or no safetensors file"):
        read_dataset(tmp_path / "cut.safetensors")


OTHER = {
    "broken": (png(PIXELS[1])[:60], r"00000/img00000001.png: not a readable image"),
    "text": (b"hello", r"img00000001.png: not a readable image \(no known format\)"),
    "grayscale": (png(PIXELS[1, ..., 0]), r"image is 8x8x1, grayscale .*img00000000.png is 8x8x3, RGB; channels must"),
    "alpha": (png(np.concatenate([PIXELS[1], PIXELS[1, ..., :1]], -1)), r"8x8x4, RGBA .* is 8x8x3, RGB; channels"),
    "two": (png(PIXELS[1, ..., :2]), r"img00000001.png: image mode must be one of .*, got LA"),
    "size": (png(PIXELS[1, :5]), r"image is 5x8x3 \(height x width x channels\), .* is 8x8x3; --size makes them equal"),
}


@pytest.mark.parametrize("unpacked", [False, True], ids=["zip", "folder"])
@pytest.mark.parametrize("kind", OTHER)
def test_a_bad_image_is_one_line_that_names_it(tmp_path: Path, kind: str, unpacked: bool) -> None:
    content, message = OTHER[kind]
    path = pack(tmp_path / "set", images() | {NAMES[1]: content}, unpacked)
    with pytest.raises(DataError, match=message) as caught:
        read_dataset(path)
    assert str(path) in str(caught.value)
    result = CliRunner().invoke(app, ["fit", str(path), "--out", str(tmp_path / "start.safetensors")])
    assert result.exit_code == 1
    assert len(result.output.strip().splitlines()) == 1
    assert not (tmp_path / "start.safetensors").exists()


class Opaque:
    """Something only pickle can hold."""


BAD = {
    "no zip": (None, "not a readable zip file"),
    "empty": ({"dataset.json": meta(None)}, "no images in this zip file"),
    "no labels": ({**images(), "dataset.json": b"{}"}, r"dataset.json: must hold"),
    "no json": ({**images(), "dataset.json": b"hello"}, r"dataset.json: must hold"),
    "half labels": ({**images(), "dataset.json": meta([[NAMES[0], 1]])}, r"has no label for 00000/img00000001.png"),
    "fractions": ({**images(), "dataset.json": meta([[name, 0.5] for name in NAMES])}, "a number from 0 on, got 0.5"),
    "pickle": ({"0.npy": npy(np.array([Opaque()]))}, r"0.npy: pickled objects are refused"),
    "cut npy": ({"0.npy": npy(MOMENTS[0])[:-9]}, r"0.npy: cut short"),
    "flat npy": ({"0.npy": npy(MOMENTS[0, 0])}, r"0.npy: must be uint8 or floating \[C, h, w\], got float32 \[4, 5\]"),
    "odd latent": ({"mean-std-0.npy": npy(MOMENTS[0, :7])}, r"a mean and a std of as many channels, got \[7, 4, 5\]"),
    "mixed": ({"0.npy": npy(MOMENTS[0]), "1.png": png(PIXELS[0])}, r"1.png: is 8x8x3, RGB, but 0.npy is float32 8x4x5"),
    "nan": ({"0.npy": npy(MOMENTS[0] * np.nan)}, "must be finite"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_archives_are_refused_by_name(tmp_path: Path, kind: str) -> None:
    members, message = BAD[kind]
    path = tmp_path / "set.zip"
    if members is None:
        path.write_bytes(b"PK hello")
    else:
        pack(tmp_path / "set", members)
    with pytest.raises(DataError, match=message) as caught:
        read_dataset(path)
    assert "set.zip" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_member_is_named(tmp_path: Path) -> None:
    path = pack(tmp_path / "set", images())
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"IDAT") + 20] ^= 0xFF  # of the last image: they are packed backwards
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"set.zip/00002/img00000005.png: damaged"):
        read_dataset(path)


def test_fit_takes_latents_and_class_lists(tmp_path: Path) -> None:
    many = {f"img-mean-std-{i:04d}.npy": npy(MOMENTS[i % 6, :, :2, :2] + 0.1 * i % 3) for i in range(60)}
    labels = [[name, i % 3] for i, name in enumerate(many)]
    path = pack(tmp_path / "latents", many | {"dataset.json": meta(labels)})
    out = tmp_path / "start.safetensors"
    options = ["--components", "1", "--rank", "2", "--classes", "0,2", "--latent-seed", "1"]
    result = CliRunner().invoke(app, ["fit", str(path), "--out", str(out), *options])
    assert result.exit_code == 0, result.output
    assert "40 samples of shape 4x2x2, 2 classes" in " ".join(result.output.split())
    assert hs.load(out).shape == (4, 2, 2)


def test_tensors_of_a_file_are_aligned_as_torch_aligns_its_own(tmp_path: Path) -> None:
    """Matrix products round differently on other addresses: a start that was read back would move its samples' bits."""
    save_file({"a": torch.ones(1), "b": torch.ones(100)}, tmp_path / "x.safetensors")  # b at 4 bytes past a
    _, tensors = read_safetensors_file(tmp_path / "x.safetensors")
    assert [one.data_ptr() % 64 for one in tensors.values()] == [0, 0]
