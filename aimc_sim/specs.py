"""What a chip is made of, as frozen, validated values: TOML in, TOML out.

Every number is SI with its unit in the name; text such as ``25uS`` or ``1h`` is accepted at
this edge and nowhere else. A spec never changes; `replace` makes a new one.
"""

from __future__ import annotations

import math
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from aimc_sim.curves import Curve, check_curve
from aimc_sim.errors import InputError, UsageError, nearest
from aimc_sim.fields import (
    Bits,
    PositiveSeconds,
    PositiveSiemens,
    Seconds,
    Siemens,
    Spec,
    validated,
)

CHIP_SCHEMA: Literal["aimc-sim.chip/1"] = "aimc-sim.chip/1"

_LARGEST_S = 0.1  # a bare number in microsiemens lies far above


class ProgrammingSpec(Spec):
    """One-shot programming: programmed = max(0, target + mean(g) + sigma(g) xi).

    A cell may hold less than floor_s or more than ceiling_s: it is a read that finds neither.
    """

    sigma: Curve
    mean: Curve | None = None
    g_reference_s: PositiveSiemens | None = None  # g_max of the fit; errors scale with g_max


class DriftSpec(Spec):
    """Power-law drift g (t/t0)^-nu with t = t0 + time since programming, nu = |mu + s xi|."""

    t0_s: Seconds = Field(gt=0)
    nu_mean: Curve
    nu_std: Curve


class RelaxationSpec(Spec):
    """Loss and spread of a filament after programming, one xi per cell for all times.

    added : g = programmed + mean + std xi for t >= start_s, with
        mean = mean_per_ln_t_s ln t, std = std_per_ln_t_s ln t + std_offset_s   [S, t in s].
    total : g = target + sigma(t) xi replaces the programming error (published as the total
        error at times_s); between these times sigma is interpolated in ln t.
    """

    kind: Literal["added", "total"]
    start_s: PositiveSeconds = 1.0
    mean_per_ln_t_s: Siemens = 0.0
    std_per_ln_t_s: Siemens = 0.0
    std_offset_s: Siemens = 0.0
    times_s: tuple[Seconds, ...] = ()
    sigma: tuple[Curve, ...] = ()
    g_reference_s: PositiveSiemens | None = None

    @model_validator(mode="after")
    def _total_needs_a_table(self) -> Self:
        if self.kind == "total" and (
            not self.times_s
            or len(self.times_s) != len(self.sigma)
            or list(self.times_s) != sorted(set(self.times_s))
            or self.times_s[0] <= 0
        ):
            raise ValueError("kind 'total' needs rising positive times_s and one sigma for each")
        return self


class ReadNoiseSpec(Spec):
    """Read noise of a cell.

    sigma : relative (of = "r": times the present g) or absolute (its unit_s below 1).
    spectrum : "white": sigma at every read. "one_over_f": the noise gathered up to time t is
        sigma sqrt(ln((t + t_read)/(2 t_read))), t the drift time t0 + time since programming.
    """

    sigma: Curve
    relative: bool = True
    spectrum: Literal["white", "one_over_f"] = "one_over_f"
    t_read_s: Seconds = Field(default=250e-9, gt=0)


class DeviceSpec(Spec):
    """A memristive device as published: ranges, error models, and what is known of them."""

    name: str
    description: str = ""
    doi: tuple[str, ...] = ()
    g_min_s: Siemens = Field(ge=0)
    g_max_s: Siemens = Field(gt=0)
    floor_s: Siemens = Field(default=0.0, ge=0)  # no read finds less
    ceiling_s: Siemens | None = None  # no read finds more (None: no such limit)
    zero_time: str = "0 s is the moment after programming"
    time_range_s: tuple[Seconds, Seconds] = (0.0, float(100 * 365 * 86400))
    outside_time_range: Literal["refuse", "warn"] = "warn"
    caveats: tuple[str, ...] = ()
    not_modelled: tuple[str, ...] = ()
    programming: ProgrammingSpec | None = None
    drift: DriftSpec | None = None
    relaxation: RelaxationSpec | None = None
    read_noise: ReadNoiseSpec | None = None

    @model_validator(mode="after")
    def _range_is_a_range(self) -> Self:
        if not self.floor_s <= self.g_min_s < self.g_max_s:
            raise ValueError("conductances must satisfy floor_s <= g_min_s < g_max_s")
        if self.g_max_s > _LARGEST_S:
            raise ValueError(
                f"g_max_s is {self.g_max_s:g} siemens, no memristor's: write text such as '50uS'"
            )
        if self.ceiling_s is not None and self.ceiling_s < self.g_max_s:
            raise ValueError("ceiling_s must not lie below g_max_s")
        with np.errstate(over="ignore"):
            if not np.float32(self.g_min_s) < np.float32(self.g_max_s) < np.inf:
                raise ValueError("g_min_s and g_max_s must differ and be finite in float32")
        if not 0 <= self.time_range_s[0] <= self.time_range_s[1]:
            raise ValueError("time_range_s must be two times, 0 <= first <= last")
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
                "relaxation of kind 'total' holds the programming error: leave programming out"
            )
        return self

    @model_validator(mode="after")
    def _curves_hold_over_the_range(self) -> Self:
        span = (self.g_min_s, self.g_max_s)
        if (part := self.programming) is not None:
            scale = self.g_max_s / (part.g_reference_s or self.g_max_s)
            check_curve("programming.sigma", part.sigma, span, scale=scale, most=self.g_max_s)
            check_curve("programming.mean", part.mean, span, scale=scale, signed=True)
        if self.drift is not None:
            check_curve("drift.nu_mean", self.drift.nu_mean, span, signed=True)
            check_curve("drift.nu_std", self.drift.nu_std, span)
        if (relax := self.relaxation) is not None:
            scale = self.g_max_s / (relax.g_reference_s or self.g_max_s)
            for k, curve in enumerate(relax.sigma):
                check_curve(f"relaxation.sigma.{k}", curve, span, scale=scale, most=self.g_max_s)
            for t in (relax.start_s, max(relax.start_s, self.time_range_s[1])):
                if relax.std_per_ln_t_s * math.log(t) + relax.std_offset_s < 0:
                    raise ValueError(f"the standard deviation of relaxation is negative at {t} s")
        if self.read_noise is not None:
            check_curve("read_noise.sigma", self.read_noise.sigma, span)
        return self


class DacSpec(Spec):
    """Input converter, symmetric about zero.

    Its range is `headroom` times the largest |input| on the calibration data: one range for a
    matrix, one a state (rounded up to a power of two, a shift in logic) for A and C.
    """

    bits: Bits = 8
    headroom: float = Field(default=1.0, gt=0, le=64)


class AdcSpec(Spec):
    """Output converter, symmetric about zero.

    Its range is `headroom` times the largest |output| of its column on the calibration data.
    noise_lsb : standard deviation of thermal noise in units of one step (LSB).
    """

    bits: Bits = 8
    headroom: float = Field(default=1.0, gt=0, le=64)
    noise_lsb: float = Field(default=0.0, ge=0, le=64)


class TileSpec(Spec):
    """One kind of tile: rows (word lines, inputs) x cols (bit lines, outputs) of cells.

    idle : what a cell that carries no weight is: "absent" (not made), "off" (made but
        unformed) or "g_min" (programmed to g_min, with its noise). Neither absent nor off
        cells carry current, so both simulate alike; what differs is which cells are made.
    drive : how blocks of a block list share a tile: "serial" (packed densely, one block's
        rows driven at a time) or "parallel" (block-diagonal, all driven together, so that a
        column also sums the idle cells of the other blocks' rows).
    """

    rows: int = Field(default=256, ge=1, le=65536)
    cols: int = Field(default=256, ge=1, le=65536)
    idle: Literal["absent", "off", "g_min"] = "off"
    drive: Literal["serial", "parallel"] = "serial"


class ChipSpec(Spec):
    """A chip: its device, tile kinds, converters, clock, and how weights are put on it.

    tile : the kind for matrices. short_tile : the kind for the few-row products of A.
    weight_scale : one scale per column, or one per block, turns weights into conductances.
    step_period_s : duration of one time step of the recurrence, for noise and drift.
    noise_in_time : how 1/f read noise enters a run: "split" (octaves slower than a step drawn
        once per sequence, faster ones white), "white" or "frozen" (all of it, as a bound).
    state_bits : width of the digital registers that hold the states between steps; a model
        quantised to fewer bits of state uses those.
    compensation : "global" divides each matrix' output by the mean gain that a calibration
        read of its cells finds at that time; "none" leaves drift uncorrected.
    max_tiles : tiles there are of all kinds together; a model that needs more is refused.
    """

    schema_version: Literal["aimc-sim.chip/1"] = CHIP_SCHEMA
    name: str
    device: DeviceSpec
    tile: TileSpec = TileSpec()
    short_tile: TileSpec = TileSpec(rows=2)
    dac: DacSpec = DacSpec()
    adc: AdcSpec = AdcSpec()
    weight_scale: Literal["column", "block"] = "column"
    step_period_s: Seconds = Field(default=1e-6, gt=0)
    noise_in_time: Literal["split", "white", "frozen"] = "split"
    state_bits: Bits = 16
    compensation: Literal["none", "global"] = "none"
    max_tiles: int | None = Field(default=None, ge=1)

    @field_validator("schema_version", mode="before")
    @classmethod
    def _known_version(cls, version: Any) -> Any:
        if version != CHIP_SCHEMA:
            raise ValueError(f"this version reads {CHIP_SCHEMA}; update aimc-sim or the file")
        return version

    @classmethod
    def preset(cls, name: str) -> ChipSpec:
        """Return a published chip by name; UsageError suggests the nearest where unknown.

        Examples
        --------
        >>> ChipSpec.preset("reram-wan2022").device.g_max_s
        4e-05
        """
        if name not in presets():
            guess = nearest(name, presets())
            hint = f"did you mean '{guess}'? " if guess else ""
            raise UsageError(
                f"use preset '{name}'", "no preset has that name",
                f"{hint}choose one of {', '.join(presets())}, or give a .toml file",
            )
        text = resources.files("aimc_sim").joinpath("presets", f"{name}.toml").read_text("utf-8")
        return cls.from_text(text, origin=f"preset {name}")

    @classmethod
    def from_toml(cls, path: str | Path) -> ChipSpec:
        """Return the chip of a TOML file; a file with [device] alone gets default periphery."""
        asked = f"read chip file {path}"
        try:
            text = Path(path).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(asked, f"it cannot be read ({error})", "check the path") from None
        return cls.from_text(text, origin=str(path))

    @classmethod
    def from_text(cls, text: str, *, origin: str) -> ChipSpec:
        """Return the chip that a TOML text describes; `origin` names it in errors."""
        asked = f"read chip {origin}"
        try:
            data = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise InputError(asked, f"it is not TOML ({error})", "mend that line") from None
        if isinstance(data.get("device"), dict):
            data.setdefault("name", data["device"].get("name", "unnamed"))
        return validated(cls, data, asked)

    def to_toml(self, path: str | Path | None = None) -> str:
        """Return the chip as TOML text, and write it to `path` where one is given."""
        import tomli_w

        text = tomli_w.dumps(self.model_dump(exclude_none=True, mode="json"))
        if path is not None:
            try:
                Path(path).write_text(text, "utf-8")
            except OSError as error:
                raise UsageError(
                    f"write the chip to {path}", f"the system refuses ({error})",
                    "choose a place that can be written",
                ) from None
        return text


def presets() -> list[str]:
    """Return the names of the published chips that come with the package."""
    folder = resources.files("aimc_sim").joinpath("presets")
    names = (file.name for file in folder.iterdir())
    return sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml"))


def load_chip(name_or_file: str | Path) -> ChipSpec:
    """Return a chip by preset name, or from a file where the text is a path.

    A path ends in .toml, has a slash or backslash, or is that of a file.
    """
    text = str(name_or_file)
    if text.endswith(".toml") or "/" in text or "\\" in text or Path(text).is_file():
        return ChipSpec.from_toml(text)
    return ChipSpec.preset(text)
