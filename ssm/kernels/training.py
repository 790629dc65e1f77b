"""The recurrence with rounded states, forward and backward, on the CPU (`ssm.recurrence.recur`).

Arrays are (B, T, H) signals, (H, M) constants and (B, T, H, M) states, float32 or float64.
B x H is the parallel axis.
"""

from __future__ import annotations

import numba
import numpy as np

from aimc_sim.kernels._jit import kernel


@kernel(parallel=True)
def recur_forward(u, a00, a01, a10, a11, c0, c1, s0, s1, limit, y, kept0, kept1):
    """Fill y and the kept states; limit 0: the states are not rounded."""
    n_batch, n_steps, n_heads = u.shape
    n_modes = a00.shape[1]
    for job in numba.prange(n_batch * n_heads):
        b, h = job // n_heads, job % n_heads
        for t in range(n_steps):
            zero = u[b, t, h] * 0
            total = zero
            for m in range(n_modes):
                x0, x1 = u[b, t, h], zero
                if t > 0:
                    q0, q1 = kept0[b, t - 1, h, m], kept1[b, t - 1, h, m]
                    x0 += a00[h, m] * q0 + a01[h, m] * q1
                    x1 = a10[h, m] * q0 + a11[h, m] * q1
                if limit > 0:
                    x0 = np.rint(min(max(x0 / s0[h, m], -limit), limit)) * s0[h, m]
                    x1 = np.rint(min(max(x1 / s1[h, m], -limit), limit)) * s1[h, m]
                kept0[b, t, h, m], kept1[b, t, h, m] = x0, x1
                total += c0[h, m] * x0 + c1[h, m] * x1
            y[b, t, h] = total


@kernel(parallel=True)
def recur_backward(
    u, a00, a01, a10, a11, c0, c1, s0, s1, limit, kept0, kept1, grad_y, grad_u, grads
):
    """Fill grad_u (B, T, H) and grads (8, B, H, M): of the matrix, the readout, the steps."""
    n_batch, n_steps, n_heads = u.shape
    n_modes = a00.shape[1]
    for job in numba.prange(n_batch * n_heads):
        b, h = job // n_heads, job % n_heads
        for t in range(n_steps):
            grad_u[b, t, h] = 0
        for m in range(n_modes):
            zero = a00[h, m] * 0
            l0, l1 = zero, zero  # gradient with respect to the state of the step
            g00, g01, g10, g11 = zero, zero, zero, zero
            gc0, gc1, gs0, gs1 = zero, zero, zero, zero
            for back in range(n_steps):
                t = n_steps - 1 - back
                x0, x1 = kept0[b, t, h, m], kept1[b, t, h, m]
                q0, q1 = zero, zero
                if t > 0:
                    q0, q1 = kept0[b, t - 1, h, m], kept1[b, t - 1, h, m]
                g = grad_y[b, t, h]
                gc0 += g * x0
                gc1 += g * x1
                l0 += g * c0[h, m]
                l1 += g * c1[h, m]
                if limit > 0:
                    v0 = (a00[h, m] * q0 + a01[h, m] * q1 + u[b, t, h]) / s0[h, m]
                    v1 = (a10[h, m] * q0 + a11[h, m] * q1) / s1[h, m]
                    gs0 += l0 * (x0 / s0[h, m] - (v0 if abs(v0) <= limit else zero))
                    gs1 += l1 * (x1 / s1[h, m] - (v1 if abs(v1) <= limit else zero))
                    l0 = l0 if abs(v0) <= limit else zero
                    l1 = l1 if abs(v1) <= limit else zero
                grad_u[b, t, h] += l0
                g00 += l0 * q0
                g01 += l0 * q1
                g10 += l1 * q0
                g11 += l1 * q1
                l0, l1 = a00[h, m] * l0 + a10[h, m] * l1, a01[h, m] * l0 + a11[h, m] * l1
            grads[0, b, h, m], grads[1, b, h, m] = g00, g01
            grads[2, b, h, m], grads[3, b, h, m] = g10, g11
            grads[4, b, h, m], grads[5, b, h, m] = gc0, gc1
            grads[6, b, h, m], grads[7, b, h, m] = gs0, gs1
