"""Non-idealities switched off alone: all are listed, and those that remain keep their draws."""

import itertools

import numpy as np
import pytest
from small_models import PCM, random_input, random_model

import ssm
from aimc_sim.specs import ChipSpec
from ssm.ablation import error_free, is_timeless, non_idealities, without
from ssm.evaluate import accuracy, evaluate, vary

HOUR = 3600.0
EVERY_PART = {
    "levels": 32,
    "faults": {"stuck_low": 0.05, "stuck_high": 0.05, "dead_rows": 0.01},
    "adc.noise_lsb": 0.5,
    "device.read_noise.white": {"of": "r", "polynomial": [0.01]},
    "device.telegraph": {
        "fraction": 0.2, "amplitude": {"of": "r", "polynomial": [0.1]}, "tau_high_s": 1e-3,
        "tau_low_s": 1e-3,
    },
}
PULSES = {
    "set_mean": {"of": "r", "unit_s": 1e-6, "polynomial": [1.0]},
    "set_sigma": {"of": "r", "unit_s": 1e-6, "polynomial": [0.2]},
    "reset_mean": {"of": "r", "unit_s": 1e-6, "polynomial": [-1.0]},
    "reset_sigma": {"of": "r", "unit_s": 1e-6, "polynomial": [0.2]},
}
DRIFTING = PCM.replace(**EVERY_PART)
RELAXING = ChipSpec.preset("cmo-hfox").replace(
    **EVERY_PART | {
        # its noise is in siemens, not in shares of the conductance
        "device.read_noise.white": {"of": "r", "unit_s": 1e-6, "polynomial": [0.3]},
        "device.relaxation.activation_energy_ev": 1.0, "temperature_k": 350.0,
    }
)
VERIFIED = PCM.replace(
    **EVERY_PART, **{"device.pulses": PULSES, "write": {"tolerance_s": 1e-6, "max_pulses": 20}}
)
CHIPS = {"drift": DRIFTING, "relaxation": RELAXING, "write-verify": VERIFIED}
WRITING = {"programming", "levels", "faults"}
VERIFYING = {"1/f noise", "white noise", "telegraph noise"}  # a verify read sees noise
AGING = {"drift", "relaxation"}
CONVERTING = {"DAC", "ADC", "ADC noise"}


def all_names(aging):
    return [
        "programming", "levels", "faults", aging, "1/f noise", "white noise", "telegraph noise",
        "DAC", "ADC noise", "ADC",
    ]


def pairs(chip):
    return list(itertools.combinations_with_replacement(non_idealities(CHIPS[chip]), 2))


EVERY_PAIR = [(chip, *pair) for chip in CHIPS for pair in pairs(chip)]


@pytest.fixture(scope="module")
def chips():
    """Return, and remember, the cells of a small model on a chip without some parts."""
    model = random_model(seed=8, n_heads=3, n_modes=2, n_layers=1)
    signal = random_input(1, 2, 8)
    kept = {}

    def build(chip, off):
        key = (chip, frozenset(off))
        if key not in kept:
            deployment = ssm.deploy(model, without(CHIPS[chip], off), calibrate=signal)
            kept[key] = deployment.program(seed=9, chips=2).wait(HOUR).chip
        return kept[key]

    return build


def same(one, other):
    return (one is None and other is None) or np.array_equal(one, other)


def test_every_part_of_a_chip_is_listed():
    assert list(non_idealities(DRIFTING)) == all_names("drift")
    assert list(non_idealities(RELAXING)) == all_names("relaxation")
    assert list(non_idealities(VERIFIED)) == all_names("drift")
    assert list(non_idealities(PCM)) == ["programming", "drift", "1/f noise", "DAC", "ADC"]


@pytest.mark.parametrize("spec", CHIPS.values(), ids=CHIPS)
def test_each_can_be_switched_off_alone_and_all_together(spec):
    for name in non_idealities(spec):
        left = [other for other in non_idealities(spec) if other != name]
        found = list(non_idealities(without(spec, [name])))
        # an ADC with noise is never ideal: noise is counted in its steps
        assert found == (left if name != "ADC" else list(non_idealities(spec)))
    bare = without(spec, non_idealities(spec))
    assert non_idealities(bare) == {}
    assert (bare.adc.bits, bare.dac.bits, bare.adc.noise_lsb) == ("ideal", "ideal", 0.0)
    for name in non_idealities(spec):
        alone = list(non_idealities(without(spec, set(non_idealities(spec)) - {name})))
        assert alone == ([name] if name != "ADC noise" else ["ADC noise", "ADC"])


@pytest.mark.parametrize(("chip", "one", "other"), EVERY_PAIR)
def test_what_remains_keeps_its_draws(chip, one, other, chips):
    # a part changes the writing, the aging or the reading of cells and leaves the draws of the
    # others: without two of them the cells are those without whichever of them matter there
    off = {one, other}
    writing = WRITING | (VERIFYING if chip == "write-verify" else set())
    bare = chips(chip, off)
    written = chips(chip, off & writing)
    np.testing.assert_array_equal(bare.programmed_s, written.programmed_s)
    np.testing.assert_array_equal(bare.target_s, written.target_s)
    assert same(bare.written.faults, chips(chip, off & {"faults"}).written.faults)
    np.testing.assert_array_equal(bare.aged(), chips(chip, off & (writing | AGING)).aged())
    np.testing.assert_array_equal(bare.read(1), chips(chip, off - CONVERTING).read(1))


def test_drift_exponents_are_the_same_with_and_without_programming_errors():
    model, signal = random_model(seed=8), random_input(1, 2, 8)
    ratios = []
    for off in ([], ["programming"]):
        cells = ssm.deploy(model, without(PCM, off), calibrate=signal).program(3).wait(HOUR).chip
        there = cells.target_s > 1e-6
        ratios.append(cells.aged()[0, there] / cells.programmed_s[0, there])
    np.testing.assert_allclose(ratios[0], ratios[1], rtol=1e-5)
    assert ratios[0].std() > 0.01


def test_an_adc_without_rounding_keeps_its_noise():
    fine = without(DRIFTING, ["ADC"])
    assert fine.adc.bits == 16
    assert fine.adc.noise_lsb / 32767 == pytest.approx(0.5 / 127)
    assert without(DRIFTING, ["ADC", "ADC noise"]).adc.bits == "ideal"


def test_digits_of_a_sliced_weight_stay():
    assert "levels" not in non_idealities(DRIFTING.replace(slices=2))


@pytest.mark.parametrize("spec", CHIPS.values(), ids=CHIPS)
def test_what_changes_from_read_to_read_or_with_time_makes_a_chip_restless(spec):
    moving = {"drift", "relaxation", "1/f noise", "white noise", "telegraph noise", "ADC noise"}
    everything = set(non_idealities(spec))
    for name in everything:
        assert is_timeless(without(spec, everything - {name})) == (name not in moving)
    assert is_timeless(error_free(spec))
    assert list(non_idealities(error_free(spec))) == ["levels", "DAC", "ADC"]
    assert error_free(spec).compensation == "none"


@pytest.mark.compiled
def test_a_varied_run_is_the_run_of_the_varied_chip():
    model, x = random_model(seed=8), random_input(1, 4, 10)
    spec = PCM.replace(**{"adc.noise_lsb": 0.5})
    found = evaluate(model, spec, x, chips=2, seed=3, times_s=(0.0, HOUR), calibrate=x)
    off = vary(found, x, seed=3)
    assert list(off) == list(non_idealities(spec))
    for name, logits in off.items():
        again = evaluate(
            model, without(spec, [name]), x, chips=2, seed=3, times_s=(HOUR,), calibrate=x
        )
        np.testing.assert_array_equal(logits, again.chip_logits[-1])
        assert not np.array_equal(logits, found.chip_logits[-1]), name


@pytest.mark.compiled
def test_rows_of_variations_come_costliest_first():
    from aimc_sim.cli.variations import variation_rows

    model, x = random_model(seed=8), random_input(1, 40, 10)
    y = model.logits(x).argmax(axis=1)
    found = evaluate(model, PCM, x, y, chips=2, times_s=(HOUR,), calibrate=x)
    full = accuracy(found.chip_logits[-1], y).mean()
    off = variation_rows(found, vary(found, x), "off")
    on = variation_rows(found, vary(found, x, alone=True), "on")
    assert [row["change"] for row in off] == sorted((row["change"] for row in off), reverse=True)
    assert [row["change"] for row in on] == sorted(row["change"] for row in on)
    assert all(row["change"] == pytest.approx(row["mean"] - full) for row in off)
    assert all(row["change"] == pytest.approx(row["mean"] - 1.0) for row in on)
    unlabelled = evaluate(model, PCM, x, chips=2, times_s=(HOUR,), calibrate=x)
    rows = variation_rows(unlabelled, vary(unlabelled, x), "off")
    errors = [row["relative_rms"] for row in rows]
    assert errors == sorted(errors)
    assert all(row["change"] is None for row in rows)
