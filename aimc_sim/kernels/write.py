"""Closed-loop write-verify: read a cell, compare, pulse, until it is near enough or given up.

Every draw belongs to (seed, replica, tile, cell, number of the pulse), so a cell ends the same
whatever other cells there are. Cells that share random blocks are written side by side: what
is left of a group shrinks together, and normals are made a vector at a time.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from aimc_sim.kernels._jit import kernel
from aimc_sim.kernels.cells import fill_blocks, stream_key
from aimc_sim.kernels.curves import BLOCK, evaluate_curves

_GROUP = 256  # random blocks of a group, of up to four cells each
_CELLS = 4 * _GROUP

_0 = np.uint64(0)
_1 = np.uint64(1)
_2 = np.uint64(2)
_3 = np.uint64(3)
# blocks drawn at a time: one by one, the rest of a vector would cost more than the vector
_VECTOR = np.uint64(16)
_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)


class Loop(NamedTuple):
    """What a write-verify loop is. Conductances in siemens, float32; purposes are numbers."""

    write: int
    verify: int
    pulse_cell: int
    pulses: np.ndarray  # curves: mean and sigma of SET, mean and sigma of RESET
    noise: np.ndarray  # curves: read noise, white read noise
    relative: bool  # whether these are times g
    lasting: np.float32  # factor of the first in a verification
    white: np.float32  # factor of the second
    tolerance: np.float32
    most: int  # pulses
    spread: np.float32  # of the pulse response from cell to cell
    start: np.float32
    g_min: np.float32
    g_max: np.float32
    floor: np.float32  # no read finds less
    ceiling: np.float32  # no read finds more
    set_j_s: float  # energy of a SET pulse per conductance: V^2 t
    reset_j_s: float
    read_j_s: float  # of all reads of a verification


@kernel(inline=True)
def _take_blocks(key, slot, n, counter, first_block, used):
    """Number the random blocks that n cells need, without a branch; returns how many to draw.

    key : 4 block + lane of a cell. Fills slot (n,) and used, up to whole vectors.
    """
    n_used = _0
    last = ~_0
    for i in range(_0, n):
        block = key[i] >> _2
        n_used += np.uint64(block != last)
        last = block
        used[n_used - _1] = counter[first_block + block]
        slot[i] = (key[i] & _3) * np.uint64(_GROUP) + n_used - _1
    whole = (n_used + _VECTOR - _1) & ~(_VECTOR - _1)
    for i in range(n_used, whole):
        used[i] = _0
    return whole


@kernel()
def sort_by_block(index, n_blocks, first, order):
    """Sort cells by their random block: those of block b are order[first[b] : first[b + 1]].

    index : (n_cells,) lane * n_blocks + block. first : (n_blocks + 2,) zeros, order : (n_cells,).
    """
    for i in range(index.size):
        first[index[i] % n_blocks + 2] += 1
    for b in range(2, n_blocks + 2):
        first[b] += first[b - 1]
    for i in range(index.size):
        b = index[i] % n_blocks
        order[first[b + 1]] = i
        first[b + 1] += 1


@kernel(allocates=True)
def write_cells(draws, first, order, seed0, seed1, replica, loop, target, g, pulses, failed, energy):
    """Write all cells; target (n_cells,) float32 [S], out (n_cells,) g, pulses, failed, energy [J].

    first, order : of `sort_by_block`. A verification before each pulse, and one after the last.
    """
    counter = draws.counter
    n_blocks = np.uint64(counter.size)
    used = np.empty(_GROUP, np.uint64)
    normals, xi = np.empty(_CELLS, np.float32), np.empty(_CELLS, np.float32)
    cell, key, slot = np.empty(_CELLS, np.uint64), np.empty(_CELLS, np.uint64), np.empty(_CELLS, np.uint64)
    now, aim, miss = np.empty(_CELLS, np.float32), np.empty(_CELLS, np.float32), np.empty(_CELLS, np.float32)
    set_factor, reset_factor = np.empty(_CELLS, np.float32), np.empty(_CELLS, np.float32)
    curves, spent = np.empty((4, _CELLS), np.float32), np.empty(_CELLS, np.float64)
    v, log, value = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK)
    most = np.uint64(loop.most)
    noisy = loop.lasting > _ZERO or loop.white > _ZERO
    begin = _0
    while begin < n_blocks:
        tile = draws.tile[begin]
        end = begin + _1
        while end < n_blocks and end < begin + np.uint64(_GROUP) and draws.tile[end] == tile:
            end += _1
        w0, w1 = stream_key(seed0, seed1, loop.write, replica, tile)
        v0, v1 = stream_key(seed0, seed1, loop.verify, replica, tile)
        n = _0
        for b in range(begin, end):
            for j in range(first[b], first[b + _1]):
                cell[n] = np.uint64(order[j])
                key[n] = ((b - begin) << _2) + np.uint64(draws.index[cell[n]]) // n_blocks
                aim[n] = target[cell[n]]
                now[n] = loop.start
                spent[n] = 0.0
                set_factor[n] = reset_factor[n] = _ONE
                n += _1
        n_used = _take_blocks(key, slot, n, counter, begin, used)
        if loop.spread > _ZERO:
            k0, k1 = stream_key(seed0, seed1, loop.pulse_cell, replica, tile)
            fill_blocks(used, _0, n_used, _0, _0, k0, k1, np.uint64(_GROUP), normals)
            for i in range(_0, n):
                set_factor[i] = max(_ONE + loop.spread * normals[slot[i]], _ZERO)
            fill_blocks(used, _0, n_used, _1, _0, k0, k1, np.uint64(_GROUP), normals)
            for i in range(_0, n):
                reset_factor[i] = max(_ONE + loop.spread * normals[slot[i]], _ZERO)
        pulse = _0
        while n > _0:
            # loops of a few arrays each: those that LLVM can tell apart vectorise
            for i in range(_0, n):
                miss[i] = now[i]
                spent[i] += loop.read_j_s * np.float64(now[i])
            if noisy:
                fill_blocks(used, _0, n_used, pulse, _0, v0, v1, np.uint64(_GROUP), normals)
                evaluate_curves(loop.noise, now, n, v, log, value, curves)
                for i in range(_0, n):
                    xi[i] = normals[slot[i]]
                for i in range(_0, n):
                    lasting, white = loop.lasting * curves[0, i], loop.white * curves[1, i]
                    sigma = np.sqrt(lasting * lasting + white * white)
                    miss[i] += sigma * xi[i] * (now[i] if loop.relative else _ONE)
            for i in range(_0, n):
                miss[i] = aim[i] - min(max(miss[i], loop.floor), loop.ceiling)
            left = _0
            for i in range(_0, n):
                near = abs(miss[i]) <= loop.tolerance
                if near or pulse == most:
                    g[cell[i]] = now[i]
                    pulses[cell[i]] = pulse
                    failed[cell[i]] = not near
                    energy[cell[i]] = spent[i]
                else:  # what is left moves together
                    cell[left], key[left] = cell[i], key[i]
                    now[left], aim[left], miss[left], spent[left] = now[i], aim[i], miss[i], spent[i]
                    set_factor[left], reset_factor[left] = set_factor[i], reset_factor[i]
                    left += _1
            n = left
            n_used = _take_blocks(key, slot, n, counter, begin, used)
            fill_blocks(used, _0, n_used, pulse, _0, w0, w1, np.uint64(_GROUP), normals)
            evaluate_curves(loop.pulses, now, n, v, log, value, curves)
            for i in range(_0, n):
                xi[i] = normals[slot[i]]
            for i in range(_0, n):
                spent[i] += (loop.set_j_s if miss[i] > _ZERO else loop.reset_j_s) * np.float64(now[i])
            for i in range(_0, n):
                up = set_factor[i] * curves[0, i] + curves[1, i] * xi[i]
                down = reset_factor[i] * curves[2, i] + curves[3, i] * xi[i]
                after = now[i] + (up if miss[i] > _ZERO else down)
                now[i] = min(max(after, loop.g_min), loop.g_max)
            pulse += _1
        begin = end
