"""Small files: four bytes a number, and the same answers."""

from __future__ import annotations

import numpy as np
import pytest
from small_models import random_input, random_model, relative_error

import ssm
from ssm.compact import in_half_precision, in_short_formats, in_single_precision
from ssm.complexity import measure, step_width
from ssm.quantize import Precision


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_model_in_single_precision_is_read_back_as_it_was(tmp_path, suffix):
    model = in_single_precision(random_model(3, n_heads=16, n_modes=16))
    path = tmp_path / f"model{suffix}"
    ssm.save(model, path)
    back = ssm.load(path)
    for ours, theirs in zip(model.layers, back.layers, strict=True):
        for name in ("pole", "drive", "readout", "mode_weight", "mix_weight", "norm_scale"):
            np.testing.assert_array_equal(getattr(theirs, name), getattr(ours, name))
            assert getattr(theirs, name).dtype == getattr(ours, name).dtype


def test_single_precision_halves_a_file_and_leaves_the_logits(tmp_path):
    model, x = random_model(3, n_heads=16, n_modes=16), random_input(1, 4, 50)
    small = in_single_precision(model)
    assert relative_error(small.logits(x), model.logits(x)) < 1e-5
    sizes = []
    for name, each in (("whole", model), ("small", small)):
        ssm.save(each, tmp_path / f"{name}.safetensors")
        sizes.append((tmp_path / f"{name}.safetensors").stat().st_size)
    assert sizes[1] < 0.5 * sizes[0]


def test_weights_in_half_precision_take_two_bytes_and_leave_the_logits(tmp_path):
    model, x = random_model(3, n_heads=16, n_modes=16), random_input(1, 4, 50)
    small = in_half_precision(model)
    assert relative_error(small.logits(x), model.logits(x)) < 1e-3  # 11 bits: 2e-4 a weight
    sizes = []
    for name, each in (("single", in_single_precision(model)), ("half", small)):
        ssm.save(each, tmp_path / f"{name}.safetensors")
        sizes.append((tmp_path / f"{name}.safetensors").stat().st_size)
    n_weights = sum(2 * layer.readout.size + layer.mix_weight.size for layer in model.layers)
    assert sizes[0] - sizes[1] > 2 * n_weights
    back = ssm.load(tmp_path / "half.safetensors")
    np.testing.assert_array_equal(back.layers[0].readout, small.layers[0].readout)
    np.testing.assert_array_equal(back.layers[0].pole, in_single_precision(model).layers[0].pole)


def test_poles_next_to_the_unit_circle_stay_inside():
    model = random_model(3, longest=1 - 1e-12)
    assert max(np.abs(layer.pole).max() for layer in model.layers) > 1 - 1e-3
    pole = np.array([[1 - 1e-12, -(1 - 1e-12), 1j * (1 - 1e-12)]] * 4)
    layers = tuple(ssm.Layer(**{**vars(layer), "pole": pole}) for layer in model.layers)
    for layer in in_single_precision(model.replace(layers=layers)).layers:
        assert (np.abs(layer.pole) < 1).all()


def test_numbers_that_need_float64_keep_it(tmp_path):
    model = random_model(4)
    ssm.save(model, tmp_path / "model.safetensors")
    back = ssm.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(back.layers[0].pole, model.layers[0].pole)
    np.testing.assert_array_equal(back.decoder_weight, model.decoder_weight)


def test_integers_and_scales_stay_integers_and_scales(tmp_path):
    model = ssm.quantize(random_model(3), Precision(a=8, c=4, d=4, mix=4, enc=4, dec=4))
    small = in_half_precision(model)
    assert set(small.grids) == {"encoder_weight", "decoder_weight"}
    for ours, theirs in zip(small.layers, model.layers, strict=True):
        assert set(ours.grids) == {"pole", "readout", "skip", "mix_weight"}
        np.testing.assert_array_equal(ours.readout, theirs.readout)
        np.testing.assert_array_equal(ours.pole, theirs.pole)


def test_a_pruned_model_keeps_its_empty_places_and_answers():
    model, x = random_model(5, n_heads=6, n_modes=4), random_input(2, 4, 50)
    pruned = ssm.prune(model, 0.5, scope="global")
    assert any((layer.mode_weight == 0).any() for layer in pruned.layers)
    small = in_single_precision(pruned)
    for layer in small.layers:
        np.testing.assert_array_equal(layer.drive != 0, layer.mode_weight > 0)
    assert relative_error(small.logits(x), pruned.logits(x)) < 1e-5


def test_short_formats_move_nothing_by_more_than_a_sixteenth_and_no_weight_at_all():
    rng = np.random.default_rng(6)
    model, x = random_model(6, n_heads=6, n_modes=4), random_input(2, 4, 50)
    layers = tuple(
        ssm.Layer(**{**vars(layer), "state_step": np.exp(rng.uniform(-6, 0, (6, 4, 2)))})
        for layer in model.layers
    )
    model = model.replace(layers=layers, precision={"state": 8})
    short = in_short_formats(model)
    for ours, theirs in zip(short.layers, model.layers, strict=True):
        np.testing.assert_allclose(ours.state_step, theirs.state_step, rtol=1 / 16)
        assert not np.allclose(ours.state_step, theirs.state_step, rtol=1 / 50)
        np.testing.assert_allclose(ours.norm_scale, theirs.norm_scale, rtol=2**-11)
        for name in ("pole", "readout", "skip", "mix_weight"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    assert relative_error(short.logits(x), model.logits(x)) < 1e-3
    # 2 layers of 6 heads, 4 modes: steps of 96 states; biases of gate, norms, encoder, decoder
    n_biases = 2 * (12 + 6 + 6) + 6 + 3
    before, after = measure(model), measure(short)
    assert before["scale_bits"] - after["scale_bits"] == 96 * (16 - 8)
    assert before["weight_bits"] - after["weight_bits"] == n_biases * (32 - 16)


def test_steps_take_the_bits_that_hold_them_exactly():
    powers = 2.0 ** np.arange(-20, 11)
    assert step_width(powers) == 5
    assert step_width(powers * 1.875) == 8
    assert step_width(powers * 1.9375) == 16  # five digits
    assert step_width(2.0 ** np.array([-20, 12])) == 16  # more octaves than 5 bits tell apart


def test_a_rounded_state_without_a_learned_step_takes_a_shift():
    model = random_model(7, n_heads=4, n_modes=3)
    exact, rounded = measure(model), measure(model.replace(precision={"state": 8}))
    assert exact["scale_bits"] == 0
    assert rounded["scale_bits"] == 5 * 2 * 2 * 4 * 3
    assert rounded["state_bits"] == 8 * 2 * 2 * 4 * 3
