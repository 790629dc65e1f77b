"""The whole recurrent run in compiled code: one call for all steps of a sequence."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np

from aimc_sim.kernels._jit import kernel
from aimc_sim.kernels.moving import advance
from ssm.kernels import activation, state
from ssm.kernels.network import (
    A_PRODUCT,
    C_PRODUCT,
    MIX_PRODUCT,
    PER_LAYER,
    Tiles,
    Workspace,
)
from ssm.kernels.product import copy, dense, drive_inputs, read_heads
from ssm.kernels.weights import differs_by_sequence, sequence_weights

_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)
_0 = np.uint64(0)
_ENCODER = np.int64(0)  # a bare 0 would compile `dense` once more, for the literal
_NO_TRACE = np.zeros((0, 2, 0), np.float32)
_NO_LAYERS = np.zeros((0, 0, 0), np.float32)
_SHARES = 8  # of the sequences, a thread: a core that others use as well takes fewer


@kernel(paste=True)
def gather_tiles(network, weights, converters, record, work):
    """Return the Tiles of a running sequence."""
    return Tiles(
        network.weight_first, network.part_rows, network.analog, weights.w, weights.v,
        weights.spread, weights.noisy, weights.keys, weights.offset, converters.dac_limit,
        converters.state_dac_limit, converters.state_step, converters.state_inverse,
        converters.adc_limit, converters.adc_noise, converters.adc_first, converters.adc_step,
        converters.adc_inverse, converters.planes, weights.periphery, network.n_in, record.on,
        record.states, record.outputs, record.row_inverse, record.row_counts,
        record.output_inverse, record.output_counts, work.y, work.s, work.total, work.z, work.p0, work.p1, work.p2, work.drive_z, work.clipped,
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
        for at in (first, half + first):
            state.hold(
                at, n, states, converters.register_step, converters.register_inverse,
                converters.state_limit,
            )
    c = product + C_PRODUCT
    skip_row = network.n_in + states.size + layer * n_heads
    if network.analog[c]:
        for plane in range(2):
            state.drive_states(
                np.uint64(plane * half + first), np.uint64(n), states, tiles.state_dac_limit,
                tiles, work.x0 if plane == 0 else work.x1,
            )
        drive_inputs(
            u, converters.skip_step[layer], converters.dac_limit, record.skips[layer], skip_row,
            record, work_out,
        )
    else:
        copy(states, np.uint64(first), np.uint64(n), work.x0)
        copy(states, np.uint64(half + first), np.uint64(n), work.x1)
        copy(u, _0, heads, work_out)
    read_heads(
        c, work.x0, work.x1, work_out, n_modes, network.group_c, first,
        converters.skip_step[layer], skip_row, tiles, address,
    )
    copy(work.total, _0, heads, work_out)
    activation.gelu(work_out)
    mix = product + MIX_PRODUCT
    n_mix = network.mix_bias.shape[1]
    limit = converters.dac_limit if network.analog[mix] else _ZERO
    mix_row = skip_row + converters.skip_step.size
    drive_inputs(
        work_out, converters.mix_step[layer], limit, record.mixes[layer], mix_row, record, u
    )
    dense(mix, u, n_mix, converters.mix_step[layer], mix_row, tiles, address)
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
def step_network(x, address, network, tiles, converters, record, states, work, step, layers):
    """One time step: input x (n_in,) to the last layer's output in work.h (H,).

    layers : (time, L + 1, H), of which `step` becomes the output of the encoder and of every
    layer; (0, 0, 0) for none.
    """
    n_heads = network.n_heads
    limit = converters.dac_limit if network.analog[0] else _ZERO
    drive_inputs(x, converters.input_step, limit, record.inputs, _ENCODER, record, work.inputs)
    dense(
        _ENCODER, work.inputs, n_heads, converters.input_step, _ENCODER, tiles, address
    )
    for h in range(n_heads):
        work.h[h] = work.total[h] + network.encoder_bias[h]
    traced = layers.shape[0] > 0
    if traced:
        for h in range(n_heads):
            layers[step, 0, h] = work.h[h]
    for layer in range(network.mode_first.size - 1):
        step_layer(layer, network, tiles, converters, record, address, states, work)
        if traced:
            for h in range(n_heads):
                layers[step, layer + 1, h] = work.h[h]


@kernel(paste=True)
def decode(address, network, tiles, converters, record, work, logits):
    """logits (n_classes,) = decoder of the pooled output in work.h (H,)."""
    product = network.analog.size - 1
    limit = converters.dac_limit if network.analog[product] else _ZERO
    row = network.n_in + 2 * network.sign.size + 2 * converters.skip_step.size
    drive_inputs(work.h, converters.decode_step, limit, record.decodes, row, record, work.u)
    dense(product, work.u, logits.size, converters.decode_step, row, tiles, address)
    for j in range(logits.size):
        logits[j] = work.total[j] + network.decoder_bias[j]


@kernel()
def run_steps(
    x, first_step, sample, moment, network, weights, converters, record, states, pooled, work,
    logits, trace, layers,
):
    """Run the steps x (time, n_in) of one sequence; logits (n_classes,) after the last come out.

    states (2 K,), pooled (H,) are those after the steps before first_step, in place (zeros for a
    new sequence). trace : (time, 2, K) states after every step, or (0, 2, K) for none.
    layers : (time, L + 1, H) outputs of the encoder and of every layer, or (0, 0, 0) for none.
    """
    tiles = gather_tiles(network, weights, converters, record, work)
    half = states.size // 2
    for step in range(x.shape[0]):
        if weights.moving.on:
            advance(weights.moving, np.int64(first_step + step), weights.w)
        address = (np.uint64(first_step + step), np.uint64(sample), moment)
        step_network(
            x[step], address, network, tiles, converters, record, states, work, step, layers
        )
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
    rows = max(n_modes, n, network.n_in)
    sizes = (
        n, n, n, n_modes, n_modes, network.n_in, n_work, n_work, n_work, n_z + 64, rows, n_modes,
        n, rows + 64,
    )
    buffers = (np.zeros(size, np.float32) for size in sizes)
    return Workspace(*buffers, np.zeros(network.analog.size, np.int64))


def run_batch(
    x, first_sample, draws, cells, telegraphs, g, corrections, peripheries, network, converters,
    record, source, n_work, n_z, logits, traces, clipped, layers=None,
):
    """All sequences on all replicas: logits (replica, n, n_classes) are filled.

    x (n, time, n_in) float32; g (replica, n_cells); telegraphs, corrections, peripheries: one a
    replica; traces (replica, n, time or 0, 2, K); clipped (replica, n, n_products) int64: the
    conversions that clipped are added; layers (replica, n, time, L + 1, H) or None. The threads
    share the axis replica x sequence; they are Python's, since the kernels hold no lock and a
    parallel loop of numba would compile all that it calls three times more. A sequence costs some 40 us
    outside the kernels, and to read its weights from cells some 20 ns each, once a replica where
    no noise lasts for a sequence.
    """
    n_replicas, n_samples, n_classes = logits.shape

    def run_jobs(begin, end):
        work = make_work(network, n_classes, n_work, n_z)
        read = -1  # the replica that `weights` are of, where all its sequences find the same
        for job in range(begin, end):
            replica, i = divmod(job, n_samples)
            sample = first_sample + i
            if replica != read:
                weights = sequence_weights(
                    replica, sample, draws, cells, telegraphs[replica], g[replica],
                    corrections[replica], peripheries[replica], network, converters, source,
                )
                read = -1 if differs_by_sequence(cells, telegraphs[replica]) else replica
            own = work._replace(clipped=clipped[replica, i])
            states = np.zeros(2 * network.sign.size, np.float32)
            pooled = np.zeros(network.n_heads, np.float32)
            run_steps(
                x[i], 0, sample, source.moment, network, weights, converters, record, states,
                pooled, own, logits[replica, i], traces[replica, i],
                _NO_LAYERS if layers is None else layers[replica, i],
            )

    n_jobs = n_replicas * n_samples
    n_threads = min(numba.get_num_threads(), n_jobs)
    if n_threads == 1:
        run_jobs(0, n_jobs)
        return
    n_shares = min(n_jobs, _SHARES * n_threads)
    bounds = [n_jobs * k // n_shares for k in range(n_shares + 1)]
    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(run_jobs, bounds[:-1], bounds[1:]))


def step_one(
    x, step, sample, moment, network, weights, converters, record, states, pooled, logits, work
):
    """One step of one stream: states (2 K,), pooled (H,) in place, logits (n_classes,) so far."""
    run_steps(
        x[None], step, sample, moment, network, weights, converters, record, states, pooled, work,
        logits, _NO_TRACE, _NO_LAYERS,
    )
