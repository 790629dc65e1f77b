"""Enough bits and no noise give the integer product itself, whatever the tiles and the inputs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aimc_sim.converters import converter_limit
from aimc_sim.matrix import map_matrix
from aimc_sim.specs import ChipSpec


@settings(derandomize=True, deadline=None, max_examples=60, database=None)
@given(
    n_in=st.integers(1, 30),
    n_out=st.integers(1, 12),
    batch=st.sampled_from([1, 3, 15, 16, 17]),
    rows=st.integers(1, 40),
    cols=st.integers(2, 40),
    bits=st.integers(1, 6),
    largest=st.integers(1, 7),
    positive=st.booleans(),
    mode=st.sampled_from(["amplitude", "pulse_width", "bit_serial"]),
    seed=st.integers(0, 1000),
)
def test_enough_bits_and_no_noise_give_the_integer_product(
    n_in, n_out, batch, rows, cols, bits, largest, positive, mode, seed
):
    rng = np.random.default_rng(seed)
    limit = int(converter_limit(bits))
    w = rng.integers(0 if positive else -largest, largest + 1, (n_in, n_out))
    w[0, 0] = largest
    x = rng.integers(0 if positive else -limit, limit + 1, (batch, n_in))
    x[:, 0] = limit
    # a step of the ADC is one: the range of 32767 codes in currents of the largest weight,
    # driven with the largest code, or bit by bit with one
    driven = 1 if mode == "bit_serial" else limit
    spec = ChipSpec.preset("ideal").replace(
        **{"dac.bits": bits, "dac.mode": mode, "adc.bits": 16,
           "adc.range": 32767 / (largest * driven), "tile.rows": rows, "tile.cols": cols},
        weight_scale="block",
    )
    found = map_matrix(w, spec).program(seed).mvm(x)
    np.testing.assert_array_equal(np.rint(found), x @ w)
    # what is left is the rounding of float32, in the step and in its product with the code
    np.testing.assert_allclose(found, x @ w, rtol=1e-5, atol=1e-5)


@pytest.mark.compiled
@pytest.mark.parametrize("mode", ["amplitude", "bit_serial"])
@pytest.mark.parametrize("converter", ["dac", "adc"])
def test_more_bits_are_never_worse_on_average_over_matrices(converter, mode):
    errors = {bits: [] for bits in (4, 5, 6, 7, 8, 10)}
    for seed in range(20):
        rng = np.random.default_rng(seed)
        w = rng.standard_normal((rng.integers(3, 40), 5))
        x = rng.standard_normal((40, len(w)))
        for bits, found in errors.items():
            changes = {"dac.bits": 12, "adc.bits": 14, "dac.mode": mode, "tile.rows": 24}
            spec = ChipSpec.preset("ideal").replace(**changes | {f"{converter}.bits": bits})
            y = map_matrix(w, spec, x).program(seed).mvm(x)
            found.append(np.sqrt(((y - x @ w) ** 2).mean()))
    means = np.array([np.mean(found) for found in errors.values()])
    spread = np.array([np.std(found) for found in errors.values()]) / 20**0.5
    # no step is up by more than 3 standard errors, and the error as a whole falls
    assert (np.diff(means) < 3 * spread[1:]).all(), means
    assert means[-1] < 0.1 * means[0], means
