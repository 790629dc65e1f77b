"""A model whose weights lie on several cells each: the same model, to its rounding."""

from __future__ import annotations

import numpy as np
import pytest
from small_models import IDEAL, PCM, random_input, random_model, relative_error

import ssm
from aimc_sim.errors import CapacityError

pytestmark = pytest.mark.compiled
GROUPED = {
    "tile.idle": "g_min", "tile.drive": "parallel",
    "short_tile.idle": "g_min", "short_tile.drive": "parallel",
}


def deployed(spec, form="leapfrog", **options):
    return ssm.deploy(random_model(seed=3), spec, form, calibrate=random_input(4, 3, 20), **options)


@pytest.mark.parametrize("form", ["leapfrog", "delta", "direct"])
@pytest.mark.parametrize("layout", [{}, {**GROUPED, "short_tile.rows": 8}], ids=["packed", "idle"])
def test_every_weight_of_the_network_is_within_half_a_step(form, layout):
    spec = IDEAL.replace(levels=5, slices=3, cells_per_weight=2, **layout)
    d = deployed(spec, form, digital=("encoder",))
    assert d.weights.plus.shape == (6, d.weights.exact.size)
    programmed = d.program()
    found = programmed._static_weights(0, np.ones(d.weights.exact.size, np.float32))
    span = spec.device.g_max_s - spec.device.g_min_s
    step = d.weights.scale.sum(axis=0) * span / (5**3 - 1)
    error = np.abs(found - d.weights.exact)
    assert (error <= step / 2 + 1e-6 * step * 125).all()
    assert (error[d.weights.plus[0] < 0] == 0).all()  # the encoder is digital, hence exact
    # the sum over 125 steps is not the identity by accident
    assert (error > step / 10)[d.weights.exact != 0].mean() > 0.3


@pytest.mark.parametrize("form", ["leapfrog", "delta"])
def test_ideal_cells_in_parallel_answer_as_the_float_model(form):
    x = random_input(4, 3, 60)
    model = random_model(seed=3)
    spec = IDEAL.replace(cells_per_weight=3, **{"dac.bits": "ideal", "adc.bits": "ideal"})
    logits = ssm.deploy(model, spec, form, calibrate=x).program().infer(x).logits
    assert relative_error(logits, model.logits(x)) < 1e-5


def test_every_cell_of_the_layout_is_read_by_one_weight():
    spec = IDEAL.replace(levels=5, slices=2, cells_per_weight=2)
    for form in ("leapfrog", "delta"):
        d = deployed(spec, form)
        cells = np.concatenate([d.weights.plus.ravel(), d.weights.minus.ravel()])
        cells = np.sort(cells[cells >= 0])
        np.testing.assert_array_equal(cells, np.arange(d.layout.n_cells))
        compensated = np.sort(np.concatenate([own for own, _ in d.compensated]))
        np.testing.assert_array_equal(compensated, np.arange(d.layout.n_cells))


def test_global_compensation_takes_the_cells_of_all_pieces():
    spec = PCM.replace(cells_per_weight=2, compensation="global")
    x = random_input(4, 3, 40)
    model = random_model(seed=3)
    d = ssm.deploy(model, spec, calibrate=x)
    errors = []
    for kind in ("global", "none"):
        spec = d.spec.replace(compensation=kind)
        programmed = ssm.deploy(model, spec, calibrate=x).program(seed=1).wait(86400.0)
        errors.append(relative_error(programmed.infer(x).logits, model.logits(x)))
    assert errors[0] < 0.5 * errors[1]


def test_blocks_of_a_that_no_longer_fit_their_tile_are_refused():
    with pytest.raises(CapacityError, match=r"Map 'layer 0 A'\. A block of 2 x 24 cells"):
        deployed(IDEAL.replace(levels=4, slices=4, cells_per_weight=3, **{"short_tile.cols": 23}))


def test_a_model_without_any_cell_is_programmed_like_any_other():
    x = random_input(4, 3, 40)
    model = random_model(seed=3)
    ideal = {"dac.bits": "ideal", "adc.bits": "ideal", "state_bits": "ideal"}
    spec = PCM.replace(faults={"stuck_low": 0.5}, **ideal)
    parts = ("encoder", "readout", "mixing", "decoder")
    programmed = ssm.deploy(model, spec, "digital", digital=parts, calibrate=x).program(chips=2)
    assert programmed.chip.n_cells == 0
    for logits in programmed.wait(3600.0).infer(x).logits:
        assert relative_error(logits, model.logits(x)) < 1e-5
