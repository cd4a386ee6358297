"""Numbers and paths are checked in one place, and every room refuses what is none in the same words."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import headstart as hs
from headstart.argument import require_number, require_path
from headstart.metrics import Dinov2Features, InceptionFeatures
from headstart.sampling.edge import NotFinite

NO_NUMBERS = [None, True, np.bool_(True), "3", b"3", 1j, Decimal(1), [1.0], torch.ones(2), torch.tensor(1j), dict]
NO_PATHS = [None, 3, 0.5, True, [], {}, torch.ones(2), Path, str]
MIXTURE = hs.GaussianMixture.fit(torch.randn(60, 3, generator=torch.Generator().manual_seed(0)), 2, hs.Full())
X = torch.zeros(2, 3)


@pytest.mark.parametrize(
    "value",
    [0.5, np.float32(0.5), np.array(0.5), torch.tensor(0.5), torch.tensor(0.5, dtype=torch.bfloat16), Fraction(1, 2)],
)
def test_numbers_of_any_make_are_taken(value: Any) -> None:
    found = require_number("op", "name", value)
    assert type(found) is float
    assert found == 0.5


def test_integers_beyond_every_float_are_infinite() -> None:
    assert require_number("op", "name", 10**400) == math.inf
    assert require_number("op", "name", -(10**400)) == -math.inf
    assert require_number("op", "name", np.uint8(250)) == 250.0


NUMBERS: dict[str, Callable[[Any], Any]] = {
    "Ancestral: eta": lambda v: hs.Ancestral(v),
    "DPMppSDE2M: eta": lambda v: hs.DPMppSDE2M(v),
    "DPMppSDE3M: eta": lambda v: hs.DPMppSDE3M(v),
    "Churn: amount": lambda v: hs.Churn(v),
    "Churn: sigma_max": lambda v: hs.Churn(1.0, sigma_max=v),
    "karras: sigma_max": lambda v: hs.karras(v, 0.1, 3),
    "karras: rho": lambda v: hs.karras(2.0, 0.1, 3, v),
    "log_uniform: sigma_min": lambda v: hs.log_uniform(2.0, v, 3),
    "EDM: sigma_data": lambda v: hs.EDM(lambda x, c: x, v),
    "transport: sigma_max": lambda v: MIXTURE.transport(X, 1.0, v),
    "affine: a": lambda v: hs.ops.affine(X, v),
    "affine: b0": lambda v: hs.ops.affine(X, 0.5, [(v, X)]),
    "affine: noise.scale": lambda v: hs.ops.affine(X, 0.5, noise=hs.ops.Noise(v, 0, 0)),
    "gits: sigma_min": lambda v: hs.gits(MIXTURE.denoise, MIXTURE.at(2.0), 3, v),
}
# what is a number to C++'s reader of floats, or None, by a meaning of its own
TAKEN = {"affine: a", "affine: b0", "affine: noise.scale"}


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", NO_NUMBERS, ids=str)
def test_what_is_no_number_is_refused_by_name(name: str, value: Any) -> None:
    if name in TAKEN and isinstance(value, (bool, np.bool_, Decimal)):
        pytest.skip("taken as a float")
    with pytest.raises(TypeError, match=f"^{name} must be a number"):
        NUMBERS[name](value)


PATHS: dict[str, Callable[[Any], Any]] = {
    "load: path": hs.load,
    "load_plan: path": hs.load_plan,
    "save: path": MIXTURE.save,
    "convert: source": lambda v: hs.adapters.edm.convert(v, "out"),
    "convert: target": lambda v: hs.adapters.edm.convert("in", v),
    "VAE: path": lambda v: hs.adapters.edm.VAE(v),
    "Dinov2Features: path": lambda v: Dinov2Features(v),
    "InceptionFeatures: path": lambda v: InceptionFeatures(v),
}


@pytest.mark.parametrize("name", [*PATHS, "edm", "diffusers"])
@pytest.mark.parametrize("value", NO_PATHS, ids=str)
def test_what_is_no_path_is_refused_by_name(name: str, value: Any) -> None:
    other = {"edm": hs.adapters.edm.load, "diffusers": hs.adapters.diffusers.load}
    expected = "load: path" if name in other else name
    with pytest.raises(TypeError, match=f"^{expected} must be a str or os.PathLike, got "):
        (PATHS | other)[name](value)


@pytest.mark.parametrize("value", ["a\0b", b"a\0b"])
def test_a_path_that_no_system_has_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^op: path must name a file or folder, got "):
        require_path("op", value)


def test_paths_are_decoded_and_the_home_folder_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    assert require_path("op", b"~/a") == Path("/somewhere/a")
    assert require_path("op", Path("b")) == Path("b")


OTHERS: dict[str, Callable[[], Any]] = {
    "Flow: network must be": lambda: hs.Flow(lambda x: x, None),  # type: ignore[arg-type]
    "TarFlow: network must be": lambda: hs.TarFlow(3, None),  # type: ignore[arg-type]
    "Coupling: hidden must be": lambda: hs.Coupling(2, 4),  # type: ignore[arg-type]
    "Spline: hidden must be": lambda: hs.Spline(2, 0.5),  # type: ignore[arg-type]
    "Classic: shape must be": lambda: hs.Classic(0.5),  # type: ignore[arg-type]
    "Plan: nodes must be": lambda: hs.Plan(0.5, (), None, 0.0, 0.0),  # type: ignore[arg-type]
    "Plan: provenance must be": lambda: hs.Plan((1.0, 0.0), (), None, 0.0, 0.0, 3),  # type: ignore[arg-type]
    "affine: terms must be": lambda: hs.ops.affine(X, 0.5, torch.ones(())),  # type: ignore[call-overload]
    "affine: noise must be": lambda: hs.ops.affine(X, 0.5, noise=dict),  # type: ignore[call-overload]
    "normal: shape must be": lambda: hs.ops.normal(3, 0),  # type: ignore[arg-type]
    "normal: dtype must be": lambda: hs.ops.normal((3, 2), 0, dtype=0.5),  # type: ignore[arg-type]
    "uniform: device must be": lambda: hs.ops.uniform(3, 0, device=dict),  # type: ignore[arg-type]
    "uniform: shape must be": lambda: hs.ops.uniform(-1, 0),
    "mixture_sample: components must be": lambda: hs.ops.mixture_sample(X[:, 0].long(), 0.5, 0.5, 0),  # type: ignore[arg-type]
    "VAE: batch must be": lambda: hs.adapters.edm.VAE(".", batch=torch.ones(2)),  # type: ignore[arg-type]
    "rgb_bytes: x must be": lambda: hs.adapters.edm.rgb_bytes([1.0]),  # type: ignore[arg-type]
    "vae_bytes: x must be without NaN": lambda: hs.adapters.edm.vae_bytes(X * math.nan),
    "zoo: name must be": lambda: hs.zoo.denoiser(3),  # type: ignore[arg-type]
    "gits: start must be": lambda: hs.gits(MIXTURE.denoise, type(MIXTURE), 3),  # type: ignore[arg-type]
    "gits: denoiser must give finite": lambda: hs.gits(lambda x, s: x * math.nan, MIXTURE.at(2.0), 3, n=2),
    "transport: sigma must be": lambda: MIXTURE.transport(X, 1e-308),
    "sample: latents must be": lambda: hs.sample(
        MIXTURE.denoise, MIXTURE.at(2.0), 2, 2, latents=X.to(torch.float8_e4m3fn)
    ),
}


@pytest.mark.filterwarnings("ignore::headstart.sampling.edge.NotFinite")
@pytest.mark.parametrize("message", OTHERS)
def test_arguments_of_another_kind_are_named(message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        OTHERS[message]()


def test_latents_that_overflow_are_told_by_a_warning_that_names_the_samples() -> None:
    """Finite as they come: the state of float32 is not."""
    latents = X.double()
    latents[1] = 1e200
    with pytest.warns(NotFinite) as told:
        x = hs.sample(lambda x, sigma: x * 0.5, MIXTURE.at(2.0), 2, grid=torch.tensor([2.0, 0.0]), latents=latents)
    assert isinstance(told[0].message, NotFinite)
    assert told[0].message.samples == (1,)
    assert bool(x[0].isfinite().all())
