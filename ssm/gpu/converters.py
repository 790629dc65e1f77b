"""DACs and ADCs as in `aimc_sim.kernels.converters`, of whole tensors."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def round_whole(x):
    """Return x, |x| < 2^22, rounded to the nearest whole number, ties to even."""
    return (x + 12582912.0) - 12582912.0


@triton.jit
def clamp(x, limit):
    """Return x within +-limit; NaN stays NaN, so that a state that diverged stays visible."""
    x = tl.maximum(x, -limit, propagate_nan=tl.PropagateNan.ALL)
    return tl.minimum(x, limit, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def quantise(x, step, inverse, limit):
    """Return x on the grid step * (-limit .. limit), clipped at its ends; inverse = 1/step."""
    return round_whole(clamp(x * inverse, limit)) * step


@triton.jit
def non_linearity(table, size, x, limit, here):
    """Return the INL at x, |x| <= limit: linear between the entries of table, size of them."""
    position = (x + limit) * ((size - 1) / (limit + limit))
    k = tl.minimum(tl.maximum(position.to(tl.int32), 0), size - 2)
    part = position - k.to(tl.float32)
    left = tl.load(table + k, mask=here, other=0.0)
    return left + part * (tl.load(table + k + 1, mask=here, other=0.0) - left)


@triton.jit
def drive(x, step, inverse, limit, row, here, errors, DAC: tl.constexpr, REAL: tl.constexpr,
          INL: tl.constexpr):
    """DAC of rows, x as it is where there is none.

    errors : gain and offset of the rows, the table of INL and its size, and how many steps of the
    DACs' own bits a step is. REAL : the DACs have gain and offset.
    """
    if DAC:
        x = quantise(x, step, inverse, limit)
        if REAL:
            gain, offset, table, size, own = errors
            code = tl.div_rn(x, step)
            if INL:
                code += own * non_linearity(table, size, clamp(code, limit), limit, here)
            code = code * tl.load(gain + row, mask=here, other=1.0)
            x = (code + own * tl.load(offset + row, mask=here, other=0.0)) * step
    return x


@triton.jit
def convert(y, step, inverse, limit, output, here, errors, REAL: tl.constexpr, INL: tl.constexpr,
            BITS: tl.constexpr):
    """ADC: y onto the grid of step, and whether each clipped.

    errors : gain and offset of the outputs, the table of INL and its size, the ADC of an output
    and weights of ADCs, of BITS bits where they approximate successively, else 0.
    """
    x = y * inverse
    if REAL:
        gain, offset, table, size, adc, weights = errors
        x = x * tl.load(gain + output, mask=here, other=1.0)
        x += tl.load(offset + output, mask=here, other=0.0)
    outside = tl.abs(x) > limit + 0.5
    x = clamp(x, limit)
    if REAL and INL:
        x = clamp(x + non_linearity(table, size, x, limit, here), limit)
    if REAL and BITS > 0:
        half = 1 << (BITS - 1)
        rest = x + half + 0.5
        code = tl.zeros_like(x).to(tl.int32)
        own = weights + tl.load(adc + output, mask=here, other=0) * BITS
        for k in range(BITS):  # not unrolled: it would be compiled for minutes
            weight = tl.load(own + k, mask=here, other=0.0)
            keep = rest >= weight
            rest = tl.where(keep, rest - weight, rest)
            code = 2 * code + keep.to(tl.int32)
        x = clamp((code - half).to(tl.float32), limit)
    else:
        x = round_whole(x)
    return x * step, outside
