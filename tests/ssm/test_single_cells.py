"""Never-negative weights on as many cells as a pair has, filled in turn, for a declared time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_models import IDEAL, random_input, random_model, relative_error

import ssm
from aimc_sim.specs import ChipSpec
from ssm.disturbance import Disturbance
from ssm.onchips import OnChips
from ssm.trainable import Trainable

pytestmark = pytest.mark.compiled
DAY_S = 86_400.0
BOTH = {"single_cells": 2, "parallel": "fill", "cells_per_weight": 2}


def static_weights(d, chips, at_s):
    """Return the weights of sampled chips without read noise, (chips, n_weights)."""
    programmed = d.program(7, chips).wait(at_s)
    gains = programmed._corrections()
    return np.stack([programmed._static_weights(k, gains[k].gain) for k in range(chips)])


@pytest.mark.parametrize("form", ["leapfrog", "delta"])
def test_ideal_cells_filled_in_turn_answer_as_the_float_model(form):
    x, model = random_input(4, 3, 60), random_model(seed=3)
    spec = IDEAL.replace(**BOTH, **{"dac.bits": "ideal", "adc.bits": "ideal"})
    d = ssm.deploy(model, spec, form, calibrate=x)
    assert d.weights.plus.shape[0] == (4 if form == "leapfrog" else 2)
    assert relative_error(d.program().infer(x).logits, model.logits(x)) < 1e-5


def test_every_cell_is_read_with_a_share_by_one_weight():
    d = ssm.deploy(random_model(seed=3), IDEAL.replace(**BOTH), calibrate=random_input(4, 3, 20))
    shared = d.weights.scale > 0
    cells = np.concatenate([d.weights.plus[shared], d.weights.minus[shared]])
    np.testing.assert_array_equal(np.sort(cells[cells >= 0]), np.arange(d.layout.n_cells))
    # 2 layers x 12 modes x 4 never-negative weights of A on 4 cells each
    a = sum(array.n_cells for array in d.layout.arrays if array.request.name.endswith(" A"))
    assert a == 2 * 12 * 4 * 4


def test_weights_of_a_model_are_right_on_average_at_the_declared_time():
    """PCM that has lost a third: the slope of 12,000 weights on the asked ones, to a percent."""
    model, x = random_model(seed=3, n_heads=8, n_modes=8), random_input(4, 3, 20)
    card = ChipSpec.preset("pcm-nandakumar2019").replace(compensation="none")
    slopes = []
    for spec in (card, card.replace(targets_for_s=DAY_S, single_cells=2)):
        d = ssm.deploy(model, spec, calibrate=x)
        exact, found = d.weights.exact, static_weights(d, 10, DAY_S)
        a = np.isin(d.weights.product, [1, 2, 3, 4])
        scaled = found[:, a] / exact[a]
        slopes.append(float(scaled.mean()))
    assert slopes[0] < 0.75
    assert slopes[1] == pytest.approx(1.0, abs=0.02)


def test_single_cells_in_training_err_as_those_on_sampled_chips():
    """The e of 64 modes on 40 chips against draws: 2,560 errors, a sigma known to 1.4 %."""
    spec = ChipSpec.preset("reram-wan2022").replace(
        targets_for_s=DAY_S, noise_in_time="frozen", **BOTH
    )
    model = random_model(3, n_heads=8, n_modes=8, n_layers=1)
    d = ssm.deploy(model, spec, calibrate=random_input(1, 4, 20))
    own = d.weights.product == 1
    exact = d.weights.exact[own]
    found = static_weights(d, 40, DAY_S)[:, own] / exact - 1
    disturbance = Disturbance([spec], DAY_S)
    torch.manual_seed(0)
    e = torch.as_tensor(exact[None])
    drawn = np.stack([disturbance.singles(e)[0].numpy() for _ in range(400)]) / exact - 1
    # read noise of 1 % is in the draws alone
    assert np.std(drawn) == pytest.approx(np.std(found), rel=0.08)
    # of one mode's cells, 40 chips tell the sigma to 11 %
    ratio = np.std(drawn, axis=0) / np.std(found, axis=0)
    assert np.mean(np.abs(ratio - 1)) < 0.2


def test_a_state_that_never_moves_does_not_blow_up_the_errors_of_its_row():
    """Modes at angle 0 have q = 0: the row that reads q has no range of its own."""
    model = random_model(seed=3, real_share=0.7, longest=0.95)
    assert any((layer.pole.imag == 0).any() for layer in model.layers)
    x = torch.as_tensor(random_input(4, 8, 40), dtype=torch.float32)
    chips = OnChips([ChipSpec.preset("cmo-hfox")], DAY_S, read_errors=False)
    module = Trainable([model], None, chips, "leapfrog")
    module.set_row_ranges(x)
    with torch.no_grad():
        module.eval()
        clean = module(x)
        module.train()
        noisy = module(x)
    error = float((noisy - clean).norm() / clean.norm())
    assert 1e-4 < error < 0.3
