"""`aimc-sim calibrate`: a file in, a card out that other commands read."""

from __future__ import annotations

import json
import sys
import types

import numpy as np
import pytest

from aimc_sim.cards import ProgrammingSpec
from aimc_sim.specs import ChipSpec
from calibration.fit import Fit, Parameter, correlation_of, goodness


def moments(table, *, converged=True):
    """Return mean and standard deviation of the errors: the smallest fit there is."""
    error = 1e6 * (table["measured_s"] - table["target_s"])
    n, mean, std = len(error), error.mean(), error.std(ddof=1)

    def curve(value):
        return {"of": "g_us", "unit_s": 1e-6, "polynomial": [value]}

    return Fit(
        kind="programming",
        model="one normal",
        parameters={
            "mean": Parameter(mean, std / np.sqrt(n), "uS"),
            "sigma": Parameter(std, std / np.sqrt(2 * n), "uS"),
        },
        correlation=correlation_of(np.eye(2)),
        n=n,
        dropped=table.dropped,
        goodness=goodness(-n * np.log(std), 2, n, 1.0),
        part={"programming": ProgrammingSpec.model_validate(
            {"sigma": curve(std), "mean": curve(mean)})},
        converged=converged,
        residuals=(1e6 * table["target_s"], (error - mean) / std),
        x_label="target (uS)",
        g_range_s=(table["target_s"].min(), table["target_s"].max()),
        source=table.source,
    )


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A wide table of 200 writes at two targets, sigma 1 uS, and a fit of moments for it."""
    module = types.ModuleType("calibration.programming")
    module.fit_programming = moments
    monkeypatch.setitem(sys.modules, "calibration.programming", module)
    g = np.random.default_rng(4).normal([20, 60], 1.0, (200, 2))
    rows = "\n".join(f"{a:.6f},{b:.6f}" for a, b in g)
    (tmp_path / "lab.csv").write_text(f"Target_20uS,Target_60uS\n{rows}\n")
    return module


@pytest.mark.compiled
def test_the_card_is_used_at_once_by_device_and_run(cli, files, lab, tmp_path):
    cli("calibrate", "programming", "lab.csv", "--name", "mine", "--out", "device.toml")
    card = ChipSpec.from_toml(tmp_path / "device.toml").device
    assert (card.name, card.g_min_s, card.g_max_s) == ("mine", 20e-6, 60e-6)
    (line,) = card.provenance
    assert "lab.csv" in line and "aimc-sim calibrate programming lab.csv --name mine" in line
    record = json.loads(cli("device", "device.toml", "--cells", 5000, "--json", "-").stdout)
    row = record["rows"][0]
    # 5 standard errors of the 5,000 cells, and of the 400 writes
    assert 1e6 * row["programmed_std_s"] == pytest.approx(1.0, abs=5 / np.sqrt(800) + 0.05)
    run = cli("run", files / "tiny.pt", "--data", files / "data.npz", "--device", "device.toml",
              "--at", "0s", "--chips", 1, "--json", "-")
    assert json.loads(run.stdout)["chip"] == "mine"


def test_json_has_the_parameters_with_their_errors(cli, lab):
    record = json.loads(cli("calibrate", "programming", "lab.csv", "--json", "-").stdout)
    assert record["schema"] == "aimc-sim.calibrate/1"
    assert (record["kind"], record["n"]) == ("programming", 400)
    assert set(record["parameters"]["sigma"]) == {"value", "stderr", "unit"}
    assert {"goodness", "heldout", "model", "alternatives", "dropped", "source"} <= set(record)
    assert record["source"]["n_rows"] == 200


def test_a_base_keeps_its_other_parts(cli, lab, tmp_path):
    cli("calibrate", "programming", "lab.csv", "--base", "cmo-hfox", "--out", "d.toml")
    card = ChipSpec.from_toml(tmp_path / "d.toml").device
    base = ChipSpec.preset("cmo-hfox").device
    assert card.relaxation == base.relaxation and card.doi == base.doi
    assert card.programming != base.programming
    assert card.name == "cmo-hfox"
    cli("calibrate", "programming", "lab.csv", "--base", "d.toml", "--out", "d.toml", "--force")
    assert ChipSpec.from_toml(tmp_path / "d.toml").device.programming == card.programming


def test_the_report_is_a_folder_with_a_page_and_pictures(cli, lab, tmp_path):
    cli("calibrate", "programming", "lab.csv", "--report", "rep")
    assert {path.name for path in (tmp_path / "rep").iterdir()} == {
        "report.html", "report.txt", "report.json", "residuals.png",
    }
    assert "<svg" in (tmp_path / "rep" / "report.html").read_text()


def test_a_fit_that_did_not_converge_is_never_written(cli, lab, tmp_path):
    lab.fit_programming = lambda table: moments(table, converged=False)
    result = cli("calibrate", "programming", "lab.csv", "--out", "d.toml", "--report", "rep",
                 "--json", "r.json", code=3)
    assert "did not converge" in result.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"lab.csv"}


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("programing", "lab.csv"), 2, "did you mean 'programming'"),
        (("programming", "absent.csv"), 3, "there is no such file"),
        (("programming", "lab.csv", "--columns", "target_s"), 2, "KEY=VALUE"),
        (("programming", "lab.csv", "--columns", "target_s=0,target_s=1"), 2, "given twice"),
        (("programming", "lab.csv", "--columns", "target_s=0,measured_s=7"), 2, "no column '7'"),
        (("programming", "lab.csv", "--columns", "target_s=0"), 3, "no column is measured_s"),
        (("programming", "lab.csv", "--unit", "S"), 3, "no memristor's"),
        (("programming", "lab.csv", "--sheet", "x"), 2, "no sheets"),
        (("programming", "lab.csv", "--base", "pcm"), 2, "no preset has that name"),
        (("programming", "lab.csv", "--read-voltage", "soon"), 2, "soon"),
        (("programming", "lab.csv", "--sample-period", "0s"), 2, "not positive"),
        (("programming", "lab.csv", "--where", "Target_20uS=1"), 3, "no row has 1"),
    ],
)
def test_wrong_requests_are_refused_and_leave_nothing(cli, lab, tmp_path, arguments, code, text):
    result = cli("calibrate", *arguments, "--out", "d.toml", "--json", "r.json", code=code)
    assert text in result.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"lab.csv"}


def test_files_are_replaced_only_when_told(cli, lab, tmp_path):
    (tmp_path / "d.toml").write_text("precious")
    result = cli("calibrate", "programming", "lab.csv", "--out", "d.toml", code=2)
    assert "add --force" in result.stderr
    assert (tmp_path / "d.toml").read_text() == "precious"
    cli("calibrate", "programming", "lab.csv", "--out", "d.txt", code=2)
    cli("calibrate", "programming", "lab.csv", "--force", code=2)
