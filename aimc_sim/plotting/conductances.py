"""What the cells of a tile were to hold, and what they hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np

from aimc_sim.arrays import tile_of
from aimc_sim.chip import Chip
from aimc_sim.errors import UsageError, nearest
from aimc_sim.plotting.look import new_axes
from aimc_sim.units import format_time

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KINDS = ("target", "programmed", "error", "aged")
_SHADES = 64  # of a map: no more can be told apart, and pictures of few colours are small
_WIDEST_SHAPE = _TALLEST_SHAPE = 5.0  # what is flatter or taller is stretched to it


def plot_conductances(
    data: Any, *, ax: Axes | None = None, what: str = "programmed", tile: int = 0, replica: int = 0,
    width: float = 5.2,
) -> Axes:
    """Return axes with a conductance [uS] of every cell of a tile, rows down, columns right.

    Cells that carry no weight and are not simulated are left blank, and rows and columns beyond
    the last that does are left out. Colours of conductances span the device's range; those of
    errors are symmetric about zero and hold 99 % of the cells.

    data : a `Chip`, or what has one: a programmed matrix, a programmed model.
    what : "target"; "programmed", right after writing; "error", programmed minus target; "aged",
        now, before read noise. tile, replica : which. width : of a figure of its own [inches].

    Raises UsageError for anything else, or a tile or replica that is not there.
    """
    chip = _chip_of(data)
    _check(chip, what, tile, replica)
    values = tile_map(chip, what, tile, replica)
    there = ~np.isnan(values)
    rows, cols = (int(np.flatnonzero(there.any(axis=k)).max(initial=0)) + 1 for k in (1, 0))
    values = values[:rows, :cols]
    stretched = max(1.0, cols / (_WIDEST_SHAPE * rows), rows / (_TALLEST_SHAPE * cols))
    shape = cols / rows if cols < rows else min(cols / rows, _WIDEST_SHAPE)
    tall = (width - 1.6) / max(shape, 0.9) + 0.9
    ax = new_axes(ax, width, float(np.clip(tall, 1.6, 0.89 * width)))
    device = chip.spec.device
    if what == "error":
        seen = np.abs(values[~np.isnan(values)])
        limit = float(np.quantile(seen, 0.99)) if seen.size and seen.any() else 1.0
        shades, low, high = "RdBu_r", -limit, limit
    else:
        shades, low, high = "viridis", 1e6 * device.g_min_s, 1e6 * device.g_max_s
    colours = mpl.colormaps[shades].resampled(_SHADES)
    image = ax.imshow(
        np.ma.masked_invalid(values), cmap=colours, vmin=low, vmax=high, interpolation="none",
        aspect=stretched if cols > rows else 1 / stretched,
    )
    ax.set_xlabel("column")
    ax.set_ylabel("row")
    ends = "both" if what == "error" else "neither"
    bar = ax.figure.colorbar(image, ax=ax, extend=ends, shrink=0.85)  # room for its last figures
    bar.set_label("error [uS]" if what == "error" else "conductance [uS]")
    when = f" at {format_time(chip.time_s)}" if what == "aged" else ""
    ax.set_title(f"tile {tile}: {what}{when}")
    return ax


def tile_map(chip: Chip, what: str, tile: int, replica: int = 0) -> np.ndarray:
    """Return the conductances of a tile's cells [uS], (rows, cols), NaN where there is none."""
    size = tile_of(chip.spec, chip.layout.tile_kinds[tile])
    tiles, elements = chip.layout.addresses
    own = tiles == tile
    if what == "target":
        g = chip.target_s[own]
    elif what == "aged":
        g = chip.clipped(chip.aged()[replica], replica)[own]
    else:
        g = chip.programmed_s[replica, own]
        if what == "error":
            g = g.astype(float) - chip.target_s[own]
    values = np.full(size.rows * size.cols, np.nan)
    values[elements[own]] = 1e6 * g.astype(float)
    return values.reshape(size.rows, size.cols)


def _chip_of(data: Any) -> Chip:
    chip = getattr(data, "chip", data)
    if not isinstance(chip, Chip):
        raise UsageError(
            f"draw the conductances of a thing of type {type(data).__name__}",
            "it has no programmed chip",
            "program it first: `deployment.program(seed)`, or `map_matrix(w, spec).program(seed)`",
        )
    return chip


def _check(chip: Chip, what: str, tile: int, replica: int) -> None:
    if what not in KINDS:
        guess = nearest(what, KINDS)
        raise UsageError(
            f"draw what='{what}' of a tile", "there is no such map",
            (f"did you mean '{guess}'? " if guess else "") + f"choose one of {', '.join(KINDS)}",
        )
    for name, number, count in (
        ("tile", tile, chip.layout.n_tiles), ("replica", replica, chip.n_replicas)
    ):
        if not 0 <= number < count:
            raise UsageError(
                f"draw {name} {number}", f"the chip has {name}s 0 to {count - 1}",
                "choose one of them",
            )
