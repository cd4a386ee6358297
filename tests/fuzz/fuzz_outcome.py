"""What became of one input."""

from __future__ import annotations

import linecache
import re
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

import headstart

ROOT = str(Path(headstart.__file__).parent)
OK, NAMED, RAW, NAN, MEMORY, SLOW, CRASH = "ok", "named", "raw", "silent NaN", "memory", "hang", "crash"
WARNED = "warned"  # a result with NaN of finite input, whose samples a warning named
KINDS = (OK, WARNED, NAMED, RAW, NAN, MEMORY, SLOW, CRASH)
FORM = re.compile(r"^[^\n:]{1,200}(: | needs )")  # `op: argument must be ...`, `path: not a ...`, `op needs the extra`
NO_ROOM = re.compile(r"allocate|out of memory|MemoryError|Storage size calculation overflowed")


def of_error(error: BaseException) -> str:
    """Named: raised on purpose in this package, in its form, or by Python for arguments that do not fit a signature."""
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and NO_ROOM.search(str(error))):
        return MEMORY
    if isinstance(error, OSError) and error.filename is not None:  # the system's own words, with the file's name
        return NAMED
    if re.fullmatch(r".* is not a valid \w+", str(error), re.DOTALL):  # an enumeration's own words
        return NAMED
    last = innermost(error.__traceback__)
    if last is None:
        return RAW
    file, line = last
    raised = linecache.getline(file, line).strip().startswith("raise")
    if file.startswith(ROOT) and raised and FORM.match(str(error)):
        return NAMED
    return RAW


def innermost(trace: TracebackType | None) -> tuple[str, int] | None:
    """Where an error was raised: file and line."""
    frames = traceback.extract_tb(trace)
    return (frames[-1].filename, frames[-1].lineno or 0) if frames else None


def place(error: BaseException) -> str:
    """The innermost line of this package on the way to an error."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(ROOT)]
    return f"{frames[-1].filename.removeprefix(ROOT)}:{frames[-1].lineno}" if frames else "outside"


def short(value: Any) -> str:
    """One line of a message."""
    return " ".join(str(value).split())[:160]
