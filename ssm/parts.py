"""The model's matrices and block lists as what goes onto tiles: weights, grouping, scales."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import zip_longest

import numpy as np

from aimc_sim.errors import UsageError
from aimc_sim.mapping import Assembly, Request, group_size, pieces_of, tile_of, weight_scale
from aimc_sim.specs import ChipSpec
from ssm.forms import StateForm
from ssm.kernels.network import C_PRODUCT, MIX_PRODUCT, PER_LAYER
from ssm.model import Model

PARTS = ("encoder", "readout", "mixing", "decoder")
# plane of A's blocks that each of the four products drives: (row of the state, column)
_LEAPFROG_PLANES: tuple[tuple[int, int], ...] = ((1, 0), (0, 0), (0, 1), (1, 1))
_PAIR_PLANES: tuple[tuple[int, int], ...] = ((0, 0), (1, 0), (0, 1), (1, 1))


@dataclass(frozen=True, eq=False)
class Part:
    """A matrix or block list of the model: its weights and the products that use it.

    weights : (n_blocks, n_in, n_out); scale : largest weight of a column, (n_blocks, 1, n_out)
    or None (set from the weights); row_range : (n_blocks, n_in, 1) full-scale input of a row.
    products : product number of every plane; planes : (row, column) offsets of A's planes.
    per_head : blocks of A that lie in one array with the head's column of C; 0: each for itself.
    places : which of a product's weights are these, in kernel order; None: all of them.
    """

    name: str
    weights: np.ndarray
    products: tuple[int, ...]
    analog: bool
    pair: bool = True
    kind: str = "tile"
    may_split: bool = True
    scale: np.ndarray | None = None
    row_range: np.ndarray | None = None
    planes: tuple[tuple[int, int], ...] = ()
    transposed: bool = False
    per_head: int = 0
    places: np.ndarray | None = None

    def in_kernel_order(self, cells: np.ndarray) -> list[np.ndarray]:
        """Return an array of the cells' shape (..., n_groups, n_in, n_out) as flat products."""
        if self.planes:
            height, width = self.weights.shape[1:]
            return [cells[:, row::height, col::width].ravel() for row, col in self.planes]
        return [(cells.transpose(0, 2, 1) if self.transposed else cells).ravel()]


def list_parts(
    model: Model, forms: list[StateForm], form: str, decay: str, digital: tuple[str, ...]
) -> list[Part]:
    """Return every matrix and block list of the model, in the order of placement."""
    n_layers = model.n_layers
    parts = [Part("encoder", model.encoder_weight[None], (0,), "encoder" not in digital)]
    for number, (layer, a) in enumerate(zip(model.layers, forms, strict=True)):
        first = 1 + number * PER_LAYER
        name = f"layer {number}"
        if a.blocks is not None:
            planes = _LEAPFROG_PLANES if form == "leapfrog" else _PAIR_PLANES
            planes = planes[: 2 * a.blocks.shape[2]]
            parts.append(
                Part(
                    f"{name} A", a.blocks, tuple(range(first, first + len(planes))), True, a.pair,
                    "short_tile", False, scale=a.scale, planes=planes,
                )
            )
        parts.append(
            Part(
                f"{name} C", a.readout[:, :, None], (first + C_PRODUCT,),
                "readout" not in digital, transposed=True,
            )
        )
        parts.append(
            Part(
                f"{name} mixing", layer.mix_weight[None], (first + MIX_PRODUCT,),
                "mixing" not in digital,
            )
        )
    last = 1 + n_layers * PER_LAYER
    parts.append(Part("decoder", model.decoder_weight[None], (last,), "decoder" not in digital))
    return parts


def in_head_arrays(parts: list[Part], form: str, spec: ChipSpec) -> list[Part]:
    """Return the parts with A and C of every head in one array, as the layout "head" asks.

    A column of A must sum its states on one tile, but where each access reads a single cell.

    Raises UsageError where A or C is not on tiles, or where heads of several sizes would be
    driven together.
    """
    heads = [part for part in parts if part.planes or part.transposed]
    if form == "digital" or not all(part.analog for part in heads):
        raise UsageError(
            "place A and C of a head in one array (layout 'head')",
            f"{'A' if form == 'digital' else 'C'} is in digital logic",
            "put both on tiles, or use layout 'packed'",
        )
    result, n_heads = [], {part.name[:-2]: len(part.weights) for part in heads if part.transposed}
    for part in parts:
        if part.planes:
            n = len(part.weights) // n_heads[part.name[:-2]]
            alone = form == "leapfrog" and spec.tile.idle != "g_min"
            part = replace(part, kind="tile", may_split=alone, per_head=n)
        elif part.transposed:
            part = replace(part, per_head=(part.weights.shape[1] - 1) // 2)
        result.append(part)
    sizes = {part.per_head for part in result if part.planes}
    if spec.tile.idle == "g_min" and len(sizes) > 1:
        raise UsageError(
            "drive the idle cells of head arrays (layout 'head', idle cells at g_min)",
            f"layers have heads of {', '.join(map(str, sorted(sizes)))} modes",
            "use idle = 'off' or 'absent', or a model whose heads are of one size",
        )
    return result


def requests_of(parts: list[Part], spec: ChipSpec) -> list[Request | Assembly]:
    """Return what the parts on tiles ask of them, in their order."""
    requests: list[Request | Assembly] = []
    analog = [part for part in parts if part.analog]
    for part, after in zip_longest(analog, analog[1:]):
        if part.planes and part.per_head and after is not None:
            driven = spec.tile.idle == "g_min"
            requests.append(Assembly(request_of(part), request_of(after), driven))
        elif not part.per_head:
            requests.append(request_of(part))
    return requests


def request_of(part: Part) -> Request:
    """Return what the part asks of the tiles."""
    n_blocks, n_in, n_out = part.weights.shape
    return Request(
        part.name, n_blocks, n_in, n_out, pair=part.pair, kind=part.kind, may_split=part.may_split
    )


def group_of(part: Part, spec: ChipSpec) -> int:
    """Return how many of the part's blocks are driven together, 1 in digital logic."""
    if not part.analog or (part.transposed and part.per_head):
        return 1
    if part.per_head:
        return part.per_head if spec.tile.idle == "g_min" else 1
    return group_size(request_of(part), tile_of(spec, part.kind), pieces_of(spec, part.pair).count)


def group_blocks(blocks: np.ndarray, group: int) -> np.ndarray:
    """Return blocks (n, r, c) as block-diagonal groups (ceil(n / group), group r, group c)."""
    n, rows, cols = blocks.shape
    n_groups = -(-n // group)
    grouped = np.zeros((n_groups, group * rows, group * cols))
    for j in range(group):
        own = blocks[j::group]
        grouped[: len(own), j * rows : (j + 1) * rows, j * cols : (j + 1) * cols] = own
    return grouped


def scales_of(part: Part, group: int, spec: ChipSpec) -> np.ndarray:
    """Return the weight of one siemens for every cell pair, the shape of the grouped weights."""
    span = spec.device.g_max_s - spec.device.g_min_s
    rows = np.ones((*part.weights.shape[:2], 1)) if part.row_range is None else part.row_range
    if part.scale is None:
        columns = weight_scale(part.weights * rows, spec.device, spec.weight_scale)
    else:
        columns = part.scale / span
    n_blocks, _, n_out = part.weights.shape
    columns = np.broadcast_to(columns, (n_blocks, 1, n_out))
    n_groups = -(-n_blocks // group)
    wide = np.ones((n_groups * group, n_out))
    wide[:n_blocks] = columns[:, 0]
    tall = np.ones((n_groups * group, rows.shape[1]))
    tall[:n_blocks] = rows[:, :, 0]
    return wide.reshape(n_groups, 1, -1) / tall.reshape(n_groups, -1, 1)
