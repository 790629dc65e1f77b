"""Products of a single matrix: vector by vector, in steps of moving noise, in batches beside BLAS.

Inputs that come bit by bit are sparse: of the rows of a bit plane four in ten carry a 1 where
inputs are normal. Only these are summed.
"""

from __future__ import annotations

import numba
import numpy as np

from aimc_sim.kernels._jit import kernel
from aimc_sim.kernels.converters import bit_plane, distort, round_whole
from aimc_sim.kernels.moving import advance
from aimc_sim.kernels.mvm import (
    accumulate_dense,
    accumulate_squares,
    add_noise,
    convert,
    drive,
    full_scale_of,
)
from aimc_sim.kernels.philox import fill_normals

_ZERO32 = np.float32(0.0)
_ONE32 = np.float32(1.0)
_ZERO64 = np.uint64(0)
_7 = np.uint64(7)
_32 = np.uint64(32)
_GROUP = 8  # rows that are summed at once
_TURN = 8  # vectors that a thread takes at a time, with buffers of their own
_ABS32, _NONE32 = np.uint32(0x7FFFFFFF), np.uint32(0)


@kernel(inline=True)
def take_plane(x, plane, limit, out):
    """out (n,) = bit `plane` of x (n,), on a grid of 1/limit, as -1/limit, 0 or 1/limit."""
    step = _ONE32 / limit
    for i in range(x.size):
        out[i] = bit_plane(round_whole(x[i] * limit), plane) * step


@kernel(inline=True)
def list_rows(x, first, rows, values, squares):
    """Return how many x (n,) are not 0, rounded up to whole groups of 8; list them.

    rows, int32, values and squares, float32, (n + 8,): first + which they are, x and x^2 there;
    the first row with a value of 0 fills the last group up.
    """
    n = _ZERO64
    bits = x.view(np.uint32)
    # writing every row and keeping some costs a ninth of a branch that nobody can predict
    for i in range(np.uint64(x.size)):
        rows[n] = np.int32(i)
        n += np.uint64((bits[i] & _ABS32) != _NONE32)
    for k in range(n):
        i = rows[k]
        values[k] = x[i]
        squares[k] = x[i] * x[i]
        rows[k] = np.int32(first + i)
    whole = (n + _7) & ~_7
    for k in range(n, whole):
        rows[k] = np.int32(first)
        values[k] = _ZERO32
        squares[k] = _ZERO32
    return np.int64(whole)


@kernel()
def sum_rows(rows, values, n, w, y):
    """y (n_out,) += sum_k values[k] w[rows[k]], k < n, a multiple of 8; w (n_in, n_out).

    Eight rows at a time: y is loaded and stored once for them.
    """
    k = 0
    while k < n:
        x0, x1, x2, x3 = values[k], values[k + 1], values[k + 2], values[k + 3]
        x4, x5, x6, x7 = values[k + 4], values[k + 5], values[k + 6], values[k + 7]
        w0, w1, w2, w3 = w[rows[k]], w[rows[k + 1]], w[rows[k + 2]], w[rows[k + 3]]
        w4, w5, w6, w7 = w[rows[k + 4]], w[rows[k + 5]], w[rows[k + 6]], w[rows[k + 7]]
        for j in range(np.uint64(y.size)):
            low = x0 * w0[j] + x1 * w1[j] + x2 * w2[j] + x3 * w3[j]
            high = x4 * w4[j] + x5 * w5[j] + x6 * w6[j] + x7 * w7[j]
            y[j] += low + high
        k += _GROUP


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
    return 2 * (n_in + n_out) + 3 * (n_in + _GROUP) + max(n_in, n_out) + 64


@kernel()
def mvm_vectors(
    x, full_scale, w, v, part_rows, noisy, keys, first_read, dac_limit, adc_step, adc_inverse,
    adc_sigma, adc_limit, periphery, work, out,
):
    """out (batch, n_out) = the products of x (batch, n_in), one vector after the other.

    full_scale : input at the DAC's end, 0: the largest of every vector. w, v (n_in, n_out)
    float32; keys (n_parts, 2) uint64; adc_step, adc_inverse, adc_sigma (n_parts * n_out,);
    work (work_size(n_in, n_out),) float32: buffers. Returns how many outputs clipped, -1 where x
    is not finite.
    """
    n_batch, n_in = x.shape
    check = _ZERO32  # stays 0 unless an input is NaN or infinite
    n_parts, n_out = keys.shape[0], w.shape[1]
    scaled, driven, rest = work[:n_in], work[n_in : 2 * n_in], work[2 * n_in :]
    y, s, rest = rest[:n_out], rest[n_out : 2 * n_out], rest[2 * n_out :]
    room = n_in + _GROUP
    values, squares, rows = rest[:room], rest[room : 2 * room], rest[2 * room : 3 * room]
    rows, z = rows.view(np.int32), rest[3 * room :]
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
                n_rows = np.int64(0)
                if n_planes > 1:
                    n_rows = list_rows(now[low:high], low, rows, values, squares)
                    sum_rows(rows, values, n_rows, w, y)
                else:
                    accumulate_dense(now[low:high], w[low:high], y)
                if noisy:
                    s[:] = _ZERO32
                    if n_planes > 1:
                        sum_rows(rows, squares, n_rows, v, s)
                    else:
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
def mvm_planes(
    x, full_scale, w, v, part_rows, noisy, keys, first_read, dac_limit, adc_step, adc_inverse,
    adc_sigma, adc_limit, periphery, n_work, out,
):
    """As mvm_vectors for finite inputs that come bit by bit, the vectors shared by the threads.

    n_work : work_size(n_in, n_out).
    """
    n_batch = x.shape[0]
    clipped = 0
    for turn in numba.prange((n_batch + _TURN - 1) // _TURN):
        low, high = turn * _TURN, min(n_batch, (turn + 1) * _TURN)
        work = np.empty(n_work, np.float32)
        clipped += mvm_vectors(
            x[low:high], full_scale, w, v, part_rows, noisy, keys, first_read + low, dac_limit,
            adc_step, adc_inverse, adc_sigma, adc_limit, periphery, work, out[low:high],
        )
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
