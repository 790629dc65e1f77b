"""Pruning by scores, by balanced truncation and of heads, and what carries a pruned model."""

import dataclasses
import re

import numpy as np
import pytest
from small_models import random_input, random_model

import ssm
from aimc_sim.errors import UsageError
from ssm.complexity import measure
from ssm.places import has_rows
from ssm.prune import METHODS, SCORES, prune
from ssm.pruning_report import ROUNDING, _rounding_error, bits_of_a, report_pruning
from ssm.quantize import Precision, quantize
from ssm.reduction import energy, kernel_error, modes_of

MODEL = random_model(21, n_heads=6, n_modes=8, real_share=0.25)
X = random_input(0, 4, 30)


def states(model):
    return np.stack([layer.mode_weight.sum(axis=1) for layer in model.layers])


def one_head(pole, gain):
    """Return a model of one head with these pairs of poles."""
    model = random_model(0, n_heads=1, n_modes=len(pole), n_layers=1)
    layer = dataclasses.replace(
        model.layers[0], pole=np.array([pole]), readout=np.array([gain]),
        drive=np.ones((1, len(pole))),
    )
    return model.replace(layers=(layer,))


def test_scores_are_the_published_ones():
    layer = one_head([0.5j, 0.9j], [3.0, 1j]).layers[0]
    found = {name: score(layer)[0] for name, score in SCORES.items()}
    np.testing.assert_allclose(found["magnitude"], [6, 2])
    np.testing.assert_allclose(found["hinf"], [12, 20])
    # squares over the running sum from the largest down: 400/400, then 144/544
    np.testing.assert_allclose(found["last"], [144 / 544, 1])
    # energies 2 |c b|^2/(1 - |a|^2): 24 and 10.53
    np.testing.assert_allclose(found["aire"], [1, (2 / 0.19) / (24 + 2 / 0.19)])


@pytest.mark.parametrize("name", SCORES)
def test_modes_that_stay_are_those_with_the_largest_scores_unchanged(name):
    pruned = prune(MODEL, 0.5, method=name, scope="layer")
    for before, after in zip(MODEL.layers, pruned.layers, strict=True):
        stays = np.isin(before.pole, after.pole[after.mode_weight > 0])
        score = SCORES[name](before)
        assert score[stays].min() >= score[~stays].max()
        assert after.mode_weight.sum() <= 0.5 * before.mode_weight.sum()
        assert after.mode_weight.sum() > 0.5 * before.mode_weight.sum() - 2
        gains = {complex(p): g for p, g in zip(before.pole.ravel(), before.readout.ravel(),
                                               strict=True)}
        kept = after.mode_weight > 0
        assert all(gains[complex(p)] == g for p, g in zip(after.pole[kept], after.readout[kept],
                                                          strict=True))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scope", ["head", "layer", "global"])
def test_every_scope_keeps_at_most_its_share_and_nearly_that(method, scope):
    pruned = prune(MODEL, 0.6, method=method, scope=scope)
    axes = {"head": (), "layer": (1,), "global": (0, 1)}[scope]
    left, full = (states(model).sum(axis=axes) for model in (pruned, MODEL))
    assert (left <= 0.6 * full).all()
    assert (left > 0.6 * full - 2).all() or method == "balanced"
    assert pruned.n_states > 0.5 * MODEL.n_states


def test_a_model_pruned_in_two_steps_keeps_the_share_of_the_first():
    half = prune(MODEL, 0.5, method="hinf", scope="global")
    both = prune(half, 0.25, method="hinf", scope="global")
    once = prune(MODEL, 0.25, method="hinf", scope="global")
    assert both.unpruned_states == MODEL.n_states
    np.testing.assert_array_equal(states(both), states(once))
    np.testing.assert_array_equal(both.logits(X), once.logits(X))


def test_half_of_the_states_stay_unless_heads_alone_were_asked_for():
    np.testing.assert_array_equal(prune(MODEL).logits(X), prune(MODEL, 0.5).logits(X))
    heads = prune(MODEL, heads=0.5)
    np.testing.assert_array_equal(heads.logits(X), prune(MODEL, 1.0, heads=0.5).logits(X))
    for before, after in zip(MODEL.layers, heads.layers, strict=True):
        there = has_rows(after)
        assert after.mode_weight.sum() == before.mode_weight[there].sum()


@pytest.mark.parametrize("keep", [None, 0.5, 0.8, 1.0])
def test_heads_of_a_pruned_model_go_and_the_states_of_the_others_stay(keep):
    half = prune(MODEL, 0.5)
    fewer = prune(half, keep, heads=0.5)
    for before, after in zip(half.layers, fewer.layers, strict=True):
        there = has_rows(after)
        assert there.sum() == 3
        np.testing.assert_array_equal(after.mode_weight[there].sum(axis=1),
                                      before.mode_weight[there].sum(axis=1))


def test_states_count_within_the_heads_that_stay_in_one_step_or_two():
    even = random_model(5, n_heads=6, n_modes=6, real_share=0.0)
    once = prune(even, 0.5, method="hinf", heads=0.5)
    twice = prune(prune(even, heads=0.5), 0.5, method="hinf")
    assert once.n_states == twice.n_states == even.n_states // 4
    np.testing.assert_array_equal(once.logits(X), twice.logits(X))


def test_balanced_truncation_of_overlapping_modes_comes_nearer_than_the_best_score():
    # decays as large as the distance of neighbouring frequencies, as long training makes them
    steps = np.geomspace(0.002, 0.05, 6)[:, None]
    pole = np.exp(steps * np.pi * (-1 + 1j * np.arange(1, 17)))
    model = random_model(22, n_heads=6, n_modes=16)
    model = model.replace(
        layers=tuple(dataclasses.replace(layer, pole=pole, mode_weight=np.full(pole.shape, 2.0))
                     for layer in model.layers)
    )

    def error(pruned):
        total = 0.0
        for before, after in zip(model.layers, pruned.layers, strict=True):
            for head, skip in enumerate(after.skip - before.skip):
                one, other = modes_of(before, head), modes_of(after, head)
                total += kernel_error(one, other, skip) ** 2 / energy(one)
        return total

    best = min(error(prune(model, 0.5, method=name, scope="head")) for name in SCORES)
    assert error(prune(model, 0.5)) < 0.3 * best


def test_heads_that_matter_least_go_whole_and_their_channel_stays():
    pruned = prune(MODEL, 1.0, heads=0.5)
    for before, after in zip(MODEL.layers, pruned.layers, strict=True):
        gone = ~has_rows(after)
        assert gone.sum() == 3
        assert (after.mix_weight[gone] == 0).all() and (after.skip[gone] == 0).all()
        norms = [
            np.sqrt(energy(modes_of(before, h)) + 2 * before.skip[h]
                    * modes_of(before, h).impulse_response(1)[0] + before.skip[h] ** 2)
            * np.linalg.norm(before.mix_weight[h])
            for h in range(6)
        ]
        assert np.max(np.array(norms)[gone]) < np.min(np.array(norms)[~gone])
    silent = [dataclasses.replace(layer, mix_weight=np.where(has_rows(own)[:, None],
                                                             layer.mix_weight, 0))
              for layer, own in zip(MODEL.layers, pruned.layers, strict=True)]
    expected = MODEL.replace(layers=tuple(silent)).logits(X)
    np.testing.assert_allclose(pruned.logits(X), expected, rtol=0, atol=1e-12)
    assert prune(MODEL, 1.0, heads=0.5, scope="global").n_states < MODEL.n_states


@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
def test_a_pruned_model_is_the_same_after_a_file(ending, tmp_path):
    pruned = prune(MODEL, 0.4)
    path = tmp_path / f"pruned{ending}"
    ssm.save(pruned, path)
    again = ssm.load(path)
    np.testing.assert_array_equal(again.logits(X), pruned.logits(X))
    assert again.unpruned_states == MODEL.n_states
    with pytest.raises(UsageError, match="already"):
        prune(again, 0.5)


def test_a_file_of_before_pruning_existed_is_read(tmp_path, digits_model):
    assert ssm.load(digits_model).unpruned_states is None


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_rounding_keeps_real_poles_real_and_empty_places_empty(bits):
    pruned = prune(MODEL, 0.5)
    rounded = quantize(pruned, Precision(a=bits, b=bits, c=bits))
    for before, after in zip(pruned.layers, rounded.layers, strict=True):
        np.testing.assert_array_equal(before.mode_weight, after.mode_weight)
        alone = after.mode_weight == 1
        assert alone.any()
        assert (after.pole.imag[alone] == 0).all()
        assert (np.sign(after.pole.real[alone]) == np.sign(before.pole.real[alone])).all()
        assert (np.abs(after.pole) < 1).all()


def test_empty_places_and_real_poles_do_not_widen_the_grid_of_a_head():
    pole = np.array([[0.9 * np.exp(0.3j), 0.99 * np.exp(0.5j), -0.95, 0.0]])
    layer = one_head(list(pole[0]), [1.0] * 4).layers[0]
    uneven = dataclasses.replace(
        layer, mode_weight=np.array([[2.0, 2.0, 1.0, 0.0]]), readout=np.array([[1.0, 1, 1, 0]]),
        drive=np.array([[1.0, 1, 1, 0]]),
    )
    model = MODEL.replace(layers=(uneven,), encoder_weight=np.ones((1, 1)),
                          encoder_bias=np.zeros(1), decoder_weight=np.ones((1, 3)))
    found = quantize(model, Precision(a=8)).layers[0].pole[0]
    # the pairs are the ends of both ranges, so that rounding leaves them as they are
    np.testing.assert_allclose(found[:2], pole[0, :2], rtol=1e-12)
    assert found[2] == pytest.approx(-0.95, rel=2e-3) and found[3] == 0


def test_a_truncated_model_carries_no_bits_of_what_it_changed():
    rounded = quantize(MODEL, Precision(a=8, c=6, mix=4))
    assert prune(rounded, 0.5).precision == {"mix": 4}
    assert prune(rounded, 0.5, method="hinf").precision == {"a": 8, "c": 6, "mix": 4}
    apart = quantize(MODEL, Precision(a=8, decay=4, mix=4))
    assert prune(apart, 0.5).precision == {"mix": 4}


@pytest.mark.compiled
def test_the_report_says_that_rounding_is_lost_and_how_to_round_again():
    rounded = quantize(MODEL, Precision(a=8, c=6, mix=4))
    pruned = prune(rounded, 0.5)
    report = report_pruning(rounded, pruned)
    sizes = measure(rounded)["memory_bits"], measure(pruned)["memory_bits"]
    assert report.memory_bits == sizes and report.bits_lost == {"a": 8, "c": 6}
    assert f"memory {sizes[0] / 1000:.4g} -> {sizes[1] / 1000:.4g} kbit" in str(report)
    assert "aimc-sim quantize m.pt --precision a=8,c=6 --out ROUNDED" in report.text("m.pt")
    again = quantize(pruned, Precision.parse("a=8,c=6"))
    assert again.precision == rounded.precision and measure(again)["memory_bits"] < sizes[0]
    by_score = report_pruning(rounded, prune(rounded, 0.5, method="hinf"), method="hinf")
    assert by_score.bits_lost == {} and "quantize" not in str(by_score)


@pytest.mark.compiled
def test_a_change_of_the_heads_that_stay_says_that_it_is_of_them():
    fewer = report_pruning(MODEL, prune(MODEL, heads=0.5))
    assert str(fewer).count("impulse responses of the heads that stay change by 0 %") == 2
    assert "that stay" not in str(report_pruning(MODEL, prune(MODEL, 0.5)))


def test_parameters_of_heads_that_went_are_not_counted():
    """A head has D, a mixing row, and for every state two or one numbers of A, B and C each."""
    fewer = prune(MODEL, heads=0.5)
    columns = MODEL.layers[0].mix_weight.shape[1]
    gone = 2 * 3 * (1 + columns) + 3 * (MODEL.n_states - fewer.n_states)
    assert fewer.n_parameters == MODEL.n_parameters - gone


@pytest.mark.compiled
def test_the_report_says_what_changed_and_was_freed():
    pruned = prune(MODEL, 0.5)
    report = report_pruning(MODEL, pruned)
    assert report.states == (MODEL.n_states, pruned.n_states)
    assert report.cells[1] < report.cells[0] and report.tiles[1] <= report.tiles[0]
    for k, layer in enumerate(report.layers):
        before, after = MODEL.layers[k], pruned.layers[k]
        change = scale = 0.0
        for h in range(6):
            response = modes_of(before, h).impulse_response(30_000)
            error = modes_of(after, h).impulse_response(30_000) - response
            error[0] += after.skip[h] - before.skip[h]
            change, scale = change + (error**2).sum(), scale + (response**2).sum()
        assert layer.kernel_error == pytest.approx(np.sqrt(change / scale), rel=1e-6)
        assert 0 < layer.kernel_error <= layer.bound
    assert f"{MODEL.n_states} -> {pruned.n_states} states" in str(report)
    assert report.record()["states"] == report.states


@pytest.mark.compiled
def test_a_bound_is_said_in_words_and_of_balanced_truncation_alone():
    loose, tight = (report_pruning(MODEL, prune(MODEL, keep)) for keep in (0.15, 0.9))
    assert max(layer.bound for layer in loose.layers) > 1
    assert "its bound lies above 100 % and says nothing" in str(loose)
    assert max(layer.bound for layer in tight.layers) < 1
    assert "% at most for certain" in str(tight)
    scored = report_pruning(MODEL, prune(MODEL, 0.5, method="hinf"), method="hinf")
    assert [layer.bound for layer in scored.layers] == [None, None]
    assert "certain" not in str(scored) and "bound" not in str(scored)
    assert "changes impulse responses by 30 % at most" in str(scored)


def test_bits_of_a_are_the_fewest_that_keep_impulse_responses():
    bits = bits_of_a(MODEL)
    errors = [
        max(_rounding_error(MODEL, quantize(MODEL, Precision(a=n)), k, None) for k in range(2))
        for n in (bits - 1, bits)
    ]
    assert errors[1] <= ROUNDING < errors[0]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"keep": 0.0}, "Keep 0 of the states. It is no share in"),
        ({"keep": 1.5}, "Keep 1.5 of the states. It is no share in"),
        ({"keep": float("nan")}, "Keep nan of the states"),
        ({"heads": -0.5}, "Keep -0.5 of the heads"),
        ({"method": "hinff"}, "There is no such method. Did you mean 'hinf'"),
        ({"scope": "heads"}, "There is no such scope. Did you mean 'head'"),
        ({"keep": 0.01, "scope": "head"}, "not one state. Keep more, or use scope 'global'"),
        ({"keep": 0.001, "scope": "global"}, "That leaves not one state. Keep more."),
        ({"keep": 1.0}, "Keep 1 of the states. That leaves nothing out. Give a share below 1."),
        ({"method": "last", "n_steps": 100}, "Scores do not ask for the length of sequences"),
        ({"n_steps": 0}, "No sequence is that short"),
    ],
)
def test_bad_requests_are_refused_in_three_parts(settings, text):
    with pytest.raises(UsageError) as caught:
        prune(MODEL, **settings)
    assert text in str(caught.value)
    assert caught.value.do


def test_pruning_twice_to_the_same_share_is_refused():
    """0.07 x 100 is a little more than 7 in binary; the seven states that stayed are enough."""
    model = random_model(6, n_heads=10, n_modes=10, n_layers=1, real_share=1.0)
    once = prune(model, 0.07, method="magnitude", scope="global")
    assert (model.n_states, once.n_states) == (100, 7)
    text = (
        "Keep 0.07 of the states. The model holds 7 of 100 states, 0.07 of them, already. Keep "
        "less than 0.07, or start from the unpruned model."
    )
    with pytest.raises(UsageError, match=re.escape(text)):
        prune(once, 0.07, method="magnitude", scope="global")
    assert prune(once, 0.06, method="magnitude", scope="global").n_states == 6


def test_a_model_that_has_less_than_asked_for_is_refused():
    with pytest.raises(UsageError, match="Keep less than 0.2.*or start from the unpruned model"):
        prune(prune(MODEL, 0.25), 0.5)
    both = "Keep 0.5 of the states and 0.5 of the heads. The heads that are left hold .* already"
    with pytest.raises(UsageError, match=both):
        prune(prune(MODEL, 0.25, heads=0.5), 0.5, heads=0.5)
    with pytest.raises(UsageError, match="A layer has 3 of 6 heads left already"):
        prune(prune(MODEL, 1.0, heads=0.5), 0.1, heads=0.9)


def test_models_of_other_shapes_have_no_report_in_common():
    with pytest.raises(UsageError, match="other numbers of layers or heads"):
        report_pruning(MODEL, random_model(0))
