"""Every example runs as its first lines say."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def run_example(name, *options, monkeypatch):
    monkeypatch.setattr(sys, "argv", [name, *options])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def test_training_writes_a_model_that_loads(tmp_path, monkeypatch):
    import ssm

    path = tmp_path / "model.pt"
    run_example("01_train_digits.py", "--epochs", "1", "--out", str(path), monkeypatch=monkeypatch)
    assert ssm.load(path).task == "digits"


@pytest.mark.compiled
def test_forms_of_a_are_compared_on_sampled_chips(capsys, monkeypatch):
    options = ["--model", str(EXAMPLES / "models" / "s4d-digits.pt"), "--chips", "2"]
    run_example("02_forms_of_a.py", *options, "--limit", "40", monkeypatch=monkeypatch)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["direct", "delta", "leapfrog", "digital"]
    day = {line.split()[0]: float(line.split()[7]) for line in lines[2:]}
    assert day["direct"] < 40 < day["leapfrog"]
    assert "0 of 384" in lines[4]


def test_the_noise_of_a_run_is_compared_with_its_card(capsys, monkeypatch):
    run_example("07_noise_spectrum.py", monkeypatch=monkeypatch)
    lines = capsys.readouterr().out.splitlines()
    frequency = [float(text) for text in lines[1].split()[1:]]
    level = {int(line.split()[1]): [float(text) for text in line.split()[3:]] for line in lines[2:]}
    assert frequency[:3] == [1e-5, 1e-4, 1e-3]
    assert all(abs(value) < 0.6 for row in level.values() for value in row[:3])


def test_wires_are_shown_to_cost_current_and_noise_to_be_followed(capsys, monkeypatch):
    run_example("08_wires.py", monkeypatch=monkeypatch)
    lines = capsys.readouterr().out.splitlines()
    lost = {int(line.split()[0]): float(line.split()[1]) for line in lines[2:5]}
    assert lost[16] == pytest.approx(1.0, abs=0.1) and 12 < lost[64] < 13
    assert all(float(line.split()[-4]) < float(line.split()[-2]) for line in lines[8:])


@pytest.mark.compiled
def test_compensations_of_drift_are_compared_over_time(capsys, monkeypatch):
    options = ["--model", str(EXAMPLES / "models" / "s4d-digits.pt"), "--chips", "2"]
    run_example("03_drift.py", *options, "--limit", "60", monkeypatch=monkeypatch)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["none", "global", "column", "affine"]
    assert [int(line.split()[-1]) for line in lines[2:]] == [0, 20, 1400, 1400]
    month = {line.split()[0]: float(line.split()[-4]) for line in lines[2:]}
    assert month["none"] < 30 < 80 < month["global"]


def test_every_example_has_a_test():
    tested = Path(__file__).read_text("utf-8")
    assert all(path.name in tested for path in EXAMPLES.glob("*.py"))
