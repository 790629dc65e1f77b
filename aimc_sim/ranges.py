"""Inputs of a single matrix, checked, and the ranges of its converters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from aimc_sim.converters import bit_planes, converter_limit, drive_limit, histograms, range_of
from aimc_sim.errors import InputError
from aimc_sim.randomness import Purpose

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from aimc_sim.specs import ChipSpec


def adc_range_of(
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


def probe_of(
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
    given = checked_inputs(calibrate, w, "calibrate with").astype(float) * drive
    largest = float(np.abs(given).max(initial=0.0))
    if largest == 0.0:
        raise InputError("calibrate a matrix", "all inputs are zero", "give inputs of typical size")
    if spec.dac.range == "percentile":
        within = float(np.percentile(np.abs(given), spec.dac.percentile))
        largest = within if within > 0 else largest
    return np.clip(given / largest, -1, 1), largest


def checked_inputs(x: ArrayLike, w: np.ndarray, verb: str) -> np.ndarray:
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
        raise not_finite(verb)
    return np.concatenate([x.real, x.imag], axis=1) if np.iscomplexobj(w) else x


def not_finite(verb: str) -> InputError:
    """Return the error of inputs that are NaN or infinite."""
    return InputError(f"{verb} inputs", "some are NaN or infinite", "give finite numbers")
