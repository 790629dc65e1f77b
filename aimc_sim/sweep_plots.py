"""Pictures of sweeps: `plot_sweep(dataset, ...) -> Axes`, labelled with units, never shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from aimc_sim.errors import UsageError, nearest
from aimc_sim.plotting import COLOURS
from aimc_sim.sweep.dataset import summarise
from aimc_sim.units import format_time

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes

_MARKERS = "os^Dv<>P"
_MOST_TICKS = 8  # values that are all named on the axis
_MOST_LINES = 16  # more cannot be told apart
_SHARES = ("accuracy", "float_accuracy")  # drawn in percent
_DECADES = 1.5  # a positive axis over more of them is logarithmic


def plot_sweep(
    found: xarray.Dataset,
    output: str,
    *,
    against: str,
    repeats: Sequence[str] = ("seed", "replica"),
    ax: Axes | None = None,
) -> Axes:
    """Return axes with an output over the values of a swept quantity.

    Lines are the other combinations of the sweep; a point is the mean over the repetitions, its
    bar the 95 % interval of that mean (Student's t), the dots are single repetitions.

    output : of the dataset. against : a coordinate of one dimension that does not repeat.
    Raises UsageError for a name that the dataset lacks, or for more lines than can be told apart.
    """
    repeats = tuple(name for name in repeats if name in found.dims)
    dim = _check(found, output, against, repeats)
    rows = summarise(found, output, repeats)
    # coordinates of other dimensions with more than one value tell the lines apart
    others = [
        str(name) for name, values in found.coords.items()
        if values.ndim == 1 and values.size > 1 and values.dims[0] not in (dim, *repeats)
    ]
    lines: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        lines.setdefault(tuple(row["at"][name] for name in others), []).append(row)
    if len(lines) > _MOST_LINES:
        raise UsageError(
            f"plot {output} against {against}", f"the sweep has {len(lines)} lines",
            f"select some first: found.sel(...); at most {_MOST_LINES} can be told apart",
        )
    if ax is None:
        ax = Figure(figsize=(6.4, 4.4), layout="constrained").subplots()
    scale = 100.0 if output in _SHARES else 1.0
    values = found[against].values
    numeric = values.dtype.kind in "iuf"
    places = {value: value if numeric else k for k, value in enumerate(values.tolist())}
    for number, (key, line) in enumerate(lines.items()):
        line = [row for row in line if row["mean"] is not None]
        x = np.array([places[row["at"][against]] for row in line], float)
        mean = scale * np.array([row["mean"] for row in line])
        half = [0.0 if row["high"] is None else row["high"] - row["mean"] for row in line]
        colour = COLOURS[number % len(COLOURS)]
        label = ", ".join(
            said(name, value) for name, value in zip(others, key, strict=True)
        )
        ax.errorbar(
            x, mean, scale * np.array(half), capsize=3, label=label or None, color=colour,
            marker=_MARKERS[number % len(_MARKERS)],
        )
        for row, place in zip(line, x, strict=True):
            single = scale * np.asarray(row["values"])
            ax.plot(np.full(len(single), place), single, ".", color=colour, alpha=0.35)
    if numeric:
        positive = np.all(values > 0) and np.log10(values.max() / values.min()) > _DECADES
        ax.set_xscale("log" if positive else "linear")
        if len(values) <= _MOST_TICKS:
            ax.set_xticks(values, [f"{value:g}" for value in values])
    else:
        ax.set_xticks(range(len(values)), [str(value) for value in values], rotation=20, ha="right")
    ax.set_xlabel(_with_unit(against, found[against].attrs.get("units", "1")))
    unit = "%" if output in _SHARES else found[output].attrs.get("units", "1")
    ax.set_ylabel(_with_unit(output, unit))
    ax.set_title(found.attrs.get("sweep", ""))
    if others:
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2, fontsize="small")
    return ax


def said(name: str, value: Any) -> str:
    """Return a coordinate as a person says it."""
    return format_time(value) if name == "at_s" else f"{name} {value}"


def _check(
    found: xarray.Dataset, output: str, against: str, repeats: Sequence[str]
) -> str:
    asked = f"plot {output} against {against}"
    for name, known in (
        (output, [str(key) for key in found.data_vars if found[key].dtype.kind in "iuf"]),
        (against, [str(key) for key, at in found.coords.items()
                   if at.ndim == 1 and at.dims[0] not in repeats]),
    ):
        if name not in known:
            guess = nearest(name, known)
            raise UsageError(
                asked, f"the sweep has no '{name}'" + (f" (nearest: '{guess}')" if guess else ""),
                f"choose one of {', '.join(known)}",
            )
    return str(found[against].dims[0])


def _with_unit(name: str, unit: str) -> str:
    return name if unit == "1" else f"{name} [{unit}]"
