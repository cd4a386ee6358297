"""Guidance: the plain composition of two denoisers, whatever is folded, stacked or left out; counts; refusals."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import headstart as hs
from headstart import zoo
from headstart.cli import app
from headstart.output import to_bytes
from headstart.solver import Row, Solver

DEFAULT = hs.DPMpp2M()
SOLVERS = [
    hs.Euler(), hs.Ancestral(0.5), hs.DDPM(), hs.EulerMaruyama(), hs.Heun(), hs.Heun(churn=hs.Churn(5.0)),
    hs.DPMpp2M(), hs.DPMpp3M(), hs.DPMppSDE2M(),
]  # fmt: skip
START, STEPS, N, CLASSES = hs.Classic((2,), 10.0), 7, 6, 3
LABEL = torch.arange(N) % CLASSES
NULL = {"label": CLASSES}


class Law:
    """A Gaussian a class: the exact denoiser of each, and of their mixture for label `CLASSES` or None.

    `spread` above 1 makes a worse model of it. It counts its calls and the rows of each.
    """

    def __init__(self, spread: float = 1.0) -> None:
        self.mean = torch.tensor([[-2.0, 0.0], [1.0, 1.5], [0.5, -1.0]], dtype=torch.float64)
        self.variance = spread * torch.tensor([0.1, 0.4, 0.9], dtype=torch.float64)
        self.rows: list[int] = []

    def __call__(self, x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        self.rows.append(len(x))
        total = self.variance + sigma**2
        away = x[:, None].double() - self.mean
        share = (-0.5 * (away**2).sum(2) / total - total.log()).softmax(1)
        if label is not None:
            one = torch.nn.functional.one_hot(label, CLASSES + 1).double()
            share = one[:, :CLASSES] + one[:, CLASSES:] * share
        each = self.mean + (self.variance / total)[:, None] * away
        return (share[..., None] * each).sum(1).to(x.dtype)


def edm(law: Law, sigma_data: float = 0.5, dtype: torch.dtype | None = None) -> hs.EDM:
    """The law's denoiser as a raw network with EDM's factors around it."""

    def raw(scaled: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        sigma = (4 * c_noise.double()).exp()
        c_skip, c_out, c_in, _ = hs.EDM(raw, sigma_data).preconditioning(float(sigma))
        x = scaled.double() / c_in
        return ((law(x, sigma, label) - c_skip * x) / c_out).to(scaled.dtype)

    return hs.EDM(raw, sigma_data, dtype)


def composed(main: Any, guide: Any, weight: float, null: Any = None, low: float = 0, high: float = math.inf) -> Any:
    """The reference, as one opaque denoiser."""

    def denoiser(x: Tensor, sigma: Tensor, label: Tensor) -> Tensor:
        best = main(x, sigma, label=label)
        worse = guide(x, sigma, label=label if null is None else torch.full_like(label, null))
        return worse + weight * (best - worse) if low < float(sigma) <= high else best

    return denoiser


def run(denoiser: Any, solver: Solver = DEFAULT, **named: Any) -> Tensor:
    named = {"seed": 3, "dtype": torch.float64, "cond": {"label": LABEL}, **named}
    return hs.sample(denoiser, START, N, STEPS, solver, **named)


GUIDANCE: dict[str, Callable[..., tuple[Any, Any]]] = {
    "opaque": lambda law, bad, **o: (hs.guided(law, 2.5, null=NULL, **o), composed(law, law, 2.5, 3)),
    "edm": lambda law, bad, **o: (hs.guided(edm(law), 2.5, null=NULL, **o), composed(law, law, 2.5, 3)),
    "auto": lambda law, bad, **o: (hs.guided(edm(law), 1.9, edm(bad), **o), composed(law, bad, 1.9)),
    "factors": lambda law, bad, **o: (hs.guided(edm(law), 1.9, edm(bad, 1.3), **o), composed(law, bad, 1.9)),
    "raw main": lambda law, bad, **o: (hs.guided(edm(law), 1.9, bad, **o), composed(law, bad, 1.9)),
    "raw guide": lambda law, bad, **o: (hs.guided(law, 1.9, edm(bad, 1.3), **o), composed(law, bad, 1.9)),
    "null guide": lambda law, bad, **o: (hs.guided(edm(law), 1.4, edm(bad), null=NULL), composed(law, bad, 1.4, 3)),
}


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kind", GUIDANCE)
def test_it_is_the_composition_of_two_denoisers(solver: Solver, kind: str) -> None:
    """Folded into the rows against one opaque denoiser that combines the two, on exact laws."""
    folded, reference = GUIDANCE[kind](Law(), Law(4.0))
    expected = run(reference, solver)
    assert torch.allclose(run(folded, solver), expected, rtol=0, atol=1e-9)
    assert torch.allclose(run(lambda x, t, label: folded(x, t, label=label), solver), expected, rtol=0, atol=1e-9)
    assert not torch.allclose(run(folded, solver, cond={"label": LABEL.flip(0)}), expected, atol=0.1)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("make", [lambda law: law, edm])
def test_one_batched_call_is_two_calls(solver: Solver, make: Callable[[Law], Any]) -> None:
    once, twice = Law(), Law()
    batched, info = run(hs.guided(make(once), 3.0, null=NULL), solver, return_info=True)
    apart, same = run(hs.guided(make(twice), 3.0, null=NULL, batched=False), solver, return_info=True)
    assert torch.allclose(batched, apart, rtol=0, atol=1e-12)
    assert set(once.rows) == {2 * N}
    assert set(twice.rows) == {N}
    assert len(twice.rows) == 2 * len(once.rows) == info.nfe == same.nfe
    assert info.bytes == same.bytes


def test_two_calls_where_one_cannot_serve() -> None:
    """Conditions that are no rows of a batch go as they are; where they differ, each branch is called by itself."""
    seen = []

    def denoiser(x: Tensor, sigma: Tensor, label: Tensor | None, text: str, table: Tensor) -> Tensor:
        seen.append((None if label is None else label.tolist(), text, tuple(table.shape)))
        return 0.5 * x

    cond = {"label": LABEL, "text": "a", "table": torch.ones(N + 1)}
    whole, part = LABEL.tolist(), (N + 1,)
    for null, calls in (
        ({"label": 3}, [([*whole, *[3] * N], "a", part)]),
        ({"label": torch.tensor([3])}, [([*whole, *[3] * N], "a", part)]),
        ({"label": None}, [(whole, "a", part), (None, "a", part)]),
        ({"label": 3, "text": ""}, [(whole, "a", part), ([3] * N, "", part)]),
        ({"table": 0.0}, [(whole, "a", part), (whole, "a", part)]),
    ):
        seen.clear()
        hs.sample(hs.guided(denoiser, 2.0, null=null), START, N, 1, cond=cond)
        assert seen == calls
        seen.clear()
        hs.guided(denoiser, 2.0, null=null)(torch.ones(N, 2), 1.0, **cond)
        assert seen == calls


@pytest.mark.parametrize("solver", SOLVERS)
def test_only_the_interval_is_guided_and_counted(solver: Solver) -> None:
    levels = [row.sigma for row in solver.rows(hs.log_uniform(10.0, 0.02, STEPS).tolist()) if row.sigma]
    low, high = sorted(levels)[1], sorted(levels)[-3]
    main, guide = Law(), Law(4.0)
    denoiser = hs.guided(edm(main), 2.0, guide, interval=(low, high))
    got, info = run(denoiser, solver, return_info=True)
    inside = sum(low < level <= high for level in levels)
    assert 0 < inside < len(levels)
    assert len(main.rows) == len(levels)
    assert len(guide.rows) == inside
    assert info.nfe == len(levels) + inside
    assert torch.allclose(got, run(composed(Law(), Law(4.0), 2.0, None, low, high), solver), atol=1e-9)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("make", [lambda law: law, edm])
def test_weight_one_is_no_guidance(solver: Solver, make: Callable[[Law], Any]) -> None:
    """Bit for bit, and nothing of the guide is called; nor of the main branch at weight 0."""
    guide = Law(4.0)
    alone, counted = run(make(Law()), solver, return_info=True)
    got, info = run(hs.guided(make(Law()), 1.0, guide), solver, return_info=True)
    assert torch.equal(got, alone)
    assert info.nfe == counted.nfe
    assert info.bytes == counted.bytes
    assert torch.equal(run(hs.guided(guide, 0.0, make(Law())), solver), alone)
    assert torch.equal(run(hs.guided(make(Law()), 2.0, guide, interval=(20.0, 30.0)), solver), alone)
    assert not guide.rows
    x = torch.ones(N, 2)
    assert torch.equal(hs.guided(Law(), 1, guide)(x, 2.0, label=LABEL), Law()(x, torch.tensor(2.0), LABEL))


@pytest.mark.parametrize(("weight", "rows"), [(2.0, [3, 3, 3]), (1.0, [2, 2, 2])])
def test_guidance_is_folded_into_the_row(weight: float, rows: list[int]) -> None:
    """One pass a step: Euler reads the state and both networks, writes the state and the next input, and no more."""
    _, info = hs.sample(hs.guided(edm(Law()), weight, null=NULL), START, N, 3, hs.Euler(), cond={"label": LABEL},
                        return_info=True)  # fmt: skip
    assert info.bytes == (sum(rows) + 3 + 2) * N * 2 * 4


@pytest.mark.parametrize("kind", ["opaque", "edm"])
@pytest.mark.parametrize(
    ("solver", "passes"), [(hs.DPMpp2M(), {"opaque": 0, "edm": 4}), (hs.Euler(), {"opaque": 0, "edm": 0})]
)
def test_predictions_are_computed_only_where_they_must_be(
    kind: str, solver: Solver, passes: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """Of 9 rows, 7 of the preconditioned 2M have five parts when none is computed: every other one is."""
    from headstart import descent

    counted = []
    plain = descent.Prediction.fold
    monkeypatch.setattr(descent.Prediction, "fold", lambda self: counted.append(1) or plain(self))
    hs.sample(GUIDANCE[kind](Law(), Law())[0], START, N, 9, solver, cond={"label": LABEL})
    assert len(counted) == passes[kind]


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_fixed_shape_sampler_has_the_bits_of_sample(solver: Solver, dtype: torch.dtype) -> None:
    denoiser = hs.guided(edm(Law(), dtype=dtype), 2.0, null=NULL, interval=(0.1, 5.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sampler = hs.Sampler(denoiser, START, STEPS, solver, batch=N, cond={"label": LABEL})
    for label in (LABEL, LABEL.flip(0)):
        given = {"cond": {"label": label}, "dtype": torch.float32}
        expected, info = run(denoiser, solver, **given, return_info=True)
        assert torch.equal(sampler(3, cond={"label": label}), expected)
        assert sampler.nfe == info.nfe
    exact = run(hs.guided(edm(Law()), 2.0, null=NULL, interval=(0.1, 5.0)), solver, cond={"label": LABEL.flip(0)})
    assert (expected - exact).abs().max() < (1e-4 if dtype == torch.float32 else 1.0)


def test_integrate_takes_it() -> None:
    x, grid = 3 * torch.randn(N, 2, dtype=torch.float64), torch.tensor([3.0, 1.0, 0.4])
    denoiser, reference = GUIDANCE["factors"](Law(), Law(4.0))
    got = hs.integrate(denoiser, x, grid, hs.Heun(), cond={"label": LABEL})
    assert torch.allclose(got, hs.integrate(reference, x, grid, hs.Heun(), cond={"label": LABEL}), atol=1e-9)


def test_levels_of_each_sample() -> None:
    x, sigma = torch.randn(N, 2, dtype=torch.float64), torch.logspace(-2, 1, N, dtype=torch.float64)
    for batched in (False, True):
        denoiser = hs.guided(zoo_like(), 2.0, null=NULL, interval=(0.1, 2.0), batched=batched)
        each = [denoiser(x[i : i + 1], sigma[i], label=LABEL[i : i + 1]) for i in range(N)]
        assert torch.allclose(denoiser(x, sigma, label=LABEL), torch.cat(each), atol=1e-12)
        assert torch.equal(denoiser(x[:0], 1.0, label=LABEL[:0]), x[:0])


def zoo_like() -> hs.EDM:
    """A network that takes levels of each sample, and returns channels-last tensors of images."""

    def net(x: Tensor, c_noise: Tensor, label: Tensor) -> Tensor:
        shape = (-1, *[1] * (x.dim() - 1))
        raw = torch.tanh(x + 0.3 * label.to(x).reshape(shape)) * torch.cos(c_noise.to(x)).reshape(shape) + 0.1
        return raw.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else raw

    return hs.EDM(net, 0.6)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("n", [1, 3])
def test_channels_last_networks(solver: Solver, n: int) -> None:
    start, cond = hs.Classic((3, 4, 6), 5.0), {"label": LABEL[:n]}
    twice = hs.guided(zoo_like(), 2.0, null=NULL, batched=False)
    got = hs.sample(hs.guided(zoo_like(), 2.0, null=NULL), start, n, 5, solver, cond=cond)
    assert got.is_contiguous()
    assert torch.allclose(got, hs.sample(twice, start, n, 5, solver, cond=cond), atol=1e-6)
    opaque = hs.sample(lambda x, t, label: twice(x, t, label=label), start, n, 5, solver, cond=cond)
    assert torch.allclose(got, opaque, atol=1e-4)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("make", [lambda net: net, hs.EDM])
def test_a_network_may_return_its_input(solver: Solver, make: Callable[..., Any]) -> None:
    """Buffers are reused between rows; a raw prediction that is one of them must survive that."""
    same = run(hs.guided(make(lambda x, t, label: x), 2.0, null=NULL), solver)
    assert torch.equal(same, run(hs.guided(make(lambda x, t, label: x.clone()), 2.0, null=NULL), solver))


def conditional_start() -> hs.GaussianMixture:
    law, labels = Law(), torch.arange(90) % CLASSES
    noise = torch.randn(90, 2, generator=torch.Generator().manual_seed(0))
    data = law.mean[labels].float() + law.variance[labels, None].float().sqrt() * noise
    return hs.GaussianMixture.fit(data, components=3, covariance=hs.Full(), max_iter=5, labels=labels)


@pytest.mark.parametrize("solver", [hs.Heun(), hs.DPMpp2M(), hs.DPMppSDE2M()])
def test_start_and_network_get_the_same_classes(solver: Solver, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sample's own classes, not the guide's, batch by batch; and the same samples in any batch."""
    start, label, given = conditional_start().at(1.5), torch.arange(20) % CLASSES, []
    drawn, told = [], []
    plain = type(start).sample

    def spied(self: Any, n: int, **named: Any) -> Tensor:
        drawn.append(named["labels"].tolist())
        return plain(self, n, **named)

    def net(x: Tensor, c_noise: Tensor, label: Tensor) -> Tensor:  # products and sums only: the same in any batch
        told.append(label.tolist())
        return 0.3 * x / (1 + x * x) + 0.1 * label.to(x).view(-1, 1) * c_noise

    monkeypatch.setattr(type(start), "sample", spied)
    denoiser = hs.guided(hs.EDM(net), 2.0, null=NULL)
    for batch in (None, 6):
        given.append(hs.sample(denoiser, start, 20, 4, solver, seed=5, cond={"label": label}, batch=batch))
    assert torch.equal(*given)
    parts = [label.tolist(), *[part.tolist() for part in label.split(6)]]
    assert drawn == parts
    calls = len(told) // len(parts)
    assert told == [[*part, *[CLASSES] * len(part)] for part in parts for _ in range(calls)]


def test_plans_run_guided_and_are_validated_so() -> None:
    """With free history too: the start's own predictions, then guided ones; every branch of a check is counted."""
    mixture, law = hs.GaussianMixture.fit(conditional_start().at(0.5).sample(60), 2, hs.Full(), max_iter=5), Law()
    start, rows = mixture.at(1.5), (Row(1.5, 0.4, (0.8, -0.3, 0.1)), Row(0.6, 0.0, (1.3, -0.4, 0.2, -0.1)))
    plan = hs.Plan((1.5, 0.6, 0.0), rows, 3.0, 0.1, 0.2)
    got = []
    for denoiser in (hs.guided(edm(law), 2.0, null=NULL), composed(law, law, 2.0, 3)):
        x, info = hs.sample(denoiser, start, N, plan=plan, dtype=torch.float64, cond={"label": LABEL}, return_info=True)
        got.append((x, info.nfe))
    assert torch.allclose(got[0][0], got[1][0], atol=1e-6)
    assert (got[0][1], got[1][1]) == (4, 2)
    law.rows.clear()
    found = hs.validate(plan, hs.guided(edm(law), 2.0, null=NULL), start, n=N, cond={"label": LABEL}, fine_steps=5)
    assert found.calls == 2 * len(law.rows) == 2 * (4 * 2 + 9)
    found = hs.validate(plan, hs.guided(edm(law), 1.0, null=NULL), start, n=N, cond={"label": LABEL}, fine_steps=5)
    assert found.calls == 4 * 2 + 9


def test_guided_images_move_towards_their_class() -> None:
    """On the shipped network: further along the line from the mean of all images to that of their class."""
    images, labels = zoo.images(split="test")
    centre = images.mean(0)
    label = torch.tensor([1, 4, 5, 8] * 3)
    towards = torch.stack([images[labels == c].mean(0) - centre for c in label.tolist()]).flatten(1)
    net, along = zoo.denoiser(), []
    for weight in (0.0, 1.0, 2.5):
        denoiser = hs.guided(net, weight, null={"label": net.net.classes})  # type: ignore[attr-defined]
        x = hs.sample(denoiser, hs.Classic((1, 28, 28)), len(label), 6, cond={"label": label}, seed=1)
        along.append(float(((x - centre).flatten(1) * towards).sum(1).mean() / towards.square().sum(1).mean()))
    assert along[0] + 0.3 < along[1] < along[2] - 0.05


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"weight": math.nan}, "guided: weight must be a finite number of at least 0, got nan"),
        ({"weight": -1.0}, "guided: weight must be a finite number of at least 0, got -1.0"),
        ({"weight": math.inf}, "guided: weight must be a finite number of at least 0, got inf"),
        ({"weight": "2"}, "guided: weight must be a finite number of at least 0, got '2'"),
        ({"weight": True}, "guided: weight must be a finite number of at least 0, got True"),
        ({"null": None}, "guided: null must be given .* or a guide, got none"),
        ({"null": 10}, "guided: null must be a mapping of conditions, got int"),
        ({"interval": (2.0, 1.0)}, r"guided: interval must be \(low, high\) with 0 <= low < high, got \(2.0, 1.0\)"),
        ({"interval": (1.0, 1.0)}, "guided: interval must be"),
        ({"interval": (-1.0, 1.0)}, "guided: interval must be"),
        ({"interval": (0.0, math.nan)}, "guided: interval must be"),
        ({"interval": 3.0}, "guided: interval must be .*, got 3.0"),
        ({"denoiser": 3}, r"guided: denoiser must be a denoiser D\(x, sigma, \*\*cond\), got int"),
        ({"guide": "net"}, r"guided: guide must be a denoiser D\(x, sigma, \*\*cond\), got str"),
        ({"guide": hs.guided(Law(), 2.0, Law())}, "guided: guide must be a denoiser .*, got a guided one"),
    ],
)
def test_bad_guidance(change: dict, error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=error):
        hs.guided(**{"denoiser": Law(), "weight": 2.0, "null": NULL, **change})


@pytest.mark.parametrize(
    ("null", "error"),
    [
        ({"text": None}, r"guided: cond must have 'text', which null replaces, got \['label'\]"),
        ({"label": torch.zeros(4)}, r"guided: null\['label'\] must broadcast to \[6\], got \[4\]"),
    ],
)
def test_bad_conditions(null: dict, error: str) -> None:
    """Before any network call, also where the first rows are not guided."""
    law = Law()
    with pytest.raises(ValueError, match=error):
        run(hs.guided(law, 2.0, null=null, interval=(0.0, 1.0)))
    assert not law.rows


def test_what_a_branch_returns_is_checked() -> None:
    bad_guide = hs.guided(Law(), 2.0, lambda x, sigma, label: x[:, :1])
    bad_batch = hs.guided(lambda x, sigma, label: x[:N], 2.0, null=NULL)
    with pytest.raises(ValueError, match=r"sample: the guide must return a tensor \[6, 2\], got \[6, 1\]"):
        run(bad_guide)
    with pytest.raises(ValueError, match=r"sample: the denoiser must return a tensor \[12, 2\], got \[6, 2\]"):
        run(bad_batch)


def draw(folder: Path, *options: object) -> str:
    given = ["sample", "--denoiser", "zoo:fashion", "--start", "classic", "--out", str(folder), "--n", "2"]
    result = CliRunner().invoke(app, [*given, "--steps", "3", *map(str, options)])
    return " ".join(result.output.split())


def test_guidance_on_the_command_line(tmp_path: Path) -> None:
    """The images of `guided` with the zoo's null class, and both branches counted where the interval has them."""
    assert "6 network calls a sample" in draw(tmp_path, "--label", 5, "--guidance", 2)
    net, cond = zoo.denoiser(), {"label": torch.full((2,), 5)}
    expected = hs.sample(hs.guided(net, 2.0, null={"label": 10}), hs.Classic((1, 28, 28)), 2, 3, cond=cond)
    with np.load(tmp_path / "samples.npz") as file:
        assert np.array_equal(file["arr_0"], to_bytes(expected))
    text = draw(tmp_path, "--label", 5, "--guidance", 2, "--guidance-interval", 0.5, 5)
    assert "4 network calls a sample" in text
    for options, error in (
        (("--guidance", 2), "--guidance: needs a class to be drawn to, --label"),
        (("--guidance", -2, "--label", 5), "--guidance: must be a finite number of at least 0, got -2.0"),
        (("--guidance-interval", 1, 2), "--guidance-interval: needs --guidance"),
        (("--guidance", 2, "--label", 5, "--guidance-interval", 2, 1), "with 0 <= LOW < HIGH, got (2.0, 1.0)"),
        (("--guidance", 2, "--denoiser", "math:sin", "--shape", "1,4,4"), "math:sin has no known null class"),
    ):  # fmt: skip
        assert error in draw(tmp_path, *options)
