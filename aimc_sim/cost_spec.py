"""What a chip's energy, latency and area are computed with: the section [costs] of a chip file."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from aimc_sim import circuits
from aimc_sim.circuits import COARSE_ADC, LEAST_ENOB, NODE_FACTORS
from aimc_sim.fields import (
    Nanometres,
    PositiveSeconds,
    Share,
    Spec,
    Volts,
    nanometres,
    quantity,
)
from aimc_sim.units import format_quantity

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Joules = Annotated[float, quantity("energy"), Field(ge=0, allow_inf_nan=False)]
SquareMetres = Annotated[float, quantity("area"), Field(ge=0, allow_inf_nan=False)]
Metres = Annotated[float, quantity("length"), Field(gt=0, allow_inf_nan=False)]
Hertz = Annotated[float, quantity("frequency"), Field(gt=0, allow_inf_nan=False)]
Watts = Annotated[float, quantity("power"), Field(ge=0, allow_inf_nan=False)]
FaradsPerMetre = Annotated[
    float, quantity("capacitance per length"), Field(ge=0, allow_inf_nan=False)
]

SMALLEST_MEMORY_BYTES = 8 * 1024.0
_USUAL_BITS = 8  # of an ideal converter, to judge prices by
_FAR = 1e4  # no figure of a real part is so many times another's: a prefix was forgotten
# the end of a constant's name -> what it is, the longest end first
_KINDS = {
    "_m2_per_bit": "area", "_j_per_bit": "energy", "_j_per_bit2": "energy",
    "_f_per_m": "capacitance per length", "_m2": "area", "_j": "energy", "_hz": "frequency",
    "_v": "voltage", "_s": "time", "_m": "length",
}


class CostSpec(Spec):
    """Constants of energy, latency and area; None: the published value (docs/costs.md).

    node_nm : technology node of converters and logic. extrapolate_node : allow nodes above
        130 nm, by C V^2.
    read_v, read_s : full-scale voltage of a row and the time that it is driven, of one access
        (of one bit plane in bit-serial mode; the longest pulse of pulse-width inputs).
    adc_enob : effective bits of the ADC, None: its bits. adc_hz : conversions a second of one
        ADC, None: as many as it needs to convert all its columns within read_s. adc_j,
        adc_area_m2 : of a conversion and of an ADC. adc_leak : share of adc_j that is drawn all
        the time, at the full rate.
    dac_j, dac_area_m2 : of one drive of a row (of one bit plane in bit-serial mode) and of its
        DAC.
    line_f_per_m, line_pitch_m : capacitance of a line, and its length from cell to cell.
    logic_bits : width of additions and activations. add_j_per_bit, multiply_j_per_bit2,
        shift_j_per_bit : of integer logic, per bit of width and per product of two widths.
        float_add_j, float_multiply_j : of 32-bit floating-point logic (the digital baseline).
    buffer_j_per_bit, state_j_per_bit, weight_j_per_bit : of an access to the buffers beside
        converters, to the registers of the states and to the memory of digital weights.
    memory_area_m2_per_bit : of that memory.
    leak_w : what the chip draws all the time beside its ADCs.
    pipeline : layers work on successive steps at the same time.

    Text with a unit is understood: adc_j = "0.3pJ", adc_area_m2 = "284um2", node_nm = "45nm".
    In a chip, a value more than 10,000 times above or below the published one is refused; 0 is
    none of these.
    """

    node_nm: Nanometres = 45.0
    extrapolate_node: bool = False
    read_v: Annotated[Volts, Field(gt=0)] = 0.2
    read_s: PositiveSeconds = 100e-9
    adc_enob: Positive | None = None
    adc_hz: Hertz | None = None
    adc_j: Joules | None = None
    adc_area_m2: SquareMetres | None = None
    adc_leak: Share = 0.2
    dac_j: Joules | None = None
    dac_area_m2: SquareMetres | None = None
    line_f_per_m: FaradsPerMetre = 0.2e-9
    line_pitch_m: Metres | None = None
    logic_bits: int = Field(default=16, ge=1, le=64)
    add_j_per_bit: Joules | None = None
    multiply_j_per_bit2: Joules | None = None
    shift_j_per_bit: Joules | None = None
    float_add_j: Joules | None = None
    float_multiply_j: Joules | None = None
    buffer_j_per_bit: Joules | None = None
    state_j_per_bit: Joules | None = None
    weight_j_per_bit: Joules | None = None
    memory_area_m2_per_bit: SquareMetres | None = None
    leak_w: Watts = 0.0
    pipeline: bool = True

    @field_validator("node_nm", mode="before")
    @classmethod
    def _node_is_a_number(cls, value: Any) -> Any:
        try:
            return float(value) if isinstance(value := nanometres(value), str) else value
        except ValueError:
            raise ValueError(_wrong_node(repr(value))) from None

    @model_validator(mode="after")
    def _node_is_known(self) -> Self:
        beyond = self.node_nm > max(NODE_FACTORS)
        if self.node_nm not in NODE_FACTORS and not (beyond and self.extrapolate_node):
            raise ValueError(_wrong_node(f"{self.node_nm:g}", beyond=beyond))
        return self

    @model_validator(mode="after")
    def _regression_holds(self) -> Self:
        given = self.adc_j is not None and self.adc_area_m2 is not None
        if self.adc_enob is not None and self.adc_enob < LEAST_ENOB and not given:
            raise ValueError(
                f"adc_enob is {self.adc_enob:g}, the regression over published ADCs holds from "
                f"{LEAST_ENOB:g} bits on; {COARSE_ADC}"
            )
        return self


def _wrong_node(written: str, *, beyond: bool = False) -> str:
    names = ", ".join(f"{nm:g}" for nm in NODE_FACTORS)
    also = ", or set extrapolate_node for C V^2 beyond 130 nm" if beyond else ""
    return (
        f"node_nm is {written}, the table of nodes has {names} nm; choose one of them{also}"
    )


def published_values(
    given: CostSpec, *, adc_bits: float, columns_per_adc: int, dac_bits: int, dac_mode: str,
    pitch_nm: float | None, state_bytes: float = 0.0, weight_bytes: float = 0.0,
) -> dict[str, float]:
    """Return the published value of every physical constant of [costs] by name, in SI.

    given : for its node, read_s, adc_enob and adc_hz, on which others depend. adc_bits,
    columns_per_adc, dac_bits, dac_mode, pitch_nm : of the chip (pitch_nm None: no wires of a
    pitch). state_bytes, weight_bytes : size of the memories, 8 KB at least. Energy and area of
    an ADC are missing where it has fewer than 4 effective bits.
    """
    node = given.node_nm
    factor = circuits.node_factor(node, extrapolate=given.extrapolate_node)
    fields, enob = type(given).model_fields, given.adc_enob or adc_bits
    values: dict[str, float] = {
        name: fields[name].default for name in ("read_v", "read_s", "line_f_per_m")
    }
    values["adc_hz"] = columns_per_adc / given.read_s
    if enob >= LEAST_ENOB:
        hz = given.adc_hz or values["adc_hz"]
        values["adc_j"] = circuits.adc_energy_j(enob, hz, node)
        values["adc_area_m2"] = circuits.adc_area_m2(enob, hz, node)
    # a drive is one bit plane in bit-serial mode
    drive_bits = 1 if dac_mode == "bit_serial" else dac_bits
    values |= {
        "dac_j": circuits.drive_j(dac_mode, drive_bits, factor),
        "dac_area_m2": circuits.drive_area_m2(dac_mode, dac_bits, node),
        "line_pitch_m": circuits.line_pitch_m(node) if pitch_nm is None else 1e-9 * pitch_nm,
        "add_j_per_bit": circuits.add_j_per_bit(factor),
        "multiply_j_per_bit2": circuits.multiply_j_per_bit2(factor),
        "shift_j_per_bit": circuits.add_j_per_bit(factor),
        "float_add_j": circuits.float_add_j(factor),
        "float_multiply_j": circuits.float_multiply_j(factor),
        "memory_area_m2_per_bit": circuits.sram_area_m2_per_bit(node),
    }
    sizes = {"buffer": 0.0, "state": state_bytes, "weight": weight_bytes}
    for name, size in sizes.items():
        size = max(size, SMALLEST_MEMORY_BYTES)
        values[f"{name}_j_per_bit"] = circuits.sram_j_per_bit(size, factor)
    return values


def check_prices(
    given: CostSpec, adc_bits: int | str, columns_per_adc: int, dac_bits: int | str,
    dac_mode: str, pitch_nm: float | None,
) -> None:
    """Refuse constants that lie absurdly far from the published ones of such a chip.

    Raises ValueError in the form of a spec's checks: 0.3 for 0.3 pJ is off by 10^12, and every
    figure that follows from it by as much, without a word.
    """
    bits = adc_bits if isinstance(adc_bits, int) else _USUAL_BITS
    values = published_values(
        # where the regression ends the ADC of its last bit is near enough
        given.model_copy(update={"adc_enob": max(given.adc_enob or bits, LEAST_ENOB)}),
        adc_bits=bits, columns_per_adc=columns_per_adc,
        dac_bits=dac_bits if isinstance(dac_bits, int) else _USUAL_BITS, dac_mode=dac_mode,
        pitch_nm=pitch_nm,
    )
    for name, usual in values.items():
        own = getattr(given, name)
        if not own or usual / _FAR <= own <= usual * _FAR:
            continue
        kind = next(kind for end, kind in _KINDS.items() if name.endswith(end))
        said = format_quantity(usual, kind)
        raise ValueError(
            f"field 'costs.{name}' is {own:g}, {own / usual:.0e} times the {said} that is "
            f"published for such a chip; write text with a unit, such as '{said}', or leave it out"
        )
