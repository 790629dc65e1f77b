"""How right the chips are: accuracy over time, mistakes, signal and noise of every layer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from aimc_sim.pages.exhibits import NARROW, Exhibits, Record, Section, counted, draw, in_percent
from aimc_sim.pages.html import beside, details, figure, panels, table, text
from aimc_sim.plotting import plot_accuracy_over_time, plot_budget, plot_confusion
from aimc_sim.plotting.budgets import PLACES
from aimc_sim.units import format_time


def accuracy_section(record: Record) -> Section:
    """Return accuracy and logit error by time since programming, with the spread of chips."""
    name, title = "accuracy", "Accuracy over time"
    scores = record["accuracy"]
    labelled = scores["float"] is not None
    digital = (
        ("as trained", scores["float"], record["bounds"]["float"], 0.0),
        ("quantised", scores["quantized"], record["bounds"]["quantized"],
         record["quantized_error"]),
    )
    rows = [
        [said, *(_percents(share, bounds, None) if labelled else ()), in_percent(error), "-"]
        for said, share, bounds, error in digital
    ]
    for row, error in zip(scores["chip"], record["logit_error"], strict=True):
        bounds = (row["low"], row["high"])
        rows.append([
            f"chip, {format_time(row['at_s'])}",
            *(_percents(row["mean"], bounds, row["std"]) if labelled else ()),
            in_percent(error["relative_rms"]), str(error["diverged"]),
        ])
    heads = ["accuracy", "95 % interval", "+- chips"] if labelled else []
    said = (
        "Logit error: rms of chip minus float logits over that of the float logits. Diverged: "
        "pairs of chip and sequence without a finite answer, which count as wrong."
    )
    if labelled:
        said += " +- chips: standard deviation over chips, in points."
    found = table(("", *heads, "logit error", "diverged"), rows, "Chips over time")
    found += f'<p class="soft">{said}</p>'
    if not labelled:
        none = "<p>The data have no labels, so there is no accuracy.</p>"
        return name, title, none + found + _variations(record)
    said = ", ".join(
        f"{100 * row['mean']:.1f} % at {format_time(row['at_s'])}" for row in scores["chip"]
    )
    drawing = partial(plot_accuracy_over_time, record)
    plot = figure(
        draw(drawing, (5.6, 3.9)), "accuracy-plot",
        f"Accuracy of the chips: {said}. As trained {100 * scores['float']:.1f} %, quantised "
        f"{100 * scores['quantized']:.1f} %.",
        "Mean over chips with the 95 % interval of that mean over chips and sequences; small dots "
        "are single chips. With one chip the interval holds the sampling of the data alone.",
        narrow=draw(drawing, (NARROW, 3.9)),
    )
    return name, title, beside(plot, found + _variations(record))


def _percents(
    share: float, bounds: Sequence[float], spread: float | None
) -> Section:
    low, high = bounds
    return (
        f"{100 * share:.1f} %", f"{100 * low:.1f} .. {100 * high:.1f}",
        "-" if spread is None else f"{100 * spread:.1f}",
    )


def _variations(record: Record) -> str:
    """Return the tables of non-idealities switched off or on alone, where they were run."""
    found = ""
    for name, key, title in (
        ("ablation", "off", "Each non-ideality switched off alone"),
        ("budget", "on", "Each non-ideality switched on alone"),
    ):
        rows = [row for row in record.get(name) or () if row.get("layer") is None]
        if rows:
            found += table(
                ("", "accuracy", "points", "logit error"),
                [
                    (row[key], in_percent(row["mean"]),
                     "-" if row["change"] is None else f"{100 * row['change']:+.1f}",
                     in_percent(row["relative_rms"]))
                    for row in rows
                ],
                f"{title}, {format_time(rows[0]['at_s'])} after programming",
            )
    return found


def confusion_section(record: Record, shown: Exhibits) -> Section:
    """Return the confusion matrix at the last time and the most frequent mistakes."""
    name, title = "confusion", "Right and wrong answers"
    if shown.confusion is None:
        return name, title, "<p>The data have no labels, so nothing is right or wrong.</p>"
    counts = shown.confusion
    n = len(counts)
    wrong = counts.copy()
    wrong[np.arange(n), np.arange(n)] = 0
    order = np.argsort(-wrong, axis=None, kind="stable")[:10]
    rows = []
    for place in order:
        true, answer = divmod(int(place), n + 1)
        if wrong[true, answer]:
            said = "not finite" if answer == n else str(answer)
            rows.append(
                (str(true), said, str(wrong[true, answer]),
                 f"{100 * wrong[true, answer] / counts[true].sum():.1f} %")
            )
    when = format_time(record["accuracy"]["chip"][-1]["at_s"])
    right = int(np.trace(counts))
    alt = f"Confusion matrix of {n} classes: {right} of {int(counts.sum())} answers are right."
    if rows:
        alt += f" The most frequent mistake takes class {rows[0][0]} for {rows[0][1]}."
    plot = figure(
        draw(partial(plot_confusion, counts), (4.4, 3.7)), "confusion-plot", alt,
        f"All chips {when} after programming: of every true class, the share of each answer.",
    )
    mistakes = table(
        ("true class", "answered", "times", "of the class"), rows, "The most frequent mistakes"
    ) if rows else "<p>No answer is wrong.</p>"
    return name, title, beside(plot, mistakes)


def budget_section(record: Record, shown: Exhibits) -> Section:
    """Return signal and error of every layer, cause by cause."""
    name, title = "budget", "Signal and noise of every layer"
    found: Record | None = shown.budget
    if any(row.get("layer") is not None for row in record.get("budget") or ()):
        found = {**record, "budget_chips": record["n_chips"]}
    if found is None or not found["budget"]:
        return name, title, f"<p>Not there: {text(shown.why_not('budget'))}</p>"
    rows = [row for row in found["budget"] if row["layer"] is not None]
    causes = list(dict.fromkeys(row["cause"] for row in rows))
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    by_place = {(row["layer"], row["cause"]): row for row in rows}
    lines = [
        [layer, f"{by_place[layer, causes[0]]['signal_rms']:.3g}",
         *(in_percent(by_place[layer, cause]["relative_rms"]) for cause in causes)]
        for layer in layers
    ]
    alone = [row for row in rows if row["cause"] == "all" and row["layer"] != "all layers"]
    worst = max(alone or rows, key=lambda row: row["logit_rms"] or 0.0)
    few = "" if any(row.get("layer") for row in record.get("budget") or ()) else (
        " A small sample: --budget runs more, and puts the figures into report.json."
    )
    most = (
        f"By itself {worst['layer']} moves the logits most: {in_percent(worst['logit_rms'])} of "
        "their rms."
    )
    size = (max(NARROW, 1.8 + 0.34 * len(causes)), 2.6 + 0.3 * len(layers))
    plot = panels(
        [
            (draw(partial(plot_budget, found, where=place), size),
             f"Errors of {len(layers)} parts by {len(causes)} causes {said}. {most}")
            for place, (_, said) in PLACES.items()
        ],
        "budget-plot",
        "One part of the network on the chip with one cause alone, all else exact: rms error at "
        "the end of its layer and at the logits, in % of the signal there. Independent errors "
        f"add in squares. From {counted(found['budget_samples'], 'sequence')} on "
        f"{counted(found['budget_chips'], 'chip')}.{few}",
    )
    return name, title, plot + details(
        "Signal and errors as a table",
        table(("part", "signal rms", *causes), lines, "Error at the end of the part's layer"),
    )
