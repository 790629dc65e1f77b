"""Uniform numbers of cells and lines, for what happens to some of them and not to others."""

from __future__ import annotations

import numpy as np

from aimc_sim.kernels._jit import kernel
from aimc_sim.kernels.cells import stream_key
from aimc_sim.kernels.philox import philox

_ZERO = np.uint64(0)
_STEP = 2.0**-32


@kernel()
def fill_uniforms(tile, element, seed0, seed1, purpose, replica, out):
    """Fill out (n,) float64, in (0, 1), with the uniform of every (tile, element), both (n,).

    The first word of counter word `element` under the tile's key; neighbours of one tile share
    the making of the key.
    """
    k0, k1 = _ZERO, _ZERO
    for i in range(out.size):
        if i == 0 or tile[i] != tile[i - 1]:
            k0, k1 = stream_key(seed0, seed1, purpose, replica, tile[i])
        word, _, _, _ = philox(np.uint64(element[i]), _ZERO, _ZERO, _ZERO, k0, k1)
        out[i] = (np.float64(word) + 0.5) * _STEP
