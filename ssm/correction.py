"""What the digital side of a chip that runs a model does about drift: gains and offsets."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from aimc_sim.chip import Chip
from aimc_sim.compensation import calibration_reads, fit_columns, global_gain
from aimc_sim.randomness import Purpose
from ssm.kernels.network import (
    C_PRODUCT,
    MIX_PRODUCT,
    PER_LAYER,
    Network,
)
from ssm.kernels.weights import Cells, Correction, read_weights
from ssm.ranges import output_counts
from ssm.wiring import wire

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aimc_sim.kernels.converters import Periphery
    from ssm.deploy import Deployment

@dataclass(frozen=True, eq=False)
class Corrections:
    """What is done about drift at one moment.

    each : one correction for every chip. left_alone : (chips,) columns whose fit said nothing.
    """

    each: list[Correction]
    left_alone: np.ndarray


def correct(
    d: Deployment, chip: Chip, cells: Cells, peripheries: Sequence[Periphery]
) -> Corrections:
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
        wiring = wire(d.network, d.converters)
        there = wiring.column >= 0
        one = np.ones(gain.shape[1], np.float32)
        w, v = np.empty_like(one), np.empty_like(one)
        for replica in range(n_chips):
            reads = chip.expected(replica, purpose=Purpose.COMPENSATE)
            read_weights(cells, reads.mean_s, reads.variance, one, w, v)
            fit = fit_columns(
                chip, wiring, d.weights.exact, w, v, replica, peripheries[replica]
            )
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
