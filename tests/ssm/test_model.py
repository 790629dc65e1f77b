"""Model: shapes, facts and the reference recurrence against two independent oracles."""

import numpy as np
import pytest
import torch
from checkpoints import reference_logits, s4block_state, s4d_state, with_batch_norm

from aimc_sim.errors import InputError, UsageError
from ssm.layouts import read_model
from ssm.model import Layer, Model


def build(state, norm="post", disc="zoh", pool="mean"):
    tensors = {key: value.double().numpy() for key, value in state.items()}
    return read_model(tensors, norm=norm, disc=disc, pool=pool, gate=None, asked="load test")


def one_mode_layer(**changes):
    one = np.ones((1, 1))
    arrays = dict(pole=0.5 * one, drive=one, readout=2 * one, mode_weight=one, skip=one[0],
                  mix_weight=one, mix_bias=one[0], norm_scale=one[0], norm_shift=0 * one[0])
    return Layer(**(arrays | changes))


@pytest.mark.parametrize("pool", ["mean", "last"])
@pytest.mark.parametrize("disc", ["zoh", "bilinear"])
@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("make", [s4d_state, s4block_state])
def test_recurrence_equals_the_convolution_of_the_original_classes(make, norm, disc, pool):
    state = make(seed=3)
    x = torch.randn(3, 784, 3, generator=torch.Generator().manual_seed(4))
    expected = reference_logits(state, x, norm=norm, disc=disc, pool=pool).numpy()
    found = build(state, norm, disc, pool).logits(x.numpy())
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("n_ssm", [1, 3, 6])
def test_head_h_uses_row_h_modulo_n_ssm(n_ssm):
    state = s4block_state(seed=5, n_ssm=n_ssm)
    x = torch.randn(2, 100, 3, generator=torch.Generator().manual_seed(6))
    expected = reference_logits(state, x, norm="post", disc="zoh", pool="mean").numpy()
    np.testing.assert_allclose(build(state).logits(x.numpy()), expected, rtol=0, atol=1e-8)


def test_block_with_one_dt_per_mode_is_read():
    tied, free = s4block_state(seed=5), s4block_state(seed=5)
    for key in free:
        if key.endswith("inv_dt"):
            free[key] = free[key].expand(-1, 4).contiguous()
    x = np.random.default_rng(0).normal(size=(2, 30, 3))
    np.testing.assert_array_equal(build(free).logits(x), build(tied).logits(x))


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_batch_norm_is_folded(norm):
    state = with_batch_norm(s4d_state(seed=7))
    x = torch.randn(3, 60, 3, generator=torch.Generator().manual_seed(8))
    model = build(state, norm)
    expected = reference_logits(state, x, norm=norm, disc="zoh", pool="mean").numpy()
    assert model.norm_kind == "affine"
    np.testing.assert_allclose(model.logits(x.numpy()), expected, rtol=0, atol=1e-8)


def test_block_without_norms_needs_no_answer_on_norm():
    state = s4block_state(seed=9, norms=False)
    x = torch.randn(3, 60, 3, generator=torch.Generator().manual_seed(8))
    model = build(state, norm=None)
    expected = reference_logits(state, x, norm="none", disc="zoh", pool="mean").numpy()
    assert model.norm == "none"
    np.testing.assert_allclose(model.logits(x.numpy()), expected, rtol=0, atol=1e-8)


def test_wrong_facts_change_the_logits():
    state = s4d_state(seed=3)
    x = np.random.default_rng(0).normal(size=(2, 50, 3))
    right = build(state).logits(x)
    for wrong in ({"norm": "pre"}, {"disc": "bilinear"}, {"pool": "last"}):
        assert np.abs(build(state, **wrong).logits(x) - right).max() > 1e-4


def test_real_mode_of_weight_one_follows_its_geometric_series():
    model = Model(np.ones((1, 1)), np.zeros(1), (one_mode_layer(),), np.ones((1, 1)), np.zeros(1),
                  norm="none", disc="zoh", pool="last", gate="none")
    _, (state,) = model.logits(np.ones((1, 4, 1)), return_states=True)
    assert state[0, 0, 0] == 1.875
    y, _ = model.layers[0].respond(np.ones((1, 3, 1)))
    np.testing.assert_array_equal(y[0, :, 0], [3.0, 4.0, 4.5])
    assert (model.n_states, model.n_layers, model.n_heads) == (1, 1, 1)


def test_counts_cover_all_layers_and_heads():
    model = build(s4d_state())
    assert (model.n_layers, model.n_heads, model.d_input, model.n_classes) == (2, 6, 3, 5)
    assert model.n_states == 2 * 6 * 4 * 2
    per_layer = 3 * 2 * 24 + 6 + 72 + 12 + 12
    assert model.n_parameters == 2 * per_layer + 18 + 6 + 30 + 5
    assert model.replace(norm="none").n_parameters == model.n_parameters - 24


def test_batch_split_changes_logits_by_rounding_only():
    model = build(s4d_state(n_heads=32, n_modes=32))
    x = np.random.default_rng(1).normal(size=(150, 5, 3))
    whole, (first, last) = model.logits(x, return_states=True)
    parts = np.concatenate([model.logits(x[:70]), model.logits(x[70:])])
    np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-12)
    assert first.shape == last.shape == (150, 32, 32)
    assert model.logits(x[:0]).shape == (0, 5)


@pytest.mark.parametrize(("x", "text"), [
    (np.zeros((2, 5)), r"The array has shape \(2, 5\), the model takes \(n, time, 3\)"),
    (np.zeros((2, 5, 1)), r"The array has shape \(2, 5, 1\), the model takes"),
    (np.zeros((2, 0, 3)), "at least one time step"),
    (np.full((1, 2, 3), np.nan), "The array has NaN or infinite values. Clean the data"),
    ([["a"]], "The argument is not an array of numbers"),
])
def test_wrong_input_is_refused(x, text):
    with pytest.raises(InputError, match=text):
        build(s4d_state()).logits(x)


def test_layer_refuses_shapes_that_disagree():
    with pytest.raises(InputError, match=r"Its drive has shape \(1, 2\), not \(1, 1\)"):
        one_mode_layer(drive=np.ones((1, 2)))


def test_layer_refuses_nan():
    with pytest.raises(InputError, match="Its skip has NaN or infinite values"):
        one_mode_layer(skip=[np.nan])


def test_layer_refuses_other_mode_weights():
    with pytest.raises(InputError, match="values other than 0, 1 and 2"):
        one_mode_layer(mode_weight=[[3.0]])


def test_layer_refuses_no_modes():
    with pytest.raises(InputError, match="Its pole is empty"):
        one_mode_layer(**{name: np.ones((1, 0)) for name in ("pole", "drive", "readout")})


def test_model_refuses_layers_of_other_width():
    model = build(s4d_state())
    with pytest.raises(InputError, match=r"Its layers\[0\].mix_weight has shape \(1, 1\), not"):
        model.replace(layers=(one_mode_layer(),))
    with pytest.raises(InputError, match="It has no layers"):
        model.replace(layers=())
    with pytest.raises(InputError, match="Its norm_epsilon is -1"):
        model.replace(norm_epsilon=-1.0)


def test_misspelt_facts_and_fields_get_a_suggestion():
    model = build(s4d_state())
    with pytest.raises(UsageError, match="did you mean 'bilinear'"):
        model.replace(disc="bilinaer")
    with pytest.raises(UsageError, match="did you mean pool"):
        model.replace(pol="mean")


def test_logits_of_the_shared_checkpoint_are_reproduced(shared):
    from ssm.checkpoint import load

    folder = shared / "models" / "mnist196"
    model = load(folder / "model.pt", norm="post", disc="zoh", pool="mean")
    with np.load(folder / "io.npz") as data:
        logits = model.logits(data["x"])
        np.testing.assert_allclose(logits, data["logits_f64"], rtol=0, atol=1e-9)
