"""What tuning gains on the zoo's network: `python -m bench.tune --out DIR [--calls 4] [--seeds 1] [--n 1000]`.

DPM-Solver++ 2M from the learned start, which is of classes (Karras levels, rho 7, last 0.02), the plan on the start,
plans tuned to the network's fine solution and to the training images, 2M and the same tuning from 80 with no learned
start, the network's fine solution from the learned start, and real images in the samples' place. Scores: Frechet
distance on Lite0 features, which no tuning sees, and sliced Wasserstein distance, to the first n test images; labels in
turn. A start and the plans are kept in `DIR`, rows in `DIR/tune.json` as they are done, so a killed run goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import headstart as hs
from bench.zoo.quality import real_images
from bench.zoo.train import FOLDER
from headstart.io.output import write
from headstart.metrics import Lite0Features, frechet_distance, sliced_wasserstein, statistics
from headstart.solver.plan import Plan

LAST, FAR_LAST, FINE = 0.02, 0.1, 30
SHAPE = (1, 28, 28)
WAYS = ("2M", "planned", "tuned to network", "tuned to data", "2M from 80", "tuned to data from 80", "fine solution")


@dataclass(frozen=True)
class Setting:
    """The network and what plans are made of.

    Fields:
        out: folder of the start and the plans.
        sigma: noise level of the start.
        latents: of each tuning; None: as many as the budget allows.
        begin: "best" of the plan on the start and classic tables, or "classic": the 2M table of the rows above.
    """

    out: Path
    sigma: float
    latents: int | None
    begin: str

    def start(self) -> Any:
        path = self.out / "start.safetensors"
        if not path.is_file():
            images, labels = hs.zoo.images()
            hs.fit(images, labels=labels).save(path)
        return hs.load(path).at(self.sigma)

    def grid(self, calls: int, far: bool) -> Tensor:
        return hs.log_uniform(80.0, FAR_LAST, calls) if far else hs.karras(self.sigma, LAST, calls)

    def plan(self, way: str, calls: int) -> Plan:
        """The plan of a way, made where it is not kept yet."""
        path = self.out / f"{way.replace(' ', '-')}-{calls}.json"
        if path.is_file():
            return hs.load_plan(path)
        far = way.endswith("from 80")
        start = hs.Classic(SHAPE) if far else self.start()
        if way == "planned":
            made = hs.plan(start, calls, start.sigma)
        else:
            grid = self.grid(calls, far).tolist()
            table = Plan(tuple(grid), tuple(hs.DPMpp2M().rows(grid)), None, float("nan"), float("nan"))
            target: Any = "network" if "network" in way else hs.zoo.images()[0]
            options: Any = {} if self.latents is None or target == "network" else {"n": self.latents}
            given = table if self.begin == "classic" else calls
            cond = {"label": torch.arange(10)}
            made = hs.tune(given, hs.zoo.denoiser(), start, target, cond, **options)
        made.save(path)
        return made

    def samples(self, way: str, calls: int, n: int, seed: int) -> tuple[Tensor, Plan | None]:
        """`n` samples, classes in turn."""
        far = way.endswith("from 80")
        start = hs.Classic(SHAPE) if far else self.start()
        plan = self.plan(way, calls) if "planned" in way or "tuned" in way else None
        how: Any = {"plan": plan}
        if plan is None:
            steps = FINE if way == "fine solution" else calls
            how = {"grid": hs.karras(self.sigma, 0.01, steps) if way == "fine solution" else self.grid(steps, far)}
        cond = {"label": torch.arange(n) % 10}
        return hs.sample(hs.zoo.denoiser(), start, n, seed=seed, batch=100, cond=cond, **how), plan


def scorer(folder: Path, n: int) -> tuple[Callable[[Tensor], dict[str, float]], dict[str, float]]:
    """Distances to the first `n` test images, and those of `n` training images."""
    features, test = Lite0Features(), real_images(folder, "test")[:n]
    reference = statistics(test, features)

    def score(x: Tensor) -> dict[str, float]:
        x = x.clamp(-1, 1)
        frechet = frechet_distance(statistics(x, features), reference)
        return {"frechet": frechet, "swd": sliced_wasserstein(x, test)}

    train = real_images(folder, "train")
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    return score, score(train[order[:n]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path(FOLDER), help="folder of Fashion-MNIST's idx files")
    parser.add_argument("--calls", type=int, nargs="*", default=[4])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--n", type=int, default=1000, help="samples a row")
    parser.add_argument("--sigma", type=float, default=3.0)
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=list(WAYS))
    parser.add_argument("--latents", type=int, help="of each tuning to data; default: what the budget allows")
    parser.add_argument("--begin", choices=("best", "classic"), default="best", help="what tuning begins from")
    arguments = parser.parse_args()
    path: Path = arguments.out / "tune.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {name: getattr(arguments, name) for name in ("n", "sigma", "latents", "begin")}
    found: dict[str, Any] = {"about": about, "rows": []}
    if path.is_file():
        found = json.loads(path.read_text())
        if found["about"] != about:
            parser.error(f"{path} was made with {found['about']}")
    setting = Setting(arguments.out, arguments.sigma, arguments.latents, arguments.begin)
    score, floor = scorer(arguments.data, arguments.n)
    found["floor"] = floor
    for seed in range(arguments.seeds):
        for calls in arguments.calls:
            for way in arguments.ways:
                key = (way, FINE if way == "fine solution" else calls, seed)
                if key in {(row["way"], row["calls"], row["seed"]) for row in found["rows"]}:
                    continue
                began = time.perf_counter()
                x, plan = setting.samples(way, calls, arguments.n, seed)
                row = dict(zip(("way", "calls", "seed"), key, strict=True)) | score(x)
                row["seconds"] = round(time.perf_counter() - began, 1)
                if plan is not None and "tuned" in plan.provenance:
                    row["tuned"] = plan.provenance["tuned"]
                found["rows"].append(row)
                write(path, lambda temporary: temporary.write_text(json.dumps(found, indent=1) + "\n"))
                print({name: value for name, value in row.items() if name != "tuned"}, flush=True)


if __name__ == "__main__":
    main()
