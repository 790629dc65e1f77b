"""Writing cells: what a published error, or a loop of pulses, leaves of the target."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aimc_sim.kernels.cells import Draws, cell_normals, program_cells
from aimc_sim.randomness import Purpose
from aimc_sim.specs import ChipSpec


@dataclass(frozen=True, eq=False)
class Written:
    """What writing left in the cells of a chip; all arrays (n_replicas, n_cells).

    g_s : float32 conductances [S]. faults : int8 codes (see `aimc_sim.faults`), or None where
    every cell works. pulses : uint16 pulses that each cell took, failed : whether it ended
    outside the tolerance, energy_j : float32 of its pulses and verify reads (NaN where the card
    has no voltages); all three None for one-shot programming.
    """

    g_s: np.ndarray
    faults: np.ndarray | None = None
    pulses: np.ndarray | None = None
    failed: np.ndarray | None = None
    energy_j: np.ndarray | None = None


def program(
    spec: ChipSpec, draws: Draws, target_s: np.ndarray, seeds: tuple[np.uint64, np.uint64],
    n_replicas: int, first_replica: int,
) -> Written:
    """Return what writing `target_s` (n_cells,) [S] leaves in the cells of every replica.

    One-shot: max(0, target + mean(g) + sigma(g) xi), the card's published error; exact where
    the card has none.
    """
    device = spec.device
    g = np.empty((n_replicas, target_s.size), np.float32)
    part = device.programming
    if part is None:
        g[:] = target_s
        return Written(g)
    scale = device.g_max_s / (part.g_reference_s or device.g_max_s)
    exact = target_s.astype(float)
    sigma = (part.sigma.evaluate(exact, device.g_max_s) * scale).astype(np.float32)
    aim = target_s
    if part.mean is not None:
        shift = part.mean.evaluate(exact, device.g_max_s) * scale
        aim = (target_s + shift).astype(np.float32)
    for replica in range(n_replicas):
        normals = cell_normals(draws, seeds, Purpose.PROGRAM, first_replica + replica)
        program_cells(normals, draws.index, aim, sigma, g[replica])
    return Written(g)
