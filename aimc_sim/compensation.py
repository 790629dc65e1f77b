"""What is done, digitally, about drift: gains of columns from calibration reads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aimc_sim.chip import Chip
from aimc_sim.errors import InputError


def global_gain(chip: Chip, cells: Sequence[np.ndarray]) -> np.ndarray:
    """Return the mean gain of sets of cells since programming, (n_replicas, len(cells)).

    The sum of g - g_min over the same sum right after programming, as two calibration reads
    find it (Joshi et al., doi 10.1038/s41467-020-16108-9), float64. cells : chip-wide indices.

    Raises InputError where a set has no conductance left.
    """
    g_min = chip.spec.device.g_min_s
    before, now = (chip.clipped(g) for g in (chip.aged_at(0.0), chip.aged()))
    result = np.ones((chip.n_replicas, len(cells)))
    for k, index in enumerate(cells):
        wanted = (before[:, index].astype(float) - g_min).sum(axis=1)
        found = (now[:, index].astype(float) - g_min).sum(axis=1)
        there = wanted > 0
        result[there, k] = found[there] / wanted[there]
    if not np.isfinite(result).all() or (result <= 0).any():
        raise InputError(
            "compensate drift", "a matrix has no conductance left",
            "read earlier, or set compensation = 'none'",
        )
    return result
