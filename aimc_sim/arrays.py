"""Arrays of cells as they are asked for and as they lie on tiles."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from aimc_sim.kernels.cells import Draws, cell_draws
from aimc_sim.specs import ChipSpec, TileSpec


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
class Assembly:
    """Blocks and columns that lie together: every block of `columns` has tiles of its own.

    blocks : of 2 rows each, the next n of them beside every column, on a diagonal. columns :
        blocks (2 n + 1) x 1, whose rows are the first rows of those blocks, their second rows,
        and one more. Cells off the diagonal are idle.
    together : the n blocks are driven at once, idle cells in between.
    """

    blocks: Request
    columns: Request
    together: bool

    @property
    def per_column(self) -> int:
        """Number n of blocks beside a column."""
        return self.blocks.n_blocks // self.columns.n_blocks


@dataclass(frozen=True)
class Rectangle:
    """A piece of an array on a tile, in rows and columns of cells; `used` cells carry weights.

    block : number of the block, or group of blocks, that lies in it; of an assembly the first.
    """

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
