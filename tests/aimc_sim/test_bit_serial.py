"""Inputs that come bit by bit: of the rows of a plane only those that are driven are summed."""

from __future__ import annotations

import numpy as np
import pytest

from aimc_sim.kernels.matrix import list_rows, sum_rows
from aimc_sim.matrix import map_matrix
from aimc_sim.specs import ChipSpec

SERIAL = {"dac.bits": 8, "dac.mode": "bit_serial"}
SPECS = {
    "exact": ChipSpec.preset("ideal").replace(**SERIAL, **{"adc.bits": 8}),
    "noisy": ChipSpec.preset("reram-wan2022").replace(**SERIAL),
    "parts": ChipSpec.preset("reram-wan2022").replace(
        **SERIAL, **{"tile.rows": 48, "tile.cols": 60}
    ),
    "DAC errors": ChipSpec.preset("reram-wan2022").replace(
        **SERIAL, **{"dac.offset_lsb": 0.3, "dac.noise_lsb": 0.2}
    ),
}


def listed(x, first=0):
    rows = np.full(len(x) + 8, -1, np.int32)
    values, squares = np.full((2, len(x) + 8), np.nan, np.float32)
    return list_rows(x, first, rows, values, squares), rows, values, squares


@pytest.mark.compiled
@pytest.mark.parametrize("n_in", [1, 7, 8, 9, 100, 256])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.4, 1.0])
def test_summing_the_driven_rows_gives_product_and_variance(n_in, share):
    """Against float64, to the 1e-4 that the variance of a read may be off, and far below."""
    rng = np.random.default_rng(n_in)
    x = (rng.choice([-1.0, 1.0], n_in) * (rng.random(n_in) < share)).astype(np.float32)
    x[x == 0] *= rng.choice([-1, 1])  # a zero may carry a sign
    x *= rng.uniform(0.5, 1.5, n_in).astype(np.float32)
    first = 3
    w = rng.standard_normal((first + n_in, 37)).astype(np.float32)
    v = w * w
    n, rows, values, squares = listed(x, first)
    driven = np.flatnonzero(x)
    assert n == -(-len(driven) // 8) * 8
    np.testing.assert_array_equal(rows[: len(driven)], first + driven)
    for each, cells, wanted in (
        (values, w, x.astype(float) @ w[first:].astype(float)),
        (squares, v, x.astype(float) ** 2 @ v[first:].astype(float)),
    ):
        y = np.zeros(37, np.float32)
        sum_rows(rows, each, n, cells, y)
        scale = np.abs(x) @ np.abs(w[first:]) if each is values else wanted
        assert (np.abs(y - wanted) <= 1e-6 * scale).all()


@pytest.mark.compiled
@pytest.mark.parametrize("name", SPECS)
def test_a_batch_is_its_vectors(name):
    """ADCs may fall to the other side of a step where sums are rounded in another order."""
    rng = np.random.default_rng(5)
    w, x = rng.standard_normal((100, 70)), rng.standard_normal((35, 100)).astype(np.float32)
    a = map_matrix(w, SPECS[name]).program(seed=3)
    whole = a.mvm(x, first_read=2)
    single = np.concatenate([a.mvm(x[k : k + 5], first_read=2 + k) for k in range(0, 35, 5)])
    step = 64 * (a.mapped.adc_range / (2 ** (SPECS[name].adc.bits - 1) - 1)).max()
    full = np.abs(x).max(axis=1, keepdims=True)
    assert np.isclose(single, whole, rtol=1e-5, atol=1e-5).mean() > 0.998
    assert (np.abs(single - whole) <= 1.01 * step * full).all()
