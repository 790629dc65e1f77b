"""What lies on the chip: placement, conductances of cells, states that they make."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from aimc_sim.chip import Chip
from aimc_sim.pages.exhibits import NARROW, Exhibits, Record, Section, draw, in_percent
from aimc_sim.pages.html import beside, details, figure, panels, table, text
from aimc_sim.plotting import plot_conductances, plot_placement, plot_states
from aimc_sim.units import format_time

_MAP_BYTES = 1_200_000  # of all maps of conductances together
_MOST_ROWS = 16  # of a table that stands open beside its picture


def placement_section(shown: Exhibits, most: int) -> Section:
    """Return where every array lies, on up to `most` tiles drawn."""
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
    drawing = partial(plot_placement, layout, spec, most=most)
    plot = figure(
        draw(drawing), "placement-plot",
        f"{len(rows)} arrays on {layout.n_tiles} tiles, "
        f"{100 * layout.utilisation(spec):.1f} % of the cells in use.{cut}",
        f"Every frame is a tile, every coloured area cells of an array.{cut}",
        narrow=draw(partial(drawing, width=NARROW)),
    )
    listed = table(("array", "cells", "on tiles"), rows, "What lies where")
    if len(rows) > _MOST_ROWS:
        return "placement", "Placement on tiles", plot + details("Arrays as a table", listed)
    return "placement", "Placement on tiles", beside(plot, listed)


def _span(tiles: Sequence[int]) -> str:
    first, last = min(tiles), max(tiles)
    return str(first) if first == last else f"{first} .. {last}"


def chosen_tiles(chip: Chip, most: int) -> list[int]:
    """Return up to so many tiles, in order: one of every array in turn, then evenly spread."""
    first = {piece.array: piece.tile for piece in reversed(chip.layout.rectangles)}
    found = list(dict.fromkeys(first.values()))
    if len(found) > most:
        found = [found[k] for k in np.linspace(0, len(found) - 1, most).round().astype(int)]
    for tile in np.linspace(0, chip.layout.n_tiles - 1, most).round().astype(int).tolist():
        if len(found) < most and tile not in found:
            found.append(tile)
    return sorted(found)


def conductances_section(shown: Exhibits, most: int) -> Section:
    """Return target, programmed and error [uS] of the cells of up to `most` tiles."""
    chip, device = shown.chip, shown.chip.spec.device
    ages = chip.time_s > 0 and (device.drift is not None or device.relaxation is not None)
    whats = ("target", "programmed", "error", "aged") if ages else ("target", "programmed", "error")
    tiles: list[int] = []
    figures: list[str] = []
    left = _MAP_BYTES
    holders = {
        tile: list(dict.fromkeys(p.array for p in chip.layout.rectangles if p.tile == tile))
        for tile in chosen_tiles(chip, most)
    }
    tile_of_cell = chip.layout.addresses[0]
    for tile, arrays in holders.items():
        drawn = [
            (draw(partial(plot_conductances, chip, what=what, tile=tile, width=NARROW)),
             f"Tile {tile}, {what}.")
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
    aged = f" Aged: {format_time(chip.time_s)} after programming, before read noise."
    intro = (
        f"<p>{sample}, of the first chip. Target: what the weights ask for; programmed: right "
        f"after writing; error: their difference.{aged if ages else ''} Blank cells carry no "
        "weight.</p>"
    )
    return "conductances", "Conductances of the cells", intro + "".join(figures)


def states_section(record: Record, shown: Exhibits) -> Section:
    """Return states of one sequence, in float beside the chips."""
    name, title = "states", "States, float against chip"
    if shown.states is None:
        return name, title, f"<p>Not there: {text(shown.why_not('states'))}</p>"
    exact, chips = np.asarray(shown.states["float"]), np.asarray(shown.states["chips"])
    scale = np.sqrt((exact**2).mean(axis=1))
    error = np.sqrt(((chips - exact) ** 2).mean(axis=(0, 2))) / np.where(scale > 0, scale, 1.0)
    rows = [
        (said, f"{size:.3g}", in_percent(float(off) if np.isfinite(off) else None))
        for said, size, off in zip(shown.states["names"], scale, error, strict=True)
    ]
    said = "; ".join(f"{row[0]} off by {row[2]}" for row in rows)
    when = format_time(record["accuracy"]["chip"][-1]["at_s"])
    drawing = partial(plot_states, shown.states)
    plot = figure(
        draw(drawing), "states-plot",
        f"States of sequence {shown.states['sample']} step by step: {said}.",
        f"Sequence {shown.states['sample']} (choose with --sample), {when} after programming. Of "
        "every layer the state that is strongest in the float model, and the median one.",
        narrow=draw(drawing, (NARROW, 1.9 + 0.62 * len(rows))),
    )
    found = table(
        ("state", "rms, float", "rms error"), rows, "Error over steps and chips, of the state's rms"
    )
    return name, title, beside(plot, found)
