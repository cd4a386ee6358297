"""Writes the measured tables of README from the JSON files of their runs: `python -m bench.readme`.

`headstart demo --out bench/results/demo --json bench/results/demo/demo.json`, `python -m bench.zoo.quality`,
`bench.denoising`, `bench.plan`, `bench.ops`, `bench.sampler` and `headstart bench` make the files.
"""

from __future__ import annotations

import json
import re
from typing import Any

from bench.measured import bench_section, headline_section
from bench.performance import RESULTS, ROOT, performance_section
from headstart.io.output import write

DEMO = RESULTS / "demo/demo.json"
ZOO = RESULTS / "zoo/zoo.json"
DENOISING = RESULTS / "zoo/denoising.json"
PLAN = RESULTS / "plan/plan.json"
SHOWN = (3, 4, 5, 6, 7, 9)


def demo_section() -> str:
    """The demo's table and picture."""
    demo = json.loads(DEMO.read_text())
    machine = demo["machine"]
    lines = [
        f"{demo['n']} samples a row against 500 held-out images, seed {demo['seed']}, lower is better; SWD: sliced "
        "Wasserstein-2 distance of the pixels, FD: Frechet distance of gradient features; "
        f"{machine['name']}, {machine['threads']} threads, torch {machine['torch']} (`{DEMO.relative_to(ROOT)}`).",
        "",
        "| start | solver | sigma_T | NFE | seconds | SWD | FD |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in demo["rows"]:
        figures = f"{row['sigma_T']:g} | {row['nfe']} | {row['seconds']:.1f} | {row['swd']:.3f} | {row['fd']:.3f}"
        lines.append(f"| {row['start']} | {row['solver']} | {figures} |")
    floor = demo["floor"]
    lines.append(f"| real training images | floor | | | | {floor['swd']:.3f} | {floor['fd']:.3f} |")
    picture = (DEMO.parent / "demo.png").relative_to(ROOT)
    return "\n".join([*lines, "", f"![Rows of samples from the same latents, one row a start]({picture})"])


def zoo_section() -> str:
    """The network's Frechet distances."""
    zoo = json.loads(ZOO.read_text())
    lines = [
        f"Frechet distance on {zoo['features']} features to the test images, class-conditional, Heun-79 from 80 "
        f"(`{ZOO.relative_to(ROOT)}`):",
        "",
        "| n | network | real against real |",
        "| ---: | ---: | ---: |",
    ]
    lines += [f"| {row['n']:,} | {row['frechet']:.2f} | {row['floor']:.2f} |" for row in zoo["rows"]]
    return "\n".join([*lines, "", *denoising_lines()])


def denoising_lines() -> list[str]:
    """Held-out denoising errors of the zoo's network and larger ones."""
    report = json.loads(DENOISING.read_text())
    levels = sorted({row["sigma"] for row in report["rows"]})
    lines = [
        f"Denoising error a pixel on {report['n']:,} held-out images, and that of others over it with the standard "
        f"error of the difference (`python -m bench.denoising`, `{DENOISING.relative_to(ROOT)}`):",
        "",
        "| network | weights | " + " | ".join(f"sigma {level:g}" for level in levels) + " |",
        "| --- | ---: |" + " ---: |" * len(levels),
    ]
    for name, weights in report["weights"].items():
        own = sorted((row for row in report["rows"] if row["network"] == name), key=lambda row: row["sigma"])
        first = name == next(iter(report["weights"]))
        cells = [f"{r['error']:.4f}" if first else f"{r['ratio']:.3f} +- {r['ratio_se']:.3f}" for r in own]
        lines.append(f"| {name} | {weights:,} | {' | '.join(cells)} |")
    return lines


def plan_section() -> str:
    """How many calls the classic solvers need for a plan's error, and the plot."""
    laws = json.loads(PLAN.read_text())
    lines = [
        "Calls of the best of Heun, 2M, 3M and UniPC from 80 over a plan's, at equal paired error to the fine solution "
        f"from the same latents (`{(PLAN.parent / 'report.md').relative_to(ROOT)}` has all figures; `< 1`: the classic "
        "solver is better):",
        "",
        "| law | method | " + " | ".join(f"{n} calls" for n in SHOWN) + " |",
        "| --- | --- |" + " ---: |" * len(SHOWN),
    ]
    for law, about in laws.items():
        for method, gains in about["speedup"].items():
            cells = ["> 13 calls" if gains[str(n)] is None else f"{gains[str(n)]:.2f}" for n in SHOWN]
            lines.append(f"| {law} | {method} | {' | '.join(cells)} |")
    picture = (PLAN.parent / "plan.png").relative_to(ROOT)
    return "\n".join([*lines, "", f"![Error against network calls]({picture})"])


SECTIONS: dict[str, Any] = {
    "headline": headline_section,
    "demo": demo_section,
    "plan": plan_section,
    "zoo": zoo_section,
    "performance": performance_section,
    "bench": bench_section,
}


def render(text: str) -> str:
    """README with its measured sections made anew."""
    for name, section in SECTIONS.items():
        pattern = re.compile(f"<!-- {name} -->.*?<!-- /{name} -->", flags=re.DOTALL)
        text = pattern.sub(f"<!-- {name} -->\n{section()}\n<!-- /{name} -->".replace("\\", r"\\"), text)
    return text


def main() -> None:
    readme = ROOT / "README.md"
    rendered = render(readme.read_text())
    write(readme, lambda path: path.write_text(rendered))


if __name__ == "__main__":
    main()
