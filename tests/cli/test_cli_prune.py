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


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["--keep", "0"], "it is no share in (0, 1]"),
        (["--keep", "1.2"], "it is no share in (0, 1]"),
        (["--method", "lasst"], "did you mean 'last'"),
        (["--scope", "net"], "there is no such scope"),
        (["--tune", "1"], "the file names no task"),
        (["--data", "digits"], "there is no --tune"),
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
