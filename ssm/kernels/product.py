"""Products on tiles as the recurrence uses them: drive, sum, add noise, convert."""

from __future__ import annotations

import numpy as np

from aimc_sim.kernels import mvm
from aimc_sim.kernels._jit import kernel
from aimc_sim.kernels.converters import quantise
from aimc_sim.kernels.philox import fill_normals

_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)


@kernel()
def drive(x, step, limit, record, recording, out):
    """DAC: out (n,) = x on the grid of step (n,), clipped; a copy where limit is 0."""
    if recording:
        mvm.largest(x, record)
    if limit > _ZERO:
        for i in range(x.size):
            out[i] = quantise(x[i], step[i], _ONE / step[i], limit)
    else:
        out[:] = x


@kernel()
def finish(product, first, y, s, z, weights, converters, record, address):
    """Noise and ADC of outputs first .. first + n - 1 of a product, y (n,) in place.

    address : (step, sample, moment) counter words; `first` in the order of adc_step.
    """
    n = y.size
    begin = converters.adc_first[product] + first
    if record.on:
        mvm.largest(y, record.outputs[begin : begin + n])
    limit = converters.adc_limit
    step = converters.adc_step[begin : begin + n]
    if weights.noisy[product]:
        # a product's normals are made in one sweep when its first part is converted
        sigma = converters.adc_noise
        for j in range(n):
            noise = sigma * step[j]
            y[j] += np.sqrt(s[j] + noise * noise) * z[first + j]
    if limit > _ZERO:
        for j in range(n):
            y[j] = quantise(y[j], step[j], _ONE / step[j], limit)


@kernel()
def draw(product, n, weights, address, z):
    """z[:n] = the normals of all conversions of one access of a product."""
    if weights.noisy[product]:
        key = weights.keys[product]
        fill_normals(z, n, key[0], key[1], address[0], address[1], address[2])


@kernel()
def sum_blocks(x, w, group, noisy, v, y, s):
    """y (K,) += the products of modes with their cell; group modes share rows and columns.

    w, v : (K / group, group, group) flat, y_j = sum_i x_i w_ij within a group.
    """
    if group == 1:
        for k in range(y.size):
            y[k] += x[k] * w[k]
        if noisy:
            for k in range(y.size):
                s[k] += x[k] * x[k] * v[k]
        return
    for g in range(0, y.size, group):
        for i in range(group):
            xi = x[g + i] if g + i < y.size else _ZERO
            row = (g + i) * group
            for j in range(min(group, y.size - g)):
                y[g + j] += xi * w[row + j]
                if noisy:
                    s[g + j] += xi * xi * v[row + j]


@kernel()
def dense(product, x, n_out, network, weights, converters, record, address, work):
    """work.total[:n_out] = x @ w of a dense product, row parts added after their ADCs."""
    n_in = x.size
    first = network.weight_first[product]
    w = weights.w[first : first + n_in * n_out].reshape(n_in, n_out)
    v = weights.v[first : first + n_in * n_out].reshape(n_in, n_out)
    total, y, s = work.total[:n_out], work.y[:n_out], work.s[:n_out]
    total[:] = _ZERO
    part_rows = network.part_rows[product]
    n_parts = (n_in + part_rows - 1) // part_rows
    draw(product, n_parts * n_out, weights, address, work.z)
    for part in range(n_parts):
        begin, end = part * part_rows, min(n_in, (part + 1) * part_rows)
        y[:] = _ZERO
        s[:] = _ZERO
        mvm.accumulate_dense(x[begin:end], w[begin:end], y)
        if weights.noisy[product]:
            mvm.accumulate_squares(x[begin:end], v[begin:end], s)
        if network.analog[product]:
            finish(product, part * n_out, y, s, work.z, weights, converters, record, address)
        for j in range(n_out):
            total[j] += y[j]


@kernel()
def read_heads(product, rows, n_heads, network, weights, converters, record, address, work):
    """work.total[:H] = C's row of every head on its states and input, rows (H * n_in,).

    Heads of a group share rows: head j of a group sums over all its rows, idle cells included.
    """
    group = network.group_c
    n_in = rows.size // n_heads
    first = network.weight_first[product]
    total, y, s = work.total[:n_heads], work.y[:n_heads], work.s[:n_heads]
    total[:] = _ZERO
    span = group * n_in
    part_rows = network.part_rows[product]
    n_parts = (span + part_rows - 1) // part_rows
    noisy = weights.noisy[product]
    draw(product, n_parts * n_heads, weights, address, work.z)
    for part in range(n_parts):
        begin, end = part * part_rows, min(span, (part + 1) * part_rows)
        for h in range(n_heads):
            g, j = h // group, h % group
            low = g * span
            high = min(low + end, rows.size)
            at = first + (g * group + j) * span
            x = rows[low + begin : high]
            y[h] = mvm.dot(x, weights.w[at + begin : at + begin + x.size])
            if noisy:
                s[h] = mvm.dot_squares(x, weights.v[at + begin : at + begin + x.size])
        if network.analog[product]:
            finish(product, part * n_heads, y, s, work.z, weights, converters, record, address)
        for h in range(n_heads):
            total[h] += y[h]
