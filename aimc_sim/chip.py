"""A chip: the cells of one or more replicas, their history and a clock.

A cell's conductance is a pure function of (seed, replica, cell, time since programming);
`wait` moves the clock and nothing else, so 1 h + 1 h is 2 h exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from aimc_sim.aging import (
    LONGEST_S,
    acceleration,
    check_time,
    relaxation_mean,
    relaxation_sigma,
)
from aimc_sim.cards import check_targets, check_temperature
from aimc_sim.curves import flatten
from aimc_sim.errors import UsageError
from aimc_sim.faults import draw_faults, hold, silence, stick, without_current
from aimc_sim.kernels.cells import (
    add_slow_noise,
    cell_normals,
    clip_cells,
    drift_cells,
    relax_cells,
)
from aimc_sim.kernels.curves import curve_values
from aimc_sim.kernels.moving import (
    LASTING,
    MOVING,
    NO_TELEGRAPH,
    WHITE,
    Source,
    Telegraph,
    add_levels,
    moving_keys,
)
from aimc_sim.kernels.noise import expect_reads
from aimc_sim.mapping import Layout
from aimc_sim.noise import (
    MOST_BANDS,
    Jumps,
    NoiseSplit,
    draw_jumps,
    leaving_pace,
    noise_split,
    telegraph_kinds,
)
from aimc_sim.randomness import Purpose, clock_word, seed_words
from aimc_sim.specs import ChipSpec
from aimc_sim.units import format_time, parse_quantity
from aimc_sim.wired import TileLines, Transfer, WiredCells, lines_of, solve_cells
from aimc_sim.writing import Written, program


@dataclass(frozen=True, eq=False)
class Reads:
    """What reads in a run find of the cells of one replica, behind the lines of their tiles.

    mean_s, variance : (n_cells,) float32 [S], [S^2] of a read. moving : (n_cells,) float32 [S^2]
    variance of bands of 1/f noise for a factor of 1, (0,) without. telegraph : the cells with
    telegraph noise; jump_s : (n,) float32 [S] from their lower to their upper level.
    """

    mean_s: np.ndarray
    variance: np.ndarray
    moving: np.ndarray
    telegraph: Telegraph
    jump_s: np.ndarray


class Chip:
    """Programmed cells of `n_replicas` chips that share layout and targets.

    Parameters
    ----------
    spec, layout : what the chip is and where its cells lie.
    target_s : (n_cells,) conductances asked for [S].
    seed : of all draws. n_replicas, first_replica : replicas first .. first + n - 1.
    written : what writing left in the cells, to restore a saved chip; None writes them.

    UsageError for targets outside those that the card's data cover, where it refuses them.
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
        if first_replica < 0:
            raise UsageError(
                f"program chip number {first_replica}", "they are counted from 0",
                "give zero or a positive number",
            )
        self.seed_words = seed_words(seed)
        self.spec, self.layout, self.seed = spec, layout, int(seed)
        self.n_replicas, self.first_replica = n_replicas, first_replica
        self.target_s = np.asarray(target_s, np.float32)
        self.clock_ns = 0
        self.age_ns = 0  # the clock at the temperature of the card's data
        self.draws = layout.draws
        if written is None:
            check_targets(spec.device, self.target_s)
            which = (self.seed_words, n_replicas, first_replica)
            faults = draw_faults(spec, layout, *which)
            written = program(spec, self.draws, self.target_s, *which)
            written = stick(written, faults, self.target_s, spec)
        self.written = written
        self._quality: tuple[np.ndarray, np.ndarray] | None = None
        self._aged: tuple[int, np.ndarray] | None = None
        self._jumps: dict[int, Jumps] = {}
        self._wired: dict[tuple[int, int], WiredCells] = {}  # by replica and age, as long as used
        self._transfer: dict[int, tuple[int, Transfer]] = {}

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

    def __repr__(self) -> str:
        chips = f"{self.n_replicas} chips" if self.n_replicas > 1 else "1 chip"
        return f"{chips} of seed {self.seed}, {format_time(self.time_s)} after programming"

    def wait(self, seconds: float | str, temperature_k: float | None = None) -> None:
        """Let time pass: moves the clock by whole nanoseconds.

        seconds : a number, or text such as "1h".
        temperature_k : during that time; None: the chip's. UsageError for negative times, or a
        temperature at which nothing is known of the device.
        """
        if isinstance(seconds, str):
            seconds = parse_quantity(seconds, "time")
        if not 0 <= seconds <= LONGEST_S:  # NaN too
            raise UsageError(
                f"wait {seconds} s",
                "time does not run backwards" if not seconds > 0 else "that is no time for a chip",
                "give zero or a positive time such as 1h",
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
        clock_ns, age_ns = self.clock_ns + passed_ns, self.age_ns + aged_ns
        check_time(device, clock_ns / 1e9, age_ns / 1e9)
        self.clock_ns, self.age_ns = clock_ns, age_ns

    def normals(self, purpose: Purpose, replica: int, sequence: int = 0, timed: bool = False
                ) -> np.ndarray:
        """Return the normals of all random blocks for one purpose (index with draws.index).

        purpose, replica, sequence : what they belong to, part of a draw's address. timed : the
        moment of the clock is part of it too.
        """
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
        if device.drift is not None and seconds > 0:
            log_ratio = np.float32(math.log1p(seconds / device.drift.t0_s))
            curves = (device.drift.nu_mean, device.drift.nu_std)
            nu_mean, nu_std = curve_values(flatten(curves, device.g_max_s), self.target_s)
            work = np.empty(256, np.float32)
            for replica in range(self.n_replicas):
                normals = self.normals(Purpose.DRIFT, replica)
                index = self.draws.index
                drift_cells(normals, index, nu_mean, nu_std, log_ratio, work, g[replica])
        if device.relaxation is not None:
            sigma = relaxation_sigma(device, self.target_s, seconds)
            shift = relaxation_mean(device, self.target_s, seconds)
            if sigma.any() or shift.any():
                for replica in range(self.n_replicas):
                    normals = self.normals(Purpose.RELAX, replica)
                    relax_cells(normals, self.draws.index, shift, sigma, g[replica])
        return hold(g, self.written)

    @property
    def limits_s(self) -> tuple[np.float32, np.float32]:
        """Lowest and highest conductance that a read finds [S]."""
        device = self.spec.device
        ceiling = np.inf if device.ceiling_s is None else device.ceiling_s
        return np.float32(device.floor_s), np.float32(ceiling)

    def clipped(self, g: np.ndarray, replica: int | None = None) -> np.ndarray:
        """Return g [S] within the limits of a read, 0 where a cell has no connection.

        g : (n_replicas, n_cells), or (n_cells,) of one replica.
        """
        unconnected = self.unconnected if replica is None else self.unconnected[replica]
        return silence(np.clip(g, *self.limits_s), unconnected)

    @property
    def unconnected(self) -> np.ndarray:
        """Which cells carry no current: (n_replicas, n_cells) bool, or (n_replicas, 0): none."""
        return without_current(self.written)

    def noise_s(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the read noise of every cell now, both (n_replicas, n_cells) float32 [S].

        The first is sigma of the 1/f (or white) noise before its factor of time
        (`noise.noise_split`), the second that of the further white noise.
        """
        device = self.spec.device
        noise = device.read_noise
        if self._quality is None:
            g = self.programmed_s
            if noise is None:
                sigma = white = np.zeros(g.shape, np.float32)
            else:
                table = flatten((noise.sigma, noise.white), device.g_max_s)
                sigma, white = curve_values(table, g.ravel()).reshape(2, *g.shape)
            self._quality = (silence(sigma, self.unconnected), silence(white, self.unconnected))
        if noise is None or not noise.relative:
            return self._quality
        g = self.clipped(self.aged())
        sigma, white = self._quality
        return sigma * g, (white * g if noise.white is not None else white)

    @property
    def is_wired(self) -> bool:
        """Whether the lines of the tiles resist."""
        return self.spec.wires is not None and self.spec.wires.resists

    def wired(self, replica: int = 0, age_ns: int | None = None) -> WiredCells:
        """Return what the lines of the tiles make of a replica's cells.

        age_ns : at that age; None: now, or at programming where the cells have changed by no
        more than `wires.retol` since. A function of the moment alone, whatever came before.
        """
        retol = self.spec.wires.retol if self.spec.wires is not None else 0.0
        if age_ns is None:
            age_ns = self.age_ns
            if age_ns and (retol > 0 or not self._ages):
                written = self.wired(replica, 0)
                if written.distance(self.clipped(self.aged()[replica], replica)) <= retol:
                    return written
        if (replica, age_ns) not in self._wired:
            for other in [k for k in self._wired if k[0] == replica and k[1]]:
                del self._wired[other]  # a moment that is over
            g = self._at_start if age_ns == 0 else self.aged_at(age_ns / 1e9)
            if age_ns == self.age_ns:
                g = self.aged()
            self._wired[replica, age_ns] = solve_cells(
                self.spec, self._lines, self.clipped(g[replica], replica)
            )
        return self._wired[replica, age_ns]

    @cached_property
    def _at_start(self) -> np.ndarray:
        return self.aged_at(0.0)

    @cached_property
    def _lines(self) -> list[TileLines]:
        return lines_of(self.spec, self.layout)

    @property
    def _ages(self) -> bool:
        return self.spec.device.drift is not None or self.spec.device.relaxation is not None

    def transfer(self, replica: int = 0) -> Transfer:
        """Return what the lines make of reads of a replica's cells now."""
        if replica not in self._transfer or self._transfer[replica][0] != self.clock_ns:
            variance = self.fast_sigma(replica).astype(float) ** 2
            found = self.wired(replica).transfer(variance)
            self._transfer[replica] = (self.clock_ns, found)
        return self._transfer[replica][1]

    def seen(
        self, g_s: np.ndarray, variance: np.ndarray, replica: int = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return what terminals see of conductances [S] now, and the variance of a read.

        g_s, variance : (n_cells,) float32 of the cells themselves; as they are without wires.
        replica : whose cells they are.
        """
        if not self.is_wired:
            return g_s, variance
        transfer = self.transfer(replica)
        return transfer.mean(g_s), transfer.variance(variance)

    def telegraph(self, replica: int = 0) -> Telegraph:
        """Return the cells of a replica that have telegraph noise, as they are now."""
        part, device = self.spec.device.telegraph, self.spec.device
        if part is None:
            return NO_TELEGRAPH
        if replica not in self._jumps:
            normals = [
                self.normals(Purpose.TELEGRAPH, replica, k)[self.draws.index] for k in range(4)
            ]
            self._jumps[replica] = draw_jumps(part, normals)
        jumps = self._jumps[replica]
        written = self.programmed_s[replica, jumps.cell].astype(float)
        amplitude = part.amplitude.evaluate(written, device.g_max_s) * jumps.amplitude
        if part.relative:
            amplitude = amplitude * np.clip(self.aged()[replica, jumps.cell], *self.limits_s)
        if (unconnected := self.unconnected[replica]).size:
            amplitude = silence(amplitude, unconnected[jumps.cell])
        return Telegraph(
            jumps.cell, amplitude.astype(np.float32), jumps.share.astype(np.float32),
            telegraph_kinds(self.spec, jumps.correlation_s), leaving_pace(self.spec, jumps),
        )

    def source(self, replica: int = 0, sequence: int = 0) -> Source:
        """Return where the noise of a sequence that moves is drawn from.

        replica, sequence : part of the address of its draws.
        """
        keys = moving_keys(
            *self.seed_words, self.first_replica + replica, MOST_BANDS, int(Purpose.BAND),
            int(Purpose.REFRESH), int(Purpose.SWITCH),
        )
        return Source(keys, np.array([sequence, clock_word(self.clock_ns)], np.uint64))

    def _slow(
        self, replica: int, sequence: int, factor: float, moving_too: bool,
        purpose: Purpose = Purpose.READ_SLOW,
    ) -> np.ndarray:
        out = self.aged()[replica].copy()
        if factor > 0.0:
            normals = self.normals(purpose, replica, sequence, timed=True)
            sigma, _ = self.noise_s()
            add_slow_noise(
                normals, self.draws.index, sigma[replica], np.float32(factor), out, out
            )
        if self.spec.device.telegraph is not None:
            # reads for another purpose see the levels of a sequence that no run has
            number = sequence + (0 if purpose == Purpose.READ_SLOW else 1 << 63)
            add_levels(self.telegraph(replica), self.source(replica, number), moving_too, out)
        return out

    def slow(
        self, replica: int = 0, sequence: int = 0, purpose: Purpose = Purpose.READ_SLOW
    ) -> np.ndarray:
        """Return the conductances during a few reads: (n_cells,) float32 [S].

        With all noise that lasts for these reads, also what moves in the steps of a run; nothing
        is clipped. replica, sequence, purpose : whose reads they are; another sequence or purpose
        draws anew.
        """
        lasting = noise_split(self.spec, self.time_s).lasting
        return self._slow(replica, sequence, lasting, True, purpose)

    def read(
        self, replica: int = 0, sequence: int = 0, purpose: Purpose = Purpose.READ_SLOW
    ) -> np.ndarray:
        """Return what one sequence of reads finds, slow noise included: (n_cells,) float32 [S].

        replica, sequence, purpose : as of `slow`.
        """
        out = self.slow(replica, sequence, purpose)
        clip_cells(*self.limits_s, out)
        return silence(out, self.unconnected[replica])

    def expected(
        self, replica: int = 0, sequence: int = 0, purpose: Purpose = Purpose.READ_SLOW
    ) -> Reads:
        """Return mean and variance of a read of every cell in a run.

        Those of `slow` with the white noise of `fast_sigma`, clipped together: near a limit the
        mean moves away from it and the variance falls. Noise that moves with the steps of the
        run is not in the mean; `Reads.moving` has its strength. For another purpose than a run
        nothing moves: what would lasts for all reads. replica, sequence, purpose : as of `slow`.
        """
        split, telegraph = noise_split(self.spec, self.time_s), self.telegraph(replica)
        if purpose != Purpose.READ_SLOW:
            split = NoiseSplit(split.lasting, split.fast)
            kind = np.where(telegraph.kind == MOVING, np.int8(LASTING), telegraph.kind)
            telegraph = telegraph._replace(kind=kind)
        base = self._slow(
            replica, sequence, split.slow, purpose != Purpose.READ_SLOW, purpose
        )
        sigma, white = self.noise_s()
        mean, variance = np.empty_like(base), np.empty_like(base)
        moving = np.empty(base.size if split.bands else 0, np.float32)
        jump = np.zeros(telegraph.cell.size, np.float32)
        expect_reads(
            base, sigma[replica], white[replica], np.float32(split.fast),
            np.float32(split.moving), *self.limits_s, telegraph, mean, variance, moving, jump,
        )
        unconnected = self.unconnected[replica]
        silence(mean, unconnected)
        silence(variance, unconnected)
        if self.is_wired:
            slope = self.transfer(replica).slope
            mean, variance = self.seen(mean, variance, replica)
            if moving.size:
                moving *= slope * slope
            jump *= slope[telegraph.cell]
        return Reads(mean, variance, moving, telegraph, jump)

    def fast_sigma(self, replica: int = 0) -> np.ndarray:
        """Return the white noise of one read of every cell, not clipped: (n_cells,) float32 [S].

        replica : whose cells, counted from 0.
        """
        sigma, white = self.noise_s()
        fast = np.float32(noise_split(self.spec, self.time_s).fast)
        total = np.asarray(np.hypot(sigma[replica] * fast, white[replica]))
        telegraph = self.telegraph(replica)
        new = telegraph.kind == WHITE
        share, cell = telegraph.share[new], telegraph.cell[new]
        jumps = telegraph.amplitude_s[new] * np.sqrt(share * (1 - share))
        total[cell] = np.hypot(total[cell], jumps)
        return total
