"""`aimc-sim run`: table, JSON, logits, folders, determinism."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.compiled
KEYS = {
    "schema",
    "version",
    "command",
    "hashes",
    "model",
    "chip",
    "form",
    "seed",
    "n_samples",
    "n_steps",
    "accuracy",
    "logit_error",
    "diverged",
    "tiles",
    "devices",
    "utilisation",
    "energy_j_per_inference",
    "latency_s_per_inference",
    "area_m2",
    "energy_breakdown_j",
    "wall_s",
}
FORMS = ("leapfrog", "delta", "direct", "digital")


def test_json_holds_what_the_contract_says(run_json, files):
    record = run_json("--at", "1h,0s", "--chips", 3, "--seed", 5)
    assert set(record) >= KEYS
    assert record["schema"] == "aimc-sim.run/1"
    assert record["hashes"] == {
        "model": hashlib.sha256((files / "tiny.pt").read_bytes()).hexdigest(),
        "data": hashlib.sha256((files / "data.npz").read_bytes()).hexdigest(),
        "chip": record["hashes"]["chip"],
    }
    assert (record["n_samples"], record["n_steps"], record["seed"]) == (20, 12, 5)
    assert (record["chip"], record["form"]) == ("pcm-nandakumar2019", "leapfrog")
    assert record["accuracy"]["float"] == pytest.approx(0.9)
    rows = record["accuracy"]["chip"]
    assert [row["at_s"] for row in rows] == [3600.0, 0.0]  # in the order of --at
    for row in rows:
        assert len(row["per_chip"]) == 3
        assert row["mean"] == pytest.approx(np.mean(row["per_chip"]))
        assert row["std"] == pytest.approx(np.std(row["per_chip"], ddof=1))
        assert 0 <= row["low"] <= row["mean"] <= row["high"] <= 1
    assert [row["at_s"] for row in record["logit_error"]] == [3600.0, 0.0]
    assert all(row["relative_rms"] > 0 for row in record["logit_error"])
    assert record["diverged"] == 0
    assert record["energy_j_per_inference"] > 0
    assert record["command"].startswith("aimc-sim run ")
    assert "--chips 3 --seed 5" in record["command"]


def test_ideal_chip_equals_the_float_model_in_every_form(cli, files, tmp_path):
    for form in FORMS:
        cli(
            "run",
            files / "tiny.pt",
            "--data",
            files / "data.npz",
            "--chip",
            "ideal",
            "--form",
            form,
            "--force",
            "--logits",
            "l.npz",
            "--quiet",
        )
        with np.load(tmp_path / "l.npz") as logits:
            exact, chip = logits["float"], logits["chip"]
        assert exact.shape == (20, 3)
        assert chip.shape == (3, 1, 20, 3)
        assert chip.dtype == np.float32
        assert np.abs(chip - exact).max() < 1e-5 * np.abs(exact).max()


def test_the_foreign_checkpoint_is_met_in_every_form(cli, shared, tmp_path):
    folder = shared / "models" / "mnist196"
    with np.load(folder / "io.npz") as reference:
        exact = reference["logits_f64"][:24]
    for form in FORMS:
        result = cli(
            "run",
            folder / "model.pt",
            "--norm",
            "post",
            "--disc",
            "zoh",
            "--pool",
            "mean",
            "--data",
            folder / "io.npz",
            "--chip",
            "ideal",
            "--json",
            "-",
            "--force",
            "--logits",
            "l.npz",
            "--form",
            form,
            "--limit",
            24,
        )
        assert json.loads(result.stdout)["n_samples"] == 24
        with np.load(tmp_path / "l.npz") as logits:
            assert np.abs(logits["float"] - exact).max() < 1e-9
            assert np.abs(logits["chip"] - exact).max() < 1e-4 * np.abs(exact).max()


def test_logits_are_given_for_every_time_and_chip_and_only_depend_on_the_seed(cli, files, tmp_path):
    def logits(*arguments):
        outputs = ("--logits", "l.npz", "--force")
        cli("run", files / "tiny.pt", "--data", files / "data.npz", *outputs, *arguments)
        with np.load(tmp_path / "l.npz") as found:
            return found["chip"]

    whole = logits("--at", "0s,1h", "--chips", 3)
    assert whole.shape == (2, 3, 20, 3)
    np.testing.assert_array_equal(whole, logits("--at", "0s,1h", "--chips", 3))
    np.testing.assert_array_equal(whole[1:, :2], logits("--at", "1h", "--chips", 2))
    np.testing.assert_array_equal(whole[::-1], logits("--at", "1h,0s", "--chips", 3))
    scale = np.abs(whole).max()
    prefix = logits("--at", "0s,1h", "--chips", 3, "--limit", 7)
    np.testing.assert_allclose(prefix, whole[:, :, :7], atol=1e-5 * scale)
    assert np.abs(logits("--at", "0s,1h", "--chips", 3, "--seed", 1) - whole).max() > 1e-3 * scale


def test_limit_does_not_change_the_calibration(run_json):
    record = run_json("--at", "0s", "--limit", 2)
    assert record["calibration"] == "the first 20 sequences of data.npz: scored rows were used"
    assert any("scored rows were used" in note for note in record["notes"])


def test_calibrate_overrides_the_scored_rows(run_json, files, tmp_path):
    x = np.random.default_rng(2).random((5, 12, 1)).astype(np.float32)
    np.savez(tmp_path / "own.npz", x=x)
    record = run_json("--at", "0s", "--calibrate", "own.npz")
    assert record["calibration"] == "5 sequences of own.npz"
    assert not any("scored rows" in note for note in record["notes"])


def test_without_labels_accuracies_are_null(cli, files):
    result = cli(
        "run",
        files / "tiny.pt",
        "--data",
        files / "unlabelled.npz",
        "--at",
        "0s",
        "--json",
        "-",
        "--ablate",
    )
    record = json.loads(result.stdout)
    assert record["accuracy"]["float"] is None
    assert record["accuracy"]["quantized"] is None
    assert record["accuracy"]["chip"] == [
        {"at_s": 0.0, "mean": None, "std": None, "low": None, "high": None, "per_chip": None}
    ]
    assert "has no labels y" in result.stderr
    assert "accuracy" not in result.stderr.split("note:")[0].split("switched off")[0]


def test_a_model_without_task_or_data_runs_on_a_probe_signal_and_says_so(cli, files):
    record = json.loads(
        cli("run", files / "tiny.pt", "--at", "0s", "--limit", 2, "--json", "-").stdout
    )
    assert record["data"] == "a probe signal"
    assert "no --data and the file names no task" in record["notes"][0]
    assert record["accuracy"]["float"] is None


def test_a_saved_model_runs_its_own_task(cli, digits_model):
    record = json.loads(cli("run", digits_model, "--limit", 40, "--at", "0s", "--json", "-").stdout)
    assert record["data"] == "task 'digits' (test split)"
    assert record["calibration"] == "64 training sequences of task 'digits'"
    assert record["accuracy"]["float"] > 0.9


def test_one_chip_has_no_spread(run_json):
    (row,) = run_json("--at", "0s")["accuracy"]["chip"]
    assert row["std"] is None
    assert row["low"] < row["mean"] < row["high"]


def test_table_shows_every_time_at_80_and_120_columns(cli, files, monkeypatch):
    for columns in (80, 120):
        monkeypatch.setenv("COLUMNS", str(columns))
        text = cli("run", files / "tiny.pt", "--data", files / "data.npz", "--chips", 2).stdout
        lines = text.splitlines()
        assert max(len(line) for line in lines) <= columns
        header = next(line for line in lines if "accuracy" in line)
        for word in ("+- chips", "95 % interval", "logit error", "diverged"):
            assert word in header  # not wrapped
        for start in ("as trained", "quantised", "chip, 0 s", "chip, 1 h", "chip, 1 d"):
            assert any(line.startswith(start) for line in lines)
        assert "modes outside the unit circle" in text
        assert "note: converter ranges from" in text


def test_quiet_leaves_notes_and_progress_out(cli, files):
    result = cli("run", files / "tiny.pt", "--data", files / "data.npz", "--at", "0s", "--quiet")
    assert "note:" not in result.stdout
    assert result.stderr == ""


def test_times_outside_the_card_warn_on_one_line(cli, files):
    result = cli(
        "run", files / "tiny.pt", "--data", files / "data.npz", "--at", "10y", "--chip", "cmo-hfox"
    )
    (line,) = result.stderr.splitlines()
    assert line.startswith("warning: ")
    assert "extrapolated" in line


def test_folder_is_complete_and_force_replaces_only_its_files(cli, files, tmp_path):
    arguments = (
        "run",
        files / "tiny.pt",
        "--data",
        files / "data.npz",
        "--at",
        "0s,1h",
        "--out",
        "new",
    )
    result = cli(*arguments, "--json", "r.json")
    names = {
        "report.html",
        "report.json",
        "table.txt",
        "chip.toml",
        "placement.png",
        "accuracy.png",
        "accuracy.svg",
    }
    assert {path.name for path in (tmp_path / "new").iterdir()} == names
    assert {path.name for path in tmp_path.iterdir()} == {"new", "r.json"}
    assert json.loads((tmp_path / "new" / "report.json").read_text()) == json.loads(
        (tmp_path / "r.json").read_text()
    )
    assert "as trained" in (tmp_path / "new" / "table.txt").read_text()
    assert "as trained" in result.stdout
    (tmp_path / "new" / "mine.txt").write_text("kept")
    refused = cli(*arguments, "--force", "--seed", 3, "--json", "new", code=2)
    assert "that is a folder" in refused.stderr
    cli(*arguments, "--force", "--seed", 3)
    assert json.loads((tmp_path / "new" / "report.json").read_text())["seed"] == 3
    assert {path.name for path in (tmp_path / "new").iterdir()} == names | {"mine.txt"}


def test_the_chip_of_a_run_can_be_run_again(run_json, files, tmp_path, cli):
    first = run_json("--at", "0s", "--out", "new", "--chip", "reram-wan2022")
    again = run_json("--at", "0s", "--chip", "new/chip.toml")
    assert again["hashes"]["chip"] == first["hashes"]["chip"]
    assert again["accuracy"] == first["accuracy"]
    assert again["logit_error"] == first["logit_error"]


def test_device_replaces_the_device_of_the_chip(run_json):
    record = run_json("--at", "0s", "--device", "cmo-hfox")
    assert record["chip"] == "cmo-hfox"
    record = run_json("--at", "0s", "--chip", "ideal", "--device", "cmo-hfox")
    assert record["chip"] == "ideal with cmo-hfox"
    assert record["logit_error"][0]["relative_rms"] > 1e-3  # the cells err
    assert record["quantized_error"] < 1e-5  # the converters do not


def test_saved_chips_answer_as_in_the_run(cli, files, tmp_path):
    from ssm.storage import load_chip

    cli(
        "run",
        files / "tiny.pt",
        "--data",
        files / "data.npz",
        "--at",
        "1h",
        "--chips",
        2,
        "--save-chip",
        "c.npz",
        "--logits",
        "l.npz",
    )
    programmed = load_chip(tmp_path / "c.npz")
    assert programmed.time_s == 0.0
    with np.load(files / "data.npz") as data, np.load(tmp_path / "l.npz") as logits:
        answer = programmed.wait(3600.0).infer(data["x"]).logits
        np.testing.assert_array_equal(answer, logits["chip"][0])


def test_precision_quantises_the_chip_and_not_the_reference(run_json):
    plain = run_json("--at", "0s", "--chip", "ideal")
    coarse = run_json("--at", "0s", "--chip", "ideal", "--precision", "mix=2,enc=2,dec=2")
    assert coarse["accuracy"]["float"] == plain["accuracy"]["float"]
    assert plain["quantized_error"] < 1e-5
    assert coarse["quantized_error"] > 1e-2
    assert coarse["model_facts"]["precision"] == {"mix": 2, "enc": 2, "dec": 2}


def test_ablation_and_budget_name_what_the_chip_suffers_from(run_json):
    record = run_json("--at", "1h", "--ablate", "--budget", "--chips", 2)
    names = ["1/f noise", "ADC", "DAC", "drift", "programming"]
    assert sorted(row["off"] for row in record["ablation"]) == names
    budget = [row for row in record["budget"] if row["layer"] is None]
    assert sorted(row["on"] for row in budget) == names
    together = record["logit_error"][0]["relative_rms"]
    assert all(0 < row["relative_rms"] < 2 * together for row in budget)
    assert all(len(row["per_chip"]) == 2 for row in record["ablation"])
    full = record["accuracy"]["chip"][-1]["mean"]
    assert all(row["change"] == pytest.approx(row["mean"] - full) for row in record["ablation"])
    assert record["calibration_reads"] > 0
    from aimc_sim.cli.outputs import as_text
    from aimc_sim.report import run_report

    before = record["accuracy"]["chip"][-1]["per_chip"]
    text = as_text(run_report({**record, "budget": []}))
    for row in record["ablation"]:  # both runs have the same draws: the spread is of differences
        first, second = (a - b for a, b in zip(row["per_chip"], before, strict=True))
        spread = f"{100 * abs(first - second) / 2**0.5:.1f}"
        (shown,) = re.findall(rf"^{row['off']} .*", text, re.M)
        assert shown.split("%")[1].split()[1] == spread
    record = run_json("--at", "0s", "--ablate", "--budget", "--chip", "ideal")
    assert record["ablation"] == []
    assert record["budget"] == []


def test_a_budget_has_every_layer_with_every_cause(cli, files):
    np.savez("many.npz", x=np.random.default_rng(4).random((70, 5, 1)))
    arguments = ("--data", "many.npz", "--at", "1h", "--budget", "--out", "out", "--json", "-")
    record = json.loads(cli("run", files / "tiny.pt", *arguments).stdout)
    rows = {
        (row["layer"], row["cause"]): row for row in record["budget"] if row["layer"] is not None
    }
    layers = ["encoder"]
    layers += [f"layer {n} {part}" for n in range(2) for part in ("A", "C", "mixing")]
    layers += ["decoder", "all layers"]
    causes = ["programming", "drift", "read noise", "DAC", "ADC", "all"]
    assert list(rows) == [(layer, cause) for layer in layers for cause in causes]
    assert all(row["relative_rms"] > 0 and row["logit_rms"] > 0 for row in rows.values())
    assert record["budget_samples"] == 64
    assert any("the first 64 of 70 sequences" in note for note in record["notes"])
    lines = Path("out/table.txt").read_text("utf-8").splitlines()
    assert max(map(len, lines)) <= 100
    for name in (*layers, *causes):
        assert any(name in line for line in lines)
    assert Path("out/budget.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_says_what_the_card_lacks_and_what_it_was_warned_of(cli, run_json, files):
    record = run_json("--at", "2y")
    assert not any("no relaxation part" in note for note in record["notes"])
    assert any("extrapolated" in note for note in record["notes"])
    assert not any("no programming part" in note for note in record["notes"])
    record = run_json("--at", "0s", "--chip", "ideal")
    assert not any("part:" in note for note in record["notes"])
    mapped = json.loads(cli("map", files / "tiny.pt", "--chip", "cmo-hfox", "--json", "-").stdout)
    assert [note.split(":")[0] for note in mapped["notes"] if note.startswith("no ")] == [
        "no telegraph part", "no white part of read noise",
    ]
    bare = files / "bare.toml"
    bare.write_text('[device]\nname = "bare"\ng_min_s = "0uS"\ng_max_s = "20uS"\n')
    mapped = json.loads(cli("map", files / "tiny.pt", "--chip", bare, "--json", "-").stdout)
    assert "no drift part: conductances do not drift" in mapped["notes"]
    aged = json.loads(cli("device", "cmo-hfox", "--at", "2y", "--cells", 2, "--json", "-").stdout)
    assert any("extrapolated" in note for note in aged["notes"])


def test_a_run_says_whom_to_cite(cli, files, run_json):
    record = run_json("--at", "0s", "--chip", "pcm-nandakumar2019")
    dois = [text.rsplit(", doi:")[-1] for text in record["cite"]]
    assert dois[:2] == ["10.1109/icecs46596.2019.8964852", "10.1038/s41467-020-16108-9"]
    assert "10.48550/arXiv.2206.11893" in dois
    assert [f"to cite: {text}" for text in record["cite"]] == record["notes"][-len(dois) :]
    from aimc_sim.cli.outputs import as_text
    from aimc_sim.report import run_report

    shown = as_text(run_report(record))
    assert "note: to cite: S. R. Nandakumar et al. 2019, doi:10.1109/icecs46596" in shown
    assert "note: to cite: A. Gu et al. 2022, doi:10.48550/arXiv.2206.11893" in shown


def test_a_run_says_how_wide_the_state_registers_are(cli, run_json, files):
    assert run_json("--at", "0s")["state_bits"] == 16
    assert run_json("--at", "0s", "--precision", "state=8")["state_bits"] == 8
    assert run_json("--at", "0s", "--chip", "ideal")["state_bits"] == "ideal"
    data = ("--data", files / "data.npz", "--at", "0s")
    assert "state registers of 16 bits" in cli("run", files / "tiny.pt", *data).stdout
    ideal = cli("run", files / "tiny.pt", *data, "--chip", "ideal").stdout
    assert "state registers in float32" in ideal


def test_a_folder_of_a_tasks_name_does_not_hide_the_task(cli, tmp_path):
    (tmp_path / "digits").mkdir()
    model = Path(__file__).parents[2] / "examples" / "models" / "s4d-digits.pt"
    options = ("--data", "digits", "--limit", 2, "--at", "0s", "--json", "-")
    record = json.loads(cli("run", model, *options).stdout)
    assert record["data"] == "task 'digits' (test split)"


def test_a_model_without_a_name_goes_by_that_of_its_file(cli, files, tmp_path):
    from ssm.checkpoint import load, save

    save(load(files / "tiny.pt").replace(name=""), tmp_path / "nameless.pt")
    record = json.loads(cli("map", "nameless.pt", "--json", "-").stdout)
    assert record["model"] == "nameless"


def test_map_counts_tiles_cells_and_conversions(cli, files, tmp_path):
    result = cli("map", files / "tiny.pt", "--json", "-", "--out", "new")
    record = json.loads(result.stdout)
    assert record["schema"] == "aimc-sim.map/1"
    assert {path.name for path in (tmp_path / "new").iterdir()} == {
        "report.json",
        "table.txt",
        "chip.toml",
        "placement.png",
        "placement.csv",
        "tiles-1.png",
        "tiles-2.png",
    }
    cells = {row["name"]: row["cells"] for row in record["arrays"]}
    assert cells == {
        "encoder": 2 * 4,
        "decoder": 2 * 4 * 3,
        # e1, e2, d1, d2 in single cells for 12 modes; C of 2 x 3 states and the skip, in pairs
        "layer 0 A": 48,
        "layer 0 C": 2 * 4 * 7,
        "layer 0 mixing": 2 * 4 * 8,
        "layer 1 A": 48,
        "layer 1 C": 2 * 4 * 7,
        "layer 1 mixing": 2 * 4 * 8,
    }
    assert record["devices"] == sum(cells.values())
    # encoder 4, and in each layer four products for 12 modes, 4 heads, 8 mixed
    assert record["conversions"] == {
        "per_step": 4 + 2 * (48 + 4 + 8),
        "at_end": 3,
        "state_products": 96,
    }
    with (tmp_path / "new" / "placement.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(int(row["used"]) for row in rows) == record["devices"]
    of_a = [row for row in rows if row["array"] == "layer 1 A"]
    assert [row["head"] for row in of_a] == [str(k // 3) for k in range(12)]
    assert {row["head"] for row in rows if row["array"] == "encoder"} == {""}
    digital = cli("map", files / "tiny.pt", "--form", "digital").stdout
    assert "in digital logic: A" in digital


def test_map_compares_layouts_and_says_why_one_is_refused(cli, files):
    arguments = ("map", files / "tiny.pt", "--chip", "cmo-hfox", "--compare")
    rows = json.loads(cli(*arguments, "--json", "-").stdout)["layouts"]
    assert [(row["layout"], row["idle"]) for row in rows] == [
        ("packed", "off"), ("head", "off"), ("head", "g_min")
    ]
    assert [row["tiles"] for row in rows] == [2, 9, 9]  # a tile for each of 2 x 4 heads, one more
    assert len({row["devices"] for row in rows}) == 1
    assert rows[0]["utilisation"] > rows[1]["utilisation"] == rows[2]["utilisation"]
    assert 0 < rows[1]["logit_error"] < rows[2]["logit_error"]
    assert all(row["energy_j"] > 0 for row in rows)
    assert 0 < rows[1]["step_s"] < rows[0]["step_s"]  # arrays of heads work at the same time
    shown = cli(*arguments, "--form", "digital").stdout
    assert re.search(r"head, idle cells off +- +- +- +- +- +-", shown)
    assert "A is in digital logic" in " ".join(shown.split())


def test_a_process_prints_json_alone_on_stdout(files, tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "aimc_sim.cli.main",
            "run",
            str(files / "tiny.pt"),
            "--data",
            str(files / "data.npz"),
            "--at",
            "0s",
            "--threads",
            "1",
            "--json",
            "-",
        ],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["command"] == (
        f"aimc-sim run {files / 'tiny.pt'} --data {files / 'data.npz'} --at 0s --threads 1 --json -"
    )
    assert "as trained" in done.stderr
    assert "\x1b" not in done.stderr  # no bar, no colours: not a terminal


def test_without_a_gpu_the_cpu_runs_and_one_line_says_so(cli, files):
    from ssm.engine import missing_gpu

    if missing_gpu() is None:
        pytest.skip("there is a GPU")
    common = ("run", files / "tiny.pt", "--data", files / "data.npz", "--json", "-", "--at", "0s")
    asked = cli(*common, "--engine", "cuda")
    record = json.loads(asked.stdout)
    assert record["engine"] == "cpu"
    told = "warning: the CPU runs this instead of a GPU: "
    assert len([line for line in asked.stderr.splitlines() if line.startswith(told)]) == 1
    silent = cli(*common, "--engine", "auto")
    assert "GPU" not in silent.stderr
    assert json.loads(silent.stdout)["accuracy"] == record["accuracy"]
