"""Philox4x32-10 and Box-Muller as in `aimc_sim.kernels.philox`: the same words, the same steps."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def philox(c0, c1, c2, c3, k0, k1):
    """Return the four words of counters c0 (tensor) .. c3 under a key, all uint32."""
    for _ in tl.static_range(10):
        # the whole product: one wide multiplication gives both halves
        p0 = c0.to(tl.uint64) * 0xD2511F53
        p1 = c2.to(tl.uint64) * 0xCD9E8D57
        c0 = (p1 >> 32).to(tl.uint32) ^ c1 ^ k0
        c1 = p1.to(tl.uint32)
        c2 = (p0 >> 32).to(tl.uint32) ^ c3 ^ k1
        c3 = p0.to(tl.uint32)
        k0 = (k0 + 0x9E3779B9).to(tl.uint32)
        k1 = (k1 + 0xBB67AE85).to(tl.uint32)
    return c0, c1, c2, c3


@triton.jit
def log_unit(u):
    """Return ln u for float32 0 < u <= 1."""
    bits = u.to(tl.int32, bitcast=True)
    exponent = ((bits >> 23) - 127).to(tl.float32)
    mantissa = ((bits & 0x007FFFFF) | 0x3F800000).to(tl.float32, bitcast=True)
    large = mantissa > 1.41421356
    f = tl.where(large, mantissa * 0.5, mantissa) - 1.0
    exponent = tl.where(large, exponent + 1.0, exponent)
    s = f * f
    poly = 7.0376836292e-2 * f - 1.1514610310e-1
    poly = poly * f + 1.1676998740e-1
    poly = poly * f - 1.2420140846e-1
    poly = poly * f + 1.4249322787e-1
    poly = poly * f - 1.6668057665e-1
    poly = poly * f + 2.0000714765e-1
    poly = poly * f - 2.4999993993e-1
    poly = poly * f + 3.3333331174e-1
    return (f * s * poly + exponent * -2.12194440e-4) - 0.5 * s + f + exponent * 0.693359375


@triton.jit
def normal_pair(w0, w1):
    """Return two independent standard normals from two words."""
    u = ((w0 >> 1).to(tl.int32).to(tl.float32) + 0.5) * 4.656612873077393e-10  # 2^-31
    radius = tl.sqrt_rn(-2.0 * log_unit(u))
    # pi/2 2^-30 for each of the 2^30 angles of a quarter
    angle = ((w1 >> 2).to(tl.int32) - 536870912).to(tl.float32) * 1.462918119976564e-09
    square = angle * angle
    sine = (-1.9515295891e-4 * square + 8.3321608736e-3) * square - 1.6666654611e-1
    sine = sine * square * angle + angle
    cosine = (2.443315711809948e-5 * square - 1.388731625493765e-3) * square
    cosine = (cosine + 4.166664568298827e-2) * square * square - 0.5 * square + 1.0
    cosine = tl.where((w1 & 1) != 0, -cosine, cosine)
    swap = (w1 & 2) != 0
    return radius * tl.where(swap, sine, cosine), radius * tl.where(swap, cosine, sine)


@triton.jit
def normals(element, c1, c2, c3, k0, k1):
    """Return the normals of elements (int32, any shape) at an address: all words for each."""
    counter = (((element >> 6) << 4) + (element & 15)).to(tl.uint32)
    return lane_normals(counter, (element >> 4) & 3, c1, c2, c3, k0, k1)


@triton.jit
def lane_normals(counter, lane, c1, c2, c3, k0, k1):
    """Return the normals of a lane (0 .. 3) of every counter."""
    w0, w1, w2, w3 = philox(counter, c1, c2, c3, k0, k1)
    second = lane >= 2
    first, other = normal_pair(tl.where(second, w2, w0), tl.where(second, w3, w1))
    return tl.where((lane & 1) != 0, other, first)


@triton.jit
def four_normals(counter, c1, c2, c3, k0, k1):
    """Return the normals of all four lanes of every counter (uint32)."""
    w0, w1, w2, w3 = philox(counter, c1, c2, c3, k0, k1)
    z_0, z_1 = normal_pair(w0, w1)
    z_2, z_3 = normal_pair(w2, w3)
    return z_0, z_1, z_2, z_3


@triton.jit
def key_of(keys, product):
    """Return the key of a product's conversions; keys (n_products, 2) int32 of a replica."""
    k0 = tl.load(keys + 2 * product).to(tl.uint32, bitcast=True)
    k1 = tl.load(keys + 2 * product + 1).to(tl.uint32, bitcast=True)
    return k0, k1


@triton.jit
def run_of(table, run):
    """Return row of the weights (int64), replica, sample and moment (uint32) of a run.

    table : (runs, 4) int32, the last two words of counters.
    """
    row = tl.load(table + 4 * run).to(tl.int64)
    replica = tl.load(table + 4 * run + 1)
    sample = tl.load(table + 4 * run + 2).to(tl.uint32, bitcast=True)
    moment = tl.load(table + 4 * run + 3).to(tl.uint32, bitcast=True)
    return row, replica, sample, moment
