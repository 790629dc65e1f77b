"""Faults, pieces and write-verify as the command line lists them."""

from __future__ import annotations

import json

import numpy as np
import pytest

import ssm
from aimc_sim.cli.outputs import as_text
from aimc_sim.report import run_report
from aimc_sim.specs import ChipSpec

pytestmark = pytest.mark.compiled


@pytest.fixture
def faulty(tmp_path):
    """Name of a chip file with faults and weights on several cells."""
    spec = ChipSpec.preset("pcm-nandakumar2019").replace(
        faults={"stuck_low": 0.02, "stuck_high": 0.01, "dead_rows": 0.02},
        levels=16,
        slices=2,
        cells_per_weight=2,
    )
    spec.to_toml(tmp_path / "faulty.toml")
    return "faulty.toml"


def test_run_lists_faulty_cells_by_kind_as_the_mean_over_chips(run_json, cli, files, faulty):
    record = run_json("--chip", faulty, "--at", "0s", "--chips", 3, "--seed", 5, "--save-chip", "c")
    chips = ssm.load_chip("c").chip
    used = chips.layout.carries_weight()
    codes = chips.written.faults[:, used]
    assert record["faults"] == {
        "cells": record["devices"],
        "stuck_low": pytest.approx((codes == 1).sum() / 3),
        "stuck_high": pytest.approx((codes == 2).sum() / 3),
        "unconnected": pytest.approx((codes == 3).sum() / 3),
    }
    assert record["faults"]["stuck_low"] > 0
    assert record["writing"] is None
    shown = cli("run", files / "tiny.pt", "--data", files / "data.npz", "--chip", faulty).stdout
    assert "faulty cells a chip: " in shown
    assert f" unconnected of {record['devices']}" in shown


def test_a_chip_without_faults_lists_none(run_json, cli, files):
    record = run_json("--at", "0s")
    assert record["faults"] is None
    assert record["writing"] is None
    shown = cli("run", files / "tiny.pt", "--data", files / "data.npz", "--at", "0s").stdout
    assert "faulty" not in shown
    assert "pulses" not in shown


def test_faults_cost_accuracy_of_logits(run_json, tmp_path):
    errors = []
    for name, share in (("good", 0.0), ("bad", 0.1)):
        spec = ChipSpec.preset("pcm-nandakumar2019").replace(faults={"stuck_high": share})
        spec.to_toml(tmp_path / f"{name}.toml")
        record = run_json("--chip", f"{name}.toml", "--at", "0s", "--chips", 2)
        errors.append(record["logit_error"][0]["relative_rms"])
    assert errors[1] > 2 * errors[0]


def test_a_fault_map_that_does_not_fit_ends_with_exit_code_3(cli, files, tmp_path):
    np.savez(tmp_path / "map.npz", tile=np.zeros((1, 4, 4), np.int8))
    spec = ChipSpec.preset("ideal").replace(faults={"map": "map.npz"})
    spec.to_toml(tmp_path / "mapped.toml")
    result = cli(
        "run", files / "tiny.pt", "--data", files / "data.npz", "--chip", "mapped.toml", code=3
    )
    assert "read the fault map map.npz" in result.stderr
    assert "its 'tile' has shape (1, 4, 4), the model takes (1, 256, 256)" in result.stderr


def test_map_shows_the_pieces_of_a_weight_and_counts_their_cells(cli, files, faulty):
    one = json.loads(cli("map", files / "tiny.pt", "--json", "-").stdout)
    several = json.loads(cli("map", files / "tiny.pt", "--chip", faulty, "--json", "-").stdout)
    assert several["devices"] == 4 * one["devices"]
    assert several["conversions"] == one["conversions"]  # the currents are summed before the ADC
    assert [row["pieces"] for row in several["arrays"]] == [4] * len(several["arrays"])
    shown = cli("map", files / "tiny.pt", "--chip", faulty).stdout
    assert "4 pairs" in shown
    assert "4 cells" in shown
    assert "4 pairs" not in cli("map", files / "tiny.pt").stdout


@pytest.mark.parametrize(
    ("energy_j", "text"),
    [(2.5e-7, "write energy 250 nJ a chip"), (None, "unknown: the card has no voltages")],
)
def test_the_report_tells_what_write_verify_took(run_json, energy_j, text):
    record = run_json("--at", "0s")
    record["writing"] = {
        "cells": 100, "pulses_mean": 7.25, "pulses_95": 21, "failed": 1.5, "energy_j": energy_j
    }
    shown = " ".join(as_text(run_report(record)).split())
    assert "written in 7.2 pulses a cell (95 %: at most 21); failed cells a chip 1.5" in shown
    assert text in shown
