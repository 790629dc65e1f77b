"""What a published device is, part by part: how its cells are written, age and are read.

Every number is SI with its unit in the name; a part that a card leaves out does not happen to
its cells. `specs` puts a card on a chip.
"""

from __future__ import annotations

import math
import warnings
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from aimc_sim.curves import Curve, check_curve
from aimc_sim.errors import UsageError
from aimc_sim.fields import (
    Kelvin,
    PositiveSeconds,
    PositiveSiemens,
    Seconds,
    Share,
    Siemens,
    Spec,
    Volts,
)

_LARGEST_S = 0.1  # a bare number in microsiemens lies far above
BOLTZMANN_EV = 8.617333262e-5  # eV/K, exact in SI since 2019
_FASTEST = 1e12  # acceleration: a nanosecond for a quarter of an hour
_ROUNDING = 1e-6  # relative: targets are float32, a card's numbers are not


class ProgrammingSpec(Spec):
    """One-shot programming: programmed = max(0, target + mean(g) + sigma(g) xi).

    The published error of a finished write, whatever loop made it. A cell may hold less than
    floor_s or more than ceiling_s: it is a read that finds neither.
    """

    sigma: Curve
    mean: Curve | None = None
    g_reference_s: PositiveSiemens | None = None  # g_max of the fit; errors scale with g_max


class PulseSpec(Spec):
    """How one programming pulse changes a cell, for closed-loop write-verify.

    dg = a mean(g) + sigma(g) xi with g the conductance before the pulse, of a SET pulse (dg > 0)
    and of a RESET pulse (dg < 0); xi is new at each pulse. a = max(0, 1 + device_spread xi') is
    one factor per cell and polarity, the spread from device to device.
    set_v, reset_v, width_s : of a pulse, v_read_v, t_read_s of a verify read, for its energy.
    """

    set_mean: Curve
    set_sigma: Curve
    reset_mean: Curve
    reset_sigma: Curve
    device_spread: float = Field(default=0.0, ge=0, le=1)
    set_v: Volts | None = None
    reset_v: Volts | None = None
    width_s: PositiveSeconds | None = None
    v_read_v: Volts | None = None
    t_read_s: PositiveSeconds | None = None


class AgingSpec(Spec):
    """What happens to a cell with time; warmth makes it happen faster where that was measured.

    Time at a temperature T counts exp(Ea/k (1/T_ref - 1/T)) fold (Arrhenius). Without an
    activation energy a card knows its own temperature alone, and any other is refused.
    """

    activation_energy_ev: float | None = Field(default=None, gt=0, le=5)
    reference_temperature_k: Kelvin = 300.0

    def acceleration(self, temperature_k: float) -> float:
        """Return how much faster time counts at a temperature; 1 without an activation energy."""
        if self.activation_energy_ev is None:
            return 1.0
        inverse = 1 / self.reference_temperature_k - 1 / temperature_k
        exponent = self.activation_energy_ev / BOLTZMANN_EV * inverse
        return math.exp(exponent) if exponent < 700 else math.inf


class DriftSpec(AgingSpec):
    """Power-law drift g (t/t0)^-nu with t = t0 + time since programming, nu = |mu + s xi|."""

    t0_s: Seconds = Field(gt=0)
    nu_mean: Curve
    nu_std: Curve


class RelaxationSpec(AgingSpec):
    """Loss and spread of a filament after programming, one xi per cell for all times.

    added : g = programmed + mean + sigma xi from the first time on. Either by law,
        mean = mean_per_ln_t_s ln t, sigma = std_per_ln_t_s ln t + std_offset_s for t >= start_s
        [S, t in s]; or by a table of curves of the target at times_s.
    total : g = target + mean + sigma xi replaces the programming error (published as the total
        error at times_s); before the first time as at that time.
    times_s, mean, sigma : the table; mean may be left out (no shift). Between its times both
        are interpolated in ln t or, with interpolate = "linear", in t; after the last they stay.
    """

    kind: Literal["added", "total"]
    start_s: PositiveSeconds = 1.0
    mean_per_ln_t_s: Siemens = 0.0
    std_per_ln_t_s: Siemens = 0.0
    std_offset_s: Siemens = 0.0
    times_s: tuple[Seconds, ...] = ()
    mean: tuple[Curve, ...] = ()
    sigma: tuple[Curve, ...] = ()
    interpolate: Literal["log", "linear"] = "log"
    g_reference_s: PositiveSiemens | None = None

    @model_validator(mode="after")
    def _table_is_a_table(self) -> Self:
        if not self.times_s:
            if self.kind == "total" or self.mean or self.sigma:
                raise ValueError("a table needs rising times_s and one sigma for each")
            return self
        if len(self.times_s) != len(self.sigma) or list(self.times_s) != sorted(set(self.times_s)):
            raise ValueError("a table needs rising times_s and one sigma for each")
        if self.mean and len(self.mean) != len(self.times_s):
            raise ValueError("mean must be left out or hold one curve for each of times_s")
        if self.times_s[0] < 0 or (self.times_s[0] == 0 and self.interpolate == "log"):
            raise ValueError("times_s must be positive to be interpolated in ln t")
        if self.mean_per_ln_t_s or self.std_per_ln_t_s or self.std_offset_s:
            raise ValueError("a table and a law in ln t exclude each other")
        return self


class ReadNoiseSpec(Spec):
    """Read noise of a cell.

    sigma, white : relative (of = "r": times the present g) or absolute (unit_s below 1).
    spectrum : "white": sigma at every read. "one_over_f": the noise gathered up to time t is
        sigma sqrt(ln((t + t_read)/(2 t_read))), t the drift time t0 + time since programming,
        of one-sided power spectral density S(f) = sigma^2/f.
    exponent : a, where the spectrum is S(f) = sigma^2/f (1 Hz/f)^(a - 1).
    white : further noise that is new at every read, beside the 1/f noise.
    """

    sigma: Curve
    relative: bool = True
    spectrum: Literal["white", "one_over_f"] = "one_over_f"
    exponent: float = Field(default=1.0, gt=0.5, lt=1.5)
    white: Curve | None = None
    t_read_s: Seconds = Field(default=250e-9, gt=0)

    @model_validator(mode="after")
    def _white_noise_is_said_once(self) -> Self:
        if self.spectrum == "white" and (self.white is not None or self.exponent != 1):
            raise ValueError("spectrum 'white' has neither an exponent nor a further white part")
        return self


class TelegraphSpec(Spec):
    """Random telegraph noise: some cells jump between two levels a distance apart.

    A share `fraction` of the cells has it. The levels are g - p A and g + (1 - p) A, p the share
    of time in the upper one, so that the mean is g. A = amplitude(g), times g where `relative`,
    times exp(amplitude_spread xi). Dwell times are exponential with means tau_high_s and
    tau_low_s, each times exp(tau_spread xi), one xi per cell and level.
    """

    fraction: Share
    amplitude: Curve
    relative: bool = True
    amplitude_spread: float = Field(default=0.0, ge=0, le=3)
    tau_high_s: PositiveSeconds
    tau_low_s: PositiveSeconds
    tau_spread: float = Field(default=0.0, ge=0, le=10)


class DeviceSpec(Spec):
    """A memristive device as published: ranges, error models, and what is known of them.

    name, description : for reports. doi, cite : its sources, and authors, journal and year of each.
    g_min_s, g_max_s : range that weights are put on [S].
    floor_s, ceiling_s : no read finds less, or more (None: no such limit) [S].
    zero_time : what 0 s means, in words.
    time_range_s, g_range_s : times [s] and targets [S] that the data cover; outside_time_range,
        outside_g_range : whether others "warn" or "refuse".
    caveats, not_modelled : texts that reports repeat. provenance : of calibrated parts, one line
        each: data, hash, range, date, command.
    programming : error that writing leaves. pulses : response to SET and RESET, for write-verify.
    drift, relaxation : what time does; a card has one of them at most.
    read_noise, telegraph : what a read adds; jumps of single cells between two levels.
        None: the source says nothing of it, and nothing happens.
    """

    name: str
    description: str = ""
    doi: tuple[str, ...] = ()
    cite: tuple[str, ...] = ()  # authors, journal, year of each doi
    g_min_s: Siemens = Field(ge=0)
    g_max_s: Siemens = Field(gt=0)
    floor_s: Siemens = Field(default=0.0, ge=0)  # no read finds less
    ceiling_s: Siemens | None = None  # no read finds more (None: no such limit)
    zero_time: str = "0 s is the moment after programming"
    time_range_s: tuple[Seconds, Seconds] = (0.0, float(100 * 365 * 86400))
    outside_time_range: Literal["refuse", "warn"] = "warn"
    g_range_s: tuple[Siemens, Siemens] | None = None  # targets that were measured
    outside_g_range: Literal["refuse", "warn"] = "warn"
    caveats: tuple[str, ...] = ()
    not_modelled: tuple[str, ...] = ()
    provenance: tuple[str, ...] = ()  # of calibrated parts: data, hash, range, date, command
    programming: ProgrammingSpec | None = None
    pulses: PulseSpec | None = None
    drift: DriftSpec | None = None
    relaxation: RelaxationSpec | None = None
    read_noise: ReadNoiseSpec | None = None
    telegraph: TelegraphSpec | None = None

    @model_validator(mode="after")
    def _range_is_a_range(self) -> Self:
        if not self.floor_s <= self.g_min_s < self.g_max_s:
            raise ValueError("conductances must satisfy floor_s <= g_min_s < g_max_s")
        if self.g_max_s > _LARGEST_S:
            raise ValueError(
                f"g_max_s is {self.g_max_s:g} siemens, no memristor's; write text such as '50uS'"
            )
        if self.ceiling_s is not None and self.ceiling_s < self.g_max_s:
            raise ValueError("ceiling_s must not lie below g_max_s")
        with np.errstate(over="ignore"):
            if not np.float32(self.g_min_s) < np.float32(self.g_max_s) < np.inf:
                raise ValueError("g_min_s and g_max_s must differ and be finite in float32")
        if not 0 <= self.time_range_s[0] <= self.time_range_s[1]:
            raise ValueError("time_range_s must be two times, 0 <= first <= last")
        if self.g_range_s is not None and not 0 <= self.g_range_s[0] < self.g_range_s[1]:
            raise ValueError("g_range_s must be two conductances, 0 <= first < last")
        return self

    @model_validator(mode="after")
    def _errors_are_counted_once(self) -> Self:
        relaxation = self.relaxation
        if relaxation is None:
            return self
        if self.drift is not None:
            raise ValueError("a card has drift or relaxation, one history of a cell, not both")
        if relaxation.kind == "total" and self.programming is not None:
            raise ValueError(
                "relaxation of kind 'total' holds the programming error; leave programming out"
            )
        return self

    @model_validator(mode="after")
    def _curves_hold_over_the_range(self) -> Self:
        span = (self.g_min_s, self.g_max_s)
        if (part := self.programming) is not None:
            scale = self.g_max_s / (part.g_reference_s or self.g_max_s)
            check_curve("programming.sigma", part.sigma, span, scale=scale, most=self.g_max_s)
            check_curve(
                "programming.mean", part.mean, span, scale=scale, sign=0, most=self.g_max_s
            )
        if (pulses := self.pulses) is not None:
            for name in ("set_mean", "set_sigma", "reset_sigma"):
                curve = getattr(pulses, name)
                check_curve(f"pulses.{name}", curve, span, most=self.g_max_s)
            check_curve(
                "pulses.reset_mean", pulses.reset_mean, span, sign=-1, most=self.g_max_s
            )
        if self.drift is not None:
            check_curve("drift.nu_mean", self.drift.nu_mean, span, sign=0)
            check_curve("drift.nu_std", self.drift.nu_std, span)
        if (relax := self.relaxation) is not None:
            scale = self.g_max_s / (relax.g_reference_s or self.g_max_s)
            for k, curve in enumerate(relax.sigma):
                check_curve(f"relaxation.sigma.{k}", curve, span, scale=scale, most=self.g_max_s)
            for k, curve in enumerate(relax.mean):
                check_curve(
                    f"relaxation.mean.{k}", curve, span, scale=scale, sign=0, most=self.g_max_s
                )
            for t in (relax.start_s, max(relax.start_s, self.time_range_s[1])):
                if relax.std_per_ln_t_s * math.log(t) + relax.std_offset_s < 0:
                    raise ValueError(f"the standard deviation of relaxation is negative at {t} s")
        if (noise := self.read_noise) is not None:
            most = math.inf if noise.relative else self.g_max_s
            check_curve("read_noise.sigma", noise.sigma, span, most=most)
            check_curve("read_noise.white", noise.white, span, most=most)
        if (jumps := self.telegraph) is not None:
            most = math.inf if jumps.relative else self.g_max_s
            check_curve("telegraph.amplitude", jumps.amplitude, span, most=most)
        return self


def check_temperature(device: DeviceSpec, temperature_k: float) -> None:
    """Refuse a temperature at which nothing is known of the device. Raises ValueError."""
    if not (math.isfinite(temperature_k) and temperature_k > 0):
        raise ValueError(f"{temperature_k:g} K is no temperature")
    parts = [part for part in (device.drift, device.relaxation) if part is not None]
    for part in parts:
        known = part.activation_energy_ev is not None
        if not known and temperature_k != part.reference_temperature_k:
            raise ValueError(
                f"'{device.name}' has no data at {temperature_k:g} K: its card gives "
                f"{part.reference_temperature_k:g} K and no activation energy"
            )
        if part.acceleration(temperature_k) > _FASTEST:
            raise ValueError(
                f"'{device.name}' would age more than {_FASTEST:g} times as fast at "
                f"{temperature_k:g} K as at {part.reference_temperature_k:g} K"
            )
    if not parts and temperature_k != AgingSpec().reference_temperature_k:
        raise ValueError(f"'{device.name}' has no data at {temperature_k:g} K")


def check_targets(device: DeviceSpec, target_s: np.ndarray) -> None:
    """Refuse, or warn of, conductances [S] outside those that the card's data cover.

    target_s : any shape. Raises UsageError where the card refuses; nothing happens where it
    does not say what was measured (g_range_s).
    """
    if device.g_range_s is None or not np.size(target_s):
        return
    low, high = device.g_range_s
    least, most = float(np.min(target_s)), float(np.max(target_s))
    if low * (1 - _ROUNDING) <= least and most <= high * (1 + _ROUNDING):
        return
    worst = least if least < low * (1 - _ROUNDING) else most
    asked = f"program '{device.name}' to {1e6 * worst:.6g} uS"
    found = f"its data cover {1e6 * low:.6g} to {1e6 * high:.6g} uS"
    if device.outside_g_range == "refuse":
        raise UsageError(asked, found, "keep g_min_s and g_max_s in it, or take another card")
    warnings.warn(f"{asked}: {found}; the formula is extrapolated", stacklevel=3)
