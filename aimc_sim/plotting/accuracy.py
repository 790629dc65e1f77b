"""Accuracy over time, and which class is taken for which."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from aimc_sim.plotting.look import (
    COLOURS,
    ON_DARK,
    ON_LIGHT,
    legend_below,
    new_axes,
    plain,
    time_axis,
    tip,
    write_title,
)
from aimc_sim.units import format_time

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike

_MOST_DOTS = 100  # chips drawn one by one
_MOST_FIGURES = 16  # classes up to which a cell of the confusion matrix holds its figure
_MOST_NAMES = 24  # classes that are all named on the axes


def plot_accuracy_over_time(record: Mapping[str, Any], *, ax: Axes | None = None) -> Axes:
    """Return axes with the chips' accuracy [%] over the time since programming.

    The band is the 95 % interval of the mean over chips and samples, the dots are chips (the
    first hundred). record : an `aimc-sim.run/1` record with labels. Time runs linearly up to the
    first time after zero and logarithmically from there.
    """
    ax = new_axes(ax)
    scores = record["accuracy"]
    rows = sorted(scores["chip"], key=lambda row: row["at_s"])
    times = [row["at_s"] for row in rows]
    mean = [100 * row["mean"] for row in rows]
    low, high = ([100 * row[side] for row in rows] for side in ("low", "high"))
    ax.fill_between(times, low, high, color=COLOURS[0], alpha=0.2, label="95 % interval")
    ax.plot(times, mean, "-", color=COLOURS[0])
    for k, row in enumerate(rows):
        label = plain(f"{record['chip']}, mean") if k == 0 else None
        (point,) = ax.plot(times[k], mean[k], "o", color=COLOURS[0], label=label)
        tip(
            point, f"{format_time(times[k])}: {mean[k]:.2f} %, 95 % interval {low[k]:.1f} .. "
            f"{high[k]:.1f} %",
        )
        if record["n_chips"] > 1:
            dots = [100 * share for share in row["per_chip"][:_MOST_DOTS]]
            ax.plot([row["at_s"]] * len(dots), dots, ".", color=COLOURS[0], alpha=0.5)
    for name, share, style, colour in (
        ("as trained", scores["float"], "-", COLOURS[1]),
        ("quantised", scores["quantized"], (0, (4, 4)), COLOURS[7]),
    ):
        line = ax.axhline(100 * share, color=colour, linestyle=style, label=name)
        tip(line, f"{name}: {100 * share:.2f} %")
    time_axis(ax, times)
    ax.set_ylabel("accuracy [%]")
    write_title(ax, plain(f"{record['model']}, form {record['form']}"))
    legend_below(ax)
    return ax


def plot_confusion(counts: ArrayLike, *, ax: Axes | None = None) -> Axes:
    """Return axes with the share of the answers [%] that every true class gets, rows add to 100.

    counts : (classes, classes + 1) of `ssm.evaluate.confusion`, rows true, columns answered; the
    last column, of answers that were not finite, is drawn where there are any.
    """
    table = np.asarray(counts)
    n = len(table)
    if not table[:, n:].any():
        table = table[:, :n]
    ax = new_axes(ax, 5.6, 4.8)
    total = table.sum(axis=1, keepdims=True)
    percent = 100 * table / np.maximum(total, 1)
    image = ax.pcolormesh(percent, cmap="cividis", vmin=0, vmax=100, rasterized=n > _MOST_NAMES)
    for (i, k), count in np.ndenumerate(table if n <= _MOST_FIGURES else table[:0]):
        if count:
            text = ax.text(
                k + 0.5, i + 0.5, f"{percent[i, k]:.0f}" if percent[i, k] >= 0.5 else "<1",
                ha="center", va="center", fontsize="small",
                color=ON_LIGHT if percent[i, k] > 50 else ON_DARK,
            )
            answer = f"answered {k}" if k < n else "not finite"
            tip(text, f"true {i}, {answer}: {count} of {total[i, 0]}")
    step = max(1, -(-n // _MOST_NAMES))
    places = np.arange(0, n, step)
    names = [str(k) for k in places]
    lost = table.shape[1] > n
    ax.set_xticks([*(places + 0.5), *([n + 0.5] if lost else [])], names + ["none"] * lost)
    ax.set_yticks(places + 0.5, names)
    ax.invert_yaxis()
    ax.set_aspect("equal")
    ax.set_xlabel("class answered")
    ax.set_ylabel("true class")
    ax.figure.colorbar(image, ax=ax).set_label("share of the true class [%]")
    return ax
