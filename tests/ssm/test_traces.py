"""States of one sequence on chips beside those of the float model."""

from __future__ import annotations

import numpy as np
import pytest
from small_models import random_model

from aimc_sim.errors import UsageError
from aimc_sim.specs import ChipSpec
from ssm.deploy import deploy
from ssm.evaluate import confusion
from ssm.quantize import Precision, quantize
from ssm.traces import trace_states

X = np.random.default_rng(2).standard_normal((5, 30, 1))


def traced(form, chip="ideal", model=None, **given):
    model = model or random_model(seed=4, n_heads=3, n_modes=4, n_layers=2, longest=0.95)
    deployment = deploy(model, ChipSpec.preset(chip), form, calibrate=X)
    return model, trace_states(model, deployment, X, sample=2, **given)


@pytest.mark.compiled
@pytest.mark.parametrize("form", ["digital", "direct", "delta"])
def test_the_float_state_is_the_recurrence_with_an_input_weight_of_one(form):
    model, found = traced(form)
    name = found["names"][0]
    head, mode = (int(part.split(" ")[-1]) for part in name.split(":")[0].split(", ")[1:])
    u = X[2] @ model.encoder_weight + model.encoder_bias
    state, exact = 0j, []
    for step in range(30):
        state = model.layers[0].pole[head, mode] * state + u[step, head]
        exact.append(state.real)
    # float32 on the chip's side: 30 steps of half a unit in the last place of the largest state
    assert found["float"][0] == pytest.approx(exact, abs=30 * 2**-24 * np.abs(exact).max())


@pytest.mark.compiled
@pytest.mark.parametrize("form", ["leapfrog", "digital"])
def test_an_ideal_chip_has_the_states_of_the_float_model(form):
    _, found = traced(form, chips=2)
    assert found["chips"].shape == (2, 4, 30) and found["float"].shape == (4, 30)
    scale = float(np.abs(found["float"]).max())
    assert found["chips"] == pytest.approx(np.stack([found["float"]] * 2), abs=1e-5 * scale)


@pytest.mark.compiled
def test_a_real_chip_errs_and_its_states_are_those_of_its_run():
    model = random_model(seed=4, n_heads=3, n_modes=4, n_layers=2, longest=0.95)
    deployment = deploy(model, ChipSpec.preset("reram-wan2022"), calibrate=X)
    found = trace_states(model, deployment, X, sample=2, seed=7, chips=2, at_s=3600.0)
    error = np.abs(found["chips"] - found["float"]).max(axis=2)
    assert (error > 0).all()
    run = deployment.program(seed=7, chips=2).wait(3600.0).infer(X, return_states=True)
    layer, head, mode = (int(p.split(" ")[-1]) for p in found["names"][2].split(":")[0].split(", "))
    place = layer * 12 + head * 4 + mode
    assert (found["chips"][:, 2] == run.states[:, 2, :, 0, place]).all()


@pytest.mark.compiled
def test_the_states_shown_do_not_depend_on_the_chip_or_on_rounding():
    model, plain = traced("digital")
    rounded = quantize(model, Precision.parse("a=8,b=8,c=8,state=8,act=8"))
    deployment = deploy(rounded, ChipSpec.preset("ideal"), "digital", calibrate=X)
    found = trace_states(model, deployment, X, sample=2)
    assert found["names"] == plain["names"]
    assert found["float"] == pytest.approx(plain["float"])
    assert np.abs(found["chips"][0] - found["float"]).max() > 0


@pytest.mark.compiled
def test_a_sample_that_is_not_there_is_refused():
    model = random_model(seed=4, n_heads=3, n_modes=4, longest=0.95)
    deployment = deploy(model, ChipSpec.preset("ideal"), calibrate=X)
    with pytest.raises(UsageError, match="There are sequences 0 to 4"):
        trace_states(model, deployment, X, sample=5)


def test_confusion_counts_chips_and_samples_and_keeps_what_is_not_finite_apart():
    logits = np.zeros((2, 3, 2))
    logits[0] = [[1, 0], [0, 1], [np.nan, 0]]
    logits[1] = [[0, 1], [0, 1], [0, 1]]
    found = confusion(logits, np.array([0, 1, 0]))
    assert found.tolist() == [[1, 2, 1], [0, 2, 0]]
    assert found.sum() == 6
