"""Grids of models with real poles and empty places: what is not there widens none and stays 0."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from small_models import random_input, random_model, relative_error

import ssm
from ssm.poles import BOUNDED, FORMS_OF_A
from ssm.prune import prune
from ssm.quantize import Precision, outside, quantize
from ssm.schemes import Scheme

FEW = Precision(a=6, b=5, c=4, d=4, mix=3)
EVEN = random_model(5, n_heads=4, n_modes=3)
PRUNED = prune(random_model(3, n_heads=6, n_modes=5, real_share=0.3), 0.6, heads=0.7)


def padded(model):
    """Return the same model with an empty place in front of every head's modes and behind."""
    def wider(layer):
        arrays = {name: np.pad(getattr(layer, name), ((0, 0), (1, 1)))
                  for name in ("pole", "drive", "readout", "mode_weight")}
        return dataclasses.replace(layer, **arrays)

    return model.replace(layers=tuple(wider(layer) for layer in model.layers))


def with_an_empty_head(model):
    """Return the model with the modes of head 1 of every layer left out."""
    def without(layer):
        arrays = {name: getattr(layer, name).copy()
                  for name in ("pole", "drive", "readout", "mode_weight")}
        for array in arrays.values():
            array[1] = 0
        return dataclasses.replace(layer, **arrays)

    return model.replace(layers=tuple(without(layer) for layer in model.layers))


@pytest.mark.parametrize("per", ["channel", "tensor"])
@pytest.mark.parametrize("form", FORMS_OF_A)
def test_empty_places_change_nothing_of_the_poles_that_are_there(form, per):
    scheme = Scheme(form, per={"a": per})
    before, after = (quantize(model, FEW, scheme) for model in (EVEN, padded(EVEN)))
    for old, new in zip(padded(before).layers, after.layers, strict=True):
        # sines of vectors of another length differ in the last bit
        np.testing.assert_allclose(new.pole, old.pole, rtol=1e-14)
        np.testing.assert_array_equal(new.drive, old.drive)
        np.testing.assert_array_equal(new.readout, old.readout)
    assert outside(padded(EVEN), FEW, scheme) == outside(EVEN, FEW, scheme)


@pytest.mark.parametrize("form", FORMS_OF_A)
def test_a_head_without_modes_widens_no_range_of_all_heads(form):
    scheme = Scheme(form, per={"a": "tensor"})
    # head 1 as head 0: it spans nothing of its own, and then is left out
    twin = EVEN.replace(layers=tuple(
        dataclasses.replace(layer, pole=layer.pole[[0, 0, 2, 3]]) for layer in EVEN.layers
    ))
    before, after = (quantize(model, FEW, scheme) for model in (twin, with_an_empty_head(twin)))
    for old, new in zip(with_an_empty_head(before).layers, after.layers, strict=True):
        np.testing.assert_array_equal(new.pole, old.pole)


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize("form", FORMS_OF_A)
def test_files_give_back_real_poles_and_empty_places_with_or_without_integers(
    tmp_path, form, suffix
):
    model = quantize(PRUNED, FEW, Scheme(form))
    ssm.save(model, tmp_path / f"m.{suffix}")
    again = ssm.load(tmp_path / f"m.{suffix}")
    for start, old, new in zip(PRUNED.layers, model.layers, again.layers, strict=True):
        alone, none = start.mode_weight == 1, start.mode_weight == 0
        assert alone.any() and none.any() and (start.mode_weight == 2).any()
        np.testing.assert_array_equal(new.pole, old.pole)
        assert (new.pole[alone].imag == 0).all() and (new.pole[none] == 0).all()
        assert (np.abs(new.pole) < 1).all() and (new.mode_weight == start.mode_weight).all()
        # a code in reach: at most the widest step of the plane away
        assert np.abs(new.pole - start.pole)[alone].max() < 0.1
        assert set(new.grids) >= {"drive", "readout", "skip", "mix_weight"}
        assert ("pole" in new.grids) == (form == "cartesian")


@pytest.mark.parametrize("form", FORMS_OF_A)
def test_real_poles_have_integers_where_a_code_stands_for_them(form):
    model = random_model(2, n_modes=5, real_share=0.3)
    for layer in quantize(model, FEW, Scheme(form)).layers:
        assert ("pole" in layer.grids) == (form not in BOUNDED)
        assert (layer.pole[layer.mode_weight == 1].imag == 0).all()


@pytest.mark.parametrize("per", ["channel", "tensor"])
@pytest.mark.parametrize("form", FORMS_OF_A)
def test_training_rounds_a_pruned_model_as_what_it_hands_back_is_rounded(form, per):
    torch = pytest.importorskip("torch")
    from ssm.trainable import Trainable

    scheme = Scheme(form, per={"a": per})
    module = Trainable([PRUNED], FEW, scheme=scheme).eval()
    x = random_input(1, 4, 30)
    with torch.no_grad():
        found = module(torch.as_tensor(x, dtype=torch.float32))[:, 0].numpy()
    (model,) = module.to_models()
    assert relative_error(found, model.logits(x)) < 1e-4
    rounded = quantize(PRUNED, Precision(a=6), scheme)
    for start, old, new in zip(PRUNED.layers, rounded.layers, model.layers, strict=True):
        np.testing.assert_allclose(new.pole, old.pole, atol=1e-6)
        assert (new.pole[start.mode_weight == 1].imag == 0).all()
        assert (new.readout[start.mode_weight == 0] == 0).all()
        assert {"readout", "skip", "mix_weight"} <= set(new.grids)
