"""Writing cells: what a published error, or a loop of pulses, leaves of the target."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np

from aimc_sim.cards import DeviceSpec, PulseSpec
from aimc_sim.curves import flatten
from aimc_sim.errors import UsageError
from aimc_sim.kernels.cells import Draws, cell_normals, program_cells
from aimc_sim.kernels.curves import curve_values
from aimc_sim.kernels.write import Loop, sort_by_block, write_cells
from aimc_sim.noise import gathered
from aimc_sim.randomness import Purpose
from aimc_sim.specs import ChipSpec, WriteSpec

_FIRST_READ_S = 1.0  # from which on cards without drift speak of read noise
_SLACK = 1e-6  # of g_max: what float32 makes of a target at the end of the range


@dataclass(frozen=True, eq=False)
class WriteLog:
    """What write-verify took, over all cells of all replicas.

    n_cells : cells written. pulses_mean, pulses_median, pulses_95, pulses_most : of the pulses
    of a cell, the third 95 % of cells do not exceed. histogram : int64, cells that took 0, 1,
    2 .. pulses. failed : cells left outside the tolerance. energy_j : of all pulses and verify
    reads; None where the card has no voltages.
    """

    n_cells: int
    pulses_mean: float
    pulses_median: int
    pulses_95: int
    pulses_most: int
    histogram: np.ndarray
    failed: int
    energy_j: float | None


@dataclass(frozen=True, eq=False)
class Written:
    """What writing left in the cells of a chip; all arrays (n_replicas, n_cells).

    g_s : float32 conductances [S]. faults : int8 codes (see `aimc_sim.faults`), or None where
    every cell works. pulses : uint16 pulses that each cell took, failed : whether its last
    verify read lay outside the tolerance, energy_j : float32 of its pulses and verify reads (NaN
    where the card has no voltages); all three None for one-shot programming.
    """

    g_s: np.ndarray
    faults: np.ndarray | None = None
    pulses: np.ndarray | None = None
    failed: np.ndarray | None = None
    energy_j: np.ndarray | None = None

    def log(self) -> WriteLog | None:
        """Return what the loop took, summed up; None for one-shot programming."""
        if self.pulses is None or self.failed is None:
            return None
        histogram = np.bincount(self.pulses.ravel())
        n_cells = self.pulses.size
        rank = np.cumsum(histogram)
        energy = None if self.energy_j is None else float(self.energy_j.sum(dtype=float))
        return WriteLog(
            n_cells,
            float(histogram @ np.arange(len(histogram))) / n_cells,
            int(np.searchsorted(rank, 0.5 * n_cells)),
            int(np.searchsorted(rank, 0.95 * n_cells)),
            len(histogram) - 1,
            histogram,
            int(self.failed.sum()),
            energy if energy is not None and math.isfinite(energy) else None,
        )


def program(
    spec: ChipSpec, draws: Draws, target_s: np.ndarray, seeds: tuple[np.uint64, np.uint64],
    n_replicas: int, first_replica: int,
) -> Written:
    """Return what writing `target_s` (n_cells,) float32 [S] leaves in the cells of every replica.

    By write-verify where the chip has `write`, else one-shot.

    Raises UsageError for a target outside the device's range.
    """
    _check_targets(spec.device, target_s)
    replicas = range(first_replica, first_replica + n_replicas)
    if spec.write is not None and spec.device.pulses is not None:
        return _write_verify(spec, spec.write, spec.device.pulses, draws, target_s, seeds, replicas)
    return _one_shot(spec.device, draws, target_s, seeds, replicas)


def _check_targets(device: DeviceSpec, target_s: np.ndarray) -> None:
    slack = _SLACK * device.g_max_s
    low, high = device.g_min_s - slack, device.g_max_s + slack
    if target_s.size == 0 or (target_s.min() >= low and target_s.max() <= high):
        return
    wrong = target_s[~((target_s >= low) & (target_s <= high))]
    raise UsageError(
        f"write cells of '{device.name}' to {1e6 * float(wrong[0]):.6g} uS",
        f"they hold {1e6 * device.g_min_s:.6g} to {1e6 * device.g_max_s:.6g} uS "
        f"({wrong.size} of {target_s.size} targets lie outside)",
        "keep targets in that range, in siemens, or take a card that reaches further",
    )


def _one_shot(
    device: DeviceSpec, draws: Draws, target_s: np.ndarray, seeds: tuple[np.uint64, np.uint64],
    replicas: range,
) -> Written:
    """Return max(0, target + mean(g) + sigma(g) xi), or the target where the card has no error."""
    g = np.empty((len(replicas), target_s.size), np.float32)
    part = device.programming
    if part is None:
        g[:] = target_s
        return Written(g)
    scale = device.g_max_s / (part.g_reference_s or device.g_max_s)
    curves = (part.sigma,) if part.mean is None else (part.sigma, part.mean)
    sigma, *shift = curve_values(flatten(curves, device.g_max_s, scale), target_s)
    aim = target_s + shift[0] if shift else target_s
    for out, replica in zip(g, replicas, strict=True):
        normals = cell_normals(draws, seeds, Purpose.PROGRAM, replica)
        program_cells(normals, draws.index, aim, sigma, out)
    return Written(g)


def verify_sigma(device: DeviceSpec, g_s: np.ndarray, verify_reads: int = 1) -> np.ndarray:
    """Return the noise [S] of a verification, the mean of `verify_reads` reads, at g_s (n,) [S].

    sqrt((f sigma(g))^2 + white(g)^2/n), float32, times g where the card's noise is relative.
    n reads back to back are one read n times as long: f^2 = ln((t + n t_read)/(2 n t_read)) for
    1/f noise, 1/n for white noise. t is that of a read at 0 s, the earliest that a card speaks
    of: t0 of its drift, 1 s where it has none. A verify read comes sooner after its pulse and
    sees less of the slow noise, which later reads of the same loop share: this is its bound.
    """
    noise = device.read_noise
    if noise is None:
        return np.zeros(g_s.shape, np.float32)
    lasting, white = _verify_factors(device, verify_reads)
    sigma, further = curve_values(flatten((noise.sigma, noise.white), device.g_max_s), g_s)
    total = np.hypot(lasting * sigma, white * further)
    return total * g_s if noise.relative else total


def _verify_factors(device: DeviceSpec, n: int) -> tuple[np.float32, np.float32]:
    """Return the factors of a card's noise and of its further white noise in n reads' mean."""
    noise = device.read_noise
    if noise is None:
        return np.float32(0), np.float32(0)
    share = 1 / n
    if noise.spectrum == "one_over_f":
        t = device.drift.t0_s if device.drift is not None else _FIRST_READ_S
        duration = n * noise.t_read_s
        share = gathered(noise.exponent, 2 * duration, t + duration)
    return np.float32(math.sqrt(share)), np.float32(0 if noise.white is None else math.sqrt(1 / n))


def _write_verify(
    spec: ChipSpec, write: WriteSpec, pulse: PulseSpec, draws: Draws, target_s: np.ndarray,
    seeds: tuple[np.uint64, np.uint64], replicas: range,
) -> Written:
    """Return what the loop of read, compare and pulse leaves (`kernels.write`)."""
    device = spec.device
    _warn_of_noise(device, write, target_s)
    noise = device.read_noise
    curves = (None, None) if noise is None else (noise.sigma, noise.white)
    lasting, white = _verify_factors(device, write.verify_reads)
    set_j_s, reset_j_s, read_j_s = _energies(pulse, write)
    loop = Loop(
        int(Purpose.WRITE), int(Purpose.VERIFY), int(Purpose.PULSE_CELL),
        flatten(
            (pulse.set_mean, pulse.set_sigma, pulse.reset_mean, pulse.reset_sigma), device.g_max_s
        ),
        flatten(curves, device.g_max_s),
        noise is not None and noise.relative,
        lasting,
        white,
        np.float32(write.tolerance_s),
        write.max_pulses,
        np.float32(pulse.device_spread),
        np.float32(device.g_min_s if write.start == "g_min" else device.g_max_s),
        np.float32(device.g_min_s),
        np.float32(device.g_max_s),
        np.float32(device.floor_s),
        np.float32(np.inf if device.ceiling_s is None else device.ceiling_s),
        set_j_s,
        reset_j_s,
        read_j_s,
    )
    n_blocks = draws.counter.size
    first = np.zeros(n_blocks + 2, np.int64)
    order = np.empty(target_s.size, np.int64)
    sort_by_block(draws.index, n_blocks, first, order)
    shape = (len(replicas), target_s.size)
    g, pulses = np.empty(shape, np.float32), np.empty(shape, np.uint16)
    failed, energy = np.empty(shape, np.bool_), np.empty(shape, np.float32)
    for k, replica in enumerate(replicas):
        write_cells(
            draws, first, order, *seeds, replica, loop, target_s, g[k], pulses[k], failed[k],
            energy[k],
        )
    return Written(g, pulses=pulses, failed=failed, energy_j=energy)


def _energies(pulse: PulseSpec, write: WriteSpec) -> tuple[float, float, float]:
    """Return V^2 t [J/S] of a SET pulse, a RESET pulse and a verification; NaN where unknown."""
    volts = (pulse.set_v, pulse.reset_v, pulse.v_read_v)
    widths = (pulse.width_s, pulse.width_s, pulse.t_read_s)
    pairs = zip(volts, widths, strict=True)
    each = [v * v * t for v, t in pairs if v is not None and t is not None]
    if len(each) < len(volts):
        return math.nan, math.nan, math.nan
    return each[0], each[1], each[2] * write.verify_reads


def _warn_of_noise(device: DeviceSpec, write: WriteSpec, target_s: np.ndarray) -> None:
    sigma = verify_sigma(device, target_s, write.verify_reads)
    lost = int((sigma > write.tolerance_s).sum())
    if lost:
        worst = int(sigma.argmax())
        warnings.warn(
            f"Write cells of '{device.name}' to +-{1e6 * write.tolerance_s:.4g} uS: a verification "
            f"has {1e6 * float(sigma[worst]):.4g} uS of noise at "
            f"{1e6 * float(target_s[worst]):.4g} uS, and for {lost} of {target_s.size} cells the "
            "noise decides when it ends. Raise write.tolerance_s or write.verify_reads.",
            stacklevel=5,
        )
