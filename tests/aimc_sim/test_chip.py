"""Chip: programmed, aged and read cells are pure functions of seed, cell and time."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from aimc_sim.aging import relaxation_sigma
from aimc_sim.chip import Chip
from aimc_sim.compensation import global_gain
from aimc_sim.errors import UsageError
from aimc_sim.mapping import Request, place
from aimc_sim.noise import noise_split
from aimc_sim.randomness import Purpose
from aimc_sim.specs import ChipSpec

HOUR, DAY, YEAR = 3600.0, 86400.0, 365 * 86400.0
CARDS = ["pcm-nandakumar2019", "reram-wan2022", "cmo-hfox"]


def preset(name):
    return ChipSpec.preset(name)


def ramp_chip(name_or_spec, *, n=48, **options):
    """A chip whose n cells are asked for conductances from g_min to g_max."""
    spec = preset(name_or_spec) if isinstance(name_or_spec, str) else name_or_spec
    layout = place([Request("ramp", 1, 1, n, pair=False)], spec)
    target = np.linspace(spec.device.g_min_s, spec.device.g_max_s, n)
    return Chip(spec, layout, target, **options)


def correlation(a, b):
    return float(np.corrcoef(a, b)[0, 1])


# the clock


@pytest.mark.parametrize("name", CARDS)
def test_an_hour_and_an_hour_is_two_hours_bit_for_bit(name):
    twice, once = ramp_chip(name, seed=3), ramp_chip(name, seed=3)
    twice.wait(HOUR)
    twice.read()
    twice.wait(HOUR)
    once.wait(2 * HOUR)
    np.testing.assert_array_equal(twice.aged(), once.aged())
    np.testing.assert_array_equal(twice.read(), once.read())


def test_a_tenth_of_a_second_ten_times_is_a_second():
    chip = ramp_chip("cmo-hfox")
    for _ in range(10):
        chip.wait(0.1)
    assert chip.time_s == 1.0


@pytest.mark.parametrize("seconds", [-1.0, -1e-9, math.nan, math.inf])
def test_time_before_programming_is_refused(seconds):
    chip = ramp_chip("pcm-nandakumar2019")
    with pytest.raises(
        UsageError, match=r"Time does not run backwards\. Give zero or a positive time"
    ):
        chip.wait(seconds)
    assert chip.clock_ns == 0


def test_the_wan_card_refuses_times_beyond_its_two_days_and_keeps_its_clock():
    chip = ramp_chip("reram-wan2022")
    chip.wait(2 * DAY)
    with pytest.raises(UsageError, match=r"reram-wan2022.*data cover 0 s to 2 d.*another card"):
        chip.wait(1.0)
    assert chip.time_s == 2 * DAY


@pytest.mark.parametrize("name", ["pcm-nandakumar2019", "cmo-hfox"])
def test_a_card_that_extrapolates_says_so(name):
    chip = ramp_chip(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chip.wait(YEAR)
    with pytest.warns(UserWarning, match=r"data cover 0 s to 1 y; the formula is extrapolated"):
        chip.wait(YEAR)


# what a cell's history is made of


@pytest.mark.parametrize("name", CARDS)
def test_reading_changes_nothing(name):
    chip = ramp_chip(name, seed=8)
    chip.wait(HOUR)
    before = chip.aged().copy()
    first, second = chip.read(), chip.read()
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(chip.aged(), before)


def test_slow_noise_is_new_for_another_sequence_and_at_another_time():
    chip = ramp_chip("pcm-nandakumar2019")
    assert not np.array_equal(chip.read(sequence=0), chip.read(sequence=1))
    zero = chip.normals(Purpose.READ_SLOW, 0, timed=True)
    chip.wait(4096e-9)
    assert not np.array_equal(zero, chip.normals(Purpose.READ_SLOW, 0, timed=True))


def test_drift_never_raises_conductance():
    chip = ramp_chip("pcm-nandakumar2019", seed=5, n_replicas=3)
    before = chip.programmed_s
    for wait in (1e-9, 1.0, 25.0, HOUR, DAY, 30 * DAY):
        chip.wait(wait)
        assert (chip.aged() <= before).all()
        before = chip.aged()
    assert (before[before > 0] < chip.programmed_s[before > 0]).all()


def test_every_cell_drifts_with_the_exponent_of_its_own_draw():
    chip = ramp_chip("pcm-nandakumar2019", seed=5)
    chip.wait(DAY)
    r = np.linspace(0, 1, chip.n_cells)
    with np.errstate(divide="ignore"):
        mean = np.clip(-0.0155 * np.log(r) + 0.0244, 0.049, 0.1)
        spread = np.clip(-0.0125 * np.log(r) - 0.0059, 0.008, 0.045)
    nu = np.abs(mean + spread * chip.normals(Purpose.DRIFT, 0)[chip.draws.index])
    expected = chip.programmed_s[0] * ((20 + DAY) / 20) ** -nu
    np.testing.assert_allclose(chip.aged()[0], expected, rtol=2e-5)


@pytest.mark.compiled
def test_the_two_cells_of_a_pair_drift_independently():
    spec = preset("pcm-nandakumar2019")
    n = 40_000
    layout = place([Request("pairs", 1, 200, n // 200, pair=True)], spec)
    chip = Chip(spec, layout, np.full(2 * n, 10e-6), seed=2)
    chip.wait(HOUR)
    nu = -np.log(chip.aged()[0] / chip.programmed_s[0]) / math.log1p(HOUR / 20)
    plus, minus = nu[:n], nu[n:]
    assert abs(correlation(plus, minus)) < 5 / math.sqrt(n)
    # mu = 0.049 (clamped), s = -0.0125 ln 0.4 - 0.0059 = 0.00803, far enough from zero
    for half in (plus, minus):
        assert half.mean() == pytest.approx(0.049, abs=5 * 0.008 / math.sqrt(n))
        assert half.std() == pytest.approx(0.008, rel=0.02)


def test_a_reset_cell_keeps_its_programming_error():
    spec = preset("pcm-nandakumar2019")
    layout = place([Request("reset", 1, 16, 64, pair=False)], spec)
    chip = Chip(spec, layout, np.zeros(1024))
    assert 0.3 < (chip.programmed_s > 0).mean() < 0.7
    assert (chip.programmed_s >= 0).all()


def test_wan_relaxation_interpolates_between_its_times_in_the_logarithm_of_time():
    device = preset("reram-wan2022").device
    target = np.linspace(0, 40e-6, 9)
    second, day = (relaxation_sigma(device, target, t) for t in (1.0, DAY))
    halfway = relaxation_sigma(device, target, math.sqrt(DAY))
    np.testing.assert_allclose(halfway, (second + day) / 2, rtol=1e-6)
    np.testing.assert_array_equal(relaxation_sigma(device, target, 0.0), second)
    assert 1e6 * second[np.argmin(abs(target - 15e-6))] == pytest.approx(2.22, abs=0.05)


def test_wan_cells_move_along_one_draw_and_do_not_wander():
    chip = ramp_chip("reram-wan2022", seed=4)
    deviation = []
    for wait in (1.0, DAY - 1, DAY):
        chip.wait(wait)
        sigma = relaxation_sigma(chip.spec.device, chip.target_s.astype(float), chip.time_s)
        deviation.append((chip.aged()[0] - chip.target_s) / sigma)
    np.testing.assert_allclose(deviation[1], deviation[0], atol=1e-3)
    np.testing.assert_allclose(deviation[2], deviation[0], atol=1e-3)


def test_cmo_cells_read_as_programmed_until_one_second_and_relax_after_it():
    chip = ramp_chip("cmo-hfox", seed=4)
    chip.wait(0.999)
    np.testing.assert_array_equal(chip.aged(), chip.programmed_s)
    chip.wait(0.001)
    moved = chip.aged()[0] - chip.programmed_s[0]
    xi = chip.normals(Purpose.RELAX, 0)[chip.draws.index]
    np.testing.assert_allclose(moved, 0.41183342e-6 * xi, atol=2e-11)
    chip.wait(HOUR - 1)
    moved = chip.aged()[0] - chip.programmed_s[0]
    log = math.log(HOUR)
    expected = -0.08900206 * log + (0.04201137 * log + 0.41183342) * xi
    np.testing.assert_allclose(1e6 * moved, expected, atol=2e-5)


def test_no_read_leaves_the_range_of_the_card():
    chip = ramp_chip("cmo-hfox", n=512, seed=4)
    assert (chip.programmed_s < np.float32(9e-6)).any()
    assert (chip.programmed_s > np.float32(88.2e-6)).any()
    for wait in (0.0, HOUR, DAY):
        chip.wait(wait)
        g = chip.read()
        assert g.min() == np.float32(9e-6)
        assert g.max() == np.float32(88.2e-6)


# read noise in time


@pytest.mark.parametrize("seconds", [0.0, 1e-6, HOUR, YEAR])
@pytest.mark.parametrize("name", ["pcm-nandakumar2019", "cmo-hfox"])
def test_slow_and_fast_read_noise_add_up_to_the_published_sum(name, seconds):
    spec = preset(name)
    t = seconds + (20.0 if name.startswith("pcm") else 0.0)
    t_read = spec.device.read_noise.t_read_s
    total = max(0.0, math.log((t + t_read) / (2 * t_read)))
    split = noise_split(spec, seconds)
    assert split.slow**2 + split.fast**2 == pytest.approx(total, rel=1e-9, abs=1e-12)
    white = noise_split(spec.replace(noise_in_time="white"), seconds)
    frozen = noise_split(spec.replace(noise_in_time="frozen"), seconds)
    assert (white.slow, frozen.fast) == (0.0, 0.0)
    assert white.fast == frozen.slow == pytest.approx(math.sqrt(total))


def test_white_noise_is_new_at_every_read_unless_frozen():
    spec = preset("reram-wan2022")
    assert noise_split(spec, HOUR) == noise_split(spec.replace(noise_in_time="white"), HOUR)
    assert (noise_split(spec, HOUR).slow, noise_split(spec, HOUR).fast) == (0.0, 1.0)
    assert noise_split(spec.replace(noise_in_time="frozen"), HOUR).slow == 1.0


def test_a_relative_read_noise_follows_the_programmed_conductance():
    spec = preset("pcm-nandakumar2019").replace(noise_in_time="frozen")
    chip = ramp_chip(spec, n=256, seed=9)
    chip.wait(HOUR)
    r = np.maximum(chip.programmed_s[0].astype(float), 1e-18) / 25e-6
    quality = np.minimum(0.2, 0.0088 * r**-0.65)
    factor = math.sqrt(math.log((20 + HOUR + 250e-9) / 500e-9))
    xi = chip.normals(Purpose.READ_SLOW, 0, timed=True)[chip.draws.index]
    expected = np.maximum(0, chip.aged()[0] * (1 + quality * factor * xi))
    np.testing.assert_allclose(chip.read(), expected, rtol=1e-4, atol=1e-12)


# replicas, seeds, neighbours


@pytest.mark.parametrize("name", CARDS)
def test_replica_three_alone_is_replica_three_of_five(name):
    many = ramp_chip(name, seed=6, n_replicas=5)
    one = ramp_chip(name, seed=6, first_replica=3)
    many.wait(HOUR)
    one.wait(HOUR)
    np.testing.assert_array_equal(many.programmed_s[3], one.programmed_s[0])
    np.testing.assert_array_equal(many.aged()[3], one.aged()[0])
    np.testing.assert_array_equal(many.read(3, sequence=2), one.read(0, sequence=2))
    np.testing.assert_array_equal(many.fast_sigma(3), one.fast_sigma(0))


@pytest.mark.compiled
def test_replicas_and_seeds_are_independent():
    spec = preset("cmo-hfox")
    n = 40_000
    layout = place([Request("cells", 1, 200, n // 200, pair=False)], spec)
    errors = []
    for seed in (1, 2):
        chip = Chip(spec, layout, np.full(n, 50e-6), seed, n_replicas=2)
        errors += list(chip.programmed_s)
        chip.wait(HOUR)
        errors += list(chip.aged() - chip.programmed_s)
    for a in range(len(errors)):
        for b in range(a):
            assert abs(correlation(errors[a], errors[b])) < 5 / math.sqrt(n), (a, b)


@pytest.mark.parametrize("name", CARDS)
def test_a_matrix_added_behind_others_leaves_their_cells_alone(name):
    spec = preset(name)
    requests = [
        Request("first", 1, 5, 6),
        Request("blocks", 3, 2, 2, kind="short_tile"),
        Request("last", 1, 7, 3),
    ]
    whole, part = place(requests, spec), place(requests[:2], spec)
    target = np.linspace(spec.device.g_min_s, spec.device.g_max_s, whole.n_cells)
    big = Chip(spec, whole, target, seed=11)
    small = Chip(spec, part, target[: part.n_cells], seed=11)
    for chip in (big, small):
        chip.wait(HOUR)
    np.testing.assert_array_equal(big.aged()[:, : part.n_cells], small.aged())
    np.testing.assert_array_equal(big.read()[: part.n_cells], small.read())


def test_no_chips_at_all_is_refused():
    with pytest.raises(UsageError, match=r"Program 0 chips.*at least one"):
        ramp_chip("ideal", n_replicas=0)


# compensation


def test_the_gain_of_a_set_of_cells_is_what_is_left_of_their_conductance():
    chip = ramp_chip("pcm-nandakumar2019", n_replicas=2)
    chip.wait(DAY)
    low, high = np.arange(24), np.arange(24, 48)
    fresh = ramp_chip("pcm-nandakumar2019", n_replicas=2).aged()
    gain = global_gain(chip, [low, high])
    assert gain.shape == (2, 2)
    for replica in range(2):
        for k, index in enumerate((low, high)):
            expected = chip.aged()[replica, index].sum() / fresh[replica, index].sum()
            assert gain[replica, k] == pytest.approx(expected, rel=1e-6)
    assert (gain < 1).all()


def test_a_chip_just_programmed_needs_no_compensation():
    chip = ramp_chip("pcm-nandakumar2019", n_replicas=2)
    assert (global_gain(chip, [np.arange(24), np.arange(24, 48)]) == 1).all()


def test_cells_that_stand_for_nothing_have_unit_gain():
    spec = preset("pcm-nandakumar2019")
    layout = place([Request("zeros", 1, 2, 2)], spec)
    chip = Chip(spec, layout, np.zeros(8))
    assert global_gain(chip, [np.arange(8)]).tolist() == [[1.0]]
