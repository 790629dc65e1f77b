"""Counter-based random numbers: Philox4x32-10 and a branch-free float32 Box-Muller.

Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC11, doi 10.1145/2063384.2063405.
A draw is a pure function of (key, counter): it depends on nothing that ran before it.
"""

from __future__ import annotations

import numpy as np

from aimc_sim.kernels._jit import kernel

_MASK = np.uint64(0xFFFFFFFF)
_M0 = np.uint64(0xD2511F53)
_M1 = np.uint64(0xCD9E8D57)
_W0 = np.uint64(0x9E3779B9)
_W1 = np.uint64(0xBB67AE85)
_32 = np.uint64(32)
_1 = np.uint64(1)

_HALF = np.float32(0.5)
_ONE = np.float32(1.0)
_TWO_TO_MINUS_31 = np.float32(2.0**-31)
_TWO_TO_MINUS_30 = np.float32(2.0**-30)
_LN2_HIGH = np.float32(0.693359375)
_LN2_LOW = np.float32(-2.12194440e-4)
_SQRT2 = np.float32(1.41421356)
_EXPONENT_BIAS = np.int32(127)
_MANTISSA = np.int32(0x007FFFFF)
_ONE_BITS = np.int32(0x3F800000)
_23 = np.int32(23)
# minimax polynomials of ln(1 + f)/f^3 and of sin, cos on +-pi/4 (Cephes logf, sinf, cosf)
_L0, _L1, _L2 = np.float32(7.0376836292e-2), np.float32(-1.1514610310e-1), np.float32(1.1676998740e-1)
_L3, _L4, _L5 = np.float32(-1.2420140846e-1), np.float32(1.4249322787e-1), np.float32(-1.6668057665e-1)
_L6, _L7, _L8 = np.float32(2.0000714765e-1), np.float32(-2.4999993993e-1), np.float32(3.3333331174e-1)
_S0, _S1, _S2 = np.float32(-1.9515295891e-4), np.float32(8.3321608736e-3), np.float32(-1.6666654611e-1)
_C0, _C1, _C2 = np.float32(2.443315711809948e-5), np.float32(-1.388731625493765e-3), np.float32(4.166664568298827e-2)
_QUARTER_PI = np.float32(0.78539816)


@kernel(inline=True)
def philox(c0, c1, c2, c3, k0, k1):
    """Return the four 32-bit words (held in uint64) of one counter under one key."""
    for _ in range(10):
        # the upper halves of c1 and c3 may hold carries: the masked product ignores them, and
        # masking there alone lets AVX2 multiply the low halves without a single AND
        p0 = _M0 * (c0 & _MASK)
        p1 = _M1 * (c2 & _MASK)
        c0, c1, c2, c3 = (p1 >> _32) ^ (c1 ^ k0), p1, (p0 >> _32) ^ (c3 ^ k1), p0
        k0 = (k0 + _W0) & _MASK
        k1 = (k1 + _W1) & _MASK
    return c0 & _MASK, c1 & _MASK, c2 & _MASK, c3 & _MASK


@kernel(inline=True)
def log_unit(u):
    """Return ln u for float32 0 < u <= 1, to 1 ulp or so, without a branch."""
    bits = np.float32(u).view(np.int32)
    exponent = np.float32((bits >> _23) - _EXPONENT_BIAS)
    mantissa = np.int32((bits & _MANTISSA) | _ONE_BITS).view(np.float32)
    large = mantissa > _SQRT2
    f = (mantissa * _HALF if large else mantissa) - _ONE
    exponent = exponent + _ONE if large else exponent
    s = f * f
    poly = ((((((((_L0 * f + _L1) * f + _L2) * f + _L3) * f + _L4) * f + _L5) * f + _L6) * f + _L7) * f + _L8)
    return (f * s * poly + exponent * _LN2_LOW) - _HALF * s + f + exponent * _LN2_HIGH


@kernel(inline=True)
def normal_pair(w0, w1):
    """Return two independent standard normals (float32, |z| <= 6.66) from two 32-bit words."""
    u = (np.float32(np.int32(w0 >> _1)) + _HALF) * _TWO_TO_MINUS_31
    radius = np.sqrt(np.float32(-2.0) * log_unit(u))
    # two bits choose one of four quarters of the circle, thirty the angle within it
    angle = np.float32(np.int32(w1 >> np.uint64(2)) - np.int32(1 << 29)) * (_TWO_TO_MINUS_30 * np.float32(2.0) * _QUARTER_PI)
    square = angle * angle
    sine = ((_S0 * square + _S1) * square + _S2) * square * angle + angle
    cosine = ((_C0 * square + _C1) * square + _C2) * square * square - _HALF * square + _ONE
    cosine = -cosine if (w1 & np.uint64(1)) != np.uint64(0) else cosine
    swap = (w1 & np.uint64(2)) != np.uint64(0)
    return radius * (sine if swap else cosine), radius * (cosine if swap else sine)


@kernel()
def fill_normals(out, first, n, k0, k1, c1, c2, c3):
    """Fill out[:n], float32 (>= n rounded up to 64,), with the normals of n elements.

    first : number of the first element, a multiple of 64.

    Element e takes lane (e >> 4) & 3 of counter word 16 (e >> 6) + (e & 15): groups of 64 are
    written as four whole vectors. Depends on the address (key, c1, c2, c3, e) alone.
    """
    for group in range((n + 63) >> 6):
        base = group << 6
        counter = ((first >> 6) + group) << 4
        for j in range(16):
            c0 = np.uint64(counter + j)
            w0, w1, w2, w3 = philox(c0, c1, c2, c3, k0, k1)
            z0, z1 = normal_pair(w0, w1)
            z2, z3 = normal_pair(w2, w3)
            out[base + j] = z0
            out[base + 16 + j] = z1
            out[base + 32 + j] = z2
            out[base + 48 + j] = z3
