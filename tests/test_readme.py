"""README's example runs as printed, and what it includes is what was measured."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from statistics import median

import pytest

import headstart as hs

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hs, "tune", partial(hs.tune, n=8, iterations=1, progress=False))  # minutes as printed
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert blocks
    names: dict = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert capsys.readouterr().out == "torch.Size([16, 1, 28, 28]) 5 network calls a sample\n"
    assert names["dressed"].isfinite().all()
    assert names["plan"].nfe == 4
    assert names["plan"].provenance["tuned"]["target"] == "data"
    assert names["x"].shape == (64, 1, 28, 28)
    assert (tmp_path / "start.safetensors").exists()


def test_tables_come_from_the_results() -> None:
    """The figures between the markers are those of the JSON files that `python -m bench.readme` renders."""
    readme = pytest.importorskip("bench.readme", reason="the benchmarks are not beside the tests")
    assert readme.render(README) == README
    assert json.loads(readme.DEMO.read_text())["rows"]
    assert [README.count(f"<!-- {name} -->") for name in readme.SECTIONS] == [1] * len(readme.SECTIONS)


@pytest.mark.parametrize(("source", "figure"), [("ops", "of_copy"), ("sampler", "copies")])
def test_speeds_are_medians_of_the_repetitions(source: str, figure: str) -> None:
    """Every headstart figure in README, computed anew from the raw seconds."""
    tables = pytest.importorskip("bench.performance", reason="the benchmarks are not beside the tests")
    path = tables.RESULTS / source / f"{source}.json"
    if not path.exists():
        pytest.skip(f"{path} is not there: python -m bench.{source} makes it")
    for case in tables.every_thread(json.loads(path.read_text())):
        seconds = {row["contender"]: row["seconds"] for row in case["results"]}
        pairs = zip(seconds["copy"], seconds["headstart"], strict=True)
        if case["name"].startswith("overhead"):
            continue
        if figure == "of_copy":
            expected = f"| {case['name']} | {case['bytes'] / 1e6:,.1f} | {median(b / a for b, a in pairs):.3f} |"
            assert expected in README
        else:
            line = next(x for x in README.splitlines() if x.startswith(f"| headstart | {case['name'].split()[1]} |"))
            assert f"| {median(a / b for b, a in pairs):.1f} +- " in line
