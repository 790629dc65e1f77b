"""Ageing: the laws and tables of relaxation at a time, and warmth that hurries them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from pydantic import ValidationError

from aimc_sim.aging import BOLTZMANN_EV, acceleration, relaxation_mean, relaxation_sigma
from aimc_sim.chip import Chip
from aimc_sim.errors import InputError, UsageError
from aimc_sim.mapping import Request, place
from aimc_sim.randomness import Purpose
from aimc_sim.specs import ChipSpec

HOUR = 3600.0
PCM = ChipSpec.preset("pcm-nandakumar2019")
CMO = ChipSpec.preset("cmo-hfox")
WAN = ChipSpec.preset("reram-wan2022")


def flat(value_us, slope_us=0.0):
    """A curve value + slope r, in microsiemens."""
    return {"unit_s": 1e-6, "polynomial": [value_us, slope_us]}


def tabled(kind="added", interpolate="log", mean=True, times=(1.0, 100.0, 10_000.0)):
    """A chip that relaxes by a table of three times."""
    relaxation = {
        "kind": kind, "interpolate": interpolate, "times_s": times,
        "sigma": [flat(0.2), flat(0.4, 1.0), flat(1.0)],
        "mean": [flat(-0.1), flat(-0.3, -2.0), flat(-0.5)] if mean else [],
    }
    device = {
        "name": "tabled", "g_min_s": 1e-6, "g_max_s": 40e-6,
        "relaxation": relaxation,
    }
    if kind == "added":
        device["programming"] = {"sigma": flat(0.5)}
    return ChipSpec.model_validate({"name": "tabled", "device": device})


def warm(spec, *, ev=1.1, part=None):
    part = part or ("drift" if spec.device.drift is not None else "relaxation")
    return spec.replace(**{f"device.{part}.activation_energy_ev": ev})


def make_chip(spec, n=64, **options):
    layout = place([Request("cells", 1, 1, n, pair=False)], spec)
    target = np.linspace(spec.device.g_min_s, spec.device.g_max_s, n)
    return Chip(spec, layout, target, **options)


TARGET = np.linspace(1e-6, 40e-6, 9)


# tables


def sigma_us(spec, seconds):
    return 1e6 * relaxation_sigma(spec.device, TARGET, seconds).astype(float)


def mean_us(spec, seconds):
    return 1e6 * relaxation_mean(spec.device, TARGET, seconds).astype(float)


@pytest.mark.parametrize("interpolate", ["log", "linear"])
@pytest.mark.parametrize("kind", ["added", "total"])
def test_a_table_holds_at_its_own_times(kind, interpolate):
    spec = tabled(kind, interpolate)
    r = TARGET / 40e-6
    for seconds, sigma, mean in (
        (1.0, 0.2 + 0 * r, -0.1 + 0 * r), (100.0, 0.4 + r, -0.3 - 2 * r),
        (10_000.0, 1 + 0 * r, -0.5 + 0 * r),
    ):
        np.testing.assert_allclose(sigma_us(spec, seconds), sigma, rtol=1e-6)
        np.testing.assert_allclose(mean_us(spec, seconds), mean, rtol=1e-6)


@pytest.mark.parametrize(
    ("interpolate", "seconds", "share"),
    [("log", 10.0, 0.5), ("log", 10**0.2, 0.1), ("linear", 50.5, 0.5), ("linear", 10.9, 0.1)],
)
def test_between_its_times_a_table_is_linear_in_the_logarithm_or_in_time(
    interpolate, seconds, share
):
    spec = tabled(interpolate=interpolate)
    r = TARGET / 40e-6
    np.testing.assert_allclose(sigma_us(spec, seconds), 0.2 + share * (0.2 + r), rtol=1e-6)
    np.testing.assert_allclose(mean_us(spec, seconds), -0.1 - share * (0.2 + 2 * r), rtol=1e-6)


@pytest.mark.parametrize("interpolate", ["log", "linear"])
def test_after_its_last_time_a_table_stays(interpolate):
    spec = tabled(interpolate=interpolate)
    for value in (sigma_us, mean_us):
        np.testing.assert_array_equal(value(spec, 1e6), value(spec, 10_000.0))


def test_before_its_first_time_an_added_table_has_not_begun_and_a_total_one_holds():
    added, total = tabled("added"), tabled("total")
    assert not sigma_us(added, 0.999).any()
    assert not mean_us(added, 0.999).any()
    for value in (sigma_us, mean_us):
        np.testing.assert_array_equal(value(total, 0.0), value(total, 1.0))
        assert value(total, 0.0).any()


def test_a_linear_table_may_begin_at_zero():
    spec = tabled("total", "linear", times=(0.0, 100.0, 10_000.0))
    np.testing.assert_allclose(sigma_us(spec, 0.0), 0.2, rtol=1e-6)
    np.testing.assert_allclose(sigma_us(spec, 50.0), 0.3 + 0.5 * TARGET / 40e-6, rtol=1e-6)
    with pytest.raises(ValidationError, match="must be positive to be interpolated in ln t"):
        tabled("total", "log", times=(0.0, 100.0, 10_000.0))


def test_a_table_without_means_shifts_nothing():
    assert not mean_us(tabled(mean=False), 100.0).any()


def test_a_table_scales_with_the_range_of_the_device():
    spec = tabled().replace(**{"device.relaxation.g_reference_s": 20e-6})
    np.testing.assert_allclose(sigma_us(spec, 37.0), 2 * sigma_us(tabled(), 37.0), rtol=1e-6)
    np.testing.assert_allclose(mean_us(spec, 37.0), 2 * mean_us(tabled(), 37.0), rtol=1e-6)


@pytest.mark.parametrize("kind", ["added", "total"])
def test_cells_relax_from_what_was_programmed_or_from_the_target(kind):
    chip = make_chip(tabled(kind), seed=4)
    xi = chip.normals(Purpose.RELAX, 0)[chip.draws.index].astype(float)
    chip.wait(10.0)
    r = chip.target_s / 40e-6
    moved = (-0.2 - r) + (0.3 + 0.5 * r) * xi
    origin = chip.programmed_s[0] if kind == "added" else chip.target_s
    np.testing.assert_allclose(1e6 * (chip.aged()[0] - origin), moved, atol=2e-5)
    assert (kind == "total") == bool((chip.programmed_s[0] == chip.target_s).all())


# warmth


@pytest.mark.parametrize("spec", [PCM, CMO], ids=lambda spec: spec.name)
def test_warmth_counts_time_as_arrhenius_says(spec):
    device = warm(spec, ev=1.1).device
    assert acceleration(device, None) == 1.0
    assert acceleration(device, 300.0) == 1.0
    expected = math.exp(1.1 / 8.617333262e-5 * (1 / 300 - 1 / 330))
    assert acceleration(device, 330.0) == pytest.approx(expected, rel=1e-12)
    assert acceleration(device, 330.0) == pytest.approx(47.8, rel=0.01)
    assert acceleration(device, 280.0) < 1
    assert pytest.approx(8.617333262e-5) == BOLTZMANN_EV


@pytest.mark.parametrize("spec", [PCM, CMO], ids=lambda spec: spec.name)
def test_an_hour_in_the_warm_is_as_many_hours_at_the_temperature_of_the_data(spec):
    spec = warm(spec)
    hot, long, warm_chip = (make_chip(spec, seed=3) for _ in range(3))
    hot.wait(HOUR, temperature_k=340.0)
    long.wait(HOUR * acceleration(spec.device, 340.0))
    np.testing.assert_array_equal(hot.aged(), long.aged())
    assert hot.time_s == HOUR
    warm_chip = make_chip(spec.replace(temperature_k=340.0), seed=3)
    warm_chip.wait(HOUR)
    np.testing.assert_array_equal(warm_chip.aged(), hot.aged())
    cool = make_chip(spec, seed=3)
    cool.wait(HOUR)
    assert (cool.aged() != hot.aged()).any()


def test_waits_at_several_temperatures_add_up_in_any_order():
    spec = warm(PCM)
    stages = [(HOUR, None), (600.0, 350.0), (1e5, 280.0), (7.0, 300.0)]
    chips = [make_chip(spec, seed=3) for _ in range(2)]
    for chip, order in zip(chips, (stages, stages[::-1]), strict=True):
        for seconds, temperature_k in order:
            chip.wait(seconds, temperature_k)
    assert chips[0].age_ns == chips[1].age_ns
    assert chips[0].clock_ns == chips[1].clock_ns == round(sum(s for s, _ in stages) * 1e9)
    aged_s = sum(seconds * acceleration(spec.device, t) for seconds, t in stages)
    assert chips[0].age_ns / 1e9 == pytest.approx(aged_s, abs=4e-9)
    np.testing.assert_array_equal(chips[0].aged(), chips[1].aged())


def test_two_halves_of_a_warm_wait_are_the_wait_to_a_nanosecond():
    spec = warm(CMO)
    whole, halves = make_chip(spec), make_chip(spec)
    whole.wait(2 * HOUR, 320.0)
    halves.wait(HOUR, 320.0)
    halves.wait(HOUR, 320.0)
    assert abs(whole.age_ns - halves.age_ns) <= 1
    np.testing.assert_allclose(halves.aged(), whole.aged(), rtol=1e-6)


@pytest.mark.parametrize("spec", [PCM, CMO, WAN], ids=lambda spec: spec.name)
def test_a_temperature_without_data_is_refused_and_the_clock_stands(spec):
    chip = make_chip(spec)
    with pytest.raises(
        UsageError,
        match=rf"Wait 60(\.0)? s at 350 K\. '{spec.device.name}' has no data at 350 K: its card "
        r"gives 300 K and no activation energy\. Leave the temperature out, or take a card",
    ):
        chip.wait(60.0, temperature_k=350.0)
    assert (chip.clock_ns, chip.age_ns) == (0, 0)
    chip.wait(60.0, temperature_k=300.0)
    assert chip.time_s == 60.0
    with pytest.raises(InputError, match="has no data at 350 K"):
        spec.replace(temperature_k=350.0)


def test_a_device_without_ageing_knows_no_other_temperature():
    with pytest.raises(UsageError, match="'ideal' has no data at 400 K"):
        make_chip(ChipSpec.preset("ideal")).wait(1.0, temperature_k=400.0)


def test_the_range_of_times_is_one_of_age_not_of_the_clock():
    spec = warm(WAN)
    chip = make_chip(spec)
    with pytest.raises(UsageError, match="data cover 0 s to 2 d"):
        chip.wait(86400.0, temperature_k=330.0)
    chip.wait(86400.0)
