"""One time step of a layer's states in each analog form of A.

States of all layers lie in one array x (2 K,): Re (or p of the leapfrog form) of every mode in
head order, then Im (or q). Every function advances, in place, the modes first .. first + n - 1
of a layer, in chunks whose buffers stay in the L1 cache.

The loops take plain arrays: where they reach into named tuples instead, LLVM reloads every
pointer in the loop and the same code runs five times slower.
"""

from __future__ import annotations

import numpy as np

from aimc_sim.kernels._jit import kernel
from aimc_sim.kernels.converters import quantise
from aimc_sim.kernels.philox import fill_normals
from ssm.kernels.product import (
    clear,
    drive,
    finish,
    keep_largest,
    sum_cells,
    sum_groups,
    sum_noisy_cells,
)

_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)
_0 = np.uint64(0)
CHUNK = 256  # modes; a multiple of 32, the group of the random numbers


@kernel()
def add_input(u, first, n_modes, x):
    """x[first + k] += the head's input, for every mode of every head (the input weight is 1)."""
    for h in range(u.size):
        begin = np.uint64(first + h * n_modes)
        for k in range(np.uint64(n_modes)):
            x[begin + k] += u[h]


@kernel()
def advance_digital(first, n, x, pole):
    """x <- dA x in digital logic; pole (2, K) float32, Re and Im."""
    a, b = np.uint64(first), np.uint64(first + x.size // 2)
    pole_re, pole_im = pole[0], pole[1]
    for k in range(np.uint64(n)):
        re = pole_re[a + k] * x[a + k] - pole_im[a + k] * x[b + k]
        x[b + k] = pole_re[a + k] * x[b + k] + pole_im[a + k] * x[a + k]
        x[a + k] = re


@kernel(inline=True)
def drive_states(at, n, x, step, inverse, limit, recording, seen, out):
    """out[:n] = states at .. at + n - 1 after their DACs (at in 0 .. 2 K - 1, uint64)."""
    if recording:
        keep_largest(x, at, n, seen, at)
    drive(x, at, n, step, inverse, at, limit, out)


@kernel(inline=True)
def _sum(weight_first, low, n, n_layer, group, x, w, v, noisy, y, s):
    """y, s[:n] += cells of modes low .. low + n - 1 of a layer, driven by x."""
    if group == 1:
        sum_cells(x, np.uint64(n), w, v, np.uint64(weight_first + low), noisy, y, s)
    else:
        sum_groups(x, n_layer, w, v, weight_first, group, noisy, y, s)


@kernel(inline=True)
def _access(
    product, low, n, n_layer, group, x, weight_first, w, v, spread, noisy, keys, c1, c2, c3, adc_limit,
    adc_sigma, adc_first, adc_step, adc_inverse, recording, outputs, y, s, z,
):
    """y[:n] = one access of the array: cells driven by x, summed, noise, converted."""
    m = np.uint64(n)
    loud = noisy[product]
    if loud:
        fill_normals(z, low, n, keys[product, 0], keys[product, 1], c1, c2, c3)
    if loud and group == 1 and adc_sigma == _ZERO:
        sum_noisy_cells(x, m, w, spread, np.uint64(weight_first[product] + low), z, y)
        loud = False
    else:
        clear(m, y)
        clear(m, s)
        _sum(weight_first[product], low, n, n_layer, group, x, w, v, loud, y, s)
    finish(
        m, loud, s, z, _0, adc_limit, adc_sigma, adc_step, adc_inverse, recording, outputs,
        np.uint64(adc_first[product] + low), y,
    )


@kernel()
def _pairs(
    product, first, n_layer, group, keep, x, weight_first, w, v, noisy, keys, c1, c2, c3,
    dac_limit, state_step, state_inverse, adc_limit, adc_sigma, adc_first, adc_step,
    adc_inverse, recording, seen, outputs, x0, x1, y, s, z,
):
    half = x.size // 2
    chunk = CHUNK if group == 1 else n_layer
    for low in range(0, n_layer, chunk):
        n = min(chunk, n_layer - low)
        m = np.uint64(n)
        at0, at1 = np.uint64(first + low), np.uint64(half + first + low)
        drive_states(at0, m, x, state_step, state_inverse, dac_limit, recording, seen, x0)
        drive_states(at1, m, x, state_step, state_inverse, dac_limit, recording, seen, x1)
        for out in range(2):
            number = product + 2 * out
            loud = noisy[number]
            clear(m, y)
            clear(m, s)
            if loud:
                fill_normals(z, low, n, keys[number, 0], keys[number, 1], c1, c2, c3)
            _sum(weight_first[number], low, n, n_layer, group, x0, w, v, loud, y, s)
            _sum(weight_first[number + 1], low, n, n_layer, group, x1, w, v, loud, y, s)
            finish(
                m, loud, s, z, _0, adc_limit, adc_sigma, adc_step, adc_inverse, recording,
                outputs, np.uint64(adc_first[number] + low), y,
            )
            begin = np.uint64(out * half + first + low)
            for k in range(m):
                x[begin + k] = keep * x[begin + k] + y[k]


@kernel()
def advance_pairs(product, first, n_layer, x, network, weights, converters, record, address, work):
    """Direct and delta form: y = A x or (A - 1) x, both rows driven at once; delta adds y to x."""
    _pairs(
        product, first, n_layer, network.group_a, _ZERO if network.form == 1 else _ONE, x,
        network.weight_first, weights.w, weights.v, weights.noisy, weights.keys,
        address[0], address[1], address[2], converters.dac_limit, converters.state_step,
        converters.state_inverse, converters.adc_limit, converters.adc_noise,
        converters.adc_first, converters.adc_step, converters.adc_inverse, record.on,
        record.states, record.outputs, work.x0, work.x1, work.y, work.s, work.z,
    )


@kernel()
def _leapfrog(
    product, first, n_layer, group, digital_decay, sign, decay, x, weight_first, w, v, spread, noisy,
    keys, c1, c2, c3, dac_limit, state_step, state_inverse, adc_limit, adc_sigma, adc_first,
    adc_step, adc_inverse, recording, seen, outputs, driven, y, s, z,
):
    half = x.size // 2
    chunk = CHUNK if group == 1 else n_layer
    for low in range(0, n_layer, chunk):
        n = min(chunk, n_layer - low)
        m, p, q = np.uint64(n), np.uint64(first + low), np.uint64(half + first + low)
        drive_states(q, m, x, state_step, state_inverse, dac_limit, recording, seen, driven)
        _access(
            product, low, n, n_layer, group, driven, weight_first, w, v, spread, noisy, keys, c1, c2, c3,
            adc_limit, adc_sigma, adc_first, adc_step, adc_inverse, recording, outputs, y, s, z,
        )
        for k in range(m):
            x[p + k] -= y[k]
        drive_states(p, m, x, state_step, state_inverse, dac_limit, recording, seen, driven)
        _access(
            product + 1, low, n, n_layer, group, driven, weight_first, w, v, spread, noisy, keys, c1, c2,
            c3, adc_limit, adc_sigma, adc_first, adc_step, adc_inverse, recording, outputs,
            y, s, z,
        )
        for k in range(m):
            x[q + k] += y[k]
        if digital_decay:
            for k in range(m):
                keep = (_ONE - decay[p + k]) * sign[p + k]
                x[p + k] *= keep
                x[q + k] *= keep
            continue
        _access(
            product + 2, low, n, n_layer, group, driven, weight_first, w, v, spread, noisy, keys, c1, c2,
            c3, adc_limit, adc_sigma, adc_first, adc_step, adc_inverse, recording, outputs,
            y, s, z,
        )
        for k in range(m):
            x[p + k] = sign[p + k] * (x[p + k] - y[k])
        drive_states(q, m, x, state_step, state_inverse, dac_limit, recording, seen, driven)
        _access(
            product + 3, low, n, n_layer, group, driven, weight_first, w, v, spread, noisy, keys, c1, c2,
            c3, adc_limit, adc_sigma, adc_first, adc_step, adc_inverse, recording, outputs,
            y, s, z,
        )
        for k in range(m):
            x[q + k] = sign[p + k] * (x[q + k] - y[k])


@kernel()
def advance_leapfrog(
    product, first, n_layer, x, network, weights, converters, record, address, work
):
    """Sequential leapfrog: p1 = p - e1 q; q1 = q + e2 p1; (p, q) <- sigma (p1 - d1 p1, q1 - d2 q1).

    Three accesses of the array, four products; stable for every constant error of e and d within
    wide bounds, since det = (1 - d1)(1 - d2) whatever e1, e2 are.
    """
    _leapfrog(
        product, first, n_layer, network.group_a, network.digital_decay, network.sign,
        network.decay, x, network.weight_first, weights.w, weights.v, weights.spread, weights.noisy,
        weights.keys, address[0], address[1], address[2], converters.dac_limit,
        converters.state_step, converters.state_inverse, converters.adc_limit,
        converters.adc_noise, converters.adc_first, converters.adc_step, converters.adc_inverse,
        record.on, record.states, record.outputs, work.x0, work.y, work.s, work.z,
    )


@kernel()
def hold(at, n, x, step, limit):
    """The state register: states at .. at + n - 1 rounded to their step, clipped, in place."""
    first = np.uint64(at)
    for k in range(np.uint64(n)):
        width = step[first + k]
        x[first + k] = quantise(x[first + k], width, _ONE / width, limit)
