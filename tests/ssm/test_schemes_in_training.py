"""Training with other grids: forms of A, ternary weights and learned steps reach the chip."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from small_models import IDEAL, random_input, random_model

import ssm
from aimc_sim.errors import UsageError
from ssm.poles import FORMS_OF_A
from ssm.quantize import Precision
from ssm.schemes import Scheme
from ssm.trainable import Trainable

pytestmark = pytest.mark.compiled

BITS = Precision(a=6, c=2, d=5, mix=2, enc=6, dec=6, state=8, act=7)


@pytest.fixture(scope="module")
def digits():
    return ssm.load_task("digits")


@pytest.fixture(scope="module")
def trained(digits_model):
    return ssm.load(digits_model)


def small_task(n=40, n_steps=10, classes=3):
    return random_input(1, n, n_steps), np.arange(n) % classes


def trainable(model, precision, scheme):
    module = Trainable([model], precision, scheme=scheme)
    module.calibrate(torch.as_tensor(random_input(2, 30, 20)))
    return module.eval()


@pytest.mark.parametrize("form", FORMS_OF_A)
def test_the_ideal_chip_gives_the_logits_of_training_in_every_form_of_a(form, tmp_path):
    """Float32 sums in another order: a rounding in some 10^4 falls to the other side."""
    scheme = Scheme(form, method={"c": "ternary", "mix": "ternary", "enc": "percentile"})
    module = trainable(random_model(5, n_modes=4), BITS, scheme)
    x = random_input(6, 40, 20)
    with torch.no_grad():
        expected = module(torch.as_tensor(x)).numpy()[:, 0]
    ssm.save(module.to_models()[0], tmp_path / "model.safetensors")
    model = ssm.load(tmp_path / "model.safetensors")
    assert model.layers[0].grids["pole"].form == form
    chip = ssm.deploy(model, IDEAL, "digital", calibrate=x).program(0)
    error = np.abs(chip.infer(x).logits - expected).max(axis=1) / np.abs(expected).max()
    assert np.quantile(error, 0.8) < 1e-4
    assert error.max() < 0.05  # one step of a state or an activation


@pytest.mark.parametrize("form", FORMS_OF_A)
def test_before_its_first_step_training_rounds_a_as_rounding_afterwards_does(form):
    model, scheme = random_model(4, n_modes=6, n_layers=1), Scheme(form)
    for bits in (4, 7):
        tuned = trainable(model, Precision(a=bits), scheme).to_models()[0]
        after = ssm.quantize(model, Precision(a=bits), scheme)
        np.testing.assert_allclose(tuned.layers[0].pole, after.layers[0].pole, atol=2e-6)
        np.testing.assert_array_equal(
            tuned.layers[0].grids["pole"].codes, after.layers[0].grids["pole"].codes
        )


@pytest.mark.parametrize("form", FORMS_OF_A)
def test_gradients_reach_a_through_the_rounding(form):
    """The rounded poles' gradient passes to ln decay and angle as if there were no rounding."""
    layer = trainable(random_model(4, n_layers=1), Precision(a=5), Scheme(form)).layers[0]
    rate, phase = layer.poles()
    (3.0 * torch.log(rate) + 2.0 * phase).sum().backward()
    with torch.no_grad():
        turned = 2 * layer.rate_start
    np.testing.assert_allclose(layer.log_rate.grad, 3.0, rtol=1e-5)
    np.testing.assert_allclose(layer.frequency.grad, 2.0 * turned, rtol=1e-5)


@pytest.mark.parametrize("form", FORMS_OF_A)
def test_an_angle_that_trained_beyond_pi_keeps_its_pole(form):
    module = trainable(random_model(4, n_layers=1), Precision(a=12), Scheme(form))
    layer = module.layers[0]
    with torch.no_grad():
        layer.frequency[0, 0, 0] = (np.pi + 0.2) / (2 * layer.rate_start[0, 0, 0])
        rate, phase = (part[0].double().numpy() for part in layer.poles())
    pole = module.to_models()[0].layers[0].pole
    np.testing.assert_allclose(pole, np.exp(-rate + 1j * phase), atol=1e-5)
    wanted = np.exp(-rate[0, 0]) * np.exp(1j * (np.pi + 0.2))
    assert abs(pole[0, 0] - wanted) < 3e-3


@pytest.mark.parametrize("form", FORMS_OF_A)
def test_a_memory_that_training_made_endless_still_lies_inside_the_unit_circle(form):
    """ln 1/|dA| of 1e-26: |dA| is 1 in float64, where no code may be, nor a rounding beside it."""
    module = trainable(random_model(4, n_layers=1), Precision(a=8), Scheme(form))
    with torch.no_grad():
        module.layers[0].log_rate[0, 1, 0] = -60 - torch.log(module.layers[0].rate_start[0, 1, 0])
    pole = module.to_models()[0].layers[0].pole
    assert np.abs(pole).max() < 1.0 - 5e-15  # LARGEST is 1 - 1e-14
    assert np.abs(pole[1]).max() > 0.9


def test_bits_of_the_decay_are_apart_in_training_too():
    model = random_model(4, n_modes=8, n_layers=1)
    for form in ("log-polar", "polar", "leapfrog"):
        tuned = trainable(model, Precision(a=7, decay=1), Scheme(form)).to_models()[0]
        codes = tuned.layers[0].grids["pole"].codes
        assert np.unique(codes[..., 1]).tolist() == [0, 1]
        assert np.unique(codes[..., 0]).size > 8


def test_ternary_weights_stay_ternary_and_learned_steps_move():
    scheme = Scheme(method={"c": "ternary", "mix": "ternary", "enc": "lsq", "dec": "lsq"})
    precision = Precision(c=2, mix=2, enc=4, dec=4, d=4)
    start = random_model(7)
    model = ssm.fine_tune(
        start, small_task(), precision=precision, scheme=scheme, epochs=2, device="cpu"
    )
    for layer in model.layers:
        for name in ("readout", "mix_weight"):
            assert set(np.unique(layer.grids[name].codes)) == {-1, 0, 1}
    untrained = Trainable([start], precision, scheme=scheme).to_models()[0]
    for name in ("encoder_weight", "decoder_weight"):
        moved = model.grids[name].scale / untrained.grids[name].scale
        assert (moved != 1).all() and (np.abs(np.log(moved)) < 1).all()
        assert np.abs(model.grids[name].codes).max() <= 7


def test_a_learned_step_starts_as_its_paper_says():
    """2 mean |w| / sqrt(L), Esser et al., doi:10.48550/arXiv.1902.08153, section 3."""
    model, scheme = random_model(7), Scheme(method={"mix": "lsq"})
    layer = Trainable([model], Precision(mix=4), scheme=scheme).to_models()[0].layers[0]
    expected = 2 * np.abs(model.layers[0].mix_weight).mean(axis=0) / np.sqrt(7)
    np.testing.assert_allclose(layer.grids["mix_weight"].scale[0], expected, rtol=1e-5)


def test_files_of_tuned_models_hold_integers(tmp_path):
    model = ssm.fine_tune(random_model(7), small_task(), precision=BITS, epochs=1, device="cpu",
                          scheme=Scheme("leapfrog", method={"c": "ternary", "mix": "ternary"}))
    ssm.save(model, tmp_path / "m.pt")
    again = ssm.load(tmp_path / "m.pt")
    for old, new in zip(model.layers, again.layers, strict=True):
        assert set(new.grids) == {"pole", "readout", "skip", "mix_weight"}
        np.testing.assert_array_equal(old.pole, new.pole)
        assert (np.abs(new.pole) < 1).all()


def test_schemes_that_bits_do_not_fit_are_refused():
    with pytest.raises(UsageError, match="hree levels are 2 bits"):
        ssm.fine_tune(random_model(1), small_task(), precision=Precision(c=4), device="cpu",
                      scheme=Scheme(method={"c": "ternary"}))


def test_training_ternary_weights_beats_making_them_ternary(trained, digits):
    """The margin is three standard errors of 359 test sequences, and 5 points at least."""
    precision = Precision(c=2, mix=2)
    scheme = Scheme(method={"c": "ternary", "mix": "ternary"})
    after = ssm.quantize(trained, precision, scheme)
    tuned = ssm.fine_tune(
        trained, (digits.x_train[:400], digits.y_train[:400]), precision=precision, scheme=scheme,
        epochs=2, lr=4e-3, device="cpu",
    )
    scores = [
        np.mean(m.logits(digits.x_test).argmax(1) == digits.y_test) for m in (after, tuned)
    ]
    margin = 3 * np.sqrt(sum(s * (1 - s) for s in scores) / len(digits.y_test))
    assert scores[1] > scores[0] + max(margin, 0.05), scores


def test_the_default_grids_are_those_of_before():
    """A without a scheme is log-polar per head, and nothing else is learned."""
    plain, named = (
        Trainable([random_model(3)], BITS_PLAIN, scheme=scheme).to_models()[0]
        for scheme in (None, Scheme())
    )
    for a, b in zip(plain.layers, named.layers, strict=True):
        for field in dataclasses.fields(a):
            if isinstance(getattr(a, field.name), np.ndarray):
                np.testing.assert_array_equal(getattr(a, field.name), getattr(b, field.name))


BITS_PLAIN = Precision(a=6, c=4, d=4, mix=4, enc=4, dec=4)
