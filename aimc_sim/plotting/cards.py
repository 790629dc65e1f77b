"""What a device card says: cells around their targets, over time, and its formulas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from aimc_sim.devices import card_curves
from aimc_sim.plotting.look import COLOURS, MARKERS, legend_below, new_axes, time_axis
from aimc_sim.units import format_time

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from aimc_sim.cards import DeviceSpec
    from aimc_sim.devices import Prediction

_TARGET = "target conductance [uS]"
_CURVE_POINTS = 201


def plot_device(rows: Sequence[Prediction], *, ax: Axes | None = None) -> Axes:
    """Return axes with how far reads lie from their targets, mean and spread, both [uS].

    The difference, because beside the targets themselves most spreads are too small to see.
    """
    ax = new_axes(ax)
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
    legend_below(ax)
    return ax


def plot_device_over_time(rows: Sequence[Prediction], *, ax: Axes | None = None) -> Axes:
    """Return axes with mean and standard deviation of reads [uS] over time, a line a target.

    Time runs linearly up to the first time after zero and logarithmically from there.
    """
    ax = new_axes(ax)
    for number, target in enumerate(dict.fromkeys(row.target_s for row in rows)):
        own = sorted((r for r in rows if r.target_s == target), key=lambda row: row.at_s)
        times = [row.at_s for row in own]
        mean, std = 1e6 * np.array([(row.read_mean_s, row.read_std_s) for row in own]).T
        ax.errorbar(
            times, mean, std, fmt=f"{MARKERS[number % len(MARKERS)]}-", markersize=4, capsize=3,
            color=COLOURS[number % len(COLOURS)], label=f"{1e6 * target:.4g} uS",
        )
    time_axis(ax, sorted({row.at_s for row in rows}))
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
    ax = new_axes(ax)
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
    ax = new_axes(ax)
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
    ax = new_axes(ax)
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
    ax = new_axes(ax)
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
