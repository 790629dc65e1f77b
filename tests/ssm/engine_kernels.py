"""Kernels that show draws and conversions of the GPU's kernels; imported where triton is."""

from __future__ import annotations

import triton
import triton.language as tl

from ssm.gpu.converters import quantise
from ssm.gpu.draws import four_normals, normals, philox


@triton.jit
def draw_all(at, words, one, four, N: tl.constexpr):
    """Words of counters 977 k; normals of N elements, one by one and four by four."""
    element = tl.arange(0, N)
    c1 = tl.load(at).to(tl.uint32, bitcast=True)
    c2 = tl.load(at + 1).to(tl.uint32, bitcast=True)
    c3 = tl.load(at + 2).to(tl.uint32, bitcast=True)
    k0 = tl.load(at + 3).to(tl.uint32, bitcast=True)
    k1 = tl.load(at + 4).to(tl.uint32, bitcast=True)
    w0, w1, w2, w3 = philox((element * 977).to(tl.uint32), c1, c2, c3, k0, k1)
    tl.store(words + element, w0.to(tl.int32, bitcast=True))
    tl.store(words + N + element, w1.to(tl.int32, bitcast=True))
    tl.store(words + 2 * N + element, w2.to(tl.int32, bitcast=True))
    tl.store(words + 3 * N + element, w3.to(tl.int32, bitcast=True))
    tl.store(one + element, normals(element, c1, c2, c3, k0, k1))
    counter = tl.arange(0, N // 4)
    first = ((counter >> 4) << 6) + (counter & 15)
    z_0, z_1, z_2, z_3 = four_normals(counter.to(tl.uint32), c1, c2, c3, k0, k1)
    tl.store(four + first, z_0)
    tl.store(four + first + 16, z_1)
    tl.store(four + first + 32, z_2)
    tl.store(four + first + 48, z_3)


@triton.jit
def count_up(out, n):
    """n, by a loop whose end is known at run time alone."""
    total = tl.zeros([1], tl.int32)
    for _ in range(n):
        total += 1
    tl.store(out + tl.arange(0, 1), total)


@triton.jit
def round_all(x, out, N: tl.constexpr):
    """x on the grid of 0.5, clipped at 127 steps."""
    element = tl.arange(0, N)
    tl.store(out + element, quantise(tl.load(x + element), 0.5, 2.0, 127.0))
