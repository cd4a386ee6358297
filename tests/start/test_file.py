"""Saved starts and networks of strangers: one line that names the file, whatever their header holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import headstart as hs
from headstart.io import bound

HEADERS: dict[str, str] = {
    "deep": "[" * 100_000,
    "deep object": '{"a":' * 50_000,
    "long version": '{"format": "headstart", "version": ' + "1" * 6000 + "}",
    "later version": '{"format": "headstart", "version": ' + "1" * 4000 + "}",
    "infinite version": '{"format": "headstart", "version": 1e999}',
    "list of families": '{"format": "headstart", "version": 1, "family": ["GaussianMixture"]}',
    "object of families": '{"format": "headstart", "version": 1, "family": {}}',
    "long family": '{"format": "headstart", "version": 1, "family": "' + "x" * 100_000 + '"}',
    "null": "null",
}


@pytest.mark.parametrize("kind", HEADERS)
def test_strange_headers_are_one_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "odd.safetensors"
    save_file({"mean": torch.zeros(1, 4)}, path, {"headstart": HEADERS[kind]})
    for read in (hs.load, hs.adapters.edm.load):
        with pytest.raises(ValueError, match=r"load: .*odd\.safetensors") as caught:
            read(path)
        assert len(str(caught.value)) < 500


def test_a_start_larger_than_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "start.safetensors"
    save_file({"mean": torch.zeros(600_000)}, path)
    monkeypatch.setattr(bound, "available", lambda: 2**20)
    with pytest.raises(ValueError, match=r"load: .*start\.safetensors: takes 0\.00 GiB of memory"):
        hs.load(path)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 8 bytes")])
def test_running_out_of_memory_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    hs.fit(torch.randn(60, 2), components=1, max_iter=2).save(tmp_path / "start.safetensors")

    def full(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(hs.GaussianMixture, "from_file", full)
    with pytest.raises(MemoryError, match=r"start\.safetensors: not enough memory"):
        hs.load(tmp_path / "start.safetensors")


def zoo_file(tmp_path: Path, **change: Any) -> Path:
    with safe_open(hs.zoo.locate("fashion", ".safetensors"), framework="pt") as file:
        header = file.metadata()
        weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    network = {**json.loads(header["network"]), **change.pop("network", {})}
    path = tmp_path / "zoo.safetensors"
    save_file(weights, path, {**header, "network": json.dumps(network), **change})
    return path


def test_a_network_of_the_zoo_is_read_as_before(tmp_path: Path) -> None:
    x = torch.randn(2, 1, 28, 28)
    shipped, read = hs.zoo.denoiser("fashion"), hs.zoo.denoiser(str(zoo_file(tmp_path)))
    assert torch.equal(shipped(x, 1.0), read(x, 1.0))


@pytest.mark.parametrize(
    "change",
    [
        {"network": {"widths": [2**40, 2**40]}},
        {"network": {"widths": [64] * 1000}},
        {"network": {"depth": 10**9}},
        {"network": {"evil": 1}},
        {"network": {"widths": "ab"}},
        {"network": {"classes": 2**40}},
        {"sigma_data": "wide"},
        {"side": "1" * 5000},
    ],
)
def test_a_damaged_network_of_the_zoo_is_named(tmp_path: Path, change: dict[str, Any]) -> None:
    path = zoo_file(tmp_path, **change)
    with pytest.raises(ValueError, match=r"zoo: .*zoo\.safetensors is damaged or of another version") as caught:
        hs.zoo.denoiser(str(path))
    assert len(str(caught.value)) < 500
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"zoo\.safetensors is truncated"):
        hs.zoo.denoiser(str(path))
