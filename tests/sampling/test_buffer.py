"""Buffers: memory is reused when nobody else refers to it, never before; users get tensors of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.dlpack import to_dlpack

import headstart as hs
from headstart.sampling.buffer import BUFFERS, CAN_COUNT, KEPT, MIN_BYTES, Buffers
from headstart.sampling.sampler import uncached_autocast

pytestmark = pytest.mark.skipif(not CAN_COUNT, reason="this torch does not count holders")
LIKE = torch.zeros(3, MIN_BYTES // 12 + 1)
SHAPE = (MIN_BYTES // 16, 2)  # of a sample; two are more than the least that is kept
WAYS: dict[str, Callable[[Tensor], Any]] = {
    "itself": lambda x: x,
    "a view": lambda x: x[1:],
    "detached": lambda x: x.detach(),
    "an array": lambda x: x.numpy(),
    "part of an array": lambda x: x.numpy()[1],
    "DLPack": to_dlpack,
    "its storage": lambda x: x.untyped_storage(),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_somebody_holds_is_not_handed_out(way: str) -> None:
    buffers = Buffers()
    held = WAYS[way](buffers.take(LIKE, torch.float32))
    at = {buffers.take(LIKE, torch.float32).data_ptr() for _ in range(3)}
    assert len(at) == 1  # a second one, free again each time
    assert at != {buffers.held[0].address}
    del held
    assert buffers.take(LIKE, torch.float32).data_ptr() == buffers.held[0].address


def share(x: Tensor) -> None:
    x.share_memory_()


def resize(x: Tensor) -> None:
    x.untyped_storage().resize_(2 * x.nbytes)


def free(x: Tensor) -> None:
    x.untyped_storage().resize_(0)


@pytest.mark.parametrize("spoil", [share, resize, free])
def test_memory_that_was_shared_or_resized_never_comes_back(spoil: Callable[[Tensor], None]) -> None:
    buffers = Buffers()
    spoil(buffers.take(LIKE, torch.float32))
    again = buffers.take(LIKE, torch.float32)
    assert not again.is_shared()
    assert again.untyped_storage().nbytes() == LIKE.nbytes
    assert len(buffers.held) == 1


def test_what_a_tensor_was_does_not_come_back_with_its_memory() -> None:
    buffers = Buffers()
    first = buffers.take(LIKE, torch.float32)
    first.requires_grad_().sum().backward()
    at = first.data_ptr()
    del first
    second = buffers.take(LIKE, torch.float32)
    assert (second.data_ptr(), second.requires_grad, second.grad) == (at, False, None)
    del second
    with torch.inference_mode():
        assert buffers.take(LIKE, torch.float32).is_inference()
    assert not buffers.take(LIKE, torch.float32).is_inference()


def test_another_shape_or_dtype_may_take_the_same_memory() -> None:
    buffers = Buffers()
    for like, dtype in (
        (LIKE, torch.float32),
        (LIKE.mT, torch.float32),
        (LIKE[:, : LIKE.shape[1] // 2], torch.float64),
    ):
        taken = buffers.take(like, dtype)
        assert (taken.shape, taken.dtype) == (like.shape, dtype)
        del taken
    assert buffers.take(LIKE.mT, torch.float32).stride() == LIKE.mT.stride()
    assert len(buffers.held) == 2  # the last of the three spans more bytes


def test_little_stays_between_runs() -> None:
    buffers = Buffers()
    for size in (KEPT // 8, KEPT // 4, MIN_BYTES):
        buffers.take(torch.zeros(size), torch.float32)
    buffers.trim()
    assert [lot.nbytes for lot in buffers.held] == [4 * MIN_BYTES]
    buffers.take(torch.zeros(5), torch.float32)  # too small to be kept
    assert len(buffers.held) == 1


@pytest.mark.parametrize("solver", [hs.Heun(), hs.DPMpp2M(), hs.Ancestral()])
def test_results_and_states_stay_as_they_were(solver: hs.Solver) -> None:
    """Of several runs, whatever a denoiser kept by any means and whatever was returned."""
    ways = list(WAYS.values())[:5]
    kept: list[tuple[Any, Tensor]] = []

    def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        held = ways[len(kept) % len(ways)](x)
        kept.append((held, torch.as_tensor(held).clone()))
        return 0.5 * x

    for seed in range(3):
        out = hs.sample(denoiser, hs.Classic(SHAPE, 10.0), n=2, steps=6, solver=solver, seed=seed)
        kept.append((out, out.clone()))
    assert all(torch.equal(torch.as_tensor(held), copy) for held, copy in kept)


def test_users_get_tensors_that_no_buffer_knows() -> None:
    def draw(seed: int) -> Tensor:
        return hs.sample(lambda x, _: 0.5 * x, hs.Classic(SHAPE, 5.0), n=2, steps=4, seed=seed)

    for seed in range(3):
        address = draw(seed).untyped_storage().data_ptr()
        assert BUFFERS.held  # the run did use buffers
        assert address not in {lot.address for lot in BUFFERS.held}
    with torch.inference_mode():
        assert draw(0).is_inference()
    assert not draw(0).is_inference()


@pytest.mark.parametrize("solver", [hs.Euler(), hs.Heun(), hs.DPMpp2M(), hs.UniPC()])
def test_a_denoiser_may_ask_for_gradients_of_its_input(solver: hs.Solver) -> None:
    def guided(x: Tensor, detach: bool) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_() if detach else x.requires_grad_()
            gradient = torch.autograd.grad((0.5 * x - 1).square().sum(), x)[0]
        return (0.5 * x - 0.1 * gradient).detach()

    for shape in ((16,), SHAPE):
        want, got = (
            hs.sample(lambda x, _, d=detach: guided(x, d), hs.Classic(shape, 5.0), n=2, steps=4, solver=solver)  # type: ignore[misc]
            for detach in (True, False)
        )
        assert torch.equal(want, got)
        assert not got.requires_grad


def test_no_cast_of_autocast_is_kept_for_a_graph() -> None:
    weight, x = torch.nn.Parameter(torch.zeros(4, 4)), torch.ones(4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        x @ weight  # its cast is cached now
        with torch.no_grad(), uncached_autocast():
            weight.fill_(1.0)
            assert torch.equal(x @ weight, torch.full((4, 4), 4.0, dtype=torch.bfloat16))
            weight.fill_(2.0)
            assert torch.equal(x @ weight, torch.full((4, 4), 8.0, dtype=torch.bfloat16))
        assert torch.is_autocast_cache_enabled()
