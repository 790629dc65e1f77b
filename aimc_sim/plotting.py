"""Pictures of results: `plot_x(data, *, ax=None) -> Axes`, labelled with units, never shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.collections import PatchCollection
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from aimc_sim.devices import card_curves
from aimc_sim.mapping import Layout, tile_of
from aimc_sim.specs import ChipSpec, TileSpec
from aimc_sim.units import format_time

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from aimc_sim.cards import DeviceSpec
    from aimc_sim.devices import Prediction

# Okabe & Ito's palette, told apart by colour-blind readers: https://jfly.uni-koeln.de/color/
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")
_MARKERS = "os^Dv<>P"  # a second sign beside the colour
_TARGET = "target conductance [uS]"
_MOST_TILES = 64  # drawn; more would be too small to see
_CURVE_POINTS = 201
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
    _time_axis(ax, times)
    ax.set_ylabel("accuracy [%]")
    ax.set_title(f"{record['model']}, form {record['form']}")
    _legend_below(ax)
    return ax


def _legend_below(ax: Axes) -> None:
    """Put the legend under the axes: bands and bars may be anywhere inside."""
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=3, fontsize="small")


def plot_budget(record: Mapping[str, Any], *, ax: Axes | None = None) -> Axes:
    """Return axes with the error of every layer alone [% of its signal], layers by causes.

    Left at the layer's own output, right at the logits, where "all layers" is on both sides.
    record : an `aimc-sim.run/1` record with a budget of layers. Colours are logarithmic over
    the two decades below the largest error; the numbers are printed in them.
    """
    rows = [row for row in record["budget"] if row["layer"] is not None]
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    causes = list(dict.fromkeys(row["cause"] for row in rows))
    if ax is None:
        size = (2.2 + 2 * 0.75 * len(causes), 1.5 + 0.36 * len(layers))
        ax = Figure(figsize=size, layout="constrained").subplots()
    by_place = {(row["layer"], row["cause"]): row for row in rows}
    percent = np.array(
        [
            [
                100 * (np.nan if (share := by_place[layer, cause][key]) is None else share)
                for key in ("relative_rms", "logit_rms") for cause in causes
            ]
            for layer in layers
        ]
    )
    largest = max(float(np.nanmax(percent, initial=0.0)), 1e-9)
    norm = LogNorm(largest / 100, largest, clip=True)
    image = ax.imshow(np.maximum(percent, largest / 1000), cmap="cividis", norm=norm, aspect="auto")
    for (i, k), value in np.ndenumerate(percent):
        dark = value < largest / 10
        text = f"{value:.1f}" if value >= 1 else f"{value:.2f}" if value >= 0.005 else "0.00"
        ax.text(
            k, i, "-" if np.isnan(value) else text, ha="center", va="center", fontsize="small",
            color="white" if dark else "black",
        )
    ax.axvline(len(causes) - 0.5, color="white", linewidth=4)
    ax.set_xticks(range(2 * len(causes)), 2 * causes, rotation=30, ha="right")
    ax.set_yticks(range(len(layers)), layers)
    for k, title in enumerate(("at the layer's output", "at the logits")):
        ax.annotate(
            title, ((k + 0.5) * len(causes) - 0.5, 1.0), xycoords=("data", "axes fraction"),
            xytext=(0, 3), textcoords="offset points", ha="center",
        )
    bar = ax.figure.colorbar(image, ax=ax)
    bar.set_label("error [% of the signal]")
    ax.set_title(
        f"{record['chip']}, {format_time(rows[0]['at_s'])}: one layer with one cause alone", pad=20
    )
    return ax


def _time_axis(ax: Axes, times: Sequence[float]) -> None:
    """Make x the time since programming: linear up to the first time after zero, then in logs."""
    later = [moment for moment in times if moment > 0]
    if later:
        ax.set_xscale("symlog", linthresh=min(later))
        first = -0.1 * min(later) if len(later) < len(times) else min(later) / 1.5
        ax.set_xlim(first, 1.5 * max(later))
    ax.set_xticks(times, [format_time(moment) for moment in times], minor=False)
    ax.minorticks_off()
    ax.set_xlabel("time since programming")


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
            # an edge of its own colour, and a place above its taller neighbours' edges, keep a
            # one-row matrix visible; hatches take the edge's
            PatchCollection(
                boxes[name], facecolor=colour, hatch=hatch, linewidth=0.8,
                edgecolor="0.2" if hatch else colour,
                zorder=1 + 1 / (1 + max((box.get_height() for box in boxes[name]), default=0)),
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
    """Return axes with how far reads lie from their targets, mean and spread, both [uS].

    The difference, because beside the targets themselves most spreads are too small to see.
    """
    ax = _axes(ax)
    times = list(dict.fromkeys(row.at_s for row in rows))
    targets = 1e6 * np.array([row.target_s for row in rows if row.at_s == times[0]])
    ax.axhline(0.0, linestyle="--", color="0.5", label="target")
    programmed = [row for row in rows if row.at_s == times[0]]
    series = [("programmed", [(r.programmed_mean_s, r.programmed_std_s) for r in programmed])]
    for moment in times:
        own = [(r.read_mean_s, r.read_std_s) for r in rows if r.at_s == moment]
        series.append((f"read at {format_time(moment)}", own))
    for number, (name, values) in enumerate(series):
        mean, std = 1e6 * np.array(values).T
        ax.errorbar(
            targets + (number - (len(series) - 1) / 2) * 0.012 * np.ptp(targets),
            mean - targets,
            std,
            fmt="o",
            markersize=4,
            capsize=3,
            label=name,
            color=COLOURS[number % len(COLOURS)],
        )
    ax.set_xlabel(_TARGET)
    ax.set_ylabel("conductance minus target [uS]")
    ax.set_title("mean and standard deviation of cells")
    _legend_below(ax)
    return ax


def plot_device_over_time(rows: Sequence[Prediction], *, ax: Axes | None = None) -> Axes:
    """Return axes with mean and standard deviation of reads [uS] over time, a line a target.

    Time runs linearly up to the first time after zero and logarithmically from there.
    """
    ax = _axes(ax)
    for number, target in enumerate(dict.fromkeys(row.target_s for row in rows)):
        own = sorted((r for r in rows if r.target_s == target), key=lambda row: row.at_s)
        times = [row.at_s for row in own]
        mean, std = 1e6 * np.array([(row.read_mean_s, row.read_std_s) for row in own]).T
        ax.errorbar(
            times, mean, std, fmt=f"{_MARKERS[number % len(_MARKERS)]}-", markersize=4, capsize=3,
            color=COLOURS[number % len(COLOURS)], label=f"{1e6 * target:.4g} uS",
        )
    _time_axis(ax, sorted({row.at_s for row in rows}))
    ax.set_ylabel("conductance read [uS]")
    ax.set_title("reads over time, mean and standard deviation")
    ax.legend(title="target", fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax


def plot_spread(
    curves: Sequence[Mapping[str, Any]], *, shift: bool = False, ax: Axes | None = None
) -> Axes:
    """Return axes with the card's sigma of writing and of relaxation [uS] over the target.

    curves : of `devices.card_curves`. shift : draw the means instead of the sigmas.
    """
    ax = _axes(ax)
    what = "mean" if shift else "sigma"
    series = {"writing": [row[f"programming_{what}_s"] for row in curves]}
    for k, moment in enumerate(curves[0]["relaxation"] or ()):
        name = f"relaxation, {format_time(moment['at_s'])}"
        series[name] = [row["relaxation"][k][f"{what}_s"] for row in curves]
    _plot_curves(ax, curves, series, 1e6)
    ax.set_ylabel(f"{'mean shift' if shift else 'standard deviation'} [uS]")
    ax.set_title("shift of cells, formulas" if shift else "spread of cells, formulas")
    return ax


def plot_drift_exponent(curves: Sequence[Mapping[str, Any]], *, ax: Axes | None = None) -> Axes:
    """Return axes with the mean of the drift exponent and a band of one standard deviation."""
    ax = _axes(ax)
    g, mean, std = (
        np.array([row[name] for row in curves]) for name in ("target_s", "nu_mean", "nu_std")
    )
    ax.fill_between(1e6 * g, mean - std, mean + std, color=COLOURS[0], alpha=0.2, label="+- std")
    ax.plot(1e6 * g, mean, color=COLOURS[0], label="mean")
    ax.set_xlabel(_TARGET)
    ax.set_ylabel("drift exponent nu")
    ax.set_title("drift, formulas")
    ax.legend(fontsize="small")
    return ax


def plot_read_noise(curves: Sequence[Mapping[str, Any]], *, ax: Axes | None = None) -> Axes:
    """Return axes with the card's read noise and telegraph amplitude, in % of the conductance."""
    ax = _axes(ax)
    names = {
        "read": "sigma (1/f: Q) of read noise",
        "white": "sigma of further white noise",
        "telegraph": "distance of telegraph levels",
    }
    series = {}
    for name, title in names.items():
        for row_key, of_g in ((f"{name}_q", False), (f"{name}_s", True)):
            if curves[0][row_key] is not None:
                series[title] = [_share(row[row_key], row["target_s"], of_g) for row in curves]
    _plot_curves(ax, curves, series, 100.0)
    ax.set_ylim(bottom=0.0)
    ax.set_ylabel("share of the conductance [%]")
    ax.set_title("noise of reads, formulas")
    return ax


def _share(value: float, target_s: float, of_g: bool) -> float:
    if not of_g:
        return value
    return value / target_s if target_s > 0 else np.nan


def plot_pulses(curves: Sequence[Mapping[str, Any]], *, ax: Axes | None = None) -> Axes:
    """Return axes with the change by one SET and one RESET pulse [uS], mean and spread."""
    ax = _axes(ax)
    g = 1e6 * np.array([row["target_s"] for row in curves])
    for number, name in enumerate(("set", "reset")):
        mean = 1e6 * np.array([row[f"{name}_mean_s"] for row in curves])
        std = 1e6 * np.array([row[f"{name}_sigma_s"] for row in curves])
        ax.fill_between(g, mean - std, mean + std, color=COLOURS[number], alpha=0.2)
        ax.plot(g, mean, "-" if name == "set" else "--", color=COLOURS[number], label=name.upper())
    ax.axhline(0.0, color="0.5", linewidth=0.8)
    ax.set_xlabel("conductance before the pulse [uS]")
    ax.set_ylabel("change [uS]")
    ax.set_title("one pulse, formulas")
    ax.legend(fontsize="small")
    return ax


def _plot_curves(
    ax: Axes, curves: Sequence[Mapping[str, Any]], series: Mapping[str, list[Any]], scale: float
) -> None:
    styles = ("-", "--", "-.", ":")
    g = 1e6 * np.array([row["target_s"] for row in curves])
    for number, (name, values) in enumerate(series.items()):
        if values[0] is not None:
            ax.plot(
                g, scale * np.array(values, float), styles[number % len(styles)],
                color=COLOURS[number % len(COLOURS)], label=name,
            )
    ax.set_xlabel(_TARGET)
    ax.legend(fontsize="small")


def draw_card(device: DeviceSpec, rows: Sequence[Prediction]) -> Figure:
    """Return a figure of a card: what its cells do, then a panel for each part that it has."""
    times = list(dict.fromkeys(row.at_s for row in rows))
    grid = np.linspace(device.g_min_s, device.g_max_s, _CURVE_POINTS)
    curves = card_curves(device, grid.tolist(), times)
    first = curves[-1]
    panels: list[Any] = [partial(plot_device, rows)]
    if len(times) > 1:
        panels.append(partial(plot_device_over_time, rows))
    if first["programming_sigma_s"] is not None or first["relaxation"]:
        panels.append(partial(plot_spread, curves))
    relaxes = first["relaxation"] and any(
        part["mean_s"] for row in curves for part in row["relaxation"]
    )
    if first["programming_mean_s"] is not None or relaxes:
        panels.append(partial(plot_spread, curves, shift=True))
    if first["nu_mean"] is not None:
        panels.append(partial(plot_drift_exponent, curves))
    if any(first[f"{name}_{of}"] is not None for name in ("read", "telegraph") for of in "qs"):
        panels.append(partial(plot_read_noise, curves))
    if first["set_mean_s"] is not None:
        panels.append(partial(plot_pulses, curves))
    across = min(2 if len(panels) < 5 else 3, len(panels))
    down = -(-len(panels) // across)
    figure = Figure(figsize=(5.6 * across, 3.9 * down), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for ax, panel in zip(axes, panels, strict=False):
        panel(ax=ax)
    for ax in axes[len(panels) :]:
        ax.remove()
    figure.suptitle(": ".join(filter(None, (device.name, device.description))))
    return figure
