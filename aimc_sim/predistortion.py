"""Targets from which cells reach what the weights ask for at a declared time, and not at once."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from aimc_sim.aging import acceleration, relaxation_mean, relaxation_sigma
from aimc_sim.cards import DeviceSpec
from aimc_sim.curves import Curve
from aimc_sim.noise import noise_split
from aimc_sim.specs import ChipSpec

_N_TARGETS = 1025  # of the table that is inverted: a thousandth of the range apart
_N_NODES = 64  # of the integral over exponents of drift


def expected_read(spec: ChipSpec, target_s: np.ndarray, seconds: float) -> np.ndarray:
    """Return the mean of a read of cells [S], float64, `seconds` after one-shot programming.

    Mean and variance of the history that `Chip` draws: programmed N(g_T + m(g_T), sigma(g_T)^2),
    not below 0; drift by (1 + t/t0)^-|nu|, nu normal, by Gauss-Hermite quadrature; relaxation
    and read noise added; clipped to the ends of a read as a normal of that mean and variance.
    Cells of write-verify are taken to lie evenly in its tolerance. Faults are left out.

    target_s : any shape [S].
    """
    device, g = spec.device, np.asarray(target_s, float)
    age_s = seconds * acceleration(device, spec.temperature_k)
    mean, variance = _programmed(spec, g)
    if device.drift is not None and age_s > 0:
        nodes, weights = np.polynomial.hermite_e.hermegauss(_N_NODES)
        log_ratio = math.log1p(age_s / device.drift.t0_s)
        center, spread = (
            _curve(curve, device, g) for curve in (device.drift.nu_mean, device.drift.nu_std)
        )
        exponent = np.abs(center[..., None] + spread[..., None] * nodes) * log_ratio
        weights = weights / weights.sum()
        factor, square = (np.exp(-k * exponent) @ weights for k in (1, 2))
        mean, variance = mean * factor, (mean**2 + variance) * square - (mean * factor) ** 2
    flat = g.astype(np.float32)
    mean = mean + relaxation_mean(device, flat, age_s)
    variance = variance + relaxation_sigma(device, flat, age_s).astype(float) ** 2
    if device.read_noise is not None:
        size = np.maximum(mean, 0.0) if device.read_noise.relative else 1.0
        split = noise_split(spec, seconds)
        noise = _curve(device.read_noise.sigma, device, g) * math.hypot(split.lasting, split.fast)
        variance = variance + (noise * size) ** 2
    ceiling = np.inf if device.ceiling_s is None else device.ceiling_s
    return _clipped(mean, variance, device.floor_s, ceiling)[0]


def predistort(
    spec: ChipSpec, wanted_s: np.ndarray, *, pair: bool
) -> tuple[np.ndarray, float]:
    """Return targets [S] for cells that are to hold wanted_s when it counts, and their reach.

    mean read of the target - base = reach (wanted - g_min), at the time `spec.targets_for_s`. The
    base is what an idle cell reads, which a pair takes off, and g_min for a single cell. reach < 1
    is the share of the range that is left of a cell written to g_max. A cell that is wanted at
    g_min is written to g_min. Without a declared time both are as wanted, reach 1.

    wanted_s : any shape, within g_min .. g_max.
    """
    if spec.targets_for_s is None:
        return wanted_s, 1.0
    device = spec.device
    span = device.g_max_s - device.g_min_s
    target = np.linspace(device.g_min_s, device.g_max_s, _N_TARGETS)
    found = expected_read(spec, target, spec.targets_for_s)
    base = float(found[0]) if pair else device.g_min_s
    share = np.maximum.accumulate((found - base) / span)
    reach = float(share[-1])
    rising = np.concatenate([[True], np.diff(share) > 0])
    inverse = np.interp((wanted_s - device.g_min_s) / span * reach, share[rising], target[rising])
    return np.where(wanted_s > device.g_min_s, inverse, device.g_min_s), reach


def reach(spec: ChipSpec) -> float:
    """Return the share of the range that a pair's weight has at the time targets are for."""
    return predistort(spec, np.zeros(0), pair=True)[1]


def expected_gains(
    spec: ChipSpec, target_s: np.ndarray, share: np.ndarray, cells: Sequence[np.ndarray]
) -> np.ndarray:
    """Return the mean gain of sets of cells that is expected when targets count, (len(cells),).

    The sum of g - g_min then over that of the targets; ones without a declared time. target_s,
    share : (n_cells,) targets [S] and the share of its weight that each cell carries.
    """
    if spec.targets_for_s is None:
        return np.ones(len(cells))
    g_min = spec.device.g_min_s
    before, then = (expected_read(spec, target_s, t) - g_min for t in (0.0, spec.targets_for_s))
    return np.array([then[own] @ share[own] / (before[own] @ share[own]) for own in cells])


def _programmed(spec: ChipSpec, g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and variance of cells right after writing to targets g [S]."""
    device = spec.device
    if spec.write is not None:
        return g, np.full(g.shape, spec.write.tolerance_s**2 / 3.0)
    part = device.programming
    if part is None:
        return g, np.zeros(g.shape)
    scale = device.g_max_s / (part.g_reference_s or device.g_max_s)
    shift = 0.0 if part.mean is None else part.mean.evaluate(g, device.g_max_s) * scale
    sigma = part.sigma.evaluate(g, device.g_max_s) * scale
    return _clipped(g + shift, sigma**2, 0.0, np.inf)


def _curve(curve: Curve, device: DeviceSpec, g: np.ndarray) -> np.ndarray:
    return np.asarray(curve.evaluate(g, device.g_max_s), float)


def _clipped(
    mean: np.ndarray, variance: np.ndarray, low: float, high: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and variance of normals clipped to low .. high (`kernels.noise`)."""
    from scipy.special import ndtr

    sigma = np.sqrt(np.maximum(variance, 1e-40))
    alpha, beta = (np.clip((end - mean) / sigma, -40.0, 40.0) for end in (low, high))
    phi_a, phi_b = (np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi) for x in (alpha, beta))
    below, above = ndtr(alpha), ndtr(-beta)
    first = alpha * below + beta * above + phi_a - phi_b
    second = (
        alpha**2 * below + beta**2 * above + 1 - below - above + alpha * phi_a - beta * phi_b
    )
    outside = np.clip(mean, low, high)
    far = (alpha >= 40.0) | (beta <= -40.0)
    return (
        np.where(far, outside, mean + sigma * first),
        np.where(far, 0.0, variance * np.maximum(second - first**2, 0.0)),
    )
