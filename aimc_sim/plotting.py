"""Pictures of results: `plot_x(data, *, ax=None) -> Axes`, labelled with units, never shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from aimc_sim.mapping import Layout, tile_of
from aimc_sim.specs import ChipSpec, TileSpec
from aimc_sim.units import format_time

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from aimc_sim.devices import Prediction

# Okabe & Ito's palette, told apart by colour-blind readers: https://jfly.uni-koeln.de/color/
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")
_MOST_TILES = 64  # drawn; more would be too small to see
_FLATTEST = 24  # a tile is drawn at least 1/24 as tall as the tallest kind


def _axes(ax: Axes | None) -> Axes:
    return Figure(figsize=(6.4, 4.4), layout="constrained").subplots() if ax is None else ax


def plot_accuracy_over_time(record: Mapping[str, Any], *, ax: Axes | None = None) -> Axes:
    """Return axes with the chips' accuracy [%] over the time since programming.

    The band is the 95 % interval of the mean over chips and samples, the dots are chips.
    record : an `aimc-sim.run/1` record with labels. Time runs linearly up to the first time
    after zero and logarithmically from there.
    """
    ax = _axes(ax)
    scores = record["accuracy"]
    rows = sorted(scores["chip"], key=lambda row: row["at_s"])
    times = [row["at_s"] for row in rows]
    mean = [100 * row["mean"] for row in rows]
    low, high = ([100 * row[side] for row in rows] for side in ("low", "high"))
    ax.fill_between(times, low, high, color=COLOURS[0], alpha=0.2, label="95 % interval")
    ax.plot(times, mean, "o-", color=COLOURS[0], label=f"{record['chip']}, mean")
    if record["n_chips"] > 1:
        for row in rows:
            dots = [100 * share for share in row["per_chip"]]
            ax.plot([row["at_s"]] * len(dots), dots, ".", color=COLOURS[0], alpha=0.5)
    for name, share, style, colour in (
        ("as trained", scores["float"], "-", COLOURS[1]),
        ("quantised", scores["quantized"], (0, (4, 4)), COLOURS[7]),
    ):
        ax.axhline(100 * share, color=colour, linestyle=style, label=name)
    later = [moment for moment in times if moment > 0]
    if later:
        ax.set_xscale("symlog", linthresh=min(later))
        ax.set_xlim(-0.1 * min(later), 1.5 * max(later))
    ax.set_xticks(times, [format_time(moment) for moment in times], minor=False)
    ax.minorticks_off()
    ax.set_xlabel("time since programming")
    ax.set_ylabel("accuracy [%]")
    ax.set_title(f"{record['model']}, form {record['form']}")
    ax.legend()
    return ax


def plot_placement(layout: Layout, spec: ChipSpec, *, ax: Axes | None = None) -> Axes:
    """Return axes with every tile as a frame, and in it the cells of every array.

    Rows run down and columns right, in cells; the rows of short tiles are stretched so that
    they can be seen. Only the first 64 tiles are drawn, and the title says so.
    """
    ax = _axes(ax)
    origins = _tile_origins(layout, spec)
    names = [array.request.name for array in layout.arrays]
    boxes: dict[str, list[Rectangle]] = {name: [] for name in names}
    for piece in layout.rectangles:
        if piece.tile in origins:
            x, y = origins[piece.tile]
            tall = _stretch(tile_of(spec, layout.tile_kinds[piece.tile]), spec)
            boxes[piece.array].append(
                Rectangle((x + piece.col, y + tall * piece.row), piece.cols, tall * piece.rows)
            )
    handles = []
    for number, name in enumerate(names):
        colour = COLOURS[number % len(COLOURS)]
        hatch = ("", "//", "..", "xx")[number // len(COLOURS) % 4]
        ax.add_collection(
            # an edge of its own colour keeps a one-row matrix visible; hatches take the edge's
            PatchCollection(
                boxes[name], facecolor=colour, hatch=hatch, linewidth=0.8,
                edgecolor="0.2" if hatch else colour,
            )
        )
        handles.append(Patch(facecolor=colour, hatch=hatch, label=name))
    frames = []
    for tile, (x, y) in origins.items():
        kind = tile_of(spec, layout.tile_kinds[tile])
        frames.append(Rectangle((x, y), kind.cols, kind.rows * _stretch(kind, spec)))
    ax.add_collection(PatchCollection(frames, facecolor="none", edgecolor="0.3", linewidth=0.5))
    ax.autoscale_view()
    ax.invert_yaxis()
    ax.set_aspect("equal")
    ax.set_xlabel("columns [cells]")
    stretched = any(_stretch(tile_of(spec, kind), spec) > 1 for kind in layout.tile_kinds)
    ax.set_ylabel("rows [cells]" + (", short tiles stretched" if stretched else ""))
    shown = len(origins)
    some = f", the first {shown} shown" if shown < layout.n_tiles else ""
    share = 100 * layout.utilisation(spec)
    ax.set_title(f"{layout.n_tiles} tiles of {spec.name}, {share:.1f} % used{some}")
    ax.legend(handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small")
    return ax


def _tile_origins(layout: Layout, spec: ChipSpec) -> dict[int, tuple[int, int]]:
    """Return the corner (x, y) of every drawn tile: columns of tiles, filled downwards."""
    shown = range(min(layout.n_tiles, _MOST_TILES))
    tiles = [tile_of(spec, layout.tile_kinds[k]) for k in shown]
    tall = [tile.rows * _stretch(tile, spec) for tile in tiles]
    area = sum(1.1 * rows * tile.cols for rows, tile in zip(tall, tiles, strict=True))
    height = max(int(np.sqrt(area)), max(tall, default=0))
    gap = max(2, height // 50)
    origins: dict[int, tuple[int, int]] = {}
    x = y = width = 0
    for number in sorted(shown, key=lambda k: (-tall[k], k)):
        if y and y + tall[number] > height:
            x, y, width = x + width + gap, 0, 0
        origins[number] = (x, y)
        y += tall[number] + gap
        width = max(width, tiles[number].cols)
    return origins


def _stretch(tile: TileSpec, spec: ChipSpec) -> int:
    """Return how many times taller a short tile is drawn, 1 for the others."""
    return max(1, max(spec.tile.rows, spec.short_tile.rows) // (_FLATTEST * tile.rows))


def plot_device(rows: Sequence[Prediction], *, ax: Axes | None = None) -> Axes:
    """Return axes with mean and standard deviation of reads over their targets, both [uS]."""
    ax = _axes(ax)
    times = list(dict.fromkeys(row.at_s for row in rows))
    targets = 1e6 * np.array([row.target_s for row in rows if row.at_s == times[0]])
    ax.plot(targets, targets, "--", color="0.5", label="target")
    programmed = [row for row in rows if row.at_s == times[0]]
    series = [("programmed", [(r.programmed_mean_s, r.programmed_std_s) for r in programmed])]
    for moment in times:
        own = [(r.read_mean_s, r.read_std_s) for r in rows if r.at_s == moment]
        series.append((f"read at {format_time(moment)}", own))
    for number, (name, values) in enumerate(series):
        mean, std = 1e6 * np.array(values).T
        ax.errorbar(
            targets + (number - (len(series) - 1) / 2) * 0.012 * np.ptp(targets),
            mean,
            std,
            fmt="o",
            markersize=4,
            capsize=3,
            label=name,
            color=COLOURS[number % len(COLOURS)],
        )
    ax.set_xlabel("target conductance [uS]")
    ax.set_ylabel("conductance [uS]")
    ax.set_title("mean and standard deviation of cells")
    ax.legend()
    return ax
