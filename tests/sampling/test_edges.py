"""What a user meets first: mistakes named in one line before any network call, and nothing wrong without a word."""

from __future__ import annotations

import copy
import pickle
import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import headstart as hs
from conftest import random_components
from headstart.sampling.edge import NotFinite
from headstart.solver import Solver
from headstart.zoo.network import classifier

CLASSIC = hs.Classic((4,), 5.0)
CLASSES = torch.tensor([0, 1, 2, 1])


def mixture(scale: float = 1.0) -> hs.GaussianMixture:
    components = random_components("rank2", k=3, d=4, dtype=torch.float32)
    return hs.GaussianMixture(components._replace(mean=scale * components.mean), torch.ones(3), (4,), torch.eye(3))


LAW = mixture()


class Net(torch.nn.Module):
    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return 0.5 * x


def half(x: Tensor, sigma: Tensor, **cond: Any) -> Tensor:
    return 0.5 * x


def sampler(*arguments: Any, **named: Any) -> hs.Sampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return hs.Sampler(*arguments, **named)


ENTRIES: dict[str, Callable[[Any, Any], Any]] = {
    "sample": lambda d, start: hs.sample(d, start, 4, 3),
    "Sampler": lambda d, start: sampler(d, start, 3),
    "validate": lambda d, start: hs.validate(PLAN, d, start),
    "initialization_kl": lambda d, start: hs.initialization_kl(start, d, torch.randn(200, 4)),
}
PLAN = hs.Plan((80.0, 0.0), ({"sigma": 80.0, "a": 0.0, "b": (1.0,)}.values(),), None, 0.0, 0.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize(
    ("denoiser", "start", "message"),
    [
        (half, LAW, r"start must stand at a noise level, got GaussianMixture without one: write start\.at\(3\.0\)"),
        (half, hs.Classic, r"start must be an object, got the class Classic: write Classic\(\.\.\.\)"),
        (half, torch.zeros(9, 4), r"got float32 \[9, 4\] on cpu: write headstart\.fit\(data\)\.at"),
        (half, np.zeros((9, 4)), r"got ndarray: write headstart\.fit\(data\)\.at"),
        (half, half, "got function, a denoiser; the denoiser comes before the start"),
        (half, LAW.at(0.0), r"sigma must be above 0 and finite, got 0: write start\.at"),
        (LAW.at(3.0), CLASSIC, "denoiser must be a callable .*, got MixtureStart, a start; the denoiser comes before"),
        (LAW, CLASSIC, "got GaussianMixture; its own denoiser is its method denoise"),
        (Net, CLASSIC, r"denoiser must be an object, got the class Net: write Net\(\.\.\.\)"),
        ("fashion", CLASSIC, r"got str; write headstart\.zoo\.denoiser\(name\)"),
        (None, CLASSIC, "denoiser must be a callable .*, got NoneType"),
    ],
)
def test_a_first_mistake_is_answered_by_what_to_write(entry: str, denoiser: Any, start: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^{entry}: .*{message}"):
        ENTRIES[entry](denoiser, start)


@pytest.mark.parametrize(
    ("solver", "message"),
    [
        ("heun", r"got the name 'heun': write headstart\.Heun\(\)"),
        ("DPM++2M", r"write headstart\.DPMpp2M\(\)"),
        (hs.Heun, r"got the class Heun: write Heun\(\)"),
        (hs.Churn(1.0), r"got Churn: write headstart\.Heun\(churn=\.\.\.\)"),
        (None, "got NoneType, which has no rows"),
    ],
)
def test_a_solver_is_an_object(solver: Any, message: str) -> None:
    for op, call in (
        ("sample", lambda: hs.sample(half, CLASSIC, 4, 3, solver)),
        ("Sampler", lambda: sampler(half, CLASSIC, 3, solver)),
        ("integrate", lambda: hs.integrate(half, torch.ones(2, 4), torch.tensor([5.0, 0.0]), solver)),
    ):
        with pytest.raises(TypeError, match=f"^{op}: solver must be .*{message}"):
            call()


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda x: x.int(), r"must return a dense tensor of float32, .*, got int32 \[4, 4\]"),
        (lambda x: torch.complex(x, x), r"got complex64 \[4, 4\]"),
        (lambda x: x.to_sparse(), "got float32 .*, layout torch.sparse_coo"),
        (lambda x: (x,), r"got tuple; return its \[0\]"),
        (lambda x: {"sample": x}, r"got dict; return its \['sample'\]"),
    ],
)
def test_what_a_network_returns_is_named(result: Callable[[Tensor], Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"sample: the denoiser .*{message}"):
        hs.sample(lambda x, sigma: result(x), CLASSIC, 4, 3)


def test_data_of_one_dimension_and_a_device_that_is_not_here() -> None:
    with pytest.raises(ValueError, match=r"one value a sample is data\[:, None\]"):
        hs.fit(torch.zeros(50))
    calls = [lambda d: hs.Classic((4,), device=d), lambda d: hs.fit(torch.randn(50, 4), device=d), LAW.to]
    calls.append(lambda d: hs.zoo.denoiser("fashion", device=d))
    for call in calls:
        with pytest.raises(ValueError, match=r"device must be one of cpu.*, got 'cuda:77'"):
            call("cuda:77")
        with pytest.raises(ValueError, match=r"device must be one of cpu.*, got 'gpu'"):
            call("gpu")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([torch.zeros(4)] * 9, r"one tensor of a list of samples is torch\.stack\(data\)"),
        (torch.eye(9).to_sparse(), r"data must be dense, got layout torch\.sparse_coo; write data\.to_dense"),
    ],
)
def test_data_that_is_no_dense_tensor(data: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^fit: .*{message}"):
        hs.fit(data)


def test_samples_have_no_gradient_and_say_so() -> None:
    z, levels = torch.zeros(4, 4, requires_grad=True), torch.tensor([5.0, 1.0, 0.0], requires_grad=True)
    for name, call in (
        ("sample: latents", lambda: hs.sample(half, CLASSIC, 4, 3, latents=z)),
        ("Sampler: latents", lambda: sampler(half, CLASSIC, 3, batch=4)(latents=z)),
        ("integrate: x", lambda: hs.integrate(half, z, torch.tensor([5.0, 0.0]))),
        ("sample: cond['text']", lambda: hs.sample(half, CLASSIC, 4, 3, cond={"text": z})),
        ("sample: cond['text']", lambda: hs.sample(half, CLASSIC, 4, 3, cond={"text": {"parts": [z[:1], (z,)]}})),
        ("integrate: cond['text']", lambda: hs.integrate(half, z.detach(), levels.detach(), cond={"text": z})),
        ("Sampler: cond['text']", lambda: sampler(half, CLASSIC, 3, batch=4, cond={"text": z})),
        ("sample: grid", lambda: hs.sample(half, CLASSIC, 4, grid=levels)),
        ("integrate: grid", lambda: hs.integrate(half, z.detach(), levels)),
    ):
        with pytest.raises(ValueError, match=f"{re.escape(name)} requires a gradient"):
            call()
        with torch.no_grad():
            call()


def test_the_zoo_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    hs.zoo.denoiser("fashion")
    classifier("fashion")
    assert torch.equal(torch.get_rng_state(), before)


FORMS: dict[str, Any] = {
    "int32": CLASSES.int(), "int16": CLASSES.short(), "uint8": CLASSES.byte(), "list": CLASSES.tolist(),
    "tuple": tuple(CLASSES.tolist()), "numpy": CLASSES.numpy(), "numpy uint8": CLASSES.byte().numpy(),
}  # fmt: skip


def embedded(x: Tensor, sigma: Tensor, label: Tensor) -> Tensor:
    return 0.5 * x + torch.nn.functional.embedding(label, torch.arange(12.0).reshape(3, 4))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("batch", [None, 3])
def test_labels_of_every_form_are_the_same_classes(form: str, batch: int | None) -> None:
    for start in (LAW.at(3.0), CLASSIC):
        wanted = hs.sample(embedded, start, 4, 3, cond={"label": CLASSES})
        got = hs.sample(embedded, start, 4, 3, cond={"label": FORMS[form]}, batch=batch)
        assert torch.allclose(got, wanted, atol=1e-5)
        assert torch.equal(sampler(embedded, start, 3, batch=4, cond={"label": FORMS[form]})(), wanted)


@pytest.mark.parametrize("one", [1, np.int64(1), torch.tensor(1), torch.tensor(1, dtype=torch.uint8)])
def test_one_label_is_for_all(one: Any) -> None:
    wanted = hs.sample(embedded, LAW.at(3.0), 4, 3, cond={"label": torch.ones(4, dtype=torch.int64)})
    for batch in (None, 3):
        assert torch.allclose(
            hs.sample(embedded, LAW.at(3.0), 4, 3, cond={"label": one}, batch=batch), wanted, atol=1e-5
        )


@pytest.mark.parametrize("batch", [None, 3])
@pytest.mark.parametrize(
    ("label", "wrong"),
    [
        (CLASSES[:3], "both"), (CLASSES.tolist()[:3], "both"), (CLASSES[:3].numpy(), "both"),
        (CLASSES.float(), "classes"), (CLASSES > 1, "classes"), (CLASSES[:, None], "classes"), ("shirt", "classes"),
    ],
)  # fmt: skip
def test_wrong_labels_are_refused_before_the_network(label: Any, wrong: str, batch: int | None) -> None:
    called = []

    def denoiser(x: Tensor, sigma: Tensor, label: Any) -> Tensor:
        called.append(label)
        return x

    for start in (LAW.at(3.0), CLASSIC) if wrong == "both" else (LAW.at(3.0),):
        with pytest.raises(ValueError, match=r"sample: labels must be .*\[4\]"):
            hs.sample(denoiser, start, 4, 3, cond={"label": label}, batch=batch)
        with pytest.raises(ValueError, match=r"Sampler: labels must be .*\[4\]"):
            sampler(denoiser, start, 3, batch=4, cond={"label": label})
    assert not called


@pytest.mark.parametrize("labels", [[0, 1, 2, 7], [0, 1, 2, -1]])
def test_a_class_that_is_not_there_is_refused_before_the_network(labels: list[int]) -> None:
    called = []
    data = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    for start in (LAW.at(3.0), hs.Empirical(data, torch.arange(30) % 3).at(2.0)):
        with pytest.raises(ValueError, match=r"(no point of class 7|labels must be at least 0, got -1)"):
            hs.sample(lambda x, sigma, label: called.append(x), start, 4, 3, cond={"label": labels}, batch=1)
    assert not called


@pytest.mark.parametrize(
    "cond", [{"y": CLASSES}, {"class_labels": torch.eye(3)[CLASSES]}, {"y": 2}, {"y": [0, 1, 2, 1]}]
)
def test_classes_under_another_name_are_refused(cond: dict) -> None:
    """A start of classes would draw all of them while the network is told one."""
    for call in (
        lambda: hs.sample(half, LAW.at(3.0), 4, 3, cond=cond),
        lambda: sampler(half, LAW.at(3.0), 3, batch=4, cond=cond),
        lambda: hs.initialization_kl(LAW.at(3.0), half, torch.randn(4, 4), cond=cond),
        lambda: hs.plan(LAW.at(3.0), 2, denoiser=half, heldout=torch.randn(4, 4), cond=cond),
    ):
        with pytest.raises(ValueError, match=r"told cond\['label'\] alone, got '(y|class_labels)'"):
            call()
    hs.sample(half, CLASSIC, 4, 3, cond=cond)  # this start has none
    hs.sample(half, LAW.at(3.0), 4, 3, cond={"label": None, **cond})  # on purpose
    hs.sample(half, LAW.at(3.0), 4, 3, cond={"strength": 0.5})
    with pytest.raises(TypeError, match="sample: cond must be a mapping of names"):
        hs.sample(half, LAW.at(3.0), 4, 3, cond=CLASSES)  # type: ignore[arg-type]


ROWS: dict[str, Any] = {
    "tensor": torch.arange(4.0), "numpy": np.arange(4.0), "list": [0.0, 1.0, 2.0, 3.0], "tuple": (0.0, 1.0, 2.0, 3.0),
    "tensors": list(torch.arange(4.0)), "dict": {"a": torch.arange(4.0), "b": 7.0},
    "nested": {"a": {"b": np.arange(4.0)}},
}  # fmt: skip


def leaf(value: Any) -> list[float]:
    while isinstance(value, dict):
        value = value.get("a", value.get("b"))
    return [float(row) for row in value]


@pytest.mark.parametrize("form", ROWS)
def test_rows_of_every_form_go_with_their_samples(form: str) -> None:
    seen = []

    def denoiser(x: Tensor, sigma: Tensor, text: Any) -> Tensor:
        seen.append(leaf(text))
        return 0.5 * x

    hs.sample(denoiser, CLASSIC, 4, 1, cond={"text": ROWS[form]}, batch=3)
    assert seen == [[0.0, 1.0, 2.0], [3.0]]
    guided = hs.guided(denoiser, 2.0, null={"text": [9.0] * 3})
    seen.clear()
    hs.sample(guided, CLASSIC, 3, 1, cond={"text": [0.0, 1.0, 2.0]})
    assert seen == [[0.0, 1.0, 2.0], [9.0] * 3]


def test_rows_in_a_mapping_that_cannot_be_split_are_refused() -> None:
    from collections import OrderedDict

    cond = {"text": OrderedDict(a=torch.arange(4.0))}
    hs.sample(half, CLASSIC, 4, 1, cond=cond)
    with pytest.raises(TypeError, match="must be a dict, got OrderedDict"):
        hs.sample(half, CLASSIC, 4, 1, cond=cond, batch=3)


SOLVERS = [hs.Euler(), hs.Heun(), hs.DPMpp2M(), hs.DPMpp3M(), hs.UniPC(), hs.DPMppSDE2M(), hs.DPMppSDE3M()]


class Reusing:
    """A denoiser that computes into one piece of memory, as a captured graph does: unseen by torch's counters."""

    def __init__(self, counted: bool) -> None:
        self.counted, self.buffer = counted, torch.empty(0)

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        if self.buffer.shape != x.shape:
            self.buffer = torch.empty_like(x)
        target = self.buffer if self.counted else self.buffer.data
        torch.tanh(x, out=target)
        return self.buffer


def writing(x: Tensor, sigma: Tensor) -> Tensor:
    return x.tanh_()


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("make", [lambda: writing, lambda: Reusing(True), lambda: Reusing(False)])
def test_a_denoiser_may_write_where_it_likes(solver: Solver, inference: bool, make: Callable[[], Any]) -> None:
    grid = torch.tensor([5.0, 2.0, 1.0, 0.4, 0.1, 0.0])
    wanted = hs.sample(lambda x, sigma: x.tanh(), CLASSIC, 6, 5, solver, seed=3)
    x = CLASSIC.sample(6, seed=3)
    carried = hs.integrate(lambda x, sigma: x.tanh(), x, grid, solver, seed=3)
    with torch.inference_mode(inference):
        assert torch.equal(hs.sample(make(), CLASSIC, 6, 5, solver, seed=3), wanted)
        assert torch.equal(hs.sample(make(), CLASSIC, 6, 5, solver, seed=3, batch=3), wanted)
        own = x.clone()
        assert torch.equal(hs.integrate(make(), own, grid, solver, seed=3), carried)
        assert torch.equal(own, x)
    reused = sampler(make(), CLASSIC, 5, solver, batch=6)
    assert torch.equal(reused(3), wanted)
    assert torch.equal(reused(3), wanted)


@pytest.mark.parametrize("batched", [False, True])
def test_guided_branches_may_write_where_they_like(batched: bool) -> None:
    def out(x: Tensor, sigma: Tensor, label: Tensor) -> Tensor:
        return x.tanh() + 0.1 * label[:, None]

    def inplace(x: Tensor, sigma: Tensor, label: Tensor) -> Tensor:
        return x.tanh_().add_(0.1 * label[:, None])

    found = [
        hs.sample(hs.guided(make(d), 2.0, null={"label": 5}, batched=batched), CLASSIC, 4, 5, cond={"label": CLASSES})
        for make in (lambda d: d, lambda d: hs.EDM(d, 0.7))
        for d in (out, inplace)
    ]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[2], found[3])


def test_a_denoiser_that_begins_to_write_later_is_refused() -> None:
    calls = []

    def late(x: Tensor, sigma: Tensor) -> Tensor:
        calls.append(x)
        return x.mul_(0.5) if len(calls) > 2 else 0.5 * x

    with pytest.raises(ValueError, match="must leave x as it is"):
        hs.sample(late, CLASSIC, 4, 5)


def test_an_ordinary_denoiser_is_called_once_a_row_and_copied_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clones, seen = [], []
    real = Tensor.clone
    monkeypatch.setattr(Tensor, "clone", lambda self, **k: clones.append(self) or real(self, **k))

    def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        seen.append(x)
        return 0.5 * x

    hs.sample(denoiser, CLASSIC, 6, 5, batch=3)
    assert len(seen) == 10
    assert len(clones) == 1


def poisoned(x: Tensor, sigma: Tensor) -> Tensor:
    out = 0.5 * x
    if sigma < 1:
        out[2, 1] = float("nan")
    return out


def test_samples_that_are_not_finite_are_named() -> None:
    for op, call in (
        ("sample", lambda: hs.sample(poisoned, CLASSIC, 4, 5)),
        ("integrate", lambda: hs.integrate(poisoned, torch.ones(4, 4), torch.tensor([5.0, 0.5, 0.0]))),
        ("Sampler", sampler(poisoned, CLASSIC, 5, batch=4)),
    ):
        with pytest.warns(NotFinite, match=rf"^{op}: 1 of 4 samples are not finite \(index 2\)") as said:
            out = call()
        assert said[0].message.samples == (2,)  # type: ignore[union-attr]
        assert said[0].filename == __file__
        assert out.isfinite().all(1).tolist() == [True, True, False, True]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hs.sample(half, CLASSIC, 4, 5)
        huge = hs.sample(lambda x, sigma: torch.full_like(x, 1e38), CLASSIC, 4, 5, hs.Euler())
    assert huge.isfinite().all()


def test_a_sampler_counts_what_is_not_finite() -> None:
    made = sampler(poisoned, CLASSIC, 5, batch=4)
    assert made.broken == 0
    with pytest.warns(NotFinite):
        made(0)
    with pytest.warns(NotFinite):
        made(1)
    assert made.broken == 2


def test_latents_that_are_not_finite_are_refused() -> None:
    latents = torch.zeros(4, 4)
    latents[1, 2] = float("nan")
    for call in (
        lambda: hs.sample(half, CLASSIC, 4, 5, latents=latents),
        lambda: sampler(half, CLASSIC, 5, batch=4)(latents=latents),
    ):
        with pytest.raises(ValueError, match="latents must be finite"):
            call()
    with pytest.raises(TypeError, match="latents must be floating"):
        hs.sample(half, CLASSIC, 4, 5, latents=np.zeros((4, 4)))  # type: ignore[arg-type]


def test_numpy_integers_do_not_wrap_around() -> None:
    narrow = np.uint8
    wanted = hs.sample(half, LAW.at(3.0), 20, 3, seed=7, offset=250, batch=5, solver=hs.DDPM())
    got = hs.sample(
        half, LAW.at(3.0), narrow(20), narrow(3), seed=narrow(7), offset=narrow(250), batch=narrow(5), solver=hs.DDPM()
    )
    assert torch.equal(got, wanted)
    for start in (LAW.at(3.0), CLASSIC, hs.Empirical(torch.randn(50, 4)).at(1.0)):
        assert torch.equal(start.sample(narrow(20), narrow(7), narrow(250)), start.sample(20, 7, 250))
    made = sampler(half, LAW.at(3.0), 3, batch=narrow(20))
    assert torch.equal(made(narrow(7), narrow(250)), hs.sample(half, LAW.at(3.0), 20, 3, seed=7, offset=250))
    data = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    fits = [
        hs.GaussianMixture.fit(data, k, hs.Diagonal(), seed=s, max_iter=5)
        for k, s in ((2, 200), (narrow(2), narrow(200)))
    ]
    assert torch.equal(fits[0].components.mean, fits[1].components.mean)


@pytest.mark.parametrize("seed", [2**64 - 1, np.uint64(2**64 - 1), np.int64(3)])
def test_the_last_seed_is_a_seed_everywhere(seed: Any) -> None:
    heldout = LAW.at(0.0).sample(200)
    assert hs.plan(LAW.at(2.0), 1, seed=seed).nfe == 1
    assert hs.tail_check(LAW.at(2.0), heldout, seed=seed).p_value >= 0
    assert hs.sample(half, LAW.at(2.0), 2, 2, seed=seed).shape == (2, 4)


def test_public_objects_pickle_copy_and_hash() -> None:
    plan = hs.plan(LAW.at(2.0), 1)
    objects = [
        plan, hs.guided(Net(), 2.0, null={"label": 3}), hs.Heun(hs.Churn(1.0)), hs.UniPC(), CLASSIC, LAW, LAW.at(2.0),
        hs.EDM(Net()), sampler(half, CLASSIC, 2), hs.Empirical(torch.randn(9, 4)).at(1.0), hs.Fixed(), hs.Dynamic(),
        hs.validate(plan, half, LAW.at(2.0), n=2, fine_steps=2), hs.tail_check(LAW.at(2.0), torch.randn(200, 4)),
        hs.initialization_kl(LAW.at(2.0), half, torch.randn(20, 4)), hs.SampleInfo(1, 1.0, 1), NotFinite("a", (1,)),
        hs.Full(), hs.LowRank(3), hs.Coupling(), hs.Spline(), hs.StudentTBase(),
    ]  # fmt: skip
    for one in objects:
        hash(one)
        for again in (pickle.loads(pickle.dumps(one)), copy.deepcopy(one), copy.copy(one)):
            assert type(again) is type(one)
    assert pickle.loads(pickle.dumps(plan)) == plan == copy.deepcopy(plan)
    assert hash(plan) == hash(copy.deepcopy(plan))
    with pytest.raises(TypeError):
        copy.deepcopy(plan).provenance["seed"] = 1  # type: ignore[index]
