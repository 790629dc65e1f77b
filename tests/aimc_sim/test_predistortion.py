"""Targets for a declared time: what cells read then is what was wanted."""

from __future__ import annotations

import numpy as np
import pytest

from aimc_sim.chip import Chip
from aimc_sim.compensation import global_gain
from aimc_sim.mapping import Pieces, Request, pieces_of, place, target_conductances
from aimc_sim.matrix import map_matrix
from aimc_sim.predistortion import expected_read, predistort
from aimc_sim.specs import ChipSpec

pytestmark = pytest.mark.compiled
DAY_S = 86_400.0
CARDS = ["pcm-nandakumar2019", "pcm-hermes2023-2dev", "reram-wan2022", "cmo-hfox"]
N_CELLS = 8192


def read_after_a_day(spec, targets):
    """Return reads of N_CELLS cells of every target (n, N_CELLS) [S]."""
    spec = spec.replace(**{"tile.cols": N_CELLS})
    layout = place([Request("cells", 1, len(targets), N_CELLS, pair=False)], spec)
    chip = Chip(spec, layout, np.repeat(targets, N_CELLS).astype(np.float32), seed=3)
    chip.wait(DAY_S)
    return chip.read().reshape(len(targets), N_CELLS).astype(float)


@pytest.mark.parametrize("pair", [True, False], ids=["pair", "single"])
@pytest.mark.parametrize("name", CARDS)
def test_cells_read_on_average_what_was_wanted_at_the_declared_time(name, pair):
    spec = ChipSpec.preset(name).replace(targets_for_s=DAY_S)
    low, span = spec.device.g_min_s, spec.device.g_max_s - spec.device.g_min_s
    wanted = np.linspace(low, low + span, 8)
    targets, reach = predistort(spec, wanted, pair=pair)
    found = read_after_a_day(spec, targets)
    base = found[0].mean() if pair else low
    error = (found.mean(axis=1) - base) - reach * (wanted - low)
    # five standard errors of the means, and a thousandth of the range for the table's corners
    allowed = 5 * np.hypot(found.std(axis=1), found[0].std()) / np.sqrt(N_CELLS) + 1e-3 * span
    assert (np.abs(error[1:]) < allowed[1:]).all()
    assert targets[0] == low
    # what it is for: written to what is wanted, cells are off by more than that
    if name != "reram-wan2022":  # whose mean does not move
        plain = read_after_a_day(spec, wanted).mean(axis=1) - base - (wanted - low)
        assert (np.abs(plain[1:]) > 2 * np.abs(error[1:])).all()


@pytest.mark.parametrize("name", CARDS)
def test_the_expected_read_is_the_mean_of_sampled_cells(name):
    spec = ChipSpec.preset(name)
    targets = np.linspace(spec.device.g_min_s, spec.device.g_max_s, 9)
    found = read_after_a_day(spec, targets)
    span = spec.device.g_max_s - spec.device.g_min_s
    error = np.abs(expected_read(spec, targets, DAY_S) - found.mean(axis=1))
    assert (error < 5 * found.std(axis=1) / np.sqrt(N_CELLS) + 1e-3 * span).all()


def test_without_a_declared_time_targets_are_as_wanted():
    wanted = np.array([0.0, 1e-5, 2.5e-5])
    targets, reach = predistort(ChipSpec.preset("pcm-nandakumar2019"), wanted, pair=True)
    assert targets is wanted
    assert reach == 1.0


def test_a_matrix_stands_for_its_weights_at_the_declared_time():
    """Slope of found on wanted weights: 40,000 errors of 8 % of the range, known to 0.2 %."""
    w = np.random.default_rng(2).uniform(-1, 1, (200, 200))
    spec = ChipSpec.preset("pcm-nandakumar2019").replace(compensation="none")
    slopes = {}
    for name, chip in (("plain", spec), ("for a day", spec.replace(targets_for_s=DAY_S))):
        matrix = map_matrix(w, chip).program(4)
        matrix.wait(DAY_S)
        found = matrix.weights()[0]
        slopes[name] = float((found * w).sum() / (w * w).sum())
    assert slopes["plain"] < 0.8
    assert slopes["for a day"] == pytest.approx(1.0, abs=0.01)


def test_the_global_gain_of_targets_for_a_day_is_one_after_a_day():
    spec = ChipSpec.preset("pcm-nandakumar2019").replace(targets_for_s=DAY_S)
    wanted = np.linspace(1e-6, 2.5e-5, 64)
    targets, _ = predistort(spec, np.repeat(wanted, 512), pair=False)
    layout = place([Request("cells", 1, 64, 512, pair=False)], spec.replace(**{"tile.cols": 512}))
    chip = Chip(spec.replace(**{"tile.cols": 512}), layout, targets.astype(np.float32), seed=5)
    gains = []
    for seconds in (DAY_S, 9 * DAY_S):
        chip.wait(seconds)
        gains.append(float(global_gain(chip, [np.arange(chip.n_cells)])[0, 0]))
    assert gains[0] == pytest.approx(1.0, abs=0.01)
    assert gains[1] < 0.95


def test_cells_are_filled_one_after_the_other():
    pieces = Pieces(cells=4, fill=True)
    held = pieces.values(np.array([0.0, 0.1, 0.25, 0.6, 1.0]))
    np.testing.assert_allclose(held, [
        [0.0, 0.4, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.4, 1.0],
        [0.0, 0.0, 0.0, 0.0, 1.0],
    ], atol=1e-12)
    np.testing.assert_allclose(pieces.shares @ held, [0.0, 0.1, 0.25, 0.6, 1.0])


def test_filled_cells_with_levels_stay_on_their_levels():
    pieces = Pieces(levels=5, cells=3, slices=2, fill=True)
    part = np.random.default_rng(1).random(200)
    held = pieces.values(part)
    np.testing.assert_allclose(held * 4, np.rint(held * 4), atol=1e-9)
    np.testing.assert_allclose(pieces.shares @ held, np.rint(part * 24) / 24, atol=1e-12)


def test_filling_cells_lowers_errors_that_are_largest_in_the_middle_of_the_range():
    """Four resistive cells a weight, at 0.2 of the range: one at 0.8 and three empty ones."""
    spec = ChipSpec.preset("reram-wan2022").replace(cells_per_weight=4, **{"tile.cols": 1024})
    spread = {}
    for parallel in ("equal", "fill"):
        chip_spec = spec.replace(parallel=parallel)
        w = np.full((200, 100), 0.2)
        w[0] = 1.0
        matrix = map_matrix(w, chip_spec).program(1)
        matrix.wait(DAY_S)
        spread[parallel] = matrix.weights()[0][1:].std()
    sigma = chip_spec.device.relaxation.sigma[1].evaluate(np.array([0.8, 0.2]) * 4e-5, 4e-5) / 4e-5
    # the cells of the idle half and the three empty ones add theirs, clipped at zero
    assert spread["equal"] == pytest.approx(sigma[1] / 2, rel=0.05)
    assert spread["fill"] == pytest.approx(sigma[0] / 4, rel=0.07)
    assert spread["fill"] < 0.65 * spread["equal"]


def test_a_never_negative_weight_may_take_as_many_cells_as_a_pair():
    spec = ChipSpec.preset("reram-wan2022").replace(cells_per_weight=3, single_cells=2)
    assert pieces_of(spec).count == 3
    assert pieces_of(spec, pair=False).count == 6
    w = np.random.default_rng(3).random((2, 1, 5))
    scale = np.full((2, 1, 5), 1 / 4e-5)
    held = target_conductances(w, scale, spec.device, pair=False, pieces=pieces_of(spec, False))
    assert held.shape == (6, 2, 1, 5)
    np.testing.assert_allclose(held.mean(axis=0) / 4e-5, w)
