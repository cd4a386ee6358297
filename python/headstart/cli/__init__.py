"""The command line, a file a command."""

from __future__ import annotations

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
    help="Learn where the reverse diffusion should start, and run the short way home fast.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (doctor, demo, fit, plan, tune, sample, recipe, convert):
    app.command()(command)
app.command("eval")(evaluate)
app.add_typer(bench, name="bench")

__all__ = ["app"]
