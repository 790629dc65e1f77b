"""The budget of layers: one part on the chip alone, against sums that can be done by hand."""

from __future__ import annotations

import numpy as np
import pytest
from small_models import IDEAL, PCM, random_input, random_model

import ssm.budget as budget_module
from aimc_sim.specs import FaultSpec
from ssm.budget import ALL_CAUSES, ALL_LAYERS, network_parts, signal_budget
from ssm.deploy import deploy

pytestmark = pytest.mark.compiled
MODEL = random_model(seed=11, longest=0.9)
X = random_input(1, 6, 40)
FORMS = ["leapfrog", "delta", "direct"]


def small_errors():
    """Return a chip with white read noise of 1 % and 10-bit converters that nothing clips.

    Where an ADC clips noisy outputs, all causes together do less than the sum of each alone.
    """
    noise = {
        "sigma": {"of": "r", "polynomial": [0.01], "unit_s": IDEAL.device.g_max_s},
        "relative": False,
        "spectrum": "white",
    }
    return IDEAL.replace(
        **{
            "device.read_noise": noise, "device.g_min_s": 0.3 * IDEAL.device.g_max_s,
            "dac.bits": 10, "adc.bits": 10, "dac.headroom": 1.5, "adc.headroom": 1.5,
        }
    )


def as_table(budget):
    """Return (layer, cause) -> share."""
    return {(share.layer, share.cause): share for share in budget.shares}


def part_of(deployment, name):
    return next(part for part in network_parts(deployment.network) if part.name == name)


def test_traced_layers_are_those_of_the_model():
    # a layer's output by hand: the encoder, and the mean of the last one through the decoder
    run = deploy(MODEL, IDEAL, calibrate=X).program().infer(X, return_layers=True)
    encoded = X @ MODEL.encoder_weight + MODEL.encoder_bias
    np.testing.assert_allclose(run.layers[0, :, :, 0], encoded, rtol=1e-5, atol=1e-6)
    pooled = run.layers[0, :, :, -1].mean(axis=1)
    logits = pooled @ MODEL.decoder_weight + MODEL.decoder_bias
    np.testing.assert_allclose(run.logits, logits, rtol=1e-4, atol=1e-5)
    one_layer = MODEL.replace(layers=MODEL.layers[:1])
    first = deploy(one_layer, IDEAL, calibrate=X).program().infer(X, return_layers=True)
    np.testing.assert_allclose(run.layers[:, :, :, 1], first.layers[:, :, :, 1], rtol=1e-4,
                               atol=1e-5)


def test_a_trace_changes_nothing():
    programmed = deploy(MODEL, PCM, calibrate=X).program(seed=2).wait(60.0)
    plain = programmed.infer(X)
    assert plain.layers is None
    np.testing.assert_array_equal(
        programmed.infer(X, return_layers=True).logits, plain.logits
    )


@pytest.mark.parametrize("form", FORMS)
def test_all_products_alone_are_the_whole_chip(form):
    programmed = deploy(MODEL, PCM, form, calibrate=X).program(seed=2).wait(60.0)
    products = range(programmed.deployment.network.analog.size)
    np.testing.assert_array_equal(
        programmed.only(products).infer(X).logits, programmed.infer(X).logits
    )


@pytest.mark.parametrize("form", FORMS)
def test_no_product_on_the_chip_is_the_exact_network(form):
    noisy = deploy(MODEL, PCM.replace(state_bits="ideal"), form, calibrate=X).program(seed=2)
    np.testing.assert_allclose(
        noisy.only(()).infer(X).logits, MODEL.logits(X), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["encoder", "layer 0 A", "layer 1 A", "layer 1 mixing", "decoder"])
def test_a_part_alone_touches_nothing_before_its_layer(form, name):
    programmed = deploy(MODEL, PCM, form, calibrate=X).program(seed=2).wait(60.0)
    part = part_of(programmed.deployment, name)
    exact = programmed.only(()).infer(X, return_layers=True)
    alone = programmed.only(part.products).infer(X, return_layers=True)
    ends = part.ends % (MODEL.n_layers + 2)
    np.testing.assert_array_equal(alone.layers[:, :, :, :ends], exact.layers[:, :, :, :ends])
    if name != "decoder":
        assert (alone.layers[:, :, :, ends] != exact.layers[:, :, :, ends]).any()
    assert (alone.logits != exact.logits).all()


def test_the_chip_itself_is_left_as_it_was():
    programmed = deploy(MODEL, PCM, calibrate=X).program(seed=2).wait(60.0)
    before = programmed.infer(X).logits
    programmed.only((0,)).infer(X)
    np.testing.assert_array_equal(programmed.infer(X).logits, before)


def test_the_share_of_the_decoders_programming_is_that_of_its_weights():
    spec = PCM.replace(compensation="none")
    deployment = deploy(MODEL, spec, calibrate=X)
    found = as_table(signal_budget(deployment, X, seed=5))["decoder", "programming"]
    programmed = deployment.program(seed=5)
    pooled = programmed.only(()).infer(X, return_layers=True).layers[0, :, :, -1].mean(axis=1)
    own = deployment.weights.product == deployment.network.analog.size - 1
    g = programmed.chip.programmed_s[0].astype(float)
    weights = deployment.weights
    w = (weights.scale * (g[weights.plus] - g[weights.minus])).sum(axis=0)[own]
    w = w.reshape(MODEL.decoder_weight.shape)
    exact = pooled @ MODEL.decoder_weight + MODEL.decoder_bias
    error = pooled @ (w - MODEL.decoder_weight)
    expected = np.sqrt((error**2).sum() / (exact**2).sum())
    assert found.relative_rms == pytest.approx(expected, rel=1e-4)
    assert found.logit_rms == found.relative_rms
    assert found.signal_rms == pytest.approx(np.sqrt((exact**2).mean()), rel=1e-4)


def test_the_signal_is_that_of_the_layer():
    table = as_table(signal_budget(deploy(MODEL, PCM, calibrate=X), X))
    encoded = X @ MODEL.encoder_weight + MODEL.encoder_bias
    signal = table["encoder", "drift"].signal_rms
    assert signal == pytest.approx(np.sqrt((encoded**2).mean()), rel=1e-5)
    assert table["layer 0 A", "DAC"].signal_rms == table["layer 0 mixing", "ADC"].signal_rms


@pytest.mark.parametrize("form", FORMS)
def test_squares_of_causes_alone_add_up_to_those_of_all_together(form):
    # new noise at every read and fine rounding: hardly correlated, so only small cross terms
    x = random_input(2, 60, 60)
    deployment = deploy(MODEL, small_errors(), form, calibrate=x)
    table = as_table(signal_budget(deployment, x, chips=2))
    causes = {cause for _, cause in table} - {ALL_CAUSES}
    assert causes == {"read noise", "DAC", "ADC"}
    layers = {layer for layer, _ in table} - {ALL_LAYERS}
    for layer in layers:
        alone = sum(table[layer, cause].relative_rms ** 2 for cause in causes)
        assert alone == pytest.approx(table[layer, ALL_CAUSES].relative_rms ** 2, rel=0.05)
    alone = sum(table[layer, cause].logit_rms ** 2 for layer in layers for cause in causes)
    together = table[ALL_LAYERS, ALL_CAUSES].logit_rms
    assert alone == pytest.approx(together**2, rel=0.05)
    assert together < 0.1


def test_lasting_errors_add_up_over_chips():
    # programming is one draw a chip: the cross terms of 40 chips vanish to some 10 %
    spec = PCM.replace(
        **{"device.programming.sigma": {"of": "r", "polynomial": [0.1], "unit_s": 1e-6}}
    )
    deployment = deploy(MODEL, spec.replace(compensation="none"), calibrate=X)
    table = as_table(signal_budget(deployment, X[:2], chips=40))
    layers = {layer for layer, _ in table} - {ALL_LAYERS}
    alone = sum(table[layer, "programming"].logit_rms ** 2 for layer in layers)
    together = table[ALL_LAYERS, "programming"].logit_rms
    assert alone == pytest.approx(together**2, rel=0.3)


def test_faults_and_every_other_cause_have_a_share():
    spec = PCM.replace(faults=FaultSpec(stuck_low=0.2), levels=16)
    table = as_table(signal_budget(deploy(MODEL, spec, calibrate=X), X, at_s=3600.0))
    causes = ("programming", "levels", "faults", "drift", "read noise", "DAC", "ADC", ALL_CAUSES)
    for cause in causes:
        assert table[ALL_LAYERS, cause].relative_rms > 0
    assert {cause for _, cause in table} == set(causes)


def test_parts_in_digital_logic_have_no_share():
    deployment = deploy(
        MODEL, PCM, "leapfrog", decay="digital", digital=("encoder", "mixing"), calibrate=X
    )
    layers = {share.layer for share in signal_budget(deployment, X[:1]).shares}
    parts = {f"layer {n} {part}" for n in range(2) for part in "AC"}
    assert layers == {*parts, "decoder", ALL_LAYERS}


def test_pieces_of_the_samples_give_the_same_budget(monkeypatch):
    deployment = deploy(MODEL, PCM, calibrate=X)
    whole = signal_budget(deployment, X, at_s=60.0)
    monkeypatch.setattr(budget_module, "_LAYER_NUMBERS", 1)
    pieces = signal_budget(deployment, X, at_s=60.0)
    assert whole.n_samples == pieces.n_samples == len(X)
    for one, other in zip(whole.shares, pieces.shares, strict=True):
        assert one.relative_rms == pytest.approx(other.relative_rms, rel=1e-12)
        assert one.logit_rms == pytest.approx(other.logit_rms, rel=1e-12)


def test_progress_ends_with_the_last_sequence_and_the_most_are_kept():
    told = []
    found = signal_budget(
        deploy(MODEL, PCM, calibrate=X), X, most=2, on_progress=lambda *now: told.append(now)
    )
    assert found.n_samples == 2
    assert told[-1][0] == told[-1][1] == 2 * len(found.shares)


def test_an_ideal_chip_has_no_budget():
    assert signal_budget(deploy(MODEL, IDEAL, calibrate=X), X).shares == ()


def test_states_that_run_away_have_no_figure():
    # poles outside the unit circle: the answers are infinite, not a number to add up
    wild = {"of": "r", "polynomial": [10.0], "unit_s": 1e-6}
    spec = PCM.replace(
        **{
            "device.programming.sigma": wild, "state_bits": "ideal", "compensation": "none",
            "dac.bits": "ideal", "adc.bits": "ideal",
        }
    )
    model = random_model(seed=11, longest=0.9, norm="none")
    x = random_input(3, 1, 3000)
    table = as_table(signal_budget(deploy(model, spec, "delta", calibrate=X), x))
    share = table["layer 0 A", "programming"]
    assert share.relative_rms is None
    assert share.logit_rms is None
    assert table["decoder", "programming"].relative_rms > 0
