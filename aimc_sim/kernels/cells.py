"""What happens to a cell: programmed, aged, read. One conductance per cell, never per pair.

A cell is addressed by its tile and its element there (row * cols + col). `Draws` lists the
random blocks that the cells of a chip need, so that a vector loop makes them all and each cell
picks its own.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from aimc_sim.kernels._jit import kernel
from aimc_sim.kernels.curves import exp_float
from aimc_sim.kernels.philox import normal_pair, philox

_ZERO = np.uint64(0)
_32 = np.uint64(32)
_ONE = np.uint64(1)


class Draws(NamedTuple):
    """The random blocks of a set of cells (see `philox.fill_normals` for the element order)."""

    tile: np.ndarray  # (n_blocks,) int32 tile of a block
    counter: np.ndarray  # (n_blocks,) uint64 counter word of a block
    index: np.ndarray  # (n_cells,) int32 where a cell finds its normal: lane * n_blocks + block


def cell_draws(tile: np.ndarray, element: np.ndarray) -> Draws:
    """Return the draws of cells at (tile, element), both (n_cells,) whole numbers."""
    element = element.astype(np.int64)
    counter = ((element >> 6) << 4) + (element & 15)
    lane = (element >> 4) & 3
    # block addresses sort by tile, then by counter; a tile has at most 2^32 cells
    unique, block = np.unique((tile.astype(np.int64) << 32) | counter, return_inverse=True)
    return Draws(
        (unique >> 32).astype(np.int32),
        (unique & 0xFFFFFFFF).astype(np.uint64),
        (lane * len(unique) + block.ravel()).astype(np.int32),
    )


@kernel(inline=True)
def stream_key(seed0, seed1, purpose, replica, place):
    """Return the two Philox key words of a stream: (seed, purpose, replica, place)."""
    w0, w1, _, _ = philox(
        np.uint64(place), np.uint64(replica), np.uint64(purpose), np.uint64(place) >> _32,
        seed0, seed1,
    )
    return w0, w1


@kernel()
def fill_blocks(counter, begin, end, c2, c3, k0, k1, stride, out):
    """Fill out[lane * stride + block] with the normals of blocks begin .. end - 1 under one key."""
    for b in range(begin, end):
        w0, w1, w2, w3 = philox(counter[b], _ZERO, c2, c3, k0, k1)
        z0, z1 = normal_pair(w0, w1)
        z2, z3 = normal_pair(w2, w3)
        out[b] = z0
        out[stride + b] = z1
        out[stride + stride + b] = z2
        out[stride + stride + stride + b] = z3


@kernel()
def fill_cell_normals(draws, seed0, seed1, purpose, replica, c2, c3, out):
    """Fill out (>= 4 n_blocks,) float32 with the normals of all blocks; cells index into it.

    Blocks are sorted by tile: with the key of a tile held, its loop vectorises.
    """
    n = np.uint64(draws.counter.size)
    begin = np.uint64(0)
    while begin < n:
        tile = draws.tile[begin]
        end = begin + _ONE
        while end < n and draws.tile[end] == tile:
            end += _ONE
        k0, k1 = stream_key(seed0, seed1, purpose, replica, tile)
        fill_blocks(draws.counter, begin, end, c2, c3, k0, k1, n, out)
        begin = end


def cell_normals(draws, seeds, purpose, replica, sequence=0, moment=0):
    """Return the normals of all random blocks, (4 n_blocks,) float32; cells are at draws.index."""
    out = np.empty(4 * draws.counter.size, np.float32)
    fill_cell_normals(
        draws, seeds[0], seeds[1], int(purpose), replica, np.uint64(sequence), np.uint64(moment),
        out,
    )
    return out


@kernel()
def program_cells(normals, index, target, sigma, out):
    """One-shot programming: out = max(0, target + sigma xi), all (n_cells,) float32 [S]."""
    for i in range(out.size):
        g = target[i] + sigma[i] * normals[index[i]]
        out[i] = max(g, np.float32(0.0))


@kernel()
def drift_cells(normals, index, nu_mean, nu_std, log_ratio, work, g):
    """Power-law drift in place: g *= exp(-|nu_mean + nu_std xi| ln(t/t0)), (n_cells,) float32.

    work : any float32 array, overwritten: a block of exponents, apart from the scattered reads
    that would keep the exponential from vectorising (4 x).
    """
    n = np.uint64(g.size)
    size = np.uint64(work.size)
    start = _ZERO
    while start < n:
        m = min(size, n - start)
        for i in range(_ZERO, m):
            work[i] = nu_mean[start + i] + nu_std[start + i] * normals[index[start + i]]
        for i in range(_ZERO, m):
            g[start + i] *= exp_float(-abs(work[i]) * log_ratio)
        start += m


@kernel()
def relax_cells(normals, index, mean, std, g):
    """Relaxation in place: g += mean + std xi, all (n_cells,) float32 [S]."""
    for i in range(g.size):
        g[i] += mean[i] + std[i] * normals[index[i]]


@kernel()
def add_slow_noise(normals, index, sigma, factor, g, out):
    """Slow read noise, frozen while it lasts: out = g + factor sigma xi, (n_cells,) float32."""
    for i in range(g.size):
        out[i] = g[i] + factor * sigma[i] * normals[index[i]]


@kernel()
def clip_cells(floor, ceiling, g):
    """What a read finds, in place: g = clip(g), (n_cells,) float32."""
    for i in range(g.size):
        g[i] = min(max(g[i], floor), ceiling)
