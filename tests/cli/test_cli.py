"""The commands end to end: files they write, sentences they say, and nothing half-written."""

from __future__ import annotations

import errno
import importlib
import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import SafetensorError
from typer.testing import CliRunner

import headstart as hs
from headstart import zoo
from headstart.cli import app
from headstart.cli.common import explain

runner = CliRunner()

DENOISERS = """
import headstart as hs

law = hs.load("start.safetensors")

def denoise(x, sigma, label=None):
    return law.denoise(x, sigma)

def interrupt(x, sigma, label=None):
    raise KeyboardInterrupt

number = 3

class Net:
    def __call__(self, x, sigma, label=None):
        return x

def poisoned(x, sigma, label=None):
    if sigma < 1:
        x = x.clone()
        x[1, 0, 2, 3] = float("nan")
    return law.denoise(x, sigma)
"""


def call(*arguments: object, code: int = 0) -> str:
    result = runner.invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with data, a fitted start and importable denoisers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    pixels = np.random.default_rng(0).integers(0, 256, (120, 8, 6), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=pixels, labels=np.arange(120) % 3)
    images = torch.from_numpy(pixels)[:, None].float() / 127.5 - 1
    hs.fit(images, components=2, covariance=hs.LowRank(3), max_iter=5).save(tmp_path / "start.safetensors")
    name = f"denoisers_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(DENOISERS)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "name").write_text(name)
    return tmp_path


def draw(place: Path, *arguments: object, attribute: str = "denoise", code: int = 0) -> str:
    denoiser = f"{(place / 'name').read_text()}:{attribute}"
    return call("sample", "--denoiser", denoiser, "--start", "start.safetensors", *arguments, code=code)


@pytest.mark.parametrize("command", ["", "doctor", "demo", "fit", "plan", "sample", "eval", "recipe"])
def test_help(command: str) -> None:
    text = call(*command.split(), "--help")
    assert "Usage" in text
    assert "--help" in text


def test_doctor_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("headstart.cli.doctor")  # the package's own `doctor` is the command
    needed = ("no-such-distribution",)
    monkeypatch.setattr(module, "EXTRAS", {"dreams": (needed, "dreams")})
    text = call("doctor")
    assert hs.__version__ in text
    assert torch.__version__ in text
    assert "CPU instructions" in text
    assert 'it gives dreams; `pip install "headstart[dreams]"`' in text


def test_doctor_says_what_every_extra_is_for() -> None:
    """All that pyproject.toml offers beside the developers' own, with what each needs."""
    module = importlib.import_module("headstart.cli.doctor")
    needs: dict[str, set[str]] = {}
    for line in metadata.requires("headstart") or ():
        name, _, extra = line.partition("extra == ")
        if extra:
            needs.setdefault(extra.strip("'\" "), set()).add(re.split(r"[^A-Za-z0-9_-]", name)[0])
    assert set(module.EXTRAS) == set(needs) - {"test", "dev"}
    assert all(set(needed) <= needs[name] and gives for name, (needed, gives) in module.EXTRAS.items())


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["sample", "--help"], ["bench", "quality", "--help"]])
def test_help_and_version_come_without_torch(arguments: list[str]) -> None:
    """They wait for typer alone: torch takes seconds to load."""
    code = f"import sys; from headstart.cli import app\ntry: app({arguments})\n"
    code += "finally: print('torch' in sys.modules, 'numpy' in sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.split()[-2:] == ["False", "False"], done.stderr
    assert (hs.__version__ if arguments == ["--version"] else "Usage") in done.stdout


def test_fit_writes_a_start_that_loads(place: Path) -> None:
    text = call("fit", "data.npz", "--out", "deep/new.safetensors", "--components", 2, "--rank", 2, "--max-iter", 4)
    assert "120 samples of shape 1x8x6, 3 classes" in text
    start = hs.load(place / "deep" / "new.safetensors")
    assert start.shape == (1, 8, 6)
    assert start.at(1.0).conditional
    call("fit", "data.npz", "--out", "plain.safetensors", "--components", 2, "--rank", 2, "--no-labels")
    assert not hs.load(place / "plain.safetensors").at(1.0).conditional
    text = call("fit", "data.npz", "--out", "one.safetensors", "--components", 1, "--rank", 2, "--label", 2)
    assert "40 samples" in text
    text = call("fit", "data.npz", "--out", "auto.safetensors", "--components", "auto", "--rank", 2)
    assert "tried 1 components, LowRank(rank=2): " in text
    assert hs.load(place / "auto.safetensors").report.candidates
    call("fit", "data.npz", "--out", "t.safetensors", "--family", "student", "--components", 1, "--rank", 2)
    assert isinstance(hs.load(place / "t.safetensors"), hs.StudentTMixture)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone.npy"], "no such file"),
        (["int.npy"], "uint8 or floating, got int64"),
        (["data.npz", "--label", "9"], "no sample has label 9"),
        (["zoo:nothing"], "name must be one of fashion"),
        (["data.npz", "--out", "data.npz/start.safetensors"], "data.npz"),
        (["data.npz", "--out", "."], "is a folder"),
        (["data.npz", "--components", "500"], "components"),
        (["data.npz", "--components", "some"], "--components: must be a number from 1 on, or auto, got 'some'"),
        (["data.npz", "--components", "0"], "--components: must be a number from 1 on, or auto, got '0'"),
        (["data.npz", "--device", "abacus"], "--device"),
        (["data.npz", "--seed", str(2**64)], "--seed: must be in [0, 2^64), got 18446744073709551616"),
    ],
)
def test_fit_refuses_in_one_line(place: Path, arguments: list[str], message: str) -> None:
    np.save(place / "int.npy", np.zeros((3, 4), np.int64))
    before = files(place)
    text = call("fit", *arguments, code=1)
    assert message in text
    assert "Traceback" not in text
    assert files(place) == before


def test_sample_writes_png_grid_and_npz(place: Path) -> None:
    text = draw(place, "--out", "out", "--n", 7, "--steps", 3, "--seed", 5, "--batch", 3)
    assert "3 network calls a sample" in text
    names = [f"seed5-{index:06d}.png" for index in range(7)]
    assert files(place / "out") == ["grid.png", "samples.npz", "samples.safetensors", *names]
    with np.load(place / "out" / "samples.npz") as file:
        pixels = file["arr_0"]
    assert pixels.dtype == np.uint8
    assert pixels.shape == (7, 8, 6, 1)
    for name, one in zip(names, pixels, strict=True):
        assert np.array_equal(np.asarray(Image.open(place / "out" / name)), one[..., 0])
    draw(place, "--out", "whole", "--n", 7, "--steps", 3, "--seed", 5, "--batch", 100)
    with np.load(place / "whole" / "samples.npz") as file:
        # the noise is the same, but a network may round otherwise in another batch, and a byte fall to its neighbour
        assert np.abs(file["arr_0"].astype(int) - pixels).max() <= 1


@pytest.mark.parametrize(
    "solver", ["euler", "ancestral", "ddpm", "maruyama", "heun", "dpmpp3m", "dpmppsde2m", "dpmppsde3m"]
)
def test_every_solver_has_a_name(place: Path, solver: str) -> None:
    calls = 3 if solver == "heun" else 2
    text = draw(place, "--out", "out", "--n", 2, "--steps", 2, "--solver", solver)
    assert f"{calls} network calls a sample" in text


def test_a_start_without_classes_says_so(place: Path) -> None:
    text = draw(place, "--out", "out", "--n", 2, "--label", 1)
    assert "The start has no classes: label 1 goes to the denoiser alone." in text
    call("fit", "data.npz", "--components", 2, "--rank", 2)
    assert "no classes" not in draw(place, "--out", "out", "--n", 2, "--label", 1)
    assert "no point of class 7" in draw(place, "--out", "out", "--n", 2, "--label", 7, code=1)


def test_classic_start(place: Path) -> None:
    denoiser = f"{(place / 'name').read_text()}:denoise"
    shared = ("sample", "--denoiser", denoiser, "--start", "classic", "--out", "out", "--n", 2)
    call(*shared, "--shape", "1,8,6", "--steps", 4)
    assert len(files(place / "out")) == 5
    assert "--shape" in call(*shared, code=1)


@pytest.mark.parametrize(
    ("attribute", "arguments", "message"),
    [
        ("gone", [], "has no gone"),
        ("number", [], "must be a callable"),
        ("denoise", ["--solver", "magic"], "--solver: must be one of"),
        ("denoise", ["--sigma", "-1"], "--sigma: must be above 0.02"),
        ("denoise", ["--sigma", "0.01"], "--sigma: must be above 0.02, where the last step begins, got 0.01"),
        ("denoise", ["--sigma", "nan"], "--sigma: must be above 0.02"),
        ("denoise", ["--seed", str(2**64)], "--seed: must be in [0, 2^64)"),
        ("denoise", ["--start", "classic", "--shape", "1,0,0"], "--shape: --start classic needs channels,height,width"),
        ("Net", [], "is a class; name an object of it: write net = Net(...) in denoisers_"),
        ("denoise", ["--denoiser", "zoo:fashion"], "zoo:fashion denoises samples of shape (1, 28, 28), got (1, 8, 6)"),
        ("denoise", ["--start", "gone.safetensors"], "gone.safetensors: no such file"),
        ("denoise", ["--start", "data.npz"], "data.npz"),
        ("denoise", ["--out", "data.npz"], "is a file, not a folder"),
        ("denoise", ["--out", "data.npz/deep"], "data.npz"),
    ],
)
def test_sample_refuses_in_one_line(place: Path, attribute: str, arguments: list[str], message: str) -> None:
    before = files(place)
    text = draw(place, "--out", "out", "--n", 2, *arguments, attribute=attribute, code=1)
    assert message in text
    assert "Traceback" not in text
    assert [name for name in files(place) if "pycache" not in name] == before


@pytest.mark.parametrize("seed", ["-1", "1.5", "true"])
@pytest.mark.parametrize("command", [("fit", "data.npz"), ("demo",)])
def test_a_seed_is_a_whole_number_from_0(place: Path, command: tuple[str, ...], seed: str) -> None:
    before = files(place)
    assert "--seed" in call(*command, "--seed", seed, code=2)
    assert files(place) == before


def test_unknown_denoisers(place: Path) -> None:
    shared = ("sample", "--start", "start.safetensors", "--out", "out")
    assert "no module named" in call(*shared, "--denoiser", "no_such_module:thing", code=1)
    assert "edm:FILE, diffusers:FOLDER or module:attribute" in call(*shared, "--denoiser", "thing", code=1)
    assert "name must be one of" in call(*shared, "--denoiser", "zoo:nothing", code=1)


def test_ctrl_c_leaves_nothing(place: Path) -> None:
    text = draw(place, "--out", "out", "--n", 2, attribute="interrupt", code=130)
    assert "interrupted, nothing half-written" in text
    assert not (place / "out").exists()


@pytest.mark.parametrize("solver", ["dpmpp2m", "heun"])
def test_samples_that_are_not_finite_fail_by_name(place: Path, solver: str) -> None:
    """A picture of NaN is black: the second of each batch of 4, from the first network call below sigma 1 on."""
    arguments = ["--out", "out", "--n", 8, "--batch", 4, "--seed", 3, "--steps", 4, "--solver", solver]
    text = draw(place, *arguments, attribute="poisoned", code=1)
    assert "error: sample: 1 of 4 samples are not finite, the first is 1 of seed 3:" in text
    assert "the network's result is not finite at network call 2 (sigma 0.5646)" in text
    assert "nothing was written" in text
    assert not (place / "out").exists()
    assert "Traceback" not in text


def test_a_full_disk_leaves_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    text = draw(place, "--out", "deep/out", "--n", 2, code=1)
    assert "the disk is full; nothing half-written" in text
    assert not (place / "deep").exists()


def test_a_full_disk_stops_fit_in_one_line(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(tensors: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"half")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("headstart.start.file.save_file", full)
    before = files(place)
    text = call("fit", "data.npz", "--out", "new.safetensors", "--components", 1, "--rank", 1, code=1)
    assert "error: new.safetensors: the disk is full; nothing half-written" in text
    assert files(place) == before


@pytest.mark.parametrize(
    ("message", "ours"),
    [
        ("CUDA out of memory. Tried to allocate 2.00 GiB.", False),
        ("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes.", False),
        ("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes.", False),
        ("CUDA error: an illegal memory access was encountered", True),
        ("mat1 is in another memory format", True),
    ],
)
def test_only_a_lack_of_memory_is_called_so(message: str, ours: bool) -> None:
    assert (explain(RuntimeError(message)) is None) == ours


@pytest.mark.usefixtures("place")
def test_plan_then_sample_by_it(place: Path) -> None:
    text = call("plan", "--start", "start.safetensors", "--sigma", 2, "--sigma-start", 2, "--nfe", 2, "--out", "p.json")
    assert "2 calls from 2 with free history" in text
    plan = hs.load_plan(place / "p.json")
    assert plan.nfe == 2
    assert "2 network calls a sample" in draw(place, "--plan", "p.json", "--n", 2, "--out", "drawn")
    assert (place / "drawn" / "samples.npz").is_file()
    data = torch.randn(80, 1, 8, 6)
    hs.fit(data, components=2, covariance=hs.LowRank(3), max_iter=5).save(place / "other.safetensors")
    other = draw(place, "--start", "other.safetensors", "--plan", "p.json", "--n", 2, "--out", "other", code=1)
    assert "this plan was made for another start, a mixture of 2 components" in other
    (place / "p.json").write_text("{}")
    assert "not a plan" in draw(place, "--plan", "p.json", "--n", 2, "--out", "other", code=1)
    assert not (place / "other").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--start", "absent.safetensors"), "no such file"),
        (("--start", "start.safetensors", "--denoiser", "zoo:fashion"), "given together"),
        (("--start", "start.safetensors", "--sigma-start", 7), "sigma_start must be"),
        (("--start", "start.safetensors", "--sigma", 100), "below 80"),
    ],
)
def test_plan_refuses(place: Path, arguments: tuple, message: str) -> None:
    assert message in call("plan", *arguments, "--out", place / "plan.json", code=1)
    assert not (place / "plan.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--json", "."], ".: is a folder; --json names a file"),
        (["--seed", str(2**64)], "--seed: must be in [0, 2^64)"),
    ],
)
def test_demo_refuses_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delattr("headstart.compare.case.fit")
    assert message in call("demo", *arguments, code=1)
    assert files(tmp_path) == []


def test_demo_draws_no_more_than_the_floor_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    comparison = importlib.import_module("headstart.compare.demo")
    counts = []

    def compare(case: object, score: object, n: int, seed: int) -> list[object]:
        counts.append(n)
        raise KeyboardInterrupt

    monkeypatch.setattr(comparison, "compare", compare)
    text = call("demo", "--out", tmp_path / "out", "--n", 2001, code=130)
    assert "a row has at most 2000 samples, not 2001" in text
    assert counts == [2000]


def test_demo_table_json_and_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole demo on a tiny budget: a closed-form denoiser in place of the network, a coarse fit."""
    monkeypatch.setenv("COLUMNS", "120")
    fit, fitted = hs.fit, []

    def coarse(data: torch.Tensor, **options: Any) -> Any:
        fitted.append(len(data))
        return fit(data[:600], components=2, covariance=hs.LowRank(8), max_iter=3, seed=options["seed"])

    law = fit(zoo.images("fashion")[0][:600], components=1, covariance=hs.LowRank(8), max_iter=2)
    monkeypatch.setattr("headstart.compare.case.fit", coarse)
    monkeypatch.setattr(zoo, "denoiser", lambda name, device: law.denoise)
    text = call("demo", "--out", tmp_path / "out", "--json", tmp_path / "demo.json", "--n", 40, "--metric-n", 40)
    assert fitted == [2000]
    assert "real training images" in text
    table = json.loads((tmp_path / "demo.json").read_text())
    starts = [(row["start"], row["solver"], row["nfe"]) for row in table["rows"]]
    assert ("classic", "Heun", 79) in starts
    for start, many in (("classic", (5, 7, 9, 13)), ("learned", (3, 5, 7, 9)), ("uninformed", (3, 5, 7, 9))):
        assert [nfe for name, solver, nfe in starts if name == start and solver == "DPM++ 2M"] == list(many)
    assert ("learned", "planned", 3) in starts
    assert ("learned, no network", "none", 0) in starts
    for row in table["rows"]:
        assert set(row) == {"start", "solver", "sigma_T", "nfe", "seconds", "swd", "fd"}
        assert all(np.isfinite(row[name]) for name in ("sigma_T", "seconds", "swd", "fd"))
    assert set(table["floor"]) == {"swd", "fd"}
    assert 0 < table["floor"]["fd"] < min(row["fd"] for row in table["rows"])
    with Image.open(tmp_path / "out" / "demo.png") as picture:
        assert picture.width > 800
        assert picture.mode == "RGB"


def test_zoo_network_denoises_and_obeys_its_label() -> None:
    denoiser = zoo.denoiser("fashion")
    x, labels = (part[:64] for part in zoo.images("fashion", "test"))
    noisy = x + 1.5 * hs.ops.normal(tuple(x.shape), 0, 0, dtype=torch.float32, device="cpu")
    with torch.no_grad():
        plain, told, wrong = (
            float((denoiser(noisy, torch.tensor(1.5), **cond) - x).square().mean())
            for cond in ({}, {"label": labels}, {"label": (labels + 5) % 10})
        )
    assert plain < 0.15
    assert told < plain < wrong
