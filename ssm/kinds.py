"""Poles of layers whose heads hold pairs, real poles and nothing, made ready for rounding.

A grid of A spans the poles of a head. A place without a mode must not widen it, and where one
coordinate is an angle a real pole has none to round: it stays real. Stand-ins take their places
while poles are rounded. In Cartesian and delta coordinates a real pole is a code itself.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from ssm.grids import Grid, as_codes
from ssm.poles import BOUNDED

Complex = NDArray[np.complex128]


def stand_in_places(
    mode_weight: NDArray[np.float64], form: str
) -> tuple[NDArray[np.int64], ...]:
    """Return for every place of (..., M) the mode whose rate, and whose phase, stands in for it.

    A place that is empty takes both from the first mode, preferably a pair; a real pole takes
    the phase from there where the form of A has angles.
    """
    places = np.broadcast_to(np.arange(mode_weight.shape[-1]), mode_weight.shape)
    first = np.broadcast_to(mode_weight.argmax(axis=-1)[..., None], mode_weight.shape)
    own = mode_weight == 2 if form in BOUNDED else mode_weight > 0
    return np.where(mode_weight > 0, places, first), np.where(own, places, first)


def stand_in_heads(mode_weight: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return for every head of (..., H, M) the head that stands in for it, (..., H).

    One that has no mode takes the first that has: a range may be that of all heads.
    """
    there = (mode_weight > 0).any(axis=-1)
    heads = np.broadcast_to(np.arange(there.shape[-1]), there.shape)
    return np.where(there, heads, there.argmax(axis=-1)[..., None])


def with_stand_ins(pole: Complex, mode_weight: NDArray[np.float64], form: str) -> Complex:
    """Return poles (H, M) that span the same rates and phases as those that are there."""
    rate, phase = stand_in_places(mode_weight, form)
    size = np.take_along_axis(np.abs(pole), rate, axis=-1)
    angle = np.take_along_axis(np.angle(pole), phase, axis=-1)
    # a pole of one mode is taken over as it is: an end of a range must not move by a rounding
    one = np.take_along_axis(pole, rate, axis=-1)
    shown = np.where(rate == phase, one, size * np.exp(1j * angle))
    return np.asarray(shown[stand_in_heads(mode_weight)])


def without_modes(grid: Grid, mode_weight: NDArray[np.float64]) -> Grid:
    """Return a grid of poles (H, M) with code 0 + zero, Re = Im = 0, where there is no mode.

    Of Cartesian coordinates alone: no other grid has a code for a pole at zero.
    """
    if grid.form != "cartesian":
        return grid
    there = (mode_weight > 0)[..., None]
    return dataclasses.replace(grid, codes=as_codes(np.where(there, grid.codes, grid.zero)))


def without_stand_ins(
    rounded: Complex, pole: Complex, mode_weight: NDArray[np.float64], form: str
) -> Complex:
    """Return rounded poles with real ones real again and empty places zero.

    With angles a real pole keeps its sign: what was rounded is its magnitude.
    """
    if form in BOUNDED:
        alone = np.abs(rounded) * np.where(pole.real < 0, -1.0, 1.0)
    else:
        alone = rounded.real
    return np.where(mode_weight == 2, rounded, np.where(mode_weight == 1, alone, 0.0))
