"""The number of threads changes nothing, not one bit."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from aimc_sim.kernels.mvm import mvm_cells
from aimc_sim.matrix import map_matrix
from aimc_sim.randomness import Purpose, seed_words
from aimc_sim.specs import ChipSpec

pytestmark = pytest.mark.compiled


def on_threads(count, run):
    before = numba.get_num_threads()
    numba.set_num_threads(count)
    try:
        return run()
    finally:
        numba.set_num_threads(before)


@pytest.fixture(autouse=True)
def two_threads():
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("numba was started with one thread")


@pytest.mark.parametrize("batch", [7, 64])
@pytest.mark.parametrize("mode", ["amplitude", "bit_serial"])
@pytest.mark.parametrize("card", ["pcm-nandakumar2019", "reram-wan2022", "cmo-hfox"])
def test_one_and_two_threads_give_the_same_bits(card, mode, batch):
    rng = np.random.default_rng(0)
    w, x = rng.standard_normal((70, 33)), rng.standard_normal((batch, 70))
    spec = ChipSpec.preset(card).replace(**{"tile.rows": 32, "dac.mode": mode})

    def run():
        return map_matrix(w, spec).program(seed=5).wait(60.0).mvm(x)

    np.testing.assert_array_equal(on_threads(1, run), on_threads(2, run))


def test_the_per_cell_oracle_gives_the_same_bits_on_one_and_two_threads():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((9, 5)).astype(np.float32)
    g = rng.random((4, 5, 3)).astype(np.float32)
    scale, seeds = np.ones(3, np.float32), np.array(seed_words(3))

    def run():
        out = np.empty((9, 3), np.float32)
        limits = np.float32(0.2), np.float32(0.9)
        mvm_cells(x, *g, *limits, scale, seeds, int(Purpose.READ_CELL), 0, 0, out)
        return out

    np.testing.assert_array_equal(on_threads(1, run), on_threads(2, run))
