"""The committed models of spoken digits load anywhere, and are right where the data are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import ssm
from aimc_sim.specs import ChipSpec

MODELS = Path(__file__).parents[2] / "examples" / "models"
FLOAT, TUNED = MODELS / "s4d-fsdd.safetensors", MODELS / "s4d-fsdd-w3a4-a6x5.safetensors"


@pytest.fixture(scope="module")
def spoken(shared):
    return ssm.load_task("fsdd", shared / "data" / "datasets")


@pytest.mark.parametrize("path", [FLOAT, TUNED], ids=lambda path: path.stem)
def test_the_models_are_small_and_say_what_they_are_for(path):
    assert path.stat().st_size < 50_000
    model = ssm.load(path)
    assert (model.task, model.name) == ("fsdd", path.stem)
    assert (model.d_input, model.n_heads, model.n_layers, model.n_classes) == (32, 32, 1, 10)
    assert all((np.abs(layer.pole) < 1).all() for layer in model.layers)


def test_the_float_model_tells_spoken_digits_apart(spoken):
    """298 of 300, as its training printed; one clip may fall to the other side elsewhere."""
    logits = ssm.load(FLOAT).logits(spoken.x_test)
    assert (logits.argmax(axis=1) == spoken.y_test).sum() == pytest.approx(298, abs=1)


@pytest.mark.compiled
def test_training_rounded_gave_back_what_rounding_takes(spoken):
    """Error-free cells: 294 of 300 against 206; five standard errors of the difference are 40."""
    tuned = ssm.load(TUNED)
    bits = ssm.Precision(**tuned.precision)
    right = []
    for model in (tuned, ssm.quantize(ssm.load(FLOAT), bits)):
        chip = ssm.deploy(
            model, ChipSpec.preset("ideal"), "digital", calibrate=spoken.calibration(256)
        )
        answers = chip.program(0).infer(spoken.x_test).logits.argmax(axis=1)
        right.append(int((answers == spoken.y_test).sum()))
    assert right[0] == pytest.approx(294, abs=3)
    assert right[0] > right[1] + 40
