"""Commands of many options: one frozen dataclass of annotated fields stands for the arguments of a command."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import TypeVar, get_type_hints

Options = TypeVar("Options")


def spread(kind: type[Options]) -> Callable[[Callable[[Options], None]], Callable[..., None]]:
    """Makes `command(options)` a command that typer can read: a parameter for each field of `kind`, in their order.

    A field is written as a parameter of a typer command would be: `name: Annotated[str, typer.Option(...)] = default`.
    `guarded` goes above it.

    Args:
        kind: a frozen dataclass, whose annotations can be resolved in its module.
    """
    hints = get_type_hints(kind, include_extras=True)
    parameters = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(kind)  # type: ignore[arg-type]
    ]

    def decorate(command: Callable[[Options], None]) -> Callable[..., None]:
        def run(**given: object) -> None:
            command(kind(**given))

        run.__name__, run.__doc__, run.__module__ = command.__name__, command.__doc__, command.__module__
        run.__annotations__ = {**hints, "return": None}
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return run

    return decorate
