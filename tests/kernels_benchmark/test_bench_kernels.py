"""Durations of the kernels: `pytest --benchmark-enable tests/kernels_benchmark`.

Each test checks what it computed once; no test judges a duration.
"""

from __future__ import annotations

import numpy as np
import pytest

import aimc_sim as aimc
import ssm
from aimc_sim.kernels.philox import fill_normals
from benchmarks.kernels import fill_words
from benchmarks.models import random_model

pytestmark = pytest.mark.compiled
N = 1 << 14


def test_normals_fill_a_buffer(benchmark):
    out = np.zeros(N, np.float32)
    words = [np.uint64(word) for word in range(1, 6)]
    benchmark(fill_normals, out, 0, N, *words)
    assert abs(out.mean()) < 5 / np.sqrt(N)
    assert abs(out.std() - 1) < 5 / np.sqrt(2 * N)


@pytest.mark.parametrize("batch", [1, 64])
@pytest.mark.parametrize("preset", ["ideal", "reram-wan2022"])
def test_a_tile_multiplies(benchmark, preset, batch):
    rng = np.random.default_rng(0)
    w = rng.standard_normal((256, 256), np.float32)
    x = rng.standard_normal((batch, 256), np.float32)
    matrix = aimc.map_matrix(w, aimc.ChipSpec.preset(preset)).program(seed=1)
    y = benchmark(matrix.mvm, x)
    error = np.sqrt(((y - x @ w) ** 2).mean() / ((x @ w) ** 2).mean())
    assert error < (1e-5 if preset == "ideal" else 0.5)
    assert (error > 0.01) == (preset != "ideal")


def test_a_tile_is_programmed_and_drifts(benchmark):
    w = np.random.default_rng(0).standard_normal((256, 256), np.float32)
    mapped = aimc.map_matrix(w, aimc.ChipSpec.preset("pcm-nandakumar2019"))
    chip = benchmark(lambda: mapped.program(seed=1).wait(3600.0).chip)
    ratio = chip.aged().sum() / chip.programmed_s.sum()
    assert 0.5 < ratio < 0.9


@pytest.mark.parametrize("decay", ["tile", "digital"])
def test_a_layer_runs_a_sequence(benchmark, decay):
    x = np.random.default_rng(0).random((1, 50, 1), np.float32)
    deployment = ssm.deploy(
        random_model(16, 16), aimc.ChipSpec.preset("ideal"), "leapfrog", decay=decay, calibrate=x
    )
    chip = deployment.program(seed=1)
    run = benchmark(chip.infer, x)
    exact = deployment.model.logits(x)
    assert np.abs(run.logits - exact).max() < 1e-4 * np.abs(exact).max()


def test_words_alone_are_those_under_the_normals(benchmark):
    out = np.zeros(N // 2, np.uint64)
    benchmark(fill_words, out, np.uint64(0), np.uint64(0))
    words = out.view(np.uint32).reshape(-1, 2, 8, 2)
    # known answer of Random123 for counter 0 under key 0
    first = [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert words[0, :, 0].ravel().tolist() == first
