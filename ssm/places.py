"""Which weights of a pruned model take cells: what lies in a place without a mode takes none.

The kernels see every head of a layer with as many places for modes as the largest has, and a
real pole as a mode of two real states. Weights of places that are not there stand in no cell:
they are exact numbers that change nothing, and their outputs are not converted. On tiles,

- a pair of poles takes what any mode takes: 2 x 2 weights of A, two rows of C;
- a real pole takes one weight of A (direct: a; delta: a - 1; leapfrog: the one d of p, and none
  with digital decay), on one row and one column, and one row of C;
- a head's column of C is as tall as its states and the skip need;
- a head without modes and skip has no column of C; without a mixing row it has no row there.
"""

from __future__ import annotations

import dataclasses
import re

import numpy as np

from aimc_sim.compensation import Wiring
from aimc_sim.errors import UsageError
from aimc_sim.specs import ChipSpec
from ssm.kernels.network import PER_LAYER
from ssm.model import Layer, Model
from ssm.parts import Part, group_of


def is_even(model: Model) -> bool:
    """Return whether every place of every head holds a pair of poles, and no head was pruned."""
    return all((layer.mode_weight == 2).all() and has_rows(layer).all() for layer in model.layers)


def kinds(layer: Layer) -> tuple[int, int]:
    """Return how many pairs of poles a layer has, and how many real ones."""
    return int((layer.mode_weight == 2).sum()), int((layer.mode_weight == 1).sum())


def has_states(layer: Layer) -> np.ndarray:
    """Return which of both real states of every place are there, (2, H M): Re and Im, p and q."""
    weight = layer.mode_weight.ravel()
    return np.stack([weight > 0, weight == 2])


def has_column(layer: Layer) -> np.ndarray:
    """Return which heads have a column of C, (H,): those with a mode or a skip."""
    return np.asarray((layer.mode_weight > 0).any(axis=1) | (layer.skip != 0))


def has_rows(layer: Layer) -> np.ndarray:
    """Return which heads are there and so have a row in the mixing matrix, (H,)."""
    return np.asarray(has_column(layer) | (layer.mix_weight != 0).any(axis=1))


def has_heads(name: str) -> bool:
    """Return whether an array of that name holds as many blocks for one head as for another."""
    return re.fullmatch(r"layer \d+ [AC]", name) is not None


def on_tiles(parts: list[Part], model: Model, spec: ChipSpec) -> list[Part]:
    """Return what of the model's parts takes cells, in the order of placement.

    Raises UsageError where blocks are driven together, idle cells between them, or heads lie in
    arrays of their own, and heads have different numbers of modes.
    """
    analog = [part for part in parts if part.analog]
    if is_even(model):
        return analog
    apart = spec.layout != "head" and all(
        group_of(part, spec) == 1 for part in analog if part.planes or part.transposed
    )
    if not apart and any((layer.mode_weight == 0).any() for layer in model.layers):
        how = "in arrays of their own (layout 'head')" if spec.layout == "head" else (
            "driven together (idle cells at g_min)"
        )
        raise UsageError(
            f"place heads {how}", "they keep different numbers of modes",
            "use layout 'packed' with idle cells 'off' or 'absent' or rows driven one at a time, "
            "or prune by a score with scope 'head'",
        )
    result: list[Part] = []
    for part in analog:
        rows = _rows_there(part, model)
        if part.planes and apart:
            result += _modes(part, model.layers[(part.products[0] - 1) // PER_LAYER])
        elif part.transposed and rows is not None and apart:
            result += _columns(part, rows, spec.tile.rows)
        elif rows is not None and not part.transposed and not rows.all():
            result += _mixing(part, rows, spec.tile.rows)
        else:
            result.append(part)
    return result


def _modes(part: Part, layer: Layer) -> list[Part]:
    """Return A's blocks of pairs, and of real poles."""
    assert part.scale is not None
    weight = layer.mode_weight.ravel()
    pair, alone = np.flatnonzero(weight == 2), np.flatnonzero(weight == 1)
    name = part.name.removesuffix(" A")
    found = []
    if pair.size:
        found.append(
            dataclasses.replace(
                part, name=f"{name} pairs A", weights=part.weights[pair], scale=part.scale[pair],
                places=pair,
            )
        )
    column = 0 if part.pair else 1  # leapfrog: e and d beside each other, or e alone
    if alone.size and part.weights.shape[2] > column:
        own = slice(column, column + 1)
        found.append(
            dataclasses.replace(
                part, name=f"{name} real A", weights=part.weights[alone][:, :1, own],
                scale=part.scale[alone][:, :, own], places=alone, planes=((0, 0),),
                products=(part.products[part.planes.index((0, column))],),
            )
        )
    return found


def _columns(part: Part, rows: np.ndarray, tile_rows: int) -> list[Part]:
    """Return C's columns, those of one height together."""
    name = part.name.removesuffix(" C")
    found = []
    for begin, end in row_parts(rows, tile_rows):
        own = rows[:, begin:end]
        heights = own.sum(axis=1)
        for height in np.unique(heights[heights > 0]):
            heads = np.flatnonzero(heights == height)
            which = f"{height} rows" if end == rows.shape[1] > begin == 0 else (
                f"{height} rows from {begin}"
            )
            at = begin + np.stack([np.flatnonzero(own[head]) for head in heads])
            here = (heads[:, None], at)
            found.append(
                dataclasses.replace(
                    part, name=f"{name} {which} C",
                    weights=part.weights[here],
                    row_range=None if part.row_range is None else part.row_range[here],
                    places=(heads[:, None] * rows.shape[1] + at).ravel(),
                )
            )
    return found


def _mixing(part: Part, rows: np.ndarray, tile_rows: int) -> list[Part]:
    """Return the rows of the mixing matrix that a head drives."""
    n_out = part.weights.shape[2]
    found = []
    for begin, end in row_parts(rows, tile_rows):
        own = begin + np.flatnonzero(rows[0, begin:end])
        if own.size:
            found.append(
                dataclasses.replace(
                    part, name=f"{part.name.removesuffix(' mixing')} rows from {begin} mixing",
                    weights=part.weights[:, own],
                    places=(own[:, None] * n_out + np.arange(n_out)).ravel(),
                )
            )
    return found


def row_parts(rows: np.ndarray, tile_rows: int) -> list[tuple[int, int]]:
    """Return the ranges of rows (n_blocks, n) that are summed on one tile; True: a row is there.

    All of them where those that are there fit on a tile, else as many places as a tile has rows.
    """
    n = rows.shape[1]
    step = n if rows.sum(axis=1).max() <= tile_rows else tile_rows
    return [(begin, min(begin + step, n)) for begin in range(0, n, step)]


def summed_at_once(
    parts: list[Part], model: Model, spec: ChipSpec, part_rows: np.ndarray
) -> np.ndarray:
    """Return how many places of a product's rows share a tile, (n_products,).

    part_rows : the same if every place took cells.
    """
    result = part_rows.copy()
    if is_even(model) or spec.layout == "head":
        return result
    for part in parts:
        rows = _rows_there(part, model)
        if part.analog and rows is not None and group_of(part, spec) == 1:
            begin, end = row_parts(rows, spec.tile.rows)[0]
            result[part.products[0]] = end - begin
    return result


def _rows_there(part: Part, model: Model) -> np.ndarray | None:
    """Return which rows of C's columns (H, 2 M + 1) or of the mixing (1, H) there are."""
    if not (part.transposed or part.name.endswith(" mixing")):
        return None
    layer = model.layers[(part.products[0] - 1) // PER_LAYER]
    if not part.transposed:
        return has_rows(layer)[None]
    there, pair = layer.mode_weight > 0, layer.mode_weight == 2
    return np.concatenate([there, pair, has_column(layer)[:, None]], axis=1)


def of_cells_alone(wiring: Wiring, cell: np.ndarray) -> Wiring:
    """Return the wiring of those weights alone that have a cell, cell (n_weights,) >= 0."""
    return dataclasses.replace(
        wiring, row=np.where(cell >= 0, wiring.row, -1),
        column=np.where(cell >= 0, wiring.column, -1),
    )
