"""Read noise that moves during a run: bands of 1/f noise and telegraph noise, step by step.

Nothing is drawn that does not change: what will happen to a group of weights or to a cell, and
when, is in a calendar, and a step costs its own events alone. An event changes the weights in
place; they are a function of the address (seed, replica, sequence, moment) and the step.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from aimc_sim.kernels._jit import kernel
from aimc_sim.kernels.cells import stream_key
from aimc_sim.kernels.philox import fill_normals, philox

GROUP = 64  # weights that share the times of refreshes, the group of the random numbers
_DAYS = 1024  # of the calendar, a power of two: an event farther off is looked at once a round
_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)
_0 = np.uint64(0)
_64 = np.uint64(GROUP)
_3 = np.uint64(3)
_2 = np.uint64(2)
_11 = np.uint64(11)
_21 = np.uint64(21)
_TWO_TO_MINUS_53 = 2.0**-53
_NEVER = 2.0**60  # steps


class Telegraph(NamedTuple):
    """The cells of one replica that have telegraph noise, those of a weight side by side."""

    cell: np.ndarray  # (n,) int64
    amplitude_s: np.ndarray  # (n,) float32 distance of the levels [S]
    share: np.ndarray  # (n,) float32 share of time in the upper level
    kind: np.ndarray  # (n,) int8, below
    pace: np.ndarray  # (n, 2) 1/ln(1 - q), q the chance to leave the lower, upper level in a step


LASTING, WHITE, MOVING = 0, 1, 2  # one state for a sequence; a new one at each step; a process


NO_TELEGRAPH = Telegraph(
    np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, np.float32), np.zeros(0, np.int8),
    np.zeros((0, 2)),
)


class Source(NamedTuple):
    """Where the moving noise of one sequence is drawn from."""

    keys: np.ndarray  # (2 + n_bands, 2) uint64: of refreshes, of telegraph noise, of every band
    address: np.ndarray  # (2,) uint64: sequence, moment


_REFRESH, _SWITCH, _BANDS = 0, 1, 2  # rows of the keys


class Moving(NamedTuple):
    """Noise of the weights of one sequence that moves with its steps.

    A weight is the sum of its lasting value, its bands and the jumps of its cells. The sums of a
    weight hold, at k, its lasting value and all bands from k on: nothing adds up over the steps.
    They lie group by group, all n_bands + 1 rows of 64 of a group together. Events are the
    refreshes of the groups, then the jumps of the cells.
    """

    on: bool
    pace: float  # 1/ln(1 - 1/T_0), of refreshes
    factor: np.ndarray  # (n_bands,) float32 standard deviation of a band for strength 1
    strength: np.ndarray  # (n_padded,) float32 of a weight's bands
    sums: np.ndarray  # (n_groups (n_bands + 1) 64,) float32
    jumps: np.ndarray  # (n_padded,) float32 telegraph noise of a weight, (0,) without
    z: np.ndarray  # (64,) float32 buffer
    first: np.ndarray  # (_DAYS,) int64 the first event of a day, -1: none
    events: np.ndarray  # (3, n_events) int64: rows FOLLOWING, DUE, NUMBER
    cells: np.ndarray  # (3, n_jumping) int64: rows CELL, OWNER, UPPER
    levels: np.ndarray  # (4, n_jumping) float64: rows JUMP, SHARE, LEAVE_LOWER, LEAVE_UPPER
    keys: np.ndarray  # Source
    address: np.ndarray


FOLLOWING, DUE, NUMBER = 0, 1, 2  # the next event of the same day, its step, how often it was
CELL, OWNER, UPPER = 0, 1, 2  # the weight a cell belongs to (rising), whether it is in the upper
JUMP, SHARE, LEAVE_LOWER, LEAVE_UPPER = 0, 1, 2, 3  # change of the weight; Telegraph.pace


@kernel(allocates=True)
def moving_keys(seed0, seed1, replica, n_bands, band, refresh, switch):
    """Return the keys of a Source; band, refresh and switch are the purposes."""
    keys = np.empty((_BANDS + n_bands, 2), np.uint64)
    keys[_REFRESH, 0], keys[_REFRESH, 1] = stream_key(seed0, seed1, refresh, replica, 0)
    keys[_SWITCH, 0], keys[_SWITCH, 1] = stream_key(seed0, seed1, switch, replica, 0)
    for k in range(n_bands):
        keys[_BANDS + k, 0], keys[_BANDS + k, 1] = stream_key(seed0, seed1, band, replica, k)
    return keys


@kernel(inline=True)
def _event_words(element, number, row, source):
    """Return four words of an event; source is a Source or a Moving, row one of its keys."""
    return philox(
        np.uint64(element), np.uint64(number), source.address[0], source.address[1],
        source.keys[row, 0], source.keys[row, 1],
    )


@kernel(inline=True)
def _steps_until(w0, w1, pace):
    """Return a geometric number of steps, at least 1, from two words; pace = 1/ln(1 - p)."""
    u = (np.float64((w0 << _21) ^ (w1 >> _11)) + 0.5) * _TWO_TO_MINUS_53
    return np.int64(1) + np.int64(min(math.log(u) * pace, _NEVER))


@kernel(inline=True)
def _starts_in_upper(word, share):
    return (np.float64(word) + 0.5) * 2.0**-32 < share


@kernel()
def add_levels(telegraph, source, moving_too, out):
    """out (n_cells,) += the level, off the mean, that each telegraph cell starts a sequence in.

    Of the cells whose level lasts for the sequence, and with moving_too of those that move.
    """
    for t in range(telegraph.cell.size):
        if telegraph.kind[t] == LASTING or (moving_too and telegraph.kind[t] == MOVING):
            _, _, _, word = _event_words(telegraph.cell[t], 0, _SWITCH, source)
            share = telegraph.share[t]
            upper = _starts_in_upper(word, share)
            out[telegraph.cell[t]] += telegraph.amplitude_s[t] * ((_ONE if upper else _ZERO) - share)


@kernel(inline=True)
def _schedule(first, events, event, step):
    day = step & (_DAYS - 1)
    events[DUE, event] = step
    events[FOLLOWING, event] = first[day]
    first[day] = event


@kernel(inline=True)
def _add_band(n, z, strength, base, factor, sums, above, out, own):
    """out[own + j] = sums[above + j] + noise, for j < n of a group of weights; all uint64."""
    for j in range(n):
        out[own + j] = sums[above + j] + strength[base + j] * factor * z[j]


@kernel(inline=True)
def _show(moving, group, w):
    """w = bands and jumps of a group of weights."""
    base = np.uint64(group) * _64
    own = base * np.uint64(moving.factor.size + 1)
    n = min(_64, np.uint64(w.size) - base)
    sums, jumps = moving.sums, moving.jumps
    for j in range(n):
        w[base + j] = sums[own + j] + jumps[base + j]


@kernel(inline=True)
def _refresh(moving, group, depth, w):
    """Draw the bands 0 .. depth of a group of weights anew."""
    base, number = np.uint64(group) * _64, np.uint64(moving.events[NUMBER, group])
    own = base * np.uint64(moving.factor.size + 1)
    for band in range(depth, -1, -1):
        fill_normals(
            moving.z, np.int64(base), np.int64(GROUP), moving.keys[_BANDS + band, 0],
            moving.keys[_BANDS + band, 1], number, moving.address[0], moving.address[1],
        )
        row = own + np.uint64(band) * _64
        if band == 0 and moving.jumps.size == 0:  # straight to the weights
            n = min(_64, np.uint64(w.size) - base)
            _add_band(
                n, moving.z, moving.strength, base, moving.factor[0], moving.sums, row + _64, w,
                base,
            )
        else:
            _add_band(
                _64, moving.z, moving.strength, base, moving.factor[band], moving.sums, row + _64,
                moving.sums, row,
            )
    if moving.jumps.size > 0:
        _show(moving, group, w)


@kernel(inline=True)
def _jump(cells, levels, jumps, t):
    """Sum the telegraph noise of the weight that cell t belongs to, from all its cells."""
    owner, total = cells[OWNER, t], 0.0
    i = t
    while i > 0 and cells[OWNER, i - 1] == owner:
        i -= 1
    while i < cells.shape[1] and cells[OWNER, i] == owner:
        total += levels[JUMP, i] * (cells[UPPER, i] - levels[SHARE, i])
        i += 1
    jumps[owner] = np.float32(total)


@kernel()
def advance(moving, step, w):
    """Change the weights w in place to what they are at `step`, the one after the last call's."""
    first, events, cells, levels = moving.first, moving.events, moving.cells, moving.levels
    n_groups = events.shape[1] - cells.shape[1]
    n_bands = moving.factor.size
    day = step & (_DAYS - 1)
    event = first[day]
    first[day] = -1
    while event >= 0:
        after = events[FOLLOWING, event]
        if events[DUE, event] > step:
            events[FOLLOWING, event] = first[day]
            first[day] = event
            event = after
            continue
        events[NUMBER, event] += 1
        number = events[NUMBER, event]
        if event < n_groups:
            w0, w1, w2, _ = _event_words(event, number, _REFRESH, moving)
            # a refresh of a band draws the faster ones too: of four of a band, one is the next's
            depth = 0
            while depth < n_bands - 1 and (w2 & _3) == _0:
                depth += 1
                w2 >>= _2
            _refresh(moving, event, depth, w)
            pace = moving.pace
        else:
            t = event - n_groups
            w0, w1, _, _ = _event_words(cells[CELL, t], number, _SWITCH, moving)
            cells[UPPER, t] = 1 - cells[UPPER, t]
            _jump(cells, levels, moving.jumps, t)
            owner = np.uint64(cells[OWNER, t])
            own = owner // _64 * _64 * np.uint64(n_bands + 1) + owner % _64
            w[owner] = moving.sums[own] + moving.jumps[owner]
            pace = levels[LEAVE_LOWER + cells[UPPER, t], t]
        _schedule(first, events, event, step + _steps_until(w0, w1, pace))
        event = after


@kernel(allocates=True)
def start_moving(on, pace, factor, strength, telegraph, jump, owner, source, w):
    """Return the Moving of a sequence, stationary at step 0, and change w to it in place.

    factor (n_bands,), strength (n_weights,) float32; of the telegraph cells (n,): jump of a
    weight float32, owner int64. Only those of kind MOVING matter. on: whether anything moves.
    """
    n_weights, n_bands = (w.size if on else 0), factor.size
    n_groups = (n_weights + GROUP - 1) // GROUP
    n_refreshed = n_groups if n_bands > 0 else 0
    n_jumping = 0
    for t in range(telegraph.cell.size):
        n_jumping += telegraph.kind[t] == MOVING
    n_events = n_refreshed + n_jumping
    moving = Moving(
        on, pace, factor,
        np.zeros(n_groups * GROUP, np.float32),
        np.zeros(n_groups * GROUP * (n_bands + 1), np.float32),
        np.zeros(n_groups * GROUP if n_jumping > 0 else 0, np.float32),
        np.empty(GROUP if on else 0, np.float32),
        np.full(_DAYS if on else 0, -1, np.int64),
        np.zeros((3, n_events), np.int64),
        np.empty((3, n_jumping), np.int64),
        np.empty((4, n_jumping), np.float64),
        source.keys, source.address,
    )
    cells, levels = moving.cells, moving.levels
    for k in range(min(strength.size, n_weights)):
        moving.strength[k] = strength[k]
    i = 0
    for t in range(telegraph.cell.size):
        if not on or telegraph.kind[t] != MOVING:
            continue
        cells[CELL, i], cells[OWNER, i] = telegraph.cell[t], owner[t]
        levels[JUMP, i], levels[SHARE, i] = jump[t], telegraph.share[t]
        levels[LEAVE_LOWER, i], levels[LEAVE_UPPER, i] = telegraph.pace[t, 0], telegraph.pace[t, 1]
        w0, w1, _, w3 = _event_words(cells[CELL, i], 0, _SWITCH, moving)
        cells[UPPER, i] = 1 if _starts_in_upper(w3, telegraph.share[t]) else 0
        wait = _steps_until(w0, w1, levels[LEAVE_LOWER + cells[UPPER, i], i])
        _schedule(moving.first, moving.events, n_refreshed + i, wait)
        i += 1
    for t in range(n_jumping):
        _jump(cells, levels, moving.jumps, t)
    for group in range(n_groups):
        base = group * GROUP
        end = min(base + GROUP, n_weights)
        own = base * (n_bands + 1)
        loud = False
        for k in range(base, end):
            loud |= moving.strength[k] > _ZERO
            moving.sums[own + n_bands * GROUP + k - base] = w[k]
        if loud:
            _refresh(moving, group, n_bands - 1, w)
            w0, w1, _, _ = _event_words(group, 0, _REFRESH, moving)
            _schedule(moving.first, moving.events, group, _steps_until(w0, w1, pace))
        elif n_jumping > 0:  # without bands, but its cells may still jump
            for k in range(base, end):
                moving.sums[own + k - base] = w[k]
            _show(moving, group, w)
    return moving


def copy_moving(moving):
    """Return the same noise, whose steps leave the one passed in as it is."""
    return moving._replace(
        sums=moving.sums.copy(), jumps=moving.jumps.copy(), z=moving.z.copy(),
        first=moving.first.copy(), events=moving.events.copy(), cells=moving.cells.copy(),
    )
