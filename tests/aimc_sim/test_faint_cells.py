"""Cells that all but do not conduct read as finite numbers."""

from __future__ import annotations

import numpy as np
import pytest

from aimc_sim.kernels.moving import NO_TELEGRAPH
from aimc_sim.kernels.noise import expect_reads


@pytest.mark.parametrize("sigma", [1e-23, 1e-21, 1e-20, 1e-19, 1e-18, 1e-12])
def test_a_cell_next_to_zero_conductance_reads_as_a_number(sigma):
    """Squares below 1.2e-38 are subnormal in float32, and their reciprocals infinite."""
    n = 64
    base, noise = np.full(n, sigma / 2, np.float32), np.full(n, sigma, np.float32)
    none = np.zeros(n, np.float32)
    mean, variance, moving = (np.empty(n, np.float32) for _ in range(3))
    f = np.float32
    expect_reads(
        base, noise, none, f(1), f(0), f(0), f(1e-4), NO_TELEGRAPH, mean, variance, moving,
        np.zeros(0, np.float32),
    )
    for found in (mean, variance, moving):
        assert np.isfinite(found).all()
    assert (variance <= f(sigma) ** 2).all() and (mean >= base).all()
    if sigma > 1e-18:  # half of sigma above the limit: E[max(x, 0)] of a normal
        assert mean[0] / sigma == pytest.approx(0.5 * 0.69146 + 0.35207, rel=1e-4)
