"""SIGTERM as an exception, so that a scheduler's stop saves what Ctrl-C saves and leaves nothing half-written."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT = 128 + signal.SIGTERM  # how a shell reports it


class Terminated(SystemExit):
    """The process was asked to end; left alone, it ends with status 143."""


def _raise(number: int, frame: FrameType | None) -> None:
    raise Terminated(EXIT)


@contextmanager
def terminable() -> Iterator[None]:
    """Inside, SIGTERM raises `Terminated` in place of ending the process on the spot.

    It does nothing where the program has its own handler, and outside the main thread, which alone gets signals.
    """
    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if not ours:
        yield
        return
    signal.signal(signal.SIGTERM, _raise)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
