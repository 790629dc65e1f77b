"""Closed-loop write-verify against its definition, against known errors and against one-shot."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from pulse_cards import microsiemens, write_chip, write_spec

from aimc_sim.chip import Chip
from aimc_sim.mapping import Request, place
from aimc_sim.randomness import Purpose

pytestmark = pytest.mark.compiled

N = 40_000
SET, RESET = 0, 1


def uniform_targets(n=N, low=5e-6, high=45e-6):
    return np.random.default_rng(3).uniform(low, high, n)


def rough_spec(**more):
    """A chip whose pulses scatter, from cell to cell as well, and whose reads are noisy."""
    spec = write_spec(
        tolerance_us=1.2, most=25,
        set_mean=microsiemens(2.5, -0.03), set_sigma=microsiemens(0.4, 0.02),
        reset_mean=microsiemens(-0.5, -0.06), reset_sigma=microsiemens(0.8),
        device_spread=0.4,
    )
    noise = {"sigma": {"power": [0.0015, -0.5], "high": 0.05}, "white": {"polynomial": [0.02]}}
    return spec.replace(**{"device.read_noise": noise, "write.verify_reads": 3, **more})


def written_by_definition(chip):
    """The loop for all cells at once, in float64, from the same draws: (g, pulses, failed)."""
    spec, device = chip.spec, chip.spec.device
    write, card, noise = spec.write, device.pulses, device.read_noise

    def value(curve, g):
        return curve.evaluate(g, device.g_max_s)

    def normals(purpose, number):
        return chip.normals(purpose, 0, number)[chip.draws.index].astype(float)

    factors = [
        np.maximum(0, 1 + card.device_spread * normals(Purpose.PULSE_CELL, k)) for k in (SET, RESET)
    ]
    n = write.verify_reads
    lasting = math.sqrt(math.log((1 + n * noise.t_read_s) / (2 * n * noise.t_read_s)))
    target = chip.target_s.astype(float)
    g = np.full(target.shape, getattr(device, f"{write.start}_s"))
    pulses = np.zeros(target.shape, int)
    busy = np.ones(target.shape, bool)
    for pulse in range(write.max_pulses + 1):
        white = value(noise.white, g) / math.sqrt(n)
        sigma = g * np.hypot(lasting * value(noise.sigma, g), white)
        found = np.maximum(g + sigma * normals(Purpose.VERIFY, pulse), device.floor_s)
        busy &= np.abs(target - found) > write.tolerance_s
        if pulse == write.max_pulses:
            break
        up = found < target
        xi = normals(Purpose.WRITE, pulse)
        rise = factors[SET] * value(card.set_mean, g) + value(card.set_sigma, g) * xi
        fall = factors[RESET] * value(card.reset_mean, g) + value(card.reset_sigma, g) * xi
        after = np.clip(g + np.where(up, rise, fall), device.g_min_s, device.g_max_s)
        g = np.where(busy, after, g)
        pulses += busy
    return g, pulses, busy


@pytest.mark.parametrize("start", ["g_min", "g_max"])
def test_the_compiled_loop_is_the_loop_of_its_definition(start):
    chip = write_chip(rough_spec(**{"write.start": start}), uniform_targets(8192, 1e-6, 50e-6))
    g, pulses, failed = written_by_definition(chip)
    same = chip.written.pulses[0] == pulses
    # a comparison that float32 decides otherwise sends a cell another way
    assert same.mean() > 0.999
    np.testing.assert_array_equal(chip.written.failed[0][same], failed[same])
    np.testing.assert_allclose(chip.programmed_s[0][same], g[same], rtol=2e-5)
    assert 0.001 < failed.mean() < 0.5
    assert len(np.unique(pulses)) > 15


def test_a_cell_is_written_the_same_alone_and_among_others():
    spec = rough_spec()
    requests = [Request("first", 1, 5, 6), Request("blocks", 3, 2, 2), Request("last", 1, 70, 3)]
    whole, part = place(requests, spec), place(requests[:2], spec)
    target = np.linspace(2e-6, 49e-6, whole.n_cells)
    big = Chip(spec, whole, target, seed=11, n_replicas=3)
    small = Chip(spec, part, target[: part.n_cells], seed=11, first_replica=2)
    for name in ("g_s", "pulses", "failed", "energy_j"):
        of_big, of_small = (getattr(chip.written, name) for chip in (big, small))
        np.testing.assert_array_equal(of_big[2, : part.n_cells], of_small[0], err_msg=name)
    assert (big.programmed_s[0] != big.programmed_s[2]).mean() > 0.9


def test_equal_pulses_climb_until_the_band_is_reached():
    target = uniform_targets()
    step, tolerance = 0.8e-6, 0.5e-6
    chip = write_chip(write_spec(step_us=0.8, tolerance_us=0.5), target)
    needed = np.ceil((target - tolerance - 1e-6) / step)
    # where a step ends at the edge of the band to 1e-6 of it, rounding decides
    clear = np.abs((target - tolerance - 1e-6) / step % 1 - 0.5) < 0.4999
    assert clear.mean() > 0.999
    np.testing.assert_array_equal(chip.written.pulses[0][clear], needed[clear])
    expected = 1e-6 + step * needed
    np.testing.assert_allclose(chip.programmed_s[0][clear], expected[clear], atol=5e-11)
    assert not chip.written.failed.any()


def test_energy_is_that_of_every_pulse_and_every_verify_read():
    chip = write_chip(write_spec(step_us=1.0).replace(**{"write.verify_reads": 2}), [20.2e-6])
    g = 1e-6 * np.arange(1, 21)  # 1 uS at first, 20 uS at last
    expected = 1.5**2 * 1e-6 * g[:-1].sum() + 2 * 0.2**2 * 5e-6 * g.sum()
    assert chip.written.pulses[0, 0] == 19
    assert chip.written.energy_j[0, 0] == pytest.approx(expected, rel=1e-6)
    chip = write_chip(write_spec(start="g_max"), [47.2e-6])
    expected = 2.0**2 * 1e-6 * (50 + 49 + 48) * 1e-6 + 0.2**2 * 5e-6 * (50 + 49 + 48 + 47) * 1e-6
    assert chip.written.energy_j[0, 0] == pytest.approx(expected, rel=1e-6)


def test_a_cell_out_of_pulses_stays_where_it_is_and_is_counted():
    target = np.linspace(1e-6, 50e-6, 64)
    written = write_chip(write_spec(most=7), target).written
    beyond = target > 8.5e-6
    np.testing.assert_array_equal(written.failed[0], beyond)
    np.testing.assert_allclose(written.g_s[0][beyond], 8e-6, rtol=1e-6)
    assert (written.pulses[0][beyond] == 7).all()
    assert written.log().failed == beyond.sum()


def test_a_cell_that_is_near_enough_takes_no_pulse():
    written = write_chip(write_spec(), [1.2e-6, 1.6e-6]).written
    assert written.pulses.tolist() == [[0, 1]]


def test_a_pulse_does_not_leave_the_range_of_the_device():
    wild = {"set_sigma": microsiemens(40.0), "reset_sigma": microsiemens(40.0)}
    spec = write_spec(tolerance_us=0.01, most=2, **wild)
    g = write_chip(spec, np.full(4096, 25e-6)).programmed_s
    assert g.min() == np.float32(1e-6)
    assert g.max() == np.float32(50e-6)


@pytest.mark.parametrize(("start", "polarity"), [("g_min", SET), ("g_max", RESET)])
def test_every_cell_has_a_pulse_of_its_own_for_each_polarity(start, polarity):
    spec = write_spec(
        step_us=0.1, tolerance_us=0.001, most=10, start=start, device_spread=0.5
    )
    chip = write_chip(spec, np.full(8192, 25e-6))
    begin = 1.0 if polarity == SET else 50.0
    factor = np.abs(1e6 * chip.programmed_s[0].astype(float) - begin)
    xi = chip.normals(Purpose.PULSE_CELL, 0, polarity)[chip.draws.index]
    np.testing.assert_allclose(factor, np.maximum(0, 1 + 0.5 * xi), atol=1e-4)
    assert (factor < 1e-5).mean() == pytest.approx(0.02275, abs=5 * math.sqrt(0.02275 / 8192))


def test_every_pulse_has_a_spread_of_its_own():
    n = 25
    spec = write_spec(step_us=0.5, tolerance_us=0.001, most=n, set_sigma=microsiemens(0.2))
    g = 1e6 * write_chip(spec, np.full(N, 45e-6)).programmed_s[0].astype(float)
    spread = 0.2 * math.sqrt(n)
    assert abs(g.mean() - (1 + 0.5 * n)) < 5 * spread / math.sqrt(N)
    assert abs(g.std() - spread) < 5 * spread / math.sqrt(2 * N)


# one-shot and write-verify


def one_shot(spec, sigma_us):
    error = {"sigma": {"unit_s": 1e-6, "polynomial": [sigma_us]}}
    return spec.replace(write=None, **{"device.programming": error})


def moments(chip, target):
    """Mean and standard deviation of the error [uS], and its kurtosis."""
    error = 1e6 * (chip.programmed_s[0].astype(float) - target)
    z = (error - error.mean()) / error.std()
    return error.mean(), error.std(), (z**4).mean()


def test_one_shot_agrees_with_a_loop_whose_error_is_known():
    """Steps of twice the tolerance land anywhere in the band: the error is uniform in it."""
    target = uniform_targets()
    tolerance_us = 0.5
    loop = write_chip(write_spec(step_us=1.0, tolerance_us=tolerance_us), target)
    sigma = tolerance_us / math.sqrt(3)
    shot = write_chip(one_shot(loop.spec, sigma), target)
    # kurtosis and its standard error times sqrt(N): of a uniform, of a normal distribution
    for chip, kurtosis, of_kurtosis in ((loop, 1.8, 1.15), (shot, 3.0, math.sqrt(24))):
        mean, std, fourth = moments(chip, target)
        assert abs(mean) < 5 * sigma / math.sqrt(N)
        assert abs(std - sigma) < 5 * sigma / math.sqrt(2 * N)
        # what a published sigma cannot say: the loop has no tails
        assert abs(fourth - kurtosis) < 5 * of_kurtosis / math.sqrt(N)


def test_fine_steps_stop_at_the_near_edge_of_the_band_where_one_shot_is_centred():
    target = uniform_targets()
    step, tolerance = 0.1, 0.5
    mean, std, _ = moments(write_chip(write_spec(step_us=step, tolerance_us=tolerance, most=1000),
                                      target), target)
    sigma = step / math.sqrt(12)
    assert abs(mean - (step / 2 - tolerance)) < 5 * sigma / math.sqrt(N) + 1e-4
    assert abs(std - sigma) < 5 * sigma / math.sqrt(2 * N) + 1e-4


def test_coarse_pulses_and_few_iterations_are_worse_than_the_tolerance_says():
    target = uniform_targets()
    coarse = {"set_sigma": microsiemens(4.0), "reset_sigma": microsiemens(4.0)}
    spec = write_spec(step_us=5.0, tolerance_us=0.5, most=15, **coarse)
    few = write_chip(spec, target)
    many = write_chip(spec.replace(**{"write.max_pulses": 1000}), target)
    assert few.written.failed.mean() > 0.2
    assert moments(few, target)[1] > 5 * 0.5 / math.sqrt(3)
    assert not many.written.failed.any()
    # pulses far larger than the band land anywhere in it
    assert moments(many, target)[1] == pytest.approx(0.5 / math.sqrt(3), rel=0.02)


def test_read_noise_that_the_loop_believes_stays_in_the_cell():
    """With verifications of sigma v and pulses far larger than the band, an accepted cell errs
    by the uniform share of the band and by v: the loop cannot do better than its reads."""
    target = uniform_targets()
    coarse = {"set_sigma": microsiemens(6.0), "reset_sigma": microsiemens(6.0)}
    noise = {"sigma": microsiemens(1.0), "relative": False, "spectrum": "white"}
    spec = write_spec(step_us=5.0, tolerance_us=0.5, most=1000, **coarse)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        chip = write_chip(spec.replace(**{"device.read_noise": noise}), target)
    _, std, _ = moments(chip, target)
    assert std == pytest.approx(math.sqrt(0.5**2 / 3 + 1.0), rel=0.02)
