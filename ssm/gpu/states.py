"""The states of a layer through all steps in one program: heads do not couple within a step.

A program runs some heads of one sequence and keeps their states in registers. Every form of A
does what `ssm.kernels.state` does; C's sums come out before their noise and conversion, which
need no state.

A counter of the random numbers gives four normals, those of modes 16 apart. Where heads fill
whole groups of 64 modes, a thread holds these four modes, so that it draws each counter once:
`_lane` is one of the four. Elsewhere there is one lane, and of four normals one is used.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ssm.gpu.converters import convert, drive, quantise
from ssm.gpu.draws import four_normals, key_of, normals, run_of


@triton.jit
def _finish(y, step, inverse, limit, offset, clipped, output, here, errors, ADC: tl.constexpr,
            OFFSET: tl.constexpr, ADC_REAL: tl.constexpr, ADC_INL: tl.constexpr,
            ADC_BITS: tl.constexpr):
    """Return what the ADCs make of y, offsets subtracted, and the count of what clipped."""
    if ADC:
        y, outside = convert(y, step, inverse, limit, output, here, errors, ADC_REAL, ADC_INL,
                             ADC_BITS)
        clipped += outside.to(tl.int32)
    if OFFSET:
        y -= offset
    return y, clipped


@triton.jit
def _access(x, w, spread, z, step, inverse, limit, adc_noise, offset, clipped, output, here,
            errors, NOISY: tl.constexpr, ADC_NOISE: tl.constexpr, ADC: tl.constexpr,
            OFFSET: tl.constexpr, ADC_REAL: tl.constexpr, ADC_INL: tl.constexpr,
            ADC_BITS: tl.constexpr):
    """Return conversions of one cell each, driven by x; spread: of a cell, with ADC_NOISE squared.

    clipped : int32, grows by one where a conversion clipped.
    """
    if NOISY and ADC_NOISE:
        sigma = adc_noise * step
        y = x * w + tl.sqrt_rn(x * x * spread + sigma * sigma) * z
    elif NOISY:
        y = x * (w + spread * z)
    else:
        y = x * w
    return _finish(y, step, inverse, limit, offset, clipped, output, here, errors, ADC, OFFSET,
                   ADC_REAL, ADC_INL, ADC_BITS)


@triton.jit
def _load_lane(
    element, w, v, constants, offset, a_first, c_first, n_heads, n_modes,
    NOISY: tl.constexpr, ADC_NOISE: tl.constexpr, OFFSET: tl.constexpr, C_NOISY: tl.constexpr,
    FORM: tl.constexpr, DIGITAL_DECAY: tl.constexpr,
):
    """Return all constants of the modes `element`; what is not used is zero and costs nothing.

    constants (18, n_layer) : see `ssm.gpu.run`; w, v: rows of the sequence's weights.
    """
    n_layer = n_heads * n_modes
    here = element < n_layer
    own = constants + element
    step_0 = tl.load(own, mask=here, other=1.0)
    step_1 = tl.load(own + n_layer, mask=here, other=1.0)
    inverse_0 = tl.load(own + 2 * n_layer, mask=here, other=1.0)
    inverse_1 = tl.load(own + 3 * n_layer, mask=here, other=1.0)
    held_0 = tl.load(own + 4 * n_layer, mask=here, other=1.0)
    held_1 = tl.load(own + 5 * n_layer, mask=here, other=1.0)
    fine_0 = tl.load(own + 6 * n_layer, mask=here, other=1.0)
    fine_1 = tl.load(own + 7 * n_layer, mask=here, other=1.0)
    adc_0 = tl.load(own + 8 * n_layer, mask=here, other=1.0)
    adc_1 = tl.load(own + 9 * n_layer, mask=here, other=1.0)
    adc_2 = tl.load(own + 10 * n_layer, mask=here, other=1.0)
    adc_3 = tl.load(own + 11 * n_layer, mask=here, other=1.0)
    fine_adc_0 = tl.load(own + 12 * n_layer, mask=here, other=1.0)
    fine_adc_1 = tl.load(own + 13 * n_layer, mask=here, other=1.0)
    fine_adc_2 = tl.load(own + 14 * n_layer, mask=here, other=1.0)
    fine_adc_3 = tl.load(own + 15 * n_layer, mask=here, other=1.0)
    # sign and what digital decay keeps, or the pole
    first = tl.load(own + 16 * n_layer, mask=here, other=0.0)
    second = tl.load(own + 17 * n_layer, mask=here, other=0.0)
    w_0 = tl.zeros_like(first)
    w_1, w_2, w_3, v_0, v_1, v_2, v_3 = w_0, w_0, w_0, w_0, w_0, w_0, w_0
    if FORM != 0:
        own = w + a_first + element
        w_0 = tl.load(own, mask=here, other=0.0)
        w_1 = tl.load(own + n_layer, mask=here, other=0.0)
        if not DIGITAL_DECAY:
            w_2 = tl.load(own + 2 * n_layer, mask=here, other=0.0)
            w_3 = tl.load(own + 3 * n_layer, mask=here, other=0.0)
        if NOISY:
            own = v + a_first + element
            v_0 = tl.load(own, mask=here, other=0.0)
            v_1 = tl.load(own + n_layer, mask=here, other=0.0)
            if not DIGITAL_DECAY:
                v_2 = tl.load(own + 2 * n_layer, mask=here, other=0.0)
                v_3 = tl.load(own + 3 * n_layer, mask=here, other=0.0)
            if FORM == 3 and not ADC_NOISE:
                v_0, v_1 = tl.sqrt_rn(v_0), tl.sqrt_rn(v_1)
                v_2, v_3 = tl.sqrt_rn(v_2), tl.sqrt_rn(v_3)
    off_0 = tl.zeros_like(first)
    off_1, off_2, off_3 = off_0, off_0, off_0
    if OFFSET:
        own = offset + element
        off_0 = tl.load(own, mask=here, other=0.0)
        off_1 = tl.load(own + n_layer, mask=here, other=0.0)
        if FORM == 3 and not DIGITAL_DECAY:
            off_2 = tl.load(own + 2 * n_layer, mask=here, other=0.0)
            off_3 = tl.load(own + 3 * n_layer, mask=here, other=0.0)
    at = c_first + element // n_modes * (2 * n_modes + 1) + element % n_modes
    c_0 = tl.load(w + at, mask=here, other=0.0)
    c_1 = tl.load(w + at + n_modes, mask=here, other=0.0)
    cv_0, cv_1 = tl.zeros_like(first), tl.zeros_like(first)
    if C_NOISY:
        cv_0 = tl.load(v + at, mask=here, other=0.0)
        cv_1 = tl.load(v + at + n_modes, mask=here, other=0.0)
    return (
        step_0, step_1, inverse_0, inverse_1, held_0, held_1, fine_0, fine_1, adc_0, adc_1, adc_2,
        adc_3, fine_adc_0, fine_adc_1, fine_adc_2, fine_adc_3, first, second, w_0, w_1, w_2, w_3,
        v_0, v_1, v_2, v_3, off_0, off_1, off_2, off_3, c_0, c_1, cv_0, cv_1,
    )


@triton.jit
def _lane(
    x_0, x_1, count, z_0, z_1, z_2, z_3, given, constants, element, here, n_layer, n_all, dac,
    adc, dac_limit, adc_limit, adc_noise, state_limit, FORM: tl.constexpr,
    DIGITAL_DECAY: tl.constexpr, NOISY: tl.constexpr, ADC_NOISE: tl.constexpr,
    A_DAC: tl.constexpr, A_ADC: tl.constexpr, OFFSET: tl.constexpr, C_DAC: tl.constexpr,
    C_NOISY: tl.constexpr, REGISTER: tl.constexpr, DAC_REAL: tl.constexpr, DAC_INL: tl.constexpr,
    ADC_REAL: tl.constexpr, ADC_INL: tl.constexpr, ADC_BITS: tl.constexpr,
):
    """Advance modes by a step; return states, clipped conversions, C's products and variances.

    given : the heads' input. dac, adc : errors as `converters.drive` and `convert` take them; n_all
    modes of all layers lie between the rows of a mode's two states.
    """
    (
        step_0, step_1, inverse_0, inverse_1, held_0, held_1, fine_0, fine_1, adc_0, adc_1, adc_2,
        adc_3, fine_adc_0, fine_adc_1, fine_adc_2, fine_adc_3, first, second, w_0, w_1, w_2, w_3,
        v_0, v_1, v_2, v_3, off_0, off_1, off_2, off_3, c_0, c_1, cv_0, cv_1,
    ) = constants
    if FORM == 0:
        turned = first * x_0 - second * x_1
        x_1 = first * x_1 + second * x_0
        x_0 = turned
    elif FORM == 3:
        driven = drive(x_1, step_1, inverse_1, dac_limit, n_all + element, here, dac, A_DAC,
                       DAC_REAL, DAC_INL)
        y, count = _access(
            driven, w_0, v_0, z_0, adc_0, fine_adc_0, adc_limit, adc_noise, off_0, count, element,
            here, adc, NOISY, ADC_NOISE, A_ADC, OFFSET, ADC_REAL, ADC_INL, ADC_BITS,
        )
        x_0 -= y
        driven = drive(x_0, step_0, inverse_0, dac_limit, element, here, dac, A_DAC, DAC_REAL,
                       DAC_INL)
        y, count = _access(
            driven, w_1, v_1, z_1, adc_1, fine_adc_1, adc_limit, adc_noise, off_1, count,
            n_layer + element, here, adc, NOISY, ADC_NOISE, A_ADC, OFFSET, ADC_REAL, ADC_INL,
            ADC_BITS,
        )
        x_1 += y
        if DIGITAL_DECAY:
            x_0 *= second
            x_1 *= second
        else:
            y, count = _access(  # p stands on the rows since the second product
                driven, w_2, v_2, z_2, adc_2, fine_adc_2, adc_limit, adc_noise, off_2, count,
                2 * n_layer + element, here, adc, NOISY, ADC_NOISE, A_ADC, OFFSET, ADC_REAL,
                ADC_INL, ADC_BITS,
            )
            x_0 = first * (x_0 - y)
            driven = drive(x_1, step_1, inverse_1, dac_limit, n_all + element, here, dac, A_DAC,
                           DAC_REAL, DAC_INL)
            y, count = _access(
                driven, w_3, v_3, z_3, adc_3, fine_adc_3, adc_limit, adc_noise, off_3, count,
                3 * n_layer + element, here, adc, NOISY, ADC_NOISE, A_ADC, OFFSET, ADC_REAL,
                ADC_INL, ADC_BITS,
            )
            x_1 = first * (x_1 - y)
    else:
        real = drive(x_0, step_0, inverse_0, dac_limit, element, here, dac, A_DAC, DAC_REAL,
                     DAC_INL)
        imaginary = drive(x_1, step_1, inverse_1, dac_limit, n_all + element, here, dac, A_DAC,
                          DAC_REAL, DAC_INL)
        y = tl.fma(imaginary, w_1, real * w_0)
        if NOISY:
            sigma = adc_noise * adc_0
            white = tl.fma(imaginary * imaginary, v_1, real * real * v_0)
            y += tl.sqrt_rn(white + sigma * sigma) * z_0
        y, count = _finish(y, adc_0, fine_adc_0, adc_limit, off_0, count, element, here, adc,
                           A_ADC, OFFSET, ADC_REAL, ADC_INL, ADC_BITS)
        x_0 = x_0 + y if FORM == 2 else y
        y = tl.fma(imaginary, w_3, real * w_2)
        if NOISY:
            sigma = adc_noise * adc_1
            white = tl.fma(imaginary * imaginary, v_3, real * real * v_2)
            y += tl.sqrt_rn(white + sigma * sigma) * z_1
        y, count = _finish(y, adc_1, fine_adc_1, adc_limit, off_1, count, n_layer + element, here,
                           adc, A_ADC, OFFSET, ADC_REAL, ADC_INL, ADC_BITS)
        x_1 = x_1 + y if FORM == 2 else y
    x_0 += given
    if REGISTER:
        x_0 = quantise(x_0, held_0, fine_0, state_limit)
        x_1 = quantise(x_1, held_1, fine_1, state_limit)
    real = drive(x_0, step_0, inverse_0, dac_limit, element, here, dac, C_DAC, DAC_REAL, DAC_INL)
    imaginary = drive(x_1, step_1, inverse_1, dac_limit, n_all + element, here, dac, C_DAC,
                      DAC_REAL, DAC_INL)
    read = real * c_0 + imaginary * c_1
    white = real * real * cv_0 + imaginary * imaginary * cv_1 if C_NOISY else read
    return x_0, x_1, count, read, white


# not specialised: one code for all layers
@triton.jit(do_not_specialize=["a_first", "c_first", "product"])
def advance_states(
    u, y, s, clipped, table, keys, w, v, constants, offset, dac_gain, dac_offset, dac_table,
    adc_gain, adc_offset, adc_table, adc_of, adc_weights, dac_size, dac_own, adc_size, n_rows,
    n_adcs, n_all, a_first, c_first, n_weights, n_outputs, n_products, product, n_steps, n_heads,
    n_modes, dac_limit, adc_limit, adc_noise, state_limit, FORM: tl.constexpr,
    DIGITAL_DECAY: tl.constexpr, NOISY: tl.constexpr, ADC_NOISE: tl.constexpr, A_DAC: tl.constexpr,
    A_ADC: tl.constexpr, OFFSET: tl.constexpr, C_DAC: tl.constexpr, C_NOISY: tl.constexpr,
    REGISTER: tl.constexpr, LANES: tl.constexpr, HEADS: tl.constexpr, MODES: tl.constexpr,
    DAC_REAL: tl.constexpr, DAC_INL: tl.constexpr, ADC_REAL: tl.constexpr, ADC_INL: tl.constexpr,
    ADC_BITS: tl.constexpr,
):
    """y, s (runs, T, H) <- C's sums over the states driven by u (runs, T, H), and their variance.

    table : see `draws.run_of`. keys (chips, n_products, 2) int32. w, v (rows, n_weights).
    offset, adc_gain, adc_offset (chips, n_outputs), adc_of from the layer's first output on;
    dac_gain, dac_offset (chips, n_rows) from its first state's row on. clipped (runs, n_products)
    int32: the count of all conversions of A is added at `product`, its first.
    FORM : see `ssm.kernels.network.FORM_CODES`. LANES 4: HEADS heads of MODES = n_modes, 16, 32 or
    64, in whole groups of 64; LANES 1: of n_modes <= MODES.
    """
    run = tl.program_id(0).to(tl.int64)
    block = tl.program_id(1)
    row, replica, sample, moment = run_of(table, run)
    own_w, own_v = w + row * n_weights, v + row * n_weights
    own_keys, own_offset = keys + replica * 2 * n_products, offset + replica * n_outputs
    dac = (
        dac_gain + replica * n_rows, dac_offset + replica * n_rows, dac_table, dac_size, dac_own
    )
    adc = (
        adc_gain + replica * n_outputs, adc_offset + replica * n_outputs, adc_table, adc_size,
        adc_of, adc_weights + replica * n_adcs * ADC_BITS,
    )
    n_layer = n_heads * n_modes
    if LANES == 4:
        GROUPS: tl.constexpr = HEADS * MODES // 64
        counter = block * GROUPS * 16 + tl.arange(0, GROUPS)[:, None] * 16
        counter += tl.arange(0, 16)[None, :]
        element_0 = ((counter >> 4) << 6) + (counter & 15)
        counter = counter.to(tl.uint32)
    else:
        head = block * HEADS + tl.arange(0, HEADS)[:, None]
        mode = tl.arange(0, MODES)[None, :]
        element_0 = tl.where(mode < n_modes, head * n_modes + mode, n_layer)
    lane_0 = _load_lane(
        element_0, own_w, own_v, constants, own_offset, a_first, c_first, n_heads, n_modes, NOISY,
        ADC_NOISE, OFFSET, C_NOISY, FORM, DIGITAL_DECAY,
    )
    head_0 = element_0 // n_modes
    here_0 = element_0 < n_layer
    x_00 = tl.zeros_like(lane_0[0])
    x_01 = x_00
    if LANES == 4:
        element_1, element_2, element_3 = element_0 + 16, element_0 + 32, element_0 + 48
        lane_1 = _load_lane(
            element_1, own_w, own_v, constants, own_offset, a_first, c_first, n_heads, n_modes,
            NOISY, ADC_NOISE, OFFSET, C_NOISY, FORM, DIGITAL_DECAY,
        )
        lane_2 = _load_lane(
            element_2, own_w, own_v, constants, own_offset, a_first, c_first, n_heads, n_modes,
            NOISY, ADC_NOISE, OFFSET, C_NOISY, FORM, DIGITAL_DECAY,
        )
        lane_3 = _load_lane(
            element_3, own_w, own_v, constants, own_offset, a_first, c_first, n_heads, n_modes,
            NOISY, ADC_NOISE, OFFSET, C_NOISY, FORM, DIGITAL_DECAY,
        )
        head_1, here_1 = element_1 // n_modes, element_1 < n_layer
        head_2, here_2 = element_2 // n_modes, element_2 < n_layer
        head_3, here_3 = element_3 // n_modes, element_3 < n_layer
        x_10, x_11, x_20, x_21, x_30, x_31 = x_00, x_00, x_00, x_00, x_00, x_00
        # heads of a group of 64 modes
        SHARE: tl.constexpr = 64 // MODES
        head = (block * GROUPS + tl.arange(0, GROUPS)) * SHARE
    else:
        head = block * HEADS + tl.arange(0, HEADS)
    count = tl.zeros_like(element_0)
    # a load within the loop would be done anew at every step: the loop stores
    key_00, key_01 = key_of(own_keys, product)
    key_10, key_11 = key_of(own_keys, product + (1 if FORM == 3 else 2))
    key_20, key_21 = key_of(own_keys, product + 2)
    key_30, key_31 = key_of(own_keys, product + 3)
    z_00 = x_00
    z_01, z_02, z_03, z_10, z_11, z_12, z_13 = z_00, z_00, z_00, z_00, z_00, z_00, z_00
    z_20, z_21, z_22, z_23, z_30, z_31, z_32, z_33 = z_00, z_00, z_00, z_00, z_00, z_00, z_00, z_00
    FOUR: tl.constexpr = FORM == 3 and not DIGITAL_DECAY
    at = run * n_steps * n_heads
    for t in range(n_steps):
        step = (t + 0 * sample).to(tl.uint32)  # a plain number in the interpreter
        if NOISY and FORM != 0:  # z_pl : product p, lane l
            if LANES == 4:
                z_00, z_01, z_02, z_03 = four_normals(counter, step, sample, moment, key_00, key_01)
                z_10, z_11, z_12, z_13 = four_normals(counter, step, sample, moment, key_10, key_11)
                if FOUR:
                    z_20, z_21, z_22, z_23 = four_normals(
                        counter, step, sample, moment, key_20, key_21
                    )
                    z_30, z_31, z_32, z_33 = four_normals(
                        counter, step, sample, moment, key_30, key_31
                    )
            else:
                z_00 = normals(element_0, step, sample, moment, key_00, key_01)
                z_10 = normals(element_0, step, sample, moment, key_10, key_11)
                if FOUR:
                    z_20 = normals(element_0, step, sample, moment, key_20, key_21)
                    z_30 = normals(element_0, step, sample, moment, key_30, key_31)
        given = tl.load(u + at + head_0, mask=here_0, other=0.0)
        x_00, x_01, count, sum_0, white_0 = _lane(
            x_00, x_01, count, z_00, z_10, z_20, z_30, given, lane_0, element_0, here_0, n_layer,
            n_all, dac, adc, dac_limit, adc_limit, adc_noise, state_limit, FORM, DIGITAL_DECAY,
            NOISY, ADC_NOISE, A_DAC, A_ADC, OFFSET, C_DAC, C_NOISY, REGISTER, DAC_REAL, DAC_INL,
            ADC_REAL, ADC_INL, ADC_BITS,
        )
        if LANES == 1:
            tl.store(y + at + head, tl.sum(sum_0, axis=1), mask=head < n_heads)
            if C_NOISY:
                tl.store(s + at + head, tl.sum(white_0, axis=1), mask=head < n_heads)
        else:
            given = tl.load(u + at + head_1, mask=here_1, other=0.0)
            x_10, x_11, count, sum_1, white_1 = _lane(
                x_10, x_11, count, z_01, z_11, z_21, z_31, given, lane_1, element_1, here_1,
                n_layer, n_all, dac, adc, dac_limit, adc_limit, adc_noise, state_limit, FORM,
                DIGITAL_DECAY, NOISY, ADC_NOISE, A_DAC, A_ADC, OFFSET, C_DAC, C_NOISY, REGISTER,
                DAC_REAL, DAC_INL, ADC_REAL, ADC_INL, ADC_BITS,
            )
            given = tl.load(u + at + head_2, mask=here_2, other=0.0)
            x_20, x_21, count, sum_2, white_2 = _lane(
                x_20, x_21, count, z_02, z_12, z_22, z_32, given, lane_2, element_2, here_2,
                n_layer, n_all, dac, adc, dac_limit, adc_limit, adc_noise, state_limit, FORM,
                DIGITAL_DECAY, NOISY, ADC_NOISE, A_DAC, A_ADC, OFFSET, C_DAC, C_NOISY, REGISTER,
                DAC_REAL, DAC_INL, ADC_REAL, ADC_INL, ADC_BITS,
            )
            given = tl.load(u + at + head_3, mask=here_3, other=0.0)
            x_30, x_31, count, sum_3, white_3 = _lane(
                x_30, x_31, count, z_03, z_13, z_23, z_33, given, lane_3, element_3, here_3,
                n_layer, n_all, dac, adc, dac_limit, adc_limit, adc_noise, state_limit, FORM,
                DIGITAL_DECAY, NOISY, ADC_NOISE, A_DAC, A_ADC, OFFSET, C_DAC, C_NOISY, REGISTER,
                DAC_REAL, DAC_INL, ADC_REAL, ADC_INL, ADC_BITS,
            )
            _store_sums(y + at, head, n_heads, sum_0, sum_1, sum_2, sum_3, SHARE)
            if C_NOISY:
                _store_sums(s + at, head, n_heads, white_0, white_1, white_2, white_3, SHARE)
        at += n_heads
    if A_ADC and FORM != 0:
        tl.atomic_add(clipped + run * n_products + product, tl.sum(tl.sum(count, axis=1), axis=0))


@triton.jit
def _store_sums(out, head, n_heads, a, b, c, d, SHARE: tl.constexpr):
    """Store the sums over every head's modes; SHARE heads have the four lanes of a group."""
    if SHARE == 1:
        tl.store(out + head, tl.sum((a + b) + (c + d), axis=1), mask=head < n_heads)
    elif SHARE == 2:
        tl.store(out + head, tl.sum(a + b, axis=1), mask=head < n_heads)
        tl.store(out + head + 1, tl.sum(c + d, axis=1), mask=head + 1 < n_heads)
    else:
        tl.store(out + head, tl.sum(a, axis=1), mask=head < n_heads)
        tl.store(out + head + 1, tl.sum(b, axis=1), mask=head + 1 < n_heads)
        tl.store(out + head + 2, tl.sum(c, axis=1), mask=head + 2 < n_heads)
        tl.store(out + head + 3, tl.sum(d, axis=1), mask=head + 3 < n_heads)
