"""Word lines of a layout: what hangs on them, and how often they are driven to use an array."""

from __future__ import annotations

import numpy as np

from aimc_sim.arrays import CellArray, Layout, tile_of
from aimc_sim.specs import ChipSpec


def line_numbers(layout: Layout, spec: ChipSpec, array: CellArray) -> np.ndarray:
    """Return the word line of every cell of an array, int64, the shape of `array.tile`.

    Lines are numbered tile * rows + row, with the rows of the tallest kind.
    """
    tile = array.tile.astype(np.int64)
    return tile * _rows(spec) + array.element // _cols(layout, spec)[tile]


def line_conductances(layout: Layout, spec: ChipSpec, g_s: np.ndarray) -> np.ndarray:
    """Return the sum of conductances on every word line [S], float64.

    All bit lines are grounded at all times, so a driven row draws current through every cell on
    it, also those of other blocks. g_s : (n_cells,), in the order of the layout.
    """
    total = np.zeros(layout.n_tiles * _rows(spec))
    for array in layout.arrays:
        own = g_s[array.first : array.first + array.n_cells]
        lines = line_numbers(layout, spec, array)
        total += np.bincount(lines.ravel(), np.asarray(own, float), total.size)
    return total


def line_lengths(layout: Layout, spec: ChipSpec) -> np.ndarray:
    """Return how many cells long every word line is."""
    return np.repeat(_cols(layout, spec), _rows(spec))


def driven_lines(
    layout: Layout, spec: ChipSpec, array: CellArray
) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs of a row of the array's groups and a line that it drives, both (n,).

    Rows are numbered group * n_rows + row; a row drives several lines where the array's columns
    are split over tiles.
    """
    lines = line_numbers(layout, spec, array)[0]
    n_groups, n_rows, _ = lines.shape
    rows = np.arange(n_groups * n_rows).reshape(n_groups, n_rows, 1)
    rows = np.broadcast_to(rows, lines.shape)
    pairs = np.unique(np.stack([rows.ravel(), lines.ravel()]), axis=1)
    return pairs[0], pairs[1]


def accesses(
    layout: Layout, spec: ChipSpec, array: CellArray, *, together: bool = False
) -> np.ndarray:
    """Return how many accesses every tile takes to drive each of an array's rows once, (n_tiles,).

    A group of blocks is driven at once, groups one after the other; so are parts of an array
    that lie below or beside each other on one tile. together : all groups of a tile share
    neither rows nor columns and are driven at once.
    """
    tile = array.tile[0].astype(np.int64)
    if together:
        return np.bincount(np.unique(tile), minlength=layout.n_tiles)
    n_groups, n_rows, _ = tile.shape
    group = np.broadcast_to(np.arange(n_groups)[:, None, None], tile.shape)
    within = (np.arange(n_rows) % array.part_rows)[:, None]
    top = array.element[0] // _cols(layout, spec)[tile] - within
    keys = np.unique(np.stack([tile.ravel(), group.ravel(), top.ravel()]), axis=1)
    return np.bincount(keys[0], minlength=layout.n_tiles)


def outputs(layout: Layout, array: CellArray, *, together: bool = False) -> np.ndarray:
    """Return the outputs of an array's widest access on every tile, (n_tiles,)."""
    tile = array.tile[0]
    n_groups, _, n_out = tile.shape
    col = np.arange(n_out) + (np.arange(n_groups)[:, None, None] * n_out if together else 0)
    pairs = np.unique(np.stack([tile.ravel(), np.broadcast_to(col, tile.shape).ravel()]), axis=1)
    return np.bincount(pairs[0], minlength=layout.n_tiles)


def _rows(spec: ChipSpec) -> int:
    return max(spec.tile.rows, spec.short_tile.rows)


def _cols(layout: Layout, spec: ChipSpec) -> np.ndarray:
    return np.array([tile_of(spec, kind).cols for kind in layout.tile_kinds], np.int64)
