"""What writing and faults left in chips, added up for reports."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from aimc_sim.chip import Chip
from aimc_sim.faults import NAMES


@dataclass(frozen=True, eq=False)
class Tally:
    """Counts over the cells that carry a weight, of one or more chips.

    n_chips, n_cells : chips, and such cells of one chip. faults : (4,) cells of all chips by
    code (see `aimc_sim.faults`), None where faults were not asked for. pulses : (most + 1,)
    cells that took 0, 1, ... pulses, n_failed : cells that ended outside the tolerance,
    energy_j : of all chips (NaN where the card has no voltages); None for one-shot writing.
    """

    n_chips: int
    n_cells: int
    faults: np.ndarray | None = None
    pulses: np.ndarray | None = None
    n_failed: int | None = None
    energy_j: float | None = None

    def fault_record(self) -> dict[str, Any] | None:
        """Return faulty cells by kind, mean per chip, of how many; None: none were asked for."""
        if self.faults is None:
            return None
        kinds = {
            name: float(count) / self.n_chips
            for name, count in zip(NAMES[1:], self.faults[1:], strict=True)
        }
        return {"cells": self.n_cells, **kinds}

    def writing_record(self) -> dict[str, Any] | None:
        """Return what write-verify took; None for one-shot writing.

        pulses_mean, pulses_95 : mean, and number that 95 % of the cells do not exceed. failed,
        energy_j : mean per chip.
        """
        if self.pulses is None or self.n_failed is None:
            return None
        n = int(self.pulses.sum())
        reached = np.cumsum(self.pulses) >= 0.95 * n
        energy_j = None if self.energy_j is None else self.energy_j / self.n_chips
        return {
            "cells": self.n_cells,
            "pulses_mean": float(np.arange(self.pulses.size) @ self.pulses) / n,
            "pulses_95": int(np.argmax(reached)),
            "failed": self.n_failed / self.n_chips,
            "energy_j": energy_j,
        }


def tally(chip: Chip) -> Tally:
    """Return the counts of a chip's replicas."""
    written = chip.written
    used = chip.layout.carries_weight()
    faults = pulses = n_failed = energy_j = None
    if written.faults is not None:
        faults = np.bincount(written.faults[:, used].ravel(), minlength=len(NAMES))
    if written.pulses is not None and written.failed is not None:
        pulses = np.bincount(written.pulses[:, used].ravel())
        n_failed = int(written.failed[:, used].sum())
        if written.energy_j is not None:
            energy_j = float(written.energy_j[:, used].sum(dtype=float))
    return Tally(chip.n_replicas, int(used.sum()), faults, pulses, n_failed, energy_j)


def _sum(counts: Iterable[np.ndarray | None]) -> np.ndarray:
    """Return the sum of counts, each padded with zeros to the longest."""
    known = [own for own in counts if own is not None]
    total = np.zeros(max(own.size for own in known), np.int64)
    for own in known:
        total[: own.size] += own
    return total


def add_up(tallies: Iterable[Tally]) -> Tally:
    """Return the counts of several sets of chips of one layout as one.

    Examples
    --------
    >>> two = [Tally(1, 10, faults=np.array([9, 1, 0, 0])), Tally(3, 10, np.array([28, 0, 2, 0]))]
    >>> add_up(two).fault_record()
    {'cells': 10, 'stuck_low': 0.25, 'stuck_high': 0.5, 'unconnected': 0.0}
    """
    parts = list(tallies)
    first = parts[0]
    faults = pulses = n_failed = energy_j = None
    if first.faults is not None:
        faults = _sum(part.faults for part in parts)
    if first.pulses is not None:
        pulses = _sum(part.pulses for part in parts)
        n_failed = sum(part.n_failed or 0 for part in parts)
    if first.energy_j is not None:
        energy_j = sum(part.energy_j or 0.0 for part in parts)
    n_chips = sum(part.n_chips for part in parts)
    return Tally(n_chips, first.n_cells, faults, pulses, n_failed, energy_j)
