"""The products of a programmed matrix: what its cells stand for at a moment, and the kernels."""

from __future__ import annotations

from threading import RLock
from typing import TYPE_CHECKING, Any

import numpy as np

from aimc_sim.compensation import Wiring, fit_columns, global_gain
from aimc_sim.converters import (
    bit_planes,
    converter_limit,
    draw_periphery,
    has_adc_errors,
    has_dac_errors,
)
from aimc_sim.errors import UsageError
from aimc_sim.kernels import matrix
from aimc_sim.kernels.moving import MOVING, Moving, Telegraph, start_moving
from aimc_sim.kernels.mvm import read_streams
from aimc_sim.mapping import pieces_of
from aimc_sim.noise import noise_split, refresh_pace
from aimc_sim.randomness import Purpose, clock_word
from aimc_sim.ranges import not_finite

if TYPE_CHECKING:
    from aimc_sim.chip import Chip, Reads
    from aimc_sim.kernels.converters import Periphery
    from aimc_sim.mapping import CellArray
    from aimc_sim.matrix import MappedMatrix

_kernels: Any = matrix  # numba's, whose signatures star-arguments hide from a type checker

_BLAS_FROM = 16  # batch from which two matrix products beat fused loops, measured
# weights up to which sums of the rows of a bit plane beat BLAS over all of them, measured; with
# DAC errors rows of a 0 count too
_GATHERED_TO = 1 << 16
_COLUMN_PARTS = 1 << 19  # of a READ's place: parts of a matrix that is driven from its columns


class Multiplier:
    """Multiplies vectors with the cells of a programmed matrix as they are.

    What holds until time passes is found once per moment (`_make_plan`).
    """

    def __init__(self, mapped: MappedMatrix, chip: Chip) -> None:
        self.mapped, self.chip = mapped, chip
        self.saturated = self.conversions = 0  # ADC conversions that clipped, and all of them
        spec = mapped.spec
        device = spec.device
        lasting = device.read_noise is not None or device.telegraph is not None
        if mapped.forward is not None and spec.noise_in_time == "spectrum" and lasting:
            raise UsageError(
                "drive a matrix from its columns",
                "its noise moves with the reads of its rows (noise_in_time = 'spectrum')",
                "use noise_in_time = 'split', or program the transpose on cells of its own",
            )
        self._dac_limit = converter_limit(spec.dac.bits)
        self._adc_limit = converter_limit(spec.adc.bits)
        limit = self._adc_limit or np.float32(1.0)
        self._adc_step = (mapped.adc_range / limit).astype(np.float32).ravel()
        noise = spec.adc.noise_lsb if self._adc_limit else 0.0
        self._adc_sigma = self._adc_step * np.float32(noise)
        self._adc_inverse = 1 / self._adc_step
        self._planes = bit_planes(spec.dac, self._dac_limit)
        # a tuple of that many arrays costs 10 us to pass
        self._real = self._planes > 1 or has_dac_errors(spec) or has_adc_errors(spec)
        self._shape = mapped.adc_range.shape
        self._gathers = (
            self._planes > 1 and not has_dac_errors(spec) and mapped.real.size <= _GATHERED_TO
        )
        self._n_in = mapped.real.shape[0]
        self._each = self._planes * mapped.adc_range.size  # conversions of a vector
        self._work_size = _kernels.work_size(self._n_in, self._shape[1])
        self._plan: tuple[int, Any, Any, Any] | None = None
        self._moving: Moving | None = None  # changes with the reads, one thread at a time
        self._next_step, self._lock = 1, RLock()

    @property
    def array(self) -> CellArray:
        """Where the cells lie."""
        return self.mapped.layout.arrays[0]

    def weights(self) -> tuple[np.ndarray, np.ndarray, bool]:
        """Return what the cells stand for now: w and its white variance per read, and whether
        there is any noise; both (n_in, n_out) float32 of the real matrix."""
        _, w, v, _, noisy, _ = self._current_plan()[0]
        return w, v, noisy

    @property
    def periphery(self) -> Periphery:
        """The errors of the converters of this chip."""
        chip, array, turned = self.chip, self.array, self.mapped.forward is not None
        first = slice(None, None, self.mapped.part_rows)  # cell of every part of an output
        cells = (array.by_piece(a)[0, 0, 0] for a in (array.tile, array.element))
        tile, element = ((a.T if turned else a)[first].ravel() for a in cells)
        line = element // chip.spec.tile.cols if turned else element % chip.spec.tile.cols
        place = (int(clock_word(chip.clock_ns)) << 20) + turned * _COLUMN_PARTS
        return draw_periphery(
            chip.spec, chip.seed_words, chip.first_replica, self._n_in, tile, line,
            np.array([place]), self._dac_limit, self._adc_limit, turned=turned,
        )

    def _read_weights(self) -> tuple[np.ndarray, np.ndarray, bool, np.ndarray | None]:
        """Return corrected weights, their variances, whether there is noise, and the offset.

        Sets `_moving` where noise moves with the reads.
        """
        gain, offset = self.correction()
        reads = self.chip.expected()
        w, v = self._as_weights(reads.mean_s, reads.variance)
        w = np.ascontiguousarray(w / gain, np.float32)
        v = np.ascontiguousarray(v / gain**2, np.float32)
        self._moving = (  # refused where columns are driven
            self._start_moving(reads, self.mapped.scale[0] / gain, w)
            if self.mapped.forward is None else None
        )
        self._next_step = 1
        return w, v, bool(v.any() or self._adc_sigma.any()), offset

    def _as_weights(self, g_s: np.ndarray, variance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the weights that conductances g_s and their variances stand for, (n_in, n_out).

        g_s, variance : (n_cells,) [S], [S^2].
        """
        scale = self.mapped.scale[0]
        shares = pieces_of(self.mapped.spec).shares[:, None, None]
        g, s = (self.array.by_piece(a)[:, :, 0].astype(float) for a in (g_s, variance))
        w = (shares * (g[:, 0] - g[:, 1])).sum(axis=0) * scale
        v = (shares**2 * s.sum(axis=1)).sum(axis=0) * scale**2
        if self.mapped.drive is None:
            return w, v
        return (w / self.mapped.drive).T, (v / self.mapped.drive**2).T

    def correction(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the gains of weights now, (1, 1) or (n_in, n_out), and the offset of outputs,
        (n_out,) with full-scale inputs being 1, None where there is none."""
        n_in, n_out = self.mapped.real.shape
        spec = self.mapped.spec
        if spec.compensation == "none":
            return np.ones((1, 1)), None
        if spec.compensation == "global":
            return global_gain(self.chip, [self.array.cell_index().ravel()]), None
        parts = np.arange(n_in) // self.mapped.part_rows
        n_parts = len(self.mapped.adc_range)
        dac_step = np.full(n_in, 1 / (self._dac_limit or np.float32(1)), np.float32)
        wiring = Wiring(
            row=np.repeat(np.arange(n_in), n_out),
            column=(parts[:, None] * n_out + np.arange(n_out)).ravel(),
            dac_step=dac_step,
            adc_step=self._adc_step,
            dac_limit=self._dac_limit,
            adc_limit=self._adc_limit,
            adc_noise=np.float32(spec.adc.noise_lsb),
            # patterns of the other direction are those of another product
            first=np.array([0, 0, n_parts * n_out][self.mapped.forward is None :]),
            n_planes=self._planes,
        )
        reads = self.chip.expected(purpose=Purpose.COMPENSATE)
        w, v = self._as_weights(reads.mean_s, reads.variance)
        fit = fit_columns(
            self.chip, wiring, self.mapped.real.ravel(), w.ravel(), v.ravel(), 0,
            self.periphery if self._real else None,
        )
        gain = fit.gain.reshape(n_parts, n_out)[parts]
        if spec.compensation == "column":
            return gain, None
        drives = 2**self._planes - 1  # the offset of every plane is shifted and added too
        return gain, (drives * fit.offset.reshape(n_parts, n_out).sum(axis=0)).astype(np.float32)

    def _start_moving(self, reads: Reads, scale: np.ndarray, w: np.ndarray) -> Moving | None:
        """Return the noise that moves with the reads, w changed to its first step; None: none."""
        telegraph, spec = reads.telegraph, self.mapped.spec
        if not reads.moving.size and not (telegraph.kind == MOVING).any():
            return None
        shares = pieces_of(spec).shares
        pieces = self.array.by_piece(np.arange(self.chip.n_cells))[:, :, 0]  # (n, 2, rows, cols)
        owner, turn = np.full(self.chip.n_cells, -1), np.zeros(self.chip.n_cells, np.float32)
        strength = np.zeros(w.shape if reads.moving.size else 0)
        for share, halves in zip(shares, pieces, strict=True):
            for cells, sign in zip(halves, (1, -1), strict=True):
                owner[cells] = np.arange(w.size).reshape(w.shape)
                turn[cells] = sign * np.broadcast_to(share * scale, w.shape)
                if reads.moving.size:
                    strength += reads.moving[cells].astype(float) * (share * scale) ** 2
        strength = np.sqrt(strength).ravel()
        order = np.argsort(owner[telegraph.cell], kind="stable")
        order = order[(owner[telegraph.cell] < 0).sum() :]
        cell = telegraph.cell[order]
        bands = noise_split(spec, self.chip.time_s).bands
        moving: Moving = start_moving(
            True, refresh_pace(spec), np.array(bands, np.float32), strength.astype(np.float32),
            Telegraph(*(values[order] for values in telegraph)), reads.jump_s[order] * turn[cell],
            owner[cell], self.chip.source(), w.reshape(-1),
        )
        return moving

    def multiply(self, x: np.ndarray, first_read: int) -> np.ndarray:
        """Return the products of x (batch, n_in) float32, contiguous; vector k is read
        first_read + k.

        Raises InputError where an input is not finite.
        """
        before, after, offset = self._current_plan()
        if len(x) < _BLAS_FROM or self._moving is not None:
            out, clipped = self._multiply_vectors(x, first_read, before, after)
        elif not np.isfinite(x.sum()) and not np.isfinite(x).all():
            clipped = -1
        elif self._gathers:
            out = np.empty((len(x), self._shape[1]), np.float32)
            clipped = _kernels.mvm_planes(x, *before, first_read, *after, self._work_size, out)
        else:
            out, clipped = self._multiply_batch(x, first_read, before, after)
        if clipped < 0:
            raise not_finite("multiply")
        with self._lock:
            self.saturated += int(clipped)
            self.conversions += self._each * len(x)
        if offset is not None:
            scale = np.float32(self.mapped.full_scale or 0.0) or np.abs(x).max(axis=1)
            out -= np.where(scale > 0, scale, np.float32(1))[..., None] * offset
        return out

    def _multiply_vectors(
        self, x: np.ndarray, first_read: int, before: Any, after: Any
    ) -> tuple[np.ndarray, int]:
        """Return the products, one vector after the other, and how many outputs clipped."""
        out = np.empty((len(x), self._shape[1]), np.float32)
        # a fresh buffer: threads may share a matrix, and the kernel lets other threads run
        work = np.empty(self._work_size, np.float32)
        if self._moving is not None:
            return out, self._multiply_steps(x, first_read, work, out)
        return out, _kernels.mvm_vectors(x, *before, first_read, *after, work, out)

    def _multiply_batch(
        self, x: np.ndarray, first_read: int, before: Any, after: Any
    ) -> tuple[np.ndarray, int]:
        """Return the products of a batch, by BLAS for every row part, and how many clipped."""
        clipped = 0
        full_scale, w, v, part_rows, noisy, keys = before
        _, *adc, periphery = after
        n_parts, n_out = self._shape
        out = np.zeros((len(x), n_out), np.float32)
        scaled = np.empty((self._planes, *x.shape), np.float32)
        squares = np.empty(scaled.shape if noisy else (0, 0, 0), np.float32)
        x_scale = np.empty(len(x), np.float32)
        _kernels.drive_batch(
            x, full_scale, first_read, self._dac_limit, periphery, scaled, squares, x_scale
        )
        for part in range(n_parts):
            rows = slice(part * part_rows, (part + 1) * part_rows)
            y = (scaled.reshape(-1, self._n_in)[:, rows] @ w[rows]).reshape(*scaled.shape[:2], -1)
            s = y
            if noisy:
                s = squares.reshape(-1, self._n_in)[:, rows] @ v[rows]
                s = s.reshape(y.shape)
            clipped += _kernels.finish_batch(
                y, s, noisy, keys[part, 0], keys[part, 1], first_read, *adc, periphery,
                np.uint64(part * n_out), x_scale, out,
            )
        return out, clipped

    def _multiply_steps(self, x: np.ndarray, first_read: int, *buffers: np.ndarray) -> int:
        """Multiply with noise that moves: reads are its steps, those before the first are made up.

        A read before the last one starts again at step 0, with the same numbers.
        """
        with self._lock:
            before, after, _ = self._current_plan()
            if first_read < self._next_step - 1:
                self._plan = None
                before, after, _ = self._current_plan()
            clipped = _kernels.mvm_steps(
                x, *before, first_read, *after, *buffers, self._moving, self._next_step,
                before[1].reshape(-1),
            )
            self._next_step = max(self._next_step, first_read + len(x))
        return int(clipped)

    def _current_plan(self) -> tuple[Any, Any, Any]:
        """Return what holds until time passes: the kernel's arguments before and after the read
        index, and the offset of the outputs.

        Made once per moment: assembling them costs as much as a product of 256 x 256.
        """
        clock_ns, plan = self.chip.clock_ns, self._plan
        if plan is None or plan[0] != clock_ns:
            with self._lock:  # a second thread may be here: the noise must not start twice
                plan = self._plan
                if plan is None or plan[0] != clock_ns:
                    plan = self._plan = (clock_ns, *self._make_plan())
        return plan[1:]

    def _make_plan(self) -> tuple[Any, Any, Any]:
        chip = self.chip
        w, v, noisy, offset = self._read_weights()
        places = (int(clock_word(chip.clock_ns)) << 20) + np.arange(len(self.mapped.adc_range))
        if self.mapped.forward is not None:
            places += _COLUMN_PARTS
        keys = read_streams(
            *chip.seed_words, int(Purpose.READ), chip.first_replica, places
        )
        before = (
            np.float32(self.mapped.full_scale or 0.0), w, v, self.mapped.part_rows, noisy, keys
        )
        after = (
            self._dac_limit, self._adc_step, self._adc_inverse, self._adc_sigma,
            self._adc_limit,
            self.periphery if self._real else None,
        )
        return before, after, offset
