"""Wide or long rows to one point a place: units to SI, labels of columns to numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from aimc_sim.errors import InputError, UsageError
from calibration.headers import CELL_UNITS, UNITS, Header, parse_header, unit_of
from calibration.layouts import VALUE_KEYS, Roles, kind_of, value_keys
from calibration.readers import EMPTY, TEXT, Grid

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

# units that a role may be written in; the first kind is what its name promises
_QUANTITIES = {
    "target_s": CELL_UNITS, "measured_s": CELL_UNITS, "conductance_s": CELL_UNITS,
    "initial_s": CELL_UNITS, "current_a": ("current",), "resistance_ohm": ("resistance",),
    "time_s": ("time",), "voltage_v": ("voltage",), "output": ("steps", "voltage"),
    "inl": ("steps",), "dnl": ("steps",),
}
_LABELS = ("cell", "ramp", "converter")  # which may be words
_SETS = {"set": 1.0, "potentiation": 1.0, "ltp": 1.0, "up": 1.0, "+1": 1.0,
         "reset": -1.0, "depression": -1.0, "ltd": -1.0, "down": -1.0, "-1": -1.0}
_KELVIN = 273.15


@dataclass(frozen=True, eq=False)
class Points:
    """What a grid holds of a kind of measurement, before points are judged.

    data : tidy name -> (n,). bad : reason -> (n,) mask of points that hold no number.
    example : where one of them stands. unit : of an output, "LSB" or "V".
    """

    data: dict[str, Floats]
    bad: dict[str, NDArray[np.bool_]]
    notes: list[str] = field(default_factory=list)
    example: str = ""
    unit: str = ""


@dataclass(frozen=True, eq=False)
class _Request:
    grid: Grid
    kind: str
    roles: Roles
    key: str  # under which the value is mapped
    asked: str
    declared: dict[str, str]  # role -> unit of --unit; "" for what no role is named for
    read_voltage_v: float | None
    notes: list[str]

    def header(self, column: int, quantity: str = "") -> Header:
        return parse_header("" if self.grid.names is None else self.grid.names[column], quantity)


def melt(
    grid: Grid,
    kind: str,
    roles: Roles,
    asked: str,
    *,
    unit: str | None,
    read_voltage_v: float | None,
    sample_period_s: float | None,
) -> Points:
    """Return the points of a grid, one column of a wide table after the other.

    What a wide table keeps in its names (target, time) becomes a number of each point; columns
    or rows without a label are cells, ramps or converters of their own, counted from 0.
    """
    value = kind_of(kind).value
    key = next(key for key in value_keys(kind_of(kind)) if key in roles)
    request = _Request(
        grid, kind, roles, key, asked, _declared(unit, kind), read_voltage_v, []
    )
    wide = roles[key]
    if read_voltage_v is not None and not _is_current(request, wide[0]):
        raise UsageError(
            asked, f"a read voltage is given, but column {grid.label(wide[0])} is no current",
            "drop --read-voltage, or say --unit A",
        )
    data = {
        role: np.tile(_role_values(request, role), len(wide))
        for role in roles if role not in (key, "voltage_v")
    }
    data[value] = _values(request)
    output_unit = _add_labels(request, data, value, sample_period_s)
    bad = _bad(request)
    names = kind_of(kind).tidy
    order = _order(request, data)
    data = {name: np.ascontiguousarray(values[order]) for name, values in data.items()}
    bad = {reason: mask[order] for reason, mask in bad.items()}
    _check_order(data, bad, asked)
    kept = [*names, *(name for name in ("temperature_k",) if name in data)]
    return Points(
        {name: data[name] for name in kept if name in data}, bad, request.notes,
        _example(request), output_unit,
    )


def _declared(unit: str | None, kind: str) -> dict[str, str]:
    """Return role -> unit of a text such as ``uS`` or ``measured_s=uS,time_s=ms``."""
    declared: dict[str, str] = {}
    for item in (unit or "").split(","):
        role, _, name = item.rpartition("=")
        if role and role not in _QUANTITIES:
            raise UsageError(
                f"use --unit {item}", f"no role '{role}' has a unit",
                f"choose one of {', '.join(_QUANTITIES)}",
            )
        if item:
            kinds = _QUANTITIES[role or kind_of(kind).value]
            declared[role] = unit_of(name, kinds)
    return declared


def _unit(request: _Request, role: str, column: int) -> tuple[str, float | None]:
    """Return the unit of a column and the voltage its header says, "" where nothing does."""
    kinds = _QUANTITIES[role]
    header = request.header(column, kinds[0])
    said = header.unit if header.unit and UNITS[header.unit][0] in kinds else ""
    declared = request.declared.get(role, "")
    bare = request.declared.get("", "")
    if not declared and bare and UNITS[bare][0] in kinds:
        # a current or resistance is what was measured; targets are conductances all the same
        plain = UNITS[bare][0] in ("conductance", "steps", "voltage")
        declared = bare if plain or role in (request.key, "initial_s") else ""
    if said and declared and UNITS[said] != UNITS[declared]:
        raise UsageError(
            request.asked,
            f"units are mixed: column {request.grid.label(column)} says {said}, --unit says "
            f"{declared}",
            "drop --unit, or give it for one role, such as --unit target_s=uS",
        )
    if said or declared:
        return said or declared, header.voltage_v
    if role == request.key and role not in VALUE_KEYS and "conductance" in kinds:
        voltage = request.read_voltage_v or header.voltage_v
        if voltage is not None or "voltage_v" in request.roles:
            return "A", header.voltage_v
    if role in VALUE_KEYS:
        return VALUE_KEYS[role], header.voltage_v
    if UNITS.get(header.number_unit, ("",))[0] in kinds:
        return header.number_unit, header.voltage_v  # Target_100uS holds microsiemens
    return "", header.voltage_v


def _is_current(request: _Request, column: int) -> bool:
    unit, _ = _unit(request, request.key, column)
    return bool(unit) and UNITS[unit][0] == "current"


def _role_values(request: _Request, role: str) -> Floats:
    """Return the column of a role in SI; words of labels and polarities as numbers."""
    (column,) = request.roles[role]
    values = request.grid.values[:, column].copy()
    texts = request.grid.texts.get(column, {})
    if role in _LABELS:
        if texts:
            words = [texts.get(row, f"{value:.17g}") for row, value in enumerate(values)]
            values = np.unique(words, return_inverse=True)[1].astype(float)
            request.notes.append(f"{role}: words were numbered in alphabetical order")
        return values
    if role == "polarity":
        for row, text in texts.items():
            values[row] = _SETS.get(text.lower(), np.nan)
        return np.sign(values)
    if role in ("pulse", "code", "temperature_k"):
        return values
    if role == "temperature_c":
        return values + _KELVIN
    return _to_si(request, role, column, values)


def _values(request: _Request) -> Floats:
    """Return the value columns in SI, one after the other."""
    wide = list(request.roles[request.key])
    values = request.grid.values[:, wide]
    if request.grid.names is None:  # columns without names share a unit; there may be 100,000
        per_row = _to_si(request, request.key, wide[0], values)
        return per_row.T.reshape(-1)
    return np.concatenate(
        [_to_si(request, request.key, column, values[:, k]) for k, column in enumerate(wide)]
    )


def _to_si(request: _Request, role: str, column: int, values: Floats) -> Floats:
    unit, header_voltage = _unit(request, role, column)
    if not unit:
        return values
    quantity, factor = UNITS[unit]
    # by a whole number, so that 100 uS are 1e-4 S to the last bit
    values = values * factor if factor >= 1 else values / round(1 / factor)
    with np.errstate(divide="ignore", invalid="ignore"):
        if quantity == "resistance":
            return 1.0 / values
        if quantity == "current":
            voltage = _voltage(request, header_voltage, column)
            return values / (voltage if values.ndim == 1 else voltage[:, None])
    return values


def _voltage(request: _Request, header_voltage: float | None, column: int) -> Floats:
    """Return the read voltage of every row, from a column, the header or the call."""
    given = request.read_voltage_v
    if "voltage_v" in request.roles:
        if given is not None:
            raise UsageError(
                request.asked, "the read voltage is given twice, as a column and in the call",
                "drop --read-voltage or the key voltage_v",
            )
        (place,) = request.roles["voltage_v"]
        values = request.grid.values[:, place] * (
            UNITS[unit][1] if (unit := _unit(request, "voltage_v", place)[0]) else 1.0
        )
        return np.where(values == 0, np.nan, values)
    if given is not None and header_voltage is not None and given != header_voltage:
        raise UsageError(
            request.asked,
            f"column {request.grid.label(column)} was read at {header_voltage:g} V, "
            f"--read-voltage says {given:g} V", "drop --read-voltage",
        )
    voltage = given if given is not None else header_voltage
    if voltage is None:
        raise UsageError(
            request.asked, f"column {request.grid.label(column)} holds currents, at no known "
            "voltage", "add --read-voltage 0.1V, or map a column with voltage_v=NAME",
        )
    if voltage == 0:
        raise UsageError(request.asked, "the read voltage is zero", "give the voltage of the read")
    return np.full(len(request.grid.values), voltage)


def _add_labels(
    request: _Request, data: dict[str, Floats], value: str, sample_period_s: float | None
) -> str:
    """Add to `data` the tidy columns that names, places or the order of rows say."""
    n, wide = len(request.grid.values), len(request.roles[request.key])
    column = np.repeat(np.arange(wide, dtype=float), n)
    row = np.tile(np.arange(n, dtype=float), wide)
    kind = request.kind
    if kind == "programming" and "target_s" not in data:
        data["target_s"] = np.repeat(_in_names(request, "conductance"), n)
    elif kind in ("relaxation", "drift"):
        timed = "time_s" in data
        if not timed:
            data["time_s"] = np.repeat(_in_names(request, "time"), n)
        several = column if timed and wide > 1 else row if not timed else np.zeros(n * wide)
        data.setdefault("cell", several)
        _split_temperatures(request, data)
    elif kind == "read-noise":
        _add_times(request, data, column, row, sample_period_s)
    elif kind == "pulse":
        data.setdefault("ramp", column)
        data.setdefault("pulse", row if wide > 1 else _count(data["ramp"]))
        if "polarity" not in data:
            data["polarity"] = _trend(data["ramp"], data[value])
            request.notes.append("polarity: from whether a ramp rises (SET) or falls (RESET)")
    elif kind == "converter":
        data.setdefault("converter", column)
        return _to_output(request, data)
    return ""


def _in_names(request: _Request, quantity: str) -> Floats:
    """Return the number in SI that every value column's name ends in."""
    numbers, what = [], "target" if quantity == "conductance" else "time"
    for column in request.roles[request.key]:
        header = request.header(column, quantity)
        declared = request.declared.get(f"{what}_s", "")
        unit = header.number_unit or declared or header.unit
        if header.number is None or UNITS.get(header.number_unit, (quantity,))[0] != quantity:
            raise InputError(
                request.asked,
                f"column {request.grid.label(column)} does not end in its {what}",
                f"name columns as in 'x_100uS' or 'x_10s', or map a column with {what}_s=NAME",
            )
        factor = UNITS[unit][1] if unit and UNITS[unit][0] == quantity else 1.0
        number = header.number
        numbers.append(number * factor if factor >= 1 else number / round(1 / factor))
    return np.array(numbers)


def _split_temperatures(request: _Request, data: dict[str, Floats]) -> None:
    """Make a cell at another temperature another cell: each temperature is its own history."""
    if "temperature_c" in data:
        data["temperature_k"] = data.pop("temperature_c")
    if "temperature_k" not in data:
        return
    levels, place = np.unique(data["temperature_k"], return_inverse=True)
    if len(levels) > 1:
        cells, number = np.unique(data["cell"], return_inverse=True)
        data["cell"] = (number * len(levels) + place).astype(float)
        shown = ", ".join(f"{kelvin:g}" for kelvin in levels[:8])
        request.notes.append(
            f"{len(levels)} temperatures ({shown} K): a cell at another counts as another cell"
        )


def _add_times(
    request: _Request,
    data: dict[str, Floats],
    column: Floats,
    row: Floats,
    sample_period_s: float | None,
) -> None:
    wide = len(request.roles[request.key]) > 1
    lines = wide and "cell" in data and "time_s" not in data  # a line holds a whole series
    data.setdefault("cell", column)
    if "time_s" in data:
        if sample_period_s is not None:
            raise UsageError(
                request.asked, "times and a sample period are both given",
                "drop --sample-period, or the key time_s",
            )
        return
    if sample_period_s is None:
        raise InputError(
            request.asked, "nothing says when values were read",
            "map times with time_s=NAME, or add --sample-period such as 2.5ms",
        )
    if lines:
        if len(np.unique(data["cell"])) < len(request.grid.values):
            raise InputError(
                request.asked, "two lines are of one cell", "give every series its own cell"
            )
        number = column
    else:
        number = row if wide else _count(data["cell"])
    data["time_s"] = number * sample_period_s


def _count(group: Floats) -> Floats:
    """Return the number of every point within its group, in file order from 0."""
    order = np.argsort(group, kind="stable")
    first = np.flatnonzero(np.r_[True, np.diff(group[order]) != 0]) if len(order) else order
    number = np.empty(len(group))
    number[order] = np.arange(len(group)) - np.repeat(first, np.diff(np.r_[first, len(group)]))
    return number


def _trend(ramp: Floats, values: Floats) -> Floats:
    """Return +1 for every point of a ramp that rises from its first to its last value."""
    sign = np.ones(len(ramp))
    good = np.isfinite(values)
    names, place = np.unique(ramp[good], return_inverse=True)
    order = np.argsort(place, kind="stable")
    ends = np.r_[np.flatnonzero(np.diff(place[order])), len(order) - 1] if len(order) else order
    starts = np.r_[0, ends[:-1] + 1] if len(order) else order
    ordered = values[good][order]
    falls = names[ordered[ends] < ordered[starts]] if len(order) else names
    sign[np.isin(ramp, falls)] = -1.0
    return sign


def _to_output(request: _Request, data: dict[str, Floats]) -> str:
    """Turn non-linearities into outputs in LSB: code + INL, INL the sum of DNL below a code."""
    if request.key == "output":
        unit = _unit(request, "output", request.roles["output"][0])[0]
        return "V" if unit and UNITS[unit][0] == "voltage" else "LSB"
    values = data["output"]
    if request.key == "dnl":
        total = np.empty_like(values)
        for converter in np.unique(data["converter"]):
            own = np.flatnonzero(data["converter"] == converter)
            own = own[np.argsort(data["code"][own], kind="stable")]
            total[own] = np.r_[0.0, np.cumsum(values[own])[:-1]]
        values = total
    data["output"] = data["code"] + values
    return "LSB"


def _bad(request: _Request) -> dict[str, NDArray[np.bool_]]:
    """Return which points have an empty cell, or text where a number belongs."""
    grid, wide = request.grid, list(request.roles[request.key])
    worded = [request.roles[role][0] for role in (*_LABELS, "polarity") if role in request.roles]
    single = [found[0] for role, found in request.roles.items() if role != request.key]
    numeric = [column for column in single if column not in worded]
    empty = (grid.kinds[:, single] == EMPTY).any(axis=1)[:, None] | (
        grid.kinds[:, wide] == EMPTY
    )
    text = (grid.kinds[:, numeric] == TEXT).any(axis=1)[:, None] | (grid.kinds[:, wide] == TEXT)
    return {"empty": empty.T.reshape(-1), "not a number": (text & ~empty).T.reshape(-1)}


def _example(request: _Request) -> str:
    """Return where the first word stands in a column of numbers."""
    if not request.grid.texts:
        return ""
    for role, columns in request.roles.items():
        for column in () if role in (*_LABELS, "polarity") else columns:
            for row, text in request.grid.texts.get(column, {}).items():
                line = row + request.grid.first_line
                return f"'{text[:40]}' in line {line}, column {request.grid.label(column)}"
    return ""


def _order(request: _Request, data: dict[str, Floats]) -> NDArray[np.intp]:
    """Return the points by cell, ramp or converter; within one as the file has them."""
    group = next((name for name in _LABELS if name in data), None)
    if group is None or request.kind == "programming":
        return np.arange(len(next(iter(data.values()))))
    if "time_s" in data and "time_s" not in request.roles:
        return np.lexsort((data["time_s"], data[group]))  # columns may stand in any order
    return np.argsort(data[group], kind="stable")


def _check_order(
    data: dict[str, Floats], bad: dict[str, NDArray[np.bool_]], asked: str
) -> None:
    if "time_s" not in data:
        return
    good = np.flatnonzero(~(bad["empty"] | bad["not a number"]))
    cell, time = data["cell"][good], data["time_s"][good]
    back = np.flatnonzero((np.diff(time) < 0) & (np.diff(cell) == 0))
    if len(back):
        at = int(back[0])
        raise InputError(
            asked,
            f"time goes backwards in cell {cell[at]:g}, from {time[at]:g} s to "
            f"{time[at + 1]:g} s",
            "sort the rows by time, or map cell=NAME if these are different cells",
        )
