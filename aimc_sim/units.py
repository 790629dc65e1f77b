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
}
_NUMBER_AND_UNIT = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*([A-Za-zµ]*)\s*")


def parse_quantity(text: str, kind: str) -> float:
    """Return the SI value of `text`, a number with an optional unit of `kind`.

    Parameters
    ----------
    text : such as ``"25uS"``, ``"1 h"``, ``"0.2V"``; a bare number is SI.
    kind : time, conductance, resistance, temperature, voltage or current.

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
    unit = match.group(2).replace("µ", "u") if match else ""
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
