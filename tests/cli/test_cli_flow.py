"""`headstart fit --family flow|tarflow`, and sampling from the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import headstart as hs
from headstart.cli import app

DENOISER = "def denoise(x, sigma, label=None):\n    return x\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with labelled images and a denoiser."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    pixels = np.random.default_rng(0).integers(0, 256, (60, 4, 4), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=pixels, labels=np.arange(60) % 3)
    (tmp_path / "identity.py").write_text(DENOISER)
    return tmp_path


def call(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


@pytest.mark.parametrize("family", ["flow", "tarflow"])
def test_fit_resumes_and_the_file_samples(place: Path, family: str) -> None:
    if family == "flow":
        pytest.importorskip("zuko", reason="zuko is not installed: pip install headstart[flows]")
    settings = ["fit", "data.npz", "--family", family, "--sigma", 2, "--noise", "dynamic", "--checkpoint", "run.pt"]
    call(*settings, "--epochs", 1)
    said = call(*settings, "--epochs", 2)
    assert f"wrote start.safetensors: {family} at sigma 2" in said
    assert "nats per dimension" in said
    start = hs.load("start.safetensors")
    assert isinstance(start, {"flow": hs.Flow, "tarflow": hs.TarFlow}[family])
    assert start.conditional
    assert start.report.epochs == 2
    arguments = ["--denoiser", "identity:denoise", "--start", "start.safetensors", "--n", 3, "--steps", 2]
    call("sample", *arguments, "--sigma", 2, "--label", 1, "--out", "samples")
    with np.load("samples/samples.npz") as file:
        assert file["arr_0"].shape == (3, 4, 4, 1)
    assert torch.isfinite(start.sample(2, labels=1)).all()
    assert "trained, got 3" in call("sample", *arguments, "--out", "others", code=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--family", "vae"], "--family: must be one of gmm,"),
        (["--family", "flow"], "--sigma: a flow is trained at one noise level"),
        (["--sigma", 2], "--sigma: is for"),
        (["--family", "tarflow", "--sigma", 2, "--components", 3], "--components: is for gmm"),
        (["--family", "tarflow", "--sigma", 2, "--noise", "white"], "--noise: must be one of fixed, dynamic"),
        (["--family", "tarflow", "--sigma", 0], "sigma must be finite and above 0"),
        (["--family", "tarflow", "--sigma", 2, "--checkpoint", "."], "--checkpoint names a file"),
    ],
)
def test_fit_refuses_in_one_line(place: Path, arguments: list[object], message: str) -> None:
    assert message in call("fit", "data.npz", *arguments, code=1)
    assert not (place / "start.safetensors").exists()
