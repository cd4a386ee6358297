"""Timed on one device: the ops beside a copy, eager torch and torch.compile, and whole loops eager and as a CUDA graph.

`python -m bench.device ops|loop --out FILE`: a part of `bench.gpu`, in a process of its own. The file is written anew
after each case, so that a run that is stopped leaves what it had measured.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import headstart as hs
from bench.ops.bench_affine import affine_case
from bench.ops.bench_mixture import GEMM, PLAIN, posterior_case
from bench.ops.bench_noise import EAGER, noise_case, normal_case
from bench.runner import table
from headstart.bench.measure import COMPILED, COPY, OURS, Contest, paired
from headstart.io.output import write
from headstart.zoo.network import UNet

KEPT = (OURS, EAGER, COMPILED, PLAIN, GEMM)
GRAPH, NULL = "graph", "graph, network that does nothing"
BYTES_A_REPETITION = 4 * 2**30  # some milliseconds: launches and the clock do not count


def figure(name: str, value: float, limit: float, least: bool = True) -> dict[str, Any]:
    """A measured value beside its limit."""
    return {"figure": name, "value": value, "limit": limit, "met": value >= limit if least else value <= limit}


def row_cases(quick: bool, device: str) -> Iterator[Callable[[], Contest]]:
    """Noise and affine rows on states of 64 MiB and 1 GiB."""
    for n in (2**16,) if quick else (2**24, 2**28):
        yield partial(noise_case, n, device=device)
        yield partial(noise_case, n, device=device, to=torch.bfloat16)
        yield partial(affine_case, n, device=device)
        yield partial(affine_case, n, torch.bfloat16, device=device)
        yield partial(affine_case, n, torch.bfloat16, device=device, scaled=True)
        yield partial(affine_case, n, device=device, noise=True)


def other_cases(quick: bool, device: str) -> Iterator[Callable[[], Contest]]:
    """Normals and mixtures, which have no limit."""
    yield partial(normal_case, 2**16 if quick else 2**26, device=device)
    for d, k, rank in ((2, 25, None), (16, 25, None), (100, 25, None), (784, 32, 48)):
        n = 1_000 if quick else 100_000 if rank is None else 4_096
        yield partial(posterior_case, n, d, k, rank, device=device)


def measure_ops(quick: bool, device: str, seconds: float) -> Iterator[dict[str, Any]]:
    limited = [(build, True) for build in row_cases(quick, device)]
    for build, has_limits in [*limited, *((build, False) for build in other_cases(quick, device))]:
        case = build()
        case = case.only(name for name in case.contenders if name in KEPT and not (quick and name == COMPILED))
        case = replace(case, calls=1 if quick else max(1, BYTES_A_REPETITION // case.size), settle=0.0)
        result = paired(case, device, seconds, most=30)
        rows = {row["contender"]: row for row in result["results"]}
        figures = []
        if has_limits:
            figures = [figure("of_copy", rows[OURS]["of_copy_median"], 0.9)]
            figures += [figure("of_eager", rows[EAGER]["ratio_median"], 3.0)] if EAGER in rows else []
            figures += [figure("of_compiled", rows[COMPILED]["ratio_median"], 1.0)] if COMPILED in rows else []
        print(table(result), flush=True)
        yield {**result, "figures": figures}
        del case
        if device == "cuda":
            torch.cuda.empty_cache()


def network(quick: bool, device: str, channels_last: bool) -> UNet:
    """A U-Net the size of those for FFHQ at 64 pixels (58M parameters), bfloat16 on a GPU, of random weights."""
    torch.manual_seed(0)
    net = UNet(3, (32, 64) if quick else (128, 256, 384, 512), 2, 1, 1)
    for block in net.modules():  # the layers that training starts from zero
        if isinstance(block, torch.nn.Conv2d) and not block.weight.any():
            torch.nn.init.normal_(block.weight, std=0.02)
    net = net.to(device, torch.bfloat16 if device == "cuda" else torch.float32).eval()
    return net.to(memory_format=torch.channels_last) if channels_last else net


def loop_case(net: UNet, batch: int, side: int, device: str, quick: bool) -> tuple[Contest, list[hs.Sampler]]:
    """One batch by DPM++ 2M in 10 calls: eager, as a graph, and as a graph whose network does nothing."""
    dtype = next(net.parameters()).dtype
    start, steps = hs.Classic((3, side, side), 3.0, device=device), 2 if quick else 10
    fixed = torch.zeros(batch, 3, side, side, device=device, dtype=dtype)

    def nothing(x: Tensor, c_noise: Tensor) -> Tensor:
        return fixed

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is no graph is in the report
        samplers = [
            hs.Sampler(hs.EDM(raw, 0.5, dtype), start, steps, batch=batch, graph=graph)
            for raw, graph in ((net, False), (net, True), (nothing, True))
        ]
    contenders = dict(zip((EAGER, GRAPH, NULL), samplers, strict=True))
    order = "channels-last" if net.stem.weight.is_contiguous(memory_format=torch.channels_last) else "contiguous"
    name = f"loop of {samplers[0].nfe} calls, batch {batch}, {order} {dtype}, {device}".replace("torch.", "")
    return Contest(name, fixed.numel() * 4, contenders), samplers


def measure_loops(quick: bool, device: str, seconds: float) -> Iterator[dict[str, Any]]:
    side = 16 if quick else 64
    for batch, channels_last in ((1, False), (1, True), (4 if quick else 64, True)):
        net = network(quick, device, channels_last)
        case, (_, graph, _) = loop_case(net, batch, side, device, quick)
        result = paired(case, device, seconds, most=30)
        rows = {row["contender"]: row["time_median"] for row in result["results"]}
        equal = all(torch.equal(case.contenders[EAGER](seed), graph(seed)) for seed in (1, 2))  # type: ignore[call-arg]
        figures = [figure("sampler's share", rows[NULL] / rows[GRAPH], 0.02, least=False)]
        if batch == 1:
            figures.append(figure("eager over graph", rows[EAGER] / rows[GRAPH], 1.5))
        about = {
            "parameters": sum(p.numel() for p in net.parameters()),
            "graphed": graph.graphed,
            "reason": graph.reason,
        }
        print(f"{result['name']}: " + ", ".join(f"{name} {1e3 * rows[name]:.2f} ms" for name in rows if name != COPY))
        yield {**result, **about, "replay_equals_eager": equal, "figures": figures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["ops", "loop"])
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--seconds", type=float, default=1.0, help="time for each case")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    measure = measure_ops if arguments.what == "ops" else measure_loops
    cases = []
    for case in measure(arguments.quick, device, 0.05 if arguments.quick else arguments.seconds):
        cases.append(case)
        write(arguments.out, lambda path: path.write_text(json.dumps(cases, indent=1) + "\n"))


if __name__ == "__main__":
    main()
