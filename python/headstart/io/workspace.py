"""Where files are made before they appear: a folder of one's own, locked while it is used, beside the target.

A process that is killed leaves its workspace behind; the lock goes with the process, so the next one that writes to the
same folder sees that nobody works there any more and removes it. The umask is the kernel's business: it is a property
of the whole process, and asking for it opens the files of other threads.

SIGTERM as an exception, so that a scheduler's stop saves what Ctrl-C saves and leaves nothing half-written.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

try:
    import fcntl
except ImportError:  # not on Windows, where leftovers stay
    fcntl = None  # type: ignore[assignment]

PREFIX, SUFFIX = ".headstart-", ".part"
SYSTEM = ("/dev/", "/proc/")  # there a name is a stream, whatever is behind it now


@contextmanager
def workspace(parent: Path, shown: Path) -> Iterator[Path]:
    """A new folder in `parent` with a name that nobody can guess, for this process alone; it is removed at the end.

    Args:
        parent: where it lies.
        shown: what errors about files in it name.

    Raises:
        OSError: it cannot be made.
    """
    clean(parent)
    folder, lock = claim(parent)
    try:
        yield folder
    except OSError as error:
        if error.filename is not None and os.fsdecode(error.filename).startswith(str(folder)):
            error.filename = str(shown)  # the user knows no workspace
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def claim(parent: Path) -> tuple[Path, int | None]:
    """A new folder and its lock, None where the file system has none."""
    while True:
        try:
            folder = Path(tempfile.mkdtemp(prefix=PREFIX, suffix=SUFFIX, dir=parent))
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(parent)) from None
        try:
            lock = take(folder)
        except BlockingIOError:  # another process took it for a leftover, and is about to remove it
            continue
        except OSError:
            if folder.exists():
                return folder, None
            continue
        if folder.exists():
            return folder, lock
        if lock is not None:
            os.close(lock)


def take(folder: Path) -> int | None:
    """The lock of a folder.

    Raises:
        BlockingIOError: another holds it.
        OSError: the file system has no locks, or the folder is gone.
    """
    if fcntl is None:
        return None
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise
    return lock


def clean(parent: Path) -> None:
    """Removes the workspaces in `parent` whose processes are gone."""
    if fcntl is None:
        return
    for folder in parent.glob(f"{PREFIX}*{SUFFIX}"):
        with suppress(OSError):
            if folder.lstat().st_uid != os.geteuid():
                continue
            lock = take(folder)
            shutil.rmtree(folder, ignore_errors=True)
            if lock is not None:
                os.close(lock)


def make_folders(folder: Path) -> None:
    """The folder and those above it, where missing.

    Raises:
        OSError: one of them cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)


def blank(path: Path) -> int:
    """Makes an empty file and returns the mode that the kernel gave it, which knows the process's mask.

    Raises:
        OSError: it cannot be made, or exists.
    """
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        return os.fstat(descriptor).st_mode
    finally:
        os.close(descriptor)


def is_stream(path: Path) -> bool:
    """Whether what is at `path` (or behind it, where it is a link) cannot be replaced by a file: a pipe or a device."""
    if str(path).startswith(SYSTEM) and path.exists():
        return True
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def pour(path: Path, save: Callable[[Path], object]) -> None:
    """Makes the whole content in the system's temporary folder and writes it into the pipe or device at `path`.

    Raises:
        OSError: it is a socket, a pipe that nobody reads, or cannot be written to.
    """
    with workspace(Path(tempfile.gettempdir()), path) as folder:
        # A pipe that nobody reads fails here, before the work, in place of waiting for ever.
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            reason = "is a pipe or socket that nobody reads" if error.errno == errno.ENXIO else error.strerror
            raise OSError(error.errno, reason, str(path)) from None
        os.set_blocking(descriptor, True)
        try:
            with os.fdopen(descriptor, "wb") as sink:
                temporary = folder / f"new{path.suffix}"
                save(temporary)
                with temporary.open("rb") as content:
                    shutil.copyfileobj(content, sink)
        except OSError as error:
            error.filename = str(path)
            raise


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
