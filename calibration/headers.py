"""What the name of a column says: unit, read voltage, and a number such as its target."""

from __future__ import annotations

import re
from dataclasses import dataclass

from aimc_sim.errors import UsageError
from aimc_sim.units import FACTORS

# spelling -> (kind, factor to SI). Single letters count in brackets only: 'Cell A' is no current
UNITS: dict[str, tuple[str, float]] = {
    **{unit: (kind, factor) for kind, units in FACTORS.items() for unit, factor in units.items()},
    "pS": ("conductance", 1e-12), "pA": ("current", 1e-12),
    "Ohm": ("resistance", 1.0), "ohms": ("resistance", 1.0), "Ω": ("resistance", 1.0),
    "kOhm": ("resistance", 1e3), "kΩ": ("resistance", 1e3), "Mohm": ("resistance", 1e6),
    "MOhm": ("resistance", 1e6), "MΩ": ("resistance", 1e6),
    "sec": ("time", 1.0), "seconds": ("time", 1.0), "hours": ("time", 3600.0),
    "LSB": ("steps", 1.0), "lsb": ("steps", 1.0),
}
CELL_UNITS = ("conductance", "resistance", "current")  # in which a conductance may be written
_VOLTAGE = re.compile(r"\b(?:at|@)\s*([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*(m?V)\b")
_BRACKETS = re.compile(r"[\[(]\s*([^\])]*?)\s*[\])]\s*$")
_TAIL = re.compile(r"(?:[_\s,/]|(?<=\d))([A-Za-zΩ]+)$")
_NUMBER = re.compile(r"(?<![\d.])([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)$")


@dataclass(frozen=True)
class Header:
    """A column's name taken apart.

    unit : of the cells, "" where none is said. voltage_v : of a read, from 'A at 0.1 V'.
    number : that the name ends in, in number_unit ("" where it has none), as in 'Target_100uS'.
    """

    unit: str = ""
    voltage_v: float | None = None
    number: float | None = None
    number_unit: str = ""


def parse_header(name: str, kind: str = "") -> Header:
    """Return what a column's name says.

    kind : of quantity that is expected; a time may end in a single letter, as time_h does.

    Examples
    --------
    >>> parse_header("I (uA at 0.1 V)")
    Header(unit='uA', voltage_v=0.1, number=None, number_unit='')
    >>> parse_header("Target_100uS").number, parse_header("t = 1e-2 s").number_unit
    (100.0, 's')
    >>> parse_header("Measured_uS").unit, parse_header("Device A").unit
    ('uS', '')
    >>> parse_header("elapsed_h", "time").unit
    'h'
    """
    text = name.strip().replace("µ", "u").replace("μ", "u")
    voltage = None
    if (at := _VOLTAGE.search(text)) is not None:
        voltage = float(at.group(1)) * UNITS[at.group(2)][1]
        text = (text[: at.start()].rstrip() + text[at.end() :]).strip()
    unit = ""
    if (brackets := _BRACKETS.search(text)) is not None:
        if brackets.group(1) in UNITS:
            unit = brackets.group(1)
        text = text[: brackets.start()].strip()
    elif voltage is not None and text.split(" ")[-1] in UNITS:
        text, _, unit = text.rpartition(" ")
    if (tail := _TAIL.search(text)) is not None and tail.group(1) in UNITS:
        before = text[: tail.start(1)].rstrip(" ")
        if (number := _NUMBER.search(before)) is not None:
            return Header(unit, voltage, float(number.group(1)), tail.group(1))
        lone = len(tail.group(1)) == 1 and not (kind == UNITS[tail.group(1)][0] == "time")
        if not unit and not lone:
            unit = tail.group(1)
    if (number := _NUMBER.search(text)) is not None:
        return Header(unit, voltage, float(number.group(1)), "")
    return Header(unit, voltage)


def unit_of(text: str, kinds: tuple[str, ...]) -> str:
    """Return a unit that a person declared, checked; UsageError where it is none of `kinds`."""
    unit = text.strip().replace("µ", "u").replace("μ", "u")
    if unit not in UNITS or UNITS[unit][0] not in kinds:
        known = [name for name, (kind, _) in UNITS.items() if kind in kinds]
        raise UsageError(
            f"read values in '{text}'", f"that is no unit of {' or '.join(kinds)}",
            f"choose one of {', '.join(known)}",
        )
    return unit
