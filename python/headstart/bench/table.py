"""Tables of the measurements, as Markdown for README and as HTML for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

Held = Mapping[str, Any]
NAMES = {
    "alone": "learned start alone, no network", "classic": "classic, from 80", "learned": "learned start",
    "planned": "learned start, planned", "transport": "learned start, same latents", "uninformed": "uninformed",
    "empirical": "empirical (memorizes)",
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """A title, the names of columns, and rows of text; the first `left` columns are words."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1

    def markdown(self) -> str:
        rule = ["---"] * self.left + ["---:"] * (len(self.columns) - self.left)
        lines = [self.columns, rule, *self.rows]
        return "\n".join([self.title, "", *(f"| {' | '.join(line)} |" for line in lines)])

    def html(self) -> str:
        def cells(row: Sequence[str], tag: str) -> str:
            kinds = ["" if i < self.left else ' class="n"' for i in range(len(row))]
            return "".join(f"<{tag}{kind}>{escape(cell)}</{tag}>" for cell, kind in zip(row, kinds, strict=True))

        body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in self.rows)
        head = f"<tr>{cells(self.columns, 'th')}</tr>"
        table = f"<table><thead>{head}</thead><tbody>{body}</tbody></table>"
        return f'<p>{escape(self.title)}</p><div class="wide">{table}</div>'


def machine(held: Held) -> str:
    """What a file's last rows were measured on."""
    chip = held["machines"][-1]
    busy = "" if chip["load"] <= 0.5 else f", other work beside it (load {chip['load']:.1f})"
    return f"{chip['name']}, {chip['threads']} thread{'s' * (chip['threads'] > 1)}, torch {chip['torch']}{busy}"


def about(files: Mapping[str, Held]) -> str:
    """A network's setting: images, samples, horizon, machine."""
    held = files.get("quality") or next(iter(files.values()))
    given, parts = held["settings"], [held["settings"]["denoiser"]]
    if "horizon" in held["found"]:
        sizes = given.get("images", {})
        for name, what in (("train", "starts fitted to"), ("heldout", "compared with")):
            parts += [f"{what} {sizes[name]:,} images ({given[name]})"] if name in sizes else []
        parts += [f"framed to {given['side']} x {given['side']} in black"] if "side" in given else []
        parts.append(f"sigma_T {held['found']['horizon']['sigma']:.3g}")
    return "; ".join([*parts, machine(held)])


def number(value: float) -> str:
    """With one decimal where it is large (Lite0 features), with three where it is small (gradient features)."""
    return f"{value:.1f}" if abs(value) >= 20 else f"{value:.3f}"
