"""A model on a chip with faults: the cells that the kernel reads are the chip's."""

from __future__ import annotations

import numpy as np
import pytest
from small_models import random_input, random_model

import ssm
from aimc_sim.faults import UNCONNECTED
from aimc_sim.specs import ChipSpec

pytestmark = pytest.mark.compiled
CMO = ChipSpec.preset("cmo-hfox")  # no read finds less than 9 uS, but of an open line
RATES = {"stuck_low": 0.05, "stuck_high": 0.05, "dead_rows": 0.1, "dead_cols": 0.1}


@pytest.mark.parametrize("form", ["leapfrog", "delta"])
def test_weights_are_those_of_the_cells_as_they_are(form):
    spec = CMO.replace(faults=RATES, cells_per_weight=2)
    d = ssm.deploy(random_model(seed=3), spec, form, calibrate=random_input(4, 3, 20))
    programmed = d.program(seed=2, chips=3).wait(3600.0)
    chip, weights = programmed.chip, d.weights
    for replica in range(3):
        codes = chip.written.faults[replica]
        g = np.clip(chip.aged()[replica].astype(float), *chip.limits_s)
        g[codes == UNCONNECTED] = 0.0
        assert (codes == UNCONNECTED).mean() > 0.05
        minus = np.where(weights.minus < 0, spec.device.g_min_s, g[weights.minus])
        expected = (weights.scale.astype(float) * (g[weights.plus] - minus)).sum(axis=0)
        found = programmed._static_weights(replica, np.ones(weights.exact.size, np.float32))
        scale = np.abs(weights.exact).max()
        np.testing.assert_allclose(found, expected, atol=1e-6 * scale)


@pytest.mark.parametrize("noise_in_time", ["white", "frozen", "split"])
def test_a_chip_whose_lines_are_all_dead_reads_zero_without_noise(noise_in_time):
    spec = CMO.replace(
        faults={"dead_rows": 1.0}, noise_in_time=noise_in_time,
        **{"dac.bits": "ideal", "adc.bits": "ideal"},
    )
    model = random_model(seed=3)
    d = ssm.deploy(model, spec, "delta", calibrate=random_input(4, 3, 20))
    programmed = d.program(seed=2).wait(3600.0)
    logits = programmed.infer(random_input(5, 4, 30)).logits
    # whatever comes in, the decoder has no current: what is left are its biases
    np.testing.assert_array_equal(logits, np.tile(np.float32(model.decoder_bias), (4, 1)))


def test_a_chip_answers_alike_alone_and_among_others():
    spec = CMO.replace(faults=RATES)
    d = ssm.deploy(random_model(seed=3), spec, calibrate=random_input(4, 3, 20))
    x = random_input(5, 4, 30)
    together = d.program(seed=2, chips=3).wait(60.0).infer(x).logits
    alone = d.program(seed=2, first_chip=2).wait(60.0).infer(x).logits
    np.testing.assert_array_equal(together[2], alone)
    y, state = None, None
    programmed = d.program(seed=2).wait(60.0)
    for k in range(x.shape[1]):
        y, state = programmed.step(x[:, k], state)
    np.testing.assert_array_equal(y, together[0])
