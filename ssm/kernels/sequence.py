"""The whole recurrent run in compiled code: one call for all steps of a sequence."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numba
import numpy as np

from aimc_sim.kernels._jit import kernel
from aimc_sim.kernels.cells import Draws, add_slow_noise, fill_cell_normals
from aimc_sim.kernels.moving import (
    MOVING,
    Source,
    add_levels,
    advance,
    moving_keys,
    start_moving,
)
from aimc_sim.kernels.mvm import read_streams
from aimc_sim.kernels.noise import expect_reads
from ssm.kernels import activation, state
from ssm.kernels.network import (
    A_PRODUCT,
    C_PRODUCT,
    MIX_PRODUCT,
    PER_LAYER,
    Tiles,
    Weights,
    Workspace,
)
from ssm.kernels.product import copy, dense, drive_inputs, read_heads

_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)
_0 = np.uint64(0)
_ENCODER = np.int64(0)  # a bare 0 would compile `dense` once more, for the literal
_NO_TRACE = np.zeros((0, 2, 0), np.float32)


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


@kernel(paste=True)
def gather_tiles(network, weights, converters, record, work):
    """Return the Tiles of a running sequence."""
    return Tiles(
        network.weight_first, network.part_rows, network.analog, weights.w, weights.v,
        weights.spread, weights.noisy, weights.keys, weights.offset, converters.dac_limit,
        converters.state_step, converters.state_inverse, converters.adc_limit,
        converters.adc_noise, converters.adc_first, converters.adc_step, converters.adc_inverse,
        record.on, record.states, record.outputs, work.y, work.s, work.total, work.z,
    )


@kernel(paste=True)
def step_layer(layer, network, tiles, converters, record, address, states, work):
    """Advance one layer by a time step: work.h (H,) in and out, states (2 K,) in place."""
    n_heads = network.n_heads
    first = network.mode_first[layer]
    n = network.mode_first[layer + 1] - first
    n_modes = n // n_heads
    product = 1 + layer * PER_LAYER
    h, u, work_out = work.h, work.u, work.out
    scale, shift = network.norm_scale[layer], network.norm_shift[layer]
    heads = np.uint64(n_heads)
    if network.norm == 1:
        activation.normalise(h, scale, shift, network.norm_epsilon, network.affine_norm, u)
    else:
        copy(h, _0, heads, u)
    a = product + A_PRODUCT
    if network.form == 0:
        state.advance_digital(first, n, states, network.pole)
    elif network.form == 3:
        state.advance_leapfrog(
            a, first, n, network.group_a, network.digital_decay, network.sign, network.decay,
            states, tiles, address, work.x0,
        )
    else:
        keep = _ZERO if network.form == 1 else _ONE
        state.advance_pairs(
            a, first, n, network.group_a, keep, states, tiles, address, work.x0, work.x1
        )
    state.add_input(u, first, n_modes, states)
    half = states.size // 2
    if converters.state_limit > _ZERO:
        state.hold(first, n, states, converters.register_step, converters.state_limit)
        state.hold(half + first, n, states, converters.register_step, converters.state_limit)
    c = product + C_PRODUCT
    if network.analog[c]:
        for plane in range(2):
            state.drive_states(
                np.uint64(plane * half + first), np.uint64(n), states, tiles,
                work.x0 if plane == 0 else work.x1,
            )
        drive_inputs(
            u, converters.skip_step[layer], converters.dac_limit, record.skips[layer], record.on,
            work_out,
        )
    else:
        copy(states, np.uint64(first), np.uint64(n), work.x0)
        copy(states, np.uint64(half + first), np.uint64(n), work.x1)
        copy(u, _0, heads, work_out)
    read_heads(c, work.x0, work.x1, work_out, n_modes, network.group_c, tiles, address)
    copy(work.total, _0, heads, work_out)
    activation.gelu(work_out)
    mix = product + MIX_PRODUCT
    n_mix = network.mix_bias.shape[1]
    limit = converters.dac_limit if network.analog[mix] else _ZERO
    drive_inputs(work_out, converters.mix_step[layer], limit, record.mixes[layer], record.on, u)
    dense(mix, u, n_mix, tiles, address)
    mixed = work.total
    for j in range(n_mix):
        mixed[j] += network.mix_bias[layer, j]
    if network.glu:
        activation.gate(mixed, n_heads, work_out)
    else:
        copy(mixed, _0, heads, work_out)
    for k in range(n_heads):
        h[k] += work_out[k]
    if network.norm == 2:
        activation.normalise(h, scale, shift, network.norm_epsilon, network.affine_norm, u)
        copy(u, _0, heads, h)


@kernel(paste=True)
def step_network(x, address, network, tiles, converters, record, states, work):
    """One time step: input x (n_in,) to the last layer's output in work.h (H,)."""
    n_heads = network.n_heads
    limit = converters.dac_limit if network.analog[0] else _ZERO
    drive_inputs(x, converters.input_step, limit, record.inputs, record.on, work.inputs)
    dense(_ENCODER, work.inputs, n_heads, tiles, address)
    for h in range(n_heads):
        work.h[h] = work.total[h] + network.encoder_bias[h]
    for layer in range(network.mode_first.size - 1):
        step_layer(layer, network, tiles, converters, record, address, states, work)


@kernel(paste=True)
def decode(address, network, tiles, converters, record, work, logits):
    """logits (n_classes,) = decoder of the pooled output in work.h (H,)."""
    product = network.analog.size - 1
    limit = converters.dac_limit if network.analog[product] else _ZERO
    drive_inputs(work.h, converters.decode_step, limit, record.decodes, record.on, work.u)
    dense(product, work.u, logits.size, tiles, address)
    for j in range(logits.size):
        logits[j] = work.total[j] + network.decoder_bias[j]


@kernel()
def run_steps(
    x, first_step, sample, moment, network, weights, converters, record, states, pooled, work,
    logits, trace,
):
    """Run the steps x (time, n_in) of one sequence; logits (n_classes,) after the last come out.

    states (2 K,), pooled (H,) are those after the steps before first_step, in place (zeros for a
    new sequence). trace : (time, 2, K) states after every step, or (0, 2, K) for none.
    """
    tiles = gather_tiles(network, weights, converters, record, work)
    half = states.size // 2
    for step in range(x.shape[0]):
        if weights.moving.on:
            advance(weights.moving, np.int64(first_step + step), weights.w)
        address = (np.uint64(first_step + step), np.uint64(sample), moment)
        step_network(x[step], address, network, tiles, converters, record, states, work)
        for h in range(pooled.size):
            pooled[h] = work.h[h] if network.pool_last else pooled[h] + work.h[h]
        if trace.shape[0] > 0:
            for k in range(half):
                trace[step, 0, k], trace[step, 1, k] = states[k], states[half + k]
    n_steps = first_step + x.shape[0]
    address = (np.uint64(n_steps), np.uint64(sample), moment)
    for h in range(pooled.size):
        work.h[h] = pooled[h] if network.pool_last else pooled[h] / np.float32(n_steps)
    decode(address, network, tiles, converters, record, work, logits)


def make_work(network, n_classes, n_work, n_z):
    """Return the buffers of one sequence (see network.Workspace)."""
    n_modes = int(np.diff(network.mode_first).max())
    n = network.n_heads
    sizes = (n, n, n, n_modes, n_modes, network.n_in, n_work, n_work, n_work, n_z + 64)
    return Workspace(*(np.zeros(size, np.float32) for size in sizes))


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
    replica, sample, draws, cells, telegraph, g, correction, network, converters, source
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
    return Weights(w, v, spread, noisy, keys, correction.offset, moving)


def run_batch(
    x, first_sample, draws, cells, telegraphs, g, corrections, network, converters, record, source,
    n_work, n_z, logits, traces,
):
    """All sequences on all replicas: logits (replica, n, n_classes) are filled.

    x (n, time, n_in) float32; g (replica, n_cells); telegraphs, corrections: one a replica; traces
    (replica, n, time or 0, 2, K). The threads share the axis replica x sequence; they are
    Python's, since the kernels hold no lock and a parallel loop of numba would compile all that
    it calls three times more. A sequence costs some 40 us outside the kernels.
    """
    n_replicas, n_samples, n_classes = logits.shape

    def run_jobs(begin, end):
        work = make_work(network, n_classes, n_work, n_z)
        for job in range(begin, end):
            replica, i = divmod(job, n_samples)
            sample = first_sample + i
            weights = sequence_weights(
                replica, sample, draws, cells, telegraphs[replica], g[replica],
                corrections[replica], network, converters, source,
            )
            states = np.zeros(2 * network.sign.size, np.float32)
            pooled = np.zeros(network.n_heads, np.float32)
            run_steps(
                x[i], 0, sample, source.moment, network, weights, converters, record, states,
                pooled, work, logits[replica, i], traces[replica, i],
            )

    n_jobs = n_replicas * n_samples
    n_threads = min(numba.get_num_threads(), n_jobs)
    bounds = [n_jobs * k // n_threads for k in range(n_threads + 1)]
    if n_threads == 1:
        run_jobs(0, n_jobs)
        return
    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(run_jobs, bounds[:-1], bounds[1:]))


def step_one(
    x, step, sample, moment, network, weights, converters, record, states, pooled, logits, work
):
    """One step of one stream: states (2 K,), pooled (H,) in place, logits (n_classes,) so far."""
    run_steps(
        x[None], step, sample, moment, network, weights, converters, record, states, pooled, work,
        logits, _NO_TRACE,
    )
