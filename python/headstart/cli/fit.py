"""`headstart fit`: learn the start once, on clean data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from headstart.cli.common import console, find_device, guarded, require_file, require_seed, say, spread

if TYPE_CHECKING:
    from torch import Tensor


MIXTURE, FLOW = ("components", "rank", "by_class"), ("sigma", "noise", "epochs", "checkpoint")
OWN = {"gmm": MIXTURE, "student": MIXTURE, "flow": FLOW, "tarflow": FLOW}


@dataclass(frozen=True)
class FitRequest:
    """Options of `headstart fit`."""

    data: Annotated[
        str,
        typer.Argument(
            help="Folder or zip of images or EDM2 latents, .npy, .npz, .pt, .safetensors, idx, zoo:fashion."
        ),
    ]
    out: Annotated[Path, typer.Option(help="File to write (safetensors).")] = Path("start.safetensors")
    family: Annotated[str, typer.Option(help=f"One of {', '.join(OWN)}.")] = "gmm"
    components: Annotated[
        str | None, typer.Option(help="Mixture components, or auto: by held-out likelihood; default: from the data.")
    ] = None
    rank: Annotated[int | None, typer.Option(min=1, help="Rank of a component; default: from the data.")] = None
    sigma: Annotated[float | None, typer.Option(help="Noise level that a flow is trained at.")] = None
    noise: Annotated[str | None, typer.Option(help="Of a flow: fixed or dynamic; default: the family's.")] = None
    epochs: Annotated[int | None, typer.Option(min=1, help="Most epochs of a flow; default: the family's.")] = None
    checkpoint: Annotated[Path | None, typer.Option(help="File that a flow's training resumes from.")] = None
    seed: Annotated[int, typer.Option(min=0, help="Seed of the fit.")] = 0
    max_iter: Annotated[int, typer.Option(min=1, help="Most passes of EM.")] = 100
    size: Annotated[int | None, typer.Option(min=1, help="Crop and resize images to this side.")] = None
    labels: Annotated[bool, typer.Option(help="Learn classes where the data have labels.")] = True
    by_class: Annotated[
        bool | None, typer.Option(help="Components of each class by itself; default: from 1,000 points a class on.")
    ] = None
    label: Annotated[int | None, typer.Option(min=0, help="Fit on this class alone.")] = None
    classes: Annotated[str | None, typer.Option(help="Fit on these: 3,7 or a JSON file with a list.")] = None
    latent_seed: Annotated[
        int | None, typer.Option(min=0, help="Draw EDM2 latents around their means with this seed; default: means.")
    ] = None
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto"


def fit_mixture(
    data: Tensor, labels: Tensor | None, components: int | Literal["auto"] | None, options: FitRequest
) -> Any:
    """A mixture of the clean data, Gaussian or Student-t, for every sigma."""
    from headstart.start import LowRank, StudentTMixture
    from headstart.start import fit as fit_default

    given: dict[str, Any] = {
        "components": components,
        "covariance": None if options.rank is None else LowRank(options.rank),
        "seed": options.seed,
        "max_iter": options.max_iter,
        "labels": labels,
        "by_class": options.by_class,
        "progress": True,
    }
    return fit_default(data, **given) if options.family == "gmm" else StudentTMixture.fit(data, **given)


def fit_flow(data: Tensor, labels: Tensor | None, options: FitRequest) -> Any:
    """A flow of the data noised at one sigma; what was not given is left to the family's defaults.

    Raises:
        ValueError: no sigma, or a noising regime of another name.
    """
    from headstart.fitting import Dynamic, Fixed
    from headstart.start import Flow, TarFlow

    if options.sigma is None:
        raise ValueError("--sigma: a flow is trained at one noise level, and needs it; a mixture does not")
    noises = {"fixed": Fixed, "dynamic": Dynamic}
    if options.noise is not None and options.noise not in noises:
        raise ValueError(f"--noise: must be one of {', '.join(noises)}, got {options.noise!r}")
    given = {"noise": None if options.noise is None else noises[options.noise](), "epochs": options.epochs}
    held: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    shared: dict[str, Any] = {"seed": options.seed, "checkpoint": options.checkpoint, "progress": True}
    family = Flow if options.family == "flow" else TarFlow
    return family.fit(data, options.sigma, labels=labels, **shared, **held)


def require_family(options: FitRequest) -> None:
    """Fails before any work on an unknown family, or an option that is another family's.

    Raises:
        ValueError: an unknown family, or an option that it does not have.
    """
    family = options.family
    if family not in OWN:
        raise ValueError(f"--family: must be one of {', '.join(OWN)}, got {family!r}")
    for name in {name for names in OWN.values() for name in names} - set(OWN[family]):
        if getattr(options, name) is not None:
            owners = ", ".join(other for other in OWN if name in OWN[other])
            raise ValueError(f"--{name.replace('_', '-')}: is for {owners}, not for --family {family}")
    if options.checkpoint is not None:
        require_file(options.checkpoint, "--checkpoint")


def read_count(text: str | None) -> int | Literal["auto"] | None:
    """The number of components asked for.

    Raises:
        ValueError: neither a number from 1 on nor "auto".
    """
    if text is None or text == "auto":
        return text  # type: ignore[return-value]
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"--components: must be a number from 1 on, or auto, got {text!r}")
    return int(text)


@guarded
@spread(FitRequest)
def fit(options: FitRequest) -> None:
    """Fit a start to DATA (a mixture, or a flow at one sigma) and write it to one safetensors file."""
    require_file(options.out, "--out")
    require_seed(options.seed)
    require_family(options)
    components = read_count(options.components)
    from headstart.io import read_classes, read_dataset

    where = find_device(options.device)
    kept = None if options.classes is None else read_classes(options.classes)
    dataset = read_dataset(options.data, options.size, kept, options.latent_seed, progress=True)
    if options.label is not None:
        dataset = dataset.only(options.label)
    known = dataset.labels if options.labels else None
    shape, n = tuple(dataset.images.shape[1:]), len(dataset.images)
    classes = "" if known is None else f", {len(known.unique())} classes"
    say(f"{n} samples of shape {'x'.join(map(str, shape))}{classes}")
    data, labels = dataset.images.to(where), None if known is None else known.to(where)
    mixture = OWN[options.family] == MIXTURE
    start = fit_mixture(data, labels, components, options) if mixture else fit_flow(data, labels, options)
    start.save(options.out)
    kind = f"{len(start.weight)} components" if mixture else f"{options.family} at sigma {start.sigma:g}"
    console.print(f"wrote {options.out}: {kind}", markup=False, highlight=False, soft_wrap=True)
    for tried in start.report.candidates if mixture else ():
        score = tried.log_likelihood / math.prod(shape)
        say(f"tried {tried.components} components, {tried.covariance}: {score:.4f} nats per dimension, held out")
    if start.report is not None and start.report.heldout_log_likelihood is not None:
        likelihood = start.report.heldout_log_likelihood / math.prod(shape)
        console.print(f"held-out log-likelihood {likelihood:.4f} nats per dimension, {start.report.seconds:.1f} s")
