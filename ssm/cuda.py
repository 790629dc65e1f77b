"""The quantised recurrence, forward and backward, each one fused kernel on an NVIDIA GPU.

A program runs some heads of one sequence through all its steps: states stay in registers, and
of every step only they (for the backward pass) and the outputs are written. Equations and
arguments are those of `ssm.recurrence.recur`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional

_LANES = 128  # (head, mode) pairs of a program: four warps


@triton.jit
def _rounded(x):
    # adding and subtracting 1.5 * 2^23 rounds |x| < 2^22 to the nearest whole number
    return (x + 12582912.0) - 12582912.0


@triton.jit
def _forward(
    u, m00, m01, m10, m11, out_0, out_1, step_0, step_1, y, kept_0, kept_1, n_steps, n_heads,
    limit, MODES: tl.constexpr, HEADS: tl.constexpr, ROUND: tl.constexpr, KEEP: tl.constexpr,
):
    b = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * HEADS + tl.arange(0, HEADS)
    here = head < n_heads
    lane = head[:, None] * MODES + tl.arange(0, MODES)[None, :]
    full = here[:, None]
    a00 = tl.load(m00 + lane, mask=full, other=0.0)
    a01 = tl.load(m01 + lane, mask=full, other=0.0)
    a10 = tl.load(m10 + lane, mask=full, other=0.0)
    a11 = tl.load(m11 + lane, mask=full, other=0.0)
    c_0 = tl.load(out_0 + lane, mask=full, other=0.0)
    c_1 = tl.load(out_1 + lane, mask=full, other=0.0)
    s_0 = tl.load(step_0 + lane, mask=full, other=1.0)
    s_1 = tl.load(step_1 + lane, mask=full, other=1.0)
    i_0, i_1 = 1.0 / s_0, 1.0 / s_1
    x_0 = tl.zeros([HEADS, MODES], tl.float32)
    x_1 = tl.zeros([HEADS, MODES], tl.float32)
    width = n_heads * MODES
    for t in range(n_steps):
        row = b * n_steps + t
        drive = tl.load(u + row * n_heads + head, mask=here, other=0.0)
        p_0 = a00 * x_0 + a01 * x_1 + drive[:, None]
        p_1 = a10 * x_0 + a11 * x_1
        if ROUND:
            x_0 = _rounded(tl.minimum(tl.maximum(p_0 * i_0, -limit), limit)) * s_0
            x_1 = _rounded(tl.minimum(tl.maximum(p_1 * i_1, -limit), limit)) * s_1
        else:
            x_0, x_1 = p_0, p_1
        tl.store(y + row * n_heads + head, tl.sum(c_0 * x_0 + c_1 * x_1, axis=1), mask=here)
        if KEEP:
            tl.store(kept_0 + row * width + lane, x_0, mask=full)
            tl.store(kept_1 + row * width + lane, x_1, mask=full)


@triton.jit
def _backward(
    u, m00, m01, m10, m11, out_0, out_1, step_0, step_1, kept_0, kept_1, grad_y, grad_u, grads,
    n_steps, n_heads, limit, MODES: tl.constexpr, HEADS: tl.constexpr, ROUND: tl.constexpr,
):
    b = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * HEADS + tl.arange(0, HEADS)
    here = head < n_heads
    lane = head[:, None] * MODES + tl.arange(0, MODES)[None, :]
    full = here[:, None]
    a00 = tl.load(m00 + lane, mask=full, other=0.0)
    a01 = tl.load(m01 + lane, mask=full, other=0.0)
    a10 = tl.load(m10 + lane, mask=full, other=0.0)
    a11 = tl.load(m11 + lane, mask=full, other=0.0)
    c_0 = tl.load(out_0 + lane, mask=full, other=0.0)
    c_1 = tl.load(out_1 + lane, mask=full, other=0.0)
    s_0 = tl.load(step_0 + lane, mask=full, other=1.0)
    s_1 = tl.load(step_1 + lane, mask=full, other=1.0)
    i_0, i_1 = 1.0 / s_0, 1.0 / s_1
    zero = tl.zeros([HEADS, MODES], tl.float32)
    l_0, l_1 = zero, zero  # gradient with respect to the state of the step
    g00, g01, g10, g11 = zero, zero, zero, zero
    gc_0, gc_1, gs_0, gs_1 = zero, zero, zero, zero
    width = n_heads * MODES
    last = b * n_steps + n_steps - 1
    x_0 = tl.load(kept_0 + last * width + lane, mask=full, other=0.0)
    x_1 = tl.load(kept_1 + last * width + lane, mask=full, other=0.0)
    for back in range(n_steps):
        row = last - back
        before = full & (zero + back < n_steps - 1)  # a tensor, for the interpreter too
        q_0 = tl.load(kept_0 + (row - 1) * width + lane, mask=before, other=0.0)
        q_1 = tl.load(kept_1 + (row - 1) * width + lane, mask=before, other=0.0)
        g = tl.load(grad_y + row * n_heads + head, mask=here, other=0.0)[:, None]
        gc_0 += g * x_0
        gc_1 += g * x_1
        l_0 += g * c_0
        l_1 += g * c_1
        if ROUND:
            drive = tl.load(u + row * n_heads + head, mask=here, other=0.0)
            v_0 = (a00 * q_0 + a01 * q_1 + drive[:, None]) * i_0
            v_1 = (a10 * q_0 + a11 * q_1) * i_1
            in_0 = tl.abs(v_0) <= limit
            in_1 = tl.abs(v_1) <= limit
            code_0, code_1 = x_0 * i_0, x_1 * i_1
            gs_0 += l_0 * tl.where(in_0, code_0 - v_0, code_0)
            gs_1 += l_1 * tl.where(in_1, code_1 - v_1, code_1)
            l_0 = tl.where(in_0, l_0, 0.0)
            l_1 = tl.where(in_1, l_1, 0.0)
        tl.store(grad_u + row * n_heads + head, tl.sum(l_0, axis=1), mask=here)
        g00 += l_0 * q_0
        g01 += l_0 * q_1
        g10 += l_1 * q_0
        g11 += l_1 * q_1
        l_0, l_1 = a00 * l_0 + a10 * l_1, a01 * l_0 + a11 * l_1
        x_0, x_1 = q_0, q_1
    plane = tl.num_programs(0).to(tl.int64) * width
    at = grads + b * width + lane
    tl.store(at, g00, mask=full)
    tl.store(at + plane, g01, mask=full)
    tl.store(at + 2 * plane, g10, mask=full)
    tl.store(at + 3 * plane, g11, mask=full)
    tl.store(at + 4 * plane, gc_0, mask=full)
    tl.store(at + 5 * plane, gc_1, mask=full)
    tl.store(at + 6 * plane, gs_0, mask=full)
    tl.store(at + 7 * plane, gs_1, mask=full)


def _padded(planes: list[Tensor]) -> list[Tensor]:
    """Return planes (H, M) with M raised to a power of two by modes that are always zero."""
    n_modes = planes[0].shape[1]
    more = triton.next_power_of_2(n_modes) - n_modes
    if more == 0:
        return planes
    steps = [functional.pad(plane, (0, more), value=1.0) for plane in planes[6:]]
    return [*(functional.pad(plane, (0, more)) for plane in planes[:6]), *steps]


def _grid(u: Tensor, n_modes: int) -> tuple[tuple[int, int], int]:
    """Return the grid of programs and the heads of one; n_modes is a power of two."""
    heads = max(1, _LANES // n_modes)
    return (u.shape[0], -(-u.shape[2] // heads)), heads


def forward(
    u: Tensor, planes: list[Tensor], limit: float, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return y (B, T, H) and the two states (B, T, H, modes), empty unless `keep`.

    planes : the four of the matrix, row by row, two of the readout, two of the steps, each
    (H, M) contiguous float32. limit : 0 where the states are not rounded.
    """
    planes = _padded(planes)
    n_modes = planes[0].shape[1]
    grid, heads = _grid(u, n_modes)
    y = torch.empty_like(u)
    shape = (*u.shape, n_modes) if keep else (0,)
    kept = [torch.empty(shape, device=u.device, dtype=u.dtype) for _ in range(2)]
    _forward[grid](
        u, *planes, y, *kept, u.shape[1], u.shape[2], limit, MODES=n_modes, HEADS=heads,
        ROUND=limit > 0, KEEP=keep,
    )
    return y, kept[0], kept[1]


def backward(
    u: Tensor, planes: list[Tensor], limit: float, kept: tuple[Tensor, Tensor], grad_y: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the gradients with respect to u (B, T, H) and to the eight planes (8, H, M)."""
    n_own = planes[0].shape[1]
    planes = _padded(planes)
    n_modes = planes[0].shape[1]
    grid, heads = _grid(u, n_modes)
    grad_u = torch.empty_like(u)
    grads = torch.empty((8, u.shape[0], u.shape[2], n_modes), device=u.device, dtype=u.dtype)
    _backward[grid](
        u, *planes, *kept, grad_y, grad_u, grads, u.shape[1], u.shape[2], limit, MODES=n_modes,
        HEADS=heads, ROUND=limit > 0,
    )
    return grad_u, grads.sum(dim=1)[..., :n_own]
