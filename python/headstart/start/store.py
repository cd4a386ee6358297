"""Saved starts of every family, read by the name that the file gives."""

from __future__ import annotations

from pathlib import Path

from headstart.io.bound import brief, memory_for
from headstart.start.family import Mixture
from headstart.start.file import read
from headstart.start.flow import Flow
from headstart.start.mixture import GaussianMixture
from headstart.start.student import StudentTMixture
from headstart.start.tarflow import TarFlow

FAMILIES: dict[str, type[Mixture | Flow | TarFlow]] = {
    family.__name__: family for family in (GaussianMixture, StudentTMixture, Flow, TarFlow)
}


def load(path: str | Path) -> Mixture | Flow | TarFlow:
    """The initializer saved at `path`, on the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, foreign, of a later version, of an unknown family, or its tensors are
            missing or disagree in shape.
        ImportError: a `Flow`, and zuko is missing.
    """
    header, tensors = read(path)
    family = header.get("family")
    if not isinstance(family, str) or family not in FAMILIES:
        raise ValueError(f"load: {path} holds the family {brief(family)}, known are {sorted(FAMILIES)}")
    try:
        with memory_for(path):
            return FAMILIES[family].from_file(header, tensors)
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise ValueError(f"load: {path} is damaged: {brief(error, 300)}") from error
