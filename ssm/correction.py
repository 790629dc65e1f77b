"""What the digital side of a chip that runs a model does about drift: gains and offsets."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from aimc_sim.chip import Chip
from aimc_sim.compensation import Wiring, calibration_reads, fit_columns, global_gain
from aimc_sim.randomness import Purpose
from ssm.kernels.network import (
    A_PRODUCT,
    C_PRODUCT,
    FORM_CODES,
    MIX_PRODUCT,
    PER_LAYER,
    Converters,
    Network,
)
from ssm.kernels.weights import Cells, Correction, read_weights
from ssm.places import of_cells_alone
from ssm.ranges import output_counts

if TYPE_CHECKING:
    from ssm.deploy import Deployment

_LEAPFROG_STATES = (1, 0, 0, 1)  # which real state drives each plane of A
_PAIR_STATES = (0, 1, 0, 1)


@dataclass(frozen=True, eq=False)
class Corrections:
    """What is done about drift at one moment.

    each : one correction for every chip. left_alone : (chips,) columns whose fit said nothing.
    """

    each: list[Correction]
    left_alone: np.ndarray


def correct(d: Deployment, chip: Chip, cells: Cells) -> Corrections:
    """Return what the compensation of the chip's spec finds now, for every chip."""
    none = np.zeros(0, np.float32)
    n_chips = chip.n_replicas
    left_alone = np.zeros(n_chips, np.int64)
    gain = np.ones((n_chips, d.weights.product.size), np.float32)
    offsets = [none] * n_chips
    if d.spec.compensation == "global":
        found = global_gain(chip, [own for own, _ in d.compensated])
        of_product = np.ones((n_chips, d.network.analog.size))
        for k, (_, products) in enumerate(d.compensated):
            of_product[:, list(products)] = found[:, k : k + 1]
        gain = of_product[:, d.weights.product].astype(np.float32)
    elif d.spec.compensation in ("column", "affine"):
        wiring = of_cells_alone(wire(d.network, d.converters), d.weights.plus[0])
        there = wiring.column >= 0
        one = np.ones(gain.shape[1], np.float32)
        w, v = np.empty_like(one), np.empty_like(one)
        for replica in range(n_chips):
            reads = chip.expected(replica, purpose=Purpose.COMPENSATE)
            read_weights(cells, reads.mean_s, reads.variance, one, w, v)
            fit = fit_columns(chip, wiring, d.weights.exact, w, v, replica)
            gain[replica, there] = fit.gain[wiring.column[there]]
            left_alone[replica] = fit.left_alone.sum()
            if d.spec.compensation == "affine":
                offsets[replica] = fit.offset.astype(np.float32)
        if left_alone.any():
            warnings.warn(
                "some columns keep gain 1: calibration reads cannot tell their gain from zero",
                stacklevel=3,
            )
    each = [Correction(*pair) for pair in zip(gain, offsets, strict=True)]
    return Corrections(each, left_alone)


def reads_of_correction(d: Deployment) -> int:
    """Return how many calibration reads the compensation takes, of one chip at one moment."""
    return calibration_reads(d.spec, len(d.compensated), _n_parts(d.network))


def _n_parts(network: Network) -> int:
    """Return the number of row parts of all products on tiles; one list of blocks is one."""
    counts = output_counts(network)
    total = 0
    for product in np.flatnonzero(network.analog & (counts > 0)):
        kind = (product - 1) % PER_LAYER
        if product == 0 or (product < counts.size - 1 and kind == C_PRODUCT):
            width = network.n_heads
        elif product == counts.size - 1:
            width = network.decoder_bias.size
        elif kind == MIX_PRODUCT:
            width = network.mix_bias.shape[1]
        else:
            width = int(counts[product])
        total += int(counts[product]) // width
    return total


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
        c.adc_first,
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
