"""A chip with one non-ideality, or one layer, changed at a time: rows for reports."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from aimc_sim.cli.outputs import ProgressBar
    from ssm.evaluate import Evaluation


def variation_rows(found: Evaluation, varied: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """Return a row for each non-ideality that was switched off or on alone, the costliest first.

    change : in accuracy against the full chip, or, switched on alone, against the float model.
    """
    from ssm.evaluate import accuracy, relative_rms

    sign = 1 if key == "off" else -1
    before = None
    if (scores := found.chip_accuracy()) is not None:
        before = scores[-1].mean() if key == "off" else found.float_accuracy()
    rows: list[dict[str, Any]] = []
    for name, answers in varied.items():
        score = None if found.y is None else accuracy(answers, found.y)
        mean = None if score is None else score.mean()
        rows.append(
            {
                key: name,
                "at_s": found.times_s[-1],
                "mean": mean,
                "change": None if mean is None else mean - before,
                "per_chip": score,
                "relative_rms": relative_rms(answers, found.float_logits),
            }
        )

    def gain(row: dict[str, Any]) -> tuple[float, float]:
        error = math.inf if row["relative_rms"] is None else row["relative_rms"]
        return sign * (row["change"] or 0.0), -sign * error

    return sorted(rows, key=gain, reverse=True)


def add_layer_budget(
    record: dict[str, Any], found: Evaluation, x: np.ndarray, bar: ProgressBar
) -> None:
    """Add to the record's budget what every layer does alone, at the last time.

    Rows of the whole model have layer None and are relative to the float model; those of a layer
    are relative to the run with exact weights and no converters.
    """
    from ssm.budget import signal_budget

    n, chips = found.chip_logits.shape[2], found.chip_logits.shape[1]
    at_s = found.times_s[-1]
    layers = signal_budget(
        found.deployment, x[:n], seed=record["seed"], chips=chips, at_s=at_s,
        on_progress=bar.update,
    )
    record["budget_samples"] = layers.n_samples
    whole = [{"layer": None, "cause": row["on"], **row} for row in record["budget"]]
    record["budget"] = whole + [{**asdict(share), "at_s": at_s} for share in layers.shares]
    if layers.n_samples < n and layers.shares:
        record["notes"].append(
            f"the budget of layers is of the first {layers.n_samples} of {n} sequences"
        )
