"""Ops under torch's own state: autocast, precision, defaults, modes, tracers, transforms, odd tensors."""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

import headstart as hs
from headstart import ops
from headstart.ops import check, library

X = torch.linspace(-2, 2, 30).reshape(6, 5)
Y = torch.linspace(1, 3, 30).reshape(6, 5)
LAW = ops.Components(torch.linspace(-1, 1, 10).reshape(2, 5), torch.ones(2, 5))
LOG_WEIGHT = torch.tensor([0.4, 0.6]).log()
WHICH = torch.tensor([0, 1, 1])
OPS: dict[str, Callable[[Tensor], Tensor]] = {
    "affine": lambda x: ops.affine(x, 0.5, [(2.0, Y)], ops.Noise(0.3, 2**63 + 7, 1)),
    "out_scaled": lambda x: torch.cat(ops.affine(x, 0.5, [(2.0, Y)], out_scaled=(2.0, torch.float32))),
    "noise": lambda x: ops.noise(x, 1.0, 1, 2),
    "normal": lambda x: x + ops.normal((6, 5), 1),
    "uniform": lambda x: x + ops.uniform(6, 1)[:, None].float(),
    "posterior": lambda x: torch.cat(ops.mixture_posterior(x, LAW, LOG_WEIGHT, 0.5, respond=False).denoised.split(3)),
    "sample": lambda x: ops.mixture_sample(WHICH, LAW._replace(mean=LAW.mean + x[0, 0]), 0.5, 1),
}
pytestmark = pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
EVERY = pytest.mark.parametrize("op", OPS.values(), ids=OPS)


class Watch(TorchDispatchMode):
    """A mode that sees every op and changes none."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


class Labelled(Tensor):
    """A subclass without rules of its own."""


@contextlib.contextmanager
def default(dtype: torch.dtype | None = None, device: str | None = None) -> Iterator[None]:
    was = torch.get_default_dtype()
    try:
        torch.set_default_dtype(dtype or was)
        torch.set_default_device(device)
        yield
    finally:
        torch.set_default_dtype(was)
        torch.set_default_device(None)


@EVERY
@pytest.mark.parametrize("mode", ["trace", "real", "fake", "symbolic", "pre_dispatch"])
def test_a_recording_gives_what_the_op_gives(op: Callable[[Tensor], Tensor], mode: str) -> None:
    other = X.flip(0).contiguous()
    if mode == "trace":
        recorded = torch.jit.trace(op, X, check_trace=False)
    elif mode == "pre_dispatch":
        recorded = make_fx(op, pre_dispatch=True)(X)
    else:
        recorded = make_fx(op, tracing_mode=mode, _allow_non_fake_inputs=True)(X)
    assert torch.equal(recorded(other), op(other))


@EVERY
def test_fake_tensors_have_shapes_and_modes_see_the_op(op: Callable[[Tensor], Tensor]) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = op(mode.from_tensor(X))
    assert type(fake).__name__ == "FakeTensor"
    assert (fake.shape, fake.dtype) == (op(X).shape, torch.float32)
    with Watch() as watch:
        seen = op(X)
    assert torch.equal(seen, op(X))
    assert any("headstart" in name for name in watch.seen)


@EVERY
def test_transforms_of_functions_are_refused_by_name(op: Callable[[Tensor], Tensor]) -> None:
    for run in (
        lambda: torch.func.vmap(op)(X[None]),
        lambda: torch.func.functionalize(op)(X),
        lambda: torch.func.jvp(op, (X,), (X,)),
        lambda: torch.func.grad(lambda x: op(x).sum())(X),
    ):
        with pytest.raises((RuntimeError, ValueError), match=r"^[a-z_]+: (must|\w+ requires a gradient)"):
            run()


def test_a_tangent_is_not_dropped() -> None:
    with forward_ad.dual_level(), pytest.raises(RuntimeError, match=r"affine: .* tangents"):
        ops.affine(forward_ad.make_dual(X, X), 2.0)


@EVERY
@pytest.mark.parametrize("odd", ["negative", "zero", "subclass", "parameter"])
def test_lazy_tensors_and_subclasses_have_their_values(op: Callable[[Tensor], Tensor], odd: str) -> None:
    made = {
        "negative": lambda: torch._neg_view(-X),
        "zero": lambda: torch._efficientzerotensor((6, 5)),
        "subclass": lambda: X.as_subclass(Labelled),
        "parameter": lambda: torch.nn.Parameter(X, requires_grad=False),
    }[odd]()
    assert torch.equal(op(made), op(torch.zeros(6, 5) if odd == "zero" else X))


def test_every_argument_may_be_a_negative_view() -> None:
    components = ops.Components(*(torch._neg_view(-tensor) for tensor in LAW[:2]))
    got = ops.mixture_posterior(X, components, torch._neg_view(-LOG_WEIGHT), 0.5)
    assert torch.equal(got.log_prob, ops.mixture_posterior(X, LAW, LOG_WEIGHT, 0.5).log_prob)
    got = ops.mixture_sample(torch._neg_view(-WHICH), components, 0.5, 1)
    assert torch.equal(got, ops.mixture_sample(WHICH, LAW, 0.5, 1))
    for out in (torch._neg_view(torch.zeros(6, 5)), torch._efficientzerotensor((6, 5))):
        with pytest.raises(ValueError, match="affine: out must have memory"):
            ops.affine(X, 0.5, [(1.0, Y)], out=out)


@pytest.mark.parametrize("nbytes", [0, 16])
@pytest.mark.parametrize("name", ["affine", "noise", "posterior"])
def test_freed_and_cut_memory_is_refused(name: str, nbytes: int) -> None:
    x = X.clone()
    x.untyped_storage().resize_(nbytes)
    with pytest.raises(ValueError, match="x must have memory"):
        OPS[name](x)
    with pytest.raises(ValueError, match="y0 must have memory"):
        ops.affine(X, 1.0, [(1.0, x)])
    with pytest.raises(ValueError, match="out must have memory"):
        ops.affine(X, 1.0, [(1.0, Y)], out=x)


def test_an_address_is_only_given_to_what_the_kernel_will_read() -> None:
    for odd, error in ((X.double(), "dense torch.float32"), (X.mT, "contiguous"), (X.to_sparse(), "dense")):
        with pytest.raises((TypeError, ValueError), match=f"test: x must be .*{error}"):
            check.address("test", "x", odd, torch.float32, X)
    assert check.address("test", "x", None, torch.float32, X) == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_default_dtype_and_device_do_not_matter(dtype: torch.dtype) -> None:
    image = torch.linspace(0, 1, 96).reshape(2, 3, 4, 4).to(memory_format=torch.channels_last)
    images, labels = (tensor[:60] for tensor in hs.zoo.images("fashion"))
    low = hs.fit(images, components=2)

    def results() -> list[Tensor]:
        start = hs.fit(images, components=2, covariance=hs.LowRank(3)).at(1.0)
        features = hs.metrics.GradientFeatures.fit(images)
        network = hs.zoo.denoiser("fashion")
        drawn = hs.sample(network, low.at(3.0), n=2, steps=2, cond={"label": labels[:2]})
        noised = [ops.noise(image, 1.0, 7, 0), ops.normal((2, 5), 1), ops.uniform(3, 1)]
        return [*noised, start.sample(2, seed=1), start.log_prob(images), features(images), drawn]

    want = results()
    with default(dtype):
        got = results()
    assert [torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(want, got, strict=True)] == [True] * len(want)
    with default(device="meta"):
        got = results()
    assert [torch.equal(a, b) for a, b in zip(want, got, strict=True)] == [True] * len(want)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_does_not_reach_a_start(dtype: torch.dtype) -> None:
    images, labels = (tensor[:120] for tensor in hs.zoo.images("fashion"))

    def results() -> list[Tensor]:
        law = hs.fit(images, components=2, covariance=hs.LowRank(4), labels=labels, by_class=False)
        start, z = law.at(3.0), ops.normal((4, 1, 28, 28), 0)
        return [
            law.log_prob(images, 1.0), law.denoise(images, 1.0), start.sample(3), start.from_latents(z),
            *start.history(z, 10.0), start.log_prob(z), hs.metrics.GradientFeatures.fit(images)(images),
            torch.tensor(hs.plan(start, nfe=2).nodes), torch.tensor(hs.tail_check(start, images).p_value),
        ]  # fmt: skip

    want = results()
    with torch.autocast("cpu", dtype):
        assert torch.mm(X, X.mT).dtype == dtype
        got = results()
        assert library.autocasting()
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(want, got, strict=True))


def test_products_keep_the_precision_that_torch_was_told_to_drop() -> None:
    a, b = ops.normal((200, 300), 0), ops.normal((300, 100), 1)
    want = a.double() @ b.double()
    unrounded = float((a @ b - want).abs().max())
    try:
        torch.set_float32_matmul_precision("medium")
        assert library.rounds_products(torch.device("cpu"))
        assert float((library.multiplied(a, b) - want).abs().max()) <= unrounded
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert torch.equal(library.multiplied(a, b), a @ b)


def test_compiled_code_takes_a_symbolic_seed() -> None:
    compiled = torch.compile(lambda x, seed: ops.noise(x, 0.5, seed, 1), dynamic=True, fullgraph=True, backend="eager")
    for seed in (7, 8, 2**40, 2**63 + 5):
        assert torch.equal(compiled(X, seed), ops.noise(X, 0.5, seed, 1))


FACTORIES = {"empty", "zeros", "ones", "rand", "randn", "linspace", "logspace", "eye", "randperm", "randint", "arange"}
FACTORIES |= {"tensor", "full", "as_tensor", "asarray", "empty_strided"}
OTHERS = ("bench", "recipes", "compare", "cli")  # rooms of programs that own the process
AMBIENT = ("adapters/edm/layer.py", "adapters/edm/unet.py")  # built on the meta device, then filled


def test_no_call_in_the_package_leaves_dtype_or_device_to_defaults() -> None:
    root = Path(hs.__file__).parent
    bad = []
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if name.startswith(OTHERS) or name.startswith("zoo/train"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if ast.unparse(node.func.value) != "torch" or node.func.attr not in FACTORIES:
                continue
            given = {keyword.arg for keyword in node.keywords}
            needed = {"dtype", "device"} if node.func.attr not in ("as_tensor", "asarray") else {"device"}
            needed -= {"device"} if name in AMBIENT else set()
            if not needed <= given:
                bad.append(f"{name}:{node.lineno}: {ast.unparse(node)}")
    assert not bad
