"""Products of driven rows with a tile's cells: accumulate, add noise, convert.

Independent Gaussian cell noise that is new at each read is summed exactly at the column,
sigma_j^2 = sum_i x_i^2 sigma_ij^2: one normal per output instead of one per cell.
"""

from __future__ import annotations

import numba
import numpy as np

from aimc_sim.kernels._jit import FASTMATH_SUM, kernel
from aimc_sim.kernels.cells import stream_key
from aimc_sim.kernels.converters import quantise
from aimc_sim.kernels.philox import fill_normals

_ZERO32 = np.float32(0.0)
_ONE32 = np.float32(1.0)


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


@kernel(fastmath=FASTMATH_SUM)
def dot(x, w):
    """Return sum_i x_i w_i of two (n,) float32 vectors."""
    total = _ZERO32
    for i in range(x.size):
        total += x[i] * w[i]
    return total


@kernel(fastmath=FASTMATH_SUM)
def dot_squares(x, v):
    """Return sum_i x_i^2 v_i of two (n,) float32 vectors."""
    total = _ZERO32
    for i in range(x.size):
        total += x[i] * x[i] * v[i]
    return total


@kernel()
def add_noise(y, s, z, adc_sigma):
    """y += sqrt(s + adc_sigma^2) z, all (n_out,) float32: cell noise and that of the ADC."""
    for j in range(y.size):
        y[j] += np.sqrt(s[j] + adc_sigma[j] * adc_sigma[j]) * z[j]


@kernel()
def convert(y, step, inverse, limit):
    """ADC or DAC in place: y (n,) onto the grid of step (n,), clipped at limit steps."""
    for j in range(y.size):
        y[j] = quantise(y[j], step[j], inverse[j], limit)


@kernel()
def largest(y, record):
    """record (n,) = max(record, |y|): what a calibration run keeps of a converter's signal."""
    for j in range(y.size):
        record[j] = max(record[j], abs(y[j]))


@kernel()
def multiply_part(x, w, v, noisy, k0, k1, read, adc, y, s, z):
    """One product of one row part: y = ADC(x @ w + noise), y (n_out,) is overwritten.

    adc : (step, inverse, sigma, limit), three (n_out,) vectors and a number; limit 0 is ideal.
    """
    y[:] = _ZERO32
    accumulate_dense(x, w, y)
    step, inverse, sigma, limit = adc
    if noisy:
        s[:] = _ZERO32
        accumulate_squares(x, v, s)
        fill_normals(z, 0, y.size, k0, k1, np.uint64(0), np.uint64(read), np.uint64(read >> 32))
        add_noise(y, s, z, sigma)
    if limit > _ZERO32:
        convert(y, step, inverse, limit)


@kernel(parallel=True)
def mvm_vectors(
    x, x_scale, w, v, part_rows, noisy, keys, first_read, dac_limit, adc_step, adc_sigma,
    adc_limit, out,
):
    """out (batch, n_out) = the products of x (batch, n_in), one vector after the other.

    x_scale (batch,): a vector's full scale at the DAC. w, v (n_in, n_out) float32.
    keys (n_parts, 2) uint64; adc_step, adc_sigma (n_parts, n_out).
    """
    n_batch, n_in = x.shape
    n_parts, n_out = adc_step.shape
    for b in numba.prange(n_batch):
        scaled = np.empty(n_in, np.float32)
        y = np.empty(n_out, np.float32)
        s = np.empty(n_out, np.float32)
        z = np.empty(n_out + 32, np.float32)
        scale = x_scale[b]
        dac_step = _ONE32 / dac_limit if dac_limit > _ZERO32 else _ZERO32
        for i in range(n_in):
            value = x[b, i] / scale
            scaled[i] = (
                quantise(value, dac_step, dac_limit, dac_limit) if dac_limit > _ZERO32 else value
            )
        out[b, :] = _ZERO32
        for part in range(n_parts):
            rows = slice(part * part_rows, min(n_in, (part + 1) * part_rows))
            adc = (adc_step[part], _ONE32 / adc_step[part], adc_sigma[part], adc_limit)
            multiply_part(
                scaled[rows], w[rows], v[rows], noisy, keys[part, 0], keys[part, 1],
                first_read + b, adc, y, s, z,
            )
            for j in range(n_out):
                out[b, j] += y[j] * scale


@kernel(parallel=True)
def scale_inputs(x, dac_limit, dynamic, full_scale, scaled, squares, x_scale):
    """DAC of a batch: scaled (batch, n_in) in units of full scale, and its squares."""
    n_batch, n_in = x.shape
    step = _ONE32 / dac_limit if dac_limit > _ZERO32 else _ZERO32
    for b in numba.prange(n_batch):
        scale = full_scale
        if dynamic:
            scale = _ZERO32
            for i in range(n_in):
                scale = max(scale, abs(x[b, i]))
            scale = scale if scale > _ZERO32 else _ONE32
        x_scale[b] = scale
        inverse = _ONE32 / scale
        for i in range(n_in):
            value = x[b, i] * inverse
            if dac_limit > _ZERO32:
                value = quantise(value, step, dac_limit, dac_limit)
            scaled[b, i] = value
            squares[b, i] = value * value


@kernel(parallel=True)
def finish_batch(
    y, s, noisy, k0, k1, first_read, adc_step, adc_sigma, adc_limit, x_scale, out
):
    """Noise, ADC and accumulation of one row part in one pass: out (batch, n_out) += y."""
    n_batch, n_out = y.shape
    inverse = _ONE32 / adc_step
    for b in numba.prange(n_batch):
        if noisy:
            z = np.empty(n_out + 32, np.float32)
            read = first_read + b
            fill_normals(z, 0, n_out, k0, k1, np.uint64(0), np.uint64(read), np.uint64(read >> 32))
            add_noise(y[b], s[b], z, adc_sigma)
        if adc_limit > _ZERO32:
            convert(y[b], adc_step, inverse, adc_limit)
        scale = x_scale[b]
        for j in range(n_out):
            out[b, j] += y[b, j] * scale


@kernel(parallel=True)
def mvm_cells(x, g_plus, g_minus, sigma_plus, sigma_minus, scale, seeds, replica, tiles, out):
    """The per-cell oracle of one row part: every cell draws its own noise at every read.

    x (batch, n_in) after the DAC; g, sigma (n_in, n_out) float32 [S]; scale (n_out,) weight per
    siemens; seeds (2,) words; tiles: place of the stream; out (batch, n_out).
    """
    n_batch, n_in = x.shape
    n_out = scale.size
    for b in numba.prange(n_batch):
        z = np.empty(2 * n_out + 32, np.float32)
        k0, k1 = stream_key(seeds[0], seeds[1], 6, replica, tiles)
        out[b, :] = _ZERO32
        for i in range(n_in):
            fill_normals(z, 0, 2 * n_out, k0, k1, np.uint64(i), np.uint64(b), np.uint64(0))
            for j in range(n_out):
                plus = g_plus[i, j] + sigma_plus[i, j] * z[j]
                minus = g_minus[i, j] + sigma_minus[i, j] * z[n_out + j]
                out[b, j] += x[b, i] * (plus - minus) * scale[j]


@kernel(allocates=True)
def read_streams(seed0, seed1, purpose, replica, places):
    """Return the keys (n, 2) uint64 of the streams at `places` (n,)."""
    keys = np.empty((places.size, 2), np.uint64)
    for p in range(places.size):
        keys[p, 0], keys[p, 1] = stream_key(seed0, seed1, purpose, replica, places[p])
    return keys
