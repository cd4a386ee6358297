"""The run on a GPU, dry: every stage runs or says why it does not, and the last one says what to commit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

gpu = pytest.importorskip("bench.gpu", reason="the benchmarks are not beside the tests")


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU the stages take their minutes")
def test_every_stage_runs_dry_or_says_why_not(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.gpu", "--out", str(tmp_path), "--quick"]
    said = subprocess.run(command, cwd=gpu.ROOT, capture_output=True, text=True, check=True).stdout
    report = json.loads((tmp_path / "gpu.json").read_text())
    stages = {name: stage["status"] for name, stage in report["stages"].items()}
    missing = report["machine"]["missing"]
    assert {name for name, status in stages.items() if status == "passed"} == {"ops", "loop", "commit"}, said
    assert {status for status in stages.values() if status != "passed"} == {f"skipped: {missing}"}
    assert all(report["stages"][name]["cases"] for name in ("ops", "loop"))
    assert [*stages][-1] == "commit"
    assert "commit nothing: a dry run" in said


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        (
            ("passed", "skipped: compute-sanitizer was not found"),
            "commit DIR/gpu.json as bench/results/gpu/card-x1.json",
        ),
        (("passed", "stopped after 60 s"), "commit nothing: stage1 did not pass"),
    ],
)
def test_only_a_whole_run_is_to_be_committed(statuses: tuple[str, ...], expected: str) -> None:
    stages = {f"stage{i}": {"status": status} for i, status in enumerate(statuses)}
    report = {"quick": False, "machine": {"device": "Card X1"}, "stages": stages}
    assert gpu.name_commit(report, Path("DIR"))["summary"] == expected
