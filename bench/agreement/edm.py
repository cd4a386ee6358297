"""EDM's and EDM2's networks, samplers and bytes, from checkouts that `HEADSTART_EDM` and `HEADSTART_EDM2` name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import headstart as hs
from bench.agreement import edm_oracle as oracle
from bench.agreement import edm_pickle
from bench.agreement.case import Absent, Case, distance
from headstart.adapters import edm

OUTPUT, HALF, SAMPLED = 1e-5, 5e-3, 1e-4
BARS = {"half": HALF, "sample": SAMPLED, "churn": SAMPLED, "autoguidance": SAMPLED}
SEED = 3
SOLVERS = {"sample": hs.Heun(), "churn": hs.Heun(hs.Churn(oracle.CHURN, noise=oracle.CHURN_NOISE))}


def bar(name: str) -> float:
    """What the error of an output must stay below."""
    return BARS.get(name, OUTPUT)


def answers(net: Any, case: oracle.Case, guide: Any = None) -> dict[str, Tensor]:
    """Our outputs under the oracle's names, samples in float64 as theirs."""
    x, cond = oracle.inputs(case.arguments)
    found = {str(level): net(*oracle.noised(x, level), **cond) for level in oracle.LEVELS}
    found["no class"] = net(*oracle.noised(x, 0.7))
    grid = net.round(hs.karras(min(80.0, net.sigma_max), max(0.002, net.sigma_min), oracle.STEPS))
    start = hs.Classic(tuple(x.shape[1:]), grid[0].item())
    label = {name: value for name, value in cond.items() if name == "label"}
    given: dict[str, Any] = {"grid": grid, "latents": x, "cond": label, "dtype": torch.float64, "seed": SEED}
    for name, solver in SOLVERS.items():
        found[name] = hs.sample(net, start, len(x), solver=solver, **given)
    if guide is not None:
        guided = hs.guided(net, oracle.GUIDANCE, guide)
        found["autoguidance"] = hs.sample(guided, start, len(x), solver=hs.Heun(), **given)
    return found


def half(path: Path, case: oracle.Case) -> Tensor:
    """The raw network's output with convolutions in float16."""
    x, cond = oracle.inputs(case.arguments)
    net = edm.load(path, dtype=torch.float16)
    out = net.raw(x.half(), torch.tensor(0.3), **cond)
    assert out.dtype == torch.float16
    return out


def recorded(project: str, key: str, folder: Path) -> dict[str, float]:
    """Errors of an imitated file's network against the recorded figures, by output."""
    case, figures = oracle.CASES[project][key], json.loads(oracle.FIGURES.read_text())[project][key]
    assert oracle.names(edm_pickle.tensors(case)) == figures["tensors"]
    path = edm_pickle.save(folder / "net.pkl", {"ema": edm_pickle.network(case)})
    outputs, errors = {**answers(edm.load(path), case), "half": half(path, case)}, {}
    for name in outputs.keys() & figures.keys():
        wanted = torch.tensor(figures[name], dtype=torch.float64)
        found = torch.tensor(oracle.summary(outputs[name]), dtype=torch.float64)
        errors[name] = float((found - wanted).norm() / wanted[1:].norm())
    return errors


def run_oracle(project: str, folder: Path) -> None:
    """The checkout's own code on every case, in a process of its own.

    Raises:
        Absent: there is no checkout.
    """
    variable = f"HEADSTART_{project.upper()}"
    checkout = os.environ.get(variable)
    if not checkout:
        raise Absent(f"{variable} names no checkout of NVlabs/{project}")
    shape = oracle.inputs(next(iter(oracle.CASES[project].values())).arguments)[0].shape
    rows = SOLVERS["churn"].rows(hs.karras(80.0, 0.002, oracle.STEPS).tolist())
    steps = [i for i, row in enumerate(rows) if row.c]
    draws = [hs.ops.normal(shape, SEED, i, stream=hs.ops.Stream.SOLVER, dtype=torch.float64) for i in steps]
    torch.save(torch.stack(draws), folder / "draws.pt")
    script = Path(oracle.__file__)
    subprocess.run([sys.executable, str(script), project, checkout, str(folder)], check=True, timeout=300)


def live(project: str, key: str, folder: Path) -> dict[str, float]:
    """Errors of our reading of the checkout's own pickle against the checkout's outputs, by output."""
    case, theirs = oracle.CASES[project][key], torch.load(folder / f"{key}.pt", weights_only=True)
    path = folder / f"{key}.pkl"
    guide = edm.load(folder / "plain.pkl") if project == "edm2" else None
    outputs = {**answers(edm.load(path), case, guide), "half": half(path, case)}
    return {name: distance(outputs[name], wanted) for name, wanted in theirs.items()}


@cache
def place(project: str) -> tempfile.TemporaryDirectory[str]:
    """A folder with what the checkout made of every case; removed at the end."""
    folder = tempfile.TemporaryDirectory()
    run_oracle(project, Path(folder.name))
    return folder


@cache
def errors(project: str, key: str) -> dict[str, float]:
    """`live` in that folder."""
    return live(project, key, Path(place(project).name))


def worst(project: str, keys: list[str], names: tuple[str, ...]) -> float:
    """The largest error of outputs of those names, of all networks; no names: of every output without a name."""
    found = [(name, error) for key in keys for name, error in errors(project, key).items()]
    return max(error for name, error in found if (name in names if names else name not in BARS))


def bytes_apart(name: str) -> float:
    """Largest difference of a byte, or of a normalized latent."""
    theirs = torch.load(Path(place("edm2").name) / "latents.pt", weights_only=True)[name]
    moments, latents = edm.Moments(), oracle.latents()
    if name == "final":
        return distance(moments.final(latents), theirs)
    ours = edm.rgb_bytes(oracle.ramp()) if name == "rgb" else edm.vae_bytes(moments.raw(latents))
    return float((ours.int() - theirs.int()).abs().max())


def cases() -> Iterator[Case]:
    """Every network of either project, with every output; the samplers; the bytes."""
    networks = {"ddpmpp": "SongUNet (DDPM++)", "ncsnpp": "SongUNet (NCSN++)", "skip": "SongUNet (skip)"}
    families = [("edm", f"EDM {name}", key) for key, name in {**networks, "adm": "DhariwalUNet"}.items()]
    for project, name, prefix in [*families, ("edm2", "EDM2 UNet", "")]:
        keys = [key for key in oracle.CASES[project] if key.startswith(prefix)]
        ours, factors = "adapters.edm.load", "VP, VE, iDDPM, EDM factors" if prefix else "all options, stored half too"
        continuous = [key for key in keys if "iDDPM" not in key]
        for names, setting, some, dtype in (
            ((), f"D(x, sigma), {factors}", keys, "float32"),
            (("half",), "raw network", keys, "float16"),
            (("sample",), "edm_sampler, 6 steps", keys, "float64 state"),
            (("churn",), f"edm_sampler, S_churn={oracle.CHURN:g}, same draws", continuous, "float64 state"),
            (("autoguidance",), f"edm_sampler, guidance={oracle.GUIDANCE}", keys, "float64 state"),
        ):
            if names != ("autoguidance",) or project == "edm2":
                error = partial(worst, project, some, names)
                solver = ", Heun" if dtype == "float64 state" else ""
                yield Case(ours + solver, name, setting, bar(names[0] if names else ""), error, dtype)
    for ours, kind, setting, most, name, dtype in (
        ("rgb_bytes", "StandardRGBEncoder", "4,509 values, ends and halves between bytes too", 0, "rgb", "uint8"),
        ("vae_bytes", "StabilityVAEEncoder", "of normalized latents, the VAE's network left out", 0, "vae", "uint8"),
        ("Moments", "StabilityVAEEncoder", "normalization of latents", 1e-6, "final", "float32"),
    ):
        yield Case(f"adapters.edm.{ours}", f"EDM2 {kind}", setting, most, partial(bytes_apart, name), dtype)
