"""The parts that commands share: names of solvers, denoisers and devices, errors, options as one value."""

from __future__ import annotations

import errno
import functools
import importlib
import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, get_type_hints

import typer
from rich.console import Console

from headstart.argument import require_path
from headstart.io.bound import ran_out
from headstart.io.workspace import EXIT, Terminated, terminable

if TYPE_CHECKING:
    import torch

Options = TypeVar("Options")


def spread(kind: type[Options]) -> Callable[[Callable[[Options], None]], Callable[..., None]]:
    """Makes `command(options)` a command that typer can read: a parameter for each field of `kind`, in their order.

    A field is written as a parameter of a typer command would be: `name: Annotated[str, typer.Option(...)] = default`.
    `guarded` goes above it.

    Args:
        kind: a frozen dataclass, whose annotations can be resolved in its module.
    """
    hints = get_type_hints(kind, include_extras=True)
    parameters = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(kind)  # type: ignore[arg-type]
    ]

    def decorate(command: Callable[[Options], None]) -> Callable[..., None]:
        def run(**given: object) -> None:
            command(kind(**given))

        run.__name__, run.__doc__, run.__module__ = command.__name__, command.__doc__, command.__module__
        run.__annotations__ = {**hints, "return": None}
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return run

    return decorate


P = ParamSpec("P")
R = TypeVar("R")

SOLVERS = {
    "euler": "Euler",
    "ancestral": "Ancestral",
    "ddpm": "DDPM",
    "maruyama": "EulerMaruyama",
    "heun": "Heun",
    "dpmpp2m": "DPMpp2M",
    "dpmpp3m": "DPMpp3M",
    "dpmppsde2m": "DPMppSDE2M",
    "dpmppsde3m": "DPMppSDE3M",
    "unipc": "UniPC",
    "ipndm": "IPNDM",
    "deis": "DEIS",
}
DENOISER = (
    "zoo:fashion, zoo:FILE.safetensors, edm:FILE, diffusers:FOLDER, "
    "or module:attribute of a callable D(x, sigma, **cond)."
)
console = Console()
stderr = Console(stderr=True)


def say(message: str) -> None:
    """One line on standard error, unwrapped and without markup."""
    stderr.print(message, markup=False, highlight=False, soft_wrap=True)


def explain(error: Exception) -> str | None:
    """One sentence for an error of the user's files, values or machine; None: a fault of ours, worth a traceback."""
    if isinstance(error, OSError) and error.errno is not None:
        reason = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{reason}; nothing half-written" if error.errno != errno.ENOENT else f"{where}{reason}"
    if isinstance(error, (ValueError, OSError, ImportError)):
        return str(error)
    if type(error).__name__ == "SafetensorError":
        return f"safetensors: {error}"
    if isinstance(error, MemoryError) and str(error):
        return str(error)  # a reader's, which names the file
    if ran_out(error):
        return "not enough memory; a smaller --batch or fewer --components need less"
    return None


def guarded(command: Callable[P, R]) -> Callable[P, R]:
    """The command with plain endings: exit 1 and one line for a user's error, 130 for Ctrl-C, 143 for SIGTERM."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with terminable():
                return command(*args, **kwargs)
        except Terminated:
            say("terminated, nothing half-written")
            raise typer.Exit(EXIT) from None
        except KeyboardInterrupt:
            say("interrupted, nothing half-written")
            raise typer.Exit(130) from None
        except typer.Exit:
            raise
        except Exception as error:
            message = explain(error)
            if message is None:
                raise
            say(f"error: {' '.join(message.split())}")
            raise typer.Exit(1) from None

    return run


def find_device(name: str) -> torch.device:
    """The device called `name`; `auto` is the GPU where there is one.

    Raises:
        ValueError: a name torch does not know, or a device this machine does not have.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device: cannot use {name!r} here ({str(error).splitlines()[0]})") from None


def find_solver(name: str) -> Any:
    """The solver object called `name` on the command line.

    Raises:
        ValueError: an unknown name.
    """
    from headstart import solver

    if name not in SOLVERS:
        raise ValueError(f"--solver: must be one of {', '.join(SOLVERS)}, got {name!r}")
    return getattr(solver, SOLVERS[name])()


def find_denoiser(name: str, device: torch.device) -> Any:
    """The denoiser called `name`: `zoo:NAME`, `edm:FILE`, `diffusers:FOLDER`, or `module:attribute` that can be called.

    Raises:
        OSError: no such file, or a folder that holds no network of diffusers and its scheduler.
        ValueError: a name of no such form, a file of another kind, a module without that attribute, or an attribute
            that is a class or cannot be called.
        ImportError: no such module.
    """
    from headstart import adapters, zoo

    place, _, attribute = name.partition(":")
    if not place or not attribute:
        raise ValueError(f"--denoiser: must be zoo:NAME, edm:FILE, diffusers:FOLDER or module:attribute, got {name!r}")
    if place == "zoo":
        return zoo.denoiser(attribute, device=device)
    if place == "edm":
        return adapters.edm.load(attribute, device=device)
    if place == "diffusers":
        return adapters.diffusers.load(attribute, device=device)
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # a script beside the user is what `module` usually means
    try:
        found = functools.reduce(getattr, attribute.split("."), importlib.import_module(place))
    except ModuleNotFoundError as error:
        raise ImportError(f"--denoiser: no module named {error.name!r}") from None
    except AttributeError:
        raise ValueError(f"--denoiser: module {place} has no {attribute}") from None
    if isinstance(found, type):
        raise ValueError(
            f"--denoiser: {name} is a class; name an object of it: write net = {found.__name__}(...) in {place}.py and "
            f"give {place}:net"
        )
    if not callable(found):
        raise ValueError(f"--denoiser: {name} must be a callable D(x, sigma, **cond), got {type(found).__name__}")
    return found


def require_seed(seed: int) -> None:
    """Fails before any work where the noise has no such seed.

    Raises:
        ValueError: a seed outside [0, 2^64).
    """
    if not 0 <= seed < 2**64:
        raise ValueError(f"--seed: must be in [0, 2^64), got {seed}")


def require_file(out: Path, option: str) -> None:
    """Fails before any work where `out`, given as `option`, could not become a file.

    Raises:
        ValueError: `out` is a folder.
        OSError: its folder could not be made or written to.
    """
    out = require_path(option, out)
    if out.is_dir():
        raise ValueError(f"{out}: is a folder; {option} names a file")
    require_folder(out.parent)


def require_folder(out: Path) -> None:
    """Fails before any work where `out` could not become a folder of results.

    Raises:
        OSError: `out` is a file, or it (or its nearest existing parent) cannot be written to.
    """
    out = require_path("--out", out)
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "is a file, not a folder", str(out))
    nearest = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "cannot be written to", str(nearest))
