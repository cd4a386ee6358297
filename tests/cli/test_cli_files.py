"""What the commands make of files: other runs' samples, values no picture holds, pipes, SIGTERM, little memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

import headstart as hs
from headstart.cli import app
from headstart.cli.common import explain
from headstart.io import bound

runner = CliRunner()
SHARED = ["--start", "classic", "--shape", "1,8,6", "--steps", "2"]
NETWORKS = """
import time

calls = []

def wide(x, sigma, label=None):
    calls.append(1)
    return 0.01 * x + 1.5

def mild(x, sigma, label=None):
    return 0 * x

def slow(x, sigma, label=None):
    print("sampling", flush=True)
    time.sleep(60)
    return x
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file_networks.py").write_text(NETWORKS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "file_networks", raising=False)
    return tmp_path


def call(*arguments: object, code: int = 0) -> str:
    result = runner.invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def sample(network: str, *more: object, code: int = 0) -> str:
    return call("sample", "--denoiser", f"file_networks:{network}", *SHARED, "--out", "out", *more, code=code)


@pytest.mark.usefixtures("place")
def test_values_that_were_clipped_are_told_and_kept() -> None:
    text = sample("wide", "--n", 3)
    assert "100.00% of the values lie outside [-1, 1]: clipped in the pictures; samples.safetensors has them" in text
    images = load_file("out/samples.safetensors")["images"]
    assert images.shape == (3, 1, 8, 6)
    assert float(images.min()) > 1.4
    with np.load("out/samples.npz") as file:
        assert file["arr_0"].min() == 255
    assert "outside" not in sample("mild", "--n", 3)


def test_eval_never_scores_two_runs_as_one(place: Path) -> None:
    sample("mild", "--n", 6)
    before = sorted(os.listdir(place / "out"))
    import file_networks  # type: ignore[import-not-found]

    for more in (["--n", 2], ["--n", 6, "--seed", 1]):
        text = sample("wide", *more, code=1)
        assert "out: holds samples of another run (seed0-00000" in text
        assert "remove them, or name another folder" in text
    assert not file_networks.calls  # said before any network call
    assert sorted(os.listdir(place / "out")) == before
    sample("mild", "--n", 6)  # the same run again


@pytest.mark.usefixtures("place")
def test_a_pipe_is_no_data_and_no_start() -> None:
    os.mkfifo("data.npy")
    assert "data.npy: is a pipe (FIFO); only regular files are read" in call("fit", "data.npy", code=1)
    os.mkfifo("start.safetensors")
    text = call("sample", "--denoiser", "file_networks:mild", "--start", "start.safetensors", "--out", "out", code=1)
    assert "start.safetensors" in text


@pytest.mark.usefixtures("place")
def test_too_little_memory_names_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    np.save("data.npy", np.zeros((2000, 16, 16), np.uint8))
    monkeypatch.setattr(bound, "available", lambda: 2**20)
    assert "error: data.npy: takes 0.00 GiB of memory, 0.00 GiB are free" in call("fit", "data.npy", code=1)
    assert explain(MemoryError("a.npy: not enough memory to read it")) == "a.npy: not enough memory to read it"
    assert "a smaller --batch" in str(explain(MemoryError()))


def test_sigterm_ends_a_command_like_ctrl_c(place: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "headstart",
        "sample",
        "--denoiser",
        "file_networks:slow",
        *SHARED,
        "--out",
        "new/out",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=place) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "sampling\n"
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "terminated, nothing half-written" in told
    assert not (place / "new").exists()


def test_files_in_the_home_folder(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(place / "home"))
    (place / "home").mkdir()
    np.save(place / "home" / "data.npy", np.random.default_rng(0).integers(0, 256, (60, 8, 6), dtype=np.uint8))
    call("fit", "~/data.npy", "--components", 1, "--rank", 1, "--out", "~/start.safetensors")
    assert hs.load(place / "home" / "start.safetensors").shape == (1, 8, 6)
    assert torch.is_tensor(hs.load("~/start.safetensors").components.mean)  # type: ignore[union-attr]
    assert not (place / "~").exists()
