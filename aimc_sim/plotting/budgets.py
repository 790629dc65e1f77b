"""What every layer does to the signal by itself, cause by cause."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from aimc_sim.plotting.look import FRAME, ON_DARK, ON_LIGHT, plain, tip
from aimc_sim.units import format_time

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
    # cells as shapes, centred on whole numbers
    edges = [np.arange(n + 1) - 0.5 for n in percent.shape[::-1]]
    image = ax.pcolormesh(
        *edges, np.maximum(percent, largest / 1000), cmap="cividis", norm=norm, edgecolor="face",
        linewidth=0.3,
    )
    places = ("at its output", "at the logits")
    for (i, k), value in np.ndenumerate(percent):
        dark = value < largest / 10
        text = f"{value:.1f}" if value >= 1 else f"{value:.2f}" if value >= 0.005 else "0.00"
        figure = ax.text(
            k, i, "-" if np.isnan(value) else text, ha="center", va="center", fontsize="small",
            color=FRAME if np.isnan(value) else ON_DARK if dark else ON_LIGHT,
        )
        tip(
            figure, f"{layers[i]}, {causes[k % len(causes)]} alone, {places[k // len(causes)]}: "
            + ("not finite" if np.isnan(value) else f"{value:.3g} %"),
        )
    ax.axvline(len(causes) - 0.5, color=ON_DARK, linewidth=4)
    ax.set_xticks(range(2 * len(causes)), 2 * causes, rotation=30, ha="right")
    ax.set_yticks(range(len(layers)), layers)
    ax.invert_yaxis()
    for k, title in enumerate(("at the layer's output", "at the logits")):
        ax.annotate(
            title, ((k + 0.5) * len(causes) - 0.5, 1.0), xycoords=("data", "axes fraction"),
            xytext=(0, 3), textcoords="offset points", ha="center",
        )
    bar = ax.figure.colorbar(image, ax=ax)
    bar.set_label("error [% of the signal]")
    ax.set_title(
        plain(f"{record['chip']}, {format_time(rows[0]['at_s'])}: one layer with one cause alone"),
        pad=20,
    )
    return ax
