"""A chip: the cells of one or more replicas, their history and a clock.

A cell's conductance is a pure function of (seed, replica, cell, time since programming);
`wait` moves the clock and nothing else, so 1 h + 1 h is 2 h exactly.
"""

from __future__ import annotations

import math

import numpy as np

from aimc_sim.aging import acceleration, check_time, relaxation_mean, relaxation_sigma
from aimc_sim.cards import check_temperature
from aimc_sim.errors import UsageError
from aimc_sim.kernels.cells import (
    add_slow_noise,
    cell_normals,
    clip_cells,
    drift_cells,
    relax_cells,
)
from aimc_sim.mapping import Layout
from aimc_sim.noise import noise_split
from aimc_sim.randomness import Purpose, clock_word, seed_words
from aimc_sim.specs import ChipSpec
from aimc_sim.writing import Written, program


class Chip:
    """Programmed cells of `n_replicas` chips that share layout and targets.

    Parameters
    ----------
    spec, layout : what the chip is and where its cells lie.
    target_s : (n_cells,) conductances asked for [S].
    seed : of all draws. n_replicas, first_replica : replicas first .. first + n - 1.
    written : what writing left in the cells, to restore a saved chip; None writes them.
    """

    def __init__(
        self,
        spec: ChipSpec,
        layout: Layout,
        target_s: np.ndarray,
        seed: int = 0,
        n_replicas: int = 1,
        first_replica: int = 0,
        written: Written | None = None,
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
        self.age_ns = 0  # the clock at the temperature of the card's data
        self.draws = layout.draws
        self.written = written or program(
            spec, self.draws, self.target_s, self.seed_words, n_replicas, first_replica
        )
        self._quality: tuple[np.ndarray, np.ndarray] | None = None
        self._aged: tuple[int, np.ndarray] | None = None

    @property
    def n_cells(self) -> int:
        """Cells of one replica."""
        return int(self.target_s.size)

    @property
    def programmed_s(self) -> np.ndarray:
        """Conductances right after writing: (n_replicas, n_cells) float32 [S]."""
        return self.written.g_s

    @property
    def time_s(self) -> float:
        """Seconds since programming."""
        return self.clock_ns / 1e9

    def fresh(self) -> Chip:
        """Return the same cells with the clock at programming."""
        return Chip(
            self.spec, self.layout, self.target_s, self.seed, self.n_replicas,
            self.first_replica, self.written,
        )

    def wait(self, seconds: float, temperature_k: float | None = None) -> None:
        """Let time pass: moves the clock by whole nanoseconds.

        temperature_k : during that time; None: the chip's. UsageError for negative times, or a
        temperature at which nothing is known of the device.
        """
        if not (math.isfinite(seconds) and seconds >= 0):
            raise UsageError(
                f"wait {seconds} s", "time does not run backwards", "give zero or a positive time"
            )
        device = self.spec.device
        if temperature_k is None:
            temperature_k = self.spec.temperature_k
        else:
            try:
                check_temperature(device, temperature_k)
            except ValueError as error:
                raise UsageError(
                    f"wait {seconds} s at {temperature_k:g} K", str(error),
                    "leave the temperature out, or take a card with an activation energy",
                ) from None
        passed_ns = round(seconds * 1e9)
        aged_ns = round(passed_ns * acceleration(device, temperature_k))
        check_time(device, (self.age_ns + aged_ns) / 1e9)
        self.clock_ns += passed_ns
        self.age_ns += aged_ns

    def normals(self, purpose: Purpose, replica: int, sequence: int = 0, timed: bool = False
                ) -> np.ndarray:
        """Return the normals of all random blocks for one purpose (index with draws.index)."""
        moment = clock_word(self.clock_ns) if timed else 0
        return cell_normals(
            self.draws, self.seed_words, purpose, self.first_replica + replica, sequence, moment
        )

    def aged(self) -> np.ndarray:
        """Return the conductances now, before read noise: (n_replicas, n_cells) float32 [S]."""
        if self._aged is None or self._aged[0] != self.age_ns:
            self._aged = (self.age_ns, self.aged_at(self.age_ns / 1e9))
        return self._aged[1]

    def aged_at(self, seconds: float) -> np.ndarray:
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
        if device.relaxation is not None:
            sigma = relaxation_sigma(device, target, seconds).astype(np.float32)
            shift = relaxation_mean(device, target, seconds).astype(np.float32)
            if sigma.any() or shift.any():
                for replica in range(self.n_replicas):
                    normals = self.normals(Purpose.RELAX, replica)
                    relax_cells(normals, self.draws.index, shift, sigma, g[replica])
        return g

    @property
    def limits_s(self) -> tuple[np.float32, np.float32]:
        """Lowest and highest conductance that a read finds [S]."""
        device = self.spec.device
        ceiling = np.inf if device.ceiling_s is None else device.ceiling_s
        return np.float32(device.floor_s), np.float32(ceiling)

    def noise_s(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the read noise of every cell now, both (n_replicas, n_cells) float32 [S].

        The first is sigma of the 1/f (or white) noise before its factor of time
        (`noise.noise_split`), the second that of the further white noise.
        """
        device = self.spec.device
        noise = device.read_noise
        if self._quality is None:
            zero = np.zeros(self.programmed_s.shape, np.float32)
            self._quality = (zero, zero)
            if noise is not None:
                g = self.programmed_s.astype(float)
                sigma = noise.sigma.evaluate(g, device.g_max_s).astype(np.float32)
                white = zero
                if noise.white is not None:
                    white = noise.white.evaluate(g, device.g_max_s).astype(np.float32)
                self._quality = (sigma, white)
        if noise is None or not noise.relative:
            return self._quality
        g = np.clip(self.aged(), *self.limits_s)
        sigma, white = self._quality
        return sigma * g, (white * g if noise.white is not None else white)

    def read(
        self, replica: int = 0, sequence: int = 0, purpose: Purpose = Purpose.READ_SLOW
    ) -> np.ndarray:
        """Return what one sequence of reads finds, slow noise included: (n_cells,) float32 [S]."""
        out = self.aged()[replica].copy()
        split = noise_split(self.spec, self.time_s)
        if split.slow > 0.0:
            normals = self.normals(purpose, replica, sequence, timed=True)
            sigma, _ = self.noise_s()
            add_slow_noise(
                normals, self.draws.index, sigma[replica], np.float32(split.slow), out, out
            )
        clip_cells(*self.limits_s, out)
        return out

    def fast_sigma(self, replica: int = 0) -> np.ndarray:
        """Return the white noise of one read of every cell: (n_cells,) float32 [S]."""
        sigma, white = self.noise_s()
        fast = np.float32(noise_split(self.spec, self.time_s).fast)
        return np.asarray(np.hypot(sigma[replica] * fast, white[replica]))
