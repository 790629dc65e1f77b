"""The parts of a recurrent step by themselves: the kernels of a run, in loops of the same sizes.

Each repeats its part n_steps times. Nothing here is kept on disk: the code of a run that is
compiled in could change without notice.
"""

from __future__ import annotations

import numpy as np

from aimc_sim.kernels import mvm
from aimc_sim.kernels._jit import kernel
from aimc_sim.kernels.philox import fill_normals
from ssm.kernels import activation, product, state

_0 = np.uint64(0)
_CHUNK = state.CHUNK


@kernel(inline=True)
def draw_normals(n_steps: int, sizes: np.ndarray, z: np.ndarray, key: np.ndarray) -> None:
    """Draw the normals of accesses with sizes (n,) outputs, each into z (largest + 64,)."""
    for step in range(n_steps):
        for k in range(sizes.size):
            fill_normals(z, 0, sizes[k], key[0], key[1], np.uint64(step), _0, _0)


@kernel(inline=True)
def drive_states(
    n_steps: int, planes: np.ndarray, n: int, chunk: int, x: np.ndarray, step: np.ndarray,
    inverse: np.ndarray, limit: np.float32, out: np.ndarray,
) -> None:
    """DACs of the states (2 n,): of each of `planes` (0 or 1), chunk by chunk."""
    for _ in range(n_steps):
        for k in range(planes.size):
            for low in range(0, n, chunk):
                m, at = np.uint64(min(chunk, n - low)), np.uint64(planes[k] * n + low)
                product.drive(x, at, m, step, inverse, at, limit, out)


@kernel(inline=True)
def convert_a(
    n_steps: int, n_products: int, n: int, x: np.ndarray, w: np.ndarray, spread: np.ndarray,
    z: np.ndarray, noisy: bool, step: np.ndarray, inverse: np.ndarray, limit: np.float32,
    y: np.ndarray,
) -> np.int64:
    """Products of A: one cell a column, with their read noise where there is any, and ADCs."""
    clipped = np.int64(0)
    for _ in range(n_steps):
        for number in range(n_products):
            for low in range(0, n, _CHUNK):
                m, first = np.uint64(min(_CHUNK, n - low)), np.uint64(number * n + low)
                clipped += product.convert_cells(
                    x, m, w, spread, first, z, noisy, step, inverse, first, limit, y
                )
    return clipped


@kernel(inline=True)
def convert(
    n_steps: int, sizes: np.ndarray, step: np.ndarray, inverse: np.ndarray, limit: np.float32,
    y: np.ndarray,
) -> np.int64:
    """ADCs of accesses with sizes (n,) outputs, whose steps lie one after the other."""
    clipped = np.int64(0)
    for _ in range(n_steps):
        first = _0
        for k in range(sizes.size):
            m = np.uint64(sizes[k])
            clipped += product.convert(m, step, inverse, first, limit, y)
            first += m
    return clipped


@kernel(inline=True)
def update(
    n_steps: int, n_products: int, n: int, sign: np.ndarray, y: np.ndarray, x: np.ndarray
) -> None:
    """What the products of A do to the states (2 n,) of the leapfrog form."""
    for _ in range(n_steps):
        for low in range(0, n, _CHUNK):
            m, p, q = np.uint64(min(_CHUNK, n - low)), np.uint64(low), np.uint64(n + low)
            for number in range(n_products):
                state.take_product(number, m, p, q, sign, y, x)


@kernel(inline=True)
def hold(
    n_steps: int, n_heads: int, n: int, u: np.ndarray, step: np.ndarray, inverse: np.ndarray,
    limit: np.float32, x: np.ndarray,
) -> None:
    """Inputs added to the states (2 n,), and the registers."""
    for _ in range(n_steps):
        state.add_input(u, 0, n // n_heads, x)
        state.hold(0, n, x, step, inverse, limit)
        state.hold(n, n, x, step, inverse, limit)


@kernel(inline=True)
def sum_heads(
    n_steps: int, n_modes: int, x0: np.ndarray, x1: np.ndarray, u: np.ndarray, w: np.ndarray,
    v: np.ndarray, noisy: bool, y: np.ndarray, s: np.ndarray,
) -> None:
    """C's columns of all heads, and their variances where there are any."""
    for _ in range(n_steps):
        product._sum_heads(n_modes, x0, x1, u, 0, w, v, noisy, y, s)


@kernel(inline=True)
def multiply(
    n_steps: int, x: np.ndarray, w: np.ndarray, v: np.ndarray, noisy: bool, y: np.ndarray,
    s: np.ndarray,
) -> None:
    """A dense product x (n_in,) @ w (n_in, n_out), and its variance where there is any."""
    n = np.uint64(w.shape[1])
    for _ in range(n_steps):
        product.clear(n, y)
        mvm.accumulate_dense(x, w, y)
        if noisy:
            product.clear(n, s)
            mvm.accumulate_squares(x, v, s)


@kernel(inline=True)
def add_noise(
    n_steps: int, sizes: np.ndarray, s: np.ndarray, z: np.ndarray, sigma: np.float32,
    step: np.ndarray, y: np.ndarray,
) -> None:
    """Read noise of summed outputs: a square root and a normal each."""
    for _ in range(n_steps):
        for k in range(sizes.size):
            product.add_noise(np.uint64(sizes[k]), s, z, _0, sigma, step, _0, y)


@kernel(inline=True)
def activate(
    n_steps: int, n_heads: int, y: np.ndarray, mixed: np.ndarray, scale: np.ndarray,
    epsilon: np.float32, out: np.ndarray, h: np.ndarray,
) -> None:
    """GELU, gate and layer norm of the heads."""
    for _ in range(n_steps):
        activation.gelu(y)
        activation.gate(mixed, n_heads, out)
        activation.normalise(out, scale, scale, epsilon, False, h)
