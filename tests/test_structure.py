"""The order of the house: rooms import downwards, files form no circle, a name is used once, functions are narrow."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import get_type_hints

import pytest

import headstart
from headstart.diagnostics import initialization
from headstart.io.keyword import gather
from headstart.planning import planner
from headstart.sampling import sampler
from headstart.start import learn as option

ROOT = Path(headstart.__file__).parent
ROOMS = (  # from the top: a room imports itself and rooms after it
    "__main__",
    "cli",
    "bench",
    "compare",
    "adapters",
    "initializer",
    "planning",
    "diagnostics",
    "sampling",
    "start",
    "fitting",
    "solver",
    "metrics",
    "io",
    "zoo",
    "guidance",
    "denoiser",
    "ops",
    "argument",
)
MAX_FILES, MAX_PARAMETERS = 150, 8
WIDE = {"sampling/_sample.py:sample"}  # the one function of many parameters


def name_of(path: Path) -> str:
    """`headstart.start.flow` of `start/flow.py`, the package's own name of its `__init__.py`."""
    return ".".join(("headstart", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")


COMPILED = "headstart._core"
FILES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}


def place_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(path: Path) -> Iterator[str]:
    """All that a file imports of the package: within functions and for type checkers too, the modules of names."""
    for node in ast.walk(parse(path)):
        found: list[str] = []
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{place_of(path)}:{node.lineno} imports by a relative name"
            module = node.module or ""
            known = {*FILES, COMPILED}
            found = [one if one in known else module for one in (f"{module}.{alias.name}" for alias in node.names)]
        yield from (name for name in found if name.split(".")[0] == "headstart")


def room_of(name: str) -> str:
    return [*name.split("."), ""][1]


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(parse(path)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def width(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return len(node.args.posonlyargs) + len(node.args.args) + len(node.args.kwonlyargs)


def test_every_file_has_a_room() -> None:
    assert {room_of(name) for name in FILES} - {"", "_core"} <= set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_downwards(room: str) -> None:
    higher = set(ROOMS[: ROOMS.index(room)])
    upwards = {
        f"{place_of(path)} imports {name}"
        for path in (path for one, path in FILES.items() if room_of(one) == room)
        for name in imports(path)
        if room_of(name) in higher
    }
    assert not upwards


def test_files_form_no_circle() -> None:
    """A file's own package is no import of its: it is loaded before the file in any case."""
    graph = {
        name: {other for other in imports(path) if other in FILES and not f"{name}.".startswith(f"{other}.")}
        for name, path in FILES.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' -> '.join(error.args[1])}")


def test_nothing_inside_imports_the_whole_package() -> None:
    whole = [place_of(path) for path in FILES.values() if "headstart" in imports(path)]
    assert not whole


def test_no_class_name_is_used_twice() -> None:
    names = Counter(
        node.name for path in FILES.values() for node in ast.walk(parse(path)) if isinstance(node, ast.ClassDef)
    )
    assert not [name for name, count in names.items() if count > 1]


def test_no_function_is_wide() -> None:
    wide = {
        f"{place_of(path)}:{node.name}"
        for path in FILES.values()
        for node in functions(path)
        if width(node) > MAX_PARAMETERS
    }
    assert wide == WIDE


def test_files_are_few() -> None:
    assert len(FILES) <= MAX_FILES


def test_every_name_of_the_front_page_is_found_where_it_says() -> None:
    """The lazy table, the imports for type checkers and `__all__` name the same things."""
    said: dict[str, set[str]] = {}
    for node in ast.walk(parse(ROOT / "__init__.py")):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("headstart."):
            said.setdefault(str(node.module), set()).update(alias.name for alias in node.names)
    assert said.pop("headstart.adapters") == {"diffusers"}
    assert {place: set(names) for place, names in headstart.PLACES.items()} == said
    names = {name for listed in headstart.PLACES.values() for name in listed}
    assert names | {"adapters", "initializer", "metrics", "ops", "zoo"} == set(headstart.__all__)
    for place, listed in headstart.PLACES.items():
        module = importlib.import_module(place)
        assert all(getattr(headstart, name) is getattr(module, name) for name in listed)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = headstart.nothing


@pytest.mark.parametrize(
    ("keywords", "options"),
    [
        (option.MixtureKeywords, option.MixtureOptions),
        (option.StudentKeywords, option.StudentOptions),
        (option.FlowKeywords, option.FlowOptions),
        (option.TarFlowKeywords, option.TarFlowOptions),
        (initialization.ErrorKeywords, initialization.ErrorOptions),
        (planner.PlanKeywords, planner.PlanOptions),
        (sampler.SamplerKeywords, sampler.SamplerOptions),
    ],
)
def test_keywords_are_the_fields_of_their_options(keywords: type, options: type) -> None:
    assert get_type_hints(keywords) == get_type_hints(options)
    with pytest.raises(
        TypeError, match=f"op: got an unexpected keyword argument 'odd', known are {fields(options)[0].name}"
    ):
        gather("op", options, {"odd": 1})


def test_an_import_of_the_package_brings_nothing_else() -> None:
    """Its cost beside torch's own is that of one small file: rooms wait until they are asked for."""
    code = (
        "import sys, headstart; print(*(name for name in sys.modules if name.split('.')[0] in ('headstart', 'torch')))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert loaded == ["headstart"]


def test_optional_libraries_wait_until_they_are_used() -> None:
    """Naming the adapters imports them alone: what they adapt comes with the first network or file."""
    code = "import sys, headstart as hs; hs.diffusers.denoiser; hs.adapters.kdiffusion.model; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "headstart.adapters.diffusers" in loaded
    assert not {"diffusers", "k_diffusion", "matplotlib", "transformers", "zuko"} & set(loaded)


def test_names_in_pyproject_can_be_imported() -> None:
    """A move would leave a dotted name or a path behind without a word."""
    path = Path(__file__).parent.parent / "pyproject.toml"
    if not path.exists():
        pytest.skip("pyproject.toml is not beside the tests")
    text = path.read_text()
    names = re.findall(r'"(headstart(?:\.\w+)+)(?::(\w+))?"', text)
    assert len(names) >= 5
    for dotted, attribute in names:
        place, _, name = dotted.rpartition(".")
        if attribute:
            place, name = dotted, attribute
        assert hasattr(importlib.import_module(place), name), dotted
    for listed in re.findall(r"headstart/[\w/*.]+", text):
        assert list(ROOT.glob(listed.removeprefix("headstart/"))), listed


def test_the_guide_to_the_house_names_what_is_there() -> None:
    """`python/README.md` lists every room in its order, and every path and file that it names exists."""
    guide = ROOT.parent / "README.md"
    if not guide.exists():
        pytest.skip("python/README.md is not beside the package")
    text = guide.read_text()
    tree = text.partition("```")[2].partition("csrc/\n")[0]
    listed = [name.rstrip("/").removesuffix(".py") for name in re.findall(r"^  (\w+(?:/|\.py)) ", tree, re.MULTILINE)]
    assert listed == [room for room in ROOMS if room not in ("__main__", "initializer")]
    top = ROOT.parents[1]
    for name in set(re.findall(r"`((?:\w+/)+(?:\w+\.\w+)?|\w+\.(?:py|h))`", text)):
        beside = [top / name, ROOT.parent / name, ROOT / name, *ROOT.rglob(name)]
        assert any(path.exists() for path in beside), name
