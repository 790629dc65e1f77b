"""Noise summed at the column against noise drawn cell by cell: two implementations, one physics."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from aimc_sim.cards import DeviceSpec, ReadNoiseSpec
from aimc_sim.kernels.mvm import mvm_cells
from aimc_sim.matrix import map_matrix
from aimc_sim.randomness import Purpose, seed_words
from aimc_sim.specs import ChipSpec

pytestmark = pytest.mark.compiled

N = 31_250  # an error of 2 % of a sigma is seen at 5 sigma of the estimate
SIGMAS = 5.0
N_IN, N_OUT, SEED = 24, 10, 31


def spec_of(card, adc_bits="ideal"):
    """Return a preset's chip, or one of exact cells with loud noise: at a floor, at zero."""
    # all read noise is white, the one case in which a column sum is exact
    changes = {"adc.bits": adc_bits, "dac.bits": 6, "noise_in_time": "white"}
    changes["compensation"] = "none"
    if card not in ("floor", "zero"):
        return ChipSpec.preset(card).replace(**changes)
    noise = ReadNoiseSpec(
        sigma={"of": "r", "polynomial": [3.0], "unit_s": 1e-6}, relative=False, spectrum="white"
    )
    limits = {"g_min_s": 9e-6, "g_max_s": 88.2e-6, "floor_s": 9e-6, "ceiling_s": 88.2e-6}
    if card == "zero":
        limits = {"g_min_s": 0.0, "g_max_s": 25e-6}
    device = DeviceSpec(name=card, read_noise=noise, **limits)
    return ChipSpec(name=card, device=device).replace(**changes)


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
    """Return g (not clipped) and sigma of the plus and minus cells, and weight per siemens."""
    shape = matrix.array.tile.shape
    g = matrix.chip.slow().reshape(shape)[:, 0]
    sigma = matrix.chip.fast_sigma().reshape(shape)[:, 0]
    return g, sigma, matrix.mapped.scale[0, 0]


def clipped_moments(matrix):
    """Return exact mean and variance of `drive()` on the cells, by quadrature over each cell."""
    low, high = (float(limit) for limit in matrix.chip.limits_s)
    g, sigma, scale = cells_of(matrix)
    g, sigma = g.astype(float), sigma.astype(float)
    z = np.linspace(-9, 9, 20_001)
    share = stats.norm.pdf(z) * (z[1] - z[0])
    read = np.clip(g[..., None] + sigma[..., None] * z, low, high)
    mean = read @ share
    variance = (read - mean[..., None]) ** 2 @ share
    x = after_dac(drive())
    return x @ ((mean[0] - mean[1]) * scale), x**2 @ ((variance[0] + variance[1]) * scale**2)


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
        *matrix.chip.limits_s,
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


# gaussian: no cell's noise reaches a limit, so that a column's distribution is a normal's
@pytest.mark.parametrize(
    ("card", "gaussian"),
    [
        ("pcm-nandakumar2019", True),
        ("reram-wan2022", True),
        ("cmo-hfox", False),
        ("floor", False),
        ("zero", False),
    ],
)
def test_both_ways_have_the_exact_mean_and_variance_and_the_same_distribution(card, gaussian):
    matrix = programmed(card)
    mean, variance = clipped_moments(matrix)
    columns, cells = drawn_per_column(matrix), drawn_per_cell(matrix)
    fourth = stats.kurtosis(cells, axis=0)
    for y in (columns, cells):
        assert (abs(y.mean(axis=0) - mean) < SIGMAS * np.sqrt(variance / N) + 1e-5).all()
        error = np.sqrt((2 + np.maximum(fourth, 0)) / N)
        assert (abs(y.var(axis=0) / variance - 1) < SIGMAS * error).all()
    for j in range(N_OUT):
        normal = stats.kstest((columns[:, j] - mean[j]) / np.sqrt(variance[j]), "norm")
        assert normal.pvalue > 1e-4
        if gaussian:
            assert stats.kstest(columns[:, j], cells[:, j]).pvalue > 1e-4
        else:  # a sum of clipped noise is Gaussian to two moments only
            assert stats.kstest(columns[:, j], cells[:, j]).statistic < 0.05


@pytest.mark.parametrize("card", ["cmo-hfox", "floor", "zero"])
def test_a_cell_at_a_limit_is_read_off_it_and_with_less_noise(card):
    matrix = programmed(card)
    low, high = matrix.chip.limits_s
    g, sigma = matrix.chip.slow(), matrix.chip.fast_sigma()
    reads = matrix.chip.expected()
    mean, variance = reads.mean_s, reads.variance
    near = 3 * sigma  # farther out, a read in float32 finds the limit itself
    at_floor, at_ceiling = (g <= low) & (g > low - near), (g >= high) & (g < high + near)
    assert at_floor.sum() > 10 and at_ceiling.any() == np.isfinite(high)
    assert (mean[at_floor] > low).all() and (mean[at_ceiling] < high).all()
    close = at_floor | at_ceiling
    assert (variance[close] < 0.5 * sigma[close] ** 2).all()
    assert (mean >= low).all() and (mean <= high).all()


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
