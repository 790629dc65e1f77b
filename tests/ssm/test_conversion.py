"""Converters with errors in the recurrence: bits, ranges, saturation, and what mends them."""

from __future__ import annotations

import numpy as np
import pytest
from small_models import IDEAL, random_input, random_model

import ssm
from aimc_sim.errors import InputError
from ssm import correction
from ssm.ablation import non_idealities, without

pytestmark = pytest.mark.compiled

FORMS = ("leapfrog", "delta", "direct", "digital")
GROUPED = {
    "tile.rows": 16, "tile.idle": "g_min", "tile.drive": "parallel",
    "short_tile.rows": 6, "short_tile.idle": "g_min", "short_tile.drive": "parallel",
}
SPLIT = {"tile.rows": 4, "tile.cols": 8}
ERRORS = {
    "dac.gain_sigma": 0.01, "dac.offset_lsb": 0.2, "dac.noise_lsb": 0.3, "adc.gain_sigma": 0.01,
    "adc.offset_lsb": 0.4, "adc.unit_mismatch": 0.01, "adc.noise_lsb": 0.2,
    "adc.inl_lsb": (0.0, 0.5, 0.0, -0.5, 0.0), "adc.columns_per_adc": 8,
}


def deployed(form="leapfrog", compensation="none", **changes):
    model = random_model(seed=3, n_heads=5, n_modes=3, d_input=6, norm="pre", longest=0.98)
    spec = IDEAL.replace(**{"dac.bits": 8, "adc.bits": 8, **changes}, compensation=compensation)
    return ssm.deploy(model, spec, form, calibrate=random_input(1, 8, 40, 6))


def signal():
    return random_input(2, 3, 40, 6)


@pytest.mark.parametrize("layout", [{}, GROUPED, SPLIT], ids=["packed", "shared", "split"])
@pytest.mark.parametrize("form", FORMS)
def test_bits_one_by_one_add_up_to_the_whole_input_where_adcs_are_exact(form, layout):
    found = [
        deployed(form, **{"dac.mode": mode, "adc.bits": "ideal", **layout}).program(1)
        .infer(signal()).logits
        for mode in ("amplitude", "bit_serial")
    ]
    # not to the last bit: sums are taken in another order, and a rounded input may take a step
    np.testing.assert_allclose(found[1], found[0], atol=0.02 * np.abs(found[0]).max())
    assert np.median(np.abs(found[1] - found[0])) < 2e-3 * np.abs(found[0]).max()


@pytest.mark.parametrize("mode", ["amplitude", "bit_serial"])
@pytest.mark.parametrize("form", FORMS)
def test_a_chip_has_the_same_errors_whichever_chips_run_beside_it(form, mode):
    errors = dict(ERRORS)
    if mode == "bit_serial":
        errors |= {"dac.noise_lsb": 0.003, "dac.offset_lsb": 0.002}
    d = deployed(form, **{"dac.mode": mode, **errors})
    x = signal()
    together = d.program(seed=5, chips=3).infer(x).logits
    alone = d.program(seed=5, chips=1, first_chip=2)
    np.testing.assert_array_equal(alone.infer(x).logits, together[2])
    np.testing.assert_array_equal(alone.infer(x[1:], first_sample=1).logits, together[2, 1:])
    assert (together[0] != together[1]).any()
    y, state = alone.step(x[:, 0])
    for k in range(1, x.shape[1]):
        y, state = alone.step(x[:, k], state)
    np.testing.assert_allclose(y, together[2], atol=1e-5)


@pytest.mark.parametrize("part", ["dac.gain_sigma", "dac.offset_lsb", "dac.noise_lsb",
                                  "adc.gain_sigma", "adc.offset_lsb", "adc.unit_mismatch",
                                  "adc.inl_lsb", "dac.inl_lsb"])
@pytest.mark.parametrize("form", ["leapfrog", "direct"])
def test_every_error_of_a_converter_reaches_the_logits(form, part):
    value = ERRORS.get(part, (0.0, 1.0, 0.0, -1.0, 0.0))
    x = signal()
    clean = deployed(form).program(1).infer(x).logits
    assert (deployed(form, **{part: value}).program(1).infer(x).logits != clean).mean() > 0.5


def test_outputs_that_clip_are_counted_for_every_part():
    x = signal()
    wide, narrow = (deployed(**{"adc.range": range_}).program(1, 2) for range_ in (1e3, 1e-3))
    clipped = narrow.infer(x).saturation
    run = wide.infer(x)
    assert set(clipped) == {
        "encoder", "layer 0 A", "layer 0 C", "layer 0 mixing", "layer 1 A", "layer 1 C",
        "layer 1 mixing", "decoder",
    }
    assert all(few == 0 for few, _ in run.saturation.values())
    # what clipped readouts leave is too small to clip again behind them
    for part in ("encoder", "layer 0 A", "layer 0 C"):
        assert 2 * clipped[part][0] > clipped[part][1], clipped
    assert sum(total for _, total in clipped.values()) == run.counts["adc_conversions"]


@pytest.mark.parametrize("mode", ["amplitude", "bit_serial"])
def test_ranges_from_histograms_are_within_the_largest_signals(mode):
    largest = deployed(**{"dac.mode": mode}).converters
    for changes in ({"adc.range": "percentile", "adc.percentile": 90.0},
                    {"adc.range": "least_error", "adc.bits": 4},
                    {"dac.range": "percentile", "dac.percentile": 90.0}):
        d = deployed(**{"dac.mode": mode, **changes}).converters
        steps = (d.adc_step * d.adc_limit, largest.adc_step * largest.adc_limit)
        if "dac.range" in changes:
            steps = (d.state_step, largest.state_step)
        assert (steps[0] <= steps[1] * (1 + 1e-6)).mean() > 0.95
        assert (steps[0] < steps[1] * 0.99).mean() > 0.2
    shared = deployed(**{"dac.mode": mode, "adc.range_per": "matrix"}).converters
    first = slice(*shared.adc_first[:2])
    np.testing.assert_allclose(shared.adc_step[first], largest.adc_step[first].max(), rtol=1e-6)


@pytest.mark.parametrize("mode", ["amplitude", "bit_serial"])
def test_affine_correction_mends_the_offsets_of_adcs_and_gains_alone_do_not(mode):
    x = signal()
    offsets = {"adc.bits": 10, "adc.offset_lsb": 8.0 if mode == "amplitude" else 4.0,
               "adc.headroom": 2.0, "dac.mode": mode}
    clean = deployed(**{**offsets, "adc.offset_lsb": 0.0}).program(1, 4).infer(x).logits
    errors = {
        kind: np.sqrt(((deployed(compensation=kind, **offsets).program(1, 4).infer(x).logits
                        - clean) ** 2).mean())
        for kind in ("none", "column", "affine")
    }
    assert errors["affine"] < 0.5 * errors["column"], errors
    assert errors["affine"] < 0.5 * errors["none"], errors


@pytest.mark.parametrize("kind", ["column", "affine"])
def test_a_loaded_chip_answers_bit_for_bit_without_new_reads(kind, tmp_path, monkeypatch):
    programmed = deployed(compensation=kind, **ERRORS).program(seed=2, chips=2).wait(60.0)
    x = signal()
    expected = programmed.infer(x).logits
    programmed.save(tmp_path / "chip.npz")

    def no_reads(*_args):
        raise AssertionError("calibration reads were taken again")

    monkeypatch.setattr(correction, "fit_columns", no_reads)
    loaded = ssm.load_chip(tmp_path / "chip.npz")
    np.testing.assert_array_equal(loaded.infer(x).logits, expected)
    with pytest.raises(AssertionError, match="again"):
        loaded.wait(1.0).infer(x)


def test_a_compensation_that_is_not_that_of_the_chips_is_refused(tmp_path):
    path = tmp_path / "chip.npz"
    deployed(compensation="affine", **ERRORS).program(seed=2).save(path)
    with np.load(path) as archive:
        arrays = {key: archive[key] for key in archive.files}
    for name, wrong in (("gain", arrays["gain"][:, 1:]), ("offset", arrays["offset"] + np.nan),
                        ("left_alone", arrays["left_alone"].astype(float))):
        np.savez(path, **{**arrays, name: wrong})
        with pytest.raises(InputError, match="compensation is not that"):
            ssm.load_chip(path)


def test_ablation_takes_noise_and_mismatch_of_converters_apart():
    spec = deployed(**ERRORS).spec
    assert list(non_idealities(spec)) == [
        "DAC noise", "DAC mismatch", "DAC", "ADC noise", "ADC mismatch", "ADC"
    ]
    assert list(non_idealities(without(spec, ["DAC mismatch", "ADC mismatch"]))) == [
        "DAC noise", "DAC", "ADC noise", "ADC"
    ]
    finest = without(spec, ["ADC", "DAC"])
    assert finest.adc.bits == finest.dac.bits == 16
    # the same offset and the same share of the range in the largest weight
    assert finest.adc.offset_lsb / 32767 == pytest.approx(spec.adc.offset_lsb / 127)
    assert finest.adc.unit_mismatch / 32767**0.5 == pytest.approx(
        spec.adc.unit_mismatch / 127**0.5
    )
