"""Published curves of the conductance, many cells at a time.

A table of curves is what `aimc_sim.curves.flatten` makes: a row for each piece, the columns
named below. `Curve.evaluate` (numpy) is the reference; both agree to 1e-6 of the value.
"""

from __future__ import annotations

import numpy as np

from aimc_sim.kernels._jit import kernel

BLOCK = 256  # conductances at a time: a block and its logarithms stay in the first cache

# columns of a table; polynomial coefficients, in rising order, follow them
_CURVE, _UNIT, _BELOW, _LOW, _HIGH = range(5)
_LOG, _FACTOR, _POWER, _SIZE, _DECAY = range(5, 10)
_POLYNOMIAL = 10

_0 = np.uint64(0)
_1 = np.uint64(1)
_LEAST = np.float64(1e-12)  # ln 0 and 0^-p run into the clamps, as in the papers
_LN2 = np.float64(0.6931471805599453)
_LOG2E = np.float64(1.4426950408889634)
_SQRT2 = np.float64(1.4142135623730951)
_52 = np.int64(52)
_MANTISSA = np.int64(0x000FFFFFFFFFFFFF)
_ONE_BITS = np.int64(0x3FF0000000000000)
_BIAS = np.int64(1023)
# an integer in the low bits of 2^52 is that float plus 2^52: the only conversion AVX2 has
_TWO_52_BITS = np.int64(0x4330000000000000)
_TWO_52_BIAS = np.float64(2.0**52 + 1023)
_ROUND = np.float64(1.5 * 2.0**52)

_ROUND_FLOAT = np.float32(1.5 * 2.0**23)
_LOG2E_FLOAT = np.float32(1.44269504)
_LN2_HIGH_FLOAT = np.float32(0.693359375)
_LN2_LOW_FLOAT = np.float32(-2.12194440e-4)
_E0, _E1, _E2 = np.float32(1.9875691500e-4), np.float32(1.3981999507e-3), np.float32(8.3334519073e-3)
_E3, _E4, _E5 = np.float32(4.1665795894e-2), np.float32(1.6666665459e-1), np.float32(5.0000001201e-1)


@kernel(inline=True)
def exp_float(x):
    """Return exp x for float32 |x| <= 87, clamped there, to 2 ulp, without a branch (Cephes expf)."""
    x = min(max(x, np.float32(-87.0)), np.float32(87.0))
    shifted = x * _LOG2E_FLOAT + _ROUND_FLOAT
    n = shifted - _ROUND_FLOAT
    r = (x - n * _LN2_HIGH_FLOAT) - n * _LN2_LOW_FLOAT
    poly = ((((_E0 * r + _E1) * r + _E2) * r + _E3) * r + _E4) * r + _E5
    power = np.int32((np.float32(shifted).view(np.int32) + np.int32(127)) << np.int32(23)).view(np.float32)
    return (poly * (r * r) + r + np.float32(1.0)) * power


@kernel(inline=True)
def _log(v):
    """Return ln v, float64, for a normal v > 0, to 1e-10, without a branch: 2 artanh(f/(2 + f))."""
    bits = np.float64(v).view(np.int64)
    exponent = np.int64((bits >> _52) | _TWO_52_BITS).view(np.float64) - _TWO_52_BIAS
    mantissa = np.int64((bits & _MANTISSA) | _ONE_BITS).view(np.float64)
    large = mantissa > _SQRT2
    f = (mantissa * 0.5 if large else mantissa) - 1.0
    exponent = exponent + 1.0 if large else exponent
    s = f / (2.0 + f)
    z = s * s
    poly = ((((z * (2 / 11) + 2 / 9) * z + 2 / 7) * z + 2 / 5) * z + 2 / 3) * z + 2.0
    return exponent * _LN2 + s * poly


@kernel(inline=True)
def _exp(x):
    """Return exp x, float64, clamped to |x| <= 700, to 1e-11, without a branch."""
    x = min(max(x, -700.0), 700.0)
    shifted = x * _LOG2E + _ROUND
    r = x - (shifted - _ROUND) * _LN2
    poly = (((r * (1 / 362880) + 1 / 40320) * r + 1 / 5040) * r + 1 / 720) * r + 1 / 120
    poly = ((((poly * r + 1 / 24) * r + 1 / 6) * r + 0.5) * r + 1.0) * r + 1.0
    return poly * np.int64((np.float64(shifted).view(np.int64) + _BIAS) << _52).view(np.float64)


@kernel()
def evaluate_curves(table, g, n, v, log, value, out):
    """Fill out[c, :n] with curve c of the table at g[:n], both float32 [S, or as the card says].

    table : (n_rows, 10 + n_coefficients) float64, the pieces of a curve in order, its last one
    without an end. v, log, value : (BLOCK,) float64, overwritten.
    """
    n_rows = np.uint64(table.shape[0])
    last = np.uint64(table.shape[1]) - _1
    n_coefficients = last - np.uint64(_POLYNOMIAL) + _1
    start = _0
    while start < n:
        m = min(np.uint64(BLOCK), n - start)
        unit = 0.0
        has_log = False
        # from the last piece to the first, each writing over those behind it
        for back in range(_0, n_rows):
            row = n_rows - _1 - back
            curve = np.uint64(table[row, _CURVE])
            if table[row, _UNIT] != unit:
                unit = table[row, _UNIT]
                per_unit = 1.0 / unit
                has_log = False
                for i in range(_0, m):
                    v[i] = np.float64(g[start + i]) * per_unit
            slope, factor, power = table[row, _LOG], table[row, _FACTOR], table[row, _POWER]
            size, decay = table[row, _SIZE], table[row, _DECAY]
            if not has_log and (slope != 0.0 or factor != 0.0):
                has_log = True
                for i in range(_0, m):
                    log[i] = _log(v[i] if v[i] > _LEAST else _LEAST)
            # Horner's scheme, a pass over the block for each coefficient
            first, second = table[row, last], table[row, last - _1]
            for i in range(_0, m):
                value[i] = first * v[i] + second
            for down in range(np.uint64(2), n_coefficients):
                coefficient = table[row, last - down]
                for i in range(_0, m):
                    value[i] = value[i] * v[i] + coefficient
            if slope != 0.0:
                for i in range(_0, m):
                    value[i] += slope * log[i]
            if factor != 0.0:
                for i in range(_0, m):
                    value[i] += factor * _exp(power * log[i])
            if size != 0.0:
                for i in range(_0, m):
                    value[i] += size * _exp(decay * v[i])
            low, high, below = table[row, _LOW], table[row, _HIGH], table[row, _BELOW]
            if below == np.inf:
                for i in range(_0, m):
                    out[curve, start + i] = np.float32(min(max(value[i], low), high))
            else:
                for i in range(_0, m):
                    clamped = np.float32(min(max(value[i], low), high))
                    out[curve, start + i] = clamped if v[i] < below else out[curve, start + i]
        start += m


def curve_values(table, g):
    """Return the curves of a table at conductances g (n,): (n_curves, n) float32."""
    g = np.ascontiguousarray(g, np.float32)
    out = np.empty((int(table[-1, _CURVE]) + 1, g.size), np.float32)
    v, log, value = np.empty((3, BLOCK))
    evaluate_curves(table, g, np.uint64(g.size), v, log, value, out)
    return out
