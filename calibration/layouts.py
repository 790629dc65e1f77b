"""Which column of a grid is what: roles of a kind of measurement, found, asked for or guessed."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from aimc_sim.errors import InputError, UsageError, nearest
from calibration.headers import UNITS, parse_header
from calibration.readers import Grid


@dataclass(frozen=True)
class Kind:
    """A kind of measurement.

    tidy : columns that its fit reads. value : the one that may come in several columns of a
    file. needed, other : keys of --columns that it must and may have.
    """

    tidy: tuple[str, ...]
    value: str
    needed: tuple[str, ...]
    other: tuple[str, ...] = ()


_READ = ("current_a", "resistance_ohm", "voltage_v")
#: kind of measurement -> its columns: tidy names, where the value stands, which it needs, others
KINDS: dict[str, Kind] = {
    "programming": Kind(("target_s", "measured_s"), "measured_s", ("target_s",), ("cell", *_READ)),
    "relaxation": Kind(
        ("cell", "time_s", "conductance_s", "initial_s"), "conductance_s", ("time_s",),
        ("cell", "initial_s", "temperature_c", "temperature_k", *_READ),
    ),
    "read-noise": Kind(
        ("cell", "time_s", "conductance_s"), "conductance_s", (), ("cell", "time_s", *_READ)
    ),
    "pulse": Kind(
        ("ramp", "pulse", "conductance_s", "polarity"), "conductance_s", (),
        ("ramp", "pulse", "polarity", *_READ),
    ),
    "converter": Kind(
        ("converter", "code", "output"), "output", ("code",), ("converter", "inl", "dnl")
    ),
}
KINDS["drift"] = KINDS["relaxation"]

# keys that a conductance or an output may stand under instead, and in what they are written
VALUE_KEYS = {
    "current_a": "A", "resistance_ohm": "ohm", "inl": "LSB", "dnl": "LSB",
}
# words of a header, without unit and punctuation, that a role goes by
_WORDS = {
    "target_s": ("target", "goal", "setpoint", "level"),
    "measured_s": ("measured", "conductance", "read", "actual", "g"),
    "conductance_s": ("conductance", "measured", "g", "read"),
    "current_a": ("current", "i", "iread"),
    "resistance_ohm": ("resistance", "r", "rread"),
    "voltage_v": ("voltage", "v", "vread", "readvoltage"),
    "cell": ("cell", "addr", "address", "device", "dev", "id", "target", "level"),
    "time_s": ("time", "t", "elapsed", "delay", "timestamp"),
    "initial_s": ("initial", "g0", "ginit", "programmed"),
    "temperature_c": ("temperature", "temp"),
    "ramp": ("ramp", "rmp", "train", "sweep", "device", "cell"),
    "pulse": ("pulse", "number", "cycle", "n"),
    "polarity": ("polarity", "direction", "sign"),
    "converter": ("converter", "adc", "sample"),
    "code": ("code", "input"),
    "output": ("output", "out", "vout", "measured"),
    "inl": ("inl",),
    "dnl": ("dnl",),
}

_LARGEST_S, _SMALLEST_OHM = 0.1, 10.0  # for guesses in files without names

Roles = dict[str, tuple[int, ...]]


def kind_of(name: str) -> Kind:
    """Return a kind of measurement by name; UsageError suggests the nearest."""
    if name not in KINDS:
        guess = nearest(name, KINDS)
        hint = f"did you mean '{guess}'? " if guess else ""
        raise UsageError(
            f"calibrate '{name}'", "there is no such kind of measurement",
            f"{hint}choose one of {', '.join(KINDS)}",
        )
    return KINDS[name]


def find_roles(grid: Grid, kind_name: str, columns: Mapping[str, str] | None, asked: str) -> Roles:
    """Return role -> columns of the grid: as asked, else by names that leave no doubt.

    columns : role -> a column's name or number, a pattern such as ``Target_*`` or a range of
    numbers such as ``2:``, where one role has several columns.

    Raises
    ------
    UsageError : a key that the kind does not have, or a column that is not there.
    InputError : a role without a column; the message guesses the mapping.
    """
    kind = kind_of(kind_name)
    known = (kind.value, *kind.needed, *kind.other)
    roles: Roles = {}
    for key, wanted in (columns or {}).items():
        if key not in known:
            guess = nearest(key, known)
            hint = f"did you mean '{guess}'? " if guess else ""
            raise UsageError(
                f"use --columns {key}={wanted}", f"{kind_name} has no column '{key}'",
                f"{hint}choose of {', '.join(dict.fromkeys(known))}",
            )
        roles[key] = find_columns(grid, wanted, f"use --columns {key}={wanted}")
    taken = {column for found in roles.values() for column in found}
    for number, name in enumerate(grid.names or ()):
        key = name.lower()
        if key in known and key not in roles and number not in taken:
            roles[key] = (number,)
    keys = value_keys(kind)
    given = [key for key in keys if key in roles]
    if len(given) > 1:
        raise UsageError(
            asked, f"{' and '.join(given)} are both mapped", "map one of them with --columns"
        )
    if not given and columns is None:
        roles |= _wide(grid, kind_name, kind)
        given = [key for key in keys if key in roles]
    for key, found in roles.items():
        if len(found) > 1 and key not in keys:
            raise UsageError(
                f"use --columns {key}=...", f"{len(found)} columns match",
                f"give one column; only {kind.value} may come in several",
            )
    missing = [] if given else [kind.value]
    several = bool(given) and len(roles[given[0]]) > 1
    # the names of several columns may hold the target or the time
    missing += [key for key in kind.needed if key not in roles
                and not (several and key in ("target_s", "time_s"))]
    if missing:
        raise _missing(grid, kind, missing, roles, asked)
    return roles


def value_keys(kind: Kind) -> tuple[str, ...]:
    """Return the keys under which a kind's value may be mapped."""
    return (kind.value, *(key for key in kind.other if key in VALUE_KEYS))


def find_columns(grid: Grid, wanted: str, asked: str) -> tuple[int, ...]:
    """Return the columns that a name, a number, a pattern or a range of numbers means."""
    width = grid.values.shape[1]
    names = grid.names or ()
    exact = [k for k, name in enumerate(names) if name == wanted]
    exact = exact or [k for k, name in enumerate(names) if name.lower() == wanted.lower()]
    if len(exact) > 1:
        raise UsageError(
            asked, f"{len(exact)} columns are called '{wanted}'",
            f"give a number: {' or '.join(map(str, exact))}",
        )
    if exact:
        return (exact[0],)
    if any(sign in wanted for sign in "*?"):
        found = [k for k, name in enumerate(names) if fnmatch.fnmatchcase(name, wanted)]
        if found:
            return tuple(found)
    span = re.fullmatch(r"(\d*):(\d*)", wanted)
    if span is not None:
        found = list(range(width))[slice(*(int(end) if end else None for end in span.groups()))]
        if found:
            return tuple(found)
    if wanted.isdigit() and int(wanted) < width:
        return (int(wanted),)
    guess = nearest(wanted, names)
    hint = f"did you mean '{guess}'? " if guess else ""
    raise UsageError(asked, f"no column '{wanted}'", f"{hint}there are {describe(grid)}")


def describe(grid: Grid, most: int = 12) -> str:
    """Return the columns of a grid as a person reads them."""
    width = grid.values.shape[1]
    if grid.names is not None:
        shown = ", ".join(f"'{name}'" for name in grid.names[:most])
        return shown + (f" and {width - most} more" if width > most else "")
    row = ", ".join(f"{k}: {value:.5g}" for k, value in enumerate(grid.values[0, :most]))
    more = f" and {width - most} more" if width > most else ""
    return f"columns 0 to {width - 1} without names (first row {row}{more})"


def _wide(grid: Grid, kind_name: str, kind: Kind) -> Roles:
    """Return the value columns of a table with one column a target, time or ramp."""
    names = list(enumerate(grid.names or ()))
    if kind_name == "programming":
        found = [k for k, name in names if _number_is(name, "conductance")]
        return {kind.value: tuple(found)} if found and len(found) == len(names) else {}
    if kind_name in ("relaxation", "drift"):
        found = [k for k, name in names if _number_is(name, "time")]
        return {kind.value: tuple(found)} if len(found) > 1 else {}
    if kind_name == "pulse":
        # the number of a ramp, behind which a unit may stand in brackets
        stems = {re.sub(r"\d+\s*([\[(][^\[(]*[\])])?$", "", name) for _, name in names}
        if len(names) > 1 and len(stems) == 1:
            return {kind.value: tuple(range(len(names)))}
    return {}


def _number_is(name: str, quantity: str) -> bool:
    header = parse_header(name, quantity)
    return header.number is not None and UNITS.get(header.number_unit, ("",))[0] == quantity


def _missing(
    grid: Grid, kind: Kind, missing: Sequence[str], roles: Roles, asked: str
) -> InputError:
    """Return the error for roles without a column, with the mapping that the names suggest."""
    guesses = {key: grid.label(found[0]).strip("'") for key, found in roles.items()}
    free = [k for k in range(grid.values.shape[1])
            if not any(k in found for found in roles.values())]
    labels = [key for key in ("cell", "ramp") if key in kind.other and key not in roles]
    # without names a time looks like many columns: it comes last
    rest = sorted((key for key in missing if key != kind.value), key=lambda key: key == "time_s")
    start = [kind.value] if kind.value in missing else []
    if grid.names is None:
        wanted = [*start, *labels, *rest]
    else:
        initial = ["initial_s"] if "initial_s" in kind.other and "initial_s" not in roles else []
        wanted = [*start, *rest, *labels, *initial]
    for key in wanted:
        choices = [key]
        if key == kind.value:
            choices += [other for other in value_keys(kind) if other != key]
        for choice in choices:
            column = _guess(grid, choice, free)
            if column is not None:
                guesses.setdefault(choice, grid.label(column).strip("'"))
                free.remove(column)
                break
    unknown = [key for key in missing if not {key, *VALUE_KEYS} & set(guesses)]
    mapping = ",".join(f"{key}={name}" for key, name in guesses.items())
    mapping += "".join(f",{key}=..." for key in unknown)
    words = "did you mean" if guesses and not unknown else "map them with"
    quoted = f'"{mapping.lstrip(",")}"'
    return InputError(
        asked,
        f"no column is {' or '.join(missing)}; there are {describe(grid)}",
        f"{words} --columns {quoted}" + ("?" if words == "did you mean" else ""),
    )


def _guess(grid: Grid, key: str, free: Sequence[int]) -> int | None:
    """Return the free column whose name sounds most like a role."""
    if grid.names is None:
        return next((k for k in free if _looks_like(grid, key, k)), None)
    best: tuple[int, int] | None = None
    for column in free:
        words = re.findall(r"[a-z]+\d*", grid.names[column].lower().replace("_", " "))
        for rank, word in enumerate(_WORDS.get(key, ())):
            if word in words and (best is None or rank < best[0]):
                best = (rank, column)
    return None if best is None else best[1]


def _looks_like(grid: Grid, key: str, column: int) -> bool:
    """Tell whether a column without a name holds what a role would."""
    values = grid.values[:, column]
    values = values[np.isfinite(values)]
    if not len(values):
        return False
    whole = bool((values == np.round(values)).all())
    if key in ("conductance_s", "measured_s", "target_s", "initial_s", "current_a"):
        return bool(values.min() > 0 and np.median(values) < _LARGEST_S)
    if key == "resistance_ohm":
        return bool(values.min() > _SMALLEST_OHM)
    if key == "time_s":
        return bool(values.min() >= 0)
    return whole
