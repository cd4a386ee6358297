"""`headstart tune`, end to end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import headstart as hs
from headstart.cli import app

NETWORK = """
import headstart as hs

law = hs.load("start.safetensors")
labels = set()

def denoise(x, sigma, label=None):
    labels.update([] if label is None else label.tolist())
    return law.denoise(x, sigma)
"""


def call(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with images of one smooth family, a start and a network of its own."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (120, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=pixels)
    images = torch.from_numpy(pixels)[:, None].float() / 127.5 - 1
    hs.fit(images, components=2, covariance=hs.LowRank(4), seed=0).save(tmp_path / "start.safetensors")
    (tmp_path / "tuned_network.py").write_text(NETWORK)
    return tmp_path


def test_a_plan_is_tuned_saved_and_run(place: Path) -> None:
    common = ["--denoiser", "tuned_network:denoise", "--start", "start.safetensors", "--sigma", 2, "--n", 16]
    text = call("tune", *common, "--nfe", 2, "--classes", 3, "--out", "first.json")
    first = hs.load_plan(place / "first.json")
    assert first.nfe == 2
    assert f"{first.provenance['tuned']['evaluations']:,} network evaluations" in text
    import tuned_network  # type: ignore[import-not-found]

    assert tuned_network.labels == {0, 1, 2}
    call("tune", *common, "--plan", "first.json", "--data", "data.npz", "--out", "second.json")
    second = hs.load_plan(place / "second.json")
    assert second.provenance["tuned"]["target"] == "data"
    sampled = ["--denoiser", "tuned_network:denoise", "--start", "start.safetensors", "--n", 2, "--out", "drawn"]
    assert "2 network calls a sample" in call("sample", *sampled, "--plan", "second.json", "--sigma", 2)
    assert "budget must be at least" in call("tune", *common, "--nfe", 2, "--budget", 50, "--out", "no.json", code=1)
    assert not (place / "no.json").exists()
