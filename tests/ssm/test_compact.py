"""Small files: four bytes a number, and the same answers."""

from __future__ import annotations

import numpy as np
import pytest
from small_models import random_input, random_model, relative_error

import ssm
from ssm.compact import in_half_precision, in_single_precision
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
