"""All that a chip can suffer from at once: what must not show in an answer does not."""

from __future__ import annotations

import warnings

import numba
import numpy as np
import pytest
from small_models import PCM, random_input, random_model

import ssm
from ssm import evaluate as evaluation
from ssm.ablation import non_idealities

pytestmark = pytest.mark.compiled

HOUR = 3600.0
FORMS = ("leapfrog", "delta", "direct", "digital")
CASES = [
    (form, compensation, mode)
    for form, mode in zip(FORMS, ("spectrum", "split", "spectrum", "white"), strict=True)
    for compensation in ("global", "column", "affine")
]


def micro(*polynomial):
    return {"of": "g_us", "unit_s": 1e-6, "polynomial": polynomial}


# what does not go together is shared out among the forms
OF_FORM = {
    "leapfrog": {"wires.pairs": "separate"},
    "delta": {"dac.mode": "bit_serial", "dac.noise_lsb": 0.01, "dac.offset_lsb": 0.005},
    "direct": {"layout": "head", "tile.idle": "g_min", "tile.rows": 16, "tile.cols": 64},
    "digital": {"adc.range": "least_error", "wires.drive": "both"},
}


def suffering_chip(form, compensation, noise_in_time):
    """A chip with every part that goes together: drift, all noise, write-verify, pieces, faults,
    wires and converters with errors."""
    device = PCM.device.replace(
        pulses={
            "set_mean": micro(1.5), "set_sigma": micro(0.5), "reset_mean": micro(-1.5),
            "reset_sigma": micro(0.5), "device_spread": 0.2, "set_v": 1.5, "reset_v": -2.0,
            "width_s": 1e-6, "v_read_v": 0.2, "t_read_s": 1e-6,
        },
        telegraph={
            "fraction": 0.3, "amplitude": {"polynomial": [0.05]}, "amplitude_spread": 0.3,
            "tau_high_s": 8e-6, "tau_low_s": 3e-6, "tau_spread": 1.5,
        },
        **{
            "read_noise.white": {"polynomial": [0.01]}, "drift.activation_energy_ev": 0.4,
        },
    )
    chip = PCM.replace(
        device=device, levels=8, slices=2, cells_per_weight=2, noise_in_time=noise_in_time,
        spectrum_from_steps=3, compensation=compensation, compensation_reads=8,
        temperature_k=310.0, write={"tolerance_s": 0.6e-6, "max_pulses": 30},
        faults={"stuck_low": 0.03, "stuck_high": 0.03, "dead_rows": 0.03, "dead_cols": 0.03},
        wires={"r_wl_ohm": 2.0, "r_bl_ohm": 3.0, "r_driver_ohm": 50.0, "retol": 1e-3},
        **{
            "adc.noise_lsb": 0.3, "adc.gain_sigma": 0.01, "adc.offset_lsb": 0.3,
            "adc.unit_mismatch": 0.01, "adc.columns_per_adc": 4, "dac.gain_sigma": 0.01,
            "dac.noise_lsb": 0.3, "dac.offset_lsb": 0.2,
        },
    )
    return chip.replace(**OF_FORM[form])


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("form", "compensation", "noise_in_time"), CASES)
def test_threads_pieces_turns_streams_files_and_chunks_show_in_no_answer(
    monkeypatch, tmp_path, form, compensation, noise_in_time
):
    model, x = random_model(seed=3), random_input(5, 5, 24)
    spec = suffering_chip(form, compensation, noise_in_time)
    d = ssm.deploy(model, spec, form, calibrate=x)
    three = d.program(seed=2, chips=3).wait(HOUR)
    whole = three.infer(x).logits
    assert np.isfinite(whole).all()
    assert len(np.unique(whole.reshape(3, -1), axis=0)) == 3

    if numba.config.NUMBA_NUM_THREADS > 1:
        ssm.set_threads(2)
        try:
            np.testing.assert_array_equal(three.infer(x).logits, whole)
        finally:
            ssm.set_threads(1)
    pieces = [three.infer(x[:2]).logits, three.infer(x[2:], first_sample=2).logits]
    np.testing.assert_array_equal(np.concatenate(pieces, axis=1), whole)
    turn = d.program(seed=2, first_chip=2).wait(HOUR)
    np.testing.assert_array_equal(turn.infer(x).logits, whole[2])
    alone, state = d.program(seed=2).wait(HOUR), None
    for k in range(x.shape[1]):
        y, state = alone.step(x[:, k], state)
    np.testing.assert_array_equal(y, whole[0])

    three.save(tmp_path / "chips.npz")
    loaded = ssm.load_chip(tmp_path / "chips.npz")
    np.testing.assert_array_equal(loaded.infer(x).logits, whole)
    later = [each.wait(60.0).infer(x).logits for each in (loaded, three)]
    np.testing.assert_array_equal(*later)

    options = {"form": form, "chips": 3, "seed": 2, "times_s": (HOUR, 0.0), "calibrate": x}
    found = evaluation.evaluate(model, spec, x, **options)
    np.testing.assert_array_equal(found.chip_logits[0], whole)
    monkeypatch.setattr(evaluation, "_CELLS", 1)
    monkeypatch.setattr(evaluation, "_MODE_STEPS", 1)
    chunks = evaluation.evaluate(model, spec, x, **options)
    np.testing.assert_array_equal(chunks.chip_logits, found.chip_logits)
    assert chunks.cells.fault_record() == found.cells.fault_record()
    first, second = (each.cells.writing_record() for each in (found, chunks))
    np.testing.assert_array_equal(first.pop("pulses"), second.pop("pulses"))
    assert first.pop("energy_j") == pytest.approx(second.pop("energy_j"), rel=1e-12)
    assert first == second


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("form", FORMS)
def test_every_part_can_be_switched_off_and_on_alone(form):
    model, x = random_model(seed=3), random_input(5, 3, 24)
    spec = suffering_chip(form, "affine", "spectrum")
    found = evaluation.evaluate(
        model, spec, x, form=form, seed=2, times_s=(HOUR,), calibrate=x
    )
    names = set(non_idealities(spec))
    assert names == {
        "programming", "faults", "wires", "drift", "1/f noise", "white noise", "telegraph noise",
        "DAC noise", "DAC mismatch", "DAC", "ADC noise", "ADC mismatch", "ADC",
    }
    for alone in (False, True):
        varied = evaluation.vary(found, x, seed=2, alone=alone)
        assert set(varied) == names
        for name, logits in varied.items():
            assert np.isfinite(logits).all(), name
            assert not np.array_equal(logits, found.chip_logits[-1]), name


def test_white_noise_beside_one_over_f_counts_where_a_deployment_warns_of_unstable_variance():
    model, x = random_model(seed=3, longest=0.999), random_input(5, 2, 8)
    quiet = PCM.replace(**{"device.read_noise.sigma": {"polynomial": [1e-6]}})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ssm.deploy(model, quiet, calibrate=x)
    loud = quiet.replace(**{"device.read_noise.white": {"polynomial": [0.3]}})
    with pytest.warns(UserWarning, match="above the mean-square stability limit"):
        ssm.deploy(model, loud, calibrate=x)
