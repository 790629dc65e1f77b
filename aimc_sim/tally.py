"""What writing and faults left in chips, added up for reports."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from aimc_sim.chip import Chip
from aimc_sim.faults import NAMES
from aimc_sim.writing import WriteLog


@dataclass(frozen=True, eq=False)
class Tally:
    """Counts over the cells that carry a weight, of one or more chips.

    n_chips, n_cells : chips, and such cells of one chip. faults : (4,) cells of all chips by
    code (see `aimc_sim.faults`), None where faults were not asked for. writing : of all chips,
    None for one-shot writing.
    """

    n_chips: int
    n_cells: int
    faults: np.ndarray | None = None
    writing: WriteLog | None = None

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

        pulses : cells a chip that took 0, 1, ... of them; pulses_mean, pulses_median, pulses_95 :
        mean, and numbers that half and 95 % of the cells do not exceed. failed, energy_j (None
        where the card has no voltages) : mean per chip.
        """
        log = self.writing
        if log is None:
            return None
        return {
            "cells": self.n_cells,
            "pulses": log.histogram / self.n_chips,
            "pulses_mean": log.pulses_mean,
            "pulses_median": log.pulses_of(0.5),
            "pulses_95": log.pulses_of(0.95),
            "failed": log.failed / self.n_chips,
            "energy_j": None if log.energy_j is None else log.energy_j / self.n_chips,
        }


def tally(chip: Chip) -> Tally:
    """Return the counts of a chip's replicas."""
    written = chip.written
    used = chip.layout.carries_weight()
    faults = None
    if written.faults is not None:
        faults = np.bincount(written.faults[:, used].ravel(), minlength=len(NAMES))
    return Tally(chip.n_replicas, int(used.sum()), faults, written.log(used))


def _sum(logs: list[WriteLog]) -> WriteLog | None:
    if not logs:
        return None
    histogram = np.zeros(max(log.histogram.size for log in logs), np.int64)
    for log in logs:
        histogram[: log.histogram.size] += log.histogram
    energies = [log.energy_j for log in logs if log.energy_j is not None]
    return WriteLog(
        histogram, sum(log.failed for log in logs),
        sum(energies) if len(energies) == len(logs) else None,
    )


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
    codes = [part.faults for part in parts if part.faults is not None]
    logs = [part.writing for part in parts if part.writing is not None]
    return Tally(
        sum(part.n_chips for part in parts), first.n_cells,
        np.sum(codes, axis=0) if codes else None, _sum(logs),
    )
