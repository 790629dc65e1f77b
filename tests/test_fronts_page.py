"""The published front says what its rows say, and its rows what the models are."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

DOCS = Path(__file__).parent.parent / "docs"
ROWS = [json.loads(line) for line in (DOCS / "fronts.jsonl").read_text().splitlines()]
SMNIST = [row for row in ROWS if row["task"] == "smnist"]


def mean(row):
    return float(np.mean(row["test"]))


def test_a_design_is_100_times_less_work_and_30_times_smaller_within_a_point():
    base = next(
        row for row in SMNIST if (row["shape"], row["precision"]) == ("2x64x64", "float")
    )
    assert base["n_test"] == 10_000 and mean(base) > 0.994
    there = [
        row for row in SMNIST
        if base["bops_per_step"] >= 100 * row["bops_per_step"]
        and base["memory_bits"] >= 30 * row["memory_bits"]
        and mean(row) >= mean(base) - 0.01
    ]
    assert there
    page = (DOCS / "fronts.md").read_text("utf-8")
    assert all(row["precision"] in page and row["shape"] in page for row in there)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['task']}-{row['shape']}")
def test_sizes_of_a_row_are_those_of_a_model_of_its_shape(row):
    from ssm import start_models
    from ssm.compact import in_single_precision
    from ssm.complexity import measure
    from ssm.fronts import named_precision

    if row["keep"] < 1:
        pytest.skip("heads of a pruned model have sizes of their own")
    n_layers, n_heads, n_states = map(int, row["shape"].split("x"))
    d_input = {"smnist": 1, "fsdd": 32}[row["task"]]
    (model,) = start_models(
        [0], d_input=d_input, n_classes=10, n_heads=n_heads, n_states=n_states,
        n_layers=n_layers, norm=row["norm"],
    )
    bits = None if row["precision"] == "float" else named_precision(row["precision"]).given()
    trained = [  # norms start at 1 and 0, which float16 holds
        replace(each, norm_scale=each.norm_scale / 3, norm_shift=each.norm_shift + 1 / 3)
        for each in model.layers
    ]
    model = model.replace(layers=tuple(trained))
    found = measure(in_single_precision(model).replace(precision=bits))
    # what training adds: steps of every state, of encoder, decoder and two of every layer
    learned = {
        row["states"] * (width - 5) + 16 * (2 + 2 * n_layers) if bits else 0 for width in (8, 16)
    }
    n_biases = (2 + (2 if row["norm"] != "none" else 0)) * n_layers * n_heads + n_heads + 10
    assert row["scale_bits"] - found["scale_bits"] in learned
    assert found["weight_bits"] - row["weight_bits"] in {0, 16 * n_biases if bits else 0}
    parts = ("weight_bits", "state_bits", "scale_bits")
    assert row["memory_bits"] == sum(row[part] for part in parts)
    for name in found.keys() - {"weight_bits", "scale_bits", "memory_bits"}:
        assert row[name] == found[name]
