"""One time step of a layer's states in each analog form of A.

States of all layers lie in one array x (2 K,): Re (or p of the leapfrog form) of every mode in
head order, then Im (or q). Every function advances, in place, the modes first .. first + n - 1
of a layer, in chunks whose buffers stay in the L1 cache.

Inner loops take plain arrays or fields of the one tuple `Tiles`: where they reached into several
nested tuples, LLVM reloaded every pointer in the loop and the same code ran five times slower.
"""

from __future__ import annotations

import numpy as np

from aimc_sim.kernels._jit import kernel
from aimc_sim.kernels.converters import quantise
from ssm.kernels.product import (
    clear,
    convert_cells,
    converts_plainly,
    copy,
    count_bins,
    disturb,
    draw,
    drive,
    finish,
    keep_largest,
    padded,
    sum_cells,
    sum_groups,
    sum_noisy_cells,
    take_plane,
)

_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)
_0 = np.uint64(0)
CHUNK = 256  # modes; a multiple of 64, the group of the random numbers


@kernel()
def add_input(u, first, n_modes, x):
    """x[first + k] += the head's input, for every mode of every head (the input weight is 1)."""
    for h in range(u.size):
        begin = np.uint64(first + h * n_modes)
        for k in range(np.uint64(n_modes)):
            x[begin + k] += u[h]


@kernel()
def advance_digital(first, n, x, pole):
    """x <- dA x in digital logic; pole (2, K) float32, Re and Im."""
    a, b = np.uint64(first), np.uint64(first + x.size // 2)
    pole_re, pole_im = pole[0], pole[1]
    for k in range(np.uint64(n)):
        re = pole_re[a + k] * x[a + k] - pole_im[a + k] * x[b + k]
        x[b + k] = pole_re[a + k] * x[b + k] + pole_im[a + k] * x[a + k]
        x[a + k] = re


@kernel(paste=True)
def drive_states(at, n, x, limit, tiles, out):
    """out[:n] = states at .. at + n - 1 after their DACs (at in 0 .. 2 K - 1, uint64).

    limit : of these DACs, 0: the states as they are.
    """
    if tiles.recording:
        keep_largest(x, at, n, tiles.states, at)
        if tiles.row_counts.shape[0] > 0:
            row = np.uint64(tiles.state_row) + at
            count_bins(x, at, n, tiles.row_inverse, tiles.row_counts, row)
    drive(x, at, n, tiles.state_step, tiles.state_inverse, at, limit, out)


@kernel(paste=True)
def _sum(product, low, n, n_layer, group, x, tiles, noisy):
    """tiles.y, tiles.s[:n] += cells of modes low .. low + n - 1 of a layer, driven by x."""
    first = tiles.weight_first[product]
    if group == 1:
        sum_cells(x, n, tiles.w, tiles.v, np.uint64(first + low), noisy, tiles.y, tiles.s)
    else:
        sum_groups(x, n_layer, tiles.w, tiles.v, first, group, noisy, tiles.y, tiles.s)


@kernel()
def _disturb_states(product, element, at, n, tiles, address, out):
    """Errors of the DACs of states at .. at + n - 1 (uint64) in place: out[:n], one drive."""
    row = np.uint64(tiles.state_row) + at
    disturb(
        product, element, n, tiles.state_step, at, row, tiles.state_dac_limit, tiles, address, out
    )


@kernel(inline=True)
def _add_plane(n, plane, y, total):
    """total[:n] += 2^plane y: shift and add; the first plane starts the sum."""
    factor = np.float32(1 << plane)
    for k in range(n):
        total[k] = y[k] * factor + (_ZERO if plane == 0 else total[k])


@kernel()
def advance_pairs(product, first, n_layer, group, keep, x, tiles, address, x0, x1):
    """Direct and delta form: x <- keep x + y, y = A x or (A - 1) x, both rows driven at once."""
    half, y = x.size // 2, tiles.y
    chunk = CHUNK if group == 1 else n_layer
    analog = tiles.analog[product]
    n_planes = tiles.planes[product] if analog else 1
    dac_on = tiles.periphery.dac_on and analog
    dac_limit = tiles.state_dac_limit if analog else _ZERO
    apart = padded(n_layer)
    for low in range(0, n_layer, chunk):
        n = min(chunk, n_layer - low)
        m = np.uint64(n)
        real, imaginary = np.uint64(first + low), np.uint64(half + first + low)
        drive_states(real, m, x, dac_limit, tiles, x0)
        drive_states(imaginary, m, x, dac_limit, tiles, x1)
        if n_planes > 1:
            copy(x0, _0, m, tiles.p0)
            copy(x1, _0, m, tiles.p1)
        for out in range(2):
            number = product + 2 * out
            for plane in range(n_planes):
                if n_planes > 1:
                    take_plane(tiles.p0, m, tiles.state_step, real, plane, x0)
                    take_plane(tiles.p1, m, tiles.state_step, imaginary, plane, x1)
                if dac_on and (n_planes > 1 or out == 0):
                    # both outputs see one drive: the same address
                    element = 2 * plane * apart + low
                    _disturb_states(product, element, real, m, tiles, address, x0)
                    _disturb_states(product, element + apart, imaginary, m, tiles, address, x1)
                noisy = tiles.noisy[number]
                if noisy:
                    draw(number, plane * apart + low, n, tiles, address)
                clear(m, y)
                clear(m, tiles.s)
                for row in range(2):
                    driven = x0 if row == 0 else x1
                    _sum(number + row, low, m, n_layer, group, driven, tiles, noisy)
                if analog:
                    finish(number, low, m, noisy, _0, tiles)
                if n_planes > 1:
                    _add_plane(m, plane, y, tiles.total)
            if n_planes > 1:
                copy(tiles.total, _0, m, y)
            at = np.uint64(out * half + first + low)
            for k in range(m):
                x[at + k] = keep * x[at + k] + y[k]


@kernel(paste=True)
def _access(product, low, n, n_layer, group, plane, driven, tiles, address):
    """tiles.y[:n] = one product of the modes low .. low + n - 1: summed, noise, converted."""
    m = np.uint64(n)
    noisy = tiles.noisy[product]
    w_first = np.uint64(tiles.weight_first[product] + low)
    if noisy:
        draw(product, plane * padded(n_layer) + low, n, tiles, address)
    if tiles.analog[product] and group == 1 and converts_plainly(tiles):
        first = np.uint64(tiles.adc_first[product] + low)
        tiles.clipped[product] += convert_cells(
            driven, m, tiles.w, tiles.spread, w_first, tiles.z, noisy, tiles.adc_step,
            tiles.adc_inverse, first, tiles.adc_limit, tiles.y,
        )
    else:
        if noisy and group == 1 and tiles.adc_noise == _ZERO:
            sum_noisy_cells(driven, m, tiles.w, tiles.spread, w_first, tiles.z, tiles.y)
            noisy = False
        else:
            clear(m, tiles.y)
            clear(m, tiles.s)
            _sum(product, low, m, n_layer, group, driven, tiles, noisy)
        if tiles.analog[product]:
            finish(product, low, m, noisy, _0, tiles)


@kernel(inline=True)
def take_product(number, n, p, q, sign, y, x):
    """What product `number` of the leapfrog form, y[:n], does to the states at p and q (uint64)."""
    if number == 0:
        for k in range(n):
            x[p + k] -= y[k]
    elif number == 1:
        for k in range(n):
            x[q + k] += y[k]
    else:
        at = p if number == 2 else q
        for k in range(n):
            x[at + k] = sign[p + k] * (x[at + k] - y[k])


@kernel()
def advance_leapfrog(
    product, first, n_layer, group, digital_decay, sign, decay, x, tiles, address, driven
):
    """Sequential leapfrog: p1 = p - e1 q; q1 = q + e2 p1; (p, q) <- sigma (p1 - d1 p1, q1 - d2 q1).

    Three accesses of the array, four products; stable for every constant error of e and d within
    wide bounds, since det = (1 - d1)(1 - d2) whatever e1, e2 are.
    """
    half, y = x.size // 2, tiles.y
    chunk = CHUNK if group == 1 else n_layer
    analog = tiles.analog[product]
    n_planes = tiles.planes[product] if analog else 1
    dac_on = tiles.periphery.dac_on and analog
    dac_limit = tiles.state_dac_limit if analog else _ZERO
    for low in range(0, n_layer, chunk):
        n = min(chunk, n_layer - low)
        m, p, q = np.uint64(n), np.uint64(first + low), np.uint64(half + first + low)
        # one loop body for the four products: written out four times, it compiled 3 x as long
        for number in range(2 if digital_decay else 4):
            row = p if number == 1 or number == 2 else q
            if number != 2:  # p1 stands on the rows since the second product
                drive_states(row, m, x, dac_limit, tiles, driven)
                if n_planes > 1:
                    copy(driven, _0, m, tiles.p0)
            for plane in range(n_planes):
                if n_planes > 1:
                    take_plane(tiles.p0, m, tiles.state_step, row, plane, driven)
                if dac_on and (n_planes > 1 or number != 2):
                    element = plane * padded(n_layer) + low
                    _disturb_states(product + number, element, row, m, tiles, address, driven)
                _access(product + number, low, n, n_layer, group, plane, driven, tiles, address)
                if n_planes > 1:
                    _add_plane(m, plane, y, tiles.total)
            if n_planes > 1:
                copy(tiles.total, _0, m, y)
            take_product(number, m, p, q, sign, y, x)
        if digital_decay:
            for k in range(m):
                keep = (_ONE - decay[p + k]) * sign[p + k]
                x[p + k] *= keep
                x[q + k] *= keep


@kernel()
def hold(at, n, x, step, inverse, limit):
    """The state register: states at .. at + n - 1 rounded to their step, clipped, in place."""
    first = np.uint64(at)
    for k in range(np.uint64(n)):
        x[first + k] = quantise(x[first + k], step[first + k], inverse[first + k], limit)
