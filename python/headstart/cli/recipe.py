"""`headstart recipe`: a published comparison on the user's network and data, and ours beside it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headstart.cli.common import console, find_device, guarded, require_folder, say, spread
from headstart.cli.evaluate import FEATURES, find_features

if TYPE_CHECKING:
    from headstart.compare.network import Subject
    from headstart.compare.recipe import Protocol

NAMES = ("ffhq64", "imagenet512")
STARTS = ("mixture", "tarflow")
FILES = ("checkpoint", "guide", "vae", "data", "classes", "images")  # options that a trial does without
TRIAL = {"n": 32, "seeds": 2, "part": 16, "components": 2}
LEARN = 500  # images that the gradient map is fitted on


def show(table: dict[str, Any]) -> None:
    """Prints the table: mean over seeds, and the floor."""
    from rich.table import Table

    title = f"{table['protocol']}: {table['n']} samples a row, mean of {table['seeds']} seeds (floor: real samples)"
    printed = Table(title=title, caption=f"reference: {table['reference']}")
    first = table["rows"][0]["figures"]
    chosen = [i for i, figure in enumerate(first) if not figure["metric"].startswith("tail")]
    names = [f"{first[i]['metric']} {first[i]['features'].partition(':')[0]}".removesuffix(" samples") for i in chosen]
    for name in ("start", "solver", "sigma_T", "NFE", *names):
        printed.add_column(name, justify="left" if name in ("start", "solver") else "right")
    for row in table["rows"]:
        values = [f"{row['figures'][i]['value']:.4g}" for i in chosen]
        printed.add_row(row["start"], row["solver"], f"{row['sigma']:g}", str(row["nfe"]), *values)
    floors = [first[i]["floor"] for i in chosen]
    printed.add_row("real samples", "floor", "", "", *("-" if x is None else f"{x:.4g}" for x in floors))
    console.print(printed)


def open_subject(
    protocol: Protocol, checkpoint: Path | None, guide: Path | None, vae: Path | None, data: str | None,
    classes: str | None, device: Any,
) -> Subject:  # fmt: skip
    """The network and data that the options name.

    Raises:
        ValueError: no checkpoint or no data.
    """
    from headstart.compare.network import real_subject
    from headstart.io import read_classes, read_dataset

    if checkpoint is None or data is None:
        raise ValueError("recipe: needs --checkpoint and --data (or --latents), or --smoke for a trial without them")
    kept = None if classes is None else read_classes(classes)
    dataset = read_dataset(data, classes=kept, latent_seed=0, progress=True)
    return real_subject(protocol, checkpoint, guide, vae, dataset, device)


def find_maps(names: list[str], subject: Subject, device: Any) -> dict[str, Any]:
    """The feature maps, of pictures.

    Raises:
        ValueError: a map of pictures without a way to make them.
    """
    import torch

    from headstart.compare.network import OnPictures

    maps: dict[str, Any] = {}
    for name in names:
        if name == "pixels":
            maps[name] = None
            continue
        if not subject.decoded:
            raise ValueError(f"--features: {name} takes images: latents need --vae")
        some = subject.data.images[: LEARN if name == "gradient" else 1]
        pictures = torch.from_numpy(subject.decode(some)).permute(0, 3, 1, 2).to(device)
        maps[name] = OnPictures(find_features(name, pictures.float() / 127.5 - 1, device), subject.decode)
    return maps


def reference_of(protocol: Protocol, subject: Subject, images: str | None, classes: str | None, n: int) -> str:
    """What samples are compared with, in words.

    Raises:
        ValueError: images were given where they are not the reference, or too few of them.
    """
    from headstart.io import DataError, read_classes
    from headstart.io.folder import open_members

    if images is None:
        held = "held-out latents" if protocol.latents else "held-out images of the data"
        return f"{held}, decoded by the VAE" if protocol.latents and subject.decoded else held
    if not protocol.latents or not subject.decoded:
        reason = "latents need --vae" if protocol.latents else "the images of --data are the reference"
        raise ValueError(f"--images: are the reference of pictures made from latents; {reason}")
    if not Path(images).exists():
        raise DataError(f"{images}: no such file or folder")
    if Path(images).is_dir() or images.endswith(".zip"):
        found = len(open_members(Path(images), None, None if classes is None else read_classes(classes)))
        if found < n:  # known before any work
            raise DataError(f"--images: must be at least n = {n} images, {images} has {found}")
    return f"images of {images} on feature maps, held-out latents on samples"


def real_features(
    images: str | None, classes: str | None, maps: dict[str, Any], batch: int, device: Any
) -> dict[str, Any]:
    """Features of the true images, where there are any, of the same classes as the latents."""
    from headstart.compare.network import OnPictures, features_of
    from headstart.io import read_classes

    if images is None:
        return {}
    of_pictures = {name: one for name, one in maps.items() if isinstance(one, OnPictures)}
    kept = None if classes is None else read_classes(classes)
    return features_of(images, kept, of_pictures, batch, device, progress=True)


def find_own_device(device: str) -> Any:
    """The device called `device`; of several GPUs, this process's own."""
    where, local = find_device(device), os.environ.get("LOCAL_RANK")
    return find_device(f"cuda:{local}") if local and device in ("auto", "cuda") and where.type == "cuda" else where


@dataclass(frozen=True)
class RecipeRequest:
    """Options of `headstart recipe`."""

    name: Annotated[str, typer.Argument(help=f"One of {', '.join(NAMES)}.")]
    out: Annotated[Path, typer.Option(help="Folder of everything; called again on it, a run goes on.")]
    checkpoint: Annotated[Path | None, typer.Option(help="The network: EDM's or EDM2's file.")] = None
    guide: Annotated[Path | None, typer.Option(help="The network that guides it.")] = None
    vae: Annotated[Path | None, typer.Option(help="Folder of the decoder of latents (diffusers).")] = None
    data: Annotated[str | None, typer.Option("--data", "--latents", help="Images or latents, as `fit` reads.")] = None
    classes: Annotated[str | None, typer.Option(help="Only these: 3,7 or a JSON file with a list.")] = None
    images: Annotated[
        str | None, typer.Option(help="True images of latents, to compare with in place of decoded latents.")
    ] = None
    start: Annotated[str, typer.Option(help="mixture, or tarflow: the paper's flow beside it.")] = "mixture"
    epochs: Annotated[int | None, typer.Option(min=1, help="Most epochs of a TarFlow; default: the paper's.")] = None
    features: Annotated[list[str] | None, typer.Option(help=f"Any of {', '.join(FEATURES)}; again for more.")] = None
    n: Annotated[int, typer.Option(min=2, help="Samples a row and seed; at most half the data.")] = 10_000
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds.")] = 3
    part: Annotated[int, typer.Option(min=1, help="Samples a file.")] = 500
    batch: Annotated[int, typer.Option(min=1, help="Samples at a time.")] = 64
    components: Annotated[int | None, typer.Option(min=1, help="Of the mixture; default: from the data.")] = None
    smoke: Annotated[bool, typer.Option(help="Try the whole path: small random networks, shipped images.")] = False
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto"


@guarded
@spread(RecipeRequest)
def recipe(options: RecipeRequest) -> None:
    """Fit, plan, sample every start at every number of calls, score, draw; torchrun shares the samples out."""
    n, seeds, part, components = options.n, options.seeds, options.part, options.components
    if options.name not in NAMES:
        raise ValueError(f"recipe: must be one of {', '.join(NAMES)}, got {options.name!r}")
    if options.start not in STARTS or (options.epochs is not None and options.start != "tarflow"):
        wanted = f"--start: must be one of {', '.join(STARTS)}, got {options.start!r}"
        raise ValueError(wanted if options.start not in STARTS else "--epochs: is for --start tarflow")
    files = {key: getattr(options, key) for key in FILES}
    given = [f"--{key}" for key, value in files.items() if value is not None]
    if options.smoke and given:
        raise ValueError(f"--smoke: tries the path on networks and data of its own, got {', '.join(given)} too")
    require_folder(options.out)
    from headstart.compare.network import trial, trial_subject
    from headstart.compare.recipe import PROTOCOLS, Job, run_recipe
    from headstart.compare.run import find_ranks

    rank, world = find_ranks()
    where = find_own_device(options.device)
    protocol = PROTOCOLS[options.name]
    if options.smoke:
        protocol, (n, seeds, part, components) = trial(protocol), TRIAL.values()
        subject = trial_subject(protocol, where)
    else:
        subject = open_subject(
            protocol, options.checkpoint, options.guide, options.vae, options.data, options.classes, where
        )
    if options.epochs is not None:
        protocol = replace(protocol, flow=replace(protocol.flow, epochs=options.epochs))
    reference = reference_of(protocol, subject, options.images, options.classes, n)
    maps = find_maps(options.features or (["gradient"] if subject.decoded else []), subject, where)
    settings: dict[str, Any] = {"smoke": options.smoke}
    settings |= {key: None if value is None else str(value) for key, value in files.items()}
    real = partial(real_features, options.images, options.classes, maps, options.batch, where)
    job = Job(
        protocol, subject.denoiser, subject.data, options.out, maps, subject.decode, n, seeds, part, options.batch,
        components, settings, options.start == "tarflow", real, reference,
    )  # fmt: skip
    table = run_recipe(job, rank, world, progress=rank == 0)
    if table is not None:
        show(table)
        if not subject.decoded:
            say("Pictures show the channels of latents side by side; with --vae they are decoded.")
        say(f"wrote {options.out}: start.safetensors, plans, samples, pictures, table.json")
