"""Products on tiles as the recurrence uses them: drive, sum, add noise, convert.

The inner functions take whole arrays with unsigned offsets instead of slices: a slice passed to
a function costs 70 ns, and a signed index such as first + k is guarded against being negative,
which keeps LLVM from vectorising the loop (6 ns an element instead of 1 ns).
"""

from __future__ import annotations

import numpy as np

from aimc_sim.kernels import mvm
from aimc_sim.kernels._jit import FASTMATH_SUM, kernel
from aimc_sim.kernels.converters import bit_plane, convert_real, distort, quantise, round_whole
from aimc_sim.kernels.philox import fill_normals

_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)
_HALF = np.float32(0.5)
_0 = np.uint64(0)


@kernel(inline=True)
def copy(x, x_first, n, out):
    """out[:n] = x[x_first : x_first + n]; offsets and n are uint64."""
    for k in range(n):
        out[k] = x[x_first + k]


@kernel(inline=True)
def drive(x, x_first, n, step, inverse, first, limit, out):
    """DAC: out[:n] = x on the grid of step, clipped; a copy where limit is 0.

    Elements x_first + k of x, first + k of step and inverse; offsets and n are uint64.
    """
    if limit > _ZERO:
        for k in range(n):
            out[k] = quantise(x[x_first + k], step[first + k], inverse[first + k], limit)
    else:
        copy(x, x_first, n, out)


@kernel(inline=True)
def keep_largest(x, x_first, n, record, first):
    """record[first + k] = max(record[first + k], |x[x_first + k]|) for k < n."""
    for k in range(n):
        record[first + k] = max(record[first + k], abs(x[x_first + k]))


@kernel()
def count_bins(x, x_first, n, inverse, counts, first):
    """counts[first + k, b] += 1 for the bin b of |x[x_first + k]|, of inverse[first + k] a unit."""
    last = counts.shape[1] - 1
    for k in range(n):
        place = min(abs(x[x_first + k]) * inverse[first + k], np.float32(last))
        counts[first + k, np.int64(place)] += 1


@kernel(paste=True)
def drive_inputs(x, step, limit, largest, row, record, out):
    """DAC of the few inputs of a matrix, whole vectors: out (n,). row : number of the first."""
    n = np.uint64(x.size)
    if record.on:
        keep_largest(x, _0, n, largest, _0)
        if record.row_counts.shape[0] > 0:
            count_bins(x, _0, n, record.row_inverse, record.row_counts, np.uint64(row))
    if limit > _ZERO:
        for k in range(n):
            out[k] = quantise(x[k], step[k], _ONE / step[k], limit)
    else:
        copy(x, _0, n, out)


@kernel(inline=True)
def padded(n):
    """Return n rounded up to whole groups of 64 random numbers."""
    return (n + 63) >> 6 << 6


@kernel()
def take_plane(x, n, step, first, plane, out):
    """out[:n] = bit `plane` of x, whole numbers of step[first + k]: -1, 0 or 1 of them."""
    for k in range(n):
        width = step[first + k]
        out[k] = bit_plane(round_whole(x[k] / width), plane) * width


@kernel()
def disturb(product, element, n, step, first, row, limit, tiles, address, out):
    """Errors of the DACs of rows row .. row + n - 1 in place: out[:n], one drive.

    element : the first's number among the normals of a product's drives, a multiple of 64.
    limit : largest code of these DACs.
    """
    periphery = tiles.periphery
    if periphery.dac_noise > _ZERO:
        fill_normals(
            tiles.drive_z, element, np.int64(n), periphery.dac_keys[product, 0],
            periphery.dac_keys[product, 1], address[0], address[1], address[2],
        )
    distort(n, step, first, row, limit, periphery, tiles.drive_z, out)


@kernel(inline=True)
def add_noise(n, s, z, z_first, adc_sigma, adc_step, first, y):
    """y[:n] += sqrt(s + (adc_sigma step)^2) z: noise of the cells and of the ADC."""
    for k in range(n):
        sigma = adc_sigma * adc_step[first + k]
        y[k] += np.sqrt(s[k] + sigma * sigma) * z[z_first + k]


@kernel(inline=True)
def convert(n, adc_step, adc_inverse, first, limit, y):
    """ADC: y[:n] onto the grid of step, clipped at limit steps; returns how many clipped."""
    clipped = np.int32(0)  # see mvm.convert
    for k in range(n):
        x = y[k] * adc_inverse[first + k]
        clipped = np.int32(clipped + np.int32(abs(x) > limit + _HALF))
        y[k] = round_whole(min(max(x, -limit), limit)) * adc_step[first + k]
    return np.int64(clipped)


@kernel(paste=True)
def finish(product, at, n, noisy, z_first, tiles):
    """Noise and ADC in place: tiles.y[:n] are a product's outputs at .. at + n - 1.

    Their normals start at z_first of tiles.z; n and z_first are uint64.
    """
    first = np.uint64(tiles.adc_first[product] + at)
    if tiles.recording:
        keep_largest(tiles.y, _0, n, tiles.outputs, first)
        if tiles.output_counts.shape[0] > 0:
            count_bins(tiles.y, _0, n, tiles.output_inverse, tiles.output_counts, first)
    if noisy:
        add_noise(
            n, tiles.s, tiles.z, z_first, tiles.adc_noise, tiles.adc_step, first, tiles.y
        )
    if tiles.periphery.adc_on:
        tiles.clipped[product] += convert_real(
            n, tiles.y, tiles.adc_step, tiles.adc_inverse, first, tiles.adc_limit,
            tiles.periphery,
        )
    elif tiles.adc_limit > _ZERO:
        tiles.clipped[product] += convert(
            n, tiles.adc_step, tiles.adc_inverse, first, tiles.adc_limit, tiles.y
        )
    if tiles.offset.size > 0:
        for k in range(n):
            tiles.y[k] -= tiles.offset[first + k]


@kernel(paste=True)
def draw(product, first, n, tiles, address):
    """tiles.z[:n] = the normals of outputs first .. first + n - 1 of a product (first % 64 = 0)."""
    fill_normals(
        tiles.z, first, n, tiles.keys[product, 0], tiles.keys[product, 1],
        address[0], address[1], address[2],
    )


@kernel(inline=True)
def sum_noisy_cells(x, n, w, spread, w_first, z, y):
    """y[:n] = x (w + spread z): one noisy cell a column, spread its standard deviation.

    The normal is symmetric, so x may stand for |x|, and no square root is left in the loop.
    """
    for k in range(n):
        y[k] = x[k] * (w[w_first + k] + spread[w_first + k] * z[k])


@kernel(paste=True)
def converts_plainly(tiles):
    """Return whether outputs are converted and nothing else: no errors, noise or offset of an ADC,
    nothing recorded."""
    return (
        tiles.adc_limit > _ZERO and tiles.adc_noise == _ZERO and not tiles.recording
        and not tiles.periphery.adc_on and tiles.offset.size == 0
    )


@kernel(inline=True)
def convert_cells(
    x, n, w, spread, w_first, z, noisy, adc_step, adc_inverse, first, limit, y
):
    """y[:n] = the ADC's x (w + spread z), or x w, one cell a column; returns how many clipped.

    Sum, noise and conversion in one pass: y is not stored and loaded again between them.
    """
    clipped = np.int32(0)  # see mvm.convert
    if noisy:
        for k in range(n):
            code = x[k] * (w[w_first + k] + spread[w_first + k] * z[k]) * adc_inverse[first + k]
            clipped = np.int32(clipped + np.int32(abs(code) > limit + _HALF))
            y[k] = round_whole(min(max(code, -limit), limit)) * adc_step[first + k]
    else:
        for k in range(n):
            code = x[k] * w[w_first + k] * adc_inverse[first + k]
            clipped = np.int32(clipped + np.int32(abs(code) > limit + _HALF))
            y[k] = round_whole(min(max(code, -limit), limit)) * adc_step[first + k]
    return np.int64(clipped)


@kernel(inline=True)
def sum_cells(x, n, w, v, w_first, noisy, y, s):
    """y[:n] += x w and s[:n] += x^2 v: one cell a column, as A has without idle cells."""
    if noisy:
        for k in range(n):
            y[k] += x[k] * w[w_first + k]
            s[k] += x[k] * x[k] * v[w_first + k]
    else:
        for k in range(n):
            y[k] += x[k] * w[w_first + k]


@kernel()
def sum_groups(x, n, w, v, w_first, group, noisy, y, s):
    """y[:n] += sums over groups of modes that share rows and columns, idle cells included.

    w, v from w_first on : (n_groups, group, group) flat, y_j = sum_i x_i w_ij within a group.
    """
    for g in range(0, n, group):
        for i in range(min(group, n - g)):
            xi = x[g + i]
            row = w_first + (g + i) * group
            for j in range(min(group, n - g)):
                y[g + j] += xi * w[row + j]
                if noisy:
                    s[g + j] += xi * xi * v[row + j]


@kernel(inline=True)
def clear(n, y):
    """y[:n] = 0."""
    for k in range(n):
        y[k] = _ZERO


@kernel()
def dense(product, x, n_out, step, row, tiles, address):
    """tiles.total[:n_out] = x @ w of a dense product, row parts added after their ADCs.

    x : (n_in,) whole numbers of step (n_in,) where the product is on tiles, changed in place; row :
    number of its first row.
    """
    n_in = x.size
    first = tiles.weight_first[product]
    w = tiles.w[first : first + n_in * n_out].reshape(n_in, n_out)
    v = tiles.v[first : first + n_in * n_out].reshape(n_in, n_out)
    total, y, s = tiles.total, tiles.y, tiles.s
    n, rows = np.uint64(n_out), np.uint64(n_in)
    clear(n, total)
    part_rows = tiles.part_rows[product]
    n_parts = (n_in + part_rows - 1) // part_rows
    noisy, analog = tiles.noisy[product], tiles.analog[product]
    n_planes = tiles.planes[product] if analog else 1
    if n_planes > 1:
        copy(x, _0, rows, tiles.p0)
    for plane in range(n_planes):
        if n_planes > 1:
            take_plane(tiles.p0, rows, step, _0, plane, x)
        if analog and tiles.periphery.dac_on:
            disturb(
                product, plane * padded(n_in), rows, step, _0, np.uint64(row), tiles.dac_limit,
                tiles, address, x,
            )
        if noisy:
            draw(product, plane * padded(n_parts * n_out), n_parts * n_out, tiles, address)
        factor = np.float32(1 << plane)
        for part in range(n_parts):
            begin, end = part * part_rows, min(n_in, (part + 1) * part_rows)
            clear(n, y)
            mvm.accumulate_dense(x[begin:end], w[begin:end], y)
            if noisy:
                clear(n, s)
                mvm.accumulate_squares(x[begin:end], v[begin:end], s)
            if analog:
                finish(product, part * n_out, n, noisy, np.uint64(part * n_out), tiles)
            for j in range(n):
                total[j] += y[j] * factor


@kernel(inline=True, fastmath=FASTMATH_SUM)
def _dot(x, x_first, w, w_first, n):
    total = _ZERO
    for k in range(n):
        total += x[x_first + k] * w[w_first + k]
    return total


@kernel(inline=True, fastmath=FASTMATH_SUM)
def _dot_squares(x, x_first, v, v_first, n):
    total = _ZERO
    for k in range(n):
        total += x[x_first + k] * x[x_first + k] * v[v_first + k]
    return total


@kernel()
def _sum_head(h, begin, end, group, n_modes, x0, x1, u, at, w, v, noisy):
    """Return one head's column over rows begin .. end - 1 of its group, and its variance.

    x0, x1 (K,) driven states, u (H,) driven inputs; the column's weights w and variances v
    start at `at`: rows p, q, u of one head of the group after the other.
    """
    y, s = _ZERO, _ZERO
    head = h // group * group
    for i in range(min(group, u.size - head)):
        row = i * (2 * n_modes + 1)
        for plane in range(2):
            start = row + plane * n_modes
            low, high = max(begin, start), min(end, start + n_modes)
            if high <= low:
                continue
            x = x0 if plane == 0 else x1
            x_first = np.uint64((head + i) * n_modes + low - start)
            w_first, n = np.uint64(at + low), np.uint64(high - low)
            y += _dot(x, x_first, w, w_first, n)
            if noisy:
                s += _dot_squares(x, x_first, v, w_first, n)
        last = row + 2 * n_modes
        if begin <= last < end:
            value = u[head + i]
            y += value * w[np.uint64(at + last)]
            if noisy:
                s += value * value * v[np.uint64(at + last)]
    return y, s


@kernel()
def _sum_heads(n_modes, x0, x1, u, first, w, v, noisy, y, s):
    """y, s (H,) of all heads where each has its rows for itself and they share a tile."""
    n = np.uint64(n_modes)
    two, one = np.uint64(2), np.uint64(1)
    for h in range(np.uint64(u.size)):
        at = np.uint64(first) + h * (two * n + one)
        y[h] = (
            _dot(x0, h * n, w, at, n) + _dot(x1, h * n, w, at + n, n) + u[h] * w[at + two * n]
        )
        if noisy:
            s[h] = (
                _dot_squares(x0, h * n, v, at, n) + _dot_squares(x1, h * n, v, at + n, n)
                + u[h] * u[h] * v[at + two * n]
            )


@kernel()
def read_heads(product, x0, x1, u, n_modes, group, at, step, skip_row, tiles, address):
    """tiles.total[:H] = C's row of every head on its driven states (K,), (K,) and input (H,).

    Heads of a group share rows: each sums over all rows of its group, idle cells included. x0, x1,
    u : whole numbers of the steps where C is on tiles, changed in place. at : number of the layer's
    first state; step (H,) of u, whose first row is skip_row.
    """
    n_heads = u.size
    first = tiles.weight_first[product]
    total, y, s = tiles.total, tiles.y, tiles.s
    n, modes = np.uint64(n_heads), np.uint64(n_heads * n_modes)
    real = np.uint64(at)
    imaginary = np.uint64(at + tiles.state_step.size // 2)
    state_row = np.uint64(tiles.state_row)
    clear(n, total)
    span = group * (2 * n_modes + 1)
    part_rows = tiles.part_rows[product]
    n_parts = (span + part_rows - 1) // part_rows
    noisy, analog = tiles.noisy[product], tiles.analog[product]
    n_planes = tiles.planes[product] if analog else 1
    if n_planes > 1:
        copy(x0, _0, modes, tiles.p0)
        copy(x1, _0, modes, tiles.p1)
        copy(u, _0, n, tiles.p2)
    apart = padded(n_heads * n_modes)
    for plane in range(n_planes):
        if n_planes > 1:
            take_plane(tiles.p0, modes, tiles.state_step, real, plane, x0)
            take_plane(tiles.p1, modes, tiles.state_step, imaginary, plane, x1)
            take_plane(tiles.p2, n, step, _0, plane, u)
        if analog and tiles.periphery.dac_on:
            element = 3 * plane * apart
            disturb(
                product, element, modes, tiles.state_step, real, state_row + real,
                tiles.state_dac_limit, tiles, address, x0,
            )
            disturb(
                product, element + apart, modes, tiles.state_step, imaginary,
                state_row + imaginary, tiles.state_dac_limit, tiles, address, x1,
            )
            disturb(
                product, element + 2 * apart, n, step, _0, np.uint64(skip_row), tiles.dac_limit,
                tiles, address, u,
            )
        if noisy:
            draw(product, plane * padded(n_parts * n_heads), n_parts * n_heads, tiles, address)
        factor = np.float32(1 << plane)
        for part in range(n_parts):
            if group == 1 and n_parts == 1:
                _sum_heads(n_modes, x0, x1, u, first, tiles.w, tiles.v, noisy, y, s)
            else:
                begin, end = part * part_rows, min(span, (part + 1) * part_rows)
                for h in range(n_heads):
                    y[h], s[h] = _sum_head(
                        h, begin, end, group, n_modes, x0, x1, u, first + h * span, tiles.w,
                        tiles.v, noisy,
                    )
            if analog:
                finish(product, part * n_heads, n, noisy, np.uint64(part * n_heads), tiles)
            for h in range(n):
                total[h] += y[h] * factor
