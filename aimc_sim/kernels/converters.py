"""DAC and ADC as inline helpers: symmetric mid-tread quantisers that clip at full scale.

`Periphery` holds what makes converters of a chip differ from that; with its switches off, nothing
but `quantise` runs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from aimc_sim.kernels._jit import kernel

# Adding and subtracting 1.5 * 2^23 rounds a float32 of magnitude < 2^22 to the nearest whole
# number (ties to even) in two additions; np.rint is a library call and 6 x slower in a loop.
_ROUND = np.float32(12582912.0)
_ZERO = np.float32(0.0)
_HALF = np.float32(0.5)


class Periphery(NamedTuple):
    """The errors of the converters of one replica (float32), lengths in steps."""

    n_planes: int  # drives of a product: the bits of the magnitude in bit-serial mode, else 1
    dac_on: bool  # a DAC has any error
    adc_on: bool
    dac_step: np.ndarray  # (1,) of a single matrix, whose full scale is 1
    dac_gain: np.ndarray  # (n_rows,)
    dac_offset: np.ndarray  # (n_rows,)
    dac_table: np.ndarray  # (2 limit + 1,) INL at every code, (0,): none
    dac_noise: np.float32
    dac_keys: np.ndarray  # (n_products, 2) uint64
    adc_gain: np.ndarray  # (n_outputs,)
    adc_offset: np.ndarray  # (n_outputs,)
    adc_table: np.ndarray  # (2 limit + 1,), (0,): none
    adc_of: np.ndarray  # (n_outputs,) int64 row of adc_weights
    adc_weights: np.ndarray  # (n_adcs, n_bits) successive approximation, (0, 0): exact


@kernel(inline=True, fastmath={"nsz"})
def round_whole(x):
    """Return x (float32, |x| < 2^22) rounded to the nearest whole number, ties to even."""
    return (x + _ROUND) - _ROUND


@kernel(inline=True)
def quantise(x, step, inverse, limit):
    """Return x on the grid step * (-limit .. limit), clipped at its ends; inverse = 1/step.

    All float32. The product with the inverse costs a sixth of a division.
    """
    code = min(max(x * inverse, -limit), limit)
    return round_whole(code) * step


@kernel(inline=True)
def bit_plane(code, plane):
    """Return the sign of a whole code times bit `plane` of its magnitude: -1, 0 or 1, float32."""
    bit = np.float32((np.int32(abs(code)) >> np.int32(plane)) & np.int32(1))
    return bit if code >= _ZERO else -bit


@kernel(inline=True)
def non_linearity(table, x, limit):
    """Return the INL at x, in steps, |x| <= limit: linear between the entries of table.

    The table spans -limit .. limit whatever its length: states may have fewer codes than inputs.
    """
    position = (x + limit) * (np.float32(table.size - 1) / (limit + limit))
    k = min(np.int64(position), table.size - 2)
    part = position - np.float32(k)
    return table[k] + part * (table[k + 1] - table[k])


@kernel()
def distort(n, step, step_first, row, limit, periphery, z, out):
    """Errors of DACs in place: out[:n] <- gain (code + INL) + offset + noise, in steps of step.

    out[k] is a whole number of step[step_first + k]; row : uint64, number of the first row; z
    (n,): normals. A single step (1,) is that of all.
    """
    gain, offset, table = periphery.dac_gain, periphery.dac_offset, periphery.dac_table
    single = step.size == 1
    for k in range(n):
        width = step[0] if single else step[step_first + k]
        code = out[k] / width
        if table.size > 0:
            code += non_linearity(table, min(max(code, -limit), limit), limit)
        code = code * gain[row + k] + offset[row + k]
        if periphery.dac_noise > _ZERO:
            code += periphery.dac_noise * z[k]
        out[k] = code * width


@kernel(inline=True)
def approximate(x, weights, adc):
    """Return the code of x (in steps) by successive approximation with an ADC's own weights.

    weights (n_adcs, n_bits): most significant first, of offset binary. A bit is kept where what is
    left of the signal reaches its weight; exact weights round to the nearest code.
    """
    n = weights.shape[1]
    half = np.int32(1) << np.int32(n - 1)
    rest = x + np.float32(half) + _HALF
    code = np.int32(0)
    for k in range(n):
        weight = weights[adc, k]
        if rest >= weight:
            rest -= weight
            code += np.int32(1) << np.int32(n - 1 - k)
    return np.float32(code - half)


@kernel()
def convert_real(n, y, step, inverse, first, limit, periphery):
    """ADCs with errors in place: y[:n] to codes times step; returns how many clipped.

    The code of u = gain y/step + offset is the nearest to u + INL(u), or what the ADC's own
    weights make of it. n, first: uint64, elements first + k of step, inverse and of the ADCs.
    """
    table, weights = periphery.adc_table, periphery.adc_weights
    clipped = np.int64(0)
    for k in range(n):
        u = y[k] * inverse[first + k] * periphery.adc_gain[first + k]
        u += periphery.adc_offset[first + k]
        if abs(u) > limit + _HALF:
            clipped += 1
        u = min(max(u, -limit), limit)
        if table.size > 0:
            u = min(max(u + non_linearity(table, u, limit), -limit), limit)
        if weights.shape[0] > 0:
            code = approximate(u, weights, periphery.adc_of[first + k])
            code = min(max(code, -limit), limit)
        else:
            code = round_whole(u)
        y[k] = code * step[first + k]
    return clipped
