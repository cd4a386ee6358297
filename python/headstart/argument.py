"""The checks of arguments that every room shares: numbers, flags and paths, refused in one form. Imports no torch."""

from __future__ import annotations

import math
import os
from numbers import Real
from pathlib import Path
from typing import Any

REAL = ("float", "int")  # in the name of a dtype whose 0-dim arrays are numbers


def shown(value: object, most: int = 80) -> str:
    """A value in one short line: numbers, texts, None and classes as they are written, the type of anything else."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, int) and value.bit_length() > 256:
        return f"an integer of {value.bit_length()} bits"
    if not isinstance(value, (str, bytes, bool, int, float, complex, type(None))):
        return type(value).__name__
    text = repr(value)
    return text if len(text) <= most else text[:most] + "..."


def require_number(op: str, name: str, value: Any, wanted: str = "a number") -> float:
    """A real number of Python or numpy, or a 0-dim array or tensor of one, as Python's float.

    Integers beyond every float are infinite. Truth values, texts, complex numbers and decimals are no numbers.

    Args:
        op, name: what the error names.
        value: what was given.
        wanted: the range that the caller checks next, such as "a number in [0, 1]".

    Raises:
        TypeError: it is none.
    """
    plain = type(value) in (float, int)  # a compiler's symbols are of these types too, and have no other attributes
    kind = "" if plain else str(getattr(value, "dtype", "")).removeprefix("torch.").lstrip("b")  # no truth values
    array = not plain and getattr(value, "shape", None) == () and kind.removeprefix("u").startswith(REAL)
    if plain or array or (isinstance(value, Real) and not isinstance(value, bool)):
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
        except (TypeError, ValueError, RuntimeError):  # no memory, or a tracer's
            pass
    raise TypeError(f"{op}: {name} must be {wanted}, got {shown(value)}")


def require_flag(op: str, name: str, value: Any) -> bool:
    """What Python takes for true or false, as a bool.

    Raises:
        TypeError: it is neither, such as an array of several values.
    """
    if value is True or value is False:
        return value
    try:
        return bool(value)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{op}: {name} must be True or False, got {shown(value)}") from None


def require_path(op: str, value: Any, name: str = "path") -> Path:
    """A path as the system takes it: bytes decoded, a leading `~` replaced by the home folder.

    Raises:
        TypeError: neither text, bytes nor an os.PathLike.
        ValueError: with a null character, which no system's names have.
    """
    try:
        text = os.fsdecode(value) if not isinstance(value, type) else None
    except (TypeError, ValueError):
        text = None
    if text is None:
        raise TypeError(f"{op}: {name} must be a str or os.PathLike, got {shown(value)}")
    if "\0" in text:
        raise ValueError(f"{op}: {name} must name a file or folder, got {shown(value)}")
    found = Path(text)
    try:
        return found.expanduser()
    except RuntimeError:  # no such user
        return found
