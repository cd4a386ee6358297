"""Keyword arguments that several functions share, as one frozen value.

A function of many options takes `**options: Unpack[Keywords]` (a `TypedDict`, so that type checkers know every name)
and turns them into a frozen dataclass of the same fields, which holds the defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

Options = TypeVar("Options")


def gather(op: str, kind: type[Options], given: Mapping[str, Any]) -> Options:
    """The options of `kind` with the values given, defaults elsewhere.

    Args:
        op: the function that was called, for the message.
        kind: a dataclass.
        given: keyword arguments.

    Raises:
        TypeError: a keyword that `kind` has no field for.
    """
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    for name in given:
        if name not in known:
            raise TypeError(f"{op}: got an unexpected keyword argument {name!r}, known are {', '.join(known)}")
    return kind(**given)
