"""`headstart convert`: a pretrained network's pickle as a safetensors file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headstart.cli.common import console, guarded, require_file


@guarded
def convert(
    source: Annotated[Path, typer.Option("--in", help="Network pickle of EDM or EDM2.")],
    out: Annotated[Path, typer.Option(help="File to write, such as network.safetensors.")],
) -> None:
    """Read a network of EDM or EDM2 without running code of its file, and write it as safetensors."""
    require_file(out, "--out")
    from headstart.adapters import edm

    edm.convert(source, out)
    console.print(f"wrote {out}", markup=False, highlight=False, soft_wrap=True)
