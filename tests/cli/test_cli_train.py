"""`train` and `quantize` leave models that `run` reads, and refuse what they cannot do."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ssm

TINY = ["--heads", "4", "--states", "4", "--layers", "1", "--device", "cpu"]


@pytest.mark.compiled
def test_a_new_model_is_trained_tuned_and_rounded(cli, files):
    data = files / "data.npz"
    said = cli("train", data, "--out", "float.pt", "--epochs", "2", *TINY)
    assert "epoch 2/2" in said.stderr and "float.pt:" in said.stdout
    cli("train", data, "--from", "float.pt", "--precision", "a=8,c=4,state=8,act=6",
        "--out", "tuned.safetensors", "--epochs", "1", "--device", "cpu")
    tuned = ssm.load("tuned.safetensors")
    assert tuned.precision == {"a": 8, "c": 4, "state": 8, "act": 6}
    assert tuned.layers[0].state_step is not None
    cli("train", data, "--from", "float.pt", "--chip", "cmo-hfox", "--at", "1h",
        "--decay", "digital", "--digital", "encoder, decoder", "--ramp", "0.5",
        "--out", "chip.pt", "--epochs", "1", "--device", "cpu")
    said = cli("quantize", "float.pt", "--precision", "c=4", "--out", "rounded.pt")
    assert "bits of c 4" in said.stdout
    assert ssm.load("rounded.pt").precision == {"c": 4}


def test_a_stopped_training_in_float_goes_on_with_the_same_result(cli, files, monkeypatch):
    module = importlib.import_module("ssm.train")
    data, kept = files / "data.npz", ["--checkpoint", "state.pt"]
    settings = ["--epochs", "3", *TINY]
    cli("train", data, "--out", "whole.pt", *settings)
    write = module.write_state

    def write_and_stop(path, belongs_to, state):
        write(path, belongs_to, state)
        if state["epoch"] == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "write_state", write_and_stop)
    cli("train", data, "--out", "resumed.pt", *settings, *kept, code=130)
    monkeypatch.setattr(module, "write_state", write)
    said = cli("train", data, "--out", "resumed.pt", *settings, *kept).stderr
    assert "the training in state.pt goes on after its last whole epoch" in said
    assert "epoch 3/3" in said and "epoch 2/3" not in said
    whole, resumed = ssm.load("whole.pt"), ssm.load("resumed.pt")
    assert np.array_equal(whole.encoder_weight, resumed.encoder_weight)
    assert np.array_equal(whole.layers[0].pole, resumed.layers[0].pole)


_KILLED = """
import os, signal, sys
import ssm.tune as module
from aimc_sim.cli.main import app

write = module.write_state

def write_and_die(path, belongs_to, state):
    write(path, belongs_to, state)
    if state["epoch"] == 2:
        os.kill(os.getpid(), signal.SIGKILL)

module.write_state = write_and_die
app(sys.argv[1:])
"""


@pytest.mark.compiled
def test_a_tuning_that_was_killed_goes_on_with_the_same_result(cli, files, tmp_path):
    """SIGKILL lets no process tidy up: what counts is what lay on the disk."""
    common = ["train", str(files / "data.npz"), "--from", str(files / "tiny.pt"), "--epochs", "3",
              "--chip", "reram-wan2022", "--ramp", "0.5", "--device", "cpu", "--batch", "8"]
    cli(*common, "--out", "whole.pt")
    killed = [*common, "--out", "resumed.pt", "--checkpoint", "state.pt"]
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, *killed], cwd=tmp_path, check=False, capture_output=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state.pt", "whole.pt"]
    said = cli(*killed).stderr
    assert "epoch 3/3" in said and "epoch 2/3" not in said
    whole, resumed = ssm.load("whole.pt"), ssm.load("resumed.pt")
    for a, b in zip(whole.layers, resumed.layers, strict=True):
        for name in ("pole", "readout", "mix_weight", "skip"):
            assert np.array_equal(getattr(a, name), getattr(b, name)), name


@pytest.mark.parametrize(
    ("arguments", "code", "found"),
    [
        (["digits", "--out", "m.txt"], 2, "names no model format"),
        (["digits", "--out", "absent/m.pt"], 2, "there is no folder"),
        (["digits", "--out", "m.pt", "--chip", "ideal"], 2, "there is no --from"),
        (["digit", "--out", "m.pt"], 2, "did you mean 'digits'"),
        (["digits", "--out", "m.pt", "--epochs", "0"], 2, "at least 1"),
        (["absent.npz", "--out", "m.pt"], 3, "there is no such file"),
    ],
)
def test_bad_requests_are_refused(cli, arguments, code, found):
    assert found in cli("train", *arguments, code=code).stderr


@pytest.mark.parametrize(
    ("arguments", "code", "found"),
    [
        (["--lr", "0"], 2, "a learning rate is positive and finite"),
        (["--device", "gpu"], 2, "torch knows no device of that name"),
        (["--device", "cuda:99"], 2, "leave device out to train on the CPU"),
        (["--checkpoint", "absent/state.pt"], 2, "there is no folder absent"),
        (["--checkpoint", "m.pt"], 2, "that file is what --out writes"),
        (["--at", "1h"], 2, "there is no --chip"),
        (["--digital", "mixing"], 2, "there is no --chip"),
        (["--ramp", "0.5"], 2, "there is no --from"),
        (["--from", "tiny.pt", "--heads", "8", "--norm", "pre"], 2, "leave out --heads, --norm"),
        (["--from", "tiny.pt", "--checkpoint", "tiny.pt"], 2, "that file is the model of --from"),
        (["--out", "there.pt"], 2, "the file exists"),
    ],
)
def test_requests_that_would_be_ignored_or_lost_are_refused_at_once(
    cli, files, tmp_path, arguments, code, found
):
    (tmp_path / "tiny.pt").write_bytes((files / "tiny.pt").read_bytes())
    (tmp_path / "there.pt").write_bytes(b"a model")
    said = cli("train", files / "data.npz", "--out", "m.pt", *arguments, code=code).stderr
    assert found in said and said.startswith("error\n  asked: ")
    assert (tmp_path / "there.pt").read_bytes() == b"a model"
    assert not (tmp_path / "m.pt").exists()


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"y": np.arange(20) - 1}, "the labels run from -1 to 18"),
        ({"y": np.zeros(20, int)}, "all labels are 0"),
        ({"y": np.arange(20) * 10**8}, "the labels run to 1900000000, of 20 sequences"),
        ({"x": np.zeros((0, 12, 1)), "y": np.zeros(0, int)}, "x is empty"),
        ({"x": np.full((20, 12, 1), np.nan)}, "x is not finite in sequence 0"),
    ],
)
def test_data_from_which_nothing_can_be_learned_are_refused(cli, files, tmp_path, change, found):
    with np.load(files / "data.npz") as file:
        np.savez(tmp_path / "bad.npz", **{"x": file["x"], "y": file["y"], **change})
    assert found in cli("train", "bad.npz", "--out", "m.pt", *TINY, code=3).stderr


def test_a_training_that_diverges_says_the_step_and_saves_the_last_good_model(cli, files):
    data = files / "data.npz"
    said = cli("train", data, "--out", "m.pt", "--lr", "1e30", "--batch", "4", *TINY, code=3)
    assert "the loss became nan at step" in said.stderr
    assert "the model after the last whole epoch is in m-last-good.pt" in said.stderr
    assert ssm.load("m-last-good.pt").name == "m-last-good"


def test_a_checkpoint_of_another_training_is_refused_and_stays(cli, files, tmp_path):
    data, kept = files / "data.npz", ["--checkpoint", "state.pt"]
    cli("train", data, "--out", "m.pt", "--epochs", "1", *TINY, *kept)
    before = (tmp_path / "state.pt").read_bytes()
    said = cli("train", data, "--out", "n.pt", "--epochs", "2", *TINY, *kept, code=3)
    assert "it belongs to a training of other models, data or settings" in said.stderr
    assert (tmp_path / "state.pt").read_bytes() == before
    cli("train", data, "--out", "m.pt", "--epochs", "1", "--force", *TINY, *kept)


def test_a_model_in_the_place_of_a_checkpoint_is_refused_and_nobody_is_told_to_delete_it(
    cli, files, tmp_path
):
    model = tmp_path / "model.pt"
    model.write_bytes((files / "tiny.pt").read_bytes())
    said = cli("train", files / "data.npz", "--out", "n.pt", "--epochs", "1", *TINY,
               "--checkpoint", model, code=3).stderr
    assert "it is no aimc-sim.training/1" in said and "name another file" in said
    assert "delete" not in said
    assert model.read_bytes() == (files / "tiny.pt").read_bytes()


def test_labels_beyond_the_models_classes_are_wrong_input(cli, files, tmp_path):
    with np.load(files / "data.npz") as file:
        np.savez(tmp_path / "more.npz", x=file["x"], y=file["y"] + 1)
    said = cli("train", "more.npz", "--from", files / "tiny.pt", "--out", "m.pt", code=3).stderr
    assert "the labels run to 3, the model has 3 classes" in said
    assert not (tmp_path / "m.pt").exists()


def test_labels_are_needed(cli, files):
    said = cli("train", files / "unlabelled.npz", "--out", "m.pt", code=3)
    assert "it has no labels y" in said.stderr


def test_rounding_needs_bits(cli, files):
    said = cli("quantize", files / "tiny.pt", "--out", "m.pt", code=2)
    assert "no --precision was given" in said.stderr
    said = cli("quantize", files / "tiny.pt", "--precision", "a=1", "--out", "m.pt", code=2)
    assert "Give a whole number from 2 to 16".lower() in said.stderr.lower()


@pytest.mark.compiled
def test_forms_and_methods_of_rounding_are_options(cli, files):
    data = files / "data.npz"
    cli("train", data, "--out", "float.pt", "--epochs", "1", *TINY)
    cli("train", data, "--from", "float.pt", "--precision", "a=6,c=2,mix=4", "--form-of-a",
        "leapfrog", "--method", "c=ternary,mix=lsq", "--out", "tuned.pt", "--epochs", "1",
        "--device", "cpu")
    layer = ssm.load("tuned.pt").layers[0]
    assert layer.grids["pole"].form == "leapfrog"
    assert set(np.unique(layer.grids["readout"].codes)) <= {-1, 0, 1}
    said = cli("quantize", "float.pt", "--precision", "a=2,mix=4", "--form-of-a", "delta",
               "--method", "percentile", "--percentile", "95", "--sides", "mix=asymmetric",
               "--per", "mix=tensor", "--out", "rounded.pt")
    # two bits hold the head's fastest mode and 0, a memory without end
    assert "8 of 8 modes had their nearest delta code outside the unit circle" in said.stdout
    grid = ssm.load("rounded.pt").layers[0].grids["mix_weight"]
    assert grid.scale.size == 1 and grid.codes.min() == 0
    cli("run", "rounded.pt", "--data", data, "--chips", "1", "--at", "0s", "--chip", "ideal",
        "--quiet")


def test_steps_of_states_and_activations_are_kept_from_data(cli, files):
    common = ["--precision", "a=8,state=6,act=5", "--calibrate", files / "data.npz"]
    cli("quantize", files / "tiny.pt", *common, "--out", "wide.pt")
    cli("quantize", files / "tiny.pt", *common, "--signals", "percentile",
        "--signal-percentile", "90", "--out", "narrow.pt")
    wide, narrow = ssm.load("wide.pt"), ssm.load("narrow.pt")
    assert (narrow.layers[0].state_step < wide.layers[0].state_step).all()
    assert (narrow.act_step <= wide.act_step).all()


@pytest.mark.parametrize(
    ("command", "options", "found"),
    [
        ("quantize", ["--precision", "c=4", "--method", "lsq"], "learned in training"),
        ("quantize", ["--precision", "c=4", "--method", "c=ternary"], "three levels are 2 bits"),
        ("quantize", ["--precision", "a=4", "--form-of-a", "log"], "there is no such form"),
        ("quantize", ["--precision", "a=4,decay=17"], "from 1 to 16"),
        ("quantize", ["--precision", "state=8", "--signals", "percentile"], "no signals"),
        ("quantize", ["--precision", "a=8", "--calibrate", "data.npz"], "neither has bits"),
        ("train", ["--from", "float.pt", "--method", "lsq"], "there is no --precision"),
    ],
)
def test_ways_of_rounding_that_make_no_sense_are_refused(cli, files, command, options, found):
    model = files / "tiny.pt" if command == "quantize" else files / "data.npz"
    options = [files / "data.npz" if option == "data.npz" else option for option in options]
    said = cli(command, model, *options, "--out", "m.pt", code=2)
    assert found in " ".join(said.stderr.lower().split())
