"""What of a chip is simulated, what its file leaves out, and what this version cannot do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aimc_sim.devices import lacking_parts, measured_ranges

if TYPE_CHECKING:
    from aimc_sim.specs import AdcSpec, ChipSpec, DacSpec

# sentences of docs/not-modelled.md that hold for every chip; a test keeps them the same
NEVER = (
    "Non-linear current-voltage curves: a cell is a resistor, the same at every voltage.",
    "Correlation between cells: errors of neighbouring cells are independent; no wafer or array "
    "trends.",
    "Faults do not appear with time, and are not looked for: no remapping around stuck cells or "
    "dead lines, no spare lines.",
    "The clock stands still during a sequence: all steps see the drift and noise strength of the "
    "moment at which it starts.",
    "The two currents of a pair are subtracted before one ADC.",
    "State accumulation, norm, GELU, gate, residual, pooling and biases are float32, without a "
    "limit of bits, except the state registers",
    "Costs leave out: select lines, sense amplifiers and drivers of the columns, control, clocks "
    "and the network between tiles; the area and leakage of logic; calibration reads and the time "
    "of writing; behind wires, the current between rows.",
)
_IN_TIME = {
    "split": "what is slower than a step drawn once a sequence, what is faster white",
    "spectrum": "a process in time with the card's spectrum",
    "white": "all of it new at every step, a bound",
    "frozen": "all of it constant in a sequence, a bound",
}


@dataclass(frozen=True)
class Scope:
    """Sentences: modelled on this chip, absent from its file or card, what the card says of its
    data, never modelled."""

    modelled: tuple[str, ...]
    absent: tuple[str, ...]
    said: tuple[str, ...]
    never: tuple[str, ...] = NEVER


def scope(spec: ChipSpec) -> Scope:
    """Return what a simulation of this chip takes into account, and what it does not.

    Examples
    --------
    >>> from aimc_sim.specs import ChipSpec
    >>> scope(ChipSpec.preset("ideal")).modelled
    ('DACs: ideal', 'ADCs: ideal')
    """
    device, noise = spec.device, spec.device.read_noise
    rows: list[tuple[bool, str, str]] = []  # is it there; what it is; what its absence means

    def add(there: object, present: str, absent: str = "") -> None:
        rows.append((bool(there), present, absent))

    if spec.write is not None:
        add(True, f"writing by pulses and verify reads, {spec.write.max_pulses} pulses at most")
    else:
        add(device.programming is not None, "the card's error of a finished write, drawn once")
    add(device.drift is not None, "drift of every cell by its own exponent")
    add(device.relaxation is not None, "relaxation of every cell")
    if noise is not None:
        kind = "1/f" if noise.spectrum == "one_over_f" else "white"
        white = " and white" if noise.spectrum == "one_over_f" and noise.white is not None else ""
        in_time = f": {_IN_TIME[spec.noise_in_time]}" if kind == "1/f" else ""
        add(True, f"{kind}{white} read noise{in_time}")
    add(device.telegraph is not None, "telegraph noise of single cells")
    add(
        spec.faults is not None, "stuck cells and dead lines",
        "faults: every cell works ([faults] of a chip file)",
    )
    add(
        spec.wires is not None and spec.wires.resists, "resistance of word and bit lines",
        "wires: lines have no resistance ([wires] of a chip file)",
    )
    if spec.levels is not None:
        add(True, f"{spec.levels} levels of a cell")
    add(True, f"DACs: {_converter(spec.dac)}")
    add(True, f"ADCs: {_converter(spec.adc)}")
    if spec.compensation != "none":
        add(True, f"compensation of drift by calibration reads: {spec.compensation}")
    if spec.temperature_k is not None:
        add(True, f"a chip kept at {spec.temperature_k:g} K")
    absent = [absent for there, _, absent in rows if not there and absent]
    if not spec.device.doi and spec.name == "ideal":
        lacks = ["everything of a real device: this chip is a reference, not a device"]
    else:
        lacks = lacking_parts(device)
    if spec.write is not None:
        lacks = [line for line in lacks if not line.startswith("no programming part")]
    return Scope(
        tuple(present for there, present, _ in rows if there),
        (*lacks, *absent),
        (
            *device.caveats, *(f"not in its model: {what}" for what in device.not_modelled),
            *measured_ranges(device),
        ),
    )


def _converter(spec: DacSpec | AdcSpec) -> str:
    if spec.bits == "ideal":
        return "ideal"
    parts = [f"{spec.bits} bits"]
    if hasattr(spec, "mode"):
        parts.append(spec.mode.replace("_", " "))
    if spec.noise_lsb:
        parts.append(f"noise of {spec.noise_lsb:g} steps")
    spread = spec.gain_sigma or spec.offset_lsb or getattr(spec, "unit_mismatch", 0)
    if spread or spec.inl_lsb or spec.dnl_lsb:
        parts.append("mismatch")
    return ", ".join(parts)
