"""Tables of speed and energy."""

from __future__ import annotations

from headstart.bench.energy import equal_quality, figures, ratios
from headstart.bench.measure import OURS
from headstart.bench.speed import shares
from headstart.compare.table import NAMES, Held, Table, machine
from headstart.compare.way import Way


def speed_table(held: Held) -> Table:
    """Samples a second of every contender at every batch."""
    lines = []
    for row in held["rows"]:
        for entry in shares(row):
            own = f"{100 * entry['own']:.1f} %" if "own" in entry else ""
            memory = f"{row['memory'] / 2**20:.0f}" if own and row["memory"] is not None else ""
            lines.append([
                f"{row['solver']}, {row['units']} calls", f"{row['batch']} x {row['side']} px, {row['threads']} thr.",
                entry["contender"], f"{entry['samples_a_second']:.1f}", f"{1e3 * entry['seconds']:.1f}",
                f"{1e3 * entry['spread']:.1f}", f"{entry['ratio']:.3f}", own, memory,
            ])  # fmt: skip
    columns = [
        "solver",
        "batch",
        "sampler",
        "samples/s",
        "ms a batch",
        "IQR",
        "time over headstart's",
        "own share",
        "MiB",
    ]
    erring = dict.fromkeys(name for row in held["rows"] for name in row.get("erring", {}))
    left = f" Left out where they failed: {', '.join(erring)}." if erring else ""
    title = (
        "Whole samplers around the same network on the same grid, taking turns; medians. Own share: headstart's time "
        "with a network that does nothing, over its time with the network; MiB: the most memory headstart held beyond "
        "that before. "
        f"{machine(held)}.{left}"
    )
    return Table(title, columns, lines, left=3)


def compact_speed_table(held: Held, batches: int = 3) -> Table:
    """Samples a second of headstart, and of every other sampler in headstart's, at the least side on most threads."""
    rows = [row for row in held["rows"] if "results" in row]
    side, most = min(row["side"] for row in rows), max(row["threads"] for row in rows)
    rows = [row for row in rows if (row["side"], row["threads"]) == (side, most)]
    chosen = sorted({row["batch"] for row in rows})[-batches:]
    lines = []
    for solver in dict.fromkeys(row["solver"] for row in rows):
        found = {row["batch"]: {e["contender"]: e for e in shares(row)} for row in rows if row["solver"] == solver}
        for name in dict.fromkeys(name for own in found.values() for name in own):
            entries = [found.get(batch, {}).get(name) for batch in chosen]
            unit = " samples/s" if name == OURS else ""
            figures_of = [
                "" if e is None else f"{e['samples_a_second']:.1f}{unit}" if unit else f"{1 / e['ratio']:.3f}"
                for e in entries
            ]
            lines.append(
                [f"{solver}, {next(r['units'] for r in rows if r['solver'] == solver)} calls", name, *figures_of]
            )
    title = (
        "Whole samplers around the same network on the same grid, taking turns: samples a second over headstart's "
        f"(below 1: slower than headstart), {side} x {side} pixels. {machine(held)}."
    )
    return Table(title, ["solver", "sampler", *(f"batch {batch}" for batch in chosen)], lines, left=2)


def energy_tables(held: Held, quality: Held | None) -> list[Table]:
    """Joules a sample, and the ratios at equal quality; without a counter time alone."""
    lines, counted = [], any(row["counter"] is not None for row in held["rows"])
    for row in held["rows"]:
        at = figures(row)
        joules = ["" if at[name] is None else f"{at[name]:.4g}" for name in ("joules", "above_idle")]
        joules += ["" if row["idle_watts"] is None else f"{row['idle_watts']:.1f}"]
        times = [f"{1e3 * (at['seconds'] or 0):.2f}", f"{sum(span['seconds'] for span in row['repetitions']):.0f}"]
        lines.append([NAMES[row["start"]], row["solver"], str(row["nfe"]), *times, *(joules if counted else [])])
    columns = ["start", "solver", "calls", "ms a sample", "seconds measured"]
    columns += ["J a sample", "J above idle", "idle W"] if counted else []
    source = held["found"]["counter"]
    tables = [Table(f"{source[0].upper()}{source[1:]}. {machine(held)}.", columns, lines, left=2)]
    if quality is not None:
        found = ratios(equal_quality(quality["rows"]), held["rows"])
        kinds = ("seconds", *(("joules", "above_idle") if counted else ()))
        named = {Way.of(row).key: f"{NAMES[row['start']]}, {row['solver']}, {row['nfe']} calls" for row in held["rows"]}
        rows = [
            [r["target"], named[r["reference"]], named[r["method"]], f"{r['calls']:.2f}",
             *("" if r[name] is None else f"{r[name]:.2f}" for name in kinds)]
            for r in found
        ]  # fmt: skip
        names = ["equal to", "reference", "method", "calls ratio", "seconds ratio"]
        names += ["joules ratio", "above idle ratio"] if counted else []
        title = (
            "At equal quality, the reference's over the method's. Planned and same-latents rows first carry their "
            "latents down the mixture's own flow, which is in their time."
        )
        tables += [Table(title, names, rows, left=3)] if rows else []
    return tables
