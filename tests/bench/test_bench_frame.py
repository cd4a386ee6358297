"""headstart bench on networks of framed images, and on several networks in one folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from bench_case import blobs
from headstart.bench.report import markdown
from headstart.cli import app
from headstart.cli.bench_quality import find_data, find_judge
from headstart.compare.case import BLACK, crop, cropped, frame, require_side, side_of
from headstart.compare.store import Result, files_of, name_of, networks_of, path_of, strips_of
from headstart.io import Dataset
from headstart.zoo import denoiser, images
from headstart.zoo.network import classifier

RUN = ["bench", "quality", "--quick", "--n", "20", "--starts", "learned,classic", "--solvers", "2M"]


def answer(x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
    """A denoiser that knows no side."""
    return x / (1 + sigma**2)


def wants_12(x: Tensor, sigma: Tensor) -> Tensor:
    return x.reshape(-1, 1, 12, 12)


def test_a_frame_is_black_and_leaves_pixels_alone() -> None:
    data = blobs(6, 0)
    framed = frame(data, 12)
    assert framed.images.shape == (6, 1, 12, 12)
    assert torch.equal(crop(framed.images, 8), data.images)
    assert framed.images.sum() == pytest.approx(float(data.images.sum()) + BLACK * 6 * (144 - 64), abs=1e-2)
    assert framed.labels is data.labels
    assert torch.equal(frame(data, 8).images, data.images)


@pytest.mark.parametrize("side", [6, 11])
def test_images_are_never_resized(side: int) -> None:
    with pytest.raises(ValueError, match=r"--side: must be the images' 8 and an even margin"):
        frame(blobs(4, 0), side)
    with pytest.raises(ValueError, match="needs square images"):
        frame(Dataset(torch.zeros(3, 5)), 8)


def test_the_classifier_sees_what_is_in_the_frame() -> None:
    x, labels = images("fashion", "test")
    known, unseen = find_data("zoo:fashion", "zoo:fashion", 32)
    assert unseen.images.shape[-1] == known.images.shape[-1] == 32
    judge = find_judge("zoo:fashion32", known)
    assert torch.equal(judge(unseen.images[:20]), classifier()(x[:20]))
    assert torch.equal(cropped(lambda part: part, 28)(unseen.images), x)
    assert find_judge("script:network", known) is None
    assert torch.equal(unseen.labels, labels)


def test_a_network_of_another_side_is_refused_before_any_work() -> None:
    x, network = torch.zeros(3, 1, 28, 28), denoiser()
    require_side("zoo:fashion", network, x)
    require_side("script:answer", answer, torch.zeros(3, 1, 30, 30))
    assert (side_of(network), side_of(answer)) == (28, None)
    with pytest.raises(ValueError, match=r"zoo:fashion was trained on images 28 wide, got \[1, 32, 32\]$"):
        require_side("zoo:fashion", network, torch.zeros(3, 1, 32, 32))
    with pytest.raises(ValueError, match="cannot take images"):
        require_side("script:wants_12", wants_12, torch.zeros(3, 1, 28, 28))

    class Net(torch.nn.Module):
        img_resolution = 32

    with pytest.raises(ValueError, match=r"32 wide, got .*; --side 32 frames them in black"):
        require_side("edm:net.pkl", Net(), x)


@pytest.mark.parametrize(
    ("denoiser", "name"),
    [
        ("zoo:fashion", "fashion"),
        ("zoo:a/fashion32.safetensors", "fashion32"),
        ("edm:a/Big Net.pt", "big-net"),
        ("my.script:Net.f", "my-script-net-f"),
    ],
)
def test_files_are_named_after_the_network(denoiser: str, name: str, tmp_path: Path) -> None:
    assert name_of(denoiser) == name
    path = path_of(tmp_path, "quality", denoiser)
    assert path.name == f"quality-{name}.json"
    assert strips_of(path).name == f"strips-{name}"


def test_a_file_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    old = Result(tmp_path / "quality.json", "quality", {"denoiser": "zoo:fashion"})
    old.add("a", {})
    assert path_of(tmp_path, "quality", "zoo:fashion") == old.path
    assert path_of(tmp_path, "quality", "zoo:fashion32") == tmp_path / "quality-fashion32.json"
    assert strips_of(old.path).name == "strips"
    assert list(networks_of(tmp_path)) == ["fashion"]
    new = Result(tmp_path / "quality-fashion.json", "quality", {"denoiser": "zoo:fashion"})
    new.add("b", {})
    (tmp_path / "qualityless.json").write_text("{}")
    assert files_of(tmp_path) == [old.path, new.path]
    assert networks_of(tmp_path)["fashion"]["quality"]["path"] == new.path


def test_the_command_frames_and_keeps_networks_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a user runs it: one network at 8 pixels, another at 12, one folder, both in the tables."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    common: list[Any] = [*RUN, "--out", str(tmp_path / "out")]
    for name, seed in (("train", 0), ("heldout", 1)):
        data = blobs(220, seed)
        np.savez(tmp_path / f"{name}.npz", images=data.images.numpy(), labels=data.labels.numpy())
        common += [f"--{name}", str(tmp_path / f"{name}.npz")]
    for name, more in (("answer", []), ("wants_12", ["--side", "12"])):
        done = CliRunner().invoke(app, [*common, "--denoiser", f"test_bench_frame:{name}_labelled", *more])
        assert done.exit_code == 0, done.output
    held = [json.loads(path.read_text()) for path in sorted((tmp_path / "out").glob("quality-*.json"))]
    assert [file["settings"].get("side") for file in held] == [None, 12]
    text = markdown(tmp_path / "out")
    assert text.count("### test-bench-frame-") == 2
    assert "framed to 12 x 12 in black" in text
    done = CliRunner().invoke(app, [*common, "--denoiser", "test_bench_frame:wants_12_labelled"])
    assert (done.exit_code, "cannot take images [1, 8, 8]" in done.output) == (1, True)


def answer_labelled(x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
    return answer(x, sigma)


def wants_12_labelled(x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
    return answer(wants_12(x, sigma), sigma)
