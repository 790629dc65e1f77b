"""The page of a run: what a chip does to a model, in one file that needs no other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from aimc_sim.chip import Chip
from aimc_sim.cost_page import cost_section
from aimc_sim.page import INK, PAPER, details, document, figure, panels, section, table, text
from aimc_sim.plotting import (
    plot_accuracy_over_time,
    plot_budget,
    plot_conductances,
    plot_confusion,
    plot_placement,
    plot_states,
    to_svg,
)
from aimc_sim.plotting.look import new_axes
from aimc_sim.scope import scope
from aimc_sim.units import format_time

if TYPE_CHECKING:
    from numpy.typing import NDArray

Record = Mapping[str, Any]
MOST_BYTES = 3_000_000
_MAP_BYTES = 1_200_000  # of all maps of conductances together
_MOST_MAPS = 6  # tiles whose conductances are shown
_TILES_SHOWN = (64, 16, 4)  # of the placement: fewer where the page would grow too large


@dataclass(frozen=True, eq=False)
class Exhibits:
    """What the page shows beside the record.

    chip : the first sampled chip, at the last time. confusion : (classes, classes + 1) counts at
    that time, over all chips, None without labels. budget : rows as those of the record, with
    `budget_samples`, `budget_chips`; None: not there. states : of `ssm.traces.trace_states`.
    missing : what could not be shown, and why.
    """

    chip: Chip
    confusion: NDArray[np.int64] | None = None
    budget: Record | None = None
    states: Record | None = None
    missing: tuple[str, ...] = ()


def run_page(record: Record, shown: Exhibits, *, most_bytes: int = MOST_BYTES) -> str:
    """Return the page of an `aimc-sim.run/1` record.

    Of a chip of many tiles, maps of conductances are of a sample and the placement of the first
    ones, as many as fit; the page says how many of how many.
    """
    fixed = [
        _accuracy(record), _confusion(record, shown), _budget(record, shown),
        _placement(shown, _TILES_SHOWN[0]), _conductances(shown), _states(record, shown),
        cost_section(record), _scope(shown), _cite(record), _reproduce(record, shown),
    ]
    page = _assemble(record, fixed)
    for most in _TILES_SHOWN[1:]:
        if len(page.encode()) < most_bytes:
            break
        fixed[3] = _placement(shown, most)
        page = _assemble(record, fixed)
    return page


def _assemble(record: Record, sections: Sequence[tuple[str, str, str]]) -> str:
    contents = [(name, title) for name, title, _ in sections]
    body = [_verdict(record), *(section(name, title, inside) for name, title, inside in sections)]
    return document(f"{record['model']} on {record['chip']}", "\n".join(body), contents)


def draw(drawing: Any) -> str:
    """Return what a function draws as SVG in the page's colours."""
    return to_svg(drawing, ink=INK, paper=PAPER)


def verdict(record: Record) -> str:
    """Return in a sentence or two what the chip does to the model, and what A costs."""
    last, error = record["accuracy"]["chip"][-1], record["logit_error"][-1]["relative_rms"]
    when, scores = format_time(last["at_s"]), record["accuracy"]
    chips = _count(record["n_chips"], "chip")
    if scores["float"] is None:
        off = "have no finite answer" if error is None else f"are off by {100 * error:.3g} %"
        said = (
            f"No labels, so no accuracy: {when} after programming the logits of {chips} {off} (rms "
            "against the model as trained)."
        )
    else:
        points = 100 * (last["mean"] - scores["float"])
        away = f"{abs(points):.1f} points {'below' if points < 0 else 'above'}"
        if abs(points) < 0.05:
            away = "as many as"
        said = (
            f"{100 * last['mean']:.1f} % right {when} after programming on {chips} (95 %: "
            f"{100 * last['low']:.1f} .. {100 * last['high']:.1f}), {away} the model as trained "
            f"({100 * scores['float']:.1f} %)."
        )
    costs = record.get("costs")
    return said if costs is None else f"{said} {costs['verdict']['text']}."


def _verdict(record: Record) -> str:
    unstable = max(row["max"] for row in record["unstable_modes"])
    facts = [
        ("sequences", f"{record['n_samples']} of {record['n_steps']} steps, {record['data']}"),
        ("form of A", _form(record)),
        ("chips", f"{record['n_chips']}, seed {record['seed']}"),
        ("tiles", f"{record['tiles']}, {100 * record['utilisation']:.1f} % of their cells in use"),
        ("modes outside the unit circle", f"{unstable} of {record['n_modes']}"),
        ("answers that were not finite", str(record["diverged"])),
    ]
    warned = ""
    if record["diverged"] or unstable:
        warned = (
            '<p class="bad">Some modes grow or some answers are not finite: see the tables '
            "below.</p>"
        )
    return (
        f'<p class="lead">{text(verdict(record))}</p>{warned}'
        + table(("", "of this run"), facts, prose=True)
    )


def _form(record: Record) -> str:
    if record["form"] != "leapfrog":
        return str(record["form"])
    return "leapfrog, decay " + ("on tiles" if record["decay"] == "tile" else "digital")


def _accuracy(record: Record) -> tuple[str, str, str]:
    name, title = "accuracy", "Accuracy over time"
    scores = record["accuracy"]
    labelled = scores["float"] is not None
    digital = (
        ("as trained", scores["float"], record["bounds"]["float"], 0.0),
        ("quantised", scores["quantized"], record["bounds"]["quantized"],
         record["quantized_error"]),
    )
    rows = [
        [said, *(_percents(share, bounds, None) if labelled else ()), _share(error), "-"]
        for said, share, bounds, error in digital
    ]
    for row, error in zip(scores["chip"], record["logit_error"], strict=True):
        bounds = (row["low"], row["high"])
        rows.append([
            f"chip, {format_time(row['at_s'])}",
            *(_percents(row["mean"], bounds, row["std"]) if labelled else ()),
            _share(error["relative_rms"]), str(error["diverged"]),
        ])
    heads = ["accuracy", "95 % interval", "+- chips"] if labelled else []
    found = table(("", *heads, "logit error", "diverged"), rows, "Chips over time") + (
        '<p class="soft">Logit error: rms of chip minus float logits over that of the float '
        "logits. Diverged: pairs of chip and sequence without a finite answer, which count as "
        "wrong. +- chips: standard deviation over chips, in points.</p>"
    )
    if not labelled:
        return name, title, "<p>The data have no labels, so there is no accuracy.</p>" + found
    said = ", ".join(
        f"{100 * row['mean']:.1f} % at {format_time(row['at_s'])}" for row in scores["chip"]
    )
    plot = figure(
        draw(lambda: plot_accuracy_over_time(record, ax=new_axes(None, 5.6, 3.9))), "accuracy-plot",
        f"Accuracy of the chips: {said}. As trained {100 * scores['float']:.1f} %, quantised "
        f"{100 * scores['quantized']:.1f} %.",
        "Mean over chips with the 95 % interval of that mean over chips and sequences; small dots "
        "are single chips. With one chip the interval holds the sampling of the data alone.",
    )
    return name, title, plot + found + _variations(record)


def _percents(
    share: float, bounds: Sequence[float], spread: float | None
) -> tuple[str, str, str]:
    low, high = bounds
    return (
        f"{100 * share:.1f} %", f"{100 * low:.1f} .. {100 * high:.1f}",
        "-" if spread is None else f"{100 * spread:.1f}",
    )


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.3g} %"


def _variations(record: Record) -> str:
    """Return the tables of non-idealities switched off or on alone, where they were run."""
    found = ""
    for name, key, title in (
        ("ablation", "off", "Each non-ideality switched off alone"),
        ("budget", "on", "Each non-ideality switched on alone"),
    ):
        rows = [row for row in record.get(name) or () if row.get("layer") is None]
        if rows:
            found += table(
                ("", "accuracy", "points", "logit error"),
                [
                    (row[key], _share(row["mean"]),
                     "-" if row["change"] is None else f"{100 * row['change']:+.1f}",
                     _share(row["relative_rms"]))
                    for row in rows
                ],
                f"{title}, {format_time(rows[0]['at_s'])} after programming",
            )
    return found


def _confusion(record: Record, shown: Exhibits) -> tuple[str, str, str]:
    name, title = "confusion", "Right and wrong answers"
    if shown.confusion is None:
        return name, title, "<p>The data have no labels, so nothing is right or wrong.</p>"
    counts = shown.confusion
    n = len(counts)
    wrong = counts.copy()
    wrong[np.arange(n), np.arange(n)] = 0
    order = np.argsort(-wrong, axis=None, kind="stable")[:10]
    rows = []
    for place in order:
        true, answer = divmod(int(place), n + 1)
        if wrong[true, answer]:
            said = "not finite" if answer == n else str(answer)
            rows.append(
                (str(true), said, str(wrong[true, answer]),
                 f"{100 * wrong[true, answer] / counts[true].sum():.1f} %")
            )
    when = format_time(record["accuracy"]["chip"][-1]["at_s"])
    right = int(np.trace(counts))
    alt = f"Confusion matrix of {n} classes: {right} of {int(counts.sum())} answers are right."
    if rows:
        alt += f" The most frequent mistake takes class {rows[0][0]} for {rows[0][1]}."
    plot = figure(
        draw(lambda: plot_confusion(counts, ax=new_axes(None, 5.0, 4.2))), "confusion-plot", alt,
        f"All chips {when} after programming: of every true class, the share of each answer.",
    )
    mistakes = table(
        ("true class", "answered", "times", "of the class"), rows, "The most frequent mistakes"
    ) if rows else "<p>No answer is wrong.</p>"
    return name, title, plot + mistakes


def _budget(record: Record, shown: Exhibits) -> tuple[str, str, str]:
    name, title = "budget", "Signal and noise of every layer"
    found: Record | None = shown.budget
    if any(row.get("layer") is not None for row in record.get("budget") or ()):
        found = {**record, "budget_chips": record["n_chips"]}
    if found is None or not found["budget"]:
        return name, title, f"<p>Not there: {text(_missing(shown, 'budget'))}</p>"
    rows = [row for row in found["budget"] if row["layer"] is not None]
    causes = list(dict.fromkeys(row["cause"] for row in rows))
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    by_place = {(row["layer"], row["cause"]): row for row in rows}
    lines = [
        [layer, f"{by_place[layer, causes[0]]['signal_rms']:.3g}",
         *(_share(by_place[layer, cause]["relative_rms"]) for cause in causes)]
        for layer in layers
    ]
    alone = [row for row in rows if row["cause"] == "all" and row["layer"] != "all layers"]
    worst = max(alone or rows, key=lambda row: row["logit_rms"] or 0.0)
    few = "" if any(row.get("layer") for row in record.get("budget") or ()) else (
        " A small sample: --budget runs more, and puts the figures into report.json."
    )
    plot = figure(
        draw(partial(plot_budget, found)), "budget-plot",
        f"Errors of {len(layers)} parts by {len(causes)} causes. By itself {worst['layer']} moves "
        f"the logits most: {_share(worst['logit_rms'])} of their rms.",
        "One part of the network on the chip with one cause alone, all else exact: rms error at "
        "the end of its layer and at the logits, in % of the signal there. Independent errors "
        f"add in squares. From {_count(found['budget_samples'], 'sequence')} on "
        f"{_count(found['budget_chips'], 'chip')}.{few}", wide=True,
    )
    return name, title, plot + details(
        "Signal and errors as a table",
        table(("part", "signal rms", *causes), lines, "Error at the end of the part's layer"),
    )


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _missing(shown: Exhibits, name: str) -> str:
    found = [said for said in shown.missing if said.startswith(name)]
    return found[0] if found else f"{name}: this chip has nothing to show"


def _placement(shown: Exhibits, most: int) -> tuple[str, str, str]:
    layout, spec = shown.chip.layout, shown.chip.spec
    first = min(most, layout.n_tiles)
    cut = "" if first == layout.n_tiles else f" Only the first {first} are drawn."
    used: dict[str, list[Any]] = {}
    for piece in layout.rectangles:
        used.setdefault(piece.array, []).append(piece)
    rows = [
        (array, str(sum(piece.used for piece in pieces)), _span([piece.tile for piece in pieces]))
        for array, pieces in used.items()
    ]
    plot = figure(
        draw(partial(plot_placement, layout, spec, most=most)), "placement-plot",
        f"{len(rows)} arrays on {layout.n_tiles} tiles, "
        f"{100 * layout.utilisation(spec):.1f} % of the cells in use.{cut}",
        f"Every frame is a tile, every coloured area cells of an array.{cut}", wide=True,
    )
    placed = details(
        "Arrays, cells and tiles as a table", table(("array", "cells", "on tiles"), rows)
    )
    return "placement", "Placement on tiles", plot + placed


def _span(tiles: Sequence[int]) -> str:
    first, last = min(tiles), max(tiles)
    return str(first) if first == last else f"{first} .. {last}"


def chosen_tiles(chip: Chip, most: int = _MOST_MAPS) -> list[int]:
    """Return up to so many tiles, in order: one of every array in turn, then evenly spread."""
    first = {piece.array: piece.tile for piece in reversed(chip.layout.rectangles)}
    found = list(dict.fromkeys(first.values()))
    if len(found) > most:
        found = [found[k] for k in np.linspace(0, len(found) - 1, most).round().astype(int)]
    for tile in np.linspace(0, chip.layout.n_tiles - 1, most).round().astype(int).tolist():
        if len(found) < most and tile not in found:
            found.append(tile)
    return sorted(found)


def _conductances(shown: Exhibits) -> tuple[str, str, str]:
    chip, device = shown.chip, shown.chip.spec.device
    ages = chip.time_s > 0 and (device.drift is not None or device.relaxation is not None)
    whats = ("target", "programmed", "error", "aged") if ages else ("target", "programmed", "error")
    tiles, left = [], _MAP_BYTES
    figures = []
    holders = {
        tile: list(dict.fromkeys(p.array for p in chip.layout.rectangles if p.tile == tile))
        for tile in chosen_tiles(chip)
    }
    tile_of_cell = chip.layout.addresses[0]
    for tile, arrays in holders.items():
        drawn = [
            (draw(partial(plot_conductances, chip, what=what, tile=tile)), f"Tile {tile}, {what}.")
            for what in whats
        ]
        left -= sum(len(svg) for svg, _ in drawn)
        if left < 0 and tiles:
            break
        tiles.append(tile)
        own = tile_of_cell == tile
        error = 1e6 * (chip.programmed_s[0, own].astype(float) - chip.target_s[own])
        said = ", ".join(arrays[:4]) + (f" and {len(arrays) - 4} more" if len(arrays) > 4 else "")
        figures.append(
            panels(
                drawn, f"conductances-{tile}",
                f"Tile {tile}: {said}. Error of programming {error.mean():+.3g} +- "
                f"{error.std():.3g} uS (mean, standard deviation) over {own.sum()} cells.",
            )
        )
    n = chip.layout.n_tiles
    sample = (
        "All tiles" if len(tiles) == n else f"A sample of {len(tiles)} of {n} tiles, so that the "
        "page stays small"
    )
    aged = f" Aged: {format_time(chip.time_s)} after programming, before read noise." if ages else ""
    intro = (
        f"<p>{sample}, of the first chip. Target: what the weights ask for; programmed: right after "
        f"writing; error: their difference.{aged} Blank cells carry no weight.</p>"
    )
    return "conductances", "Conductances of the cells", intro + "".join(figures)


def _states(record: Record, shown: Exhibits) -> tuple[str, str, str]:
    name, title = "states", "States, float against chip"
    if shown.states is None:
        return name, title, f"<p>Not there: {text(_missing(shown, 'states'))}</p>"
    exact, chips = np.asarray(shown.states["float"]), np.asarray(shown.states["chips"])
    scale = np.sqrt((exact**2).mean(axis=1))
    error = np.sqrt(((chips - exact) ** 2).mean(axis=(0, 2))) / np.where(scale > 0, scale, 1.0)
    rows = [
        (said, f"{size:.3g}", _share(float(off) if np.isfinite(off) else None))
        for said, size, off in zip(shown.states["names"], scale, error, strict=True)
    ]
    said = "; ".join(f"{row[0]} off by {row[2]}" for row in rows)
    when = format_time(record["accuracy"]["chip"][-1]["at_s"])
    plot = figure(
        draw(partial(plot_states, shown.states)), "states-plot",
        f"States of sequence {shown.states['sample']} step by step: {said}.",
        f"Sequence {shown.states['sample']} (choose with --sample), {when} after programming. Of "
        "every layer the state that is strongest in the float model, and the median one.",
        wide=True,
    )
    found = table(
        ("state", "rms, float", "rms error"), rows, "Error over steps and chips, of the state's rms"
    )
    return name, title, plot + found


def _scope(shown: Exhibits) -> tuple[str, str, str]:
    found = scope(shown.chip.spec)
    lists = [
        ("Modelled on this chip", found.modelled), ("Not on this chip", found.absent),
        ("Said by the device's card", found.said), ("Not modelled by this version", found.never),
    ]
    inside = "".join(
        f"<h3>{title}</h3><ul>{''.join(f'<li>{text(line)}</li>' for line in lines)}</ul>"
        for title, lines in lists if lines
    )
    whole = '<p class="soft">The whole list is docs/not-modelled.md of the project.</p>'
    return "scope", "What is modelled, and what is not", inside + whole


def _cite(record: Record) -> tuple[str, str, str]:
    lines = "".join(f"<li>{text(reference)}</li>" for reference in record["cite"])
    own = "<p>And this simulator: CITATION.cff of the project.</p>"
    return "cite", "What to cite", (f"<ul>{lines}</ul>" if lines else "") + own


def _reproduce(record: Record, shown: Exhibits) -> tuple[str, str, str]:
    rows = [
        ("seed", str(record["seed"])), ("converter ranges from", record["calibration"]),
        *((name, version) for name, version in record["versions"].items()),
        *((f"sha256 of {name}", value) for name, value in record["hashes"].items() if value),
        ("took", f"{record['wall_s']:.1f} s"),
    ]
    notes = [note for note in record["notes"] if not note.startswith("to cite")]
    inside = (
        f"<pre tabindex=\"0\">{text(record['command'])}</pre>"
        "<p>The same command with the same versions gives the same numbers, for any number of "
        "threads.</p>" + table(("", "of this run"), rows, prose=True)
    )
    if notes:
        inside += "<h3>Notes</h3><ul>" + "".join(f"<li>{text(note)}</li>" for note in notes)
        inside += "</ul>"
    toml = shown.chip.spec.to_toml()
    inside += details("The chip as a file", f'<pre tabindex="0">{text(toml)}</pre>')
    return "reproduce", "Run it again", inside
