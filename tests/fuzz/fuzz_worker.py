"""One worker: inputs `first, first + every, ...` up to `total`, a line of JSON before and after each.

Run as `python fuzz_worker.py FIRST EVERY TOTAL SEED` in a folder of its own; a parent watches its clock.
"""

from __future__ import annotations

import json
import random
import resource
import signal
import sys
import time
import warnings
from typing import Any

import fuzz_outcome as outcome
import torch
from fuzz_target import Call, base
from fuzz_value import FUNCTIONS, SCALARS, TENSORS, has_nan, is_finite
from torch import Tensor

from headstart.sampling.edge import NotFinite

MEMORY = 8 * 2**30  # of addresses, most of which torch's libraries take
SECONDS = 30


class TooSlow(BaseException):
    """Not an error that a library would catch."""


def interrupt(*_: Any) -> None:
    raise TooSlow


def spoil(rng: random.Random, given: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Arguments of which one or two are odd, or two are swapped, and what was done."""
    given, names = dict(given), list(given)
    if not names:
        return {}, ["nothing"]
    kind = rng.random()
    if kind < 0.1 and len(names) > 1:
        one, other = rng.sample(names, 2)
        given[one], given[other] = given[other], given[one]
        return given, [f"{one} and {other} swapped"]
    if kind < 0.2:
        name = rng.choice(names)
        given[name] = type(given[name])
        return given, [f"{name} = its class"]
    done = []
    for name in rng.sample(names, min(len(names), 1 if kind < 0.85 else 2)):
        given[name], how = odd(rng, given[name])
        done.append(f"{name} = {how}")
    return given, done


def odd(rng: random.Random, right: Any) -> tuple[Any, str]:
    """An odd value in place of a right one: mostly of its own kind."""
    if isinstance(right, Tensor) and rng.random() < 0.8:
        how = rng.choice(list(TENSORS))
        try:
            return TENSORS[how](right.clone()), how
        except (RuntimeError, TypeError, ValueError, IndexError, NotImplementedError):
            return right[:0], "no rows"
    if callable(right) and not isinstance(right, type) and rng.random() < 0.6:
        how = rng.choice(list(FUNCTIONS))
        return FUNCTIONS[how], how
    if isinstance(right, tuple) and right and rng.random() < 0.5:
        place = rng.randrange(len(right))
        value, how = odd(rng, right[place])
        parts = [*right[:place], value, *right[place + 1 :]]
        spoiled = type(right)(*parts) if hasattr(right, "_fields") else tuple(parts)
        return spoiled, f"with [{place}] {how}"
    if rng.random() < 0.1:
        how = rng.choice(list(TENSORS))
        return TENSORS[how](torch.randn(4, 3)), f"tensor {how}"
    how = rng.choice(list(SCALARS))
    return SCALARS[how](), how


def run(call: Call, rng: random.Random) -> dict[str, Any]:
    """One input."""
    function, right = call
    given, how = spoil(rng, right)
    finite = is_finite(given)
    record: dict[str, Any] = {"how": ", ".join(how)}
    began = time.perf_counter()
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", NotFinite)
            result = function(**given)
        silent = outcome.WARNED if told else outcome.NAN
        record["kind"] = silent if finite and has_nan(result) else outcome.OK
    except TooSlow:
        record["kind"] = outcome.SLOW
    except Exception as error:
        record |= {"kind": outcome.of_error(error), "error": f"{type(error).__name__}: {outcome.short(error)}"}
        record["place"] = outcome.place(error)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    record["seconds"] = round(time.perf_counter() - began, 3)
    return record


def main() -> None:
    first, every, total, seed = map(int, sys.argv[1:5])
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**28, 2**28))
    signal.signal(signal.SIGALRM, interrupt)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    lines, sys.stdout = sys.stdout, sys.stderr
    targets = base()
    names = sorted(targets)
    for index in range(first, total, every):
        name = names[(index // every) % len(names)]
        print(json.dumps({"index": index, "target": name}), file=lines, flush=True)
        rng = random.Random(f"{seed} {index}")
        print(json.dumps({"index": index, "target": name, **run(targets[name], rng)}), file=lines, flush=True)
    print(json.dumps({"end": True}), file=lines, flush=True)


if __name__ == "__main__":
    main()
