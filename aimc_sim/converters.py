"""Converters of a chip: codes, tables of non-linearity, drawn errors, and ranges from signals."""

from __future__ import annotations

from typing import Any

import numpy as np

from aimc_sim.kernels.cells import cell_draws, cell_normals, stream_key
from aimc_sim.kernels.converters import Periphery
from aimc_sim.randomness import Purpose
from aimc_sim.specs import AdcSpec, ChipSpec, DacSpec

BINS = 256  # of a histogram of magnitudes: ranges by percentile are whole bins

_PER_ADC = 32  # addresses: gain, offset, then a weight a bit
_PER_DAC = 2
_OTHER_SIDE = 1 << 30  # added to the tile of converters where a matrix is driven from its columns
_FEW_CODES = 7  # up to here a rounding error is no uniform noise of step^2 / 12


def converter_limit(bits: int | str) -> np.float32:
    """Return the largest code of a symmetric converter, 2^(bits - 1) - 1; 0 where it is ideal.

    One bit has the codes -1, 0, 1.
    """
    return np.float32(0.0) if bits == "ideal" else np.float32(max(2 ** (int(bits) - 1) - 1, 1))


def bit_planes(dac: DacSpec, limit: float | np.float32) -> int:
    """Return the drives of one product: bits of the magnitude of a code, or one.

    limit : largest code in use, at most that of the DAC.
    """
    return int(limit).bit_length() if dac.mode == "bit_serial" else 1


def drive_limit(dac: DacSpec, limit: float | np.float32) -> np.float32:
    """Return the largest code that a row is driven with at once: 1 where bits go one by one."""
    return np.float32(1) if dac.mode == "bit_serial" else np.float32(limit)


def inl_table(spec: DacSpec | AdcSpec, limit: float | np.float32) -> np.ndarray:
    """Return the integral non-linearity at every code -limit .. limit, in steps; (0,): none.

    From `inl_lsb` by linear interpolation, or the running sum of `dnl_lsb`, less its line of
    least squares: gain and offset are fields of their own.
    """
    given = np.asarray(spec.inl_lsb, float)
    if spec.dnl_lsb:
        given = np.concatenate([[0.0], np.cumsum(spec.dnl_lsb)])
        at = np.linspace(-1, 1, given.size)
        given = given - np.polyval(np.polyfit(at, given, 1), at)
    if given.size == 0 or not given.any() or limit == 0:
        return np.zeros(0, np.float32)
    codes = np.linspace(-1, 1, 2 * int(limit) + 1)
    return np.interp(codes, np.linspace(-1, 1, given.size), given).astype(np.float32)


def has_dac_errors(spec: ChipSpec) -> bool:
    """Return whether DACs differ from ideal quantisers."""
    dac = spec.dac
    sizes = (dac.gain_sigma, dac.offset_lsb, dac.noise_lsb)
    return dac.bits != "ideal" and (any(sizes) or inl_table(dac, 1).size > 0)


def has_adc_errors(spec: ChipSpec) -> bool:
    """Return whether ADCs differ from ideal quantisers, thermal noise apart."""
    adc = spec.adc
    sizes = (adc.gain_sigma, adc.offset_lsb, adc.unit_mismatch)
    return adc.bits != "ideal" and (any(sizes) or inl_table(adc, 1).size > 0)


def draw_periphery(
    spec: ChipSpec,
    seed_words: tuple[np.uint64, np.uint64],
    replica: int,
    n_rows: int,
    tile: np.ndarray,
    col: np.ndarray,
    places: np.ndarray,
    dac_limit: np.float32,
    adc_limit: np.float32,
    turned: bool = False,
) -> Periphery:
    """Return the converters of one replica as the kernels see them.

    Gain 1 + gain_sigma xi and offset offset_lsb xi of every DAC and ADC; of a successive
    approximation of b bits the weights W_k = 2^k + unit_mismatch 2^(k/2) xi_k (2^k units in
    parallel), scaled to the sum 2^b - 1. Pure functions of seed, replica and the number of row,
    or tile and ADC; ADC a of a tile has its bit lines a columns_per_adc and on.

    tile, col : (n_outputs,) of the first bit line of every output. places : (n_products,) of the
    noise of drives. turned : DACs stand at the columns and ADCs at the rows, and are others.
    """
    side = turned * _OTHER_SIDE
    dac_on, adc_on = has_dac_errors(spec), has_adc_errors(spec)
    f = np.float32
    changes: dict[str, Any] = {}
    if dac_on:
        element = np.arange(n_rows * _PER_DAC)
        z = _normals(np.full_like(element, side), element, seed_words, Purpose.DAC, replica)
        z = z.reshape(-1, _PER_DAC)
        keys = [stream_key(*seed_words, int(Purpose.DAC_NOISE), replica, p) for p in places]
        changes |= {
            "dac_gain": (1 + spec.dac.gain_sigma * z[:, 0]).astype(f),
            "dac_offset": (spec.dac.offset_lsb * z[:, 1]).astype(f),
            "dac_table": inl_table(spec.dac, dac_limit),
            "dac_noise": f(spec.dac.noise_lsb),
            "dac_keys": np.array(keys, np.uint64).reshape(-1, 2),
        }
    if adc_on:
        numbers = np.stack([tile + side, col // spec.adc.columns_per_adc], axis=1).astype(np.int64)
        adcs, adc_of = np.unique(numbers, axis=0, return_inverse=True)
        element = adcs[:, 1:] * _PER_ADC + np.arange(_PER_ADC)
        on_tile = np.broadcast_to(adcs[:, :1], element.shape)
        z = _normals(on_tile.ravel(), element.ravel(), seed_words, Purpose.ADC, replica)
        z, adc_of = z.reshape(-1, _PER_ADC), adc_of.ravel()
        weights = np.zeros((0, 0), f)
        if spec.adc.unit_mismatch > 0:
            # offset binary needs a bit for the sign, also of the codes -1, 0, 1
            n_bits = int(adc_limit).bit_length() + 1
            exact = 2.0 ** np.arange(n_bits)[::-1]
            drawn = exact + spec.adc.unit_mismatch * np.sqrt(exact) * z[:, 2 : 2 + n_bits]
            drawn *= exact.sum() / drawn.sum(axis=1, keepdims=True)
            weights = drawn.astype(f)
        changes |= {
            "adc_gain": (1 + spec.adc.gain_sigma * z[adc_of, 0]).astype(f),
            "adc_offset": (spec.adc.offset_lsb * z[adc_of, 1]).astype(f),
            "adc_table": inl_table(spec.adc, adc_limit),
            "adc_of": adc_of.astype(np.int64),
            "adc_weights": weights,
        }
    step = np.array([1 / (dac_limit or f(1))], f)
    return no_periphery(bit_planes(spec.dac, dac_limit))._replace(
        dac_on=dac_on, adc_on=adc_on, dac_step=step, **changes
    )


def no_periphery(n_planes: int = 1) -> Periphery:
    """Return converters without errors, for products of n_planes drives."""
    f, none = np.float32, np.zeros(0, np.float32)
    return Periphery(
        n_planes, False, False, np.ones(1, f), none, none, none, f(0), np.zeros((0, 2), np.uint64),
        none, none, none, np.zeros(0, np.int64), np.zeros((0, 0), f),
    )


def _normals(
    tile: np.ndarray, element: np.ndarray, seed_words: tuple[np.uint64, np.uint64],
    purpose: Purpose, replica: int,
) -> np.ndarray:
    """Return the normals at (tile, element), float64."""
    draws = cell_draws(tile, element)
    normals: np.ndarray = cell_normals(draws, seed_words, purpose, replica)
    return normals[draws.index].astype(float)


def histograms(values: np.ndarray, largest: np.ndarray) -> np.ndarray:
    """Return counts (n, BINS) of |values| (samples, n) in equal bins of 0 .. largest (n,)."""
    n = values.shape[1]
    inverse = np.where(largest > 0, BINS / np.where(largest > 0, largest, 1), 0)
    found = np.minimum((np.abs(values) * inverse).astype(np.int64), BINS - 1)
    return np.bincount((found + np.arange(n) * BINS).ravel(), minlength=n * BINS).reshape(n, BINS)


def range_of(
    counts: np.ndarray, largest: np.ndarray, spec: DacSpec | AdcSpec, limit: float
) -> np.ndarray:
    """Return the range (n,) that the spec asks for, before headroom, from histograms of |values|.

    counts (n, BINS) in equal bins of 0 .. largest (n,). "percentile": the end of the bin up to
    which that share of the values lies. "least_error": of the ends of bins the one with the least
    mean-square error of values v that round to steps r / limit and clip at r,

        sum over v <= r of (r / limit)^2 / 12 + sum over v > r of (v - r)^2;

    below 4 bits the error of rounding is that of the centres of bins. An ideal converter has none.
    """
    edges = np.arange(1, BINS + 1) / BINS
    if spec.range == "percentile":
        share = np.cumsum(counts, axis=1) / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        below = share < spec.percentile / 100 - 1e-12
        return np.asarray(largest * edges[np.minimum(below.sum(axis=1), BINS - 1)])
    if spec.range != "least_error" or limit == 0:
        return largest
    v = edges - 0.5 / BINS
    r = edges[:, None]
    if limit < _FEW_CODES:
        inside = (np.minimum(np.rint(v * limit / r), limit) * r / limit - v) ** 2
    else:
        inside = np.broadcast_to((r / limit) ** 2 / 12, (BINS, BINS))
    error = np.where(v > r, (v - r) ** 2, inside)
    return np.asarray(largest * edges[(counts @ error.T).argmin(axis=1)])
