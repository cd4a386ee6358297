"""Guidance: the plain composition of two denoisers, whatever is folded, stacked or left out; counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from guided_law import GUIDANCE, LABEL, NULL, SOLVERS, START, STEPS, Law, N, composed, edm, run
from torch import Tensor

import headstart as hs
from headstart.solver import Solver


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
    from headstart.sampling import loop as descent

    counted = []
    plain = descent.Prediction.fold
    monkeypatch.setattr(descent.Prediction, "fold", lambda self: counted.append(1) or plain(self))
    hs.sample(GUIDANCE[kind](Law(), Law())[0], START, N, 9, solver, cond={"label": LABEL})
    assert len(counted) == passes[kind]
