"""Matrices and lists of small blocks onto tiles: where every cell lies, and what it must hold.

y = x @ w with w (n_in, n_out). A signed weight is a pair of cells on neighbouring bit lines,
w = scale (g+ - g-); a weight that is never negative may be a single cell, w = scale (g - g_min).
Several such pieces, on further bit lines beside, may share a weight (`Pieces`). With
`wires.pairs = "separate"` a rectangle holds all cells of one kind before those of the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aimc_sim.arrays import (
    KINDS,
    Assembly,
    CellArray,
    Layout,
    Rectangle,
    Request,
    tile_of,
)
from aimc_sim.assembly import Grid, assemble
from aimc_sim.cards import DeviceSpec
from aimc_sim.errors import CapacityError, InputError, UsageError
from aimc_sim.specs import ChipSpec, TileSpec


@dataclass(frozen=True)
class Pieces:
    """How a weight divides into pieces, each a pair or a single cell: slices x cells of them.

    levels : evenly spaced conductances that a cell can be given, None: any. cells : in
    parallel, all with the same target. slices : digits in base `levels`, most significant
    first. Piece s * cells + k is the k-th cell of digit s.
    fill : parallel cells are filled one after the other instead; of a value v in [0, 1] cell k
        of n holds clip(n v - k, 0, 1).
    """

    levels: int | None = None
    cells: int = 1
    slices: int = 1
    fill: bool = False

    @property
    def count(self) -> int:
        """Number of pieces."""
        return self.cells * self.slices

    @property
    def shares(self) -> np.ndarray:
        """Share of the weight's range that each piece stands for: (count,), their sum is 1.

        (L - 1) L^(S - 1 - s) / (L^S - 1) for digit s of S in base L, over the parallel cells.
        """
        if self.levels is None:
            digits = [1.0]
        else:
            base, n = self.levels, self.slices
            digits = [(base - 1) * base ** (n - 1 - s) / (base**n - 1) for s in range(n)]
        return np.repeat(digits, self.cells) / self.cells

    def values(self, part: np.ndarray) -> np.ndarray:
        """Return what each piece holds, (count, *part.shape), of parts of the range in [0, 1].

        The digits of round(part (L^S - 1)), each over L - 1; `part` itself without levels.
        """
        if self.levels is None:
            return self._shared(part[None])
        base, n = self.levels, self.slices
        whole = np.rint(np.minimum(part, 1.0) * (base**n - 1)).astype(np.int64)
        digits = np.stack([whole // base ** (n - 1 - s) % base for s in range(n)])
        return self._shared(digits / (base - 1))

    def _shared(self, digits: np.ndarray) -> np.ndarray:
        """Return what the parallel cells of digits (n, ...) in [0, 1] hold, (n cells, ...)."""
        if not self.fill:
            return np.repeat(digits, self.cells, axis=0)
        cell = np.arange(self.cells).reshape(-1, *[1] * (digits.ndim - 1))
        held = np.clip(self.cells * digits[:, None] - cell, 0.0, 1.0)
        return held.reshape(-1, *digits.shape[1:])


_WHOLE = Pieces()


def pieces_of(spec: ChipSpec, pair: bool = True) -> Pieces:
    """Return how the weights of a chip, pairs or never negative, divide into pieces."""
    cells = spec.cells_per_weight * (1 if pair else spec.single_cells)
    return Pieces(spec.levels, cells, spec.slices, spec.parallel == "fill")


class _Shelves:
    """First-fit shelf packing of rectangles onto tiles of one kind."""

    def __init__(self, tile: TileSpec, kind: str, tile_kinds: list[str]) -> None:
        self.tile, self.kind, self.tile_kinds = tile, kind, tile_kinds
        self.shelves: list[list[int]] = []  # [tile, row, height, next free column]
        self.next_row: dict[int, int] = {}

    def place(self, rows: int, cols: int) -> tuple[int, int, int]:
        """Return (tile, row, col) of a free rectangle, opening a tile where none has room."""
        for shelf in reversed(self.shelves):
            if shelf[2] >= rows and shelf[3] + cols <= self.tile.cols:
                shelf[3] += cols
                return shelf[0], shelf[1], shelf[3] - cols
        for number, row in self.next_row.items():
            if row + rows <= self.tile.rows:
                self.next_row[number] = row + rows
                self.shelves.append([number, row, rows, cols])
                return number, row, 0
        number = len(self.tile_kinds)
        self.tile_kinds.append(self.kind)
        self.next_row[number] = rows
        self.shelves.append([number, 0, rows, cols])
        return number, 0, 0


def group_size(request: Request, tile: TileSpec, n_pieces: int = 1) -> int:
    """Return how many blocks of a list are driven together, idle cells between them.

    Idle cells that carry no current (absent, off) change nothing, so only "g_min" on a tile
    whose blocks are driven in parallel makes groups.
    """
    if request.n_blocks == 1 or tile.drive == "serial" or tile.idle != "g_min":
        return 1
    width = request.n_out * request.cells_per_piece * n_pieces
    return max(1, min(tile.rows // request.n_in, tile.cols // width, request.n_blocks))


def place(requests: Sequence[Request | Assembly], spec: ChipSpec) -> Layout:
    """Return the layout of all requests on the tiles of `spec`, in the order given.

    The two arrays of an assembly follow each other, blocks first.

    Raises CapacityError where a block that must not be split is larger than its tile, where the
    pieces of a weight need more columns than a tile has, or where more than `spec.max_tiles`
    tiles are needed; InputError for an empty array.
    """
    tile_kinds: list[str] = []
    shelves = {kind: _Shelves(tile_of(spec, kind), kind, tile_kinds) for kind in KINDS}
    arrays: list[CellArray] = []
    rectangles: list[Rectangle] = []
    first = 0
    separate = spec.wires is not None and spec.wires.pairs == "separate"
    for request in requests:
        if isinstance(request, Assembly):
            if separate:
                raise UsageError(
                    f"put A and C of a head in one array on chip '{spec.name}'",
                    'wires.pairs = "separate" holds for arrays of one matrix',
                    'set wires.pairs = "interleaved", or layout = "packed"',
                )
            placed = _place_assembly(request, spec, first, rectangles, tile_kinds)
        else:
            n_pieces = pieces_of(spec, request.pair).count
            shelf = shelves[request.kind]
            placed = [_place_array(request, shelf, n_pieces, first, rectangles, separate)]
        arrays += placed
        first += sum(array.n_cells for array in placed)
    if spec.max_tiles is not None and len(tile_kinds) > spec.max_tiles:
        raise CapacityError(
            f"put the model on chip '{spec.name}'",
            f"it needs {len(tile_kinds)} tiles, the chip has {spec.max_tiles}",
            "use a smaller or pruned model, larger tiles, or raise max_tiles",
        )
    return Layout(tuple(arrays), tuple(rectangles), tuple(tile_kinds))


def _place_array(
    request: Request, shelves: _Shelves, n_pieces: int, first: int, rectangles: list[Rectangle],
    separate: bool,
) -> CellArray:
    """Return where the cells of a request lie; `separate` has its planes one after the other."""
    tile = shelves.tile
    n_planes = _cells_of_weight(request, tile, n_pieces)
    group = group_size(request, tile, n_pieces)
    n_groups = -(-request.n_blocks // group)
    n_in, n_out = group * request.n_in, group * request.n_out
    fits = n_in <= tile.rows and n_out * n_planes <= tile.cols
    if not fits and not request.may_split:
        raise CapacityError(
            f"map '{request.name}'",
            f"a block of {n_in} x {n_out * n_planes} cells must stay whole, a tile of kind "
            f"'{request.kind}' holds {tile.rows} x {tile.cols}",
            f"choose a chip whose {request.kind} has at least {n_in} rows and "
            f"{n_out * n_planes} columns",
        )
    part_rows, part_cols = min(n_in, tile.rows), min(n_out, tile.cols // n_planes)
    where_tile = np.empty((n_planes, n_groups, n_in, n_out), np.int32)
    where = np.empty((n_planes, n_groups, n_in, n_out), np.int64)
    for block in range(n_groups):
        for row in range(0, n_in, part_rows):
            for col in range(0, n_out, part_cols):
                rows, cols = min(part_rows, n_in - row), min(part_cols, n_out - col)
                number, row0, col0 = shelves.place(rows, cols * n_planes)
                here = (slice(None), block, slice(row, row + rows), slice(col, col + cols))
                where_tile[here] = number
                lines = (row0 + np.arange(rows))[:, None] * tile.cols
                apart, beside = (1, cols) if separate else (n_planes, 1)
                pairs = col0 + apart * np.arange(cols)[None, :]
                where[here] = (lines + pairs)[None] + beside * np.arange(n_planes)[:, None, None]
                used = rows * cols * n_planes
                if group > 1:  # the last group may hold fewer blocks
                    blocks = min(group, request.n_blocks - block * group)
                    used = blocks * request.n_in * request.n_out * n_planes
                rectangles.append(
                    Rectangle(request.name, block, number, row0, col0, rows, cols * n_planes, used)
                )
    return CellArray(request, group, where_tile, where, part_rows, first)


def _cells_of_weight(request: Request, tile: TileSpec, n_pieces: int) -> int:
    """Return how many neighbouring cells a weight takes, where the request can be placed."""
    n_planes = request.cells_per_piece * n_pieces
    if min(request.n_blocks, request.n_in, request.n_out) < 1:
        raise InputError(
            f"map '{request.name}'", f"it is empty ({request.n_in} x {request.n_out})",
            "give a matrix with at least one row and one column",
        )
    if tile.cols < n_planes:
        raise CapacityError(
            f"map '{request.name}'",
            f"a weight takes {n_planes} neighbouring cells, a tile of kind '{request.kind}' "
            f"holds {tile.rows} x {tile.cols}",
            f"choose a chip whose {request.kind} has at least {n_planes} columns, or fewer "
            "cells_per_weight or slices",
        )
    return n_planes


def _place_assembly(
    wanted: Assembly, spec: ChipSpec, first: int, rectangles: list[Rectangle],
    tile_kinds: list[str],
) -> list[CellArray]:
    blocks, columns, n = wanted.blocks, wanted.columns, wanted.per_column
    tile = tile_of(spec, columns.kind)
    widths = tuple(
        _cells_of_weight(request, tile, pieces_of(spec, request.pair).count)
        for request in (blocks, columns)
    )
    if not blocks.may_split and 2 * n > tile.rows:
        raise CapacityError(
            f"map '{blocks.name}' and '{columns.name}' in one array",
            f"a column sums its {2 * n} rows of states before its ADC, a tile holds {tile.rows}",
            f"choose tiles of at least {2 * n} rows, or the packed layout",
        )
    grid = assemble(n, blocks.n_out, (widths[0], widths[1]), tile.rows, tile.cols)
    corners = len(tile_kinds) + grid.n_tiles * np.arange(columns.n_blocks)
    tile_kinds += [columns.kind] * (grid.n_tiles * columns.n_blocks)
    # the grid's row and column of every row and column of a block, (n, 2) and (n, n_out)
    rows = np.arange(2 * n).reshape(2, n).T
    cols = np.arange(blocks.n_out * n).reshape(blocks.n_out, n).T
    if wanted.together:
        rows, cols = rows.reshape(1, -1), cols.reshape(1, -1)
    last = np.full((1, 1), blocks.n_out * n)
    own, read = (
        _cells_on(grid, tile, corners, *lines)
        for lines in ((rows, cols), (np.arange(2 * n + 1)[None], last))
    )
    array = CellArray(blocks, n if wanted.together else 1, *own, tile.rows + 2 * n, first)
    others = CellArray(
        columns, 1, *read, min(2 * n + 1, tile.rows), first + array.n_cells
    )
    end = int(last[0, 0])
    for each, n_rows, lines in (
        (array, 2 * n, slice(0, end)), (others, 2 * n + 1, slice(end, None))
    ):
        _outline(each, grid, n_rows, lines, corners, tile, rectangles)
    return [array, others]


def _cells_on(
    grid: Grid, tile: TileSpec, corners: np.ndarray, rows: np.ndarray, cols: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return tile and element, (n_planes, n_arrays * n_groups, n_in, n_out), of some cells.

    rows (n_groups, n_in), cols (n_groups, n_out) : lines of the grid. corners (n_arrays,) : the
    first tile of every array.
    """
    part = grid.row_part[rows][:, :, None] * grid.parts[1] + grid.col_part[cols][:, None, :]
    element = grid.row[rows][:, :, None] * tile.cols + grid.col[cols][:, None, :]
    planes = np.arange(grid.width[cols.flat[0]])
    where = corners[None, :, None, None, None] + part
    where = np.broadcast_to(where, (planes.size, *where.shape[1:]))
    elements = np.broadcast_to(element + planes[:, None, None, None, None], where.shape)
    shape = (planes.size, -1, *part.shape[1:])
    return where.reshape(shape).astype(np.int32), elements.reshape(shape).astype(np.int64)


def _outline(
    array: CellArray, grid: Grid, n_rows: int, cols: slice, corners: np.ndarray,
    tile: TileSpec, rectangles: list[Rectangle],
) -> None:
    """Add the rectangles, idle cells included, that an array's columns fill on every tile."""
    used = np.bincount(array.tile[array.carries_weight()], minlength=corners[-1] + grid.n_tiles)
    per_corner = array.tile.shape[1] // len(corners)
    for k, corner in enumerate(corners):
        for down in range(grid.parts[0]):
            rows = min(n_rows - down * tile.rows, tile.rows)
            for across, col, width in grid.spans(cols):
                number = int(corner) + down * grid.parts[1] + across
                if rows > 0:
                    rectangles.append(
                        Rectangle(
                            array.request.name, k * per_corner, number, 0, col, rows,
                            width, int(used[number]),
                        )
                    )


def weight_scale(w: np.ndarray, device: DeviceSpec, per: str) -> np.ndarray:
    """Return the weight that one siemens stands for, so that the largest weight fills the range.

    w : (n_blocks, n_in, n_out). per : "column" or "block". Result (n_blocks, 1, 1 or n_out).
    A column of zeros gets the scale of weight 1.
    """
    axes = (1,) if per == "column" else (1, 2)
    largest = np.abs(w).max(axis=axes, keepdims=True)
    return np.where(largest > 0, largest, 1.0) / (device.g_max_s - device.g_min_s)


def target_conductances(
    w: np.ndarray, scale: np.ndarray, device: DeviceSpec, *, pair: bool, pieces: Pieces = _WHOLE
) -> np.ndarray:
    """Return the conductances [S] (n_planes, *w.shape) that stand for weights w at `scale`.

    Pair: w = scale sum over pieces of share (g+ - g-), the idle half at g_min. Single:
    w = scale sum of share (g - g_min) >= 0. With levels the sum is rounded to the nearest step,
    which is scale (g_max - g_min)/(levels^slices - 1). Planes are in the order of
    `CellArray.tile`.

    Raises InputError where a single cell would have to be negative, or a weight leaves
    [g_min, g_max].
    """
    excess = np.asarray(w / scale)
    span = device.g_max_s - device.g_min_s
    if not np.isfinite(excess).all() or np.abs(excess).max(initial=0.0) > span * (1 + 1e-9):
        raise InputError(
            "turn weights into conductances", "a weight lies outside the range of its scale",
            "give finite weights and a scale that covers the largest",
        )
    if not pair and (excess < 0).any():
        raise InputError(
            "put weights on single cells", "one of them is negative", "use pairs for them"
        )
    halves = excess[None]
    if pair:
        halves = np.stack([np.maximum(excess, 0.0), np.maximum(-excess, 0.0)])
    if pieces.levels is not None or pieces.fill:
        held = pieces.values(halves / span) * span
    else:  # no detour over shares of the range, which would round
        held = pieces.values(halves)
    return device.g_min_s + held.reshape(-1, *w.shape)
