"""Products of driven rows with a tile's cells: accumulate, add noise, convert.

Independent Gaussian cell noise that is new at each read is summed exactly at the column,
sigma_j^2 = sum_i x_i^2 sigma_ij^2: one normal per output instead of one per cell.
"""

from __future__ import annotations

import numba
import numpy as np

from aimc_sim.kernels._jit import kernel
from aimc_sim.kernels.cells import stream_key
from aimc_sim.kernels.converters import bit_plane, convert_real, distort, quantise, round_whole
from aimc_sim.kernels.moving import advance
from aimc_sim.kernels.philox import fill_normals

_ZERO32 = np.float32(0.0)
_ONE32 = np.float32(1.0)
_ZERO64 = np.uint64(0)
_HALF32 = np.float32(0.5)
_32 = np.uint64(32)


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


@kernel(inline=True)
def take_plane(x, plane, limit, out):
    """out (n,) = bit `plane` of x (n,), on a grid of 1/limit, as -1/limit, 0 or 1/limit."""
    step = _ONE32 / limit
    for i in range(x.size):
        out[i] = bit_plane(round_whole(x[i] * limit), plane) * step


@kernel(inline=True)
def padded(n):
    """Return n rounded up to whole groups of 64 random numbers: the addresses of a bit plane."""
    return (n + 63) >> 6 << 6


@kernel(inline=True)
def disturb(periphery, plane, read, dac_limit, z, x):
    """Errors of the DACs of a single matrix in place: x (n_in,) in units of full scale, a drive.

    z (n_in + 64,): buffer.
    """
    if periphery.dac_noise > _ZERO32:
        fill_normals(
            z, plane * padded(x.size), x.size, periphery.dac_keys[0, 0],
            periphery.dac_keys[0, 1], _ZERO64, read, read >> _32,
        )
    distort(
        np.uint64(x.size), periphery.dac_step, _ZERO64, _ZERO64, dac_limit, periphery, z, x
    )


def work_size(n_in, n_out):
    """Return the length of the buffers of `mvm_vectors`: one array is quicker to make and pass."""
    return 2 * (n_in + n_out) + max(n_in, n_out) + 64


@kernel()
def mvm_vectors(
    x, full_scale, w, v, part_rows, noisy, keys, first_read, dac_limit, adc_step, adc_inverse,
    adc_sigma, adc_limit, periphery, work, out,
):
    """out (batch, n_out) = the products of x (batch, n_in), one vector after the other.

    full_scale : input at the DAC's end, 0: the largest of every vector. w, v (n_in, n_out)
    float32; keys (n_parts, 2) uint64; adc_step, adc_inverse, adc_sigma (n_parts * n_out,);
    work (work_size(n_in, n_out),) float32: buffers. Returns how many outputs clipped, -1 where x is
    not finite.
    """
    n_batch, n_in = x.shape
    check = _ZERO32  # stays 0 unless an input is NaN or infinite
    n_parts, n_out = keys.shape[0], w.shape[1]
    scaled, driven, rest = work[:n_in], work[n_in : 2 * n_in], work[2 * n_in :]
    y, s, z = rest[:n_out], rest[n_out : 2 * n_out], rest[2 * n_out :]
    clipped = np.int64(0)
    n_planes = 1
    if periphery is not None:
        n_planes = periphery.n_planes
    for b in range(n_batch):
        scale = full_scale_of(x[b], full_scale)
        drive(x[b], scale, dac_limit, scaled)
        for i in range(n_in):
            check += x[b, i] * _ZERO32
        read = np.uint64(first_read + b)
        total = out[b]
        for plane in range(n_planes):
            now = scaled
            if periphery is not None:
                if n_planes > 1:
                    now = driven
                    take_plane(scaled, plane, dac_limit, driven)
                if periphery.dac_on:
                    disturb(periphery, plane, read, dac_limit, z, now)
            factor = scale * np.float32(1 << plane)
            for part in range(n_parts):
                low, high = part * part_rows, min(n_in, (part + 1) * part_rows)
                first = np.uint64(part * n_out)
                y[:] = _ZERO32
                accumulate_dense(now[low:high], w[low:high], y)
                if noisy:
                    s[:] = _ZERO32
                    accumulate_squares(now[low:high], v[low:high], s)
                    fill_normals(
                        z, plane * padded(n_out), n_out, keys[part, 0], keys[part, 1], _ZERO64,
                        read, read >> _32,
                    )
                    add_noise(y, s, z, adc_sigma, first)
                clipped += convert(y, adc_step, adc_inverse, first, adc_limit, periphery)
                if part == 0 and plane == 0:
                    for j in range(n_out):
                        total[j] = y[j] * factor
                else:
                    for j in range(n_out):
                        total[j] += y[j] * factor
    return clipped if check == _ZERO32 else np.int64(-1)


@kernel()
def mvm_steps(
    x, full_scale, w, v, part_rows, noisy, keys, first_read, dac_limit, adc_step, adc_inverse,
    adc_sigma, adc_limit, periphery, work, out, moving, first_step, w_flat,
):
    """As mvm_vectors, every vector a step of noise that moves; w changes in place, w_flat is it.

    first_step : the one after the last that w has seen, at most first_read + 1.
    """
    clipped = np.int64(0)
    for b in range(x.shape[0]):
        for step in range(first_step if b == 0 else first_read + b, first_read + b + 1):
            advance(moving, step, w_flat)
        now = mvm_vectors(
            x[b : b + 1], full_scale, w, v, part_rows, noisy, keys, first_read + b, dac_limit,
            adc_step, adc_inverse, adc_sigma, adc_limit, periphery, work, out[b : b + 1],
        )
        clipped = now + clipped if now >= 0 and clipped >= 0 else np.int64(-1)
    return clipped


@kernel(parallel=True)
def drive_batch(x, full_scale, first_read, dac_limit, periphery, scaled, squares, x_scale):
    """DAC of a batch: scaled (n_planes, batch, n_in) in units of x_scale (batch,), its squares.

    squares : (n_planes, batch, n_in), or (0, 0, 0) where none are asked for.
    """
    n_in, n_planes = x.shape[1], scaled.shape[0]
    for b in numba.prange(x.shape[0]):
        x_scale[b] = full_scale_of(x[b], full_scale)
        drive(x[b], x_scale[b], dac_limit, scaled[0, b])
        read = np.uint64(first_read + b)
        # the last plane first: plane 0 takes the place of the codes
        for back in range(n_planes):
            plane = n_planes - 1 - back
            out = scaled[plane, b]
            if periphery is not None:
                if n_planes > 1:
                    take_plane(scaled[0, b], plane, dac_limit, out)
                if periphery.dac_on:
                    z = np.empty(n_in + 64, np.float32)
                    disturb(periphery, plane, read, dac_limit, z, out)
            if squares.size > 0:
                for i in range(n_in):
                    squares[plane, b, i] = out[i] * out[i]


@kernel(parallel=True)
def finish_batch(
    y, s, noisy, k0, k1, first_read, adc_step, adc_inverse, adc_sigma, adc_limit, periphery, first,
    x_scale, out,
):
    """Noise, ADC and accumulation of one row part in one pass: out (batch, n_out) += y.

    y, s (n_planes, batch, n_out); elements first + j (uint64) of the converters' arrays. Returns
    how many outputs clipped.
    """
    n_planes, n_batch, n_out = y.shape
    clipped = 0
    for b in numba.prange(n_batch):
        z = np.empty(n_out + 64 if noisy else 0, np.float32)
        read = np.uint64(first_read + b)
        for plane in range(n_planes):
            sums = y[plane, b]
            if noisy:
                fill_normals(
                    z, plane * padded(n_out), n_out, k0, k1, _ZERO64, read, read >> _32
                )
                add_noise(sums, s[plane, b], z, adc_sigma, first)
            clipped += convert(sums, adc_step, adc_inverse, first, adc_limit, periphery)
            factor = x_scale[b] * np.float32(1 << plane)
            for j in range(n_out):
                out[b, j] += sums[j] * factor
    return clipped


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
