"""What the cells stand for in one sequence: weights, their variances, and how they move."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from aimc_sim.kernels._jit import kernel
from aimc_sim.kernels.cells import Draws, add_slow_noise, fill_cell_normals
from aimc_sim.kernels.moving import (
    MOVING,
    Source,
    add_levels,
    moving_keys,
    start_moving,
)
from aimc_sim.kernels.mvm import read_streams
from aimc_sim.kernels.noise import expect_reads
from ssm.kernels.network import PER_LAYER, Weights

_ZERO = np.float32(0.0)


class Cells(NamedTuple):
    """The chip's cells and how weights are read from them.

    A weight is the sum of n_pieces cells or pairs of cells.
    """

    noise_s: np.ndarray  # (n_replicas, n_cells) float32 read noise before its factor of time
    white_s: np.ndarray  # (n_replicas, n_cells) float32 further noise, new at each read
    slow: np.float32  # factor of the noise that lasts for a sequence
    fast: np.float32  # factor of the noise that is new at each read
    bands: np.ndarray  # (n_bands,) float32 factors of the noise that moves with the steps
    pace: float  # 1/ln(1 - p), p the chance that a group's bands are drawn anew in a step
    floor_s: np.float32
    ceiling_s: np.float32
    unconnected: np.ndarray  # (n_replicas, n_cells) bool cells without current, or (n_replicas, 0)
    g_min_s: np.float32
    plus: np.ndarray  # (n_pieces, n_weights) int64 cell of a weight, -1: digital
    minus: np.ndarray  # (n_pieces, n_weights) int64, -1: single cell against g_min
    scale: np.ndarray  # (n_pieces, n_weights) float32 weight of one siemens
    exact: np.ndarray  # (n_weights,) float32 the weight itself, where it is digital
    owner: np.ndarray  # (n_cells,) int64 weight of a cell; (0,) without telegraph noise
    turn: np.ndarray  # (n_cells,) float32 its change per siemens
    # what the lines of the tiles make of cells, (n_replicas, n_cells) float32 or (n_replicas, 0):
    shift: np.ndarray  # terminals see shift + slope g
    slope: np.ndarray
    extra: np.ndarray  # variance from other cells of the line


class Correction(NamedTuple):
    """What the digital side does about drift, of one replica."""

    gain: np.ndarray  # (n_weights,) float32 gain of the column that a weight lies in
    offset: np.ndarray  # (n_outputs,) float32 offset of every converted output, or (0,): none


def no_cells(w):
    """Return cells, draws and source of a run with exact weights w (n_weights,) and no cells."""
    none = np.full((1, w.size), -1)
    zeros = np.zeros(0, np.float32)
    cells = Cells(
        np.zeros((1, 1), np.float32), np.zeros((1, 1), np.float32), _ZERO, _ZERO, zeros, 0.0,
        _ZERO, _ZERO, np.zeros((1, 0), np.bool_), _ZERO, none, none,
        np.zeros((1, w.size), np.float32), w, np.zeros(0, np.int64), zeros,
        *[np.zeros((1, 0), np.float32)] * 3,
    )
    draws = Draws(np.zeros(0, np.int32), np.zeros(0, np.uint64), np.zeros(1, np.int32))
    zero = np.uint64(0)
    return cells, draws, Address(zero, zero, 0, zero, 0, 0, 0, 0, 0)


def no_correction(w):
    """Return the correction that leaves weights w (n_weights,) and outputs as they are."""
    return Correction(np.ones(w.size, np.float32), np.zeros(0, np.float32))


class Address(NamedTuple):
    """Where a run's draws come from."""

    seed0: np.uint64
    seed1: np.uint64
    first_replica: int
    moment: np.uint64  # clock word
    slow_purpose: int
    read_purpose: int
    band_purpose: int
    refresh_purpose: int
    switch_purpose: int


def differs_by_sequence(cells, telegraph):
    """Return whether two sequences on a replica find other weights: noise that lasts or moves."""
    return cells.slow > _ZERO or cells.bands.size > 0 or telegraph.cell.size > 0


@kernel()
def read_weights(cells, mean, variance, gain, w, v):
    """Fill w, v (n_weights,) with what one sequence finds: mean and variance of a read.

    mean, variance : of a read of every cell, (n_cells,) float32. gain : (n_weights,).
    """
    n_pieces = cells.plus.shape[0]
    for k in range(w.size):
        if cells.plus[0, k] < 0:
            w[k] = cells.exact[k]
            v[k] = _ZERO
            continue
        total, spread = _ZERO, _ZERO
        for piece in range(n_pieces):
            plus, minus = cells.plus[piece, k], cells.minus[piece, k]
            scale = cells.scale[piece, k] / gain[k]
            if minus < 0:
                total += (mean[plus] - cells.g_min_s) * scale
                spread += variance[plus] * scale * scale
            else:
                total += (mean[plus] - mean[minus]) * scale
                spread += (variance[plus] + variance[minus]) * scale * scale
        w[k] = total
        v[k] = spread


@kernel(allocates=True, paste=True)
def find_noisy(network, cells, v, converters):
    """Return (n_products,) bool: products with any read or ADC noise."""
    n = network.analog.size
    noisy = np.zeros(n, np.bool_)
    for product in range(n):
        if not network.analog[product]:
            continue
        if converters.adc_noise > _ZERO and converters.adc_limit > _ZERO:
            noisy[product] = True
        for k in range(network.weight_first[product], network.weight_first[product + 1]):
            if v[k] > _ZERO:
                noisy[product] = True
                break
    if network.form == 1 or network.form == 2:  # two planes of A share a column and its ADC
        for product in range(1, n - 1, PER_LAYER):
            noisy[product] |= noisy[product + 1]
            noisy[product + 2] |= noisy[product + 3]
    return noisy


@kernel(allocates=True)
def start_weights(cells, telegraph, moving, jump, gain, source, w):
    """Return the Moving of a sequence and change the weights w to its first step.

    moving : (n_cells,) float32 variance of the bands of a cell, (0,) without bands. jump : (n,)
    float32 [S] of the cells with telegraph noise.
    """
    strength = np.empty(w.size if moving.size > 0 else 0, np.float32)
    if moving.size > 0:
        unused = np.empty(w.size, np.float32)
        read_weights(cells, moving, moving, gain, unused, strength)
        for k in range(w.size):
            strength[k] = np.sqrt(strength[k])
    owner = np.empty(jump.size, np.int64)
    turned = np.empty(jump.size, np.float32)
    on = moving.size > 0
    for t in range(jump.size):
        owner[t] = cells.owner[telegraph.cell[t]]
        turned[t] = jump[t] * cells.turn[telegraph.cell[t]] / gain[owner[t]]
        on |= telegraph.kind[t] == MOVING
    return start_moving(
        on, cells.pace, cells.bands, strength, telegraph, turned, owner, source, w
    )


@kernel(paste=True)
def lead_to_terminals(replica, cells, telegraph, mean, variance, moving, jump):
    """Turn what reads of cells find into what the terminals of their tiles see, in place."""
    for i in range(cells.slope.shape[1]):
        slope = cells.slope[replica, i]
        mean[i] = cells.shift[replica, i] + slope * mean[i]
        variance[i] = slope * slope * variance[i] + cells.extra[replica, i]
        if moving.size > 0:
            moving[i] *= slope * slope
    if cells.slope.shape[1] > 0:
        for t in range(jump.size):
            jump[t] *= cells.slope[replica, telegraph.cell[t]]


@kernel(allocates=True)
def sequence_weights(
    replica, sample, draws, cells, telegraph, g, correction, periphery, network, converters, source
):
    """Return the Weights of one sequence on one replica: slow noise drawn, variances made.

    g : (n_cells,) float32 [S] before read noise.
    """
    number = source.first_replica + replica
    address = np.empty(2, np.uint64)
    address[0], address[1] = np.uint64(sample), source.moment
    own = Source(
        moving_keys(
            source.seed0, source.seed1, number, cells.bands.size, source.band_purpose,
            source.refresh_purpose, source.switch_purpose,
        ),
        address,
    )
    base = g
    if cells.slow > _ZERO:
        z = np.empty(4 * draws.counter.size, np.float32)
        fill_cell_normals(
            draws, source.seed0, source.seed1, source.slow_purpose,
            number, np.uint64(sample), source.moment, z,
        )
        base = np.empty(g.size, np.float32)
        add_slow_noise(z, draws.index, cells.noise_s[replica], cells.slow, g, base)
    elif telegraph.cell.size > 0:
        base = g.copy()
    add_levels(telegraph, own, False, base)
    n_weights = cells.exact.size
    w = np.empty(n_weights, np.float32)
    v = np.empty(n_weights, np.float32)
    mean, variance = np.empty(g.size, np.float32), np.empty(g.size, np.float32)
    spreads = np.empty(g.size if cells.bands.size > 0 else 0, np.float32)
    jump = np.zeros(telegraph.cell.size, np.float32)
    bands = _ZERO
    for k in range(cells.bands.size):
        bands += cells.bands[k] * cells.bands[k]
    expect_reads(
        base, cells.noise_s[replica], cells.white_s[replica], cells.fast, np.sqrt(bands),
        cells.floor_s, cells.ceiling_s, telegraph, mean, variance, spreads, jump,
    )
    for i in range(cells.unconnected.shape[1]):
        if cells.unconnected[replica, i]:
            mean[i], variance[i] = _ZERO, _ZERO
    lead_to_terminals(replica, cells, telegraph, mean, variance, spreads, jump)
    read_weights(cells, mean, variance, correction.gain, w, v)
    moving = start_weights(cells, telegraph, spreads, jump, correction.gain, own, w)
    noisy = find_noisy(network, cells, v, converters)
    places = np.empty(network.analog.size, np.int64)
    for product in range(places.size):
        places[product] = product
    keys = read_streams(source.seed0, source.seed1, source.read_purpose, number, places)
    spread = np.empty(w.size, np.float32)
    for k in range(w.size):
        spread[k] = np.sqrt(v[k])
    return Weights(w, v, spread, noisy, keys, correction.offset, moving, periphery)
