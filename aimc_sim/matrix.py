"""One matrix on tiles: `map_matrix(w, spec).program(seed).mvm(x)`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from aimc_sim.chip import Chip
from aimc_sim.compensation import calibration_reads
from aimc_sim.errors import InputError
from aimc_sim.faults import NAMES
from aimc_sim.mapping import (
    CellArray,
    Layout,
    Request,
    pieces_of,
    place,
    target_conductances,
    weight_scale,
)
from aimc_sim.multiplier import Multiplier
from aimc_sim.predistortion import reach
from aimc_sim.ranges import adc_range_of, checked_inputs, probe_of
from aimc_sim.specs import ChipSpec, check_chip
from aimc_sim.storage import COUNTS, WRITTEN, read_matrix, save_matrix
from aimc_sim.writing import Written

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import ArrayLike

    from aimc_sim.kernels.converters import Periphery


@dataclass(frozen=True, eq=False)
class MappedMatrix:
    """A matrix laid out on tiles, not yet programmed; `print` shows tiles and utilisation.

    spec, layout : the chip, and where on it every cell lies. scale : (n_out,) weight that one
    siemens stands for. adc_range : (n_parts, n_out), output at the end of the ADC, of every row
    part. w : (n_in, n_out) as given. real : the real matrix on the tiles, of twice the size where w
    is complex. full_scale : input at the DAC's end (None: the largest of every vector).
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
        input before the DAC. calibrate : (n, n_out), as of `map_matrix`.
        """
        if self.forward is not None:
            return self.forward
        scale = np.broadcast_to(self.scale[0, 0] / self.scale.max(), self.real.shape[1:])
        real, w = np.ascontiguousarray((self.real / scale).T), self.w.T
        probe, full_scale = probe_of(w, len(real), calibrate, self.spec, scale)
        turned = replace(
            self, w=w, real=real, full_scale=full_scale, forward=self,
            drive=scale.astype(np.float32),
        )
        unit = np.full(real.shape[1], self.scale.max())
        found = adc_range_of(probe, real, unit, turned.part_rows, self.spec)
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
        """Return the matrix programmed on one sampled chip.

        seed, replica : which; chips of one seed differ in every cell.
        """
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
    probe, full_scale = probe_of(w, real.shape[0], calibrate, spec)
    adc_range = adc_range_of(probe, real, scale[0].max(axis=0), layout.arrays[0].part_rows, spec)
    return MappedMatrix(w, real, spec, layout, scale, full_scale, adc_range)


def load_matrix(path: str | Path) -> AnalogMatrix:
    """Return the programmed matrix of a file written by `AnalogMatrix.save`.

    path : the .npz. Conductances, faults, pulses, clock and counts of reads are as they were: it
    answers bit for bit as it would have.

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
    of_rows, of_columns = zip(*(facts[name] for name in COUNTS), strict=True)
    matrix._go_on(*of_rows)
    if any(of_columns):
        matrix.T._go_on(*of_columns)
    return matrix


class AnalogMatrix:
    """A programmed matrix: `a.mvm(x)`, `x @ a`, `x @ a.T`, `a.wait(seconds)`, `a.save(path)`.

    Read noise: white noise is new for every vector, addressed by the running read index
    `reads`; slow noise stays as it is until `wait` moves the clock. With noise_in_time
    "spectrum" successive vectors are steps of step_period_s and noise moves between them; the
    read index is the step, and a gap in it costs as much as the steps left out.

    mapped, chip : where its cells lie, and the chip that they are on. `MappedMatrix.program`
    makes both.
    """

    __array_ufunc__ = None  # numpy leaves x @ a to us

    def __init__(self, mapped: MappedMatrix, chip: Chip) -> None:
        self.mapped, self.chip = mapped, chip
        self.reads = 0
        self._turned: AnalogMatrix | None = None
        self._multiplier = Multiplier(mapped, chip)
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
        rows = self if self.mapped.forward is None else self.T
        mapped, chip, columns = rows.mapped, self.chip, rows._turned
        both = [rows._counts(), [0, 0, 0] if columns is None else columns._counts()]
        reads, saturated, conversions = (list(counts) for counts in zip(*both, strict=True))
        save_matrix(
            path,
            {
                "chip": mapped.spec.to_toml(), "seed": chip.seed, "replica": chip.first_replica,
                "clock_ns": chip.clock_ns, "age_ns": chip.age_ns, "reads": reads,
                "saturated": saturated, "conversions": conversions,
                "full_scale": mapped.full_scale,
            },
            {"w": mapped.w, "adc_range": mapped.adc_range, "programmed_s": chip.programmed_s,
             **{name: getattr(chip.written, name) for name in WRITTEN}},
        )

    def _counts(self) -> list[int]:
        """Return how many reads there were, and how many conversions clipped, of how many."""
        return [self.reads, self._multiplier.saturated, self._multiplier.conversions]

    def _go_on(self, reads: int, saturated: int, conversions: int) -> None:
        """Count on from what `_counts` returned."""
        self.reads = reads
        self._multiplier.saturated, self._multiplier.conversions = saturated, conversions

    def wait(self, seconds: float | str, temperature_k: float | None = None) -> AnalogMatrix:
        """Let time pass, seconds or text such as "1h" (see `Chip.wait`); return the matrix.

        temperature_k : meanwhile [K]; None: that of the chip.
        """
        self.chip.wait(seconds, temperature_k)
        return self

    def weights(self) -> tuple[np.ndarray, np.ndarray, bool]:
        """Return what the cells stand for now: w, its white variance, whether there is any noise.

        Both (n_in, n_out) float32 of the real matrix; the variance is that of one read.
        """
        return self._multiplier.weights()

    @property
    def saturation(self) -> float:
        """Share of the ADC conversions so far that clipped; 0 where there were none."""
        return self._multiplier.saturated / max(self._multiplier.conversions, 1)

    @property
    def periphery(self) -> Periphery:
        """The errors of the converters of this chip."""
        return self._multiplier.periphery

    @property
    def calibration_reads(self) -> int:
        """Reads that the compensation takes at every moment at which the matrix is used."""
        return calibration_reads(self.mapped.spec, 1, len(self.mapped.adc_range))

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
            rows = np.ascontiguousarray(checked_inputs(x, self.mapped.w, "multiply"), np.float32)
        if self.mapped.drive is not None:
            rows = self._from_columns(rows)
        if first_read is None:
            first_read = self.reads
            self.reads += len(rows)
        out = self._multiplier.multiply(rows, first_read)
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
