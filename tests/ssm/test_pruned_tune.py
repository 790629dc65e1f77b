"""Training pruned models further: kinds of poles stay, and what has no cell is not disturbed."""

import numpy as np
import pytest
import torch
from small_models import IDEAL, random_input, random_model, relative_error

import ssm
from aimc_sim.specs import ChipSpec
from ssm.deploy import deploy
from ssm.onchips import OnChips
from ssm.prune import prune
from ssm.quantize import Precision
from ssm.trainable import Trainable

pytestmark = pytest.mark.compiled

MODEL = prune(random_model(6, n_heads=4, n_modes=6, real_share=0.3), 0.5)
X = random_input(3, 64, 20)
Y = (X.mean(axis=(1, 2)) > 0.5).astype(np.int64)


def kinds(model):
    return [layer.mode_weight.tolist() for layer in model.layers]


@pytest.mark.parametrize("form", ["digital", "leapfrog"])
def test_a_pruned_model_answers_in_training_as_it_does(form):
    module = Trainable([MODEL], form=form).eval()
    found = module(torch.as_tensor(X[:8]))[:, 0].detach().numpy()
    assert relative_error(found, MODEL.logits(X[:8])) < 1e-4


@pytest.mark.parametrize(
    "settings",
    [{}, {"precision": Precision(a=6, c=6, state=10, act=8)},
     {"chip": ChipSpec.preset("cmo-hfox"), "form": "leapfrog"}],
    ids=["float", "rounded", "leapfrog"],
)
def test_training_keeps_pairs_real_poles_and_empty_places(settings):
    tuned = ssm.fine_tune(
        MODEL, (X, Y), epochs=3, lr=0.05, kernel_lr=0.05, batch_size=16, device="cpu", **settings
    )
    assert kinds(tuned) == kinds(MODEL)
    assert tuned.unpruned_states == MODEL.unpruned_states
    weight, was, pole, readout = (
        np.concatenate([getattr(layer, name).ravel() for layer in model.layers])
        for model, name in ((tuned, "mode_weight"), (MODEL, "pole"), (tuned, "pole"),
                            (tuned, "readout"))
    )
    assert set(weight) == {0.0, 1.0, 2.0}
    assert (pole.imag[weight == 1] == 0).all()
    assert not pole[weight == 0].any() and not readout[weight == 0].any()
    assert (np.abs(pole - was)[weight == 1] > 1e-6).any()


def test_a_tuned_model_runs_on_the_ideal_chip_as_in_training():
    tuned = ssm.fine_tune(
        MODEL, (X, Y), epochs=1, precision=Precision(a=8, c=8, state=12, act=10),
        batch_size=16, device="cpu",
    )
    module = Trainable([tuned], Precision(state=12, act=10)).eval()
    module.calibrate(torch.as_tensor(X))
    run = deploy(tuned, IDEAL, "digital", calibrate=X).program().infer(X[:16])
    found = module(torch.as_tensor(X[:16]))[:, 0].detach().numpy()
    # registers have learned steps on the chip and calibrated ones here: 12 bits apart at most
    assert relative_error(run.logits, found) < 0.05


def test_errors_of_cells_spare_weights_that_have_none():
    chip = ChipSpec.preset("reram-wan2022")
    torch.manual_seed(0)
    module = Trainable([MODEL], None, OnChips([chip], 3600.0, read_errors=False), "leapfrog")
    layer = module.layers[1]
    noisy, exact = layer.system(True), layer.system(False)
    pair, alone = layer.pair[0], layer.alone[0]
    none = ~(pair | alone)
    matrix, readout, _ = ((a - b)[0].detach() for a, b in zip(noisy, exact, strict=True))
    assert (matrix[pair] != 0).any() and (readout[pair] != 0).all()
    assert not matrix[none].any() and not readout[none].any()
    # a real pole has one cell of A, the d of p, and one row of C
    assert (matrix[alone][:, 0, 0] != 0).all()
    assert not matrix[alone][:, 0, 1].abs().max() > 1e-6
    assert not matrix[alone][:, 1].abs().max() > 1e-6
    assert (readout[alone][:, 0] != 0).all() and not readout[alone][:, 1].any()
