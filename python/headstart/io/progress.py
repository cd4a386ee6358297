"""The progress bars of long calls: on standard error, gone when done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from headstart.argument import require_flag

if TYPE_CHECKING:
    from rich.progress import Progress


def bars() -> Progress:
    """A rich progress display."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)


def _nothing(description: str = "") -> None:
    pass


@contextmanager
def track(title: str, total: int, show: bool) -> Iterator[Callable[..., None]]:
    """A function that moves a bar of `total` steps by one and may retitle it; it does nothing unless `show`."""
    if not require_flag(title, "progress", show):
        yield _nothing
        return
    with bars() as bar:
        task = bar.add_task(title, total=total)

        def advance(description: str = "") -> None:
            bar.update(task, advance=1, description=description or title)

        yield advance
