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
    found = map_matrix(w, spec).program(seed).mvm(x)
    reach = np.abs(x).sum(axis=1).max() * np.abs(w).max()
    np.testing.assert_allclose(found, x @ w, atol=2e-6 * reach)
