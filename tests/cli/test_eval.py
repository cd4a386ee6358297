"""Evaluation: figures are those of the single functions, floors are of as many real samples, unequal n is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from headstart import ops, zoo
from headstart.cli import app
from headstart.io.output import to_bytes, write_npz, write_samples
from headstart.metrics import (
    Evaluation,
    Figure,
    evaluate,
    frechet_distance,
    kernel_distance,
    max_sliced_wasserstein,
    sliced_wasserstein,
    statistics,
)

runner = CliRunner()


def normal(*shape: int, seed: int = 0) -> Tensor:
    return ops.normal(shape, seed, 0, dtype=torch.float64, device="cpu")


def pick(result: Evaluation, metric: str, features: str = "samples") -> Figure:
    (found,) = (one for one in result.figures if (one.metric, one.features) == (metric, features))
    return found


def double(x: Tensor) -> Tensor:
    return 2 * x


def test_figures_are_those_of_the_single_functions() -> None:
    x, y = normal(90, 5), normal(90, 5, seed=1) + 0.3
    result = evaluate(x, y, {"double": double, "pixels": None}, batch=17)
    assert (result.n, result.groups) == (90, 0)
    wanted = frechet_distance(statistics(x), statistics(y))
    assert pick(result, "FD", "pixels").value == pytest.approx(wanted, rel=1e-9)
    assert pick(result, "FD", "double").value == pytest.approx(4 * wanted, rel=1e-9)
    kernel = kernel_distance(x, y)
    assert pick(result, "KID", "pixels").value == pytest.approx(kernel.value, rel=1e-9)
    assert pick(result, "KID", "pixels").error == pytest.approx(kernel.error, rel=1e-9)
    assert pick(result, "SWD").value == pytest.approx(sliced_wasserstein(x, y), rel=1e-9)
    assert pick(result, "MaxSWD").value == pytest.approx(max_sliced_wasserstein(x, y).distance, rel=1e-6)
    assert all(one.floor is None for one in result.figures)  # no real samples are left over


def test_a_floor_is_what_a_perfect_sampler_shows() -> None:
    """Samples of the data's own law score about the floor, others above it, in every metric."""
    data = normal(800, 4)
    good = evaluate(normal(200, 4, seed=1), data, {"pixels": None}, n=200)
    bad = evaluate(1.5 * normal(200, 4, seed=1) + 0.5, data, {"pixels": None}, n=200)
    assert good.groups == 3
    for metric in ("FD", "SWD", "MaxSWD"):
        features = "pixels" if metric == "FD" else "samples"
        one, other = pick(good, metric, features), pick(bad, metric, features)
        assert one.value / 3 < one.floor < 3 * one.value
        assert other.floor == pytest.approx(one.floor, rel=1e-9)  # the same groups
        assert other.value > 3 * one.floor
    assert pick(bad, "tail 0.9").value > 1.3
    assert pick(bad, "tail 0.9").floor == pytest.approx(1, abs=0.25)


def test_sides_of_a_floor_do_not_overlap() -> None:
    """With as many groups as there are samples, a shared sample would make a zero distance."""
    data = torch.arange(8.0)[:, None].double() ** 2
    result = evaluate(data[:2], data, {"pixels": None}, n=2)
    floor = pick(result, "SWD").floor
    assert result.groups == 3
    assert floor is not None
    assert floor > 0.4


def test_floors_come_from_the_training_set_where_data_has_no_more() -> None:
    train, data = normal(300, 3), normal(120, 3, seed=1)
    result = evaluate(train[:120] + 1e-6, data, train=train)
    assert result.groups == 2
    assert pick(result, "SWD").floor is not None
    assert pick(result, "copies").value == 1
    assert pick(result, "nearest").floor is None  # its groups would be copies themselves
    held = evaluate(normal(120, 3, seed=2), normal(400, 3, seed=1), train=train, n=120)
    assert pick(held, "nearest").value == pytest.approx(1, abs=0.3)
    assert pick(held, "nearest").floor == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: evaluate(normal(4, 2), normal(5, 2)), "equally many, got 4 and 5; n = 4 takes"),
        (lambda: evaluate(normal(4, 2), normal(5, 2), n=5), "n must be at most the number of samples 4, got 5"),
        (lambda: evaluate(normal(9, 2), normal(5, 2), n=7), "n must be an integer from 2 to 5, got 7"),
        (
            lambda: evaluate(normal(4, 2), normal(4, 3)),
            r"samples must be .* \[3\] each, like the data, got \[2\]",
        ),
        (lambda: evaluate(normal(4, 2), normal(4, 2), train=normal(4, 3)), r"train must be of shape \[2\]"),
        (lambda: evaluate(normal(4, 2), normal(4, 2) * math.nan), "finite"),
    ],
)
def test_what_cannot_be_compared_is_refused(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def call(*arguments: object, code: int = 0) -> str:
    result = runner.invoke(app, ["eval", *(str(argument) for argument in arguments)], env={"COLUMNS": "160"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of real images and of their negatives, as `headstart sample` writes them."""
    folder = tmp_path_factory.mktemp("eval")
    images = zoo.images("fashion", "test")[0][..., ::2, ::2]
    write_samples(folder / "samples", to_bytes(-images[:40]), seed=0)
    write_npz(folder / "real.npz", {"images": to_bytes(images[40:200])})
    write_samples(folder / "colour", to_bytes(images[:40].expand(-1, 3, -1, -1)), seed=0)
    return folder


def test_the_command_prints_and_writes_the_table(place: Path) -> None:
    files = ("--out", place / "out.json", "--grid", place / "grid.png")
    text = call(
        place / "samples", place / "real.npz", "--n", 40, "--features", "gradient", "--features", "pixels", *files
    )
    for word in ("FD", "KID", "SWD", "MaxSWD", "gradient", "pixels", "real (floor)", "40 samples of"):
        assert word in text
    table = json.loads((place / "out.json").read_text())
    assert (table["n"], table["groups"], table["seed"]) == (40, 3, 0)
    for figure in table["figures"]:
        if figure["metric"] in ("FD", "SWD", "MaxSWD", "KID"):
            assert figure["value"] > 1.3 * figure["floor"]
    assert np.asarray(Image.open(place / "grid.png")).shape == (4 * 16 + 2, 8 * 16 + 2)


def test_the_command_says_when_there_is_no_floor(place: Path) -> None:
    text = call(place / "samples", place / "samples")
    assert "No floor: it takes another 40 real samples" in text
    text = call(place / "samples", place / "samples", "--train", place / "real.npz")
    assert "No floor" not in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["samples", "real.npz"], "unequal n cannot be compared, got 40 samples and 160 of data; --n 40 takes"),
        (
            ["colour", "real.npz", "--n", "40"],
            "must be of shape [1, 14, 14] each, like the data, got [3, 14, 14]",
        ),
        (["gone", "real.npz"], "gone: no such file or folder"),
        (["samples", "samples", "--features", "some"], "--features: must be one of gradient, pixels, lite0"),
        (["samples", "samples", "--features", "inception:gone.pth"], "gone.pth"),
        (["samples", "samples", "--features", "dinov2:gone"], "gone: no such file or folder"),
        (["samples", "samples", "--out", "samples"], "is a folder; --out names a file"),
    ],
)
def test_the_command_has_one_line_for_an_error(
    place: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(place)
    before = sorted(place.rglob("*"))
    text = call(*arguments, code=1)
    assert message in text
    assert sorted(place.rglob("*")) == before
