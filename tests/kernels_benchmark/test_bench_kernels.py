"""Durations of the kernels: `pytest --benchmark-enable tests/kernels_benchmark`.

Each test checks what it computed once; no test judges a duration.
"""

from __future__ import annotations

import numpy as np
import pytest

import aimc_sim as aimc
import ssm
from aimc_sim.chip import Chip
from aimc_sim.curves import flatten
from aimc_sim.kernels.curves import curve_values
from aimc_sim.kernels.philox import fill_normals
from aimc_sim.mapping import Request, place
from benchmarks.kernels import fill_words
from benchmarks.models import random_model
from benchmarks.programming import write_verify_chip

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


def test_cells_are_written_in_a_closed_loop(benchmark):
    spec = write_verify_chip()
    layout = place([Request("cells", 1, 128, 128, pair=False)], spec)
    target = np.linspace(spec.device.g_min_s, spec.device.g_max_s, N)
    chip = benchmark(lambda: Chip(spec, layout, target, seed=1))
    log = chip.written.log()
    assert 5 < log.pulses_mean < 15
    assert log.failed < 0.001 * N
    error = chip.programmed_s[0] - target
    assert abs(error.mean()) < 0.1e-6
    assert 0.2e-6 < error.std() < 0.5e-6


def test_curves_of_many_cells_are_evaluated(benchmark):
    device = aimc.ChipSpec.preset("pcm-nandakumar2019").device
    g = np.linspace(device.g_min_s, device.g_max_s, N).astype(np.float32)
    curves = (device.drift.nu_mean, device.drift.nu_std)
    found = benchmark(curve_values, flatten(curves, device.g_max_s), g)
    for row, curve in zip(found, curves, strict=True):
        np.testing.assert_allclose(row, curve.evaluate(g.astype(float), device.g_max_s), rtol=1e-6)


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
