"""The check values that the sources of the cards state, reproduced from sampled cells."""

from __future__ import annotations

import numpy as np
import pytest

from aimc_sim.chip import Chip
from aimc_sim.mapping import Request, place
from aimc_sim.specs import ChipSpec

pytestmark = pytest.mark.compiled

N = 100_000
HOUR, DAY, YEAR = 3600.0, 86400.0, 365 * 86400.0


def sampled(card, target_us, **changes):
    spec = ChipSpec.preset(card).replace(noise_in_time="frozen", **changes)
    layout = place([Request("cells", 1, 200, N // 200, pair=False)], spec)
    return Chip(spec, layout, np.full(N, target_us * 1e-6), seed=12)


def assert_mean_and_std(g_s, mean_us, std_us):
    """Agreement to 5 standard errors plus the last digit of a stated value."""
    g = 1e6 * g_s.astype(float)
    assert abs(g.mean() - mean_us) < 5 * std_us / np.sqrt(N) + 5e-3
    assert abs(g.std() - std_us) < 5 * std_us / np.sqrt(2 * N) + 5e-3


@pytest.mark.parametrize(
    ("target_us", "stated"),
    [
        (5, [(5.001, 0.609), (3.881, 0.722), (3.334, 0.714), (2.524, 0.707)]),
        (25, [(24.999, 1.054), (19.392, 1.406), (16.626, 1.512), (12.506, 1.645)]),
    ],
)
def test_phase_change_cells_have_the_stated_mean_and_spread_for_a_year(target_us, stated):
    chip = sampled("pcm-nandakumar2019", target_us)
    assert_mean_and_std(chip.programmed_s[0], *stated[0])
    for seconds, values in zip((HOUR, DAY, YEAR), stated[1:], strict=True):
        chip.wait(seconds - chip.time_s)
        assert_mean_and_std(chip.read(), *values)


def test_wan_cells_have_the_stated_spread_after_a_second_and_a_day():
    chip = sampled("reram-wan2022", 16, **{"device.read_noise": None})
    for seconds, std_us in ((1.0, 2.22), (DAY, 4.00)):
        chip.wait(seconds - chip.time_s)
        assert_mean_and_std(chip.aged()[0], 16.0, std_us)


def test_wan_reads_add_one_percent():
    chip = sampled("reram-wan2022", 40)
    noise = chip.read() / chip.aged()[0] - 1
    assert noise.std() == pytest.approx(0.01, rel=0.02)


def test_cmo_cells_have_the_stated_programming_and_relaxation():
    chip = sampled("cmo-hfox", 50, **{"device.read_noise": None})
    assert_mean_and_std(chip.programmed_s[0], 50.0, 0.575)
    chip.wait(HOUR)
    moved = 1e6 * (chip.aged()[0].astype(float) - chip.programmed_s[0])
    assert moved.mean() == pytest.approx(-0.73, abs=5 * 0.76 / np.sqrt(N) + 5e-3)
    assert moved.std() == pytest.approx(0.76, abs=5 * 0.76 / np.sqrt(2 * N) + 5e-3)


@pytest.mark.parametrize("g_us", [20.0, 50.0, 80.0])
def test_cmo_reads_spread_with_the_logarithm_of_conductance_and_time(g_us):
    exact = {"device.programming": None, "device.relaxation": None}
    chip = sampled("cmo-hfox", g_us, **exact)
    chip.wait(HOUR)
    sigma = 0.0277316 * np.log10(g_us) * np.sqrt(np.log((HOUR + 1e-6) / 2e-6))
    assert (1e6 * chip.read().astype(float)).std() == pytest.approx(sigma, rel=0.02)
