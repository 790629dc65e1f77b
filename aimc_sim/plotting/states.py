"""States over the steps of a sequence, on chips and without."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from aimc_sim.errors import InputError
from aimc_sim.plotting.look import COLOURS, is_narrow, legend_below, new_axes, write_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_CHIPS = 8  # drawn one by one
_NARROW_LETTERS = 16  # of a line of a lane's name in a narrow figure
_POINTS = 1500  # of a line; more steps are drawn as the span of each group


def plot_states(data: Mapping[str, Any], *, ax: Axes | None = None) -> Axes:
    """Return axes with states over the steps of one sequence, a lane for each state.

    Black the float model, coloured the chips (the first eight). A lane is as high as the largest
    value of its float state, which its label says.

    data : `names` (n,), `float` (n, time) and `chips` (chips, n, time), such as
        `ssm.traces.trace_states` returns; `title` where there is one.

    Raises InputError for shapes that disagree.
    """
    names, exact = list(data["names"]), np.asarray(data["float"], float)
    chips = np.asarray(data["chips"], float)
    if exact.ndim != 2 or len(names) != len(exact) or chips.shape[1:] != exact.shape:
        raise InputError(
            f"draw states of {len(names)} names",
            f"float has shape {exact.shape}, chips {chips.shape}",
            "give float (states, time) and chips (chips, states, time)",
        )
    ax = new_axes(ax, 6.4, 1.5 + 0.62 * len(names))
    shown = chips[:_MOST_CHIPS]
    several = f"{len(shown)} chips" if len(shown) > 1 else "chip"
    labels = []
    for lane, (name, own) in enumerate(zip(names, exact, strict=True)):
        largest = float(np.abs(own).max()) or 1.0
        for k, each in enumerate(shown[:, lane]):
            x, y = _thinned(np.clip(each / largest, -1.4, 1.4))
            ax.plot(
                x, 0.42 * y - lane, color=COLOURS[1], linewidth=1.2, alpha=0.9 if len(shown) < 3
                else 0.5, label=several if lane == k == 0 else None,
            )
        x, y = _thinned(own / largest)
        ax.plot(
            x, 0.42 * y - lane, color=COLOURS[7], linewidth=0.9, linestyle=(0, (5, 2)),
            label=None if lane else "float model",
        )
        lines = textwrap.wrap(name, _NARROW_LETTERS) if is_narrow(ax) else [name]
        labels.append("\n".join([*lines, f"+-{largest:.3g}"]))
    ax.set_yticks(-np.arange(len(names)), labels, fontsize="small")
    ax.set_ylim(0.35 - len(names), 0.65)
    ax.set_xlim(0, exact.shape[1] - 1 if exact.shape[1] > 1 else 1)
    ax.set_xlabel("step")
    ax.set_ylabel("state, in units of the input")
    write_title(ax, data.get("title", ""))
    legend_below(ax)
    return ax


def _thinned(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return steps and values of a line; of a long one the least and largest of each group."""
    x = np.arange(len(y))
    if len(y) <= _POINTS:
        return x, y
    size = -(-2 * len(y) // _POINTS)
    n = len(y) // size * size
    groups = y[:n].reshape(-1, size)
    ends = np.sort(np.stack([groups.argmin(axis=1), groups.argmax(axis=1)], axis=1), axis=1)
    kept = np.unique(np.concatenate([(ends + size * np.arange(len(groups))[:, None]).ravel(),
                                     x[n:], [0, len(y) - 1]]))
    return kept, y[kept]
