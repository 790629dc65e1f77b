"""What is done, digitally, about drift: gains and offsets of columns from calibration reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from aimc_sim.chip import Chip
from aimc_sim.errors import InputError
from aimc_sim.kernels import matrix, mvm
from aimc_sim.kernels.cells import stream_key
from aimc_sim.kernels.converters import Periphery, distort
from aimc_sim.kernels.philox import fill_normals
from aimc_sim.kernels.threads import one_thread
from aimc_sim.mapping import pieces_of
from aimc_sim.predistortion import expected_gains
from aimc_sim.randomness import Purpose, clock_word
from aimc_sim.specs import ChipSpec

GLOBAL_READS = 2  # one right after programming, one now

_CHUNK = 64  # patterns held at once
_INSIDE = 0.875  # of an ADC's range: what a pattern may ask for, so that no read of it clips
_SIGNIFICANT_GAIN = 5.0  # standard errors from zero
_LEAST_GAIN = 1e-6  # below, reads were all alike and the slope is what rounding makes of zero
_SIGNIFICANT_OFFSET = 3.0
_CALIBRATION_PLACE = 1 << 63  # above all tiles, whose cells draw from the same purpose
_DRIVE_PLACE = _CALIBRATION_PLACE | 1 << 62  # above all products of all moments


def global_gain(chip: Chip, cells: Sequence[np.ndarray]) -> np.ndarray:
    """Return the mean gain of sets of cells since programming, (n_replicas, len(cells)).

    The sum of g - g_min (times Geff/g, where lines resist) over the same sum right after
    programming, as two calibration reads find it (Joshi et al., doi
    10.1038/s41467-020-16108-9), float64; cells of a sliced weight count by the significance of
    their digit. Where targets were written for a later time, the gain that is expected at that
    time counts as 1. cells : chip-wide indices.

    Raises InputError where a set has no conductance left.
    """
    before, now = (chip.clipped(g) for g in (chip.aged_at(0.0), chip.aged()))
    before, now = _excess(chip, before, 0), _excess(chip, now, None)
    share = _significance(chip)
    nominal = expected_gains(chip.spec, chip.target_s, share, cells)
    result = np.ones((chip.n_replicas, len(cells)))
    for k, index in enumerate(cells):
        wanted = before[:, index] @ share[index]
        found = now[:, index] @ share[index]
        there = wanted > 0
        result[there, k] = found[there] / (wanted[there] * nominal[k])
    if not np.isfinite(result).all() or (result <= 0).any():
        raise InputError(
            "compensate drift", "a matrix has no conductance left",
            "read earlier, or set compensation = 'none'",
        )
    return result


def _excess(chip: Chip, g_s: np.ndarray, age_ns: int | None) -> np.ndarray:
    """Return g - g_min of the cells (n_replicas, n_cells) as their terminals see it, float64.

    age_ns : of g_s, None: now.
    """
    excess: np.ndarray = g_s.astype(float) - chip.spec.device.g_min_s
    if chip.is_wired:
        for replica, g in enumerate(g_s):
            seen = chip.wired(replica, age_ns).near(g)
            excess[replica] *= np.divide(seen, g, out=np.zeros_like(seen), where=g > 0)
    return excess


def _significance(chip: Chip) -> np.ndarray:
    """Return the share of its weight that each cell carries, (n_cells,)."""
    result = np.ones(chip.n_cells)
    for array in chip.layout.arrays:
        shares = pieces_of(chip.spec, array.request.pair).shares
        own = result[array.first : array.first + array.n_cells]
        array.by_piece(own)[...] = shares[:, None, None, None, None]
    return result


def calibration_reads(spec: ChipSpec, n_sets: int, n_parts: int) -> int:
    """Return how many reads the compensation of one chip at one moment takes.

    n_sets : matrices with a gain of their own, each read twice by "global". n_parts : row parts
    of products; "column" drives each with every pattern (a block list is one part), "affine"
    twice, the second time for the offsets.
    """
    patterns_read = spec.compensation_reads * n_parts
    each = {
        "none": 0, "global": GLOBAL_READS * n_sets, "column": patterns_read,
        "affine": 2 * patterns_read,
    }
    return each[spec.compensation]


@dataclass(frozen=True, eq=False)
class Wiring:
    """Which rows and converted outputs (columns) the weights of a chip lie between.

    row, column : (n_weights,) numbers of row and column, -1 for a weight that takes no part.
    dac_step : (n_rows,) input that one code stands for, or full scale where dac_limit is 0.
    adc_step : (n_columns,) output that one code stands for. dac_limit : largest code, one for all
        rows or (n_rows,); adc_limit : that of ADCs; 0 for an ideal converter. adc_noise : in steps.
    first : (n_products + 1,) first column of every product. n_planes : drives of a product, more
        than one where the bits of an input go one by one.
    """

    row: np.ndarray
    column: np.ndarray
    dac_step: np.ndarray
    adc_step: np.ndarray
    dac_limit: np.float32 | np.ndarray
    adc_limit: np.float32
    adc_noise: np.float32
    first: np.ndarray
    n_planes: int = 1

    @property
    def row_limit(self) -> np.ndarray:
        """Largest code of every row, (n_rows,) float32."""
        return np.broadcast_to(np.asarray(self.dac_limit, np.float32), self.dac_step.shape)

    def matrix(self, values: np.ndarray) -> Any:
        """Return values (n_weights,) as a sparse matrix (n_columns, n_rows)."""
        from scipy.sparse import csr_matrix

        own = (self.row >= 0) & (self.column >= 0)
        shape = (self.adc_step.size, self.dac_step.size)
        return csr_matrix((values[own], (self.column[own], self.row[own])), shape=shape)


@dataclass(frozen=True, eq=False)
class Fit:
    """A linear law of every column: with its gain set it finds wanted + offset.

    All (n_columns,).

    offset : in units of the corrected output, what is left to subtract once the gain is set.
    left_alone : columns with weights whose gain could not be told from zero or from too few
        reads; they keep gain 1 and offset 0.
    """

    gain: np.ndarray
    offset: np.ndarray
    left_alone: np.ndarray


def patterns(wiring: Wiring, begin: int, end: int) -> np.ndarray:
    """Return calibration inputs begin .. end - 1 of all rows, (end - begin, n_rows) float32.

    Uniform over the range of each row's DAC and on its grid, so that the digital side knows
    what is driven; the same for every chip of that layout.
    """
    n_rows = wiring.dac_step.size
    x = np.empty((end - begin, n_rows))
    for k in range(begin, end):
        words = np.random.Philox(key=[int(Purpose.COMPENSATE), k]).random_raw(n_rows)
        x[k - begin] = (words >> np.uint64(11)) * 2.0**-52 - 1.0
    limit = wiring.row_limit.astype(float)
    codes = np.rint(x * (1.0 if wiring.n_planes > 1 else limit))
    x = np.where(limit > 0, codes, x)
    return (x * wiring.dac_step).astype(np.float32)


def fit_columns(
    chip: Chip, wiring: Wiring, wanted: np.ndarray, found: np.ndarray, variance: np.ndarray,
    replica: int, periphery: Periphery | None = None,
) -> Fit:
    """Return what calibration reads of one chip now say of its columns.

    Least squares of found y on wanted y*, y = a y* + b, over the chip's compensation_reads
    patterns; b = 0 unless compensation is "affine". y* are products with the exact weights, all
    that the digital side knows, so that the law holds programming errors along the weights of
    a column as well as drift (Hu et al., doi 10.1002/adma.201705914). Every read has its own
    white noise of cells and ADC and is rounded; patterns that ask for more than 7/8 of an ADC's
    range are left out of its column, chosen by y* so that the choice bends no slope.

    "affine" reads as many further patterns once these gains are set, and the line through them is
    what counts: a gain changes what reaches the ADC, not the offset of the ADC itself, and columns
    that have lost much of their signal are read over the whole range at last.

    A column whose gain is not 5 standard errors above zero (a dead line, all weights lost) is
    left as it is: dividing by such a gain would only make its noise large. An offset within 3
    standard errors of zero is none: what noise feigns, a recurrence would add up at every step.

    wanted, found : (n_weights,) exact weights and those that the cells stand for, slow noise
    included. variance : (n_weights,) of the white noise of one read.
    """
    affine = chip.spec.compensation == "affine"
    n_reads = chip.spec.compensation_reads
    exact, now = wiring.matrix(wanted.astype(float)), wiring.matrix(found)
    white = wiring.matrix(variance)

    def line(first: int, set_gain: np.ndarray) -> tuple[np.ndarray, ...]:
        weights = now.multiply(1 / set_gain[:, None]).tocsr()
        noise = white.multiply(1 / set_gain[:, None] ** 2).tocsr()
        numbers = range(first, first + n_reads)
        sums = _read(chip, wiring, (exact, weights, noise), numbers, replica, periphery)
        return _fit_line(sums, affine)

    slope, error, _, _ = line(0, np.ones(wiring.adc_step.size))
    good = _is_gain(slope, error)
    gain, offset = np.where(good, slope, 1.0), np.zeros(slope.size)
    if affine:
        slope, error, found_offset, spread = line(n_reads, gain)
        gain = np.where(good & _is_gain(slope, error), gain * slope, gain)
        with np.errstate(invalid="ignore"):
            there = good & (np.abs(found_offset) > _SIGNIFICANT_OFFSET * spread)
        offset[there] = found_offset[there]
    signal = abs(exact).sum(axis=1).A1 > 0
    return Fit(gain, offset, signal & ~good)


def _is_gain(slope: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Return where a slope is known well enough to divide by, with its standard error."""
    with np.errstate(invalid="ignore"):
        known = np.isfinite(error) & (slope > _SIGNIFICANT_GAIN * error)
        return np.asarray(known & (slope > _LEAST_GAIN))


def _read(
    chip: Chip, wiring: Wiring, matrices: tuple[Any, Any, Any], numbers: range, replica: int,
    periphery: Periphery | None,
) -> np.ndarray:
    """Return the sums n, u, y, uu, uy, yy over reads y of patterns that ask for u, (6, n_columns).

    matrices : sparse (n_columns, n_rows), exact weights, those of the cells, their variance.
    numbers : of the patterns.
    """
    exact, now, white = matrices
    largest_code = float(wiring.adc_limit) or np.inf
    highest = _INSIDE * largest_code * wiring.adc_step.astype(float)
    sums = np.zeros((6, wiring.adc_step.size))
    for begin in numbers[::_CHUNK]:
        x = patterns(wiring, begin, min(begin + _CHUNK, numbers.stop))
        asked = (exact @ x.T.astype(float)).T
        driven = _drive(chip, wiring, x, begin, replica, periphery)
        y_now, s_now = (now @ driven.T).T, (white @ (driven * driven).T).T
        reads = _convert(chip, wiring, y_now, s_now, begin, replica, periphery)
        inside = np.abs(asked) <= highest
        asked, reads = np.where(inside, asked, 0.0), np.where(inside, reads, 0.0)
        values = (inside, asked, reads, asked * asked, asked * reads, reads * reads)
        sums += [each.sum(axis=0) for each in values]
    return sums


def _fit_line(sums: np.ndarray, affine: bool) -> tuple[np.ndarray, ...]:
    """Return slope, its standard error, intercept and its, from the sums of `_read`.

    All (n_columns,). Not `affine`: the line goes through zero. NaN or inf where points are too few.
    """
    n, u, y, uu, uy, yy = sums
    with np.errstate(divide="ignore", invalid="ignore"):
        if affine:
            uu, uy, yy = uu - u * u / n, uy - u * y / n, yy - y * y / n
        slope = uy / uu
        freedom = n - (2 if affine else 1)
        error = np.sqrt(np.maximum(yy - slope * uy, 0.0) / (freedom * uu))
        error = np.where((freedom > 0) & (uu > 0), error, np.inf)
        return slope, error, (y - slope * u) / n, error * np.sqrt((uu + u * u / n) / n)


def _drive(
    chip: Chip, wiring: Wiring, x: np.ndarray, begin: int, replica: int,
    periphery: Periphery | None,
) -> np.ndarray:
    """Return what the rows really carry for patterns x (n, n_rows), from number `begin` on."""
    if periphery is None or not periphery.dac_on:
        return x
    n_rows, zero = x.shape[1], np.uint64(0)
    driven = x.copy()
    k0, k1 = stream_key(
        *chip.seed_words, int(Purpose.COMPENSATE), chip.first_replica + replica,
        np.uint64(_DRIVE_PLACE) | clock_word(chip.clock_ns),
    )
    z = np.zeros(n_rows + 64, np.float32)
    step, limit = np.ascontiguousarray(wiring.dac_step, np.float32), wiring.row_limit
    ends = [0, *(np.flatnonzero(np.diff(limit)) + 1), n_rows]
    for k, row in enumerate(driven):
        fill_normals(
            z, 0, n_rows, np.uint64(k0), np.uint64(k1), zero, np.uint64(begin + k), zero
        )
        for begin_row, end_row in pairwise(ends):  # rows of one width at a time
            own = np.uint64(begin_row)
            distort(
                np.uint64(end_row - begin_row), step, own, own, limit[begin_row], periphery,
                z[begin_row:], row[begin_row:],
            )
    return driven


def _convert(
    chip: Chip, wiring: Wiring, y: np.ndarray, s: np.ndarray, begin: int, replica: int,
    periphery: Periphery | None,
) -> np.ndarray:
    """Return sums y with variances s, (n, n_columns), after noise and ADC; float64."""
    out = np.zeros(y.shape, np.float32)
    sigma = wiring.adc_step * (wiring.adc_noise if wiring.adc_limit > 0 else np.float32(0))
    inverse = 1 / wiring.adc_step
    one = np.ones(len(y), np.float32)
    products = np.arange(wiring.first.size - 1, dtype=np.uint64)
    places = np.uint64(_CALIBRATION_PLACE) | clock_word(chip.clock_ns) << np.uint64(20) | products
    keys = mvm.read_streams(
        *chip.seed_words, int(Purpose.COMPENSATE), chip.first_replica + replica, places
    )
    kernels: Any = matrix
    with one_thread():  # products are small: waking threads for each costs more than they save
        for product in np.flatnonzero(np.diff(wiring.first)):
            own = slice(wiring.first[product], wiring.first[product + 1])
            sums, variances = (np.ascontiguousarray(a[None, :, own], np.float32) for a in (y, s))
            part = np.zeros(sums.shape[1:], np.float32)
            kernels.finish_batch(
                sums, variances, True, keys[product, 0], keys[product, 1], begin,
                wiring.adc_step, inverse, sigma, wiring.adc_limit, periphery,
                np.uint64(wiring.first[product]), one, part,
            )
            out[:, own] = part
    return out.astype(float)
