"""Steps of registers and DACs from signals: the largest ends a grid, or a percentile."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_models import IDEAL, random_input, random_model

import ssm
from aimc_sim.errors import InputError, UsageError
from ssm.observe import set_steps
from ssm.quantize import Precision
from ssm.trainable import Trainable

BITS = Precision(state=8, act=6)
X = random_input(2, 30, 20)


@pytest.mark.compiled
@pytest.mark.parametrize("norm", ["pre", "post", "none"])
def test_steps_of_the_largest_signals_are_those_that_training_starts_from(norm):
    model = random_model(3, norm=norm)
    fine = Trainable([model], Precision(state=16, act=16))
    # the observer sees the network without rounding, training with: little at 16 bits
    fine.calibrate(torch.as_tensor(X))
    expected, found = fine.to_models()[0], set_steps(model, X, Precision(state=16, act=16))
    np.testing.assert_allclose(found.act_step, expected.act_step, rtol=2e-3)
    for a, b in zip(found.layers, expected.layers, strict=True):
        np.testing.assert_allclose(a.state_step, b.state_step, rtol=2e-3)
        np.testing.assert_allclose(a.act_step, b.act_step, rtol=2e-3)


@pytest.mark.parametrize("per", ["mode", "channel", "tensor"])
@pytest.mark.parametrize("percentile", [90.0, 100.0])
def test_the_ends_are_percentiles_of_the_states(per, percentile):
    model = random_model(3, norm="none", n_layers=1)
    layer = model.layers[0]
    found = set_steps(model, X, BITS, method="percentile", percentile=percentile, per=per)
    u = X.astype(float) @ model.encoder_weight + model.encoder_bias
    x, states = np.zeros((len(X), *layer.pole.shape), complex), []
    for step in range(X.shape[1]):
        x = layer.pole * x + u[:, step, :, None]
        states.append(np.stack([x.real, x.imag], axis=-1))
    size = np.abs(np.stack(states))  # (time, n, H, M, 2)
    axes = {"mode": (0, 1), "channel": (0, 1, 3, 4), "tensor": (0, 1, 2, 3, 4)}[per]
    ends = np.quantile(size, percentile / 100, axis=axes, keepdims=True)[0, 0]
    expected = np.broadcast_to(ends / 127, (*layer.pole.shape, 2))
    np.testing.assert_allclose(found.layers[0].state_step, expected, rtol=1e-5)
    inputs = np.quantile(np.abs(X), percentile / 100) / 31
    assert found.act_step[0] == pytest.approx(inputs, rel=1e-6)


@pytest.mark.compiled
def test_the_chip_and_files_use_the_steps(tmp_path):
    model = set_steps(random_model(3), X, BITS, method="percentile", percentile=99.0)
    assert model.precision == {"state": 8, "act": 6}
    ssm.save(model, tmp_path / "m.pt")
    again = ssm.load(tmp_path / "m.pt")
    converters = ssm.deploy(again, IDEAL, "digital", calibrate=X).converters
    steps = np.concatenate(
        [layer.state_step[..., part].ravel() for part in (0, 1) for layer in model.layers]
    )
    np.testing.assert_allclose(converters.register_step, steps, rtol=1e-6)
    np.testing.assert_allclose(
        converters.mix_step[:, 0], [layer.act_step[1] for layer in model.layers], rtol=1e-6
    )


def test_what_has_no_bits_keeps_its_ranges():
    model = set_steps(random_model(3), X, Precision(state=8, c=4))
    assert model.act_step is None and model.layers[0].act_step is None
    assert model.precision == {"state": 8}  # weights were not rounded here


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ({"method": "percentil"}, "id you mean 'percentile'"),
        ({"per": "head"}, "here is no such per"),
        ({"method": "percentile", "percentile": 20.0}, "would be clipped"),
    ],
)
def test_words_that_mean_nothing_are_refused(words, text):
    with pytest.raises(UsageError, match=text) as caught:
        set_steps(random_model(3), X, BITS, **words)
    assert all((caught.value.asked, caught.value.found, caught.value.do))


def test_no_bits_and_other_data_are_refused():
    with pytest.raises(UsageError, match="either has bits"):
        set_steps(random_model(3), X, Precision(a=8))
    with pytest.raises(InputError, match=r"finite arrays \(n, time, 1\)"):
        set_steps(random_model(3), X[:, :, 0], BITS)
