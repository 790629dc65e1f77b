"""What every layer does to the signal by itself, cause by cause."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from aimc_sim.errors import UsageError
from aimc_sim.plotting.look import (
    FRAME,
    ON_DARK,
    ON_LIGHT,
    is_narrow,
    plain,
    plain_log_ticks,
    tip,
    write_title,
)
from aimc_sim.units import format_time

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# where an error is looked at -> its name in a record, and in words
PLACES = {
    "output": ("relative_rms", "at the layer's output"), "logits": ("logit_rms", "at the logits"),
}


def plot_budget(
    record: Mapping[str, Any], *, ax: Axes | None = None, where: str | None = None
) -> Axes:
    """Return axes with the error of every layer alone [% of its signal], layers by causes.

    Left at the layer's own output, right at the logits, where "all layers" is on both sides.
    record : an `aimc-sim.run/1` record with a budget of layers. where : "output" or "logits",
    for one of the two alone. Colours are logarithmic over the two decades below the largest
    error; the numbers are printed in them.

    Raises UsageError for any other place.
    """
    if where not in (None, *PLACES):
        raise UsageError(
            f"draw the budget at '{where}'", "there is no such place",
            f"choose {' or '.join(PLACES)}, or leave it out for both",
        )
    shown = [PLACES[where]] if where else list(PLACES.values())
    rows = [row for row in record["budget"] if row["layer"] is not None]
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    causes = list(dict.fromkeys(row["cause"] for row in rows))
    if ax is None:
        size = (2.2 + len(shown) * 0.75 * len(causes), 1.5 + 0.36 * len(layers))
        ax = Figure(figsize=size, layout="constrained").subplots()
    by_place = {(row["layer"], row["cause"]): row for row in rows}
    percent = np.array(
        [
            [
                100 * (np.nan if (share := by_place[layer, cause][key]) is None else share)
                for key, _ in shown for cause in causes
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
    for (i, k), value in np.ndenumerate(percent):
        dark = value < largest / 10
        text = f"{value:.1f}" if value >= 1 else f"{value:.2f}" if value >= 0.005 else "0.00"
        figure = ax.text(
            k, i, "-" if np.isnan(value) else text, ha="center", va="center", fontsize="small",
            color=FRAME if np.isnan(value) else ON_DARK if dark else ON_LIGHT,
        )
        tip(
            figure,
            f"{layers[i]}, {causes[k % len(causes)]} alone, {shown[k // len(causes)][1]}: "
            + ("not finite" if np.isnan(value) else f"{value:.3g} %"),
        )
    if len(shown) == 2:
        ax.axvline(len(causes) - 0.5, color=ON_DARK, linewidth=4)
    ax.set_xticks(range(len(shown) * len(causes)), len(shown) * causes, rotation=30, ha="right")
    ax.set_yticks(range(len(layers)), layers)
    ax.invert_yaxis()
    for k, (_, title) in enumerate(shown):
        ax.annotate(
            title, ((k + 0.5) * len(causes) - 0.5, 1.0), xycoords=("data", "axes fraction"),
            xytext=(0, 3), textcoords="offset points", ha="center",
        )
    bar = ax.figure.colorbar(image, ax=ax, location="bottom" if is_narrow(ax) else "right")
    plain_log_ticks(bar, largest / 100, largest)
    bar.set_label("error [% of the signal]")
    when = format_time(rows[0]["at_s"])
    write_title(ax, plain(f"{record['chip']}, {when}: one layer with one cause alone"), pad=20)
    return ax
