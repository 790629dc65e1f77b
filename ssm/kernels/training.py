"""The recurrence with rounded states, forward and backward, on the CPU (`ssm.recurrence.recur`).

Modes go in groups of LANES whose values lie side by side, so that a step of a group is a few
vector instructions: 1.5 ns a mode and step forward, 2.6 ns back, where one mode after the other
takes 5 and 10.

u, y : (B, T, H). constants : (H, n_groups, N_CONSTANTS, LANES), the matrix row by row, two of
the readout, two steps, two inverse steps. kept : flat (B, H, n_groups, T + 1, 2, LANES) states,
the zero state first. magic : 1.5 * 2^23 (float32) or 1.5 * 2^52 (float64), which rounds to whole
numbers when added and taken off.
"""

from __future__ import annotations

import numba
import numpy as np

from aimc_sim.kernels._jit import FASTMATH_SUM, kernel

LANES = 16
N_CONSTANTS = 10
_LANES, _SIZE = np.uint64(LANES), np.uint64(2 * LANES)
_A00, _A01, _A10, _A11 = (np.uint64(k * LANES) for k in range(4))
_C0, _C1, _S0, _S1, _I0, _I1 = (np.uint64(k * LANES) for k in range(4, 10))
# sums follow the constants: gradients with respect to them, and to the state of the step
_G00, _G01, _G10, _G11 = (np.uint64((N_CONSTANTS + k) * LANES) for k in range(4))
_GC0, _GC1, _GS0, _GS1 = (np.uint64((N_CONSTANTS + k) * LANES) for k in range(4, 8))
_L0, _L1 = (np.uint64((N_CONSTANTS + k) * LANES) for k in range(8, 10))


@kernel(inline=True, fastmath={"nsz"})
def _round(x, magic):
    return (x + magic) - magic


@kernel(inline=True, fastmath=FASTMATH_SUM)
def _advance(own, kept, before, drive, limit, magic, zero):
    """One step of a group: the states after those at `before`; returns its part of y."""
    now = before + _SIZE
    total = zero
    for k in range(_LANES):
        q0, q1 = kept[before + k], kept[before + _LANES + k]
        x0 = own[_A00 + k] * q0 + own[_A01 + k] * q1 + drive
        x1 = own[_A10 + k] * q0 + own[_A11 + k] * q1
        if limit > 0:
            x0 = min(max(x0 * own[_I0 + k], -limit), limit)
            x1 = min(max(x1 * own[_I1 + k], -limit), limit)
            x0 = _round(x0, magic) * own[_S0 + k]
            x1 = _round(x1, magic) * own[_S1 + k]
        kept[now + k] = x0
        kept[now + _LANES + k] = x1
        total += own[_C0 + k] * x0 + own[_C1 + k] * x1
    return total


@kernel(inline=True)
def _fill(constants, own):
    """own = the constants of a group, and sums of zero behind them."""
    for k in range(N_CONSTANTS * LANES):
        own[k] = constants[k // LANES, k % LANES]
        own[N_CONSTANTS * LANES + k] = 0


@kernel(parallel=True)
def recur_forward(u, constants, limit, magic, y, kept):
    """Fill y and kept; limit 0: the states are not rounded."""
    n_batch, n_steps, n_heads = u.shape
    n_groups = constants.shape[1]
    for job in numba.prange(n_batch * n_heads):
        b, h = job // n_heads, job % n_heads
        own = np.zeros(2 * N_CONSTANTS * LANES, constants.dtype)
        zero = own[0]  # of the arrays' type: a bare 0 would make the sums float64
        for t in range(n_steps):
            y[b, t, h] = 0
        for group in range(n_groups):
            _fill(constants[h, group], own)
            before = np.uint64((job * n_groups + group) * (n_steps + 1)) * _SIZE
            for k in range(_SIZE):
                kept[before + k] = 0
            for t in range(n_steps):
                y[b, t, h] += _advance(own, kept, before, u[b, t, h], limit, magic, zero)
                before += _SIZE


@kernel(inline=True, fastmath=FASTMATH_SUM)
def _retrace(own, kept, before, drive, limit, g, zero):
    """One step of a group backwards; returns its part of the gradient with respect to u."""
    now = before + _SIZE
    total = zero
    for k in range(_LANES):
        q0, q1 = kept[before + k], kept[before + _LANES + k]
        x0, x1 = kept[now + k], kept[now + _LANES + k]
        a00, a01 = own[_A00 + k], own[_A01 + k]
        a10, a11 = own[_A10 + k], own[_A11 + k]
        l0 = own[_L0 + k] + g * own[_C0 + k]
        l1 = own[_L1 + k] + g * own[_C1 + k]
        own[_GC0 + k] += g * x0
        own[_GC1 + k] += g * x1
        i0, i1 = own[_I0 + k], own[_I1 + k]
        v0 = (a00 * q0 + a01 * q1 + drive) * i0
        v1 = (a10 * q0 + a11 * q1) * i1
        in0, in1 = abs(v0) <= limit, abs(v1) <= limit
        own[_GS0 + k] += l0 * (x0 * i0 - (v0 if in0 else zero))
        own[_GS1 + k] += l1 * (x1 * i1 - (v1 if in1 else zero))
        l0 = l0 if in0 else zero
        l1 = l1 if in1 else zero
        total += l0
        own[_G00 + k] += l0 * q0
        own[_G01 + k] += l0 * q1
        own[_G10 + k] += l1 * q0
        own[_G11 + k] += l1 * q1
        own[_L0 + k] = a00 * l0 + a10 * l1
        own[_L1 + k] = a01 * l0 + a11 * l1
    return total


@kernel(parallel=True)
def recur_backward(u, constants, limit, kept, grad_y, grad_u, grads):
    """Fill grad_u (B, T, H) and grads (B, H, n_groups, N_CONSTANTS, LANES).

    Their planes are those of the matrix, the readout and the steps; the last two mean nothing.
    limit is infinite where the states are not rounded.
    """
    n_batch, n_steps, n_heads = u.shape
    n_groups = constants.shape[1]
    for job in numba.prange(n_batch * n_heads):
        b, h = job // n_heads, job % n_heads
        own = np.zeros(2 * N_CONSTANTS * LANES, constants.dtype)
        zero = own[0]  # of the arrays' type: a bare 0 would make the sums float64
        for t in range(n_steps):
            grad_u[b, t, h] = 0
        for group in range(n_groups):
            _fill(constants[h, group], own)
            before = np.uint64((job * n_groups + group) * (n_steps + 1) + n_steps) * _SIZE
            for back in range(n_steps):
                t = n_steps - 1 - back
                before -= _SIZE
                grad_u[b, t, h] += _retrace(
                    own, kept, before, u[b, t, h], limit, grad_y[b, t, h], zero
                )
            for k in range(N_CONSTANTS * LANES):
                grads[b, h, group, k // LANES, k % LANES] = own[N_CONSTANTS * LANES + k]
