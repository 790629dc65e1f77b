"""Faults, pieces and write-verify as the command line lists them."""

from __future__ import annotations

import hashlib
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


def test_the_report_has_the_hash_of_a_fault_map(run_json, tmp_path):
    codes = {kind: np.zeros((1, rows, 256), np.int8) for kind, rows in
             (("tile", 256), ("short_tile", 2))}
    codes["tile"][0, :4, :8] = 2
    np.savez(tmp_path / "map.npz", **codes)
    spec = ChipSpec.preset("ideal").replace(faults={"map": "map.npz"})
    spec.to_toml(tmp_path / "mapped.toml")
    record = run_json("--chip", "mapped.toml", "--at", "0s")
    digest = hashlib.sha256((tmp_path / "map.npz").read_bytes()).hexdigest()
    assert record["hashes"]["fault_map"] == digest
    assert 0 < record["faults"]["stuck_high"] <= 32
    assert record["quantized_error"] < record["logit_error"][0]["relative_rms"]


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


def test_saving_chips_warns_of_their_writing_once_and_as_one_line(run_json, cli, files, tmp_path):
    curve = {"of": "g_us", "unit_s": 1e-6, "polynomial": [1.0]}
    down = {**curve, "polynomial": [-1.0]}
    pulses = {"set_mean": curve, "set_sigma": curve, "reset_mean": down, "reset_sigma": curve}
    spec = ChipSpec.preset("pcm-nandakumar2019").replace(**{"device.pulses": pulses})
    spec.replace(write={"tolerance_s": 0.1e-6, "max_pulses": 20}).to_toml(tmp_path / "loop.toml")
    result = cli(
        "run", files / "tiny.pt", "--data", files / "data.npz", "--chip", "loop.toml", "--at",
        "0s", "--save-chip", "chips.npz", "--json", "run.json",
    )
    assert result.stderr.count("the noise decides when it ends") == 1
    assert "UserWarning" not in result.stderr
    record = json.loads((tmp_path / "run.json").read_text())
    assert sum("the noise decides when it ends" in note for note in record["notes"]) == 1
    writing = record["writing"]
    assert sum(writing["pulses"]) == pytest.approx(writing["cells"])
    assert writing["pulses_median"] <= writing["pulses_95"] < len(writing["pulses"]) == 21
    failed = ssm.load_chip(tmp_path / "chips.npz").chip.written.failed
    assert writing["failed"] == failed.sum()


def test_the_temperature_of_a_chip_is_in_its_report(run_json, cli, files, tmp_path):
    spec = ChipSpec.preset("pcm-nandakumar2019")
    warm = spec.replace(**{"device.drift.activation_energy_ev": 0.5}, temperature_k=340.0)
    warm.to_toml(tmp_path / "warm.toml")
    assert run_json("--at", "0s")["temperature_k"] is None
    record = run_json("--at", "0s", "--chip", "warm.toml", "--form", "digital")
    assert record["temperature_k"] == 340.0
    shown = as_text(run_report(record))
    assert "\nkept at 340 K\n" in shown
    assert "modes of A in digital logic" in shown
    text = spec.to_toml().replace("[device]", "temperature_k = 340.0\n\n[device]", 1)
    (tmp_path / "unknown.toml").write_text(text)
    result = cli(
        "run", files / "tiny.pt", "--data", files / "data.npz", "--chip", "unknown.toml", code=3
    )
    assert "has no data at 340 K" in result.stderr


def test_a_chip_that_writes_by_pulses_does_not_say_that_cells_are_exact():
    from aimc_sim.cli.options import device_notes
    from aimc_sim.specs import ChipSpec

    response = {"unit_s": 1e-6, "polynomial": [1.0]}
    back = {"unit_s": 1e-6, "polynomial": [-1.0]}
    pulses = {
        "set_mean": response, "set_sigma": response, "reset_mean": back, "reset_sigma": response
    }
    one_shot = ChipSpec.preset("pcm-nandakumar2019").replace(
        name="pulsed", **{"device.programming": None, "device.pulses": pulses}
    )
    note, *_ = device_notes(one_shot)
    assert note.startswith("no programming part: cells are programmed exactly, except by pulses")
    note, *_ = device_notes(one_shot.replace(write={"tolerance_s": 1e-6}))
    assert note.startswith("cells are written by pulses and verified")
