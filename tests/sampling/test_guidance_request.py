"""What guidance is asked for: refusals before any call, and the command line."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from guided_law import NULL, Law, N, run
from typer.testing import CliRunner

import headstart as hs
from headstart import zoo
from headstart.cli import app
from headstart.io.output import to_bytes


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"weight": math.nan}, "guided: weight must be a finite number of at least 0, got nan"),
        ({"weight": -1.0}, "guided: weight must be a finite number of at least 0, got -1.0"),
        ({"weight": math.inf}, "guided: weight must be a finite number of at least 0, got inf"),
        ({"weight": "2"}, "guided: weight must be a finite number of at least 0, got '2'"),
        ({"weight": True}, "guided: weight must be a finite number of at least 0, got True"),
        ({"null": None}, "guided: null must be given .* or a guide, got none"),
        ({"null": 10}, "guided: null must be a mapping of conditions, got int"),
        ({"interval": (2.0, 1.0)}, r"guided: interval must be \(low, high\) with 0 <= low < high, got \(2.0, 1.0\)"),
        ({"interval": (1.0, 1.0)}, "guided: interval must be"),
        ({"interval": (-1.0, 1.0)}, "guided: interval must be"),
        ({"interval": (0.0, math.nan)}, "guided: interval must be"),
        ({"interval": 3.0}, "guided: interval must be .*, got 3.0"),
        ({"denoiser": 3}, r"guided: denoiser must be a denoiser D\(x, sigma, \*\*cond\), got int"),
        ({"guide": "net"}, r"guided: guide must be a denoiser D\(x, sigma, \*\*cond\), got str"),
        ({"guide": hs.guided(Law(), 2.0, Law())}, "guided: guide must be a denoiser .*, got a guided one"),
    ],
)
def test_bad_guidance(change: dict, error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=error):
        hs.guided(**{"denoiser": Law(), "weight": 2.0, "null": NULL, **change})


@pytest.mark.parametrize(
    ("null", "error"),
    [
        ({"text": None}, r"guided: cond must have 'text', which null replaces, got \['label'\]"),
        ({"label": torch.zeros(4)}, r"guided: null\['label'\] must broadcast to \[6\], got \[4\]"),
    ],
)
def test_bad_conditions(null: dict, error: str) -> None:
    """Before any network call, also where the first rows are not guided."""
    law = Law()
    with pytest.raises(ValueError, match=error):
        run(hs.guided(law, 2.0, null=null, interval=(0.0, 1.0)))
    assert not law.rows


def test_what_a_branch_returns_is_checked() -> None:
    bad_guide = hs.guided(Law(), 2.0, lambda x, sigma, label: x[:, :1])
    bad_batch = hs.guided(lambda x, sigma, label: x[:N], 2.0, null=NULL)
    with pytest.raises(ValueError, match=r"sample: the guide must return a tensor \[6, 2\], got \[6, 1\]"):
        run(bad_guide)
    with pytest.raises(ValueError, match=r"sample: the denoiser must return a tensor \[12, 2\], got \[6, 2\]"):
        run(bad_batch)


def draw(folder: Path, *options: object) -> str:
    given = ["sample", "--denoiser", "zoo:fashion", "--start", "classic", "--out", str(folder), "--n", "2"]
    result = CliRunner().invoke(app, [*given, "--steps", "3", *map(str, options)])
    return " ".join(result.output.split())


def test_guidance_on_the_command_line(tmp_path: Path) -> None:
    """The images of `guided` with the zoo's null class, and both branches counted where the interval has them."""
    assert "6 network calls a sample" in draw(tmp_path, "--label", 5, "--guidance", 2)
    net, cond = zoo.denoiser(), {"label": torch.full((2,), 5)}
    expected = hs.sample(hs.guided(net, 2.0, null={"label": 10}), hs.Classic((1, 28, 28)), 2, 3, cond=cond)
    with np.load(tmp_path / "samples.npz") as file:
        assert np.array_equal(file["arr_0"], to_bytes(expected))
    text = draw(tmp_path, "--label", 5, "--guidance", 2, "--guidance-interval", 0.5, 5)
    assert "4 network calls a sample" in text
    for options, error in (
        (("--guidance", 2), "--guidance: needs a class to be drawn to, --label"),
        (("--guidance", -2, "--label", 5), "--guidance: must be a finite number of at least 0, got -2.0"),
        (("--guidance-interval", 1, 2), "--guidance-interval: needs --guidance"),
        (("--guidance", 2, "--label", 5, "--guidance-interval", 2, 1), "with 0 <= LOW < HIGH, got (2.0, 1.0)"),
        (("--guidance", 2, "--denoiser", "math:sin", "--shape", "1,4,4"), "math:sin has no known null class"),
    ):  # fmt: skip
        assert error in draw(tmp_path, *options)
