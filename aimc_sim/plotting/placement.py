"""What lies where on the tiles."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.patches import Patch, Rectangle

from aimc_sim.errors import UsageError
from aimc_sim.mapping import Layout, tile_of
from aimc_sim.plotting.look import (
    COLOURS,
    EDGE,
    FRAME,
    HATCHES,
    NARROW_INCHES,
    is_narrow,
    legend_below,
    new_axes,
    plain,
    tip,
    write_title,
)
from aimc_sim.specs import ChipSpec, TileSpec

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_TILES = 64  # drawn; more would be too small to see
_FLATTEST = 24  # a tile is drawn at least 1/24 as tall as the tallest kind
_MOST_NAMES = 32  # of a legend; a longer one leaves no room for the tiles
_FEW = 4  # areas of an array on a tile
_THINNEST = 1 / 90  # of the picture: what is thinner, such as a matrix of one row, is drawn so


class Area(NamedTuple):
    """Cells of one array on a tile: the corner, and how many rows and columns."""

    row: int
    col: int
    rows: int
    cols: int


def plot_placement(
    data: Any, spec: ChipSpec | None = None, *, ax: Axes | None = None, most: int = MOST_TILES,
    width: float = 6.8,
) -> Axes:
    """Return axes with every tile as a frame, and in it the cells of every array.

    Rows run down and columns right, in cells; the rows of short tiles are stretched so that
    they can be seen, and so is a part that would be thinner than a line. Only the first `most`
    tiles are drawn, and the title says so. More than 32 arrays have no legend; as SVG a pointer
    names them.

    data : what lies on tiles: a mapped or programmed matrix, a deployment, a programmed model, a
        `Chip`; or a Layout, with the spec of its chip. width : of a figure of its own [inches].

    Raises UsageError for anything else.
    """
    layout, spec = _parts_of(data, spec)
    origins = _tile_origins(layout, spec, most)
    wide, tall = _extent(layout, spec, origins)
    thinnest = _THINNEST * max(wide, tall)
    names = [array.request.name for array in layout.arrays]
    named = len(names) <= _MOST_NAMES
    ax = new_axes(ax, width, _height_of(width, tall / wide, len(names) if named else 0))
    pieces: dict[tuple[str, int], list[Area]] = {}
    for piece in layout.rectangles:
        if piece.tile in origins:
            area = Area(piece.row, piece.col, piece.rows, piece.cols)
            pieces.setdefault((piece.array, piece.tile), []).append(area)
    handles = []
    for number, name in enumerate(names):
        colour = COLOURS[number % len(COLOURS)]
        hatch = HATCHES[number // len(COLOURS) % len(HATCHES)]
        # an edge of its own colour, and a place above its taller neighbours' edges, keep a
        # one-row matrix visible; hatches take the edge's
        edge = EDGE if hatch else colour
        for tile, (x, y) in origins.items():
            kind = tile_of(spec, layout.tile_kinds[tile])
            times = _stretch(kind, spec)
            areas = join(pieces.get((name, tile), ()))
            least = thinnest if len(areas) <= _FEW else 0.0  # many would cover each other
            for area in areas:
                col, cols = _shown(area.col, area.cols, least, kind.cols)
                row, rows = _shown(times * area.row, times * area.rows, least, times * kind.rows)
                box = Rectangle(
                    (x + col, y + row), cols, rows, facecolor=colour, hatch=hatch, linewidth=0.8,
                    edgecolor=edge, zorder=1 + 1 / (1 + times * area.rows),
                )
                tip(
                    box, f"{name} on tile {tile}: rows {area.row} .. {area.row + area.rows - 1}, "
                    f"columns {area.col} .. {area.col + area.cols - 1}",
                )
                ax.add_patch(box)
        handles.append(Patch(facecolor=colour, hatch=hatch, edgecolor=edge, label=plain(name)))
    for tile, (x, y) in origins.items():
        kind = tile_of(spec, layout.tile_kinds[tile])
        ax.add_patch(
            Rectangle(
                (x, y), kind.cols, kind.rows * _stretch(kind, spec), facecolor="none",
                edgecolor=FRAME, linewidth=0.5, zorder=3,
            )
        )
    ax.autoscale_view()
    ax.invert_yaxis()
    ax.set_aspect("equal")
    ax.set_xlabel("columns [cells]")
    stretched = any(_stretch(tile_of(spec, kind), spec) > 1 for kind in layout.tile_kinds)
    ax.set_ylabel("rows [cells]" + (", short tiles stretched" if stretched else ""))
    shown = len(origins)
    some = f", the first {shown} shown" if shown < layout.n_tiles else ""
    share = 100 * layout.utilisation(spec)
    write_title(ax, plain(f"{layout.n_tiles} tiles of {spec.name}, {share:.1f} % used{some}"))
    if not named:
        return ax
    if is_narrow(ax):
        legend_below(ax, handles=handles)
    else:
        ax.legend(handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small")
    return ax


def _parts_of(data: Any, spec: ChipSpec | None) -> tuple[Layout, ChipSpec]:
    """Return the layout of a thing and the spec of its chip."""
    if spec is not None:
        return data, spec
    for held in (data, *(getattr(data, name, None) for name in ("chip", "deployment", "mapped"))):
        layout, own = (getattr(held, name, None) for name in ("layout", "spec"))
        if layout is not None and own is not None:
            return layout, own
    raise UsageError(
        f"draw the placement of a thing of type {type(data).__name__}", "it lies on no tiles",
        "give a mapped matrix, a deployment or a chip, or a layout with its spec",
    )


def _shown(first: float, size: float, least: float, end: float) -> tuple[float, float]:
    """Return where a span begins and how long it is drawn: not shorter than it can be seen."""
    longer = max(size, min(least, end))
    return min(first, end - longer), longer


def join(areas: Iterable[Area]) -> list[Area]:
    """Return the same cells in fewer areas: neighbours of one height, then of one width.

    Thousands of blocks of A become a few bands. The areas must not overlap.

    Examples
    --------
    >>> join([Area(0, 2, 2, 2), Area(0, 0, 2, 2), Area(2, 0, 2, 4)])
    [Area(row=0, col=0, rows=4, cols=4)]
    """
    wide: list[Area] = []
    for area in sorted(areas, key=lambda a: (a.row, a.rows, a.col)):
        last = wide[-1] if wide else None
        if last and (last.row, last.rows, last.col + last.cols) == (area.row, area.rows, area.col):
            wide[-1] = last._replace(cols=last.cols + area.cols)
        else:
            wide.append(area)
    tall: list[Area] = []
    for area in sorted(wide, key=lambda a: (a.col, a.cols, a.row)):
        last = tall[-1] if tall else None
        if last and (last.col, last.cols, last.row + last.rows) == (area.col, area.cols, area.row):
            tall[-1] = last._replace(rows=last.rows + area.rows)
        else:
            tall.append(area)
    return tall


def _tile_origins(layout: Layout, spec: ChipSpec, most: int) -> dict[int, tuple[int, int]]:
    """Return the corner (x, y) of every drawn tile: columns of tiles, filled downwards."""
    shown = range(min(layout.n_tiles, most))
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


def _extent(
    layout: Layout, spec: ChipSpec, origins: dict[int, tuple[int, int]]
) -> tuple[int, int]:
    """Return how wide and tall all drawn tiles are together, in cells."""
    kinds = {tile: tile_of(spec, layout.tile_kinds[tile]) for tile in origins}
    wide = max((x + kinds[tile].cols for tile, (x, _) in origins.items()), default=1)
    tall = max(
        (y + kinds[t].rows * _stretch(kinds[t], spec) for t, (_, y) in origins.items()), default=1
    )
    return wide, tall


def _height_of(width: float, shape: float, n_arrays: int) -> float:
    """Return the height of a figure, in inches, in which tiles of a shape fill the width."""
    if width < NARROW_INCHES:  # two columns of names below
        return float(np.clip((width - 0.8) * shape + 1.6, 2.6, 7.0)) + 0.1 * n_arrays
    return float(np.clip(max((width - 2.6) * shape + 1.0, 0.6 + 0.2 * n_arrays), 2.0, 8.0))


def _stretch(tile: TileSpec, spec: ChipSpec) -> int:
    """Return how many times taller a short tile is drawn, 1 for the others."""
    return max(1, max(spec.tile.rows, spec.short_tile.rows) // (_FLATTEST * tile.rows))
