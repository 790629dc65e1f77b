"""Matrices and lists of small blocks onto tiles: where every cell lies, and what it must hold.

y = x @ w with w (n_in, n_out). A signed weight is a pair of cells on neighbouring bit lines,
w = scale (g+ - g-); a weight that is never negative may be a single cell, w = scale (g - g_min).
Several such pieces, on further bit lines beside, may share a weight (`Pieces`). With
`wires.pairs = "separate"` a rectangle holds all cells of one kind before those of the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from aimc_sim.cards import DeviceSpec
from aimc_sim.errors import CapacityError, InputError
from aimc_sim.kernels.cells import Draws, cell_draws
from aimc_sim.specs import ChipSpec, TileSpec


@dataclass(frozen=True)
class Pieces:
    """How a weight divides into pieces, each a pair or a single cell: slices x cells of them.

    levels : evenly spaced conductances that a cell can be given, None: any. cells : in
    parallel, all with the same target. slices : digits in base `levels`, most significant
    first. Piece s * cells + k is the k-th cell of digit s.
    """

    levels: int | None = None
    cells: int = 1
    slices: int = 1

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
            return np.repeat(part[None], self.cells, axis=0)
        base, n = self.levels, self.slices
        whole = np.rint(np.minimum(part, 1.0) * (base**n - 1)).astype(np.int64)
        digits = np.stack([whole // base ** (n - 1 - s) % base for s in range(n)])
        return np.repeat(digits / (base - 1), self.cells, axis=0)


_WHOLE = Pieces()


def pieces_of(spec: ChipSpec) -> Pieces:
    """Return how the weights of a chip divide into pieces."""
    return Pieces(spec.levels, spec.cells_per_weight, spec.slices)


@dataclass(frozen=True)
class Request:
    """An array that wants cells: n_blocks independent blocks of n_in x n_out weights.

    kind : "tile" or "short_tile". pair : two cells a piece. may_split : rows may go to several
    tiles (partial sums are added after their ADCs) and columns too.
    """

    name: str
    n_blocks: int
    n_in: int
    n_out: int
    pair: bool = True
    kind: str = "tile"
    may_split: bool = True

    @property
    def cells_per_piece(self) -> int:
        """Cells of one piece of a weight: two of a pair, else one."""
        return 2 if self.pair else 1


@dataclass(frozen=True)
class Rectangle:
    """A piece of an array on a tile, in rows and columns of cells; `used` cells carry weights."""

    array: str
    block: int
    tile: int
    row: int
    col: int
    rows: int
    cols: int
    used: int


@dataclass(frozen=True, eq=False)
class CellArray:
    """The cells of one request.

    group : blocks driven together, block-diagonal in one rectangle, idle cells between them;
        1 where blocks are driven one at a time.
    tile, element : (n_planes, n_groups, group * n_in, group * n_out), int32 and int64: the cells
        of every weight, piece by piece, of a pair the plus and then the minus cell;
        element = row * cols + col on its tile.
    part_rows : rows of a block that share a tile; a taller block is summed in parts.
    first : index of the array's first cell on the chip; cells lie in the order of `tile`.
    """

    request: Request
    group: int
    tile: np.ndarray
    element: np.ndarray
    part_rows: int
    first: int

    @property
    def n_cells(self) -> int:
        """Number of cells, idle ones between driven blocks included."""
        return int(self.tile.size)

    @property
    def n_parts(self) -> int:
        """Number of row parts, each with its own conversions."""
        return -(-self.tile.shape[2] // self.part_rows)

    def cell_index(self) -> np.ndarray:
        """Return the chip-wide index of every cell, the shape of `tile`."""
        return self.first + np.arange(self.n_cells, dtype=np.int64).reshape(self.tile.shape)

    def by_piece(self, cells: np.ndarray) -> np.ndarray:
        """Return values of the array's cells, of the shape of `tile` or flat, piece by piece.

        (n_pieces, 1 or 2, n_groups, group * n_in, group * n_out).
        """
        return cells.reshape(-1, self.request.cells_per_piece, *self.tile.shape[1:])

    def carries_weight(self) -> np.ndarray:
        """Return which cells carry a weight, the shape of `tile`; the others lie idle between."""
        request, n_groups = self.request, self.tile.shape[1]
        carries = np.zeros(self.tile.shape[1:], bool)
        for j in range(self.group):
            rows = slice(j * request.n_in, (j + 1) * request.n_in)
            cols = slice(j * request.n_out, (j + 1) * request.n_out)
            there = np.arange(n_groups) * self.group + j < request.n_blocks
            carries[:, rows, cols] = there[:, None, None]
        return np.broadcast_to(carries, self.tile.shape)


@dataclass(frozen=True, eq=False)
class Layout:
    """All arrays of a chip and the tiles they fill."""

    arrays: tuple[CellArray, ...]
    rectangles: tuple[Rectangle, ...]
    tile_kinds: tuple[str, ...]  # kind of every tile

    @property
    def n_tiles(self) -> int:
        """Number of tiles of all kinds."""
        return len(self.tile_kinds)

    @property
    def n_cells(self) -> int:
        """Number of cells that are simulated: those with a weight and idle ones that are read."""
        return sum(array.n_cells for array in self.arrays)

    def array(self, name: str) -> CellArray:
        """Return the array of that name (KeyError where there is none)."""
        for array in self.arrays:
            if array.request.name == name:
                return array
        raise KeyError(name)

    @property
    def addresses(self) -> tuple[np.ndarray, np.ndarray]:
        """Tile and element of every cell, (n_cells,) int32 and int64."""
        tiles = [array.tile.ravel() for array in self.arrays]
        elements = [array.element.ravel() for array in self.arrays]
        return (
            np.concatenate([np.zeros(0, np.int32), *tiles]),
            np.concatenate([np.zeros(0, np.int64), *elements]),
        )

    def carries_weight(self) -> np.ndarray:
        """Return which cells carry a weight, (n_cells,) bool."""
        carries = [array.carries_weight().ravel() for array in self.arrays]
        return np.concatenate([np.zeros(0, bool), *carries])

    @cached_property
    def draws(self) -> Draws:
        """The random blocks of all cells; chips of one layout share them."""
        return cell_draws(*self.addresses)

    def n_used(self) -> int:
        """Return the number of cells that carry a weight."""
        return sum(rectangle.used for rectangle in self.rectangles)

    def utilisation(self, spec: ChipSpec) -> float:
        """Return the share of all cells of the tiles in use that carry a weight."""
        size = {kind: tile_of(spec, kind).rows * tile_of(spec, kind).cols for kind in KINDS}
        total = sum(size[kind] for kind in self.tile_kinds)
        return self.n_used() / total if total else 0.0


KINDS = ("tile", "short_tile")


def tile_of(spec: ChipSpec, kind: str) -> TileSpec:
    """Return the tile spec of a kind."""
    return spec.short_tile if kind == "short_tile" else spec.tile


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


def place(requests: Sequence[Request], spec: ChipSpec) -> Layout:
    """Return the layout of all requests on the tiles of `spec`, in the order given.

    Raises CapacityError where a block that must not be split is larger than its tile, where the
    pieces of a weight need more columns than a tile has, or where more than `spec.max_tiles`
    tiles are needed; InputError for an empty array.
    """
    n_pieces = pieces_of(spec).count
    tile_kinds: list[str] = []
    shelves = {kind: _Shelves(tile_of(spec, kind), kind, tile_kinds) for kind in KINDS}
    arrays: list[CellArray] = []
    rectangles: list[Rectangle] = []
    first = 0
    separate = spec.wires is not None and spec.wires.pairs == "separate"
    for request in requests:
        array = _place_array(
            request, shelves[request.kind], n_pieces, first, rectangles, separate
        )
        arrays.append(array)
        first += array.n_cells
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
    if pieces.levels is not None:
        held = pieces.values(halves / span) * span
    else:  # no detour over shares of the range, which would round
        held = pieces.values(halves)
    return device.g_min_s + held.reshape(-1, *w.shape)
