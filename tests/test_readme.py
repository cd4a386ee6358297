"""README's example runs as printed, and what it includes is what was measured."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert blocks
    names: dict = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert capsys.readouterr().out == "torch.Size([16, 1, 28, 28]) 5 network calls a sample\n"
    assert names["dressed"].isfinite().all()
    assert (tmp_path / "start.safetensors").exists()


def test_tables_come_from_the_results() -> None:
    """The figures between the markers are those of the JSON files that `python -m bench.readme` renders."""
    readme = pytest.importorskip("bench.readme", reason="the benchmarks are not beside the tests")
    assert readme.render(README) == README
    assert json.loads(readme.DEMO.read_text())["rows"]
