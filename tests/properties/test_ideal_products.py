"""On the chip without errors a product is a product, whatever the tiles."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from aimc_sim.matrix import map_matrix
from aimc_sim.specs import ChipSpec


@settings(derandomize=True, deadline=None, max_examples=40, database=None)
@given(
    n_in=st.integers(1, 30),
    n_out=st.integers(1, 12),
    batch=st.sampled_from([1, 2, 15, 16, 17]),
    rows=st.integers(1, 40),
    cols=st.integers(2, 40),
    per=st.sampled_from(["column", "block"]),
    complex_w=st.booleans(),
    complex_x=st.booleans(),
    magnitude=st.integers(-6, 6),
    seed=st.integers(0, 1000),
)
def test_the_ideal_chip_multiplies_exactly(
    n_in, n_out, batch, rows, cols, per, complex_w, complex_x, magnitude, seed
):
    rng = np.random.default_rng(seed)
    w, x = rng.standard_normal((n_in, n_out)), rng.standard_normal((batch, n_in))
    w = w + 1j * rng.standard_normal(w.shape) if complex_w else w
    x = x + 1j * rng.standard_normal(x.shape) if complex_w and complex_x else x
    w, x = w * 10.0**magnitude, x * 10.0**-magnitude
    spec = ChipSpec.preset("ideal").replace(
        **{"tile.rows": rows, "tile.cols": cols}, weight_scale=per
    )
    a = map_matrix(w, spec).program(seed)
    reach = np.abs(x).sum(axis=1).max() * np.abs(w).max()
    np.testing.assert_allclose(a.mvm(x), x @ w, atol=2e-6 * reach)
    z = rng.standard_normal((batch, n_out)) * 10.0**-magnitude
    z = z + 1j * z[:, ::-1] if complex_w and complex_x else z
    reach = np.abs(z).sum(axis=1).max() * np.abs(w).max()
    np.testing.assert_allclose(a.T.mvm(z), z @ w.T, atol=2e-6 * reach)


@settings(derandomize=True, deadline=None, max_examples=30, database=None)
@given(
    n_in=st.integers(1, 30),
    n_out=st.integers(1, 8),
    rows=st.integers(1, 12),
    cols=st.integers(12, 24),
    levels=st.integers(2, 9),
    slices=st.integers(1, 3),
    cells=st.integers(1, 2),
    seed=st.integers(0, 1000),
)
def test_weights_on_levels_multiply_as_whole_numbers_on_the_ideal_chip(
    n_in, n_out, rows, cols, levels, slices, cells, seed
):
    """Products of whole numbers, exact but for float32: weights a whole number of steps."""
    rng = np.random.default_rng(seed)
    steps = levels**slices - 1
    w = rng.integers(-steps, steps + 1, (n_in, n_out)).astype(float)
    w[0] = steps  # so that a step of every column is one
    x, z = (rng.integers(-7, 8, (3, n)).astype(float) for n in (n_in, n_out))
    spec = ChipSpec.preset("ideal").replace(
        **{"tile.rows": rows, "tile.cols": cols}, levels=levels, slices=slices,
        cells_per_weight=cells,
    )
    a = map_matrix(w, spec).program(seed)
    for found, exact in ((x @ a, x @ w), (z @ a.T, z @ w.T)):
        np.testing.assert_array_equal(np.rint(found), exact)
