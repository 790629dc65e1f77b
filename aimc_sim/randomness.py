"""Where every random draw of a simulated chip comes from.

A draw has an address: (seed, purpose, replica, place) choose a Philox key, and (element, step,
sequence, time) a counter under it. Nothing else enters, so a result depends on the seed and on
what is drawn, never on threads, batch size, order or a resumed run.
"""

from __future__ import annotations

import enum
import operator

import numpy as np

from aimc_sim.errors import UsageError


class Purpose(enum.IntEnum):
    """What a draw is for. Numbers are part of the file format: never renumber, only append."""

    PROGRAM = 1  # programming error of a cell; place = tile, element = cell
    DRIFT = 2  # drift exponent of a cell
    RELAX = 3  # relaxation of a cell
    READ_SLOW = 4  # slow read noise of a cell, once per sequence
    READ = 5  # white noise of one conversion; place = product, element = output
    READ_CELL = 6  # the same cell by cell, in the per-cell oracle
    PROBE = 7  # the probe signal that stands in for missing data
    FAULT = 8  # whether a cell is stuck
    FAULT_LINE = 9  # whether a line is dead; element = row, then column of the tile
    WRITE = 10  # one programming pulse of a cell
    VERIFY = 11  # one verify read of a cell
    PULSE_CELL = 12  # how far a cell's pulse response lies from the mean one
    TELEGRAPH = 13  # which cells have telegraph noise, and of what amplitude and dwell times
    SWITCH = 14  # a jump of a cell's telegraph noise
    BAND = 15  # value of a band of 1/f noise
    REFRESH = 16  # when a band of 1/f noise is drawn anew
    COMPENSATE = 17  # noise of calibration reads, and their patterns
    ADC = 18  # errors of an ADC; place = tile, element = 32 x number on it + which error
    DAC = 19  # errors of a DAC; element = 2 x row + which error
    DAC_NOISE = 20  # noise of a drive; place = product, element = row


def seed_words(seed: int) -> tuple[np.uint64, np.uint64]:
    """Return the two 32-bit key words (held in uint64) of a seed in [0, 2^64).

    Raises UsageError for a seed outside that range, or one that is no whole number.
    """
    try:
        whole = 0 <= operator.index(seed) < 1 << 64
    except TypeError:
        whole = False
    if not whole:
        raise UsageError(
            f"use seed {seed}", "it is no whole number in [0, 2^64)", "give a whole number >= 0"
        )
    return np.uint64(int(seed) & 0xFFFFFFFF), np.uint64(int(seed) >> 32)


def clock_word(clock_ns: int) -> np.uint64:
    """Return the 32-bit counter word of a moment: reads at other times are other draws."""
    return np.uint64((clock_ns ^ (clock_ns >> 32)) & 0xFFFFFFFF)
