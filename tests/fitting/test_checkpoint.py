"""A checkpoint costs a run nothing: a full disk warns, SIGTERM saves, foreign files are refused."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import headstart as hs
from headstart.fitting import training
from headstart.io.workspace import Terminated, terminable

DATA = torch.randn(40, 1, 4, 4, generator=torch.Generator().manual_seed(0))
FIT = """
import sys, torch, headstart as hs
from headstart.fitting import flow

data = torch.randn(40, 1, 4, 4, generator=torch.Generator().manual_seed(0))
keep = flow.Checkpoint.keep

def told(self, state):
    keep(self, state)
    print("epoch", state["log"]["epoch"], flush=True)

flow.Checkpoint.keep = told
hs.TarFlow.fit(data, 1.0, epochs=100_000, checkpoint=sys.argv[1])
"""


def fit(path: Path | None, epochs: int = 4) -> Any:
    return hs.TarFlow.fit(DATA, 1.0, epochs=epochs, checkpoint=path)


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("write failed")])
def test_a_full_disk_warns_and_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    fit(tmp_path / "run.pt", 2)
    before = (tmp_path / "run.pt").read_bytes()

    def full(*arguments: object) -> None:
        raise failure

    monkeypatch.setattr(torch, "save", full)
    monkeypatch.setattr(training, "SECONDS", 0.0)
    with pytest.warns(RuntimeWarning, match=r"run\.pt could not be written \(.*\); the one before stays"):
        found = fit(tmp_path / "run.pt")
    assert found.report.epochs == 4
    assert torch.equal(found.at(1.0).sample(3), fit(None).at(1.0).sample(3))
    assert (tmp_path / "run.pt").read_bytes() == before
    assert os.listdir(tmp_path) == ["run.pt"]


def test_a_run_that_is_told_to_end_saves_its_last_epoch(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    command = [sys.executable, "-c", FIT, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = [process.stdout.readline() for _ in range(2)]
        assert told[-1] == "epoch 2\n"
        process.send_signal(signal.SIGTERM)
        told += process.stdout.readlines()
    assert process.returncode == 143
    assert os.listdir(tmp_path) == ["run.pt"]
    epoch = int(told[-1].split()[1])
    state = training.read_tensors(path)["state"]
    assert state["log"]["epoch"] == epoch
    resumed = fit(path, epoch + 1)
    assert torch.equal(resumed.at(1.0).sample(3), fit(None, epoch + 1).at(1.0).sample(3))


def test_a_handler_of_the_program_is_left_alone() -> None:
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with terminable():
            signal.raise_signal(signal.SIGTERM)
        assert heard == [signal.SIGTERM]
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with pytest.raises(Terminated), terminable():
            signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


def test_pipes_and_strangers_are_no_checkpoints(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    torch.save({"format": "headstart-training", "run": 3, "state": {}}, tmp_path / "odd.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    for name in ("pipe.pt", "odd.pt", "list.pt"):
        with pytest.raises(ValueError, match=rf"checkpoint .*{name} is damaged or no training run"):
            fit(tmp_path / name)


def test_the_home_folder_has_a_short_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    fit(Path("~/run.pt"), 1)
    assert os.listdir(tmp_path) == ["run.pt"]
