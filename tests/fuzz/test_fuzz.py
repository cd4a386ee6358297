"""Thousands of odd inputs over every public name: no crash, no hang, no NaN from finite input, refusals by name.

`pytest -m fuzz` prints a table; each input is a function of its index and the seed. In the environment `FUZZ_INPUTS`
and `FUZZ_SEED` give other numbers, and `FUZZ_FOUND` a file for what became of every input.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import pytest
from fuzz_outcome import CRASH, KINDS, MEMORY, NAMED, NAN, RAW, SLOW
from fuzz_target import base

import headstart as hs

pytestmark = pytest.mark.fuzz

WORKER = Path(__file__).with_name("fuzz_worker.py")
INPUTS, SEED, WORKERS = int(os.environ.get("FUZZ_INPUTS", "10500")), int(os.environ.get("FUZZ_SEED", "0")), 2
PATIENCE, START = 90, 240  # seconds without a line after which a worker is stopped, and until its first
NAMED_SHARE = 0.95


class Shift:
    """A worker process, started again behind an input that ended it."""

    def __init__(self, first: int, folder: Path, found: list[dict[str, Any]]) -> None:
        self.next, self.folder, self.found = first, folder, found
        folder.mkdir()

    def work(self) -> None:
        while self.next < INPUTS:
            self.once()

    def once(self) -> None:
        """Runs a worker until it ends, in whatever way; what it was at then is a crash or a hang."""
        paths = [str(Path(hs.__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
        command = [sys.executable, str(WORKER), *map(str, (self.next, WORKERS, INPUTS, SEED))]
        with (self.folder / "errors.txt").open("ab") as errors:
            worker = subprocess.Popen(command, cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=errors)
        assert worker.stdout is not None
        lines: Queue[bytes] = Queue()
        reader = threading.Thread(target=lambda: [lines.put(line) for line in worker.stdout] and None, daemon=True)
        reader.start()
        at, slow, patience = None, False, START
        while True:
            try:
                line = lines.get(timeout=1 if not reader.is_alive() else patience)
            except Empty:
                slow = reader.is_alive()
                break
            record, patience = json.loads(line), PATIENCE
            if record.get("end"):
                at, self.next = None, INPUTS
                break
            at = None if "kind" in record else record
            self.next = record["index"] + WORKERS
            if at is None:
                self.found.append(record)
        worker.kill()
        code = worker.wait()
        if at is not None:
            self.found.append({**at, "kind": SLOW if slow else CRASH, "how": f"exit {code}", "place": ""})
        elif self.next < INPUTS:
            raise AssertionError(f"a worker ended with {code} between inputs: see {self.folder / 'errors.txt'}")


def table(found: list[dict[str, Any]]) -> str:
    """What became of the inputs of each target."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for record in found:
        counts[record["target"]][record["kind"]] += 1
    lines = [f"{'target':42s}" + "".join(f"{kind:>11s}" for kind in KINDS)]
    for name in [*sorted(counts), "all"]:
        row = counts[name] if name != "all" else sum(counts.values(), Counter())
        lines.append(f"{name:42s}" + "".join(f"{row[kind]:11d}" for kind in KINDS))
    return "\n".join(lines)


def worst(found: list[dict[str, Any]], kinds: tuple[str, ...], most: int = 12) -> str:
    """The places that most of them come from, with an example each."""
    places: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in found:
        if record["kind"] in kinds:
            places[f"{record['target']} {record.get('place', '')}"].append(record)
    order = sorted(places.items(), key=lambda item: -len(item[1]))[:most]
    return "\n".join(f"{len(all_):4d} {place}: {all_[0]['how']}: {all_[0].get('error', '')}" for place, all_ in order)


def test_every_public_name_is_a_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    targets = base()
    for prefix, room in (("", hs), ("ops.", hs.ops), ("metrics.", hs.metrics)):
        for name in room.__all__:
            thing = getattr(room, name)
            if callable(thing) and not getattr(thing, "_is_protocol", False):
                assert any(key == prefix + name or key.startswith(f"{prefix}{name}.") for key in targets), name
    for name in hs.adapters.__all__:
        assert any(key.startswith(f"adapters.{name}.") for key in targets)


def test_odd_inputs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found: list[dict[str, Any]] = []
    began = time.monotonic()
    shifts = [Shift(first, tmp_path / str(first), found) for first in range(WORKERS)]
    threads = [threading.Thread(target=shift.work) for shift in shifts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    count = Counter(record["kind"] for record in found)
    refused = count[NAMED] + count[RAW]
    share = count[NAMED] / max(refused, 1)
    Path(os.environ.get("FUZZ_FOUND", tmp_path / "found.json")).write_text(json.dumps(found))
    with capsys.disabled():
        print(f"\n{table(found)}\n\n{len(found)} inputs in {time.monotonic() - began:.0f} s; {share:.1%} of {refused}")
        print(f"refusals are named. Where raw errors come from:\n{worst(found, (RAW,), 40)}")
        print(f"Others:\n{worst(found, (NAN, SLOW, CRASH, MEMORY), 40)}")
    assert len(found) == INPUTS
    assert count[CRASH] == 0
    assert count[SLOW] == 0
    assert count[NAN] == 0
    assert share >= NAMED_SHARE
