"""Text with units to SI numbers and back, for the edges: `25uS`, `1h`, `0.2V`."""

from __future__ import annotations

import math
import re
from decimal import Decimal, DecimalException

from aimc_sim.errors import UsageError

FACTORS: dict[str, dict[str, float]] = {
    "time": {
        "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "min": 60.0,
        "h": 3600.0, "d": 86400.0, "w": 604800.0, "y": 365 * 86400.0,
    },
    "conductance": {"S": 1.0, "mS": 1e-3, "uS": 1e-6, "nS": 1e-9},
    "resistance": {"ohm": 1.0, "kohm": 1e3},
    "temperature": {"K": 1.0},
    "voltage": {"V": 1.0, "mV": 1e-3},
    "current": {"A": 1.0, "mA": 1e-3, "uA": 1e-6, "nA": 1e-9},
    "energy": {
        "J": 1.0, "mJ": 1e-3, "uJ": 1e-6, "nJ": 1e-9, "pJ": 1e-12, "fJ": 1e-15, "aJ": 1e-18,
    },
    "power": {"W": 1.0, "mW": 1e-3, "uW": 1e-6, "nW": 1e-9},
    "frequency": {"Hz": 1.0, "kHz": 1e3, "MHz": 1e6, "GHz": 1e9},
    "length": {"m": 1.0, "mm": 1e-3, "um": 1e-6, "nm": 1e-9},
    "area": {"m2": 1.0, "mm2": 1e-6, "um2": 1e-12, "nm2": 1e-18},
    "capacitance per length": {"F/m": 1.0, "pF/m": 1e-12, "fF/um": 1e-9},
}
_NUMBER_AND_UNIT = re.compile(
    r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*((?:[A-Za-zµ][A-Za-zµ/]*[2²]?)?)\s*"
)


def parse_quantity(text: str, kind: str) -> float:
    """Return the SI value of `text`, a number with an optional unit of `kind`.

    Parameters
    ----------
    text : such as ``"25uS"``, ``"1 h"``, ``"0.2V"``; a bare number is SI.
    kind : time, conductance, resistance, temperature, voltage, current, energy, power,
        frequency, length, area or capacitance per length; a key of `FACTORS`.

    Raises
    ------
    UsageError : not a number, or a unit that `kind` does not have.

    Examples
    --------
    >>> parse_quantity("1h", "time")
    3600.0
    >>> round(parse_quantity("25uS", "conductance"), 9)
    2.5e-05
    """
    factors = FACTORS[kind]
    match = _NUMBER_AND_UNIT.fullmatch(text)
    unit = match.group(2).replace("µ", "u").replace("²", "2") if match else ""
    if match is None or (unit and unit not in factors):
        raise UsageError(
            f"read '{text}' as a {kind}",
            "it is not a number followed by a known unit",
            f"write a number and one of {', '.join(factors)}, or a bare number in SI",
        )
    # decimal: 5uS is the float 5e-6 and not its neighbour 4.9999999999999996e-06
    try:
        value = float(Decimal(match.group(1)) * Decimal(str(factors[unit] if unit else 1.0)))
    except DecimalException:  # an exponent that no decimal has
        value = math.inf
    if not math.isfinite(value):
        raise UsageError(f"read '{text}' as a {kind}", "it is not finite", "write a finite number")
    return value


def format_quantity(value: float, kind: str) -> str:
    """Return a number in the unit of a kind that suits it, as `parse_quantity` reads it.

    Examples
    --------
    >>> format_quantity(6.494e-12, "energy"), format_quantity(2.84e-10, "area")
    ('6.49pJ', '284um2')
    """
    factors = sorted(FACTORS[kind].items(), key=lambda item: -item[1])
    # 0.35um2 and 4420um2 are easier to read than 346000nm2 and 0.00442mm2
    unit, factor = next((each for each in factors if abs(value) >= 0.3 * each[1]), factors[-1])
    return f"{float(f'{value / factor:.3g}'):g}{unit}"


def format_time(seconds: float) -> str:
    """Return a time as a person writes it.

    Examples
    --------
    >>> format_time(86400.0), format_time(0.0), format_time(5400.0), format_time(1e-6)
    ('1 d', '0 s', '1.5 h', '1 us')
    """
    if seconds == 0:
        return "0 s"
    for unit in ("y", "w", "d", "h", "min", "s", "ms", "us", "ns"):
        factor = FACTORS["time"][unit]
        if seconds >= factor * (1 - 1e-9) and (unit != "w" or seconds % factor == 0):
            return f"{seconds / factor:.4g} {unit}"
    return f"{seconds:.3g} s"
