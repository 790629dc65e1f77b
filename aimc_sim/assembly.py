"""Where the cells of one array lie that holds many blocks and a column that reads all of them.

Of n blocks with two rows each, rows 0 .. n - 1 are the blocks' first rows, n .. 2 n - 1 their
second, and row 2 n is one that the last column alone reads. Columns lie in the same order: all
first columns of the blocks, then their second, then the last one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Grid:
    """Lines of one array on the tiles that it is cut into, tiles in the order of parts.

    row_part, row : (n_rows,) which part and which word line of it every row is.
    col_part, col : (n_cols,) the same of the bit line where the cells of a column begin.
    width : (n_cols,) neighbouring cells of a weight of that column. parts : (down, across).
    """

    row_part: np.ndarray
    row: np.ndarray
    col_part: np.ndarray
    col: np.ndarray
    width: np.ndarray
    parts: tuple[int, int]

    @property
    def n_tiles(self) -> int:
        """Number of tiles of the array."""
        return self.parts[0] * self.parts[1]

    def spans(self, cols: slice) -> list[tuple[int, int, int]]:
        """Return (part, first bit line, number of bit lines) of the parts some columns lie in."""
        part, first, width = self.col_part[cols], self.col[cols], self.width[cols]
        found = []
        for number in np.unique(part):
            own = part == number
            begin, end = int(first[own].min()), int((first[own] + width[own]).max())
            found.append((int(number), begin, end - begin))
        return found


def assemble(
    n_blocks: int, block_cols: int, widths: tuple[int, int], rows: int, cols: int
) -> Grid:
    """Return how an array of n_blocks blocks (2 x block_cols) and a last column is cut.

    widths : cells of a weight of a block and of the last column. rows, cols : of a tile; no
    weight is cut in two.
    """
    n_rows, n_cols = 2 * n_blocks + 1, block_cols * n_blocks + 1
    width = np.full(n_cols, widths[0])
    width[-1] = widths[1]
    part, col = np.zeros(n_cols, np.int64), np.zeros(n_cols, np.int64)
    at = number = 0
    for k in range(n_cols):
        if at + width[k] > cols:
            number, at = number + 1, 0
        part[k], col[k] = number, at
        at += int(width[k])
    row = np.arange(n_rows)
    return Grid(
        row // rows, row % rows, part, col, width, (int(row[-1]) // rows + 1, number + 1)
    )
