"""Which rows and converters the weights of a deployment lie between, and the converters' errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from aimc_sim.chip import Chip
from aimc_sim.compensation import Wiring
from aimc_sim.converters import draw_periphery, has_adc_errors, has_dac_errors, no_periphery
from aimc_sim.mapping import tile_of
from ssm.kernels.network import (
    A_PRODUCT,
    C_PRODUCT,
    FORM_CODES,
    MIX_PRODUCT,
    PER_LAYER,
    Converters,
    Network,
)

if TYPE_CHECKING:
    from aimc_sim.kernels.converters import Periphery
    from ssm.deploy import Deployment

_LEAPFROG_STATES = (1, 0, 0, 1)  # which real state drives each plane of A
_PAIR_STATES = (0, 1, 0, 1)


def draw_peripheries(d: Deployment, chip: Chip) -> list[Periphery]:
    """Return the converters of every replica of a chip, with the errors of its own.

    An output is converted by the ADC of its first bit line; outputs that use the same line one
    after the other share that ADC. Every row of the model has one DAC, on all tiles it drives.
    """
    c = d.converters
    if not has_dac_errors(d.spec) and not has_adc_errors(d.spec):
        return [no_periphery(c.n_planes)] * chip.n_replicas
    wiring = wire(d.network, c)
    tile, col = _bit_lines(d)
    on_tiles = np.flatnonzero((wiring.column >= 0) & (d.weights.plus[0] >= 0))
    outputs, first = np.unique(wiring.column[on_tiles], return_index=True)
    cells = d.weights.plus[0][on_tiles[first]]
    of_output = np.zeros((2, c.adc_step.size), np.int64)  # what is digital has none: any number
    of_output[:, outputs] = tile[cells], col[cells]
    places = np.arange(d.network.analog.size)
    return [
        draw_periphery(
            d.spec, chip.seed_words, chip.first_replica + replica, wiring.dac_step.size,
            of_output[0], of_output[1], places, c.dac_limit, c.adc_limit,
        )._replace(n_planes=c.n_planes)
        for replica in range(chip.n_replicas)
    ]


def _bit_lines(d: Deployment) -> tuple[np.ndarray, np.ndarray]:
    """Return tile and bit line of every cell of a chip, (n_cells,) each."""
    arrays = d.layout.arrays
    if not arrays:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    cols = [tile_of(d.spec, array.request.kind).cols for array in arrays]
    tile = np.concatenate([array.tile.ravel() for array in arrays])
    col = [a.element.ravel() % n for a, n in zip(arrays, cols, strict=True)]
    return tile, np.concatenate(col)


def wire(network: Network, converters: Converters) -> Wiring:
    """Return between which rows and converted outputs every weight on tiles lies.

    Rows, one after the other: inputs of the encoder, both real states of every mode, and of
    every head of every layer the skip input and the input of the mixing matrix; last the
    decoder's. A and C read the same states.
    """
    c, n_heads = converters, network.n_heads
    steps = [c.input_step, c.state_step, c.skip_step.ravel(), c.mix_step.ravel(), c.decode_step]
    inputs, states, skips, mixes, decodes, _ = np.cumsum([0, *(step.size for step in steps)])
    row = np.full(network.weight_first[-1], -1, np.int64)
    column = np.full(row.size, -1, np.int64)

    def put(product: int, rows: np.ndarray, columns: np.ndarray, output_of: int = -1) -> None:
        if network.analog[product]:
            own = slice(network.weight_first[product], network.weight_first[product + 1])
            first = c.adc_first[product if output_of < 0 else output_of]
            rows, columns = np.broadcast_arrays(rows, columns)
            there = (rows >= 0) & (columns >= 0)
            row[own] = np.where(there, rows, -1).ravel()
            column[own] = np.where(there, first + columns, -1).ravel()

    def put_dense(product: int, first_row: int, n_in: int, n_out: int) -> None:
        i, j = np.arange(n_in)[:, None], np.arange(n_out)
        put(product, first_row + i, i // network.part_rows[product] * n_out + j)

    put_dense(0, inputs, network.n_in, n_heads)
    n_layers, n_mix = network.mix_bias.shape
    imaginary = network.sign.size
    for layer in range(n_layers):
        product = 1 + layer * PER_LAYER
        first = states + network.mode_first[layer]
        n = int(network.mode_first[layer + 1] - network.mode_first[layer])
        modes_in, modes_out = _group_pairs(n, network.group_a)
        leapfrog = network.form == FORM_CODES["leapfrog"]
        for plane in range(4):
            state = first + imaginary * (_LEAPFROG_STATES if leapfrog else _PAIR_STATES)[plane]
            rows = np.where(modes_in < n, state + modes_in, -1)
            shared = plane if leapfrog else plane // 2 * 2  # two planes of a pair form, one ADC
            put(
                product + A_PRODUCT + plane, rows, np.where(modes_out < n, modes_out, -1),
                product + A_PRODUCT + shared,
            )
        head_rows = _readout_rows(
            first, first + imaginary, skips + layer * n_heads, n // n_heads, n_heads,
            network.group_c,
        )
        part = np.arange(head_rows.shape[1]) // network.part_rows[product + C_PRODUCT]
        head = np.arange(len(head_rows))[:, None]
        columns = np.where(head < n_heads, part * n_heads + head, -1)
        put(product + C_PRODUCT, head_rows, columns)
        put_dense(product + MIX_PRODUCT, mixes + layer * n_heads, n_heads, n_mix)
    put_dense(network.analog.size - 1, decodes, n_heads, network.decoder_bias.size)
    return Wiring(
        row, column, np.concatenate(steps), c.adc_step, c.dac_limit, c.adc_limit, c.adc_noise,
        c.adc_first, c.n_planes,
    )


def _group_pairs(n: int, group: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the modes of row and column of A's cells, (n_groups, group, group); some >= n."""
    modes = np.arange(-(-n // group) * group).reshape(-1, group)
    rows, columns = np.broadcast_arrays(modes[:, :, None], modes[:, None, :])
    return rows, columns


def _readout_rows(
    real: int, imaginary: int, skip: int, n_modes: int, n_heads: int, group: int
) -> np.ndarray:
    """Return the rows of C's columns, (heads in whole groups, group (2 n_modes + 1)), -1: none."""
    head = np.arange(-(-n_heads // group) * group)[:, None] // group * group + np.arange(group)
    modes = head[:, :, None] * n_modes + np.arange(n_modes)
    rows = np.concatenate([real + modes, imaginary + modes, skip + head[:, :, None]], axis=2)
    rows[head >= n_heads] = -1
    return rows.reshape(len(head), -1)
