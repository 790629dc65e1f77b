"""Poles of layers whose heads hold pairs, real poles and nothing, made ready for rounding.

A grid of A spans the poles of a head. A place without a mode must not widen it, and a real pole
has no phase to round: it stays real. Stand-ins take their places while poles are rounded.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Complex = NDArray[np.complex128]


def stand_in_places(mode_weight: NDArray[np.float64]) -> tuple[NDArray[np.int64], ...]:
    """Return for every place of (..., M) the mode whose rate, and whose phase, stands in for it.

    A place that is empty takes both from the first mode, preferably a pair; a real pole takes
    the phase from there.
    """
    places = np.broadcast_to(np.arange(mode_weight.shape[-1]), mode_weight.shape)
    first = np.broadcast_to(mode_weight.argmax(axis=-1)[..., None], mode_weight.shape)
    return np.where(mode_weight > 0, places, first), np.where(mode_weight == 2, places, first)


def with_stand_ins(pole: Complex, mode_weight: NDArray[np.float64]) -> Complex:
    """Return poles (H, M) that span the same rates and phases as those that are there."""
    rate, phase = stand_in_places(mode_weight)
    size = np.take_along_axis(np.abs(pole), rate, axis=-1)
    angle = np.take_along_axis(np.angle(pole), phase, axis=-1)
    return np.where(mode_weight == 2, pole, size * np.exp(1j * angle))


def without_stand_ins(rounded: Complex, pole: Complex, mode_weight: NDArray[np.float64]) -> Complex:
    """Return rounded poles with real ones real again, of their sign, and empty places zero."""
    alone = np.abs(rounded) * np.where(pole.real < 0, -1.0, 1.0)
    return np.where(mode_weight == 2, rounded, np.where(mode_weight == 1, alone, 0.0))
