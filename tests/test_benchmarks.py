"""The benchmarks run and say what they must; no test judges a duration."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.__main__ import choose, list_benchmarks, main
from benchmarks.machine import warn_of_settings
from benchmarks.models import random_model
from benchmarks.table import Row
from benchmarks.timing import Timing

ROOT = Path(__file__).parent.parent
ROW_KEYS = {
    "name", "what", "per", "threads", "ours_s", "ours_low_s", "ours_high_s", "rounds", "limit_s",
    "limit_of", "ratio_to_limit", "peer_s", "peer_of", "ratio_to_peer", "goal_s", "met",
    "reachable", "note", "goal_gain", "gain_met",
}
MACHINE_KEYS = {
    "date", "cpu", "vectors", "cores", "load_average", "system", "python", "numpy", "numba",
    "aimc_sim", "blas", "copy_gb_per_s", "clock", "peer",
}


@pytest.mark.compiled
def test_a_smoke_run_writes_every_figure_that_the_table_shows(tmp_path, capsys):
    path = tmp_path / "figures.json"
    assert main(["--quick", "--json", str(path), "normals", "product-noise-batch-1"]) == 0
    data = json.loads(path.read_text("utf-8"))
    assert data["schema"] == "aimc-sim.benchmarks/1"
    assert data["quick"] is True
    assert set(data["machine"]) == MACHINE_KEYS
    assert [row["name"] for row in data["rows"]] == ["normals", "product-noise-batch-1"]
    for row in data["rows"]:
        assert set(row) == ROW_KEYS
        assert row["threads"] == 1
        assert row["ours_s"] > 0
        assert row["limit_s"] > 0
        assert row["goal_s"] > 0
        assert row["met"] == (row["ours_s"] <= row["goal_s"])
    shown = capsys.readouterr().out
    assert all(row["name"] in shown for row in data["rows"])
    assert "Smoke run" in shown
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_names_are_unique_and_compilation_is_timed_only_on_request():
    names = [benchmark.name for benchmark in list_benchmarks()]
    assert len(set(names)) == len(names)
    assert [b.name for b in choose([], cold=False)] == [n for n in names if n != "startup-cold"]
    assert [b.name for b in choose(["cold"], cold=True)] == ["startup-cold"]


def test_a_name_that_no_benchmark_has_is_refused_with_the_nearest(capsys):
    assert main(["normal-numbers"]) == 2
    said = capsys.readouterr().err
    assert "did you mean 'normals'?" in said
    assert "--list prints all names" in said


def test_settings_that_slow_blas_are_named(monkeypatch):
    monkeypatch.delenv("OPENBLAS_L2_SIZE", raising=False)
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    texts = [text for text in warn_of_settings() if "OPENBLAS" in text]
    assert len(texts) == 1
    assert "env -u OPENBLAS_CORETYPE" in texts[0]


def test_threads_are_pinned_before_numpy_is_imported():
    code = (
        "import sys, benchmarks.__main__ as b; b.pin_threads(); import os;"
        "print('numpy' in sys.modules, os.environ['OPENBLAS_NUM_THREADS'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "2"},
    )
    assert done.stdout.split() == ["False", "1"]


def test_calls_are_measured_in_turns():
    order = []
    timing = Timing(rounds=3, least_s=0.0)
    seconds = timing.alternate(lambda: order.append("a"), lambda: order.append("b"))
    assert seconds.shape == (2, 3)
    assert "".join(order) == "ab" + 3 * "ab"  # each once before the clock starts


def test_a_ratio_compares_within_a_round():
    ours, limit = np.array([2.0, 20.0, 2.2]), np.array([1.0, 10.0, 1.0])
    row = Row("r", "", "call", 1, ours=ours, limit=limit, goal_s=1.5)
    assert row.ratio == pytest.approx(2.0)
    assert row.met is False
    assert row.reachable is True


def test_a_goal_against_the_peer_is_judged_by_rounds_and_needs_a_peer():
    ours, peer = np.array([1.0, 10.0, 1.0]), np.array([310.0, 3000.0, 290.0])
    row = Row("r", "", "call", 1, ours=ours, peer=peer, goal_gain=300.0)
    assert row.gain == pytest.approx(300.0)
    assert row.gain_met is True
    assert Row("r", "", "call", 1, ours=ours, peer=peer / 1.01, goal_gain=300.0).gain_met is False
    assert Row("r", "", "call", 1, ours=ours, goal_gain=300.0).gain_met is None


def test_a_row_that_could_not_run_has_no_figures_and_no_verdict():
    record = Row("r", "", "call", 2, goal_s=1.0, note="left out: one thread").record()
    assert record["ours_s"] is record["ratio_to_limit"] is record["met"] is None
    assert record["rounds"] == 0


def test_the_random_layer_has_the_time_constants_of_trained_ones():
    model = random_model(8, 6)
    assert (model.n_heads, model.n_states) == (8, 48)
    size = np.abs(model.layers[0].pole)
    assert (size > 0.93).all()
    assert (size <= np.exp(-1 / 2000)).all()
