"""What test_edm.py and test_edm2.py hold of every network: figures recorded, or outputs of a checkout's own run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import edm_oracle as oracle
import edm_pickle
import headstart as hs
from headstart.adapters import edm

TOLERANCE, HALF, SAMPLED = 1e-5, 5e-3, 1e-4


def answers(net: Any, case: oracle.Case) -> dict[str, Tensor]:
    """Our outputs under the oracle's names, the sample in float64 as theirs."""
    x, cond = oracle.inputs(case.arguments)
    found = {str(level): net(*oracle.noised(x, level), **cond) for level in oracle.LEVELS}
    found["no class"] = net(*oracle.noised(x, 0.7))
    grid = net.round(hs.karras(min(80.0, net.sigma_max), max(0.002, net.sigma_min), oracle.STEPS))
    start = hs.Classic(tuple(x.shape[1:]), grid[0].item())
    label = {name: value for name, value in cond.items() if name == "label"}
    given: dict[str, Any] = {"latents": x, "cond": label, "dtype": torch.float64}
    return {**found, "sample": hs.sample(net, start, len(x), grid=grid, solver=hs.Heun(), **given)}


def half(path: Path, case: oracle.Case) -> Tensor:
    """The raw network's output with convolutions in float16."""
    x, cond = oracle.inputs(case.arguments)
    net = edm.load(path, dtype=torch.float16)
    out = net.raw(x.half(), torch.tensor(0.3), **cond)
    assert out.dtype == torch.float16
    return out


def hold_recorded(project: str, key: str, folder: Path) -> None:
    """An imitated file's network gives the recorded figures."""
    case, figures = oracle.CASES[project][key], json.loads(oracle.FIGURES.read_text())[project][key]
    assert oracle.names(edm_pickle.tensors(case)) == figures["tensors"]
    path = edm_pickle.save(folder / "net.pkl", {"ema": edm_pickle.network(case)})
    outputs = {**answers(edm.load(path), case), "half": half(path, case)}
    for name, out in outputs.items():
        wanted = torch.tensor(figures[name], dtype=torch.float64)
        error = (torch.tensor(oracle.summary(out), dtype=torch.float64) - wanted).norm() / wanted[1:].norm()
        assert error < {"half": HALF, "sample": SAMPLED}.get(name, TOLERANCE), (name, float(error))


def run_oracle(project: str, folder: Path) -> None:
    """The checkout's own code on every case, in a process of its own; skips where there is no checkout."""
    variable = f"HEADSTART_{project.upper()}"
    checkout = os.environ.get(variable)
    if not checkout:
        pytest.skip(f"{variable} names no checkout of NVlabs/{project}")
    script = Path(oracle.__file__)
    subprocess.run([sys.executable, str(script), project, checkout, str(folder)], check=True, timeout=300)


def hold_live(project: str, key: str, folder: Path) -> dict[str, float]:
    """Our reading of the checkout's own pickle gives the checkout's outputs; relative errors by output."""
    case, theirs = oracle.CASES[project][key], torch.load(folder / f"{key}.pt", weights_only=True)
    path = folder / f"{key}.pkl"
    outputs = {**answers(edm.load(path), case), "half": half(path, case)}
    errors = {}
    for name, out in outputs.items():
        wanted = theirs[name].double()
        errors[name] = float((out.double() - wanted).norm() / wanted.norm())
        assert errors[name] < {"half": HALF, "sample": SAMPLED}.get(name, TOLERANCE), (name, errors[name])
    return errors
