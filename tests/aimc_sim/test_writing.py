"""Writing: what is refused, what is asked of the loop, and how it is summed up."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from pulse_cards import write_chip, write_spec

from aimc_sim.errors import InputError, UsageError
from aimc_sim.specs import ChipSpec
from aimc_sim.writing import Written, verify_sigma

PCM = ChipSpec.preset("pcm-nandakumar2019")


@pytest.mark.parametrize("one_shot", [False, True])
@pytest.mark.parametrize("wrong", [0.5e-6, 51e-6, math.nan, 20.0])
def test_a_target_outside_the_range_is_refused_both_ways(wrong, one_shot):
    spec = write_spec()
    spec = spec.replace(write=None) if one_shot else spec
    with pytest.raises(
        UsageError,
        match=r"Write cells of 'stairs' to .*They hold 1 to 50 uS \(1 of 3 targets lie outside\)\. "
        r"Keep targets in that range",
    ):
        write_chip(spec, [2e-6, wrong, 3e-6])


@pytest.mark.parametrize("one_shot", [False, True])
def test_both_ends_of_the_range_can_be_asked_for(one_shot):
    spec = write_spec()
    write_chip(spec.replace(write=None) if one_shot else spec, [1e-6, 50e-6])


def test_without_a_loop_and_a_published_error_cells_are_exact():
    chip = write_chip(write_spec().replace(write=None), np.linspace(1e-6, 50e-6, 40))
    np.testing.assert_array_equal(chip.programmed_s[0], chip.target_s)
    assert chip.written.log() is None


def test_a_loop_takes_the_place_of_the_published_error():
    spec = write_spec()
    error = {"sigma": {"unit_s": 1e-6, "polynomial": [3.0]}}
    both = write_chip(spec.replace(**{"device.programming": error}), np.full(64, 20e-6))
    alone = write_chip(spec, np.full(64, 20e-6))
    np.testing.assert_array_equal(both.programmed_s, alone.programmed_s)


def test_a_loop_needs_pulses_and_a_card_without_the_total_error():
    with pytest.raises(InputError, match="write-verify needs the pulse response of 'pcm"):
        PCM.replace(write={"tolerance_s": 1e-6})
    wan = ChipSpec.preset("reram-wan2022")
    pulses = write_spec().device.pulses
    wan = wan.replace(device=wan.device.replace(pulses=pulses))
    with pytest.raises(InputError, match="kind 'total' .* would count twice"):
        wan.replace(write={"tolerance_s": 1e-6})


def test_a_verification_has_the_noise_of_a_read_at_zero_seconds():
    target = np.array([5e-6, 20e-6], np.float32)
    quality = 0.0088 * (target.astype(float) / 25e-6) ** -0.65
    for n in (1, 4):
        duration = n * 250e-9
        expected = quality * target * math.sqrt(math.log((20 + duration) / (2 * duration)))
        np.testing.assert_allclose(verify_sigma(PCM.device, target, n), expected, rtol=1e-5)


def test_white_noise_falls_with_the_number_of_verify_reads():
    noise = {"sigma": {"polynomial": [0.0]}, "white": {"polynomial": [0.02]}}
    device = PCM.device.replace(read_noise=noise)
    target = np.array([10e-6], np.float32)
    assert verify_sigma(device, target, 1)[0] == pytest.approx(0.2e-6, rel=1e-6)
    assert verify_sigma(device, target, 25)[0] == pytest.approx(0.04e-6, rel=1e-6)
    white = ChipSpec.preset("reram-wan2022").device  # spectrum white, 1 %
    assert verify_sigma(white, target, 4)[0] == pytest.approx(0.05e-6, rel=1e-6)


def test_a_card_without_drift_is_verified_as_if_a_second_had_passed():
    device = ChipSpec.preset("cmo-hfox").device
    g = np.array([50e-6], np.float32)
    expected = 0.0277316 * math.log10(50) * math.sqrt(math.log((1 + 1e-6) / 2e-6)) * 1e-6
    assert verify_sigma(device, g)[0] == pytest.approx(expected, rel=1e-5)


def test_a_tolerance_below_the_noise_is_said_and_the_cells_are_counted():
    noise = {"sigma": {"unit_s": 1e-6, "polynomial": [2.0]}, "relative": False, "spectrum": "white"}
    spec = write_spec(tolerance_us=0.5, most=3).replace(**{"device.read_noise": noise})
    target = np.full(500, 20e-6)
    with pytest.warns(
        UserWarning,
        match=r"to \+-0\.5 uS: a verification has 2 uS of noise at 20 uS, and for 500 of 500 "
        r"cells the noise decides when it ends\. Raise write\.tolerance_s or write\.verify_reads",
    ):
        written = write_chip(spec, target).written
    log = written.log()
    assert written.pulses.max() == log.pulses_most == 3
    assert 0 < log.failed == written.failed.sum() <= 500
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_chip(spec.replace(**{"write.verify_reads": 16}), target)


def test_a_log_sums_up_all_replicas():
    pulses = np.array([[0, 1, 1, 2], [2, 2, 3, 9]], np.uint16)
    failed = np.zeros((2, 4), bool)
    failed[1, 3] = True
    energy = np.full((2, 4), 2e-12, np.float32)
    log = Written(np.zeros((2, 4)), pulses=pulses, failed=failed, energy_j=energy).log()
    assert (log.n_cells, log.failed, log.pulses_mean) == (8, 1, 2.5)
    assert (log.pulses_median, log.pulses_95, log.pulses_most) == (2, 9, 9)
    assert log.histogram.tolist() == [1, 2, 3, 1, 0, 0, 0, 0, 0, 1]
    assert log.energy_j == pytest.approx(16e-12)


@pytest.mark.parametrize("missing", ["set_v", "reset_v", "width_s", "v_read_v", "t_read_s"])
def test_without_all_voltages_and_times_there_is_no_energy(missing):
    spec = write_spec()
    chip = write_chip(spec.replace(**{f"device.pulses.{missing}": None}), [20e-6, 30e-6])
    assert np.isnan(chip.written.energy_j).all()
    assert chip.written.log().energy_j is None
    assert write_chip(spec, [20e-6, 30e-6]).written.log().energy_j > 0
