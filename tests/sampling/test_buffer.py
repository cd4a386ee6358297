"""Buffers: reused when nobody else refers to them, never before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.dlpack import to_dlpack

import headstart as hs
from headstart.sampling.buffer import CAN_COUNT, KEPT, Buffers

pytestmark = pytest.mark.skipif(not CAN_COUNT, reason="this torch does not count holders")
LIKE = torch.zeros(3, 50)
WAYS: dict[str, Callable[[Tensor], Any]] = {
    "itself": lambda x: x,
    "a view": lambda x: x[1:],
    "detached": lambda x: x.detach(),
    "an array": lambda x: x.numpy(),
    "part of an array": lambda x: x.numpy()[2],
    "DLPack": to_dlpack,
    "its storage": lambda x: x.untyped_storage(),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_somebody_holds_is_not_handed_out(way: str) -> None:
    buffers = Buffers()
    held = WAYS[way](buffers.take(LIKE, torch.float32))
    at = {buffers.take(LIKE, torch.float32).data_ptr() for _ in range(3)}
    assert len(at) == 1  # a second tensor, free again each time
    assert at != {buffers.held[0][0].data_ptr()}
    del held
    assert buffers.take(LIKE, torch.float32).data_ptr() == buffers.held[0][0].data_ptr()


def test_another_kind_is_another_tensor() -> None:
    buffers = Buffers()
    for like in (LIKE, LIKE.mT, LIKE[:, :7], LIKE.double()):
        taken = buffers.take(like, torch.bfloat16)
        assert (taken.shape, taken.dtype) == (like.shape, torch.bfloat16)
    assert len(buffers.held) == 3  # the last is like the first


def test_little_stays_between_runs() -> None:
    buffers = Buffers()
    for size in (KEPT // 8, KEPT // 4, 5):
        buffers.take(torch.zeros(size), torch.float32)
    buffers.trim()
    assert [tensor.numel() for tensor, _ in buffers.held] == [5]


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
        out = hs.sample(denoiser, hs.Classic((4, 6), 10.0), n=3, steps=6, solver=solver, seed=seed)
        kept.append((out, out.clone()))
    assert all(torch.equal(torch.as_tensor(held), copy) for held, copy in kept)
