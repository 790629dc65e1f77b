"""The bare cost of the random words under every normal."""

from __future__ import annotations

import numpy as np

from aimc_sim.kernels._jit import kernel
from aimc_sim.kernels.philox import philox

_32 = np.uint64(32)


@kernel()
def fill_words(out: np.ndarray, k0: np.uint64, k1: np.uint64) -> None:
    """Fill out (n,) uint64, n a multiple of 16, with two 32-bit Philox words an element.

    Packed, since narrowing to 32 bits would take as long as the words themselves.
    """
    zero = np.uint64(0)
    for group in range(out.size >> 4):
        base = group << 4
        counter = group << 3
        for j in range(8):
            w0, w1, w2, w3 = philox(np.uint64(counter + j), zero, zero, zero, k0, k1)
            out[base + j] = w0 | (w1 << _32)
            out[base + 8 + j] = w2 | (w3 << _32)
