"""One time step of a layer's states in each analog form of A (design notes in docs/theory).

Every function advances x0, x1 (K,) float32 in place by the input u (H,), K = H M modes in head
order: x0, x1 are Re and Im of the mode, or p and q of the leapfrog form.
"""

from __future__ import annotations

import numpy as np

from aimc_sim.kernels._jit import kernel
from aimc_sim.kernels.converters import quantise
from ssm.kernels.product import draw, drive, finish, sum_blocks

_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)


@kernel()
def add_input(u, n_modes, x0):
    """x0 (H * n_modes,) += the head's input on every mode (the input weight is 1)."""
    for h in range(u.size):
        for k in range(h * n_modes, (h + 1) * n_modes):
            x0[k] += u[h]


@kernel()
def advance_digital(x0, x1, pole_re, pole_im):
    """x <- dA x in digital logic, float32."""
    for k in range(x0.size):
        re = pole_re[k] * x0[k] - pole_im[k] * x1[k]
        x1[k] = pole_re[k] * x1[k] + pole_im[k] * x0[k]
        x0[k] = re


@kernel()
def _access(product, which, x, network, weights, converters, record, address, work):
    """work.y[:K] = one access: cells of plane `which` driven by x (K,), summed, converted."""
    n = x.size
    group = network.group_a
    n_groups = (n + group - 1) // group
    size = n_groups * group * group
    at = network.weight_first[product + which]
    y, s = work.y[:n], work.s[:n]
    y[:] = _ZERO
    noisy = weights.noisy[product + which]
    if noisy:
        s[:] = _ZERO
    sum_blocks(x, weights.w[at : at + size], group, noisy, weights.v[at : at + size], y, s)
    draw(product + which, n, weights, address, work.z)
    finish(product + which, 0, y, s, work.z, weights, converters, record, address)


@kernel()
def advance_pairs(product, first, x0, x1, network, weights, converters, record, address, work):
    """Direct and delta form: y = A x or (A - 1) x, both rows driven at once; delta adds y to x."""
    n = x0.size
    q0, q1 = work.x0[:n], work.x1[:n]
    steps = converters.state_step[:, first : first + n]
    limit = converters.dac_limit
    drive(x0, steps[0], limit, record.states[0, first : first + n], record.on, q0)
    drive(x1, steps[1], limit, record.states[1, first : first + n], record.on, q1)
    group = network.group_a
    size = (n + group - 1) // group * group * group
    y, s = work.y[:n], work.s[:n]
    for out in range(2):
        y[:] = _ZERO
        s[:] = _ZERO
        noisy = weights.noisy[product + 2 * out]
        at0 = network.weight_first[product + 2 * out]
        at1 = network.weight_first[product + 2 * out + 1]
        sum_blocks(q0, weights.w[at0 : at0 + size], group, noisy, weights.v[at0 : at0 + size], y, s)
        sum_blocks(q1, weights.w[at1 : at1 + size], group, noisy, weights.v[at1 : at1 + size], y, s)
        draw(product + 2 * out, n, weights, address, work.z)
        finish(product + 2 * out, 0, y, s, work.z, weights, converters, record, address)
        x = x0 if out == 0 else x1
        if network.form == 1:
            x[:] = y
        else:
            for k in range(n):
                x[k] += y[k]


@kernel()
def advance_leapfrog(product, first, x0, x1, network, weights, converters, record, address, work):
    """Sequential leapfrog: p1 = p - e1 q; q1 = q + e2 p1; (p, q) <- sigma (p1 - d1 p1, q1 - d2 q1).

    Three accesses of the array, four products; stable for every constant error of e and d within
    wide bounds, since det = (1 - d1)(1 - d2) whatever e1, e2 are.
    """
    n = x0.size
    driven = work.x0[:n]
    y = work.y[:n]
    steps = converters.state_step[:, first : first + n]
    limit = converters.dac_limit
    seen0 = record.states[0, first : first + n]
    seen1 = record.states[1, first : first + n]
    args = (network, weights, converters, record, address, work)
    drive(x1, steps[1], limit, seen1, record.on, driven)
    _access(product, 0, driven, *args)
    for k in range(n):
        x0[k] -= y[k]
    drive(x0, steps[0], limit, seen0, record.on, driven)
    _access(product, 1, driven, *args)
    for k in range(n):
        x1[k] += y[k]
    if network.digital_decay:
        decay = network.decay[first : first + n]
        for k in range(n):
            x0[k] -= decay[k] * x0[k]
            x1[k] -= decay[k] * x1[k]
    else:
        _access(product, 2, driven, *args)
        for k in range(n):
            x0[k] -= y[k]
        drive(x1, steps[1], limit, seen1, record.on, driven)
        _access(product, 3, driven, *args)
        for k in range(n):
            x1[k] -= y[k]
    sign = network.sign[first : first + n]
    for k in range(n):
        x0[k] *= sign[k]
        x1[k] *= sign[k]


@kernel()
def hold(x, step, limit):
    """The state register: x (K,) rounded to its step and clipped at limit steps, in place."""
    for k in range(x.size):
        x[k] = quantise(x[k], step[k], _ONE / step[k], limit)
