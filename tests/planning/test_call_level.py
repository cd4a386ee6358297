"""Call levels and wide rows: what the loop runs, what the plan's file keeps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import headstart as hs
from headstart.solver import Row
from headstart.solver.row import Solver

NODES = (2.0, 1.0, 0.4, 0.0)
LEVELS = (2.0, 1.2, 0.5)


def tuned(told: bool = True, ghost: float | None = None) -> hs.Plan:
    rows = [Row(2.0, 0.5, (0.5,)), Row(1.0, 0.4, (0.8, -0.2)), Row(0.4, 0.0, (1.1, -0.2, 0.1))]
    rows = [row._replace(told=level) for row, level in zip(rows, LEVELS, strict=True)] if told else rows
    return hs.Plan(NODES, tuple(rows), ghost, 0.1, 0.2)


def network(x: torch.Tensor, c_noise: torch.Tensor) -> torch.Tensor:
    return torch.tanh(x) * (1 + c_noise)


def test_the_whole_denoiser_is_evaluated_at_the_call_level() -> None:
    """Preconditioning folded into the rows, and a plain callable, against the steps written out."""
    edm, start = hs.EDM(network), hs.Classic((5,), 2.0)
    x = start.sample(7, seed=3)
    history: list[torch.Tensor] = []
    expected = x.double()
    for row, level in zip(tuned().table, LEVELS, strict=True):
        history = [edm(expected, level), *history]
        expected = row.a * expected + sum(b * d for b, d in zip(row.b, history, strict=False))
    told = []

    def plain(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        told.append(float(sigma))
        return edm(x, sigma)

    for denoiser in (edm, plain, hs.guided(edm, 2.0, guide=edm)):
        assert torch.allclose(hs.sample(denoiser, start, 7, plan=tuned(), seed=3), expected.float(), atol=1e-5)
    assert told == pytest.approx(LEVELS)
    sampler = hs.Sampler(edm, start, batch=7, plan=tuned(), graph=False)
    assert torch.equal(sampler(seed=3), hs.sample(edm, start, 7, plan=tuned(), seed=3))
    assert not torch.allclose(hs.sample(edm, start, 7, plan=tuned(told=False), seed=3), expected.float(), atol=1e-3)


def test_guidance_acts_at_the_call_level() -> None:
    calls = []

    def main(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        calls.append("main")
        return torch.tanh(x)

    def guide(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        calls.append("guide")
        return torch.zeros_like(x)

    limited = hs.guided(main, 2.0, guide=guide, interval=(1.1, 1.3))
    _, info = hs.sample(limited, hs.Classic((5,), 2.0), 2, plan=tuned(), return_info=True)
    assert calls == ["main", "main", "guide", "main"]
    assert info.nfe == 4


@pytest.mark.parametrize("solver", [hs.DPMpp2M(), hs.Heun(), hs.UniPC(), hs.DPMpp3M(), hs.Heun(hs.Churn(5.0))])
def test_a_told_level_equal_to_the_node_changes_no_bit(solver: Solver) -> None:
    class Told:
        order = 1

        def rows(self, grid: list[float]) -> list[Row]:
            return [row._replace(told=row.sigma) for row in solver.rows(grid)]

    start, edm = hs.Classic((33,), 3.0), hs.EDM(network)
    assert torch.equal(*(hs.sample(edm, start, 5, 4, one) for one in (solver, Told())))  # type: ignore[arg-type]


@pytest.mark.parametrize("preconditioned", [False, True])
def test_rows_read_up_to_eight_predictions(preconditioned: bool) -> None:
    """More tensors than the op takes at once."""
    edm = hs.EDM(network)
    denoiser = edm if preconditioned else lambda x, sigma: edm(x, sigma)
    generator = torch.Generator().manual_seed(0)
    nodes = torch.linspace(2.0, 0.2, 8).tolist()
    weights = [(0.3 * torch.randn(i + 1, generator=generator)).tolist() for i in range(8)]
    rows = tuple(Row(nodes[i], 0.1 * i, tuple(weights[i])) for i in range(8))
    plan, start = hs.Plan((*nodes, 0.0), rows, None, 0.0, 0.0), hs.Classic((9,), 2.0)
    x, history = start.sample(6).double(), []
    for row in rows:
        history = [edm(x, float(row.sigma or 0)), *history]
        x = row.a * x + sum(b * d for b, d in zip(row.b, history, strict=False))
    assert torch.allclose(hs.sample(denoiser, start, 6, plan=plan), x.float(), atol=1e-5)
    with pytest.raises(ValueError, match="deterministic step"):
        hs.Plan((3.0, *nodes, 0.0), (Row(3.0, 1.0, (0.0,)), *rows[:7], Row(nodes[7], 0.0, (0.1,) * 9)), None, 0.0, 0.0)


def test_files_of_both_versions(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    tuned().save(path)
    assert hs.load_plan(path) == tuned()
    text = json.loads(path.read_text())
    assert text["version"] == 2
    for row in text["rows"]:
        del row["told"]
    path.write_text(json.dumps(text | {"version": 1}))
    assert hs.load_plan(path) == tuned(told=False)
    text["rows"][1]["told"] = -1.0
    path.write_text(json.dumps(text))
    with pytest.raises(ValueError, match="damaged"):
        hs.load_plan(path)


def test_an_exported_table_runs_elsewhere() -> None:
    """The mapping's own recipe gives the samples that `sample` gives."""
    edm, start, plan = hs.EDM(network), hs.Classic((5,), 2.0), tuned()
    table = plan.export("k-diffusion")
    assert isinstance(table, dict)
    assert tuple(table["sigmas"]) == NODES
    x, known = start.sample(4).double(), []
    for i, level in enumerate(table["call_sigmas"]):
        known.append(edm(x, level))
        x = table["a"][i] * x + sum(b * known[i - j] for j, b in enumerate(table["b"][i]))
    assert torch.allclose(hs.sample(edm, start, 4, plan=plan), x.float(), atol=1e-5)
    other, text = plan.export("diffusers"), plan.export("json")
    assert isinstance(other, dict)
    assert isinstance(text, str)
    assert tuple(other["sigmas"]) == NODES[:-1]
    assert json.loads(text)["version"] == 2
    with pytest.raises(ValueError, match="free history"):
        tuned(ghost=3.0).export("json")
    with pytest.raises(ValueError, match="must be one of"):
        plan.export("onnx")
