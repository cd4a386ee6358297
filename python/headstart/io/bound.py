"""What a reader may take: regular files only, and no more memory than there is.

Every reader of the package opens files with `open_regular` and asks `require_memory` before it allocates what a file
claims to hold, so that a few bytes cannot take the machine's memory and a pipe cannot hang a program.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

MAX_TEXT_BYTES = 2**26  # of a JSON text; ImageNet's labels take 50 MB
CHUNK = 2**20
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")  # as torch's allocators say it
KINDS = {
    stat.S_IFIFO: "a pipe (FIFO)", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}  # fmt: skip


class DataError(ValueError):
    """A file or data set that cannot be read; the message is one sentence that names the file."""


def kind_of(mode: int) -> str | None:
    """What a path with this `st_mode` is, in words; None: a regular file."""
    return None if stat.S_ISREG(mode) else KINDS.get(stat.S_IFMT(mode), "no regular file")


def open_regular(path: Path) -> BinaryIO:
    """The file at `path` for reading; links are followed.

    Raises:
        FileNotFoundError: there is none, or only a link to nothing.
        DataError: it is a folder, pipe, socket or device: they have no end, or no content.
        OSError: it cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as error:
        special = None if error.filename is None else special_kind(path)
        if special is not None:  # a socket cannot be opened at all
            raise DataError(f"{path}: is {special}; only regular files are read") from None
        raise
    special = kind_of(os.fstat(descriptor).st_mode)
    if special is not None:
        os.close(descriptor)
        raise DataError(f"{path}: is {special}; only regular files are read")
    return cast(BinaryIO, os.fdopen(descriptor, "rb"))


def special_kind(path: Path) -> str | None:
    """What there is at `path` if it is not a regular file, in words."""
    try:
        return kind_of(os.stat(path).st_mode)
    except (OSError, ValueError):
        return None


def size_of(file: BinaryIO) -> int:
    """Bytes of an open regular file."""
    return os.fstat(file.fileno()).st_size


def available() -> int:
    """Bytes of memory this process may still take: the machine's, or less where it is limited."""
    found = []
    own = numbers(Path("/proc/self/status"))
    machine = numbers(Path("/proc/meminfo")).get("MemAvailable")
    if machine is not None:
        found.append(1024 * machine)
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            found.append(int(Path(file).read_text()) - 1024 * own.get("VmRSS", 0))
        except (OSError, ValueError):  # no such limit, or "max"
            continue
    try:
        import resource
    except ImportError:  # not on Windows
        return max(0, min(found, default=2**34))
    for limit, name in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        soft = resource.getrlimit(limit)[0]
        if soft != resource.RLIM_INFINITY:
            found.append(soft - 1024 * own.get(name, 0))
    return max(0, min(found, default=2**34))


def numbers(path: Path) -> dict[str, int]:
    """The `Name: number ...` lines of a file of the system; none where there is no such file."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {line[0].rstrip(":"): int(line[1]) for line in lines if len(line) > 1 and line[1].isdigit()}


def require_memory(wanted: int, name: object) -> None:
    """Refuses to read what does not fit into memory.

    Args:
        wanted: bytes that reading takes.
        name: what the error calls the file.

    Raises:
        DataError: more than is available.
    """
    if wanted < CHUNK:
        return
    there = available()
    if wanted > there:
        raise DataError(f"{name}: takes {wanted / 2**30:,.2f} GiB of memory, {there / 2**30:,.2f} GiB are free")


def read_stream(stream: Any, most: int, name: object) -> bytes:
    """All of a stream that may be compressed, without trust in the size it claims.

    Raises:
        DataError: it holds more than `most` bytes.
    """
    parts, total = [], 0
    while part := stream.read(CHUNK):
        total += len(part)
        if total > most:
            raise DataError(f"{name}: holds more than {most:,} bytes")
        parts.append(part)
    return b"".join(parts)


def read_bytes(path: Path, most: int | None = None) -> bytes:
    """The content of a regular file of at most `most` bytes; None: of what fits into memory.

    Raises:
        DataError: no regular file, or a longer one.
        OSError: it cannot be read.
    """
    with open_regular(path) as file:
        size = size_of(file)
        if most is not None and size > most:
            raise DataError(f"{path}: holds {size:,} bytes, at most {most:,} are read")
        require_memory(size, path)
        return file.read()


def parse_json(raw: bytes | str, name: object) -> Any:
    """The value of a JSON text.

    Raises:
        DataError: no JSON, or one that is nested too deeply or has numbers of thousands of digits.
    """
    if len(raw) > MAX_TEXT_BYTES:
        raise DataError(f"{name}: holds {len(raw):,} bytes of JSON, at most {MAX_TEXT_BYTES:,} are read")
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else brief(error)
        raise DataError(f"{name} is truncated or no JSON text ({reason})") from None


def brief(value: object, most: int = 100) -> str:
    """A value in one short line, whatever it holds: errors are for reading.

    Texts and errors are cut, numbers too; of containers and strange objects the type is named, for writing them out can
    take for ever.
    """
    if isinstance(value, BaseException):
        text = " ".join(str(value)[: 4 * most].split()) or type(value).__name__
    elif isinstance(value, str):
        text = repr(value[: most + 1])
    elif isinstance(value, (bool, float, type(None))) or (isinstance(value, int) and value.bit_length() < 256):
        text = repr(value)
    else:
        text = f"a {type(value).__name__}"
    return text if len(text) <= most + 2 else text[:most] + "..."


def ran_out(error: BaseException) -> bool:
    """Whether an error says that there was not enough memory."""
    told = isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in OUT_OF_MEMORY)
    return told or isinstance(error, MemoryError)


@contextmanager
def memory_for(name: object) -> Iterator[None]:
    """Names the file whose reading runs out of memory, which says nothing against the file.

    Raises:
        MemoryError: in place of one, or of torch's error for the same.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise
        raise MemoryError(f"{name}: not enough memory to read it") from None
