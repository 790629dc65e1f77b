"""Maximum likelihood against closed forms, outliers, limits, and data that say too little."""

from __future__ import annotations

import numpy as np
import pytest

from aimc_sim.errors import InputError, UsageError
from calibration.converter import fit_converter
from calibration.drift import fit_drift
from calibration.programming import fit_programming
from calibration.pulse import fit_pulse
from calibration.read_noise import fit_read_noise
from calibration.relaxation import fit_relaxation, histories, time_groups
from calibration.spectra import lorentzian
from calibration.statistics import clipped_moments, find_limits, fit_normal
from calibration.tables import Table
from calibration.telegraph import fit_telegraph, has_telegraph


def draws(n: int, seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[n, seed]))


def table(kind: str, **columns: np.ndarray) -> Table:
    data = {key: np.asarray(value, float) for key, value in columns.items()}
    return Table(kind, data, len(next(iter(data.values()))))


def test_constants_of_normal_data_are_mean_and_standard_deviation():
    y = draws(500).standard_normal(500)
    fit = fit_normal(np.linspace(1, 9, 500), y, 0, 0)
    np.testing.assert_allclose(fit.theta, [y.mean(), y.std()], rtol=1e-6)
    own = np.sqrt(np.diag(fit.covariance()))
    assert own[0] == pytest.approx(y.std(ddof=1) / 500**0.5, rel=0.01)


def test_a_twin_of_every_cell_leaves_the_error_as_it_was():
    y = draws(300).standard_normal(300)
    once = fit_normal(np.linspace(1, 9, 300), y, 1, 0)
    twice = fit_normal(np.repeat(np.linspace(1, 9, 300), 2), np.repeat(y, 2), 1, 0)
    np.testing.assert_allclose(
        twice.covariance(np.repeat(np.arange(300), 2)), once.covariance(), rtol=1e-5)


def test_outliers_that_lie_apart_do_not_move_a_fit():
    rng = draws(4000)
    v, y = rng.uniform(1, 100, 4000), rng.standard_normal(4000)
    clean = fit_normal(v, y, 1, 1)
    spoiled = y.copy()
    spoiled[:120] += rng.uniform(20, 80, 120)
    fit = fit_normal(v, spoiled, 1, 1)
    assert (~fit.kept).sum() == 120
    error = np.sqrt(np.diag(clean.covariance()))
    assert (np.abs(fit.theta - clean.theta) < error).all()


def test_a_long_tail_is_the_device_and_stays():
    y = draws(5000).standard_t(2.5, 5000)
    assert fit_normal(np.linspace(1, 9, 5000), y, 0, 0).kept.all()


def test_values_at_a_limit_count_as_beyond_it():
    """Half of all values are clipped: the fit finds what the plain moments cannot."""
    y = 1.0 + 2.0 * draws(20_000).standard_normal(20_000)
    clipped = np.maximum(y, 1.0)
    limits = find_limits(clipped)
    assert limits.low.sum() == (clipped == 1.0).sum() > 9000
    fit = fit_normal(np.linspace(1, 9, 20_000), clipped, 0, 0, limits=limits)
    error = np.sqrt(np.diag(fit.covariance()))
    assert (np.abs(fit.theta - [1.0, 2.0]) < 4 * error).all()
    first, second = clipped_moments(np.array([1.0]), np.array([2.0]), 1.0, np.inf)
    assert clipped.mean() == pytest.approx(first[0], abs=5 * clipped.std() / 20_000**0.5)
    assert (clipped**2).mean() == pytest.approx(second[0], rel=0.05)


def test_steps_of_an_instrument_are_no_limits():
    assert not find_limits(np.round(draws(1000).standard_normal(1000), 1)).any.any()


def test_times_that_stray_about_a_decade_are_one_time():
    t = np.concatenate([m * (1 + 0.1 * draws(50, k).random(50))
                        for k, m in enumerate([0.01, 1.0, 100.0])])
    assert (np.bincount(time_groups(t)) == 50).all()


def jumps(n: int, amplitude: float, seed: int = 0) -> np.ndarray:
    rng = draws(n, seed)
    level = np.cumsum(rng.random(n) < 0.02) % 2
    return 50 + amplitude * level + 0.3 * rng.standard_normal(n)


def test_jumps_are_found_and_slow_noise_is_not_taken_for_them():
    y = jumps(8000, 2.0)
    chain = fit_telegraph(y, 1e-3)
    assert has_telegraph(y, chain)
    assert chain.amplitude == pytest.approx(2.0, abs=0.03)
    assert chain.dwell_s[0] == pytest.approx(0.05, rel=0.3)
    rng = draws(8000, 1)
    f = np.fft.rfftfreq(32_000, 1e-3)[1:]
    line = (rng.standard_normal(len(f)) + 1j * rng.standard_normal(len(f))) / np.sqrt(f)
    slow = np.fft.irfft(np.r_[0, line])[:8000]
    assert not has_telegraph(slow, fit_telegraph(slow, 1e-3))


def test_power_of_jumps_is_their_variance():
    f = np.logspace(-6, 6, 200_001)
    power = lorentzian(2.0, 0.3, 40.0, f)
    assert np.trapezoid(power, f) == pytest.approx(4 * 0.3 * 0.7, rel=1e-3)


@pytest.mark.parametrize(("fit", "data", "match"), [
    (fit_programming, table("programming", target_s=[1e-6] * 5, measured_s=[2e-6] * 5),
     "5 points"),
    (fit_programming, table("programming", target_s=np.ones(50), measured_s=np.ones(50)),
     "measured_s is constant"),
    (fit_programming, table("programming", target_s=np.ones(50)), "lacks measured_s"),
    (fit_relaxation, table("relaxation", cell=np.arange(30), time_s=np.zeros(30),
                           conductance_s=np.arange(1, 31) * 1e-6), "points after the start"),
    (fit_drift, table("drift", cell=np.repeat(np.arange(30), 2), time_s=np.tile([0, 9], 30),
                      conductance_s=np.linspace(1e-6, 2e-6, 60)), "All reads are at one time"),
    (fit_read_noise, table("read-noise", cell=np.zeros(100), time_s=np.arange(100.0) ** 2,
                           conductance_s=np.linspace(1, 2, 100)), "not evenly spaced"),
    (fit_pulse, table("pulse", ramp=np.zeros(50), pulse=np.arange(50), polarity=np.ones(50),
                      conductance_s=np.arange(1, 51) * 1e-6), "[Nn]o ramp has RESET pulses"),
    (fit_converter, table("converter", code=[0, 1, 2], output=[0, 1, 2]), "3 codes"),
])
def test_data_that_say_too_little_are_refused(fit, data, match):
    with pytest.raises(InputError, match=match):
        fit(data)


@pytest.mark.parametrize("t0_s", [0.0, -1.0, np.nan])
def test_drift_begins_after_programming(t0_s):
    data = table("drift", cell=np.repeat(np.arange(30), 2), time_s=np.tile([1, 9], 30),
                 conductance_s=np.linspace(1e-6, 2e-6, 60))
    with pytest.raises(UsageError, match="positive time"):
        fit_drift(data, t0_s=t0_s)


def test_reads_at_time_zero_beside_the_start_are_counted():
    noise = draws(120, 1).standard_normal((30, 4))
    data = table("relaxation", cell=np.repeat(np.arange(30), 4), time_s=np.tile([0, 0, 1, 9], 30),
                 conductance_s=(20 + noise.ravel()) * 1e-6)
    found = histories(data, "relaxation")
    assert len(found.cell) == 60
    assert found.dropped == {"at time zero, beside the start": 30}
