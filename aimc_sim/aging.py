"""How cells age: the card's published laws at a time, and which times it can speak of."""

from __future__ import annotations

import math
import warnings

import numpy as np

from aimc_sim.cards import AgingSpec, DeviceSpec, RelaxationSpec
from aimc_sim.curves import Curve, flatten
from aimc_sim.errors import UsageError
from aimc_sim.kernels.curves import curve_values
from aimc_sim.units import format_time

BOLTZMANN_EV = 8.617333262e-5  # eV/K, exact in SI since 2019


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
    ages = device.drift is not None or device.relaxation is not None
    then = "the formula is extrapolated" if ages else "its cells are taken not to age"
    warnings.warn(f"{asked}: {found}; {then}", stacklevel=3)


def acceleration(device: DeviceSpec, temperature_k: float | None) -> float:
    """Return how much faster cells age at a temperature than at that of the card's data.

    exp(Ea/k (1/T_ref - 1/T)), Arrhenius; 1 where the temperature is None.
    """
    part: AgingSpec | None = device.drift or device.relaxation
    if temperature_k is None or part is None or part.activation_energy_ev is None:
        return 1.0
    inverse = 1 / part.reference_temperature_k - 1 / temperature_k
    return math.exp(part.activation_energy_ev / BOLTZMANN_EV * inverse)


def relaxation_sigma(device: DeviceSpec, target_s: np.ndarray, seconds: float) -> np.ndarray:
    """Return the spread [S] that relaxation has reached at a time, float32, shape of target_s."""
    relax = device.relaxation
    if relax is None or not _has_begun(relax, seconds):
        return np.zeros(target_s.shape, np.float32)
    if not relax.times_s:
        spread = relax.std_per_ln_t_s * math.log(seconds) + relax.std_offset_s
        return np.full(target_s.shape, spread, np.float32)
    sigma = _interpolate(device, relax, relax.sigma, target_s, seconds)
    return np.maximum(sigma, np.float32(0.0))


def relaxation_mean(device: DeviceSpec, target_s: np.ndarray, seconds: float) -> np.ndarray:
    """Return the shift [S] that relaxation has reached at a time, float32, shape of target_s."""
    relax = device.relaxation
    if relax is None or not _has_begun(relax, seconds):
        return np.zeros(target_s.shape, np.float32)
    if not relax.times_s:
        shift = relax.mean_per_ln_t_s * math.log(seconds)
        return np.full(target_s.shape, shift, np.float32)
    if not relax.mean:
        return np.zeros(target_s.shape, np.float32)
    return _interpolate(device, relax, relax.mean, target_s, seconds)


def _has_begun(relax: RelaxationSpec, seconds: float) -> bool:
    if relax.kind == "total":
        return True
    return seconds >= (relax.times_s[0] if relax.times_s else relax.start_s)


def _interpolate(
    device: DeviceSpec, relax: RelaxationSpec, curves: tuple[Curve, ...], target_s: np.ndarray,
    seconds: float,
) -> np.ndarray:
    """Return the curves' value at a time between those of the table, in ln t or in t."""
    times = np.asarray(relax.times_s)
    if relax.interpolate == "log":
        times, seconds = np.log(times), math.log(max(seconds, relax.times_s[0]))
    position = float(np.interp(seconds, times, np.arange(len(times))))
    low = min(int(position), len(times) - 1)
    scale = device.g_max_s / (relax.g_reference_s or device.g_max_s)
    neighbours = curves[low : low + 2] if position > low else curves[low : low + 1]
    values = curve_values(flatten(neighbours, device.g_max_s, scale), target_s.ravel())
    value = values[0]
    if position > low:
        value += np.float32(position - low) * (values[1] - value)
    return value.reshape(target_s.shape)
