"""The starts of the toy table: a builder each, and the folder that keeps what was fitted."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

import headstart as hs
from bench.toy.law import Toy
from headstart.io.output import write

COMPONENTS = 32
HEAVY_COMPONENTS, HEAVY_ITERATIONS = 8, 40  # of the t mixture, twice the law's components
FLOW_SEED = 0  # flows are trained once a law; their rows differ in samples alone


@dataclass(frozen=True)
class Built:
    """A start at sigma_T, the law it was noised from (None where there is none), and the seconds of the fit."""

    start: Any
    law: Any = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Setting:
    """What a builder may use: the problem, its training points, a seed, a folder, and the passes of a flow."""

    toy: Toy
    data: Tensor
    seed: int
    folder: Path
    epochs: int


def kept(setting: Setting, name: str, fit: Callable[[], Any]) -> tuple[Any, float]:
    """The fit from its file, or made and saved, and the seconds it took."""
    path = setting.folder / f"{setting.toy.name}-{len(setting.data)}-{setting.seed}-{name}.safetensors"
    clock = path.with_suffix(".seconds")
    if not (path.exists() and clock.exists()):
        began = time.perf_counter()
        fit().save(path)
        seconds = time.perf_counter() - began
        write(clock, lambda temporary: temporary.write_text(f"{seconds:.2f}"))
    return hs.load(path), float(clock.read_text())


def classic(setting: Setting) -> Built:
    return Built(hs.Classic((setting.toy.dim,), 80.0))


def classic_3(setting: Setting) -> Built:
    return Built(hs.Classic((setting.toy.dim,), 3.0))


def uninformed(setting: Setting) -> Built:
    return Built(hs.Classic((setting.toy.dim,), setting.toy.sigma_T))


def empirical(setting: Setting) -> Built:
    return Built(hs.Empirical(setting.data.float()).at(setting.toy.sigma_T))


def gaussian_mixture(setting: Setting) -> Built:
    data = setting.data.float()
    law, seconds = kept(setting, "gmm", lambda: hs.GaussianMixture.fit(data, COMPONENTS, hs.Full(), setting.seed))
    return Built(law.at(setting.toy.sigma_T), law, seconds)


def student_mixture(setting: Setting) -> Built:
    data = setting.data.float()

    def fit() -> Any:
        return hs.StudentTMixture.fit(data, HEAVY_COMPONENTS, hs.Full(), setting.seed, HEAVY_ITERATIONS)

    law, seconds = kept(setting, "tmix", fit)
    return Built(law.at(setting.toy.sigma_T), law, seconds)


def flow(setting: Setting, noise: Any, name: str) -> Built:
    base = hs.StudentTBase() if setting.toy.heavy else hs.GaussianBase()
    sigma, data = setting.toy.sigma_T, setting.data.float()

    def fit() -> Any:
        return hs.Flow.fit(data, sigma, base=base, noise=noise, epochs=setting.epochs, seed=FLOW_SEED)

    law, seconds = kept(setting, name, fit)
    return Built(law, None, seconds)


BUILDERS: dict[str, Callable[[Setting], Built]] = {
    "classic": classic,
    "classic from 3": classic_3,
    "uninformed": uninformed,
    "empirical": empirical,
    "gmm": gaussian_mixture,
    "tmix": student_mixture,
    "flow fixed": lambda setting: flow(setting, hs.Fixed(), "flow-fixed"),
    "flow dynamic": lambda setting: flow(setting, hs.Dynamic(), "flow-dynamic"),
}
LEARNED = ("gmm", "tmix", "flow fixed", "flow dynamic")


def applies(name: str, toy: Toy) -> bool:
    """Whether a start is tried on a law: t mixtures on heavy tails, as on normals they become the Gaussian mixture."""
    return toy.heavy or name != "tmix"


def missing(name: str) -> str | None:
    """Why a start cannot be had on this machine, or None."""
    if name.startswith("flow") and importlib.util.find_spec("zuko") is None:
        return "zuko is not installed (pip install 'headstart[flows]')"
    return None
