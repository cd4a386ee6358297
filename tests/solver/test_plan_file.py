"""Plans of strangers: one line that names the file, whatever their text holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import headstart as hs
from headstart.io import bound


@pytest.fixture
def text(tmp_path: Path) -> dict[str, Any]:
    rows = hs.DPMpp2M().rows([3.0, 1.0, 0.0])
    hs.Plan((3.0, 1.0, 0.0), tuple(rows), None, 0.1, 0.2, {"seed": 0}).save(tmp_path / "plan.json")
    found: dict[str, Any] = json.loads((tmp_path / "plan.json").read_text())
    return found


STRANGE: dict[str, Any] = {
    "long node": lambda text: text["nodes"].__setitem__(0, 10**400),
    "long coefficient": lambda text: text["rows"][0].__setitem__("a", 10**400),
    "long list of them": lambda text: text["rows"][0].__setitem__("b", [10**400]),
    "long ghost": lambda text: text.__setitem__("ghost", 10**400),
    "far ghost": lambda text: text.__setitem__("ghost", 1e300),
    "long error": lambda text: text.__setitem__("expected_error", 10**400),
    "many nodes": lambda text: text.__setitem__("nodes", [float(i) for i in range(100_000)]),
    "text": lambda text: text.__setitem__("nodes", "x" * 100_000),
    "text for a choice": lambda text: text["rows"][0].__setitem__("commit", "x"),
    "text for a number": lambda text: text["rows"][0].__setitem__("analytic", "x"),
    "truth for a number": lambda text: text["rows"][0].__setitem__("a", True),
    "overflow": lambda text: text["rows"][1].__setitem__("b", [1e300]),
    "no number": lambda text: text["rows"][0].__setitem__("told", float("nan")),
    "long version": lambda text: text.__setitem__("version", 10**400),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_strange_numbers_are_one_line(tmp_path: Path, text: dict[str, Any], kind: str) -> None:
    STRANGE[kind](text)
    (tmp_path / "odd.json").write_text(json.dumps(text))
    with pytest.raises(ValueError, match=r"load_plan: .*odd\.json") as caught:
        hs.load_plan(tmp_path / "odd.json")
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("raw", [b"[" * 200_000, b'{"nodes":' + b"[" * 50_000, b"1" * 6000, b"\0" * 100, b"\xff\xfe"])
def test_strange_texts_are_one_line(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "odd.json").write_bytes(raw)
    with pytest.raises(ValueError, match=r"odd\.json is (truncated or no JSON text|not a plan)") as caught:
        hs.load_plan(tmp_path / "odd.json")
    assert len(str(caught.value)) < 500


@pytest.mark.usefixtures("text")
def test_a_plan_is_read_from_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert hs.load_plan("~/plan.json") == hs.load_plan(tmp_path / "plan.json")
    (tmp_path / "long.json").write_bytes(b" " * (2**24 + 1))
    with pytest.raises(ValueError, match=r"long\.json: holds 16,777,217 bytes"):
        hs.load_plan(tmp_path / "long.json")
    (tmp_path / "wide.json").write_bytes(b" " * 2**22)
    monkeypatch.setattr(bound, "available", lambda: 2**20)
    with pytest.raises(ValueError, match=r"wide\.json: takes"):
        hs.load_plan(tmp_path / "wide.json")
