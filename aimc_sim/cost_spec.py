"""What a chip's energy, latency and area are computed with: the section [costs] of a chip file."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from aimc_sim.circuits import LEAST_ENOB, NODE_FACTORS
from aimc_sim.fields import PositiveSeconds, Share, Spec, Volts

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


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
    """

    node_nm: Positive = 45.0
    extrapolate_node: bool = False
    read_v: Annotated[Volts, Field(gt=0)] = 0.2
    read_s: PositiveSeconds = 100e-9
    adc_enob: Positive | None = None
    adc_hz: Positive | None = None
    adc_j: NotNegative | None = None
    adc_area_m2: NotNegative | None = None
    adc_leak: Share = 0.2
    dac_j: NotNegative | None = None
    dac_area_m2: NotNegative | None = None
    line_f_per_m: NotNegative = 0.2e-9
    line_pitch_m: Positive | None = None
    logic_bits: int = Field(default=16, ge=1, le=64)
    add_j_per_bit: NotNegative | None = None
    multiply_j_per_bit2: NotNegative | None = None
    shift_j_per_bit: NotNegative | None = None
    float_add_j: NotNegative | None = None
    float_multiply_j: NotNegative | None = None
    buffer_j_per_bit: NotNegative | None = None
    state_j_per_bit: NotNegative | None = None
    weight_j_per_bit: NotNegative | None = None
    memory_area_m2_per_bit: NotNegative | None = None
    leak_w: NotNegative = 0.0
    pipeline: bool = True

    @model_validator(mode="after")
    def _node_is_known(self) -> Self:
        largest = max(NODE_FACTORS)
        beyond = self.node_nm > largest
        if self.node_nm not in NODE_FACTORS and not (beyond and self.extrapolate_node):
            names = ", ".join(f"{nm:g}" for nm in NODE_FACTORS)
            also = ", or set extrapolate_node for C V^2 beyond 130 nm" if beyond else ""
            raise ValueError(
                f"node_nm is {self.node_nm:g}, the table of nodes has {names}; choose one of "
                f"them{also}"
            )
        return self

    @model_validator(mode="after")
    def _regression_holds(self) -> Self:
        given = self.adc_j is not None and self.adc_area_m2 is not None
        if self.adc_enob is not None and self.adc_enob < LEAST_ENOB and not given:
            raise ValueError(
                f"adc_enob is {self.adc_enob:g}, the regression over published ADCs holds from "
                f"{LEAST_ENOB:g} bits on; give adc_j and adc_area_m2 of such an ADC"
            )
        return self
