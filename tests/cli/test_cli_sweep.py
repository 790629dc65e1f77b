"""`aimc-sim sweep`: the table, the files, the picture, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

HEAD = 'model = "tiny.pt"\ndata = "data.npz"\nchip = "reram-wan2022"\nlimit = 6\n'


@pytest.fixture
def sweep(cli, files, tmp_path):
    """Run the sweep that a text describes, on the tiny model; in this process unless told."""
    for name in ("tiny.pt", "data.npz"):
        shutil.copy(files / name, tmp_path / name)

    def call(text, *arguments, code=0):
        (tmp_path / "s.toml").write_text(HEAD + text)
        return cli("sweep", "s.toml", "--processes", "1", *arguments, code=code)

    return call


@pytest.mark.compiled
def test_a_sweep_leaves_a_table_a_picture_and_results(sweep, tmp_path):
    text = 'chips = 2\nat = ["0s", "1h"]\n[grid]\n"adc.bits" = [4, 8]\n'
    result = sweep(text, "--plot", "s.png", "--json", "s.json")
    lines = result.stdout.splitlines()
    assert lines[1] == "8 tasks, 8 counted; results in s.nc"
    assert lines[3].split()[:3] == ["adc.bits", "at", "accuracy"]
    assert [line.split()[:3] for line in lines[5:9]] == [
        ["4", "0", "s"], ["4", "1", "h"], ["8", "0", "s"], ["8", "1", "h"]
    ]
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
    record = json.loads((tmp_path / "s.json").read_text())
    assert record["schema"] == "aimc-sim.sweep-report/1"
    assert record["dimensions"]["at_s"] == [0.0, 3600.0]
    assert [row["n"] for row in record["rows"]] == [2] * 4
    from aimc_sim.sweep.dataset import read

    found = read(tmp_path / "s.nc")
    assert found.accuracy.sizes == {"adc.bits": 2, "at_s": 2, "seed": 1, "replica": 2}
    again = sweep(text, "--json", "-")
    assert json.loads(again.stdout)["rows"] == record["rows"]
    assert read(tmp_path / "s.nc").identical(found)


@pytest.mark.compiled
def test_a_sweep_of_both_ends_with_a_on_tiles_against_digital_a_as_measured(sweep):
    text = 'chips = 2\n[grid]\nform = ["digital", "leapfrog", "direct"]\n"adc.bits" = [6, 8]\n'
    record = json.loads(sweep(text, "--json", "-").stdout)
    from aimc_sim.sweep.dataset import read

    found = read("s.nc").mean(("seed", "replica", "at_s"))
    assert len(record["verdicts"]) == 2
    for form, line in zip(("leapfrog", "direct"), record["verdicts"], strict=True):
        own, digital = (found.sel(form=name) for name in (form, "digital"))
        points = 100 * (own.accuracy - digital.accuracy)
        low, high = f"{points.values.min():+.2f}", f"{points.values.max():+.2f}"
        ratios = own.energy_j / digital.energy_j
        fold = [f"{value:.2g}" for value in (ratios.values.min(), ratios.values.max())]
        assert line.startswith(
            f"A on tiles ({form}) against digital A, all else alike, in 2 combinations: accuracy "
            + (low if low == high else f"{low} to {high}") + " points, energy of a sequence "
        )
        assert line.endswith((fold[0] if fold[0] == fold[1] else " to ".join(fold)) + " times")


@pytest.mark.compiled
def test_a_sweep_without_digital_a_prices_it_for_the_first_combination(sweep, cli):
    result = sweep('[grid]\nform = ["leapfrog", "direct"]\n', "--json", "s.json")
    (line,) = json.loads(Path("s.json").read_text())["verdicts"]
    mapped = cli("map", "tiny.pt", "--chip", "reram-wan2022", "--calibrate", "data.npz", "--json",
                 "-")
    text = json.loads(mapped.stdout)["costs"]["verdict"]["text"]
    first = line.removeprefix("first combination: ")
    assert first.split(" costs ")[0] == "A on tiles (leapfrog, decay on tiles)"
    # leakage differs: 12 steps here and 1,024 there
    of_digital = [each.split("digital A (")[1].split(":")[0] for each in (first, text)]
    assert of_digital[0] == of_digital[1] and "costs" in of_digital[0]
    assert line[:60] in " ".join(result.stdout.split())
    unknown = sweep('[set]\n"adc.bits" = "ideal"\n', "--out", "ideal.nc")
    assert "no verdict on A: an ideal converter has no energy" in unknown.stdout


@pytest.mark.compiled
def test_processes_are_used_unless_one_is_asked_for(sweep, cli, tmp_path):
    result = sweep("chips = 3\n", "--processes", "2")
    assert "3 tasks, 3 counted" in result.stdout
    # an early stop is that of the first five; all of them run at once here
    until = sweep("chips = 8\n", "--until", "99%", "--out", "u.nc")
    assert "8 tasks, 5 counted" in until.stdout


@pytest.mark.compiled
def test_failed_tasks_are_named_and_run_again_on_request(sweep, tmp_path, monkeypatch):
    def fail(task):
        if task["replica"] == 1:
            raise ValueError("bad luck")
        return dict.fromkeys(OUTPUTS, 0.5)

    from ssm import scoring
    from ssm.scoring import OUTPUTS

    real = scoring.score
    monkeypatch.setattr(scoring, "score", fail)
    result = sweep("chips = 2\n")
    assert "failed: 1 x ValueError: bad luck" in result.stdout
    assert "--retry" in result.stdout
    monkeypatch.setattr(scoring, "score", real)
    assert "bad luck" in sweep("chips = 2\n").stdout
    assert "failed:" not in sweep("chips = 2\n", "--retry").stdout


@pytest.mark.compiled
def test_a_sweep_of_which_every_task_fails_ends_with_an_error(sweep, monkeypatch):
    from ssm import scoring

    monkeypatch.setattr(scoring, "score", lambda task: 1 / 0)
    result = sweep("", code=3)
    assert "all its tasks failed: ZeroDivisionError: division by zero" in result.stderr


@pytest.mark.parametrize(
    ("text", "options", "code", "message"),
    [
        ("chps = 2\n", (), 3, "did you mean 'chips'?"),
        ('[grid]\n"adc.bits" = []\n', (), 2, "sweep adc.bits"),
        ("", ("--until", "0"), 2, "it is no share between 0 and 1"),
        ("", ("--until", "thin"), 2, "it is no share between 0 and 1"),
        ("chips = 4\n", ("--until", "1%"), 2, "give at least 5 chips or seeds"),
        ("", ("--processes", "0"), 2, "must be at least 1"),
        ("", ("--plot", "p.png"), 2, "every quantity of the sweep has one value"),
        ("", ("--against", "form"), 2, "there is no --plot"),
        ('[grid]\n"adc.bits" = [4, 5]\n', ("--plot", "p.png", "--against", "adc.bit"), 2,
         "did you mean 'adc.bits'?"),
        ("", ("--out", "s.csv"), 2, "give a name that ends in .nc"),
        ("", ("--cluster", "tcp://127.0.0.1:1"), 2, "one or the other"),
    ],
)
def test_wrong_usage_is_refused_in_three_parts(sweep, tmp_path, text, options, code, message):
    result = sweep(text, *options, code=code)
    assert message in result.stderr
    assert all(part in result.stderr for part in ("asked:", "found:", "to do:"))
    assert result.stdout == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.npz", "s.toml", "tiny.pt"]
