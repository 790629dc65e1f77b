"""Integers and scales: grids are those of torch, ternary weights those of their paper."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from small_models import random_model

import ssm
from aimc_sim.errors import InputError, UsageError
from ssm.grids import Grid, as_codes, round_complex, round_weights
from ssm.quantize import Precision
from ssm.rounding import find_codes, quantize_weights
from ssm.schemes import Choice, Scheme

W = np.random.default_rng(3).normal(size=(40, 6)) * np.array([1, 0.1, 3, 1e-3, 20, 1])
EVERY = [
    Choice(method, per, sides, 97.0)
    for method, per, sides in itertools.product(
        ("min-max", "percentile", "ternary"), ("tensor", "channel"), ("symmetric", "asymmetric")
    )
    if not (method == "ternary" and sides == "asymmetric")
] + [Choice("min-max", "mode")]


def axis_of(choice):
    return (0, 1) if choice.per == "tensor" else (0,)


@pytest.mark.parametrize("bits", [2, 3, 4, 8, 16])
@pytest.mark.parametrize("sides", ["symmetric", "asymmetric"])
def test_grids_per_channel_are_those_of_torch(bits, sides):
    """A double just beside a tie may fall to the other side: torch multiplies by 1/scale."""
    grid = round_weights(W, bits, Choice(sides=sides), axis=0)
    low, high = (1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1) if sides == "symmetric" else (
        0, 2**bits - 1
    )
    expected = torch.fake_quantize_per_channel_affine(
        torch.tensor(W, dtype=torch.float32), torch.tensor(grid.scale[0], dtype=torch.float32),
        torch.tensor(grid.zero[0], dtype=torch.int32), 1, low, high,
    ).numpy()
    differ = np.abs(grid.values() - expected) > 0.01 * grid.scale
    assert differ.sum() <= (1 if bits < 16 else 4)
    assert (np.abs(grid.values() - expected) < 1.01 * grid.scale).all()
    # and the scales are those that cover the weights
    if sides == "symmetric":
        np.testing.assert_allclose(grid.scale[0], np.abs(W).max(axis=0) / high)
    else:
        least, most = W.min(axis=0), W.max(axis=0)
        np.testing.assert_allclose(grid.scale[0], (most - least) / high)
        np.testing.assert_array_equal(grid.zero[0], np.rint(-least / grid.scale[0]))


@pytest.mark.parametrize("choice", EVERY, ids=str)
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_training_finds_the_codes_that_rounding_afterwards_finds(choice, bits):
    grid = round_weights(W, bits, choice, axis_of(choice))
    w = torch.tensor(W)
    codes, scale, zero = find_codes(w, bits, axis_of(choice), choice)
    np.testing.assert_array_equal(codes.numpy(), grid.codes)
    np.testing.assert_allclose(scale.numpy(), grid.scale, rtol=1e-12)
    np.testing.assert_allclose(zero.numpy(), grid.zero, rtol=1e-12)
    found = quantize_weights(w, bits, axis_of(choice), choice)
    np.testing.assert_allclose(found.numpy(), grid.values(), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("choice", EVERY, ids=str)
def test_gradients_pass_the_rounding_and_stop_where_a_range_clips(choice):
    w = torch.tensor(W, requires_grad=True)
    out = quantize_weights(w, 4, axis_of(choice), choice)
    out.sum().backward()
    grid = round_weights(W, 4, choice, axis_of(choice))
    clipped = np.abs(grid.values() - W) > 0.5001 * grid.scale
    expected = np.where(clipped & (choice.method != "ternary"), 0.0, 1.0)
    np.testing.assert_array_equal(w.grad.numpy(), expected)
    if choice.method == "percentile":
        assert 0 < clipped.sum() < 0.1 * W.size


def test_ternary_weights_are_those_of_their_definition():
    """Li et al., doi:10.48550/arXiv.1605.04711, eqs. 5 and 6, by hand."""
    w = np.array([[0.1, 0.5, -1.0, 0.9, -0.05, 0.45]]).T
    # mean |w| = 0.5, threshold 0.35: 0.5, 1.0, 0.9 and 0.45 lie beyond, their mean is 0.7125
    grid = round_weights(w, 2, Choice("ternary"), axis=0)
    np.testing.assert_array_equal(grid.codes[:, 0], [0, 1, -1, 1, 0, 1])
    np.testing.assert_allclose(grid.values()[:, 0], 0.7125 * np.array([0, 1, -1, 1, 0, 1]))


@pytest.mark.parametrize("choice", [c for c in EVERY if c.method == "min-max"], ids=str)
@pytest.mark.parametrize("bits", [2, 5, 8])
def test_no_weight_errs_by_more_than_half_a_step_between_the_ends(choice, bits):
    grid = round_weights(W, bits, choice, axis_of(choice))
    error = np.abs(grid.values() - W) / grid.scale
    # a whole zero moves an asymmetric grid by up to half a step, a power of two clips its last
    assert error.max() <= (0.5 if choice.sides == "symmetric" and choice.per != "mode" else 1.0)
    assert error.max() > 0.4


def test_zero_stays_zero_on_an_asymmetric_grid():
    w = np.array([[0.0, 0.3, 0.9, -0.2]]).T
    assert round_weights(w, 4, Choice(sides="asymmetric"), axis=0).values()[0, 0] == 0
    positive = np.array([[0.5, 0.6, 0.7]]).T
    assert round_weights(positive, 4, Choice(sides="asymmetric"), axis=0).values().min() > 0.4


def test_equal_and_vanishing_weights_have_a_grid():
    for choice in EVERY:
        grid = round_weights(np.zeros((4, 2)), 4, choice, axis_of(choice))
        np.testing.assert_array_equal(grid.values(), 0)
    assert round_weights(np.full((4, 1), 0.3), 4, Choice(), 0).values() == pytest.approx(0.3)


@pytest.mark.parametrize("per", ["tensor", "channel", "mode"])
def test_ranges_of_complex_weights_are_shared_as_asked(per):
    w = W[:6, :4] + 1j * W[6:12, :4]
    grid = round_complex(w, 5, Choice(per=per))
    assert np.broadcast_to(grid.scale, grid.codes.shape).shape == (6, 4, 2)
    assert np.unique(grid.scale).size == {"tensor": 1, "channel": 6, "mode": grid.scale.size}[
        per
    ] or per == "mode"
    if per == "mode":
        assert grid.scale.shape == (6, 4, 1)
        np.testing.assert_array_equal(np.log2(grid.scale), np.rint(np.log2(grid.scale)))
    np.testing.assert_allclose(
        grid.values(), grid.scale[..., 0] * (grid.codes[..., 0] + 1j * grid.codes[..., 1])
    )


# what a model carries


FEW = Precision(a=6, b=5, c=4, d=4, mix=3, enc=4, dec=4)


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize("form", ["log-polar", "polar", "cartesian", "delta", "leapfrog"])
def test_files_hold_integers_and_scales_and_give_the_same_values(tmp_path, suffix, form):
    # where a coordinate is an angle, no code stands for a real pole (test_pruned_grids.py)
    real_share = 0.3 if form in ("cartesian", "delta") else 0.0
    model = ssm.quantize(
        random_model(2, n_modes=5, real_share=real_share), FEW,
        Scheme(form, method={"mix": "percentile"}),
    )
    path = tmp_path / f"model.{suffix}"
    ssm.save(model, path)
    again = ssm.load(path)
    assert set(again.grids) == {"encoder_weight", "decoder_weight"}
    for old, new in zip(model.layers, again.layers, strict=True):
        assert set(new.grids) == {"pole", "drive", "readout", "skip", "mix_weight"}
        for name, grid in new.grids.items():
            assert grid.codes.dtype.kind in "iu" and grid.codes.itemsize == 1
            np.testing.assert_array_equal(grid.codes, old.grids[name].codes)
            np.testing.assert_array_equal(getattr(new, name), getattr(old, name))
            np.testing.assert_array_equal(getattr(new, name), grid.values())
    if suffix == "safetensors":
        from safetensors.numpy import load_file

        tensors = load_file(path)
        assert "layers.0.pole" not in tensors and tensors["layers.0.pole.codes"].dtype.kind in "iu"
        assert path.read_bytes().count(b"aimc-sim.model/2") == 1


def test_a_model_without_integers_is_written_as_before(tmp_path):
    ssm.save(random_model(1), tmp_path / "m.safetensors")
    data = (tmp_path / "m.safetensors").read_bytes()
    assert b"aimc-sim.model/1" in data and b"grids" not in data


def test_a_weight_that_was_changed_has_no_integers_any_more():
    model = ssm.quantize(random_model(1), FEW)
    layer = model.layers[0]
    changed = dataclasses.replace(layer, skip=layer.skip * 1.01)
    assert set(layer.grids) - set(changed.grids) == {"skip"}
    assert "encoder_weight" not in model.replace(encoder_weight=2 * model.encoder_weight).grids


def test_later_rounding_keeps_the_integers_of_the_rest():
    model = ssm.quantize(ssm.quantize(random_model(1), Precision(c=4)), Precision(mix=4))
    assert set(model.layers[0].grids) == {"readout", "mix_weight"}
    assert model.precision == {"c": 4, "mix": 4}


@pytest.mark.parametrize(
    ("edit", "found"),
    [
        ({"layers.0.skip.codes": np.full(4, 0.5)}, "codes that are not whole"),
        ({"layers.0.skip.scale": np.zeros(1)}, "a scale that is not positive"),
        ({"layers.0.skip.zero": np.zeros(7)}, "does not fit codes"),
        ({"layers.0.skip.scale": None}, "is missing"),
        ({"layers.0.pole.signs": None}, "igns belong to the leapfrog form"),
    ],
)
def test_damaged_integers_are_refused(tmp_path, edit, found):
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    path = tmp_path / "m.safetensors"
    ssm.save(ssm.quantize(random_model(1), FEW, Scheme("leapfrog")), path)
    with safe_open(path, "numpy") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    for name, value in edit.items():
        tensors.pop(name)
        if value is not None:
            tensors[name] = value
    save_file(tensors, path, metadata)
    with pytest.raises(InputError, match=found) as caught:
        ssm.load(path)
    assert caught.value.do == "save it again"


@pytest.mark.parametrize(
    ("parts", "found"),
    [
        ((np.zeros(3), np.ones(1), np.zeros(1)), "not integers"),
        ((np.zeros(3, int), np.ones(2), np.zeros(1)), "does not fit"),
        ((np.zeros(3, int), np.ones(1), np.zeros(1), "polar"), "not \\(H, M, 2\\)"),
        ((np.zeros((1, 1, 2), int), np.ones(1), np.zeros(1), "leapfrog"), "igns belong"),
        ((np.zeros(3, int), np.ones(1), np.zeros(1), "round"), "orm 'round' is unknown"),
    ],
)
def test_grids_of_no_array_are_refused(parts, found):
    with pytest.raises(InputError, match=found):
        Grid(*parts)


def test_codes_take_the_smallest_integer():
    kinds = [np.int8, np.uint8, np.int16, np.uint16]
    for top, kind in zip((127, 255, 32767, 65535), kinds, strict=True):
        assert as_codes(np.array([0.0, top])).dtype == kind
    with pytest.raises(InputError, match="at most 16 bits"):
        as_codes(np.array([-1, 65535]))


# what is refused


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ({"form_of_a": "leap-frog"}, "id you mean 'leapfrog'"),
        ({"method": "ternry"}, "id you mean 'ternary'"),
        ({"method": {"a": "ternary"}}, "no meaning there"),
        ({"method": "c=ternary,c=lsq"}, "gives 'c' twice"),
        ({"method": "c="}, "no word"),
        ({"per": {"mxi": "tensor"}}, "id you mean 'mix'"),
        ({"per": {"mix": "mode"}}, "no meaning there"),
        ({"per": {"a": "mode"}}, "no meaning there"),
        ({"sides": {"a": "asymmetric"}}, "no meaning there"),
        ({"sides": {"c": "asymmetric"}, "method": {"c": "ternary"}}, "symmetric grid"),
        ({"per": {"c": "mode"}, "method": {"c": "percentile"}}, "largest weight"),
        ({"percentile": 40.0}, "ost weights would be clipped"),
    ],
)
def test_schemes_that_mean_nothing_are_refused(words, text):
    with pytest.raises(UsageError, match=text) as caught:
        Scheme(**words)
    assert all((caught.value.asked, caught.value.found, caught.value.do))


@pytest.mark.parametrize(
    ("bits", "scheme", "text"),
    [
        ({"c": 0}, {}, "whole number from 2 to 16"),
        ({"c": 1}, {}, "symmetric grid of that size has no use"),
        ({"c": 17}, {}, "odes are kept in 16 bits at most. Give a whole number from 2 to 16"),
        ({"a": 4, "decay": 0}, {}, "whole number from 1 to 16"),
        ({"decay": 4}, {}, "A itself has none"),
        ({"a": 6, "decay": 3}, {"form_of_a": "delta"}, "no decay of its own"),
        ({"c": 4}, {"method": {"c": "ternary"}}, "hree levels are 2 bits"),
        ({"c": 4}, {"method": {"c": "lsq"}}, "learned in training"),
    ],
)
def test_bits_that_make_no_sense_are_refused(bits, scheme, text):
    with pytest.raises(UsageError, match=text) as caught:
        ssm.quantize(random_model(1), Precision(**bits), Scheme(**scheme))
    assert all((caught.value.asked, caught.value.found, caught.value.do))


def test_a_word_for_all_goes_where_it_means_something():
    scheme = Scheme(form_of_a="delta", method="ternary", per="tensor")
    assert scheme.of("a").method == "min-max" and scheme.of("mix").method == "ternary"
    shifts = Scheme(per="mode")
    assert (shifts.of("mix").per, shifts.of("c").per, shifts.of("d").per) == (
        "channel", "mode", "tensor"
    )
    assert Scheme(sides="asymmetric").of("a").sides == "symmetric"
    assert Scheme("delta", sides="asymmetric").of("a").sides == "asymmetric"
