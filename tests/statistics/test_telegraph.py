"""Telegraph noise: two levels per cell, dwell times, and how each mode of noise in time has it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from aimc_sim.cards import TelegraphSpec
from aimc_sim.chip import Chip
from aimc_sim.kernels.moving import LASTING, MOVING, WHITE
from aimc_sim.mapping import Request, place
from aimc_sim.matrix import map_matrix
from aimc_sim.specs import ChipSpec

pytestmark = pytest.mark.compiled

SIGMAS = 5.0
DT = 1e-6
HIGH, LOW = 20e-6, 5e-6  # mean dwell times
SHARE = HIGH / (HIGH + LOW)
AMPLITUDE = 0.1


def jumpy_chip(noise_in_time="spectrum", **changes):
    """Return exact cells that jump by a tenth of their conductance, and do nothing else."""
    part = {
        "fraction": 1.0,
        "amplitude": {"of": "r", "polynomial": [AMPLITUDE]},
        "tau_high_s": HIGH,
        "tau_low_s": LOW,
        **changes,
    }
    ideal = ChipSpec.preset("ideal")
    device = ideal.device.replace(telegraph=TelegraphSpec(**part))
    return ideal.replace(device=device, noise_in_time=noise_in_time, step_period_s=DT)


def values_in_time(spec, n_steps, n_out=64, seed=3):
    """Return single weights of 1 at successive steps, (n_steps, n_out)."""
    matrix = map_matrix(np.ones((1, n_out)), spec).program(seed)
    return matrix.mvm(np.ones((n_steps, 1), np.float32)).astype(float)


def test_a_cell_jumps_between_two_levels_about_its_conductance():
    y = values_in_time(jumpy_chip(), 4000)
    upper = y > 1
    np.testing.assert_allclose(y[upper], 1 + (1 - SHARE) * AMPLITUDE, rtol=1e-5)
    np.testing.assert_allclose(y[~upper], 1 - SHARE * AMPLITUDE, rtol=1e-5)


def test_dwell_times_are_geometric_with_the_chances_of_the_chain_at_the_steps():
    upper = values_in_time(jumpy_chip(), 20_000) > 1
    changed = 1 - math.exp(-DT / (1 / (1 / HIGH + 1 / LOW)))
    for level, leave in ((True, (1 - SHARE) * changed), (False, SHARE * changed)):
        dwell = []
        for state in upper.T:
            at = np.flatnonzero(np.diff(state))
            lengths, levels = np.diff(at), state[at[:-1] + 1]
            dwell.append(lengths[levels == level])
        dwell = np.concatenate(dwell)
        error = SIGMAS * math.sqrt(1 - leave) / leave / math.sqrt(len(dwell))
        assert abs(dwell.mean() - 1 / leave) < error
        longest = int(3 / leave)
        lengths = np.arange(1, longest + 1)
        share = leave * (1 - leave) ** (lengths - 1)
        found = np.append(np.bincount(dwell, minlength=longest + 1)[1 : longest + 1], 0)
        found[-1] = len(dwell) - found.sum()
        expected = np.append(share, 1 - share.sum()) * len(dwell)
        assert expected.min() > 5
        assert stats.chisquare(found, expected).pvalue > 1e-4


@pytest.mark.parametrize("step", [0, 1, 5, 400])
def test_the_share_of_time_in_the_upper_level_holds_at_every_step(step):
    n = 20_000
    matrix = map_matrix(np.ones((1, n)), jumpy_chip()).program(8)
    upper = matrix.mvm(np.ones((1, 1), np.float32), first_read=step) > 1
    assert abs(upper.mean() - SHARE) < SIGMAS * math.sqrt(SHARE * (1 - SHARE) / n)


def test_the_correlation_of_steps_is_that_of_the_chain():
    y = values_in_time(jumpy_chip(), 20_000)
    centred = y - 1
    variance = AMPLITUDE**2 * SHARE * (1 - SHARE)
    correlation_steps = 1 / (DT / HIGH + DT / LOW)
    n_independent = y.size / (2 * correlation_steps)
    for lag in (0, 1, 3, 10):
        found = (centred[lag:] * centred[: len(y) - lag]).mean() / variance
        expected = math.exp(-lag / correlation_steps)
        assert abs(found - expected) < SIGMAS * math.sqrt(2 / n_independent)


@pytest.mark.parametrize("noise_in_time", ["frozen", "split"])
def test_a_frozen_level_lasts_for_a_sequence_and_is_new_in_the_next(noise_in_time):
    n = 20_000
    spec = jumpy_chip(noise_in_time)
    y = values_in_time(spec, 5, n)
    assert (y == y[0]).all()
    upper = y[0] > 1
    assert abs(upper.mean() - SHARE) < SIGMAS * math.sqrt(SHARE * (1 - SHARE) / n)
    chip = Chip(spec, place([Request("cells", 1, 1, 9, pair=False)], spec), np.full(9, 25e-6), 1)
    assert not np.array_equal(chip.read(sequence=0), chip.read(sequence=1))
    np.testing.assert_array_equal(chip.read(sequence=1), chip.read(sequence=1))


def test_fast_jumps_are_white_where_a_step_forgets_them():
    for mode, dwell, kind in (
        ("spectrum", 1e-8, WHITE), ("spectrum", 1e-6, MOVING), ("split", 1e-8, WHITE),
        ("split", 1e-3, LASTING), ("frozen", 1e-8, LASTING), ("white", 1e-3, WHITE),
    ):
        spec = jumpy_chip(mode, tau_high_s=dwell, tau_low_s=dwell)
        chip = map_matrix(np.ones((1, 4)), spec).program().chip
        assert (chip.telegraph().kind == kind).all(), (mode, dwell)


def test_white_jumps_have_the_variance_of_both_levels_summed_at_the_column():
    n_in, n = 30, 31_250
    spec = jumpy_chip("white")
    matrix = map_matrix(np.ones((n_in, 3)), spec).program(2)
    y = matrix.mvm(np.ones((n, n_in), np.float32)).astype(float)
    variance = n_in * AMPLITUDE**2 * SHARE * (1 - SHARE)
    assert (np.abs(y.mean(axis=0) - n_in) < SIGMAS * math.sqrt(variance / n) + 1e-4).all()
    np.testing.assert_allclose(y.var(axis=0), variance, rtol=SIGMAS * math.sqrt(2 / n))


def test_cells_draw_whether_they_jump_and_how_far_and_how_fast():
    n = 31_250
    spec = jumpy_chip(fraction=0.3, amplitude_spread=0.5, tau_spread=0.7)
    layout = place([Request("cells", 1, 1, n, pair=False)], spec)
    chip = Chip(spec, layout, np.full(n, 25e-6, np.float32), 4)
    telegraph = chip.telegraph()
    n_jumping = telegraph.cell.size
    assert abs(n_jumping / n - 0.3) < SIGMAS * math.sqrt(0.3 * 0.7 / n)
    spread = np.log(telegraph.amplitude_s / (AMPLITUDE * 25e-6))
    assert stats.kstest(spread / 0.5, "norm").pvalue > 1e-4
    # the odds of the two dwell times: their logarithms differ by two independent spreads
    odds = np.log(telegraph.share / (1 - telegraph.share.astype(float)))
    standard = (odds - math.log(HIGH / LOW)) / (0.7 * math.sqrt(2))
    assert stats.kstest(standard, "norm").pvalue > 1e-4


def test_a_level_outside_the_range_is_read_at_its_end():
    spec = jumpy_chip()
    device = spec.device.replace(ceiling_s=spec.device.g_max_s)
    y = values_in_time(spec.replace(device=device), 500)
    assert y.max() == pytest.approx(1.0)
    assert y.min() == pytest.approx(1 - SHARE * AMPLITUDE, rel=1e-5)


def test_a_pair_that_jumps_in_both_cells_has_four_levels():
    noisy = jumpy_chip(relative=False, amplitude={"of": "r", "polynomial": [2.0], "unit_s": 1e-6})
    matrix = map_matrix(np.full((1, 1), 0.5), noisy).program(1)
    g_max = noisy.device.g_max_s
    y = matrix.mvm(np.ones((4000, 1), np.float32)).astype(float)
    ours = np.unique(np.round(y, 6))
    # the idle cell's lower level lies below zero and is read as zero
    plus = np.array([-SHARE, 1 - SHARE]) * 2e-6
    minus = np.array([0.0, 1 - SHARE]) * 2e-6
    exact = 0.5 + np.subtract.outer(plus, minus).ravel() * 0.5 / g_max
    np.testing.assert_allclose(ours, np.sort(exact), atol=1e-5)
