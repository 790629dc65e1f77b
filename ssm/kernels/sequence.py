"""The whole recurrent run in compiled code: one call for all replicas, sequences and steps."""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from aimc_sim.kernels._jit import kernel
from aimc_sim.kernels.cells import Draws, add_slow_noise, clip_cells, fill_cell_normals
from aimc_sim.kernels.mvm import read_streams
from ssm.kernels import activation, state
from ssm.kernels.network import (
    A_PRODUCT,
    C_PRODUCT,
    MIX_PRODUCT,
    PER_LAYER,
    Weights,
    Workspace,
)
from ssm.kernels.product import copy, dense, drive_inputs, read_heads

_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)
_0 = np.uint64(0)


class Cells(NamedTuple):
    """The chip's cells and how weights are read from them (their draws travel beside it:
    numba's parallel loops take no nested tuples)."""

    n_tiles: int
    quality: np.ndarray  # (n_replicas, n_cells) float32 read noise of a cell
    slow: np.float32  # factor of the noise that lasts for a sequence
    fast: np.float32  # factor of the noise that is new at each read
    relative: bool
    floor_s: np.float32
    ceiling_s: np.float32
    g_min_s: np.float32
    plus: np.ndarray  # (n_weights,) int64 cell of a weight, -1: digital
    minus: np.ndarray  # (n_weights,) int64, -1: single cell against g_min
    scale: np.ndarray  # (n_weights,) float32 weight of one siemens
    exact: np.ndarray  # (n_weights,) float32 the weight itself, where it is digital
    product: np.ndarray  # (n_weights,) int64 product that a weight belongs to


def no_cells(w):
    """Return cells, draws and source of a run with exact weights w (n_weights,) and no cells."""
    none = np.full(w.size, -1)
    cells = Cells(
        0, np.zeros((1, 1), np.float32), _ZERO, _ZERO, True, _ZERO, _ZERO, _ZERO, none, none,
        np.zeros(w.size, np.float32), w, np.zeros(w.size, np.int64),
    )
    draws = Draws(np.zeros(0, np.int32), np.zeros(0, np.uint64), np.zeros(1, np.int32))
    zero = np.uint64(0)
    return cells, draws, Address(zero, zero, 0, zero, 0, 0)


class Address(NamedTuple):
    """Where a run's draws come from."""

    seed0: np.uint64
    seed1: np.uint64
    first_replica: int
    moment: np.uint64  # clock word
    slow_purpose: int
    read_purpose: int


@kernel()
def read_weights(draws, cells, quality, g, gain, z, out, w, v):
    """Fill w, v (n_weights,) with what one sequence finds in cells g (n_cells,) float32 [S].

    z : block normals of the slow noise; out (n_cells,) scratch; gain (n_products,) of drift.
    """
    if cells.slow > _ZERO:
        add_slow_noise(
            z, draws.index, quality, cells.slow, cells.relative,
            cells.floor_s, cells.ceiling_s, g, out,
        )
    else:
        clip_cells(cells.floor_s, cells.ceiling_s, g, out)
    for k in range(w.size):
        plus, minus = cells.plus[k], cells.minus[k]
        if plus < 0:
            w[k] = cells.exact[k]
            v[k] = _ZERO
            continue
        scale = cells.scale[k] / gain[cells.product[k]]
        sigma = quality[plus] * cells.fast
        if cells.relative:
            sigma *= g[plus]
        variance = sigma * sigma
        if minus < 0:
            w[k] = (out[plus] - cells.g_min_s) * scale
        else:
            w[k] = (out[plus] - out[minus]) * scale
            sigma = quality[minus] * cells.fast
            if cells.relative:
                sigma *= g[minus]
            variance += sigma * sigma
        v[k] = variance * scale * scale


@kernel(allocates=True)
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


@kernel()
def step_layer(layer, network, weights, converters, record, address, states, work):
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
            a, first, n, states, network, weights, converters, record, address, work
        )
    else:
        state.advance_pairs(
            a, first, n, states, network, weights, converters, record, address, work
        )
    state.add_input(u, first, n_modes, states)
    half = states.size // 2
    if converters.state_limit > _ZERO:
        state.hold(first, n, states, converters.register_step, converters.state_limit)
        state.hold(half + first, n, states, converters.register_step, converters.state_limit)
    c = product + C_PRODUCT
    if network.analog[c]:
        limit = converters.dac_limit
        for plane in range(2):
            state.drive_states(
                np.uint64(plane * half + first), np.uint64(n), states, converters.state_step,
                converters.state_inverse, limit, record.on, record.states,
                work.x0 if plane == 0 else work.x1,
            )
        drive_inputs(
            u, converters.skip_step[layer], limit, record.skips[layer], record.on, work_out
        )
    else:
        copy(states, np.uint64(first), np.uint64(n), work.x0)
        copy(states, np.uint64(half + first), np.uint64(n), work.x1)
        copy(u, _0, heads, work_out)
    read_heads(
        c, work.x0, work.x1, work_out, n_modes, network, weights, converters, record, address,
        work,
    )
    copy(work.total, _0, heads, work_out)
    activation.gelu(work_out)
    mix = product + MIX_PRODUCT
    n_mix = network.mix_bias.shape[1]
    limit = converters.dac_limit if network.analog[mix] else _ZERO
    drive_inputs(work_out, converters.mix_step[layer], limit, record.mixes[layer], record.on, u)
    dense(mix, u, n_mix, network, weights, converters, record, address, work)
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


@kernel()
def step_network(x, step, sample, moment, network, weights, converters, record, states, work):
    """One time step: input x (n_in,) to the last layer's output in work.h (H,)."""
    address = (np.uint64(step), np.uint64(sample), moment)
    n_heads = network.n_heads
    rows = work.inputs[: network.n_in]
    limit = converters.dac_limit if network.analog[0] else _ZERO
    drive_inputs(x, converters.input_step, limit, record.inputs, record.on, rows)
    dense(0, rows, n_heads, network, weights, converters, record, address, work)
    for h in range(n_heads):
        work.h[h] = work.total[h] + network.encoder_bias[h]
    for layer in range(network.mode_first.size - 1):
        step_layer(layer, network, weights, converters, record, address, states, work)


@kernel()
def decode(pooled, step, sample, moment, network, weights, converters, record, work, logits):
    """logits (n_classes,) = decoder of the pooled output (H,)."""
    address = (np.uint64(step), np.uint64(sample), moment)
    product = network.analog.size - 1
    limit = converters.dac_limit if network.analog[product] else _ZERO
    drive_inputs(pooled, converters.decode_step, limit, record.decodes, record.on, work.u)
    dense(product, work.u, logits.size, network, weights, converters, record, address, work)
    for j in range(logits.size):
        logits[j] = work.total[j] + network.decoder_bias[j]


@kernel(allocates=True)
def run_sequence(x, sample, moment, network, weights, converters, record, work, logits, trace):
    """Run one sequence x (time, n_in) from zero states; logits (n_classes,) come out.

    trace : (time, 2, K) states after every step, or (0, 2, K) for none.
    """
    n_steps = x.shape[0]
    states = np.zeros(2 * network.mode_first[-1], np.float32)
    pooled = np.zeros(network.n_heads, np.float32)
    for step in range(n_steps):
        step_network(
            x[step], step, sample, moment, network, weights, converters, record, states, work
        )
        if network.pool_last:
            pooled[:] = work.h
        else:
            for h in range(pooled.size):
                pooled[h] += work.h[h]
        if trace.shape[0] > 0:
            trace[step] = states.reshape(2, states.size // 2)
    if not network.pool_last:
        for h in range(pooled.size):
            pooled[h] /= np.float32(n_steps)
    decode(
        pooled, n_steps, sample, moment, network, weights, converters, record, work, logits
    )


@kernel(allocates=True)
def make_work(network, n_classes, n_work, n_z):
    """Return the buffers of one sequence (see network.Workspace)."""
    k = 0
    for layer in range(network.mode_first.size - 1):
        k = max(k, network.mode_first[layer + 1] - network.mode_first[layer])
    n = network.n_heads
    return Workspace(
        np.zeros(n, np.float32), np.zeros(n, np.float32), np.zeros(n, np.float32),
        np.zeros(k, np.float32), np.zeros(k, np.float32),
        np.zeros(network.n_in, np.float32),
        np.zeros(n_work, np.float32), np.zeros(n_work, np.float32),
        np.zeros(n_work, np.float32), np.zeros(n_z + 32, np.float32),
    )


@kernel(allocates=True)
def sequence_weights(replica, sample, draws, cells, g, gain, network, converters, source):
    """Return the Weights of one sequence on one replica: slow noise drawn, variances made."""
    n_blocks = draws.counter.size
    z = np.empty(4 * n_blocks if cells.slow > _ZERO else 1, np.float32)
    number = source.first_replica + replica
    if cells.slow > _ZERO:
        fill_cell_normals(
            draws, cells.n_tiles, source.seed0, source.seed1, source.slow_purpose,
            number, np.uint64(sample), source.moment, z,
        )
    w = np.empty(cells.plus.size, np.float32)
    v = np.empty(cells.plus.size, np.float32)
    out = np.empty(g.size, np.float32)
    read_weights(draws, cells, cells.quality[replica], g, gain, z, out, w, v)
    noisy = find_noisy(network, cells, v, converters)
    places = np.arange(network.analog.size)
    keys = read_streams(source.seed0, source.seed1, source.read_purpose, number, places)
    return Weights(w, v, np.sqrt(v), noisy, keys)


@kernel(parallel=True)
def run_batch(
    x, first_sample, draws, cells, g, gain, network, converters, record, source, n_work, n_z,
    logits, traces,
):
    """All sequences on all replicas: logits (replica, n, n_classes) are filled.

    x (n, time, n_in) float32; g (replica, n_cells); gain (replica, n_products); traces
    (replica, n, time or 0, 2, K). The parallel axis is replica x sequence.
    """
    n_replicas, n_samples, n_classes = logits.shape
    for job in numba.prange(n_replicas * n_samples):
        replica, i = job // n_samples, job % n_samples
        sample = first_sample + i
        weights = sequence_weights(
            replica, sample, draws, cells, g[replica], gain[replica], network, converters, source
        )
        work = make_work(network, n_classes, n_work, n_z)
        run_sequence(
            x[i], sample, source.moment, network, weights, converters, record, work,
            logits[replica, i], traces[replica, i],
        )


@kernel(allocates=True)
def step_one(
    x, step, sample, moment, network, weights, converters, record, states, pooled, logits, work
):
    """One step of one stream: states (2 K,), pooled (H,) in place, logits (n_classes,) so far."""
    step_network(x, step, sample, moment, network, weights, converters, record, states, work)
    mean = np.empty_like(pooled)
    for h in range(pooled.size):
        pooled[h] = work.h[h] if network.pool_last else pooled[h] + work.h[h]
        mean[h] = pooled[h] if network.pool_last else pooled[h] / np.float32(step + 1)
    decode(mean, step + 1, sample, moment, network, weights, converters, record, work, logits)
