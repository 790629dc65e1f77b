"""What a model costs on a chip and in logic, and designs by cost and accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from aimc_sim.cost_report import with_prefix
from aimc_sim.errors import InputError
from aimc_sim.plotting.look import (
    COLOURS,
    EDGE,
    MARKERS,
    is_narrow,
    legend_below,
    new_axes,
    plain,
    tip,
    write_title,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# kind -> colour and hatch, the same in every plot; memories are hatched
_LOOKS: dict[str, tuple[str, str]] = {
    "ADC": (COLOURS[0], ""), "DAC": (COLOURS[5], ""), "cells": (COLOURS[1], ""),
    "lines": (COLOURS[4], ""), "logic": (COLOURS[2], ""), "buffers": (COLOURS[3], ""),
    "states": (COLOURS[3], "//"), "weights": (COLOURS[3], ".."), "memory": (COLOURS[3], "xx"),
    "leakage": (COLOURS[6], ""),
}


def plot_energy(record: Mapping[str, Any], *, ax: Axes | None = None) -> Axes:
    """Return axes with the energy by kind of a sequence (or step), beside the same model in logic.

    record : of `aimc-sim.run/1` or `aimc-sim.map/1` whose costs are known.
    Raises InputError where they are not.
    """
    costs = _costs_of(record)
    bars = {record["chip"]: record["energy_breakdown_j"]["kind"]}
    for name, kinds in costs["in_logic_breakdown_j"].items():
        bars[f"in logic, {name}"] = kinds
    ax = _stack(bars, "J", ax)
    ax.set_xlabel(f"energy of a {costs['of']} [{ax.get_xlabel()}]")
    write_title(ax, plain(f"{record['model']} at {costs['node_nm']:g} nm"))
    return ax


def plot_area(record: Mapping[str, Any], *, ax: Axes | None = None) -> Axes:
    """Return axes with the area of the chip by kind, logic left out.

    record : as for `plot_energy`.
    """
    costs = _costs_of(record)
    kinds = {name: 1e6 * area for name, area in costs["area_m2"].items()}
    ax = _stack({record["chip"]: kinds}, "mm2", ax)
    ax.set_xlabel("area [mm2]")
    write_title(ax, f"area at {costs['node_nm']:g} nm, without logic")
    return ax


def _costs_of(record: Mapping[str, Any]) -> Mapping[str, Any]:
    costs: Mapping[str, Any] | None = record.get("costs")
    if costs is None:
        raise InputError(
            f"draw the costs of '{record.get('model')}' on '{record.get('chip')}'",
            "the record has none; its notes say why",
            "give the chip's converters a number of bits, and ADCs of at least 4",
        )
    return costs


def _stack(bars: Mapping[str, Mapping[str, float]], unit: str, ax: Axes | None) -> Axes:
    """Return axes with a bar for each mapping kind -> value, its parts one after the other."""
    ax = new_axes(ax, 6.4, 1.9 + 0.42 * len(bars))
    most = max((sum(kinds.values()) for kinds in bars.values()), default=0.0) or 1.0
    factor, prefix = _prefix(most) if unit == "J" else (1.0, "")
    kinds = [kind for kind in _LOOKS if any(own.get(kind) for own in bars.values())]
    left = np.zeros(len(bars))
    for kind in kinds:
        colour, hatch = _LOOKS[kind]
        for k, (name, own) in enumerate(bars.items()):
            value = own.get(kind, 0.0)
            (bar,) = ax.barh(
                k, factor * value, left=left[k], color=colour, hatch=hatch, edgecolor=EDGE,
                linewidth=0.5, height=0.62, label=kind if k == 0 else None,
            )
            share = 100 * value / sum(own.values()) if value else 0.0
            tip(bar, f"{name}, {kind}: {_said(value, unit)}, {share:.3g} %")
            left[k] += factor * value
    for k, own in enumerate(bars.values()):
        ax.annotate(
            _said(sum(own.values()), unit), (left[k], k), xytext=(4, 0),
            textcoords="offset points", va="center", fontsize="small",
        )
    ax.set_yticks(range(len(bars)), [plain(name) for name in bars])
    ax.set_ylim(len(bars) - 0.5, -0.5)
    ax.set_xlim(0, (1.6 if is_narrow(ax) else 1.22) * factor * most)  # room for the figures
    ax.set_xlabel(f"{prefix}{unit}")
    legend_below(ax, 4)
    return ax


def _said(value: float, unit: str) -> str:
    return with_prefix(value, unit) if unit == "J" else f"{value:.3g} {unit}"


def _prefix(largest: float) -> tuple[float, str]:
    """Return the factor and the SI prefix that make the largest value 1 to 1000."""
    for prefix, size in (("", 1.0), ("m", 1e-3), ("u", 1e-6), ("n", 1e-9)):
        if largest >= size:
            return 1 / size, prefix
    return 1e12, "p"


def pareto_set(cost: Sequence[float], score: Sequence[float]) -> list[int]:
    """Return the numbers of the designs that no other beats, by falling score.

    Another beats a design where it costs no more and scores no less, and is not its equal.

    Examples
    --------
    >>> pareto_set([1.0, 2.0, 2.0, 3.0], [0.8, 0.9, 0.7, 0.9])
    [1, 0]
    """
    order = sorted(range(len(cost)), key=lambda k: (-score[k], cost[k]))
    kept: list[int] = []
    for k in order:
        best = kept[-1] if kept else None
        if best is None or cost[k] < cost[best] or (cost[k], score[k]) == (cost[best], score[best]):
            kept.append(k)
    return kept


def plot_pareto(
    data: Sequence[Mapping[str, Any]], *, ax: Axes | None = None, cost: str = "energy_j",
    label: str = "energy of a sequence [J]",
) -> Axes:
    """Return axes with the accuracy of designs [%] over what they cost, the Pareto set joined.

    data : a row for each design: `name`, the cost, `accuracy`; `low` and `high`, bounds of the
        accuracy, where known; `group`, whose designs share a colour. cost : which field;
        label : what it is, with its unit. Positive costs over more than a decade are drawn in
        logs.

    Raises InputError where there is no design with a cost and an accuracy.
    """
    rows = [row for row in data if row.get(cost) is not None and row.get("accuracy") is not None]
    if not rows:
        raise InputError(
            "draw designs by cost and accuracy", f"none of {len(data)} has `{cost}` and `accuracy`",
            "give rows with both",
        )
    ax = new_axes(ax)
    costs = [float(row[cost]) for row in rows]
    scores = [100 * float(row["accuracy"]) for row in rows]
    best = pareto_set(costs, scores)
    groups = list(dict.fromkeys(row.get("group", "") for row in rows))
    steps = sorted(best, key=lambda k: costs[k])
    ax.step(
        [costs[k] for k in steps], [scores[k] for k in steps], where="post", color=COLOURS[7],
        linewidth=1, label="Pareto set",
    )
    named = set()
    for k, row in enumerate(rows):
        number = groups.index(row.get("group", ""))
        colour = COLOURS[number % 7]
        if row.get("low") is not None:
            ax.plot(
                [costs[k]] * 2, [100 * row["low"], 100 * row["high"]], color=colour, linewidth=1
            )
        (point,) = ax.plot(
            costs[k], scores[k], MARKERS[number % len(MARKERS)], color=colour, markersize=6,
            markeredgecolor=COLOURS[7] if k in best else colour,
            label=plain(groups[number]) if groups[number] and number not in named else None,
        )
        named.add(number)
        tip(point, f"{row['name']}: {scores[k]:.2f} %, {costs[k]:.3g}")
        ax.annotate(
            plain(row["name"]), (costs[k], scores[k]), xytext=(5, 4), textcoords="offset points",
            fontsize="x-small",
        )
    if min(costs) > 0 and max(costs) > 10 * min(costs):
        ax.set_xscale("log")
    ax.margins(x=0.12, y=0.1)
    ax.set_xlabel(label)
    ax.set_ylabel("accuracy [%]")
    legend_below(ax)
    return ax
