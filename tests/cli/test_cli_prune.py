"""`aimc-sim prune`: files, reports and refusals."""

import json
from pathlib import Path

import numpy as np
import pytest

import ssm

pytestmark = pytest.mark.compiled


def test_a_pruned_model_is_written_and_reported(cli, files):
    said = cli("prune", files / "tiny.pt", "--keep", "0.5", "--out", "small.pt", "--json", "r.json",
               "--chip", "ideal")
    before, after = ssm.load(files / "tiny.pt"), ssm.load("small.pt")
    assert after.n_states <= 0.5 * before.n_states
    assert f"{before.n_states} -> {after.n_states} states" in said.stdout
    record = json.loads(Path("r.json").read_text("utf-8"))
    assert record["schema"] == "aimc-sim.prune/1"
    assert record["states"] == [before.n_states, after.n_states]
    assert record["cells"][1] < record["cells"][0]
    assert all(layer["kernel_error"] <= layer["bound"] for layer in record["layers"])
    assert record["method"] == "balanced" and record["tuned_epochs"] == 0
    cli("run", "small.pt", "--data", files / "data.npz", "--chip", "ideal", "--at", "0s")
    cli("map", "small.pt", "--chip", "ideal", "--out", "map")


def test_a_model_that_is_there_is_replaced_on_request_alone(cli, files):
    cli("prune", files / "tiny.pt", "--keep", "0.5", "--out", "m.pt")
    before = Path("m.pt").read_bytes()
    said = cli("prune", files / "tiny.pt", "--keep", "0.3", "--out", "m.pt", code=2)
    assert "add --force" in " ".join(said.stderr.split()) and Path("m.pt").read_bytes() == before
    cli("prune", files / "tiny.pt", "--keep", "0.3", "--out", "m.pt", "--force")
    assert Path("m.pt").read_bytes() != before


def test_json_alone_goes_to_stdout(cli, files):
    said = cli("prune", files / "tiny.pt", "--method", "last", "--out", "m.safetensors", "--json",
               "-")
    assert json.loads(said.stdout)["method"] == "last"
    assert "states" in said.stderr


def test_pruning_and_training_further_keep_the_states(cli, files):
    said = cli("prune", files / "tiny.pt", "--keep", "0.5", "--heads", "0.75", "--steps", "12",
               "--tune", "2", "--data", files / "data.npz", "--out", "tuned.pt")
    assert "epoch 2/2" in said.stderr
    alone = cli("prune", files / "tiny.pt", "--keep", "0.5", "--heads", "0.75", "--steps", "12",
                "--out", "untuned.pt")
    tuned, untuned = ssm.load("tuned.pt"), ssm.load("untuned.pt")
    assert tuned.n_states == untuned.n_states
    assert not np.array_equal(tuned.decoder_weight, untuned.decoder_weight)
    assert "heads" in alone.stdout


def test_accuracy_before_and_after_is_told_where_there_are_labelled_data(cli, files):
    path = files / "data.npz"
    said = cli("prune", files / "tiny.pt", "--keep", "0.3", "--data", path, "--out", "m.pt",
               "--json", "r.json")
    found = json.loads(Path("r.json").read_text("utf-8"))["accuracy"]
    with np.load(path) as file:
        x, y = file["x"], file["y"]
    for name, model in (("before", files / "tiny.pt"), ("pruned", "m.pt")):
        assert found[name] == (ssm.load(model).logits(x).argmax(axis=1) == y).mean()
    assert found["before"] == 0.9 and found["tuned"] is None
    assert (
        f"accuracy in float 90.00 % -> {100 * found['pruned']:.2f} %, of 20 sequences of data.npz"
        in said.stdout
    )
    said = cli("prune", files / "tiny.pt", "--keep", "0.3", "--data", path, "--tune", "1",
               "--out", "t.pt", "--json", "t.json")
    tuned = json.loads(Path("t.json").read_text("utf-8"))["accuracy"]
    assert tuned["pruned"] == found["pruned"]
    assert tuned["tuned"] == (ssm.load("t.pt").logits(x).argmax(axis=1) == y).mean()
    assert "after training further" in said.stdout and "which it was trained on" in said.stdout


def test_without_data_accuracy_is_said_not_to_be_measured(cli, files):
    said = cli("prune", files / "tiny.pt", "--out", "m.pt", "--json", "r.json")
    assert "accuracy not measured" in said.stdout and "--data" in said.stdout
    assert json.loads(Path("r.json").read_text("utf-8"))["accuracy"] is None
    cli("prune", files / "tiny.pt", "--out", "n.pt", "--data", files / "unlabelled.npz")


def test_a_models_own_task_is_found(cli, digits_model):
    said = cli("prune", digits_model, "--keep", "0.75", "--out", "m.pt")
    assert "of 359 sequences of task 'digits' (test split)" in said.stdout


def test_scores_have_no_bound_and_a_bound_above_all_says_so(cli, files):
    by_score = cli("prune", files / "tiny.pt", "--method", "hinf", "--out", "a.pt", "--json",
                   "a.json")
    assert "bound" not in by_score.stdout and "for certain" not in by_score.stdout
    layers = json.loads(Path("a.json").read_text("utf-8"))["layers"]
    assert all(layer["bound"] is None for layer in layers)
    balanced = cli("prune", files / "tiny.pt", "--keep", "0.3", "--out", "b.pt", "--json", "b.json")
    for layer in json.loads(Path("b.json").read_text("utf-8"))["layers"]:
        said = (
            "its bound lies above 100 % and says nothing" if layer["bound"] > 1
            else f"by {100 * layer['bound']:.3g} % at most for certain"
        )
        assert said in balanced.stdout.replace("\n", " ")


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["--keep", "0"], "it is no share in (0, 1]"),
        (["--keep", "1.2"], "it is no share in (0, 1]"),
        (["--method", "lasst"], "did you mean 'last'"),
        (["--scope", "net"], "there is no such scope"),
        (["--tune", "1"], "the file names no task"),
        (["--method", "horizon"], "a horizon goes with balanced (--method balanced --steps n)"),
        (["--form", "leap"], "did you mean 'leapfrog'"),
    ],
)
def test_bad_requests_are_refused(cli, files, arguments, found):
    said = cli("prune", files / "tiny.pt", *arguments, "--out", "m.pt", code=2)
    assert found in " ".join(said.stderr.lower().split())


def test_a_model_pruned_below_the_request_is_refused(cli, files):
    cli("prune", files / "tiny.pt", "--keep", "0.3", "--out", "m.pt")
    said = cli("prune", "m.pt", "--keep", "0.5", "--out", "n.pt", code=2)
    assert "already" in said.stderr and "start from the unpruned model" in said.stderr
    cli("prune", "m.pt", "--heads", "0.75", "--out", "n.pt", "--json", "r.json")
    record = json.loads(Path("r.json").read_text("utf-8"))
    assert record["keep"] == 1 and all(was > now for was, now in
                                       (layer["heads"] for layer in record["layers"]))
