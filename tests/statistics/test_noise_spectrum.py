"""1/f noise as a process in time: its spectrum, its variance, and what it must not depend on."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from aimc_sim.cards import ReadNoiseSpec
from aimc_sim.matrix import map_matrix
from aimc_sim.noise import gathered, noise_split, spectrum
from aimc_sim.specs import ChipSpec

pytestmark = pytest.mark.compiled

SIGMAS = 5.0
QUALITY, HOUR, DT = 0.01, 3600.0, 1e-6
N_STEPS = 1 << 19


def noisy_chip(exponent=1.0, **changes):
    """Return exact cells that have 1/f noise alone, of relative strength QUALITY."""
    noise = ReadNoiseSpec(
        sigma={"of": "r", "polynomial": [QUALITY]}, exponent=exponent, t_read_s=250e-9
    )
    ideal = ChipSpec.preset("ideal")
    device = ideal.device.replace(read_noise=noise)
    changes = {"noise_in_time": "spectrum", "step_period_s": DT, **changes}
    return ideal.replace(device=device, **changes)


def values_in_time(spec, w, x, n_steps, seed=3):
    """Return x @ w at n_steps successive steps, (n_steps, n_out), full scale 1."""
    x = np.asarray(x, np.float32)
    matrix = map_matrix(w, spec, x[None]).program(seed).wait(HOUR)
    return matrix.mvm(np.tile(x, (n_steps, 1)))


def power_density(y):
    """Return frequencies [1/step] and one-sided density of the columns' mean, by a Hann window."""
    window = np.hanning(len(y))
    density = np.zeros(len(y) // 2 + 1)
    for column in y.T:
        density += np.abs(np.fft.rfft((column - column.mean(dtype=float)) * window)) ** 2
    frequency = np.fft.rfftfreq(len(y))
    return frequency[3:], 2 * density[3:] / (y.shape[1] * (window**2).sum())


def in_bins(frequency, values, edges):
    """Return the mean of values between successive edges, and how many fell there."""
    index = np.digitize(frequency, edges) - 1
    inside = (index >= 0) & (index < len(edges) - 1)
    count = np.bincount(index[inside], minlength=len(edges) - 1)
    return np.bincount(index[inside], values[inside], len(edges) - 1) / count, count


@pytest.mark.parametrize("exponent", [1.0, 0.8, 1.2])
def test_a_weight_has_the_spectrum_of_its_card_over_four_decades(exponent):
    spec = noisy_chip(exponent, spectrum_from_steps=1)
    y = values_in_time(spec, np.ones((1, 64)), [1.0], N_STEPS)  # of one row: weights of their own
    assert_spectrum(spec, exponent, y)


def test_a_column_has_the_spectrum_of_its_cells_together():
    rng = np.random.default_rng(5)
    w, x = rng.uniform(0.2, 1, (5, 70)), np.append(rng.uniform(-1, 1, 4), 1.0)
    spec = noisy_chip(spectrum_from_steps=1)
    y = values_in_time(spec, w, x, N_STEPS)
    y /= np.sqrt((x**2) @ (w**2)).astype(np.float32)
    assert_spectrum(spec, 1.0, y)


def assert_spectrum(spec, exponent, y):
    """Compare with QUALITY^2/f^exponent, and more closely with what bands and white add up to."""
    corner = 1 / (2 * math.pi * spec.spectrum_from_steps)
    edges = corner / 2 * np.logspace(-4, 0, 17)
    frequency, density = power_density(y)
    target = QUALITY**2 * (frequency / DT) ** -exponent / DT
    ratio, count = in_bins(frequency, density / target, edges)
    ours = QUALITY**2 * spectrum(spec, HOUR, frequency / DT) / DT
    closer, _ = in_bins(frequency, density / ours, edges)
    # neighbours share 3/2 of their power under a Hann window; columns are independent
    error = SIGMAS * np.sqrt(1.5 / (count * y.shape[1]))
    assert error.max() < 0.5
    assert (np.abs(10 * np.log10(ratio)) < 1.0 + 10 * np.log10(1 + error)).all()
    assert (np.abs(closer - 1) < error + 0.01).all()  # 1 %: leakage of the window


@pytest.mark.parametrize("exponent", [0.8, 1.0, 1.2])
@pytest.mark.parametrize("steps", [1, 16, 4096])
@pytest.mark.parametrize("seconds", [0.0, 1e-4, HOUR])
def test_what_lasts_moves_and_is_new_adds_up_to_the_variance_gathered(exponent, steps, seconds):
    spec = noisy_chip(exponent, spectrum_from_steps=steps)
    split = noise_split(spec, seconds)
    t_read = spec.device.read_noise.t_read_s
    total = gathered(exponent, 2 * t_read, seconds + t_read)
    parts = split.slow**2 + split.fast**2 + sum(band**2 for band in split.bands)
    assert parts == pytest.approx(total, abs=1e-12)
    other = noise_split(spec.replace(noise_in_time="split"), seconds)
    assert parts == pytest.approx(other.slow**2 + other.fast**2, abs=1e-12)


def test_bands_that_start_beyond_the_age_of_the_cells_leave_white_noise_alone():
    spec = noisy_chip(spectrum_from_steps=4096, step_period_s=1.0)
    split = noise_split(spec, HOUR)
    white = noise_split(spec.replace(noise_in_time="white"), HOUR)
    assert split.bands == () and split.slow == 0 and split.fast == white.fast


def test_generated_bands_of_a_one_over_f_card_deviate_from_it_by_a_quarter_of_a_decibel():
    spec = noisy_chip()
    frequency = np.logspace(-5, math.log10(1 / (8 * math.pi * 16)), 400) / DT
    level = 10 * np.log10(spectrum(spec, HOUR, frequency) * frequency)
    assert np.abs(level).max() < 0.25


@pytest.mark.parametrize("step", [0, 37, 3000])
def test_the_process_is_stationary_from_the_first_step_on(step):
    spec = noisy_chip()
    n_in, n_out = 128, 192
    matrix = map_matrix(np.ones((n_in, n_out)), spec).program(9).wait(HOUR)
    matrix.mvm(np.zeros((1, n_in)), first_read=step)
    w, v, _ = matrix.weights()
    split = noise_split(spec, HOUR)
    expected = QUALITY**2 * (split.slow**2 + split.moving**2)
    n = w.size
    assert abs(w.mean() - 1) < SIGMAS * math.sqrt(expected / n)
    assert w.astype(float).var() == pytest.approx(expected, rel=SIGMAS * math.sqrt(2 / n))
    np.testing.assert_allclose(v, (QUALITY * split.fast) ** 2, rtol=1e-4)
    standard = (w.ravel() - 1) / math.sqrt(expected)
    assert stats.kstest(standard, "norm").pvalue > 1e-4


def test_bands_are_drawn_anew_after_geometric_times_of_their_mean():
    spec = noisy_chip(spectrum_from_steps=4)
    n, steps = 64 * 40, 2000
    matrix = map_matrix(np.ones((1, n)), spec).program(2).wait(HOUR)
    one = np.ones((1, 1), np.float32)
    before, changes = matrix.weights()[0].copy(), []
    for _ in range(steps):
        matrix.mvm(one)
        now = matrix.weights()[0].copy()
        changes.append((now != before).reshape(-1, 64))
        before = now
    changed = np.array(changes)
    refreshed = changed.any(axis=2)
    assert changed[refreshed].mean() > 0.999  # a group at once, but for values equal by chance
    gaps = np.concatenate([np.diff(np.flatnonzero(group)) for group in refreshed.T])
    lengths = np.arange(1, 25)
    found = np.append([(gaps == k).sum() for k in lengths], (gaps > 24).sum())
    share = 0.25 * 0.75 ** (lengths - 1)
    expected = np.append(share, 1 - share.sum()) * len(gaps)
    assert stats.chisquare(found, expected).pvalue > 1e-4


def test_values_of_different_weights_are_independent_at_all_times():
    spec = noisy_chip(spectrum_from_steps=1)
    y = values_in_time(spec, np.ones((1, 130)), [1.0], 1 << 14)
    steps = np.diff(y, axis=0).astype(float)  # without the slow bands, which last too long
    correlation = np.corrcoef(steps.T) - np.eye(130)
    # a refreshed band's difference is correlated with the next one's by -1/2
    assert np.abs(correlation).max() < 1.3 * SIGMAS / math.sqrt(len(steps))


def test_a_matrix_reads_the_same_numbers_again_and_in_pieces():
    rng = np.random.default_rng(1)
    w, x = rng.standard_normal((70, 33)), rng.standard_normal((50, 70)).astype(np.float32)
    spec = ChipSpec.preset("pcm-nandakumar2019").replace(
        noise_in_time="spectrum", **{"tile.rows": 32}
    )
    matrix = map_matrix(w, spec).program(4).wait(HOUR)
    whole = matrix.mvm(x)
    assert not np.array_equal(whole, map_matrix(w, spec).program(4).wait(HOUR).mvm(x, 1))
    np.testing.assert_array_equal(matrix.mvm(x, first_read=0), whole)
    np.testing.assert_array_equal(matrix.mvm(x[20:23], first_read=20), whole[20:23])
    fresh = map_matrix(w, spec).program(4).wait(HOUR)
    pieces = [fresh.mvm(x[:7]), fresh.mvm(x[7:8]), fresh.mvm(x[8:])]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)
    matrix.wait(1.0)
    assert not np.array_equal(matrix.mvm(x, first_read=0), whole)
