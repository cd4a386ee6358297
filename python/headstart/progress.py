"""The progress bar of long calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


def _nothing(description: str = "") -> None:
    pass


@contextmanager
def track(title: str, total: int, show: bool) -> Iterator[Callable[..., None]]:
    """A function that moves a bar of `total` steps by one and may retitle it; it does nothing unless `show`."""
    if not show:
        yield _nothing
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
    with Progress(*columns) as bar:
        task = bar.add_task(title, total=total)

        def advance(description: str = "") -> None:
            bar.update(task, advance=1, description=description or title)

        yield advance
