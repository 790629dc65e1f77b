"""What a chip is made of, as frozen, validated values: TOML in, TOML out.

Every number is SI with its unit in the name; text such as ``25uS`` or ``1h`` is accepted at
this edge and nowhere else. A spec never changes; `replace` makes a new one.
"""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from aimc_sim.cards import DeviceSpec, check_temperature
from aimc_sim.cost_spec import CostSpec, check_prices
from aimc_sim.errors import InputError, UsageError, nearest
from aimc_sim.fields import (
    Bits,
    Kelvin,
    Nanometres,
    Ohms,
    PositiveSiemens,
    Seconds,
    Share,
    Spec,
    validated,
)

_MOST_STEPS = 2**48  # of a weight; whole numbers up to 2^53 are exact in float64

Lsb = Annotated[float, Field(ge=0, le=1 << 21)]  # 64 steps of 1 bit in those of 16
Percentile = Annotated[float, Field(gt=0, le=100)]
PositiveNumber = Annotated[float, Field(gt=0, le=1e6)]
Steps = tuple[Annotated[float, Field(ge=-(1 << 21), le=1 << 21)], ...]
# node [nm]: width [nm], aspect ratio and resistivity [ohm m] of the wires of an array, those of
# DNN+NeuroSim (Peng et al. 2021, doi:10.1109/TCAD.2020.3043731)
_NODES: dict[int, tuple[float, float, float]] = {
    130: (175.0, 1.6, 2.01e-8), 65: (105.0, 1.7, 2.21e-8), 45: (80.0, 1.7, 2.37e-8),
    32: (56.0, 1.8, 2.63e-8), 22: (40.0, 1.9, 2.97e-8), 14: (32.0, 2.0, 3.25e-8),
    7: (20.0, 2.0, 4.17e-8),
}

CHIP_SCHEMA: Literal["aimc-sim.chip/1"] = "aimc-sim.chip/1"


class DacSpec(Spec):
    """Input converter, symmetric about zero.

    Its range is `headroom` times the largest |input| on the calibration data: one range for a
    matrix, one a state (rounded up to a power of two, a shift in logic) for A and C.

    mode : how a code becomes a drive: "amplitude" (a voltage), "pulse_width" (a time at constant
        voltage; the same charge, another duration) or "bit_serial" (sign and magnitude: for every
        bit of the magnitude one drive with full voltage, zero or its negative, and one conversion
        of every column; shift and add in logic).
    range : "largest", or the `percentile` of |input| that it covers (larger ones clip).
    gain_sigma : relative standard deviation of the gains of DACs. offset_lsb : that of their
        offsets in steps; in bit-serial mode a step is the full voltage.
    inl_lsb : integral non-linearity of all DACs at evenly spaced codes from the lowest to the
        highest, in steps; between them linear. dnl_lsb : the same as steps between codes.
    noise_lsb : standard deviation of the noise of a drive, common to all columns of its row.
    Steps are those of `bits`, also where a model uses fewer. An ideal DAC has no errors. One row
    has one DAC, whatever tiles it drives.
    """

    bits: Bits = 8
    headroom: float = Field(default=1.0, gt=0, le=64)
    mode: Literal["amplitude", "pulse_width", "bit_serial"] = "amplitude"
    range: Literal["largest", "percentile"] = "largest"
    percentile: Percentile = 99.9
    gain_sigma: Share = 0.0
    offset_lsb: Lsb = 0.0
    inl_lsb: Steps = ()
    dnl_lsb: Steps = ()
    noise_lsb: Lsb = 0.0

    @model_validator(mode="after")
    def _steps_are_known(self) -> Self:
        if self.mode == "bit_serial" and self.bits == "ideal":
            raise ValueError("bit-serial inputs are the bits of a code; say how many bits")
        if self.mode == "bit_serial" and (self.inl_lsb or self.dnl_lsb):
            raise ValueError(
                "a bit-serial driver has three levels, no table of non-linearity; leave inl_lsb "
                "and dnl_lsb out"
            )
        _check_table(self.bits, self.inl_lsb, self.dnl_lsb)
        return self


class AdcSpec(Spec):
    """Output converter, symmetric about zero.

    bits : of its codes, or "ideal". headroom : its range is that many times the largest |output|
    of its column on the calibration data.
    noise_lsb : standard deviation of thermal noise in units of one step (LSB).

    range : "largest"; "percentile", the `percentile` of |output|; "least_error", the range with
        the least mean-square error of the calibration outputs; or a number: that many currents
        of a cell at g_max less one at g_min, driven at full scale.
    range_per : "column", or one range for a "matrix". Columns of A always have their own.
    gain_sigma : relative standard deviation of the gains of ADCs; offset_lsb : that of their
        offsets in steps.
    unit_mismatch : relative standard deviation of the unit element of a successive-approximation
        ADC; its binary weights are sums of such units.
    inl_lsb, dnl_lsb : non-linearity of all ADCs, as of a DAC.
    columns_per_adc : neighbouring bit lines that share an ADC and with it all its errors.
    An ideal ADC has no errors and no noise.
    """

    bits: Bits = 8
    headroom: float = Field(default=1.0, gt=0, le=64)
    noise_lsb: Lsb = 0.0
    range: Literal["largest", "percentile", "least_error"] | PositiveNumber = "largest"
    percentile: Percentile = 99.9
    range_per: Literal["column", "matrix"] = "column"
    gain_sigma: Share = 0.0
    offset_lsb: Lsb = 0.0
    unit_mismatch: Share = 0.0
    inl_lsb: Steps = ()
    dnl_lsb: Steps = ()
    columns_per_adc: int = Field(default=1, ge=1, le=65536)

    @model_validator(mode="after")
    def _table_fits(self) -> Self:
        _check_table(self.bits, self.inl_lsb, self.dnl_lsb)
        return self


def _check_table(bits: Any, inl_lsb: tuple[float, ...], dnl_lsb: tuple[float, ...]) -> None:
    """Refuse two tables at once, one without a slope, or steps that are not those of the codes."""
    if inl_lsb and dnl_lsb:
        raise ValueError("inl_lsb and dnl_lsb say the same; give one of them")
    if len(inl_lsb) == 1:
        raise ValueError("inl_lsb has one value; give it at the lowest and the highest code")
    steps = () if bits == "ideal" else (max(2**bits - 2, 2), 2**bits - 1)
    if dnl_lsb and steps and len(dnl_lsb) not in steps:
        raise ValueError(
            f"dnl_lsb has {len(dnl_lsb)} values, {bits} bit have {steps[0]} steps between codes "
            f"({steps[1]} with the lowest code of a converter that is not symmetric); "
            "give one for each"
        )


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


class WireSpec(Spec):
    """Resistance of the lines of every tile: word lines drive the rows, bit lines are read.

    r_wl_ohm, r_bl_ohm : of one segment, from cell to cell, and at the driven and grounded ends.
    node_nm : instead, a technology node whose wires have rho L/(AR W^2) a segment, over a pitch L
        of pitch_nm (None: twice the width W).
    r_driver_ohm, r_sense_ohm : of every row's driver and every column's ground.
    drive : "left", or "both" ends of every word line.
    pairs : bit lines of the cells of a weight lie side by side ("interleaved"), or those of all
        plus cells of a block and then those of all minus cells ("separate").
    retol : while the conductances of a chip have changed by no more than this share since
        programming, its lines are not solved again but followed to first order.

    All bit lines are grounded at all times, and rows that are not driven are at 0 V.
    """

    r_wl_ohm: Ohms | None = None
    r_bl_ohm: Ohms | None = None
    node_nm: Literal[130, 65, 45, 32, 22, 14, 7] | None = None
    pitch_nm: Nanometres | None = Field(default=None, gt=0, le=1e5)
    r_driver_ohm: Ohms = 0.0
    r_sense_ohm: Ohms = 0.0
    drive: Literal["left", "both"] = "left"
    pairs: Literal["interleaved", "separate"] = "interleaved"
    retol: float = Field(default=0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _segments_are_known(self) -> Self:
        given = [ohm is not None for ohm in (self.r_wl_ohm, self.r_bl_ohm)]
        if self.node_nm is None and not all(given):
            raise ValueError(
                "a segment has no resistance; give both r_wl_ohm and r_bl_ohm (0: ideal lines), or "
                "a node_nm"
            )
        if self.node_nm is not None and any(given):
            raise ValueError("node_nm stands for r_wl_ohm and r_bl_ohm; give either")
        if self.node_nm is None and self.pitch_nm is not None:
            raise ValueError("pitch_nm belongs to a node_nm; give that too, or leave it out")
        return self

    @property
    def segments_ohm(self) -> tuple[float, float]:
        """Resistances of a segment of a word line and of a bit line [ohm]."""
        if self.node_nm is None:
            return float(self.r_wl_ohm or 0.0), float(self.r_bl_ohm or 0.0)
        width, aspect, resistivity = _NODES[self.node_nm]
        pitch = self.pitch_nm or 2 * width
        ohm = resistivity * pitch / (aspect * width**2) * 1e9
        return ohm, ohm

    @property
    def resists(self) -> bool:
        """Whether any part of the lines has a resistance."""
        return any((*self.segments_ohm, self.r_driver_ohm, self.r_sense_ohm))


class ChipSpec(Spec):
    """A chip: its device, tile kinds, converters, clock, and how weights are put on it.

    name : for reports. device : the card of its cells. dac, adc : its converters. faults : cells
    and lines that do not work; None: all do.
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
    wires : resistance of word and bit lines; None: ideal lines.
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
    costs : what energy, latency and area are computed with.
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
    wires: WireSpec | None = None
    step_period_s: Seconds = Field(default=1e-6, gt=0)
    noise_in_time: Literal["split", "spectrum", "white", "frozen"] = "split"
    spectrum_from_steps: int = Field(default=16, ge=1, le=4096)
    state_bits: Bits = 16
    compensation: Literal["none", "global", "column", "affine"] = "none"
    compensation_reads: int = Field(default=100, ge=2, le=100_000)
    targets_for_s: Seconds | None = Field(default=None, ge=0)
    temperature_k: Kelvin | None = None
    max_tiles: int | None = Field(default=None, ge=1)
    costs: CostSpec = CostSpec()

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
    def _wires_have_cells(self) -> Self:
        kinds = {"tile": self.tile, "short_tile": self.short_tile}
        for name, tile in kinds.items():
            if self.wires is not None and tile.drive == "parallel" and tile.idle != "g_min":
                raise ValueError(
                    f"{name}.drive = 'parallel' with [wires] also leads current through rows of "
                    f"other blocks, which is simulated with {name}.idle = 'g_min' alone; set that, "
                    "or drive = 'serial'"
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
    def _prices_are_near_published_ones(self) -> Self:
        check_prices(
            self.costs, self.adc.bits, self.adc.columns_per_adc, self.dac.bits, self.dac.mode,
            None if self.wires is None else self.wires.pitch_nm,
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
        return cls.from_text(_preset_text(name), origin=f"preset {name}")

    @classmethod
    def from_toml(cls, path: str | Path) -> ChipSpec:
        """Return the chip of a TOML file; a file with [device] alone gets default periphery.

        path : the file. Raises InputError where it cannot be read, is not TOML or says what no
        chip can be.
        """
        asked = f"read chip file {path}"
        try:
            text = Path(path).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(asked, f"it cannot be read ({error})", "check the path") from None
        return cls.from_text(text, origin=str(path))

    @classmethod
    def from_text(cls, text: str, *, origin: str) -> ChipSpec:
        """Return the chip that a TOML text describes; `origin` names it in errors.

        With `base = "PRESET"` it is that preset with the fields of the text in place of its own,
        table by table. Raises InputError as `from_toml`.
        """
        asked = f"read chip {origin}"
        try:
            data = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise InputError(asked, f"it is not TOML ({error})", "mend that line") from None
        if "base" in data:
            data = _on_base(data, asked)
        elif isinstance(data.get("device"), dict):
            data.setdefault("name", data["device"].get("name", "unnamed"))
        return validated(cls, data, asked)

    def to_toml(self, path: str | Path | None = None) -> str:
        """Return the chip as TOML text, and write it to `path` where one is given.

        Raises UsageError where that place cannot be written.
        """
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


def _choose_preset(name: str) -> str:
    """Return what to do about a name that no preset has."""
    guess = nearest(name, presets())
    hint = f"did you mean '{guess}'? " if guess else ""
    return f"{hint}choose one of {', '.join(presets())}"


def _preset_text(name: str) -> str:
    if name not in presets():
        raise UsageError(
            f"use preset '{name}'", "no preset has that name",
            f"{_choose_preset(name)}, or give a .toml file",
        )
    return resources.files("aimc_sim").joinpath("presets", f"{name}.toml").read_text("utf-8")


def _on_base(data: dict[str, Any], asked: str) -> dict[str, Any]:
    """Return the fields of the preset `base` with those of a file in their place."""
    base = data.pop("base")
    if base not in presets():
        raise InputError(asked, f"its base '{base}' is no preset", _choose_preset(str(base)))
    result = _laid_over(tomllib.loads(_preset_text(base)), data)
    if "name" not in data:
        result["name"] = f"{base}, changed"
    return result


def _laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Return a nested mapping with the values of another in place of its own."""
    result = dict(below)
    for key, value in above.items():
        own = result.get(key)
        if isinstance(own, dict) and isinstance(value, dict):
            value = _laid_over(own, value)
        result[key] = value
    return result


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

    name_or_file : a path ends in .toml, has a slash or backslash, or is that of a file.

    Raises UsageError for a preset that does not exist, InputError for a file that is no chip.
    """
    text = str(name_or_file)
    if text.endswith(".toml") or "/" in text or "\\" in text or Path(text).is_file():
        return ChipSpec.from_toml(text)
    return ChipSpec.preset(text)
