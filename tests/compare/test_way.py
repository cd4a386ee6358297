"""A solver to compare with is one row: it is then in every table, and makes the calls that it is said to make."""

from __future__ import annotations

from typing import Any

import pytest

from headstart.bench.report import drawn_groups
from headstart.compare.demo import demo_ways
from headstart.compare.quality import NFE, STARTS, TELLING, groups, ways
from headstart.compare.recipe import PROTOCOLS
from headstart.compare.table import NAMES, quality_table
from headstart.compare.way import METHODS, Method, Way, exists
from headstart.solver import Euler


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> str:
    """A new row."""
    monkeypatch.setitem(METHODS, "Euler", Method(Euler(), "Euler's"))
    return "Euler"


def solvers(found: list[Way]) -> set[str]:
    return {way.solver for way in found}


def test_a_new_row_is_in_every_table(peer: str) -> None:
    assert peer in solvers(demo_ways())
    assert all(peer in solvers(protocol.ways()) for protocol in PROTOCOLS.values())
    assert all(peer in solvers(protocol.flow_ways(conditional=True)) for protocol in PROTOCOLS.values())
    found = [way for way in ways(NFE, STARTS, [peer]) if way.solver == peer]
    assert {way.start for way in found} == {"classic", "learned", "transport", "empirical", "uninformed"}
    assert {way.grid for way in found if way.start == "classic"} == {"log", "rho 7"}
    assert ("classic", peer, "log") in drawn_groups()
    about: dict[str, Any] = {"start": "learned", "solver": peer, "grid": "log", "nfe": 5, "seed": 0, "fd": 7.25}
    held = {"rows": [about], "found": {"floor": {"fd": 1.0}}, "settings": {"features": "lite0", "feature_size": 112}}
    assert [NAMES["learned"], peer, "log", "7.250"] in quality_table(held).rows


def test_without_it_the_tables_are_the_published_ones() -> None:
    assert groups() == list(TELLING)
    assert solvers(demo_ways()) == {"Heun", "2M", "plan", "none"}


def test_a_way_that_makes_other_calls_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "Euler", Method(Euler(), "Euler's", a_step=2))
    with pytest.raises(ValueError, match="compare: learned-Euler-log-7 must make 7 calls a sample, makes 4"):
        Way("learned", "Euler", "log", 7).levels(3.0)
    assert (exists("Heun", 6), exists("Heun", 7), exists("3M", 2), exists("plan", 14)) == (False, True, False, False)
