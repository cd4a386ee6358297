"""`headstart demo`: starts, solvers and calls on the zoo's network, scored against held-out images; one picture."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from headstart.compare.case import Case
from headstart.compare.run import Experiment, run
from headstart.compare.score import Distances
from headstart.compare.way import EDM_SIGMA_MIN, HEUN, SIGMA_MAX, Way, exists, methods_of
from headstart.io.output import to_bytes
from headstart.sampling import integrate
from headstart.sampling.request import SIGMA_MIN
from headstart.solver import DPMpp2M, Heun
from headstart.solver.grid import karras, log_uniform

HORIZON = 3.0  # sigma_T, fixed before any score was seen
CALLS = {"classic": (5, 7, 9, 13), "uninformed": (3, 5, 7, 9), "learned": (3, 5, 7, 9), "empirical": (5, 9)}
PLANNED_CALLS = (3, 5)
CHUNK = 50
SCALE, MARGIN, LABEL, GROUP_GAP = 2, 8, 190, 12  # of the picture
TITLE = "Unconditional samples; a column is one latent, carried to each start"


@dataclass(frozen=True)
class DemoRow:
    """One row of the table: Frechet and sliced Wasserstein distance to held-out images, and the seconds it took."""

    start: str
    solver: str
    sigma_T: float
    nfe: int
    seconds: float
    swd: float
    fd: float


def demo_ways() -> list[Way]:
    """Every row of the comparison, in the table's order."""
    few = [
        Way(start, solver, "log", nfe)
        for start, many in CALLS.items()
        for solver in methods_of("demo")
        for nfe in many
        if exists(solver, nfe)
    ]
    planned = [Way("learned", "plan", "plan", nfe) for nfe in PLANNED_CALLS]
    return [HEUN, *few, *planned, Way("alone", "none", "none", 0)]


def compare(case: Case, score: Distances, n: int, seed: int) -> list[DemoRow]:
    """The rows, `n` samples each of one seed."""
    experiment = Experiment(case, n, CHUNK, exact=True, keep=lambda _, seconds: {"seconds": np.array([seconds])})
    rows = []

    def add(way: Way, seed: int) -> None:
        held = experiment.gather(way, seed)
        swd, fd = score(experiment.images(held["arr_0"]))
        start = "learned, no network" if way.start == "alone" else way.start
        level, seconds = way.horizon(case.sigma), held["seconds"].sum().item()
        rows.append(DemoRow(start, way.solver_name, level, way.nfe, seconds, swd, fd))

    run(experiment, [(way, seed) for way in demo_ways()], add, title="network calls", progress=True)
    return rows


def to_json(rows: list[DemoRow], floor: tuple[float, float], **extra: Any) -> dict[str, Any]:
    """The table as plain values: rows, the real-against-real floor, and what else is said about the run."""
    return {"rows": [asdict(row) for row in rows], "floor": {"swd": floor[0], "fd": floor[1]}, **extra}


def side_by_side(case: Case, z: Tensor) -> list[tuple[str, Tensor]]:
    """Labelled rows of images from the same unit-normal latents `z` `[n, *shape]`.

    The learned rows start from transport, `80 z` carried down to sigma_T on the mixture's own flow with no network
    call, so that a column shows one latent.
    """
    heun, short, horizon = Heun(), DPMpp2M(), case.sigma

    def home(x: Tensor, sigma: float, calls: int) -> Tensor:
        return integrate(case.denoiser, x, log_uniform(sigma, SIGMA_MIN, calls), short)

    x, long = SIGMA_MAX * z, karras(SIGMA_MAX, EDM_SIGMA_MIN, (HEUN.nfe + 1) // 2, 7.0)
    carried = case.mixture.transport(z, horizon)
    alone = case.mixture.denoise(case.mixture.transport(z, SIGMA_MIN), SIGMA_MIN)
    rows = [("classic, Heun\n79 calls", integrate(case.denoiser, x, long, heun))]
    rows += [(f"classic, 2M\n{calls} calls", home(x, SIGMA_MAX, calls)) for calls in (9, 5)]
    rows += [(f"learned, 2M\n{calls} calls", home(carried, horizon, calls)) for calls in (9, 5, 3)]
    rows += [(f"uninformed, 2M\n{calls} calls", home(horizon * z, horizon, calls)) for calls in (9, 5)]
    return [*rows, ("learned start\nalone, 0 calls", alone)]


def draw_sheet(rows: list[tuple[str, Tensor]], title: str = TITLE) -> np.ndarray:
    """uint8 picture `[h, w, 3]`: a title, and a row for each (label, images `[N, C, H, W]`), enlarged.

    A label has one or two lines; a wider gap parts rows whose first words differ.
    """
    height, width = rows[0][1].shape[2:]
    count = max(len(images) for _, images in rows)
    cell_h, cell_w = height * SCALE, width * SCALE
    groups = [label.split()[0] for label, _ in rows]
    tops, top = [], 34 + MARGIN
    for index in range(len(rows)):
        top += GROUP_GAP if index and groups[index] != groups[index - 1] else 0
        tops.append(top)
        top += cell_h + 4
    sheet = Image.new("RGB", (LABEL + count * (cell_w + 4) + MARGIN, top + MARGIN), "white")
    pen = ImageDraw.Draw(sheet)
    large, small = ImageFont.load_default(size=17), ImageFont.load_default(size=15)
    pen.text((MARGIN, MARGIN), title, fill="black", font=large)
    for (label, images), place in zip(rows, tops, strict=True):
        lines = label.split("\n")
        pen.text((MARGIN, place + cell_h / 2), lines[0], fill="black", font=large, anchor="ls")
        pen.text((MARGIN, place + cell_h / 2 + 4), "\n".join(lines[1:]), fill=(90, 90, 90), font=small)
        for column, pixels in enumerate(to_bytes(images)):
            grey = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
            image = Image.fromarray(grey).resize((cell_w, cell_h), Image.Resampling.BICUBIC)
            sheet.paste(image, (LABEL + column * (cell_w + 4), place))
    return np.asarray(sheet)
