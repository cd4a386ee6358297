"""The page of headstart bench: all of it in one file, light and dark, no wider than a phone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench_case import tiny_quality
from headstart.bench.chart import Series, lines, ticks
from headstart.bench.report import markdown, page, seconds_a_call
from headstart.cli import app
from headstart.compare.store import Result
from headstart.compare.table import Table, headline_table, quality_table
from headstart.compare.way import Way

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome", "headless_shell")
CHECK = """<script>
const of = (name) => getComputedStyle(document.body).getPropertyValue(name);
document.title = JSON.stringify({width: innerWidth, page: document.documentElement.scrollWidth,
  paper: of("background-color"), ink: of("color"), letters: getComputedStyle(document.querySelector("text")).fill,
  size: Math.min(...[...document.querySelectorAll("svg text")].map((text) => {
    const frame = text.closest("svg");
    return parseFloat(getComputedStyle(text).fontSize) * frame.clientWidth / frame.viewBox.baseVal.width;})),
  beyond: [...document.querySelectorAll("p, h1, h2, h3, h4, figcaption, .legend span, text")].filter((text) => {
    const box = text.getBoundingClientRect(), frame = (text.closest("svg") || document.body).getBoundingClientRect();
    return box.right > frame.right + 1 || box.left < frame.left - 1;}).map((text) => text.textContent)});
</script>"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of all three measurements, the second and third with figures made up here."""
    folder = tmp_path_factory.mktemp("results") / "cpu"
    chosen = [Way(s, "2M", "log", n) for s in ("classic", "learned") for n in (3, 5)]
    tiny_quality(folder).run([*chosen, Way("alone", "none", "none", 0)], [0])
    settings = {"denoiser": "<blobs>"}
    times = {"headstart": 1.0, "headstart, network that does nothing": 0.1, "a <peer>": 1.5}
    times["diffusers EDMDPMSolverMultistep"] = 1.6  # the longest name there is
    bars = [{"contender": k, "time_median": t, "time_spread": 0.01, "ratio_median": t} for k, t in times.items()]
    row = {"solver": "DPMpp2M", "batch": 4, "side": 8, "threads": 1, "units": 3, "memory": 2**20, "results": bars}
    Result(folder / "speed.json", "speed", settings).add("a", row)
    long = {"denoiser": "zoo:another-network"}
    Result(folder / "speed-another.json", "speed", long).add("a", {**row, "erring": {"EDM algorithm 2": "a reason"}})
    held = Result(folder / "energy.json", "energy", settings, found={"counter": "made up"})
    spans = [{"seconds": 10.0, "joules": 500.0, "samples": 100}] * 3
    for way in chosen:
        about = {"start": way.start, "solver": way.solver, "grid": way.grid, "nfe": way.nfe, "batch": 4}
        held.add(f"{way.key}-b4", {**about, "counter": "made up", "idle_watts": 10.0, "repetitions": spans})
    return folder.parent


def test_the_page_needs_nothing_else(results: Path) -> None:
    text = page(results)
    assert "<script" not in text
    assert not re.findall(r'(?:src|href)="(?!data:|#)', text)  # a fragment is a part of the page itself
    assert not re.findall(r"url\((?!#)|@import", text)
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', text)) == set(re.findall(r'\bid="([^"]+)"', text))
    assert 'name="viewport"' in text
    assert "prefers-color-scheme: dark" in text
    assert text.count("data:image/png;base64,") == 3  # the strips of 5 calls, and of none
    assert "joules a sample" in text


def test_seconds_of_a_busy_machine_are_not_drawn(results: Path, tmp_path: Path) -> None:
    shutil.copytree(results, tmp_path / "busy")
    path = tmp_path / "busy/cpu/quality.json"
    held = json.loads(path.read_text())
    for load, shown in ((0.2, 'against seconds a sample"'), (3.0, "against seconds a sample in the network")):
        for about in held["machines"]:
            about["load"] = load
        path.write_text(json.dumps(held))
        assert shown in page(tmp_path / "busy")
    call = seconds_a_call(json.loads((tmp_path / "busy/cpu/speed.json").read_text()))
    assert call == 1.0 / 4  # a call of headstart's, over its batch


def test_names_are_escaped(results: Path) -> None:
    text = page(results)
    assert "a &lt;peer&gt;" in text
    assert "<peer>" not in text
    assert "<blobs>" not in text


def test_every_network_has_a_part(results: Path) -> None:
    text = page(results)
    assert text.index("<h3>another</h3>") < text.index("<h3>blobs</h3>")
    assert "Left out where they failed: EDM algorithm 2" in text


def test_the_figures_are_those_of_the_files(results: Path) -> None:
    held = json.loads((results / "cpu/quality.json").read_text())
    text = quality_table(held).markdown()
    for row in held["rows"]:
        assert f"{row['fd']:.3f}" in text
    assert text.count("\n| ") == 2 + 4  # head, rule, two starts, the start alone, the floor
    assert headline_table(held).markdown().startswith("Fewest network calls")


def test_another_schema_is_refused(results: Path, tmp_path: Path) -> None:
    shutil.copytree(results, tmp_path / "other")
    path = tmp_path / "other/cpu/speed.json"
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 9'))
    with pytest.raises(ValueError, match="schema 9"):
        page(tmp_path / "other")
    with pytest.raises(ValueError, match="no quality, speed or energy file"):
        page(tmp_path / "nothing")


def test_charts_place_points_on_their_axes() -> None:
    drawn = lines([Series("a", [(1.0, 1.0), (10.0, 100.0), (100.0, 1.0)], 0)], "x", "y").svg
    (path,) = re.findall(r'<path d="([^"]*)"[^>]*stroke: var\(--c0\); stroke-width: 2', drawn)
    first, middle, last = [tuple(map(float, point)) for point in re.findall(r"[ML] ([\d.]+) ([\d.]+)", path)]
    assert middle[0] == pytest.approx((first[0] + last[0]) / 2, abs=0.1)
    assert first[1] == last[1] > middle[1]
    assert ticks(0.9, 60.0) == [1.0, 2.0, 5.0, 10.0, 20.0, 50.0]
    with pytest.raises(ValueError, match="points above 0"):
        lines([Series("a", [(0.0, 1.0)], 0)], "x", "y")


def test_the_command_writes_page_and_tables(results: Path, tmp_path: Path) -> None:
    run = CliRunner()
    wanted = ["bench", "report", "--results", str(results), "--out", str(tmp_path / "report.html")]
    done = run.invoke(app, [*wanted, "--tables", str(tmp_path / "tables.md")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "report.html").read_text() == page(results)
    assert markdown(results / "cpu") in (tmp_path / "tables.md").read_text()
    done = run.invoke(app, ["bench", "report", "--results", str(tmp_path / "none"), "--out", str(tmp_path / "r.html")])
    assert done.exit_code == 1
    assert "no quality, speed or energy file" in done.output
    done = run.invoke(app, ["bench", "quality", "--nfe", "five", "--out", str(tmp_path / "q")])
    assert done.exit_code == 1
    assert "--nfe: must be numbers between commas" in done.output


def test_markdown_has_a_rule_for_every_column() -> None:
    assert Table("t", ["a", "b"], [["x", "1"]]).markdown() == "t\n\n| a | b |\n| --- | ---: |\n| x | 1 |"


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1200])
def test_a_browser_shows_it_without_scrolling_sideways(results: Path, tmp_path: Path, width: int, dark: bool) -> None:
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no browser on this machine: none of {', '.join(BROWSERS)}")
    path = tmp_path / "page.html"
    path.write_text(page(results).replace("</body>", CHECK + "</body>"))
    frame = tmp_path / "frame.html"  # a window is never narrower than 500 pixels; a frame is
    relay = 'onload="document.title = this.contentDocument.title"'
    frame.write_text(f'<iframe src="page.html" style="width: {width}px; height: 900px; border: 0" {relay}></iframe>')
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--dump-dom"]
    options += [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1400,1000", "--virtual-time-budget=3000"]
    options += ["--blink-settings=preferredColorScheme=0"] if dark else []
    done = subprocess.run([browser, *options, frame.as_uri()], capture_output=True, text=True, timeout=120)
    found = json.loads(re.search(r"<title>(.*?)</title>", done.stdout).group(1))
    assert found["width"] == width
    assert found["page"] <= width
    assert found["beyond"] == []  # no text leaves the page or its chart; tables scroll by themselves
    assert found["size"] >= 10  # pixels of a chart's letters
    light = [sum(map(int, re.findall(r"\d+", found[name])[:3])) for name in ("paper", "ink", "letters")]
    assert (light[0] < light[1]) is dark
    assert light[1] == light[2]  # the letters of a chart follow the page
