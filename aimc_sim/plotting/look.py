"""What all plots share: colours, signs, axes of time, sentences that a pointer finds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from aimc_sim.units import format_time

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

# Okabe & Ito's palette, told apart by colour-blind readers: https://jfly.uni-koeln.de/color/
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")
MARKERS = "os^Dv<>P"  # a second sign beside the colour
HATCHES = ("", "//", "..", "xx")  # of what comes after the eighth colour, and again
# figures written on cells of a heat map, whose colours stay as they are in a dark page
ON_LIGHT, ON_DARK = "#010101", "#fefefe"
FRAME = "#4d4d4d"
EDGE = "#333333"  # of hatches on colours, dark in a dark page too
_LABEL_INCHES = 0.55  # of the ticks and the label of the axis of x
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


def legend_below(ax: Axes, columns: int = 3) -> None:
    """Put the legend under the axes: bands and bars may be anywhere inside."""
    figure: Any = ax.figure
    below = ScaledTranslation(0, -_LABEL_INCHES, figure.dpi_scale_trans)
    ax.legend(
        loc="upper center", bbox_to_anchor=(0.5, 0.0), bbox_transform=ax.transAxes + below,
        ncols=columns, fontsize="small",
    )


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
