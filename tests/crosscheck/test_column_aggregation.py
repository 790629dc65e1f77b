"""Noise summed at the column against noise drawn cell by cell: two implementations, one physics."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from aimc_sim.kernels.mvm import mvm_cells
from aimc_sim.matrix import map_matrix
from aimc_sim.randomness import Purpose, seed_words
from aimc_sim.specs import ChipSpec

pytestmark = pytest.mark.compiled

N = 31_250  # an error of 2 % of a sigma is seen at 5 sigma of the estimate
SIGMAS = 5.0
N_IN, N_OUT, SEED = 24, 10, 31


def spec_of(card, adc_bits="ideal"):
    # all read noise is white, the one case in which a column sum is exact
    return ChipSpec.preset(card).replace(
        **{"adc.bits": adc_bits, "dac.bits": 6}, noise_in_time="white", compensation="none"
    )


def drive():
    """One input vector whose largest element is its full scale."""
    x = np.random.default_rng(2).uniform(-1, 1, N_IN)
    return x / np.abs(x).max()


def after_dac(x, bits=6):
    limit = 2 ** (bits - 1) - 1
    return np.rint(x * limit) / limit


def programmed(card, adc_bits="ideal"):
    rng = np.random.default_rng(1)
    w = rng.standard_normal((N_IN, N_OUT))
    calibrate = np.stack([drive(), *rng.uniform(-1, 1, (63, N_IN))])
    calibrate /= np.abs(calibrate).max(axis=1, keepdims=True)
    return map_matrix(w, spec_of(card, adc_bits), calibrate).program(SEED).wait(3600.0)


def cells_of(matrix):
    """Return g and sigma of the plus and minus cells, and weight per siemens."""
    shape = matrix.array.tile.shape
    g = matrix.chip.read().reshape(shape)[:, 0]
    sigma = matrix.chip.fast_sigma().reshape(shape)[:, 0]
    return g, sigma, matrix.mapped.scale[0, 0]


def drawn_per_cell(matrix):
    """Return N reads of `drive()` with a draw for every cell, before the ADC: (N, N_OUT)."""
    g, sigma, scale = cells_of(matrix)
    x = np.tile(after_dac(drive()).astype(np.float32), (N, 1))
    out = np.empty((N, N_OUT), np.float32)
    mvm_cells(
        x,
        g[0],
        g[1],
        sigma[0],
        sigma[1],
        scale.astype(np.float32),
        np.array(seed_words(SEED)),
        int(Purpose.READ_CELL),
        0,
        0,
        out,
    )
    return out.astype(float)


def drawn_per_column(matrix):
    return matrix.mvm(np.tile(drive(), (N, 1))).astype(float)


@pytest.mark.parametrize("card", ["pcm-nandakumar2019", "reram-wan2022", "cmo-hfox"])
def test_both_ways_have_the_exact_mean_and_variance_and_the_same_distribution(card):
    matrix = programmed(card)
    g, sigma, scale = cells_of(matrix)
    x = after_dac(drive())
    mean = x @ ((g[0].astype(float) - g[1]) * scale)
    variance = x**2 @ ((sigma[0].astype(float) ** 2 + sigma[1].astype(float) ** 2) * scale**2)
    columns, cells = drawn_per_column(matrix), drawn_per_cell(matrix)
    for y in (columns, cells):
        assert (abs(y.mean(axis=0) - mean) < SIGMAS * np.sqrt(variance / N) + 1e-5).all()
        assert (abs(y.var(axis=0) / variance - 1) < SIGMAS * np.sqrt(2 / N)).all()
    for j in range(N_OUT):
        assert stats.kstest(columns[:, j], cells[:, j]).pvalue > 1e-4
        assert stats.kstest((columns[:, j] - mean[j]) / np.sqrt(variance[j]), "norm").pvalue > 1e-4


def test_noise_of_different_columns_and_of_successive_reads_is_independent():
    y = drawn_per_column(programmed("reram-wan2022"))
    correlation = np.corrcoef(y.T) - np.eye(N_OUT)
    assert abs(correlation).max() < SIGMAS / np.sqrt(N)
    for column in (y - y.mean(axis=0)).T:
        assert abs(np.corrcoef(column[:-1], column[1:])[0, 1]) < SIGMAS / np.sqrt(N)


def test_both_ways_give_the_same_codes_behind_an_adc():
    matrix = programmed("pcm-nandakumar2019", adc_bits=6)
    step = matrix.mapped.adc_range[0] / 31
    cells = np.clip(np.rint(drawn_per_cell(matrix) / step), -31, 31)
    columns = drawn_per_column(matrix) / step
    np.testing.assert_allclose(columns, np.rint(columns), atol=1e-4)
    for j in range(N_OUT):
        ours, oracle = np.rint(columns[:, j]), cells[:, j]
        assert len(np.unique(oracle)) > 2
        error = np.sqrt((ours.var() + oracle.var()) / N)
        assert abs(ours.mean() - oracle.mean()) < SIGMAS * error
        codes = np.union1d(ours, oracle)
        table = np.array([[(y == code).sum() for code in codes] for y in (ours, oracle)])
        table = table[:, table.sum(axis=0) >= 20]
        assert stats.chi2_contingency(table).pvalue > 1e-4


def test_thermal_noise_of_the_adc_adds_to_that_of_the_cells():
    quiet = programmed("reram-wan2022", adc_bits=16)
    loud = spec_of("reram-wan2022", adc_bits=16).replace(**{"adc.noise_lsb": 64.0})
    x = drive()
    loud_matrix = map_matrix(quiet.mapped.w, loud, np.tile(x, (2, 1))).program(SEED).wait(3600.0)
    _, sigma, scale = cells_of(loud_matrix)
    noise = x**2 @ ((sigma[0].astype(float) ** 2 + sigma[1].astype(float) ** 2) * scale**2)
    step = loud_matrix.mapped.adc_range[0] / 32767
    y = loud_matrix.mvm(np.tile(x / 2, (N, 1))).astype(float)
    expected = noise / 4 + (64 * step) ** 2
    # programming errors may push a column over the end of its range: those clip, and are left out
    full = loud_matrix.mapped.adc_range[0] * np.abs(x).max()
    inside = np.abs(y.mean(axis=0)) + 6 * np.sqrt(y.var(axis=0)) < full
    assert inside.sum() >= N_OUT // 2
    spread = y.var(axis=0)[inside] / expected[inside]
    assert (abs(spread - 1) < SIGMAS * np.sqrt(2 / N) + 5e-3).all()
