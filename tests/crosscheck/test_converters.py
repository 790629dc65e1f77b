"""DAC and ADC against the same arithmetic in numpy, code by code."""

from __future__ import annotations

import numpy as np
import pytest

from aimc_sim.converters import converter_limit
from aimc_sim.kernels.converters import quantise, round_whole
from aimc_sim.matrix import map_matrix
from aimc_sim.specs import ChipSpec


def exact_cells(*, dac="ideal", adc="ideal", rows=256, **more):
    return ChipSpec.preset("ideal").replace(
        **{"dac.bits": dac, "adc.bits": adc, "tile.rows": rows, **more}
    )


def single(value):
    return np.float32(value)


@pytest.mark.parametrize(
    ("bits", "limit"), [("ideal", 0), (1, 1), (2, 1), (3, 3), (4, 7), (8, 127), (16, 32767)]
)
def test_a_symmetric_converter_of_b_bits_counts_to_two_to_the_b_minus_one_less_one(bits, limit):
    assert converter_limit(bits) == limit


def test_whole_numbers_are_the_nearest_with_ties_to_even():
    values = [0.0, 0.49, 0.5, 0.51, 1.5, 2.5, -0.5, -1.5, -2.5, 3.4999998, 1e6 + 0.5, 4194303.0]
    for value in np.array(values, np.float32):
        assert round_whole(value) == np.rint(value), value


@pytest.mark.parametrize("limit", [1, 7, 127, 32767])
def test_a_quantised_value_is_the_nearest_code_clipped_at_full_scale(limit):
    step = np.float32(1.0 / limit)
    sweep = np.random.default_rng(0).uniform(-1.3, 1.3, 200)
    for value in np.array([*sweep, 0.0, 1.0, -1.0, 5.0, -5.0, 1e30, -1e30], np.float32):
        code = np.rint(np.clip(value * np.float32(limit), -limit, limit))
        found = quantise(value, step, single(limit), single(limit))
        assert found == pytest.approx(code * step, rel=1e-6), value


def test_an_infinite_signal_saturates():
    for value in (np.inf, -np.inf):
        assert quantise(single(value), single(1), single(1), single(7)) == np.sign(value) * 7


def test_a_signal_that_is_no_number_stays_none():
    assert np.isnan(quantise(single(np.nan), single(1), single(1), single(7)))


def codes_and_doubt(values, limit):
    """Return the codes of values in steps, and where rounding error may move them by one."""
    clipped = np.clip(values, -limit, limit)
    near_tie = abs(abs(clipped - np.trunc(clipped)) - 0.5) < 1e-3
    return np.rint(clipped), near_tie


@pytest.mark.parametrize("batch", [3, 20])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_inputs_reach_the_rows_as_the_nearest_dac_code(bits, batch):
    n = 6
    matrix = map_matrix(np.eye(n), exact_cells(dac=bits)).program()
    x = np.random.default_rng(bits).uniform(-3, 3, (batch, n))
    scale = np.abs(x).max(axis=1, keepdims=True)
    limit = float(converter_limit(bits))
    codes, near_tie = codes_and_doubt(x / scale * limit, limit)
    found = matrix.mvm(x) / scale * limit
    np.testing.assert_allclose(found[~near_tie], codes[~near_tie], atol=1e-4)
    assert near_tie.mean() < 0.1


@pytest.mark.parametrize("batch", [3, 20])
def test_a_calibrated_dac_has_one_range_and_clips_beyond_it(batch):
    calibrate = np.array([[0.5, -2.0], [1.0, 0.25]])
    matrix = map_matrix(np.eye(2), exact_cells(dac=8), calibrate).program()
    x = np.tile([[5.0, -0.3]], (batch, 1))
    np.testing.assert_allclose(
        matrix.mvm(x), np.tile([[2.0, -19 * 2 / 127]], (batch, 1)), rtol=1e-6
    )


@pytest.mark.parametrize("batch", [5, 24])
@pytest.mark.parametrize("headroom", [1.0, 1.5])
@pytest.mark.parametrize("rows", [256, 8])
def test_outputs_are_the_nearest_adc_codes_of_every_row_part(rows, headroom, batch):
    rng = np.random.default_rng(rows)
    w, x = rng.standard_normal((20, 7)), rng.standard_normal((batch, 20))
    spec = exact_cells(adc=6, rows=rows, **{"adc.headroom": headroom})
    mapped = map_matrix(w, spec, x)
    full, limit = np.abs(x).max(), 31
    expected, doubt = np.zeros((batch, 7)), np.zeros((batch, 7), bool)
    for part, row in enumerate(range(0, 20, rows)):
        y = x[:, row : row + rows] @ w[row : row + rows]
        reach = np.abs(y).max(axis=0) * headroom
        np.testing.assert_allclose(mapped.adc_range[part], reach / full)
        codes, near_tie = codes_and_doubt(y / reach * limit, limit)
        expected += codes * reach / limit
        doubt |= near_tie
    found = mapped.program().mvm(x)
    np.testing.assert_allclose(found[~doubt], expected[~doubt], atol=1e-4)
    assert doubt.mean() < 0.1


def test_an_adc_saturates_at_its_calibrated_range():
    matrix = map_matrix([[1.0], [1.0]], exact_cells(adc=4), [[1.0, 0.5]]).program()
    np.testing.assert_allclose(matrix.mvm([[1.0, 1.0], [-1.0, -1.0]]), [[1.5], [-1.5]], rtol=1e-6)


@pytest.mark.compiled
@pytest.mark.parametrize("converter", ["dac", "adc"])
def test_more_bits_are_never_worse(converter):
    rng = np.random.default_rng(3)
    w, x = rng.standard_normal((64, 32)), rng.standard_normal((500, 64))
    exact = x @ w
    errors = []
    for bits in (*range(2, 13), "ideal"):
        found = map_matrix(w, exact_cells(**{converter: bits}), x).program().mvm(x)
        errors.append(float(np.sqrt(((found - exact) ** 2).mean())))
    errors = np.array(errors)
    assert (errors[1:] <= errors[:-1]).all(), errors
    # from 4 bits on the error is that of rounding: it halves with every bit
    assert (errors[3:-1] < 0.6 * errors[2:-2]).all(), errors


@pytest.mark.compiled
def test_integer_inputs_on_a_tie_take_the_same_code_at_any_batch_size():
    rng = np.random.default_rng(4)
    w = rng.standard_normal((64, 8))
    matrix = map_matrix(w, exact_cells(dac=8)).program()
    for top in (3.0, 10.0, 254.0):
        x = rng.integers(-254, 255, (32, 64)) * top / 254
        x[:, 0] = top
        whole = matrix.mvm(x)
        parts = np.concatenate([matrix.mvm(x[k : k + 4]) for k in range(0, 32, 4)])
        np.testing.assert_allclose(parts, whole, atol=2e-5 * top * 64**0.5)
