"""What all plots share: colours, signs, axes of time, sentences that a pointer finds."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation, blended_transform_factory

from aimc_sim.units import format_time

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar

# Okabe & Ito's palette, told apart by colour-blind readers: https://jfly.uni-koeln.de/color/
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")
MARKERS = "os^Dv<>P"  # a second sign beside the colour
HATCHES = ("", "//", "..", "xx")  # of what comes after the eighth colour, and again
# figures written on cells of a heat map, whose colours stay as they are in a dark page
ON_LIGHT, ON_DARK = "#010101", "#fefefe"
FRAME = "#4d4d4d"
EDGE = "#333333"  # of hatches on colours, dark in a dark page too
_LABEL_INCHES = 0.55  # of the ticks and the label of the axis of x
_LEGEND_INCHES = (0.065, 0.6)  # of a letter, and of the sign and the gap of a column
_TITLE_INCHES = (0.095, 1.4)  # of a letter, and of what the axes are off the middle
NARROW_INCHES = 5.0  # figures below have their legends and colour bars at the bottom
TIP = "tip: "  # of an artist's gid: what a pointer over it says, in SVG


def new_axes(ax: Axes | None, width: float = 6.4, height: float = 4.4) -> Axes:
    """Return axes to draw in: those given, or a figure of their own (inches)."""
    return Figure(figsize=(width, height), layout="constrained").subplots() if ax is None else ax


def tip(artist: Artist, text: str) -> None:
    """Let the artist say a sentence when a pointer rests on it, in SVG (see `plotting.svg`)."""
    artist.set_gid(TIP + text)


def plain(text: str) -> str:
    """Return a user's text as matplotlib shows it as it is: a dollar sign starts no formula."""
    return text.replace("$", r"\$")


def inches(ax: Axes) -> float:
    """Return the width of the figure that axes stand in."""
    figure: Any = ax.figure
    return float(figure.get_size_inches()[0])


def is_narrow(ax: Axes) -> bool:
    """Return whether the figure is as narrow as a telephone."""
    return inches(ax) < NARROW_INCHES


def write_title(ax: Axes, text: str, pad: float | None = None) -> None:
    """Write the title, in as many lines as the figure's width asks for."""
    letter, aside = _TITLE_INCHES
    width = max(12, int((inches(ax) - aside) / letter))
    ax.set_title("\n".join(textwrap.wrap(text, width)), pad=pad)


def plain_log_ticks(bar: Colorbar, low: float, high: float) -> None:
    """Label a logarithmic colour bar at 1, 2 and 5 of each decade, in plain figures."""
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    ticks = [step * 10.0**decade for decade in decades for step in (1, 2, 5)]
    ticks = [tick for tick in ticks if 0.999 * low <= tick <= 1.001 * high]
    bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    bar.minorticks_off()


def legend_below(
    ax: Axes, columns: int = 3, handles: Sequence[Artist] | None = None
) -> None:
    """Put the legend under the axes: bands and bars may be anywhere inside.

    columns : at most; fewer where the figure is too narrow for their texts.
    """
    figure: Any = ax.figure
    if handles is None:
        handles = ax.get_legend_handles_labels()[0]
    texts = [str(handle.get_label()) for handle in handles]
    columns = _columns_that_fit([len(text) for text in texts], columns, inches(ax))
    place = ax.transAxes + ScaledTranslation(0, -_LABEL_INCHES, figure.dpi_scale_trans)
    if len(figure.axes) == 1:  # in the middle of the figure, which may be hardly wider
        place = blended_transform_factory(figure.transFigure, place)
    ax.legend(
        handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0),
        bbox_transform=place, ncols=columns, fontsize="small",
    )


def _columns_that_fit(lengths: Sequence[int], most: int, width: float) -> int:
    letter, sign = _LEGEND_INCHES
    for columns in range(min(most, len(lengths)), 1, -1):
        parts = np.array_split(np.asarray(lengths), columns)
        if sum(letter * part.max() + sign for part in parts) <= width:
            return columns
    return 1


def time_axis(ax: Axes, times: Sequence[float]) -> None:
    """Make x the time since programming: linear up to the first time after zero, then in logs."""
    later = [moment for moment in times if moment > 0]
    if later:
        ax.set_xscale("symlog", linthresh=min(later))
        first = -0.1 * min(later) if len(later) < len(times) else min(later) / 1.5
        ax.set_xlim(first, 1.5 * max(later))
    ax.set_xticks(times, [format_time(moment) for moment in times], minor=False)
    ax.minorticks_off()
    ax.set_xlabel("time since programming")
