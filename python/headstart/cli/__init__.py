"""The command line, a file a command."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from headstart.cli.bench import bench
from headstart.cli.convert import convert
from headstart.cli.demo import demo
from headstart.cli.doctor import doctor
from headstart.cli.evaluate import evaluate
from headstart.cli.fit import fit
from headstart.cli.plan import plan
from headstart.cli.recipe import recipe
from headstart.cli.sample import sample
from headstart.cli.tune import tune

app = typer.Typer(
    name="headstart",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def show_version(asked: bool) -> None:
    """Prints the version and ends, where it is asked for."""
    if asked:
        typer.echo(f"headstart {version('headstart')}")
        raise typer.Exit


@app.callback()
def root(
    asked: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Learn where the reverse diffusion should start, and run the short way home fast."""


for command in (doctor, demo, fit, plan, tune, sample, recipe, convert):
    app.command()(command)
app.command("eval")(evaluate)
app.add_typer(bench, name="bench")

__all__ = ["app"]
