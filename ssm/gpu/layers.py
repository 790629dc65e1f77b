"""All that needs no state: dense products, C's conversions, gate, norm, pooling, all steps at once.

A program does some steps of one sequence: its weights are its own, since noise that lasts is a
fresh draw for every sequence.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ssm.gpu.converters import convert, drive
from ssm.gpu.draws import key_of, normals, run_of


@triton.jit
def exponential(x):
    """Return e^x to 2 ulp (see `ssm.kernels.activation.exponential`); x is held in +-87."""
    x = tl.maximum(x, -87.0, propagate_nan=tl.PropagateNan.ALL)
    x = tl.minimum(x, 88.0, propagate_nan=tl.PropagateNan.ALL)
    n = (x * 1.44269504 + 12582912.0) - 12582912.0
    r = x - n * 0.693359375
    r = r - n * -2.12194440e-4
    poly = 1.9875691500e-4 * r + 1.3981999507e-3
    poly = poly * r + 8.3334519073e-3
    poly = poly * r + 4.1665795894e-2
    poly = poly * r + 1.6666665459e-1
    poly = poly * r + 5.0000001201e-1
    scale = ((n.to(tl.int32) + 127) << 23).to(tl.float32, bitcast=True)
    return (poly * r * r + r + 1.0) * scale


@triton.jit
def gelu(y):
    """Return y Phi(y), Phi by Abramowitz and Stegun 7.1.26."""
    a = tl.abs(y) * 0.70710678
    t = tl.div_rn(tl.full(y.shape, 1.0, tl.float32), 1.0 + 0.3275911 * a)
    tail = 1.061405429 * t - 1.453152027
    tail = tail * t + 1.421413741
    tail = tail * t - 0.284496736
    tail = (tail * t + 0.254829592) * t * exponential(-a * a)
    upper = 1.0 - 0.5 * tail
    return y * tl.where(y >= 0.0, upper, 1.0 - upper)


@triton.jit
def _conversions(
    y, s, element, here, step, sample, moment, keys, product, adc_step, adc_inverse, adc_limit,
    adc_noise, offset, errors, NOISY: tl.constexpr, ADC: tl.constexpr, OFFSET: tl.constexpr,
    REAL: tl.constexpr, INL: tl.constexpr, BITS: tl.constexpr,
):
    """Return sums y (steps, outputs) of variance s after noise, ADC and offset, and what clipped.

    element (1, outputs) : number of an output within the product, step (steps, 1).
    adc_step, adc_inverse, offset : of the product's first output; errors as `convert` takes them.
    """
    length = tl.load(adc_step + element, mask=here, other=1.0)
    if NOISY:
        k0, k1 = key_of(keys, product)
        # a counter of every step and output
        z = normals(element + 0 * step, (step + 0 * element).to(tl.uint32), sample, moment, k0, k1)
        sigma = adc_noise * length
        y += tl.sqrt_rn(s + sigma * sigma) * z
    outside = y != y
    if ADC:
        inverse = tl.load(adc_inverse + element, mask=here, other=1.0)
        y, outside = convert(y, length, inverse, adc_limit, element, here, errors, REAL, INL, BITS)
    if OFFSET:
        y -= tl.load(offset + element, mask=here, other=0.0)
    return y, outside


@triton.jit(do_not_specialize=["w_first", "product", "first_step"])
def multiply(
    x, y, clipped, table, keys, w, v, x_step, bias, adc_step, adc_inverse, offset, dac_gain,
    dac_offset, dac_table, adc_gain, adc_offset, adc_table, adc_of, adc_weights, dac_size, dac_own,
    adc_size, n_rows, n_adcs, w_first, n_weights, n_outputs, n_products, product, n_steps,
    first_step, n_in, n_out, part_rows, n_parts, dac_limit, adc_limit, adc_noise, DAC: tl.constexpr,
    NOISY: tl.constexpr, ADC: tl.constexpr, OFFSET: tl.constexpr, STEPS: tl.constexpr,
    DEPTH: tl.constexpr, COLUMNS: tl.constexpr, DAC_REAL: tl.constexpr, DAC_INL: tl.constexpr,
    ADC_REAL: tl.constexpr, ADC_INL: tl.constexpr, ADC_BITS: tl.constexpr,
):
    """y (runs, T, n_out) = x (runs, T, n_in) @ w + bias of a product, rows in parts of part_rows.

    adc_step, adc_inverse, adc_of, offset, adc_gain, adc_offset (the last three a row for each chip)
    from the product's first output on, dac_gain and dac_offset from its first row on.
    """
    run = tl.program_id(0).to(tl.int64)
    row, replica, sample, moment = run_of(table, run)
    dac = (
        dac_gain + replica * n_rows, dac_offset + replica * n_rows, dac_table, dac_size, dac_own
    )
    adc = (
        adc_gain + replica * n_outputs, adc_offset + replica * n_outputs, adc_table, adc_size,
        adc_of, adc_weights + replica * n_adcs * ADC_BITS,
    )
    step = tl.program_id(1) * STEPS + tl.arange(0, STEPS)[:, None]
    column = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    now, used = step < n_steps, column < n_out
    own_w, own_v = w + row * n_weights + w_first, v + row * n_weights + w_first
    own_keys, own_offset = keys + replica * 2 * n_products, offset + replica * n_outputs
    own_x = x + (run * n_steps + step) * n_in
    deep = tl.arange(0, DEPTH)
    count = tl.zeros([STEPS, COLUMNS], tl.int32)
    total = tl.zeros([STEPS, COLUMNS], tl.float32)
    for part in range(n_parts):
        end = tl.minimum(n_in, (part + 1) * part_rows)
        out = tl.zeros([STEPS, COLUMNS], tl.float32)
        white = tl.zeros([STEPS, COLUMNS], tl.float32)
        for begin in range(part * part_rows, end, DEPTH):
            across, down = begin + deep[None, :], begin + deep[:, None]
            driven = tl.load(own_x + across, mask=now & (across < end), other=0.0)
            if DAC:
                deeper = across < end
                length = tl.load(x_step + across, mask=deeper, other=1.0)
                inverse = tl.div_rn(tl.full(length.shape, 1.0, tl.float32), length)
                driven = drive(
                    driven, length, inverse, dac_limit, across, deeper, dac, DAC, DAC_REAL, DAC_INL
                )
            cell = down * n_out + column
            here = (down < end) & used
            own = tl.load(own_w + cell, mask=here, other=0.0)
            out = tl.dot(driven, own, out, input_precision="ieee")
            if NOISY:
                own = tl.load(own_v + cell, mask=here, other=0.0)
                white = tl.dot(driven * driven, own, white, input_precision="ieee")
        out, outside = _conversions(
            out, white, part * n_out + column, used, first_step + step, sample, moment, own_keys,
            product, adc_step, adc_inverse, adc_limit, adc_noise, own_offset, adc, NOISY, ADC,
            OFFSET, ADC_REAL, ADC_INL, ADC_BITS,
        )
        count += (outside & now & used).to(tl.int32)
        total += out
    total += tl.load(bias + column, mask=used, other=0.0)
    tl.store(y + (run * n_steps + step) * n_out + column, total, mask=now & used)
    if ADC:
        tl.atomic_add(clipped + run * n_products + product, tl.sum(tl.sum(count, axis=1), axis=0))


@triton.jit(do_not_specialize=["w_first", "product"])
def read_heads(
    y, s, u, clipped, table, keys, w, v, skip_step, adc_step, adc_inverse, offset, dac_gain,
    dac_offset, dac_table, adc_gain, adc_offset, adc_table, adc_of, adc_weights, dac_size, dac_own,
    adc_size, n_rows, n_adcs, w_first, n_weights, n_outputs, n_products, product, n_steps, n_heads,
    n_modes, dac_limit, adc_limit, adc_noise, DAC: tl.constexpr, NOISY: tl.constexpr,
    ADC: tl.constexpr, OFFSET: tl.constexpr, STEPS: tl.constexpr, COLUMNS: tl.constexpr,
    DAC_REAL: tl.constexpr, DAC_INL: tl.constexpr, ADC_REAL: tl.constexpr, ADC_INL: tl.constexpr,
    ADC_BITS: tl.constexpr,
):
    """y (runs, T, H) <- GELU of C's outputs, from its sums over states y, s and its input u."""
    run = tl.program_id(0).to(tl.int64)
    row, replica, sample, moment = run_of(table, run)
    dac = (
        dac_gain + replica * n_rows, dac_offset + replica * n_rows, dac_table, dac_size, dac_own
    )
    adc = (
        adc_gain + replica * n_outputs, adc_offset + replica * n_outputs, adc_table, adc_size,
        adc_of, adc_weights + replica * n_adcs * ADC_BITS,
    )
    step = tl.program_id(1) * STEPS + tl.arange(0, STEPS)[:, None]
    head = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    used = head < n_heads
    here = (step < n_steps) & used
    at = (run * n_steps + step) * n_heads + head
    driven = tl.load(u + at, mask=here, other=0.0)
    if DAC:
        length = tl.load(skip_step + head, mask=used, other=1.0)
        inverse = tl.div_rn(tl.full(length.shape, 1.0, tl.float32), length)
        driven = drive(
            driven, length, inverse, dac_limit, head, used, dac, DAC, DAC_REAL, DAC_INL
        )
    cell = row * n_weights + w_first + head * (2 * n_modes + 1) + 2 * n_modes
    out = tl.load(y + at, mask=here, other=0.0) + driven * tl.load(w + cell, mask=used, other=0.0)
    white = tl.zeros([STEPS, COLUMNS], tl.float32)
    if NOISY:
        white = tl.load(s + at, mask=here, other=0.0)
        white += driven * driven * tl.load(v + cell, mask=used, other=0.0)
    out, outside = _conversions(
        out, white, head, used, step, sample, moment, keys + replica * 2 * n_products, product,
        adc_step, adc_inverse, adc_limit, adc_noise, offset + replica * n_outputs, adc, NOISY, ADC,
        OFFSET, ADC_REAL, ADC_INL, ADC_BITS,
    )
    tl.store(y + at, gelu(out), mask=here)
    if ADC:
        count = (outside & here).to(tl.int32)
        tl.atomic_add(clipped + run * n_products + product, tl.sum(tl.sum(count, axis=1), axis=0))


@triton.jit
def add_layer(
    mixed, h, n_rows, n_heads, n_mix, GLU: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """h (rows, H) += the gated half of mixed (rows, n_mix), or all of it without a gate."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    head = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    here = (row < n_rows) & (head < n_heads)
    out = tl.load(mixed + row * n_mix + head, mask=here, other=0.0)
    if GLU:
        gate = tl.load(mixed + row * n_mix + n_heads + head, mask=here, other=0.0)
        out = tl.div_rn(out, 1.0 + exponential(-gate))
    before = tl.load(h + row * n_heads + head, mask=here, other=0.0)
    tl.store(h + row * n_heads + head, before + out, mask=here)


@triton.jit
def normalise(
    x, scale, shift, out, n_rows, n_heads, epsilon, AFFINE: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """out (rows, H) = layer norm of x over the heads, or scale x + shift where AFFINE."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    head = tl.arange(0, COLUMNS)[None, :]
    used = head < n_heads
    here = (row < n_rows) & used
    value = tl.load(x + row * n_heads + head, mask=here, other=0.0)
    if not AFFINE:
        n = (0.0 * epsilon + 1.0) * n_heads
        mean = tl.div_rn(tl.sum(value, axis=1), tl.zeros([ROWS], tl.float32) + n)[:, None]
        away = tl.where(used, value - mean, 0.0)
        variance = tl.div_rn(tl.sum(away * away, axis=1), tl.zeros([ROWS], tl.float32) + n)[:, None]
        one = tl.full(variance.shape, 1.0, tl.float32)
        value = away * tl.div_rn(one, tl.sqrt_rn(variance + epsilon))
    value = value * tl.load(scale + head, mask=used, other=0.0)
    value += tl.load(shift + head, mask=used, other=0.0)
    tl.store(out + row * n_heads + head, value, mask=here)


@triton.jit
def pool(h, pooled, n_steps, n_heads, LAST: tl.constexpr, COLUMNS: tl.constexpr):
    """pooled (runs, H) = the mean of h (runs, T, H) over the steps in their order, or the last."""
    run = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    used = head < n_heads
    own = h + run * n_steps * n_heads + head
    total = tl.zeros([COLUMNS], tl.float32)
    if LAST:
        total = tl.load(own + (n_steps - 1) * n_heads, mask=used, other=0.0)
    else:
        for t in range(n_steps):
            total += tl.load(own + t * n_heads, mask=used, other=0.0)
        total = tl.div_rn(total, tl.zeros([COLUMNS], tl.float32) + n_steps)
    tl.store(pooled + run * n_heads + head, total, mask=used)
