"""Plain records to what a person reads (rich tables) and what a program reads (JSON)."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from aimc_sim.cost_report import complexity_text, constants_table, cost_text, with_prefix
from aimc_sim.units import format_time

Record = Mapping[str, Any]
_NOTHING = "-"
_WIDTH = 80  # of a terminal, which tables keep to
_BETWEEN = 3  # blanks between two columns of a table
_CITE = "to cite: "


def to_json(record: Record) -> str:
    """Return a record as JSON text; what is not finite becomes null.

    Examples
    --------
    >>> to_json({"a": float("nan")}).split()
    ['{', '"a":', 'null', '}']
    """
    return json.dumps(_plain(record), indent=2, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # numpy arrays and scalars
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def run_report(record: Record, *, notes: bool = True) -> Group:
    """Return what a person reads of an `aimc-sim.run/1` record."""
    parts: list[RenderableType] = [
        _title(f"{record['model']} on {record['chip']}", _run_settings(record)),
        _accuracy_table(record),
    ]
    for name, key, title in (
        ("ablation", "off", "switched off alone"), ("budget", "on", "switched on alone")
    ):
        if record.get(name):
            parts += [Text(""), _variation_table(record, name, key, title)]
    parts += _budget_tables(record)
    parts += [_run_facts(record), *_text(cost_text(record))]
    shown = [_short_reference(note) for note in record["notes"]] if notes else ()
    return Group(*parts, *_lines(shown))


def _short_reference(note: str) -> str:
    """Return a note; one of what to cite in short."""
    return f"{_CITE}{_short(note[len(_CITE) :])}" if note.startswith(_CITE) else note


def _short(reference: str) -> str:
    """Return a reference with its first author, year and DOI alone; others as they are."""
    found = re.fullmatch(r"(.+?)(?: et al\.)?(?:,| and ).*\((\d{4})\), (doi:\S+)", reference)
    if found is None:
        return reference
    author, year, doi = found.groups()
    return f"{author} et al. {year}, {doi}"


def map_report(record: Record, *, notes: bool = True) -> Group:
    """Return what a person reads of an `aimc-sim.map/1` record.

    As of a run, the verdict on A comes last, behind the constants that it rests on.
    """
    table = _table("array", ("blocks", "rows x cols", "weights on", "cells", "tiles"))
    for row in record["arrays"]:
        table.add_row(
            row["name"],
            str(row["blocks"]),
            f"{row['n_in']} x {row['n_out']}",
            _weights_on(row),
            str(row["cells"]),
            row["tiles"],
        )
    kinds = ", ".join(
        f"{kind['tiles']} of {kind['rows']} x {kind['cols']}" for kind in record["tile_kinds"]
    )
    events = record["conversions"]
    facts = (
        f"\ntiles {record['tiles']} ({kinds}); {_cells(record)}\n"
        f"ADC conversions {events['per_step']} a step and {events['at_end']} at the end; "
        f"products of A {events['state_products']} a step"
    )
    title = _title(f"{record['model']} on {record['chip']}", f"form {_form(record)}")
    layouts = [_layouts_table(record["layouts"])] if record.get("layouts") else []
    return Group(
        title, table, Text(facts), *_text(complexity_text(record)), *layouts,
        *constants_table(record), *_text(cost_text(record)),
        *_lines(record["notes"] if notes else ()),
    )


def _layouts_table(rows: Sequence[Record]) -> Table:
    """Return the table of layouts beside each other."""
    heads = ("tiles", "cells", "used", "logit error", "J a step", "step")
    table = _table("\nlayout", heads)
    for row in rows:
        name = f"{row['layout']}, idle cells {row['idle']}"
        if row["tiles"] is None:
            table.add_row(name, *[_NOTHING] * len(heads))
            continue
        costs = [
            _NOTHING if row[key] is None else with_prefix(row[key], unit)
            for key, unit in (("energy_j", "J"), ("step_s", "s"))
        ]
        table.add_row(
            name, str(row["tiles"]), str(row["devices"]),
            f"{100 * row['utilisation']:.1f} %", _error(row["logit_error"]), *costs,
        )
    return table


def _weights_on(row: Record) -> str:
    n = row.get("pieces", 1)
    if n == 1:
        return "pairs" if row["pair"] else "single cells"
    return f"{n} pairs" if row["pair"] else f"{n} cells"


def presets_report(record: Record) -> Group:
    """Return what a person reads of an `aimc-sim.presets/1` record."""
    table = _table("preset", ())
    table.add_column("range, uS", no_wrap=True)
    table.add_column("device, source")
    for row in record["presets"]:
        source = "\n".join(map(_short, row["cite"])) or "no source: not a device"
        low, high = 1e6 * row["g_min_s"], 1e6 * row["g_max_s"]
        text = Text(row["description"])
        table.add_row(row["name"], f"{low:.4g} .. {high:.4g}", text.append(f"\n{source}", "dim"))
    return Group(table)


def device_report(record: Record, *, notes: bool = True) -> Group:
    """Return what a person reads of an `aimc-sim.device/1` record."""
    low, high = 1e6 * record["g_min_s"], 1e6 * record["g_max_s"]
    title = _title(
        ": ".join(filter(None, (record["device"], record["description"]))),
        f"{low:.4g} to {high:.4g} uS; {record['n_cells']} cells a target, seed {record['seed']}; "
        "mean +- standard deviation in uS",
    )
    times = list(dict.fromkeys(row["at_s"] for row in record["rows"]))
    own = [[row for row in record["rows"] if row["at_s"] == at_s] for at_s in times]
    labels = [f"{1e6 * row['target_s']:.4g}" for row in own[0]]
    columns = [("programmed", [_spread(row, "programmed") for row in own[0]])]
    for at_s, rows in zip(times, own, strict=True):
        columns.append((f"read at {format_time(at_s)}", [_spread(row, "read") for row in rows]))
    tables = [*_tables("target", labels, columns), *_curves_tables(record["curves"])]
    parts: list[RenderableType] = [title, tables[0]]
    for table in tables[1:]:
        parts += [Text(""), table]
    return Group(*parts, *_lines(record["notes"] if notes else ()))


def _curves_tables(curves: Sequence[Record]) -> list[Table]:
    """Return tables of what the card's formulas say, one column for each part that it has."""
    shown: list[tuple[str, list[str]]] = []

    def put(title: str, name: str, scale: float = 1.0, digits: str = ".4f") -> None:
        if curves[0][name] is not None:
            shown.append((title, [format(scale * row[name], digits) for row in curves]))

    def put_pair(title: str, mean: str, sigma: str, scale: float, digits: str) -> None:
        if curves[0][sigma] is not None:
            rows = [(scale * row[mean], scale * row[sigma]) for row in curves]
            shown.append((title, [f"{m:{digits}} +- {s:{digits}}" for m, s in rows]))

    put("write shift\nuS", "programming_mean_s", 1e6, "+.3f")
    put("write sigma\nuS", "programming_sigma_s", 1e6)
    put_pair("drift nu\n", "nu_mean", "nu_std", 1.0, ".4f")
    for k, moment in enumerate(curves[0]["relaxation"] or ()):
        rows = [row["relaxation"][k] for row in curves]
        moves = any(row["mean_s"] for row in rows)
        shifts = [f"{1e6 * row['mean_s']:+.3f} +- " if moves else "" for row in rows]
        texts = [f"{s}{1e6 * row['sigma_s']:.3f}" for s, row in zip(shifts, rows, strict=True)]
        if any(row["mean_s"] or row["sigma_s"] for row in rows):
            shown.append((f"relaxation {format_time(moment['at_s'])}\nuS", texts))
    for name, title in (("read", "read noise"), ("white", "white noise")):
        put(f"{title}\nshare", f"{name}_q")
        put(f"{title}\nuS", f"{name}_s", 1e6)
    put("telegraph\nshare", "telegraph_q")
    put("telegraph\nuS", "telegraph_s", 1e6)
    put_pair("SET pulse\nuS", "set_mean_s", "set_sigma_s", 1e6, ".3f")
    put_pair("RESET pulse\nuS", "reset_mean_s", "reset_sigma_s", 1e6, ".3f")
    labels = [f"{1e6 * row['target_s']:.4g}" for row in curves]
    return _tables("formulas\nat uS", labels, shown)


def _tables(
    first: str, labels: Sequence[str], columns: Sequence[tuple[str, list[str]]]
) -> list[Table]:
    """Return columns, (title, texts), side by side in as many tables as a terminal's width takes.

    A table left to shrink by itself would drop the columns on its right without a word.
    """
    start = max(map(len, [*first.split("\n"), *labels]))
    groups: list[list[tuple[str, list[str]]]] = []
    used = 0
    for title, texts in columns:
        width = max(map(len, [*title.split("\n"), *texts])) + _BETWEEN
        if not groups or used + width > _WIDTH:
            groups.append([])
            used = start
        groups[-1].append((title, texts))
        used += width
    tables = []
    for group in groups:
        table = _table(first, (title for title, _ in group))
        for k, label in enumerate(labels):
            table.add_row(label, *(texts[k] for _, texts in group))
        tables.append(table)
    return tables


def _spread(row: Record, name: str) -> str:
    return f"{1e6 * row[f'{name}_mean_s']:.3f} +- {1e6 * row[f'{name}_std_s']:.3f}"


def _title(first: str, second: str) -> Text:
    return Text(first, style="bold").append(f"\n{second}\n", style="not bold")


def _table(first: str, others: Iterable[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right")
    return table


def _form(record: Record) -> str:
    if record["form"] != "leapfrog":
        return str(record["form"])
    return "leapfrog, decay " + ("on tiles" if record["decay"] == "tile" else "digital")


def _run_settings(record: Record) -> str:
    return (
        f"form {_form(record)}; {_count(record['n_chips'], 'chip')}, seed {record['seed']}\n"
        f"{_count(record['n_samples'], 'sequence')} of {_count(record['n_steps'], 'step')}, "
        f"{record['data']}"
    )


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _accuracy_table(record: Record) -> Table:
    scores = record["accuracy"]
    labelled = scores["float"] is not None
    columns = ["accuracy", "+- chips", "95 % interval"] if labelled else []
    table = _table("", [*columns, "logit error", "diverged"])

    def add(name: str, score: Sequence[str], error: float | None, diverged: str) -> None:
        table.add_row(name, *(score if labelled else ()), _error(error), diverged)

    bounds = record["bounds"]
    add("as trained", _score(scores["float"], None, bounds["float"]), 0.0, _NOTHING)
    add(
        "quantised",
        _score(scores["quantized"], None, bounds["quantized"]),
        record["quantized_error"],
        _NOTHING,
    )
    for row, error in zip(scores["chip"], record["logit_error"], strict=True):
        table.add_row(
            f"chip, {format_time(row['at_s'])}",
            *(_score(row["mean"], row["std"], (row["low"], row["high"])) if labelled else ()),
            _error(error["relative_rms"]),
            str(error["diverged"]),
        )
    return table


def _score(
    mean: float | None, std: float | None, bounds: Sequence[float | None] | None
) -> tuple[str, str, str]:
    if mean is None:
        return (_NOTHING,) * 3
    low, high = bounds or (None, None)
    interval = _NOTHING if low is None or high is None else f"{100 * low:.1f} .. {100 * high:.1f}"
    return f"{100 * mean:.1f} %", _NOTHING if std is None else f"{100 * std:.1f}", interval


def _error(relative: float | None) -> str:
    if relative is None:
        return _NOTHING
    percent = 100 * relative
    if percent == 0:
        return "0"
    return f"{percent:.1f} %" if 0.1 <= percent < 1000 else f"{percent:.0e} %"


def _run_facts(record: Record) -> Text:
    unstable = max(row["max"] for row in record["unstable_modes"])
    reads = record["calibration_reads"]
    lines = [
        f"\ntiles {record['tiles']}; {_cells(record)}",
        (
            f"state registers of {record['state_bits']} bits"
            if record["state_bits"] != "ideal"
            else "state registers in float32"
        )
        + f"; drift compensation {record['compensation']}"
        + (f", {reads} calibration reads" if reads else ""),
        f"modes outside the unit circle: {unstable} of {record['n_modes']}"
        + (" (most, over chips and times)" if unstable else " on every chip at every time"),
        *_kept(record),
        *_made(record),
        *_saturated(record),
        f"took {record['wall_s']:.1f} s",
    ]
    if record["form"] == "digital":
        lines[2] = "modes of A in digital logic"
    return Text("\n".join(lines))


def _kept(record: Record) -> list[str]:
    """Return a line of the temperature of the chip, where its file gives one."""
    kelvin = record.get("temperature_k")
    return [] if kelvin is None else [f"kept at {kelvin:g} K"]


def _saturated(record: Record) -> list[str]:
    """Return the line of what share of all conversions clipped, and of the worst part's."""
    rows = [row for row in record.get("saturation", ()) if row["conversions"]]
    if not rows:
        return []
    share = sum(row["clipped"] for row in rows) / sum(row["conversions"] for row in rows)
    worst = max(rows, key=lambda row: row["clipped"] / row["conversions"])
    most = 100 * worst["clipped"] / worst["conversions"]
    found = f"; most in {worst['part']}, {most:.2g} %" if worst["clipped"] else ""
    return [f"conversions clipped at their ADCs: {100 * share:.2g} %{found}"]


def _made(record: Record) -> list[str]:
    """Return lines of what writing and faults left in the cells, where there was any of it."""
    lines = []
    if (faults := record.get("faults")) is not None:
        lines.append(
            "faulty cells a chip: "
            + ", ".join(
                f"{faults[kind]:.4g} {kind.replace('_', ' ')}"
                for kind in ("stuck_low", "stuck_high", "unconnected")
            )
            + f" of {faults['cells']}"
        )
    if (writing := record.get("writing")) is not None:
        energy_j = writing["energy_j"]
        known = energy_j is not None and math.isfinite(energy_j)
        lines.append(
            f"written in {writing['pulses_mean']:.1f} pulses a cell (95 %: at most "
            f"{writing['pulses_95']}); failed cells a chip {writing['failed']:.4g}"
        )
        lines.append(
            "write energy "
            + (f"{1e9 * energy_j:.4g} nJ a chip" if known else "unknown: the card has no voltages")
        )
    return lines


def _cells(record: Record) -> str:
    return f"cells in use {record['devices']}; utilisation {100 * record['utilisation']:.1f} %"


def _variation_table(record: Record, name: str, key: str, title: str) -> Table:
    """Return the table of non-idealities switched off ("ablation") or on ("budget") alone."""
    rows = [row for row in record[name] if row.get("layer") is None]
    labelled = record["accuracy"]["float"] is not None
    columns = ["accuracy", "points", "+- chips"] if labelled else []
    table = _table(f"{title}, {format_time(rows[0]['at_s'])}", [*columns, "logit error"])
    before = record["accuracy"]["chip"][-1]["per_chip"] if key == "off" else None
    for row in rows:
        score = (
            f"{100 * row['mean']:.1f} %", f"{100 * row['change']:+.1f}",
            _spread_of_change(row["per_chip"], before),
        ) if labelled else ()
        table.add_row(row[key], *score, _error(row["relative_rms"]))
    return table


def _spread_of_change(after: Sequence[float], before: Sequence[float] | None) -> str:
    """Return the spread over chips of a change in accuracy, in points; the draws are the same."""
    if len(after) < 2:
        return _NOTHING
    start = [0.0] * len(after) if before is None else before
    changes = [float(a - b) for a, b in zip(after, start, strict=True)]
    return f"{100 * statistics.stdev(changes):.1f}"


def _budget_tables(record: Record) -> list[RenderableType]:
    """Return the tables of what every layer does by itself, at its own output and at the logits."""
    rows = [row for row in record.get("budget") or () if row["layer"] is not None]
    if not rows:
        return []
    causes = list(dict.fromkeys(row["cause"] for row in rows))
    by_place = {(row["layer"], row["cause"]): row for row in rows}
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    of = f"{format_time(rows[0]['at_s'])}, {_count(record['budget_samples'], 'sequence')}"
    tables: list[RenderableType] = []
    for key, title in (
        ("relative_rms", f"one layer alone, {of}: rms error after it, % of its signal"),
        ("logit_rms", "the same error at the logits, %"),
    ):
        at_home = key == "relative_rms"
        table = _table("layer", ["signal"] if at_home else [])
        table.collapse_padding = True  # ten causes in 100 columns
        for cause in causes:
            widest = max(map(len, cause.split()))
            table.add_column(cause, justify="right", min_width=widest)
        for layer in layers:
            signal = format(by_place[layer, causes[0]]["signal_rms"], ".3g")
            shares = [_percent(by_place[layer, cause][key]) for cause in causes]
            table.add_row(layer, *([signal] if at_home else []), *shares)
        tables += [Text(f"\n{title}\n"), table]
    return tables


def _percent(share: float | None) -> str:
    """Return a share in %; a dash where there is none."""
    if share is None:
        return _NOTHING
    percent = 100 * share
    return format(percent, ".2f" if percent < 1000 else ".0e")


def _text(lines: str) -> list[RenderableType]:
    return [Text(f"\n{lines}")] if lines else []


def _lines(notes: Iterable[str]) -> list[RenderableType]:
    return [Text(f"note: {note}", style="dim") for note in notes]
