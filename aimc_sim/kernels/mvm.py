"""Products of driven rows with a tile's cells: accumulate, add noise, convert.

Independent Gaussian cell noise that is new at each read is summed exactly at the column,
sigma_j^2 = sum_i x_i^2 sigma_ij^2: one normal per output instead of one per cell.
"""

from __future__ import annotations

import numba
import numpy as np

from aimc_sim.kernels._jit import kernel
from aimc_sim.kernels.cells import stream_key
from aimc_sim.kernels.converters import convert_real, quantise, round_whole
from aimc_sim.kernels.philox import fill_normals

_ZERO32 = np.float32(0.0)
_ONE32 = np.float32(1.0)
_ZERO64 = np.uint64(0)
_HALF32 = np.float32(0.5)


@kernel()
def accumulate_dense(x, w, y):
    """y (n_out,) += x (n_in,) @ w (n_in, n_out); four rows at a time keep y in registers."""
    n_in, n_out = w.shape
    i = 0
    while i + 4 <= n_in:
        x0, x1, x2, x3 = x[i], x[i + 1], x[i + 2], x[i + 3]
        w0, w1, w2, w3 = w[i], w[i + 1], w[i + 2], w[i + 3]
        for j in range(n_out):
            y[j] += x0 * w0[j] + x1 * w1[j] + x2 * w2[j] + x3 * w3[j]
        i += 4
    while i < n_in:
        xi, wi = x[i], w[i]
        for j in range(n_out):
            y[j] += xi * wi[j]
        i += 1


@kernel()
def accumulate_squares(x, v, s):
    """s (n_out,) += x^2 (n_in,) @ v (n_in, n_out): the variance of a noisy product."""
    n_in, n_out = v.shape
    i = 0
    while i + 4 <= n_in:
        x0, x1, x2, x3 = x[i], x[i + 1], x[i + 2], x[i + 3]
        x0, x1, x2, x3 = x0 * x0, x1 * x1, x2 * x2, x3 * x3
        v0, v1, v2, v3 = v[i], v[i + 1], v[i + 2], v[i + 3]
        for j in range(n_out):
            s[j] += x0 * v0[j] + x1 * v1[j] + x2 * v2[j] + x3 * v3[j]
        i += 4
    while i < n_in:
        xi, vi = x[i] * x[i], v[i]
        for j in range(n_out):
            s[j] += xi * vi[j]
        i += 1


@kernel(inline=True)
def add_noise(y, s, z, adc_sigma, first):
    """y += sqrt(s + adc_sigma^2) z, all (n_out,) float32: cell noise and that of the ADC.

    Elements first + j (uint64) of adc_sigma.
    """
    for j in range(np.uint64(y.size)):
        sigma = adc_sigma[first + j]
        y[j] += np.sqrt(s[j] + sigma * sigma) * z[j]


@kernel(inline=True)
def convert(y, step, inverse, first, limit, periphery):
    """ADC in place: y (n,) onto the grid of step[first + j], clipped at limit steps.

    Returns how many clipped. first is uint64. periphery None: ideal but for rounding and range;
    a type of its own, so that nothing of the errors is compiled there or passed at each call.
    """
    if limit == _ZERO32:
        return np.int64(0)
    if periphery is not None:
        if periphery.adc_on:
            return convert_real(np.uint64(y.size), y, step, inverse, first, limit, periphery)
    # as wide as the data, so that the count shares their vector lanes (numba would widen +=): 0.1
    # instead of 0.3 ns an element
    clipped = np.int32(0)
    for j in range(np.uint64(y.size)):
        x = y[j] * inverse[first + j]
        clipped = np.int32(clipped + np.int32(abs(x) > limit + _HALF32))
        y[j] = round_whole(min(max(x, -limit), limit)) * step[first + j]
    return np.int64(clipped)


@kernel(inline=True)
def full_scale_of(x, full_scale):
    """Return the DAC's full scale for x (n_in,): `full_scale`, or its largest where that is 0."""
    scale = full_scale
    if scale == _ZERO32:
        for i in range(x.size):
            scale = max(scale, abs(x[i]))
    return scale if scale > _ZERO32 else _ONE32


@kernel(inline=True)
def drive(x, scale, limit, out):
    """DAC: out (n_in,) = x in units of `scale`, on a grid of 1/limit; an ideal one for limit 0."""
    inverse = _ONE32 / scale
    if limit > _ZERO32:
        step = _ONE32 / limit
        for i in range(x.size):
            out[i] = quantise(x[i] * inverse, step, limit, limit)
    else:
        for i in range(x.size):
            out[i] = x[i] * inverse


@kernel(parallel=True)
def mvm_cells(
    x, g_plus, g_minus, sigma_plus, sigma_minus, floor, ceiling, scale, seeds, purpose, replica,
    place, out,
):
    """The per-cell oracle of one row part: every cell draws its own noise at every read.

    x (batch, n_in) after the DAC; g, sigma (n_in, n_out) float32 [S], clipped with their noise
    at floor and ceiling; scale (n_out,) weight per siemens; seeds (2,) words; purpose, replica,
    place: of the stream; out (batch, n_out).
    """
    n_batch, n_in = x.shape
    n_out = scale.size
    for b in numba.prange(n_batch):
        z = np.empty(2 * n_out + 64, np.float32)
        k0, k1 = stream_key(seeds[0], seeds[1], purpose, replica, place)
        out[b, :] = _ZERO32
        for i in range(n_in):
            fill_normals(z, 0, 2 * n_out, k0, k1, np.uint64(i), np.uint64(b), np.uint64(0))
            for j in range(n_out):
                plus = g_plus[i, j] + sigma_plus[i, j] * z[j]
                minus = g_minus[i, j] + sigma_minus[i, j] * z[n_out + j]
                plus = min(max(plus, floor), ceiling)
                minus = min(max(minus, floor), ceiling)
                out[b, j] += x[b, i] * (plus - minus) * scale[j]


@kernel(allocates=True)
def read_streams(seed0, seed1, purpose, replica, places):
    """Return the keys (n, 2) uint64 of the streams at `places` (n,)."""
    keys = np.empty((places.size, 2), np.uint64)
    for p in range(places.size):
        keys[p, 0], keys[p, 1] = stream_key(seed0, seed1, purpose, replica, places[p])
    return keys
