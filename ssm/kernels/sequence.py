"""The whole recurrent run in compiled code: one call for all replicas, sequences and steps."""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from aimc_sim.kernels._jit import kernel
from aimc_sim.kernels.cells import add_slow_noise, clip_cells, fill_cell_normals
from aimc_sim.kernels.mvm import read_streams
from ssm.kernels import activation, state
from ssm.kernels.network import (
    A_PRODUCT,
    C_PRODUCT,
    MIX_PRODUCT,
    PER_LAYER,
    Converters,
    Network,
    Record,
    Weights,
    Workspace,
)
from ssm.kernels.product import dense, drive, read_heads

_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)


class Cells(NamedTuple):
    """The chip's cells and how weights are read from them (their draws travel beside it:
    numba's parallel loops take no nested tuples)."""

    n_tiles: int
    quality: np.ndarray  # (n_cells,) float32 read noise of a cell
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


class Address(NamedTuple):
    """Where a run's draws come from."""

    seed0: np.uint64
    seed1: np.uint64
    first_replica: int
    moment: np.uint64  # clock word
    slow_purpose: int
    read_purpose: int


@kernel()
def read_weights(draws, cells, g, gain, z, out, w, v):
    """Fill w, v (n_weights,) with what one sequence finds in cells g (n_cells,) float32 [S].

    z : block normals of the slow noise; out (n_cells,) scratch; gain (n_products,) of drift.
    """
    if cells.slow > _ZERO:
        add_slow_noise(
            z, draws.index, cells.quality, cells.slow, cells.relative,
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
        sigma = cells.quality[plus] * cells.fast
        if cells.relative:
            sigma *= g[plus]
        variance = sigma * sigma
        if minus < 0:
            w[k] = (out[plus] - cells.g_min_s) * scale
        else:
            w[k] = (out[plus] - out[minus]) * scale
            sigma = cells.quality[minus] * cells.fast
            if cells.relative:
                sigma *= g[minus]
            variance += sigma * sigma
        v[k] = variance * scale * scale


@kernel()
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
def step_layer(layer, network, weights, converters, record, address, x0, x1, work):
    """Advance one layer by a time step: work.h (H,) in and out, states x0, x1 (K,) in place."""
    n_heads = network.n_heads
    first, last = network.mode_first[layer], network.mode_first[layer + 1]
    n_modes = (last - first) // n_heads
    product = 1 + layer * PER_LAYER
    h, u, work_out = work.h, work.u, work.out
    scale, shift = network.norm_scale[layer], network.norm_shift[layer]
    if network.norm == 1:
        activation.normalise(h, scale, shift, network.norm_epsilon, network.affine_norm, u)
    else:
        u[:] = h
    args = (network, weights, converters, record, address, work)
    a = product + A_PRODUCT
    if network.form == 0:
        pole = network.pole[:, first:last]
        state.advance_digital(x0, x1, pole[0], pole[1])
    elif network.form == 3:
        state.advance_leapfrog(a, first, x0, x1, *args)
    else:
        state.advance_pairs(a, first, x0, x1, *args)
    state.add_input(u, n_modes, x0)
    if converters.state_limit > _ZERO:
        state.hold(x0, converters.register_step[0, first:last], converters.state_limit)
        state.hold(x1, converters.register_step[1, first:last], converters.state_limit)
    rows = work.rows[: n_heads * (2 * n_modes + 1)]
    gather_rows(layer, first, n_modes, x0, x1, u, network, converters, record, work, rows)
    read_heads(product + C_PRODUCT, rows, n_heads, *args)
    work_out[:] = work.total[:n_heads]
    activation.gelu(work_out)
    mix = product + MIX_PRODUCT
    n_mix = network.mix_bias.shape[1]
    limit = converters.dac_limit if network.analog[mix] else _ZERO
    drive(work_out, converters.mix_step[layer], limit, record.mixes[layer], record.on, u)
    dense(mix, u, n_mix, *args)
    mixed = work.total[:n_mix]
    for j in range(n_mix):
        mixed[j] += network.mix_bias[layer, j]
    if network.glu:
        activation.gate(mixed, n_heads, work_out)
    else:
        work_out[:] = mixed
    for k in range(n_heads):
        h[k] += work_out[k]
    if network.norm == 2:
        activation.normalise(h, scale, shift, network.norm_epsilon, network.affine_norm, u)
        h[:] = u


@kernel()
def gather_rows(layer, first, n_modes, x0, x1, u, network, converters, record, work, rows):
    """rows (H * (2 M + 1),) = what drives C's rows: both states of every mode, then u."""
    n_heads = network.n_heads
    analog = network.analog[1 + layer * PER_LAYER + C_PRODUCT]
    limit = converters.dac_limit if analog else _ZERO
    n = n_heads * n_modes
    q0, q1, qu = work.x0[:n], work.x1[:n], work.out
    steps = converters.state_step[:, first : first + n]
    drive(x0, steps[0], limit, record.states[0, first : first + n], record.on, q0)
    drive(x1, steps[1], limit, record.states[1, first : first + n], record.on, q1)
    drive(u, converters.skip_step[layer], limit, record.skips[layer], record.on, qu)
    width = 2 * n_modes + 1
    for head in range(n_heads):
        at = head * width
        low = head * n_modes
        for m in range(n_modes):
            rows[at + m] = q0[low + m]
        for m in range(n_modes):
            rows[at + n_modes + m] = q1[low + m]
        rows[at + 2 * n_modes] = qu[head]


@kernel()
def step_network(x, step, sample, moment, network, weights, converters, record, states, work):
    """One time step: input x (n_in,) to the last layer's output in work.h (H,)."""
    address = (np.uint64(step), np.uint64(sample), moment)
    n_heads = network.n_heads
    rows = work.rows[: network.n_in]
    limit = converters.dac_limit if network.analog[0] else _ZERO
    drive(x, converters.input_step, limit, record.inputs, record.on, rows)
    dense(0, rows, n_heads, network, weights, converters, record, address, work)
    for h in range(n_heads):
        work.h[h] = work.total[h] + network.encoder_bias[h]
    for layer in range(network.mode_first.size - 1):
        first, last = network.mode_first[layer], network.mode_first[layer + 1]
        step_layer(
            layer, network, weights, converters, record, address,
            states[0, first:last], states[1, first:last], work,
        )


@kernel()
def decode(pooled, step, sample, moment, network, weights, converters, record, work, logits):
    """logits (n_classes,) = decoder of the pooled output (H,)."""
    address = (np.uint64(step), np.uint64(sample), moment)
    product = network.analog.size - 1
    limit = converters.dac_limit if network.analog[product] else _ZERO
    drive(pooled, converters.decode_step, limit, record.decodes, record.on, work.u)
    dense(product, work.u, logits.size, network, weights, converters, record, address, work)
    for j in range(logits.size):
        logits[j] = work.total[j] + network.decoder_bias[j]


@kernel()
def run_sequence(x, sample, moment, network, weights, converters, record, work, logits, trace):
    """Run one sequence x (time, n_in) from zero states; logits (n_classes,) come out.

    trace : (time, 2, K) states after every step, or (0, 2, K) for none.
    """
    n_steps = x.shape[0]
    states = np.zeros((2, network.mode_first[-1]), np.float32)
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
            trace[step] = states
    if not network.pool_last:
        for h in range(pooled.size):
            pooled[h] /= np.float32(n_steps)
    decode(
        pooled, n_steps, sample, moment, network, weights, converters, record, work, logits
    )


@kernel()
def make_work(network, n_classes, n_work, n_z):
    """Return the buffers of one sequence (see network.Workspace)."""
    k = 0
    for layer in range(network.mode_first.size - 1):
        k = max(k, network.mode_first[layer + 1] - network.mode_first[layer])
    n = network.n_heads
    return Workspace(
        np.zeros(n, np.float32), np.zeros(n, np.float32), np.zeros(n, np.float32),
        np.zeros(k, np.float32), np.zeros(k, np.float32),
        np.zeros(max(2 * k + n, network.n_in), np.float32),
        np.zeros(n_work, np.float32), np.zeros(n_work, np.float32),
        np.zeros(n_work, np.float32), np.zeros(n_z + 32, np.float32),
    )


@kernel()
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
    read_weights(draws, cells, g, gain, z, out, w, v)
    noisy = find_noisy(network, cells, v, converters)
    places = np.arange(network.analog.size)
    keys = read_streams(source.seed0, source.seed1, source.read_purpose, number, places)
    return Weights(w, v, noisy, keys)


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


@kernel()
def record_batch(x, weights, network, converters, record, n_work, n_z, logits, trace):
    """Run x (n, time, n_in) one after the other, keeping the largest signals in `record`."""
    work = make_work(network, logits.shape[1], n_work, n_z)
    for i in range(x.shape[0]):
        run_sequence(
            x[i], i, np.uint64(0), network, weights, converters, record, work, logits[i], trace
        )


@kernel()
def step_one(
    x, step, sample, moment, network, weights, converters, record, states, pooled, logits, work
):
    """One step of one stream: states (2, K), pooled (H,) in place, logits (n_classes,) so far."""
    step_network(x, step, sample, moment, network, weights, converters, record, states, work)
    mean = np.empty_like(pooled)
    for h in range(pooled.size):
        pooled[h] = work.h[h] if network.pool_last else pooled[h] + work.h[h]
        mean[h] = pooled[h] if network.pool_last else pooled[h] / np.float32(step + 1)
    decode(mean, step + 1, sample, moment, network, weights, converters, record, work, logits)
