"""A chip: the cells of one or more replicas, their history and a clock.

A cell's conductance is a pure function of (seed, replica, cell, time since programming);
`wait` moves the clock and nothing else, so 1 h + 1 h is 2 h exactly.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aimc_sim.errors import InputError, UsageError
from aimc_sim.kernels.cells import (
    add_slow_noise,
    clip_cells,
    drift_cells,
    fill_cell_normals,
    program_cells,
    relax_cells,
)
from aimc_sim.mapping import Layout
from aimc_sim.randomness import Purpose, clock_word, seed_words
from aimc_sim.specs import ChipSpec, DeviceSpec
from aimc_sim.units import format_time


@dataclass(frozen=True)
class NoiseSplit:
    """Read noise at a moment: sigma = quality * factor (times g where relative).

    slow : factor of the part that lasts for a sequence. fast : of the part new at each step.
    """

    slow: float
    fast: float
    relative: bool


def noise_split(spec: ChipSpec, seconds: float) -> NoiseSplit:
    """Return how the read noise at `seconds` after programming divides into slow and fast.

    1/f noise gathered up to t has variance Q^2 g^2 L, L = ln((t + t_read)/(2 t_read)). Octaves
    with periods up to one step, L_fast = ln((t_step + t_read)/(2 t_read)), are new at each step,
    the rest lasts for the sequence. White noise is always new.
    """
    device = spec.device
    noise = device.read_noise
    if noise is None:
        return NoiseSplit(0.0, 0.0, True)
    if noise.spectrum == "white":
        frozen = spec.noise_in_time == "frozen"
        return NoiseSplit(float(frozen), float(not frozen), noise.relative)
    t = seconds + (device.drift.t0_s if device.drift is not None else 0.0)
    total = max(0.0, math.log((t + noise.t_read_s) / (2 * noise.t_read_s)))
    step = math.log((spec.step_period_s + noise.t_read_s) / (2 * noise.t_read_s))
    share = {"split": min(max(step, 0.0), total), "white": total, "frozen": 0.0}
    fast = share[spec.noise_in_time]
    return NoiseSplit(math.sqrt(total - fast), math.sqrt(fast), noise.relative)


def relaxation_sigma(device: DeviceSpec, target_s: np.ndarray, seconds: float) -> np.ndarray:
    """Return the spread [S] that relaxation has reached at a time, float64, shape of target_s."""
    relax = device.relaxation
    if relax is None:
        return np.zeros(target_s.shape)
    if relax.kind == "added":
        if seconds < relax.start_s:
            return np.zeros(target_s.shape)
        spread = relax.std_per_ln_t_s * math.log(seconds) + relax.std_offset_s
        return np.full(target_s.shape, spread)
    scale = device.g_max_s / (relax.g_reference_s or device.g_max_s)
    log_times = np.log(relax.times_s)
    position = float(np.interp(math.log(max(seconds, relax.times_s[0])), log_times,
                               np.arange(len(log_times))))
    low = min(int(position), len(log_times) - 1)
    high = min(low + 1, len(log_times) - 1)
    curves = [relax.sigma[k].evaluate(target_s, device.g_max_s) for k in (low, high)]
    return np.maximum(curves[0] + (position - low) * (curves[1] - curves[0]), 0.0) * scale


def check_time(device: DeviceSpec, seconds: float) -> None:
    """Refuse a time before programming, and refuse or warn outside the card's measured range."""
    if not (math.isfinite(seconds) and seconds >= 0):
        raise UsageError(
            f"read the chip {seconds} s after programming", "that is not a time after it",
            "give zero or a positive time such as 1h",
        )
    low, high = device.time_range_s
    if low <= seconds <= high:
        return
    asked = f"read '{device.name}' {format_time(seconds)} after programming"
    found = f"its data cover {format_time(low)} to {format_time(high)}"
    if device.outside_time_range == "refuse":
        raise UsageError(asked, found, "choose a time in that range or another card")
    warnings.warn(f"{asked}: {found}; the formula is extrapolated", stacklevel=3)


class Chip:
    """Programmed cells of `n_replicas` chips that share layout and targets.

    Parameters
    ----------
    spec, layout : what the chip is and where its cells lie.
    target_s : (n_cells,) conductances asked for [S].
    seed : of all draws. n_replicas, first_replica : replicas first .. first + n - 1.
    programmed_s : (n_replicas, n_cells) float32, to restore a saved chip.
    """

    def __init__(
        self,
        spec: ChipSpec,
        layout: Layout,
        target_s: np.ndarray,
        seed: int = 0,
        n_replicas: int = 1,
        first_replica: int = 0,
        programmed_s: np.ndarray | None = None,
    ) -> None:
        if n_replicas < 1:
            raise UsageError(
                f"program {n_replicas} chips", "that is none", "ask for at least one chip"
            )
        self.spec, self.layout, self.seed = spec, layout, int(seed)
        self.seed_words = seed_words(seed)
        self.n_replicas, self.first_replica = n_replicas, first_replica
        self.target_s = np.asarray(target_s, np.float32)
        self.clock_ns = 0
        self.draws = layout.draws
        self.programmed_s = self._program() if programmed_s is None else programmed_s
        self._quality: np.ndarray | None = None
        self._aged: tuple[int, np.ndarray] | None = None

    @property
    def n_cells(self) -> int:
        """Cells of one replica."""
        return int(self.target_s.size)

    @property
    def quality(self) -> np.ndarray:
        """Read noise of every cell before its factor of time: (n_replicas, n_cells) float32."""
        if self._quality is None:
            device = self.spec.device
            self._quality = np.zeros(self.programmed_s.shape, np.float32)
            if device.read_noise is not None:
                g = self.programmed_s.astype(float)
                self._quality[:] = device.read_noise.sigma.evaluate(g, device.g_max_s)
        return self._quality

    @property
    def time_s(self) -> float:
        """Seconds since programming."""
        return self.clock_ns / 1e9

    def wait(self, seconds: float) -> None:
        """Let time pass: moves the clock by whole nanoseconds. UsageError if negative."""
        if not (math.isfinite(seconds) and seconds >= 0):
            raise UsageError(
                f"wait {seconds} s", "time does not run backwards", "give zero or a positive time"
            )
        clock_ns = self.clock_ns + round(seconds * 1e9)
        check_time(self.spec.device, clock_ns / 1e9)
        self.clock_ns = clock_ns

    def normals(self, purpose: Purpose, replica: int, sequence: int = 0, timed: bool = False
                ) -> np.ndarray:
        """Return the normals of all random blocks for one purpose (index with draws.index)."""
        out = np.empty(4 * self.draws.counter.size, np.float32)
        moment = clock_word(self.clock_ns) if timed else np.uint64(0)
        fill_cell_normals(
            self.draws, *self.seed_words, int(purpose),
            self.first_replica + replica, np.uint64(sequence), moment, out,
        )
        return out

    def _program(self) -> np.ndarray:
        device = self.spec.device
        target = self.target_s
        out = np.empty((self.n_replicas, target.size), np.float32)
        if device.programming is None:
            out[:] = target
            return out
        programming = device.programming
        scale = device.g_max_s / (programming.g_reference_s or device.g_max_s)
        sigma = programming.sigma.evaluate(target.astype(float), device.g_max_s) * scale
        if programming.mean is not None:
            shift = programming.mean.evaluate(target.astype(float), device.g_max_s)
            target = (target + shift * scale).astype(np.float32)
        for replica in range(self.n_replicas):
            normals = self.normals(Purpose.PROGRAM, replica)
            program_cells(
                normals, self.draws.index, target, sigma.astype(np.float32), out[replica]
            )
        return out

    def aged(self) -> np.ndarray:
        """Return the conductances now, before read noise: (n_replicas, n_cells) float32 [S]."""
        if self._aged is None or self._aged[0] != self.clock_ns:
            self._aged = (self.clock_ns, self._age(self.time_s))
        return self._aged[1]

    def _age(self, seconds: float) -> np.ndarray:
        """Return the conductances `seconds` after programming: drift or relaxation."""
        device = self.spec.device
        g = self.programmed_s.copy()
        target = self.target_s.astype(float)
        if device.drift is not None and seconds > 0:
            log_ratio = np.float32(math.log1p(seconds / device.drift.t0_s))
            nu_mean = device.drift.nu_mean.evaluate(target, device.g_max_s).astype(np.float32)
            nu_std = device.drift.nu_std.evaluate(target, device.g_max_s).astype(np.float32)
            for replica in range(self.n_replicas):
                normals = self.normals(Purpose.DRIFT, replica)
                drift_cells(normals, self.draws.index, nu_mean, nu_std, log_ratio, g[replica])
        relax = device.relaxation
        if relax is not None:
            sigma = relaxation_sigma(device, target, seconds).astype(np.float32)
            shift = 0.0
            if relax.kind == "added" and seconds >= relax.start_s:
                shift = relax.mean_per_ln_t_s * math.log(seconds)
            if sigma.any() or shift:
                for replica in range(self.n_replicas):
                    normals = self.normals(Purpose.RELAX, replica)
                    relax_cells(normals, self.draws.index, np.float32(shift), sigma, g[replica])
        return g

    @property
    def limits_s(self) -> tuple[np.float32, np.float32]:
        """Lowest and highest conductance that a read finds [S]."""
        device = self.spec.device
        ceiling = np.inf if device.ceiling_s is None else device.ceiling_s
        return np.float32(device.floor_s), np.float32(ceiling)

    def read(self, replica: int = 0, sequence: int = 0) -> np.ndarray:
        """Return what one sequence of reads finds, slow noise included: (n_cells,) float32 [S]."""
        g = self.aged()[replica]
        split = noise_split(self.spec, self.time_s)
        out = np.empty_like(g)
        if split.slow == 0.0:
            clip_cells(*self.limits_s, g, out)
            return out
        normals = self.normals(Purpose.READ_SLOW, replica, sequence, timed=True)
        add_slow_noise(
            normals, self.draws.index, self.quality[replica], np.float32(split.slow),
            split.relative, *self.limits_s, g, out,
        )
        return out

    def fast_sigma(self, replica: int = 0) -> np.ndarray:
        """Return the white noise of one read of every cell: (n_cells,) float32 [S]."""
        split = noise_split(self.spec, self.time_s)
        sigma = self.quality[replica] * np.float32(split.fast)
        if not split.relative:
            return np.asarray(sigma)
        return np.asarray(sigma * np.clip(self.aged()[replica], *self.limits_s))

    def gain(self, cells: Sequence[np.ndarray]) -> np.ndarray:
        """Return the mean gain of sets of cells since programming, (n_replicas, len(cells)).

        The sum of g - g_min over the same sum right after programming, as two calibration
        reads find it (Joshi et al., doi 10.1038/s41467-020-16108-9), float64.
        """
        g_min = self.spec.device.g_min_s
        before, now = (np.clip(g, *self.limits_s) for g in (self._age(0.0), self.aged()))
        result = np.ones((self.n_replicas, len(cells)))
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
