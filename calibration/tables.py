"""Measurements as tidy columns in SI, from any file, with a count of what was left out."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aimc_sim.errors import InputError, UsageError
from calibration.fit import Source
from calibration.layouts import KINDS, find_columns, find_roles, kind_of
from calibration.melting import Points, melt
from calibration.readers import Grid, read_grid

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["KINDS", "Table", "read_table"]

_CONDUCTANCES = {"target_s", "measured_s", "conductance_s", "initial_s"}
_LARGEST_S = 0.1  # a bare number in microsiemens lies far above
_DECADES = 5.0  # empty between two groups of values: a unit apart, not a device
# kinds whose fits know a value at a limit; as many zeros as `statistics.find_limits` asks for
_CLIPPED, _FEW_ZEROS = ("programming", "relaxation", "drift", "read-noise"), 5
_TOO_MANY = 0.5  # of the points dropped: then the mapping is wrong, not the points


@dataclass(frozen=True, eq=False)
class Table:
    """Measurements of one kind.

    columns : tidy name -> (n,) float64 in SI, one point a place; sorted by cell or ramp and
    time or pulse. n_rows : rows read of the file. dropped : reason -> points left out.
    units : of columns that are not SI by their name (output: "LSB" or "V"). source : where they
    come from. notes : what to know of the reading.
    """

    kind: str
    columns: Mapping[str, NDArray[np.float64]]
    n_rows: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    source: Source | None = None
    notes: tuple[str, ...] = ()
    units: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, name: str) -> NDArray[np.float64]:
        return self.columns[name]


def read_table(
    path: str | Path | Sequence[str | Path],
    kind: str,
    *,
    columns: Mapping[str, str] | None = None,
    unit: str | None = None,
    sheet: str | None = None,
    read_voltage_v: float | None = None,
    sample_period_s: float | None = None,
    where: Mapping[str, str] | None = None,
) -> Table:
    """Return the measurements of a file, or of several of one layout, as tidy columns in SI.

    Parameters
    ----------
    path : .csv, .tsv, .txt (also .gz), .xlsx, .parquet, .npz, .h5.
    kind : programming, relaxation, drift, read-noise, pulse or converter.
    columns : role -> column, by name, by number from 0, by a pattern (``Target_*``) or a range
        of numbers (``2:``). The conductance may stand under current_a or resistance_ohm.
    unit : of values whose header says none: ``uS``, ``kohm``, ``A``; for single roles
        ``measured_s=uS,time_s=ms``.
    sheet : of an XLSX file; a group of an HDF5 file.
    read_voltage_v : turns currents into conductances.
    sample_period_s : between successive values of read noise that has no column of time.
    where : column -> value that rows must have.

    Raises
    ------
    InputError : unreadable, columns missing, units mixed, time going backwards, nothing left.
    UsageError : a wrong kind, key, column, sheet or unit.
    """
    kind_of(kind)
    paths = [path] if isinstance(path, (str, Path)) else list(path)
    if not paths:
        raise UsageError(f"calibrate {kind}", "no file is given", "give a file of measurements")
    if sample_period_s is not None and kind != "read-noise":
        raise UsageError(
            f"calibrate {kind} with a sample period", "only read noise is sampled evenly",
            "drop --sample-period; map times with time_s=NAME",
        )
    pieces = []
    for one in map(Path, paths):
        asked = f"read {kind} measurements from {one}"
        grid = read_grid(one, sheet=sheet)
        grid = _rows_where(grid, where, asked)
        roles = find_roles(grid, kind, columns, asked)
        points = melt(
            grid, kind, roles, asked, unit=unit, read_voltage_v=read_voltage_v,
            sample_period_s=sample_period_s,
        )
        pieces.append((one, len(grid.values), *_checked(points, kind, asked)))
    return _join(kind, pieces)


def _rows_where(grid: Grid, where: Mapping[str, str] | None, asked: str) -> Grid:
    keep = np.ones(len(grid.values), bool)
    for column, value in (where or {}).items():
        (number, *_) = find_columns(grid, column, f"use --where {column}={value}")
        try:
            keep &= grid.values[:, number] == float(value)
        except ValueError:
            texts = grid.texts.get(number, {})
            keep &= np.array([texts.get(row) == value for row in range(len(keep))])
        if not keep.any():
            raise InputError(
                asked, f"no row has {value} in column {grid.label(number)}",
                "give a value of that column to --where",
            )
    if keep.all():
        return grid
    rows = np.flatnonzero(keep)
    place = {int(row): k for k, row in enumerate(rows)}
    kept = {
        number: {place[row]: text for row, text in cells.items() if row in place}
        for number, cells in grid.texts.items()
    }
    return Grid(grid.names, grid.values[keep], grid.kinds[keep], kept, grid.first_line)


def _checked(points: Points, kind: str, asked: str) -> tuple[Points, dict[str, int]]:
    """Return the points that can be used and the count of the others, by reason.

    Raises InputError where too few are left, or what is left cannot be what it is called.
    """
    data = points.data
    n = len(next(iter(data.values())))
    none = np.zeros(n, bool)
    conductances = [data[name] for name in _CONDUCTANCES if name in data]
    zero = _clipped(data, kind)
    rules = {
        **points.bad,
        "not finite": ~np.isfinite(list(data.values())).all(axis=0),
        "conductance not positive": ~zero & np.any([g <= 0 for g in conductances], axis=0)
        if conductances else none,
        "time before zero": data["time_s"] < 0 if "time_s" in data else none,
    }
    keep, dropped = ~none, {}
    for reason, wrong in rules.items():
        if (count := int((wrong & keep).sum())) > 0:
            dropped[reason] = count
            keep &= ~wrong
    zeros = int((zero & keep).sum())
    lost = zeros + sum(count for reason, count in dropped.items() if reason != "empty")
    if not keep.any() or lost > _TOO_MANY * (lost - zeros + int(keep.sum())):
        reasons = {**dropped, "exactly zero": zeros} if zeros else dropped
        counts = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
        first = f" (such as {points.example})" if points.example else ""
        raise InputError(
            asked, f"{int(keep.sum()) - zeros} of {n} points can be used: {counts}{first}",
            "check --columns and the units, and mend the file",
        )
    data = {name: values[keep] for name, values in data.items()}
    _check_values(data, kind_of(kind).value, asked)
    if "initial_s" in kind_of(kind).tidy and "initial_s" not in data:
        first_of = np.unique(data["cell"], return_index=True, return_inverse=True)
        data["initial_s"] = data["conductance_s"][first_of[1][first_of[2]]]
    notes = list(points.notes)
    if zeros:
        notes.append(f"{zeros} reads are exactly zero: clipped there")
    if dropped.get("not a number") and points.example:
        notes.append(f"not a number: {points.example}")
    return dataclasses.replace(points, data=data, bad={}, notes=notes), dropped


def _clipped(data: Mapping[str, NDArray[np.float64]], kind: str) -> NDArray[np.bool_]:
    """Return which points read exactly zero, where so many do that it is an instrument's limit."""
    value = data[kind_of(kind).value]
    others = [data[name] for name in _CONDUCTANCES & data.keys() if name != kind_of(kind).value]
    zero = (value == 0) & np.all([g >= 0 for g in others], axis=0) if others else value == 0
    if kind not in _CLIPPED or zero.sum() < _FEW_ZEROS:
        return np.zeros(len(value), bool)
    return np.asarray(zero)


def _check_values(data: Mapping[str, NDArray[np.float64]], value: str, asked: str) -> None:
    for name in _CONDUCTANCES & data.keys():
        if np.median(data[name]) > _LARGEST_S:
            raise InputError(
                asked,
                f"{name} is {np.median(data[name]):.4g} S in the middle, no memristor's",
                "say the unit, such as --unit uS (or --unit A with --read-voltage)",
            )
        _check_one_unit(name, data[name], asked)
    if "time_s" in data and np.ptp(data["time_s"]) == 0:
        raise InputError(
            asked, f"every time is {data['time_s'][0]:g} s", "map the column that holds times"
        )
    if len(data[value]) > 1 and np.ptp(data[value]) == 0:
        raise InputError(
            asked, f"every {value} is {data[value][0]:g}: there is nothing to fit",
            "map the column that holds measurements",
        )


def _check_one_unit(name: str, values: NDArray[np.float64], asked: str) -> None:
    """Refuse values in two groups that lie a unit apart, as siemens and microsiemens do."""
    decades = np.sort(np.log10(values[values > 0]))
    if len(decades) < 2:
        return
    gap = int(np.diff(decades).argmax())
    share = min(gap + 1, len(decades) - gap - 1) / len(decades)
    if decades[gap + 1] - decades[gap] >= _DECADES and share > 0.02:
        raise InputError(
            asked,
            f"{name} mixes units: values up to {10 ** decades[gap]:.3g} S and from "
            f"{10 ** decades[gap + 1]:.3g} S, nothing between",
            "write all in one unit, or choose rows with --where",
        )


def _join(kind: str, pieces: list[tuple[Path, int, Points, dict[str, int]]]) -> Table:
    names = list(pieces[0][2].data)
    cell = next((name for name in ("cell", "ramp", "converter") if name in names), None)
    columns: dict[str, list[NDArray[np.float64]]] = {name: [] for name in names}
    dropped: dict[str, int] = {}
    offset, notes = 0.0, []
    for path, _, points, lost in pieces:
        if list(points.data) != names:
            raise InputError(
                f"read {kind} measurements from {path}",
                f"it has {', '.join(points.data)}, the file before has {', '.join(names)}",
                "give files of one layout together",
            )
        if points.unit != pieces[0][2].unit:
            raise InputError(
                f"read {kind} measurements from {path}",
                f"its output is in {points.unit}, that of the file before in {pieces[0][2].unit}",
                "give files of one unit together, or say --unit",
            )
        for name in names:
            columns[name].append(points.data[name] + (offset if name == cell else 0.0))
        if cell is not None:  # cells of another file are other cells
            offset = columns[cell][-1].max() + 1
        for reason, count in lost.items():
            dropped[reason] = dropped.get(reason, 0) + count
        notes += points.notes
    n_rows = sum(n for _, n, _, _ in pieces)
    source = Source(
        path=" + ".join(str(path) for path, *_ in pieces),
        sha256=" + ".join(_sha256(path) for path, *_ in pieces),
        n_rows=n_rows,
        date=dt.datetime.now(dt.UTC).strftime("%Y-%m-%d"),
    )
    joined = {name: np.concatenate(parts) for name, parts in columns.items()}
    unit = pieces[0][2].unit
    return Table(
        kind, joined, n_rows, dropped, source, tuple(dict.fromkeys(notes)),
        {"output": unit} if unit else {},
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
