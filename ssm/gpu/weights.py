"""What the cells stand for in a sequence, as in `ssm.kernels.weights`: slow noise, limits, sums."""

from __future__ import annotations

import triton
import triton.language as tl

from ssm.gpu.draws import lane_normals


@triton.jit
def clipped_normal(mean, variance, floor, ceiling):
    """Return mean and variance of clip(N(mean, variance), floor, ceiling).

    As `aimc_sim.kernels.noise.clipped_normal`, with limits beyond eight sigma put there.
    """
    sigma = tl.sqrt_rn(variance)
    low = tl.div_rn(floor - mean, sigma).to(tl.float64)
    high = tl.div_rn(ceiling - mean, sigma).to(tl.float64)
    alpha, beta = tl.maximum(low, -8.0), tl.minimum(high, 8.0)
    below = 0.5 * (1.0 + tl.erf(alpha * 0.7071067811865476))
    above = 0.5 * (1.0 - tl.erf(beta * 0.7071067811865476))
    at_floor = 0.3989422804014327 * tl.exp(-0.5 * alpha * alpha)
    at_ceiling = 0.3989422804014327 * tl.exp(-0.5 * beta * beta)
    first = alpha * below + at_floor + beta * above - at_ceiling
    second = 1.0 + (alpha * alpha - 1.0) * below + alpha * at_floor
    second += (beta * beta - 1.0) * above - beta * at_ceiling
    spread = tl.maximum(second - first * first, 0.0)
    found = (mean + sigma * first).to(tl.float32)
    left = (variance * spread).to(tl.float32)
    found = tl.where(high <= -8.0, ceiling, tl.where(low >= 8.0, floor, found))
    return found, tl.where((high <= -8.0) | (low >= 8.0), 0.0, left)


@triton.jit
def read_cells(
    cell, here, replica, sample, moment, g, noise, white, shift, slope, extra, connected, counter,
    lane, tile, tile_keys, n_cells, n_tiles, slow, fast, floor, ceiling, SLOW: tl.constexpr,
    WIRED: tl.constexpr, SILENT: tl.constexpr,
):
    """Return mean [S] and white variance [S^2] of a read of cells, as their terminals see it."""
    own = replica.to(tl.int64) * n_cells + cell
    base = tl.load(g + own, mask=here, other=0.0)
    sigma = tl.load(noise + own, mask=here, other=0.0)
    if SLOW:
        key = tile_keys + 2 * (replica * n_tiles + tl.load(tile + cell, mask=here, other=0))
        k0 = tl.load(key, mask=here, other=0).to(tl.uint32, bitcast=True)
        k1 = tl.load(key + 1, mask=here, other=0).to(tl.uint32, bitcast=True)
        number = tl.load(counter + cell, mask=here, other=0).to(tl.uint32, bitcast=True)
        which = tl.load(lane + cell, mask=here, other=0)
        zero = tl.zeros_like(number)
        base += slow * sigma * lane_normals(number, which, zero, sample, moment, k0, k1)
    sigma = sigma * fast
    further = tl.load(white + own, mask=here, other=0.0)
    variance = sigma * sigma + further * further
    mean = tl.minimum(tl.maximum(base, floor), ceiling)
    nearest = tl.minimum(base - floor, ceiling - base)
    near = here & (variance > 1e-36) & (nearest * tl.abs(nearest) < 25.0 * variance)
    if tl.max(near.to(tl.int32), axis=0) > 0:
        safe = tl.where(near, variance, 1.0)
        found, left = clipped_normal(base, safe, floor, ceiling)
        mean = tl.where(near, found, mean)
        variance = tl.where(near, left, variance)
    if SILENT:
        carries = tl.load(connected + own, mask=here, other=0) != 0
        mean, variance = tl.where(carries, mean, 0.0), tl.where(carries, variance, 0.0)
    if WIRED:
        steep = tl.load(slope + own, mask=here, other=0.0)
        mean = tl.load(shift + own, mask=here, other=0.0) + steep * mean
        variance = steep * steep * variance + tl.load(extra + own, mask=here, other=0.0)
    return mean, variance


@triton.jit
def read_weights(
    w, v, table, plus, minus, scale, exact, gain, g, noise, white, shift, slope, extra, connected,
    counter, lane, tile, tile_keys, n_weights, n_cells, n_tiles, slow, fast, floor, ceiling, g_min,
    PIECES: tl.constexpr, SLOW: tl.constexpr, WIRED: tl.constexpr, SILENT: tl.constexpr,
    SIZE: tl.constexpr,
):
    """w, v (rows, n_weights) <- means and variances of what the cells stand for in a sequence.

    table (rows, 4) int32 : as of runs; the weights of run r go to row r. plus, minus (PIECES,
    n_weights) int32 cells; scale like them; gain (chips, n_weights); arrays of cells (chips,
    n_cells); counter, lane, tile (n_cells,) int32 where a cell's slow noise is drawn, tile_keys
    (chips, n_tiles, 2) int32.
    """
    row = tl.program_id(0).to(tl.int64)
    replica = tl.load(table + 4 * row + 1)
    sample = tl.load(table + 4 * row + 2).to(tl.uint32, bitcast=True)
    moment = tl.load(table + 4 * row + 3).to(tl.uint32, bitcast=True)
    weight = tl.program_id(1) * SIZE + tl.arange(0, SIZE)
    used = weight < n_weights
    total = tl.zeros([SIZE], tl.float32)
    spread = tl.zeros([SIZE], tl.float32)
    on_cells = tl.load(plus + weight, mask=used, other=-1) >= 0
    own_gain = tl.load(gain + replica.to(tl.int64) * n_weights + weight, mask=used, other=1.0)
    for piece in range(PIECES):
        at = piece * n_weights + weight
        one = tl.load(plus + at, mask=used, other=-1)
        two = tl.load(minus + at, mask=used, other=-1)
        factor = tl.div_rn(tl.load(scale + at, mask=used, other=0.0), own_gain)
        here = on_cells & (one >= 0)
        mean, variance = read_cells(
            one, here, replica, sample, moment, g, noise, white, shift, slope, extra, connected,
            counter, lane, tile, tile_keys, n_cells, n_tiles, slow, fast, floor, ceiling, SLOW,
            WIRED, SILENT,
        )
        pair = on_cells & (two >= 0)
        other, further = read_cells(
            two, pair, replica, sample, moment, g, noise, white, shift, slope, extra, connected,
            counter, lane, tile, tile_keys, n_cells, n_tiles, slow, fast, floor, ceiling, SLOW,
            WIRED, SILENT,
        )
        total += (mean - tl.where(pair, other, g_min)) * factor
        spread += (variance + tl.where(pair, further, 0.0)) * factor * factor
    known = tl.load(exact + weight, mask=used, other=0.0)
    tl.store(w + row * n_weights + weight, tl.where(on_cells, total, known), mask=used)
    tl.store(v + row * n_weights + weight, tl.where(on_cells, spread, 0.0), mask=used)
