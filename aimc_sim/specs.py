"""What a chip is made of, as frozen, validated values: TOML in, TOML out.

Every number is SI with its unit in the name; text such as ``25uS`` or ``1h`` is accepted at
this edge and nowhere else. A spec never changes; `replace` makes a new one.
"""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from aimc_sim.cards import DeviceSpec, check_temperature
from aimc_sim.errors import InputError, UsageError, nearest
from aimc_sim.fields import Bits, Kelvin, PositiveSiemens, Seconds, Share, Spec, validated

_MOST_STEPS = 2**48  # of a weight; whole numbers up to 2^53 are exact in float64

CHIP_SCHEMA: Literal["aimc-sim.chip/1"] = "aimc-sim.chip/1"


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
    noise_lsb: float = Field(default=0.0, ge=0, le=1 << 21)  # 64 steps of 1 bit in those of 16


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


class WriteSpec(Spec):
    """Closed-loop write-verify: pulse, read, compare, until within tolerance or out of pulses.

    Needs a card with pulses. tolerance_s : half width of the band around the target that a
    verify read must find. max_pulses : after which the cell is left as it is and counted as
    failed. verify_reads : reads averaged for a verification. start : conductance of a cell
    before its first pulse.
    """

    tolerance_s: PositiveSiemens
    max_pulses: int = Field(default=100, ge=1, le=65535)
    verify_reads: int = Field(default=1, ge=1, le=1024)
    start: Literal["g_min", "g_max"] = "g_min"


class FaultSpec(Spec):
    """Cells and lines that do not work, drawn once per chip, or as a map says.

    stuck_low, stuck_high : shares of cells that stay at g_min or g_max whatever is written.
    dead_rows, dead_cols : shares of lines without a connection, whose cells carry no current.
    map : path of an .npz with `tile` and `short_tile`, int8 (tiles, rows, cols) for every kind
        of tile in use: 0 works, 1 stuck low, 2 stuck high, 3 no connection. It is in force
        beside the rates.
    """

    stuck_low: Share = 0.0
    stuck_high: Share = 0.0
    dead_rows: Share = 0.0
    dead_cols: Share = 0.0
    map: str | None = None

    @model_validator(mode="after")
    def _a_cell_sticks_once(self) -> Self:
        if self.stuck_low + self.stuck_high > 1:
            raise ValueError(
                "stuck_low and stuck_high are shares of the same cells; give at most 1 together"
            )
        return self


class ChipSpec(Spec):
    """A chip: its device, tile kinds, converters, clock, and how weights are put on it.

    tile : the kind for matrices. short_tile : the kind for the few-row products of A.
    weight_scale : one scale per column, or one per block, turns weights into conductances.
    layout : "packed" (blocks of A on short tiles, columns of C and matrices on tiles, packed) or
        "head" (A and C of one head in one array on tiles of its own).
    levels : conductances that a cell can be given, evenly over its range; None: any.
    cells_per_weight : cells in parallel that share a weight's current (for each sign).
    parallel : how: "equal" targets, or "fill": one cell after the other to the end of its range,
        for cells whose error is largest in the middle of it.
    single_cells : of a weight that is never negative, for each of cells_per_weight: 1, or 2, as
        many as a pair has, their currents added.
    slices : digits of a weight, each on cells of its own, the currents weighted by powers of
        `levels` and summed before the ADC.
    write : closed-loop write-verify; None: one-shot programming by the card's published error.
    step_period_s : duration of one time step of the recurrence, for noise and drift.
    noise_in_time : how read noise that lasts enters a run: "split" (what is slower than a step
        drawn once per sequence, what is faster white), "spectrum" (a process in time with the
        card's spectrum, see spectrum_from_steps), "white" or "frozen" (all of it, as bounds).
    spectrum_from_steps : in "spectrum", noise with shorter correlation (in steps) is white.
    state_bits : width of the digital registers that hold the states between steps; a model
        quantised to fewer bits of state uses those.
    compensation : "global" divides each matrix' output by the mean gain that a calibration
        read of its cells finds at that time; "column" fits a gain, "affine" a gain and an
        offset to every column from compensation_reads patterns; "none" leaves drift as it is.
    targets_for_s : cells are written to targets from which their mean has become what the
        weights ask for at this time since programming; None: written to that at once.
    temperature_k : at which the chip is kept; None: the temperature of the card's data.
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
    layout: Literal["packed", "head"] = "packed"
    levels: int | None = Field(default=None, ge=2, le=65536)
    cells_per_weight: int = Field(default=1, ge=1, le=16)
    parallel: Literal["equal", "fill"] = "equal"
    single_cells: Literal[1, 2] = 1
    slices: int = Field(default=1, ge=1, le=8)
    write: WriteSpec | None = None
    faults: FaultSpec | None = None
    step_period_s: Seconds = Field(default=1e-6, gt=0)
    noise_in_time: Literal["split", "spectrum", "white", "frozen"] = "split"
    spectrum_from_steps: int = Field(default=16, ge=1, le=4096)
    state_bits: Bits = 16
    compensation: Literal["none", "global", "column", "affine"] = "none"
    compensation_reads: int = Field(default=100, ge=2, le=100_000)
    targets_for_s: Seconds | None = Field(default=None, ge=0)
    temperature_k: Kelvin | None = None
    max_tiles: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _slices_have_digits(self) -> Self:
        if self.slices > 1 and self.levels is None:
            raise ValueError("slices are digits of a weight; say how many levels a cell has")
        if self.levels is not None and self.levels**self.slices > _MOST_STEPS:
            raise ValueError(
                "levels to the power of slices is more than 2^48 steps of a weight; give fewer"
            )
        return self

    @model_validator(mode="after")
    def _pulses_are_known(self) -> Self:
        if self.write is not None and self.device.pulses is None:
            raise ValueError(
                f"write-verify needs the pulse response of '{self.device.name}' "
                "([device.pulses]); leave [write] out for one-shot programming"
            )
        relaxation = self.device.relaxation
        if self.write is not None and relaxation is not None and relaxation.kind == "total":
            raise ValueError(
                f"relaxation of '{self.device.name}' is of kind 'total' and holds the error of "
                "its own writing, which would count twice; leave [write] out"
            )
        return self

    @model_validator(mode="after")
    def _warmth_was_measured(self) -> Self:
        if self.temperature_k is not None:
            try:
                check_temperature(self.device, self.temperature_k)
            except ValueError as error:
                raise ValueError(
                    f"{error}; leave temperature_k out or take a card with one"
                ) from None
        return self

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


def check_chip(spec: ChipSpec, asked: str) -> None:
    """Refuse what is no ChipSpec, such as the name of a preset."""
    if type(spec) is not ChipSpec:
        raise UsageError(
            asked, f"the chip is given as {type(spec).__name__}, not as a ChipSpec",
            "give ChipSpec.preset(name) or load_chip(name_or_file)",
        )


def load_chip(name_or_file: str | Path) -> ChipSpec:
    """Return a chip by preset name, or from a file where the text is a path.

    A path ends in .toml, has a slash or backslash, or is that of a file.
    """
    text = str(name_or_file)
    if text.endswith(".toml") or "/" in text or "\\" in text or Path(text).is_file():
        return ChipSpec.from_toml(text)
    return ChipSpec.preset(text)
