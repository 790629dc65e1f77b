"""The bare cost of the random words under every normal."""

from __future__ import annotations

import numpy as np

from aimc_sim.kernels._jit import kernel
from aimc_sim.kernels.philox import philox


@kernel()
def fill_words(out: np.ndarray, k0: np.uint64, k1: np.uint64) -> None:
    """Fill out (n,) uint32, n a multiple of 32, with Philox words, as fill_normals groups them."""
    zero = np.uint64(0)
    for group in range(out.size >> 5):
        base = group << 5
        counter = group << 3
        for j in range(8):
            w0, w1, w2, w3 = philox(np.uint64(counter + j), zero, zero, zero, k0, k1)
            out[base + j] = np.uint32(w0)
            out[base + 8 + j] = np.uint32(w1)
            out[base + 16 + j] = np.uint32(w2)
            out[base + 24 + j] = np.uint32(w3)
