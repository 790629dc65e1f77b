"""One matrix on tiles: `map_matrix(w, spec).program(seed).mvm(x)`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from threading import RLock
from typing import TYPE_CHECKING, Any

import numpy as np

from aimc_sim.chip import Chip, Reads
from aimc_sim.compensation import Wiring, calibration_reads, fit_columns, global_gain
from aimc_sim.converters import (
    bit_planes,
    converter_limit,
    draw_periphery,
    drive_limit,
    has_adc_errors,
    has_dac_errors,
    histograms,
    range_of,
)
from aimc_sim.errors import InputError, UsageError
from aimc_sim.faults import NAMES
from aimc_sim.kernels import mvm
from aimc_sim.kernels.moving import MOVING, Moving, Telegraph, start_moving
from aimc_sim.mapping import (
    CellArray,
    Layout,
    Request,
    pieces_of,
    place,
    target_conductances,
    weight_scale,
)
from aimc_sim.noise import noise_split, refresh_pace
from aimc_sim.predistortion import reach
from aimc_sim.randomness import Purpose, clock_word
from aimc_sim.specs import ChipSpec, check_chip
from aimc_sim.storage import WRITTEN, read_matrix, save_matrix
from aimc_sim.writing import Written

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import ArrayLike

    from aimc_sim.kernels.converters import Periphery

_BLAS_FROM = 16  # batch from which two matrix products beat fused loops, measured
_COLUMN_PARTS = 1 << 19  # of a READ's place: parts of a matrix that is driven from its columns


@dataclass(frozen=True, eq=False)
class MappedMatrix:
    """A matrix laid out on tiles, not yet programmed; `print` shows tiles and utilisation.

    w : (n_in, n_out) as given. real : the real matrix on the tiles, of twice the size where w is
    complex. full_scale : input at the DAC's end (None: the largest of every vector).
    forward : None, or the matrix whose cells this one drives from the columns: w and real are
    then those of the transpose, real in units in which every cell counts alike, drive (n_in,) what
    an input is multiplied by before its DAC for that.
    """

    w: np.ndarray
    real: np.ndarray
    spec: ChipSpec
    layout: Layout
    scale: np.ndarray
    full_scale: float | None
    adc_range: np.ndarray  # (n_parts, n_out) output of a drive at the ADC's end (see _adc_range)
    forward: MappedMatrix | None = None
    drive: np.ndarray | None = None

    def __str__(self) -> str:
        n_in, n_out = self.w.shape
        kind = "complex" if np.iscomplexobj(self.w) else "real"
        turned = "" if self.forward is None else ", driven from the columns"
        return (
            f"{kind} {n_in} x {n_out} matrix on {self.layout.n_tiles} tile(s) of "
            f"{self.spec.tile.rows} x {self.spec.tile.cols} ({self.spec.name}), "
            f"{self.layout.n_used()} cells, {100 * self.layout.utilisation(self.spec):.1f} % used"
            f"{turned}"
        )

    __repr__ = __str__

    @property
    def part_rows(self) -> int:
        """Inputs that share a tile; the outputs of further ones are added after their ADCs."""
        if self.forward is None:
            return self.layout.arrays[0].part_rows
        array = self.layout.arrays[0]
        return min(len(self.real), self.spec.tile.cols // len(array.tile))

    @property
    def T(self) -> MappedMatrix:  # noqa: N802 - numpy's name
        """The transpose on the same cells, y = x @ w.T: columns driven, currents read on rows."""
        return self.transpose()

    def transpose(self, calibrate: ArrayLike | None = None) -> MappedMatrix:
        """Return the transpose on the same cells, with converter ranges of that direction.

        Both lines of a pair carry an input, with opposite signs. A column's scale multiplies its
        input before the DAC. calibrate : as of `map_matrix`.
        """
        if self.forward is not None:
            return self.forward
        scale = np.broadcast_to(self.scale[0, 0] / self.scale.max(), self.real.shape[1:])
        real, w = np.ascontiguousarray((self.real / scale).T), self.w.T
        probe, full_scale = _probe(w, len(real), calibrate, self.spec, scale)
        turned = replace(
            self, w=w, real=real, full_scale=full_scale, forward=self,
            drive=scale.astype(np.float32),
        )
        unit = np.full(real.shape[1], self.scale.max())
        found = _adc_range(probe, real, unit, turned.part_rows, self.spec)
        return replace(turned, adc_range=found)

    @cached_property
    def target_s(self) -> np.ndarray:
        """Conductances asked for, (n_cells,) float32 [S]."""
        if self.forward is not None:
            return self.forward.target_s
        target = target_conductances(
            self.real[None], self.scale * reach(self.spec), self.spec.device, pair=True,
            pieces=pieces_of(self.spec),
        )
        return target.ravel().astype(np.float32)

    def program(self, seed: int = 0, replica: int = 0) -> AnalogMatrix:
        """Return the matrix programmed on one sampled chip."""
        if self.forward is not None:
            return AnalogMatrix(self, self.forward.program(seed, replica).chip)
        chip = Chip(self.spec, self.layout, self.target_s, seed, first_replica=replica)
        return AnalogMatrix(self, chip)


def map_matrix(w: ArrayLike, spec: ChipSpec, calibrate: ArrayLike | None = None) -> MappedMatrix:
    """Return `w` laid out on tiles of `spec`: y = x @ w.

    Parameters
    ----------
    w : (n_in, n_out), real or complex, finite. A complex matrix becomes the real one
        [[Re, Im], [-Im, Re]] on twice the rows and columns.
    spec : the chip; signed weights sit on differential pairs.
    calibrate : (n, n_in) inputs that set the converters' ranges. None: every vector is scaled
        to its largest element before the DAC, and ADC ranges come from a fixed probe signal.

    Raises InputError for a matrix that is empty, not 2-D or not finite; CapacityError where it
    does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> a = map_matrix(np.eye(3), ChipSpec.preset("ideal")).program(seed=7)
    >>> (np.array([[1.0, 2.0, 3.0]]) @ a).tolist()
    [[1.0, 2.0, 3.0]]
    """
    w = np.asarray(w)
    if w.ndim != 2 or w.size == 0:
        what = "empty" if w.size == 0 else "no matrix"
        raise InputError(
            "map a matrix", f"it is {what}, its shape is {w.shape}",
            "give rows and columns, at least one of each",
        )
    if w.dtype.kind not in "fiubc" or not np.isfinite(w).all():
        raise InputError(
            "map a matrix", f"some of its values ({w.dtype}) are not finite numbers",
            "give finite real or complex numbers",
        )
    real = np.asarray(w, float) if not np.iscomplexobj(w) else np.block(
        [[w.real, w.imag], [-w.imag, w.real]]
    )
    check_chip(spec, "map a matrix")
    layout = place([Request("matrix", 1, *real.shape)], spec)
    scale = weight_scale(real[None], spec.device, spec.weight_scale) / reach(spec)
    probe, full_scale = _probe(w, real.shape[0], calibrate, spec)
    adc_range = _adc_range(probe, real, scale[0].max(axis=0), layout.arrays[0].part_rows, spec)
    return MappedMatrix(w, real, spec, layout, scale, full_scale, adc_range)


def load_matrix(path: str | Path) -> AnalogMatrix:
    """Return the programmed matrix of a file written by `AnalogMatrix.save`.

    Conductances, faults, pulses, clock and counts of reads are as they were: it answers bit for
    bit as it would have.

    Raises InputError for a missing or damaged file, or one of a newer schema.
    """
    asked = f"load the matrix {path}"
    facts, arrays = read_matrix(path, asked)
    spec = ChipSpec.from_text(facts["chip"], origin=f"in {path}")
    mapped = map_matrix(arrays["w"], spec)
    found, shape = arrays["adc_range"], (1, mapped.layout.n_cells)
    if found.shape != mapped.adc_range.shape or arrays["programmed_s"].shape != shape:
        raise InputError(
            asked, f"it holds {arrays['programmed_s'].shape} conductances and {found.shape} "
            f"ranges, the matrix takes {shape} and {mapped.adc_range.shape}",
            "program the matrix again",
        )
    mapped = replace(mapped, full_scale=facts["full_scale"], adc_range=found)
    if not np.isin(arrays.get("faults", 0), range(len(NAMES))).all():
        raise InputError(asked, "its faults are not codes of faults", "program the matrix again")
    written = Written(arrays["programmed_s"], **{name: arrays.get(name) for name in WRITTEN})
    chip = Chip(
        spec, mapped.layout, mapped.target_s, facts["seed"], 1, facts["replica"], written
    )
    chip.clock_ns, chip.age_ns = facts["clock_ns"], facts["age_ns"]
    matrix = AnalogMatrix(mapped, chip)
    matrix.reads, of_columns = facts["reads"]
    if of_columns:
        matrix.T.reads = of_columns
    return matrix


def _adc_range(
    probe: np.ndarray, w: np.ndarray, scale: np.ndarray, part_rows: int, spec: ChipSpec
) -> np.ndarray:
    """Return the outputs at the ADCs' end (n_parts, n_out) for full-scale inputs of 1.

    In bit-serial mode those of one plane, in which a driven row counts 1/limit. probe (n, n_in)
    at full scale 1; scale (n_out,) weight of one siemens.
    """
    limit = converter_limit(spec.dac.bits)
    adc_limit = float(converter_limit(spec.adc.bits))
    planes = bit_planes(spec.dac, limit)
    if planes > 1:
        codes = np.rint(probe * float(limit)).astype(int)
        driven = [np.sign(codes) * (np.abs(codes) >> k & 1) for k in range(planes)]
        probe = np.concatenate(driven) / float(limit)
    rows = range(0, len(w), part_rows)
    if not isinstance(spec.adc.range, str):
        device = spec.device
        codes_driven = float(drive_limit(spec.dac, limit)) or 1.0  # at full drive; ideal: one
        unit = scale * (device.g_max_s - device.g_min_s) * codes_driven
        fixed = spec.adc.range * unit / (float(limit) or 1.0)
        return np.broadcast_to(fixed, (len(rows), w.shape[1])).copy()
    ranges = []
    for row in rows:
        y = np.abs(probe[:, row : row + part_rows] @ w[row : row + part_rows])
        largest = y.max(axis=0)
        shared = spec.adc.range_per == "matrix"
        if shared:
            largest = np.full_like(largest, largest.max())
        if spec.adc.range != "largest":
            counts = histograms(y, largest)
            if shared:
                counts = counts.sum(axis=0, keepdims=True)
            largest = np.broadcast_to(
                range_of(counts, largest[: len(counts)], spec.adc, adc_limit), largest.shape
            )
        ranges.append(largest)
    adc_range = np.stack(ranges) * spec.adc.headroom
    return np.where(adc_range > 0, adc_range, 1.0)


def _probe(
    w: np.ndarray, n_in: int, calibrate: ArrayLike | None, spec: ChipSpec,
    drive: np.ndarray | float = 1.0,
) -> tuple[np.ndarray, float | None]:
    """Return calibration inputs at full scale 1, (n, n_in), and that full scale.

    drive : what inputs are multiplied by before their DACs.
    """
    if calibrate is None:
        generator = np.random.Generator(np.random.Philox(int(Purpose.PROBE)))
        probe = (2 * generator.random((256, n_in)) - 1) * drive
        return probe / np.abs(probe).max(axis=1, keepdims=True), None
    given = _inputs(calibrate, w, "calibrate with").astype(float) * drive
    largest = float(np.abs(given).max(initial=0.0))
    if largest == 0.0:
        raise InputError("calibrate a matrix", "all inputs are zero", "give inputs of typical size")
    if spec.dac.range == "percentile":
        within = float(np.percentile(np.abs(given), spec.dac.percentile))
        largest = within if within > 0 else largest
    return np.clip(given / largest, -1, 1), largest


def _inputs(x: ArrayLike, w: np.ndarray, verb: str) -> np.ndarray:
    """Return x (batch, n_in) as real rows for the tiles; three-part errors for bad ones."""
    x = np.asarray(x)
    x = x[None] if x.ndim == 1 else x
    if x.ndim != 2 or x.shape[1] != w.shape[0]:
        raise InputError(
            f"{verb} inputs of shape {x.shape}", f"the matrix has {w.shape[0]} rows",
            f"give an array (batch, {w.shape[0]})",
        )
    if np.iscomplexobj(x) and not np.iscomplexobj(w):
        raise InputError(
            f"{verb} complex inputs", "the matrix is real", "pass real and imaginary part apart"
        )
    if x.dtype.kind not in "fiubc" or not np.isfinite(x).all():
        raise _not_finite(verb)
    return np.concatenate([x.real, x.imag], axis=1) if np.iscomplexobj(w) else x


def _not_finite(verb: str) -> InputError:
    return InputError(f"{verb} inputs", "some are NaN or infinite", "give finite numbers")


class AnalogMatrix:
    """A programmed matrix: `a.mvm(x)`, `x @ a`, `x @ a.T`, `a.wait(seconds)`, `a.save(path)`.

    Read noise: white noise is new for every vector, addressed by the running read index
    `reads`; slow noise stays as it is until `wait` moves the clock. With noise_in_time
    "spectrum" successive vectors are steps of step_period_s and noise moves between them; the
    read index is the step, and a gap in it costs as much as the steps left out.
    """

    __array_ufunc__ = None  # numpy leaves x @ a to us

    def __init__(self, mapped: MappedMatrix, chip: Chip) -> None:
        self.mapped, self.chip = mapped, chip
        self.reads = 0
        self._turned: AnalogMatrix | None = None
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
        self._saturated = self._conversions = 0
        self._shape = mapped.adc_range.shape
        self._work_size = mvm.work_size(mapped.real.shape[0], self._shape[1])
        self._plan: tuple[int, Any, Any, Any] | None = None
        self._moving: Moving | None = None  # changes with the reads, one thread at a time
        self._next_step, self._moves = 1, RLock()
        self._n_in, self._complex = mapped.real.shape[0], bool(np.iscomplexobj(mapped.w))

    def __repr__(self) -> str:
        return f"{self.mapped}; {self.chip}"

    @property
    def array(self) -> CellArray:
        """Where the cells lie."""
        return self.mapped.layout.arrays[0]

    @property
    def T(self) -> AnalogMatrix:  # noqa: N802 - numpy's name
        """The transpose on the same cells, x @ a.T: columns driven, currents read on rows.

        It ages with this matrix and counts its own reads.
        """
        if self._turned is None:
            self._turned = self.transpose()
        return self._turned

    def transpose(self, calibrate: ArrayLike | None = None) -> AnalogMatrix:
        """Return the transpose on the same cells, with converter ranges of its own.

        calibrate : inputs (n, n_out) that set them, None: as `map_matrix` does without.
        UsageError where noise moves with the reads.
        """
        turned = AnalogMatrix(self.mapped.transpose(calibrate), self.chip)
        turned._turned = self
        return turned

    def save(self, path: str | Path) -> None:
        """Write the programmed matrix to `path`, whole or not at all; see `load_matrix`."""
        matrix = self if self.mapped.forward is None else self.T
        reads = [matrix.reads, 0 if matrix._turned is None else matrix._turned.reads]
        mapped, chip = matrix.mapped, self.chip
        save_matrix(
            path,
            {
                "chip": mapped.spec.to_toml(), "seed": chip.seed, "replica": chip.first_replica,
                "clock_ns": chip.clock_ns, "age_ns": chip.age_ns, "reads": reads,
                "full_scale": mapped.full_scale,
            },
            {"w": mapped.w, "adc_range": mapped.adc_range, "programmed_s": chip.programmed_s,
             **{name: getattr(chip.written, name) for name in WRITTEN}},
        )

    def wait(self, seconds: float | str, temperature_k: float | None = None) -> AnalogMatrix:
        """Let time pass, seconds or text such as "1h" (see `Chip.wait`); return the matrix."""
        self.chip.wait(seconds, temperature_k)
        return self

    def weights(self) -> tuple[np.ndarray, np.ndarray, bool]:
        """Return what the cells stand for now: w and its white variance per read, and whether
        there is any noise; both (n_in, n_out) float32 of the real matrix."""
        _, w, v, _, noisy, _ = self._current_plan()[0]
        return w, v, noisy

    @property
    def saturation(self) -> float:
        """Share of the ADC conversions so far that clipped; 0 where there were none."""
        return self._saturated / max(self._conversions, 1)

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

    @property
    def calibration_reads(self) -> int:
        """Reads that the compensation takes at every moment at which the matrix is used."""
        return calibration_reads(self.mapped.spec, 1, len(self.mapped.adc_range))

    def _read_weights(self) -> tuple[np.ndarray, np.ndarray, bool, np.ndarray | None]:
        """Return corrected weights, their variances, whether there is noise, and the offset.

        Sets `_moving` where noise moves with the reads.
        """
        gain, offset = self._correction()
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

    def _correction(self) -> tuple[np.ndarray, np.ndarray | None]:
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

    def mvm(self, x: ArrayLike, first_read: int | None = None) -> np.ndarray:
        """Return x @ w as the chip computes it, (batch, n_out) float32 (complex64 if w is).

        first_read : read index of the first vector; None goes on from `reads`.
        """
        rows: np.ndarray
        if (
            isinstance(x, np.ndarray) and x.dtype == np.float32 and x.ndim == 2
            and x.shape[1] == self._n_in and x.flags.c_contiguous and not self._complex
        ):
            rows = x  # one vector takes microseconds: what the kernel can check is left to it
        else:
            rows = np.ascontiguousarray(_inputs(x, self.mapped.w, "multiply"), np.float32)
        if self.mapped.drive is not None:
            rows = self._from_columns(rows)
        if first_read is None:
            first_read = self.reads
            self.reads += len(rows)
        out = self._multiply(rows, first_read)
        offset = self._current_plan()[2]
        if offset is not None:
            scale = np.float32(self.mapped.full_scale or 0.0) or np.abs(rows).max(axis=1)
            out -= np.where(scale > 0, scale, np.float32(1))[..., None] * offset
        if not self._complex:
            return out
        half = out.shape[1] // 2
        imaginary = out[:, half:] if self.mapped.forward is None else -out[:, half:]
        return np.asarray(out[:, :half] + 1j * imaginary)

    def _from_columns(self, rows: np.ndarray) -> np.ndarray:
        """Return inputs (batch, n_in) float32 as they drive columns.

        The cells of a complex matrix, seen from the columns, hold its conjugate transpose:
        x @ w.T is the conjugate of conj(x) @ w^H, so imaginary parts change their sign here and
        after the product.
        """
        rows = rows * self.mapped.drive
        if self._complex:
            rows[:, rows.shape[1] // 2 :] *= np.float32(-1)
        return rows

    def __rmatmul__(self, x: ArrayLike) -> np.ndarray:
        return self.mvm(x)

    def _multiply(self, x: np.ndarray, first_read: int) -> np.ndarray:
        before, after, _ = self._current_plan()
        n_parts, n_out = self._shape
        kernels: Any = mvm  # numba's, whose signatures star-arguments hide from a type checker
        if len(x) < _BLAS_FROM or self._moving is not None:
            out = np.empty((len(x), n_out), np.float32)
            # a fresh buffer: threads may share a matrix, and the kernel lets other threads run
            work = np.empty(self._work_size, np.float32)
            if self._moving is not None:
                clipped = self._multiply_steps(x, first_read, work, out)
            else:
                clipped = kernels.mvm_vectors(x, *before, first_read, *after, work, out)
            if clipped < 0:
                raise _not_finite("multiply")
            self._count(clipped, len(x))
            return out
        clipped = 0
        full_scale, w, v, part_rows, noisy, keys = before
        _, *adc, periphery = after
        if not np.isfinite(x.sum()) and not np.isfinite(x).all():
            raise _not_finite("multiply")
        out = np.zeros((len(x), n_out), np.float32)
        scaled = np.empty((self._planes, *x.shape), np.float32)
        squares = np.empty(scaled.shape if noisy else (0, 0, 0), np.float32)
        x_scale = np.empty(len(x), np.float32)
        kernels.drive_batch(
            x, full_scale, first_read, self._dac_limit, periphery, scaled, squares, x_scale
        )
        for part in range(n_parts):
            rows = slice(part * part_rows, (part + 1) * part_rows)
            y = (scaled.reshape(-1, self._n_in)[:, rows] @ w[rows]).reshape(*scaled.shape[:2], -1)
            s = y
            if noisy:
                s = squares.reshape(-1, self._n_in)[:, rows] @ v[rows]
                s = s.reshape(y.shape)
            clipped += kernels.finish_batch(
                y, s, noisy, keys[part, 0], keys[part, 1], first_read, *adc, periphery,
                np.uint64(part * n_out), x_scale, out,
            )
        self._count(clipped, len(x))
        return out

    def _count(self, clipped: int, n_vectors: int) -> None:
        """Add the conversions of some vectors, and those that clipped."""
        with self._moves:
            self._saturated += clipped
            self._conversions += n_vectors * self._planes * self._shape[0] * self._shape[1]

    def _multiply_steps(self, x: np.ndarray, first_read: int, *buffers: np.ndarray) -> int:
        """Multiply with noise that moves: reads are its steps, those before the first are made up.

        A read before the last one starts again at step 0, with the same numbers.
        """
        kernels: Any = mvm
        with self._moves:
            before, after, _ = self._current_plan()
            if first_read < self._next_step - 1:
                self._plan = None
                before, after, _ = self._current_plan()
            clipped = kernels.mvm_steps(
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
            with self._moves:  # a second thread may be here: the noise must not start twice
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
        keys = mvm.read_streams(
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
