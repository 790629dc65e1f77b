"""Converters of a chip: tables, drawn errors, ranges and single bits, against exact arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

from aimc_sim.converters import BINS, converter_limit, draw_periphery, histograms, range_of
from aimc_sim.converters import inl_table as table_of
from aimc_sim.errors import InputError
from aimc_sim.kernels.converters import approximate
from aimc_sim.matrix import map_matrix
from aimc_sim.randomness import seed_words
from aimc_sim.specs import AdcSpec, ChipSpec, DacSpec

IDEAL = ChipSpec.preset("ideal")
LIMIT = np.float32(127)


def chip(**changes):
    return IDEAL.replace(**{"dac.bits": 8, "adc.bits": 8, **changes})


def drawn(spec, tile, col, *, replica=0, seed=3, n_rows=4):
    return draw_periphery(
        spec, seed_words(seed), replica, n_rows, np.asarray(tile), np.asarray(col),
        np.zeros(1, int), converter_limit(spec.dac.bits), converter_limit(spec.adc.bits),
    )


@pytest.mark.parametrize("bits", [0, 17, -1, 3.5, "many"])
@pytest.mark.parametrize("converter", ["dac", "adc"])
def test_bits_outside_1_to_16_are_refused(converter, bits):
    with pytest.raises(InputError, match=rf"{converter}\.bits"):
        IDEAL.replace(**{f"{converter}.bits": bits})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dac.bits": "ideal", "dac.mode": "bit_serial"}, "say how many bits"),
        ({"dac.mode": "bit_serial", "dac.inl_lsb": (0.0, 1.0)}, "no table of non-linearity"),
        ({"adc.inl_lsb": (1.0,)}, "lowest and the highest code"),
        ({"adc.inl_lsb": (0.0, 1.0), "adc.dnl_lsb": (0.0,) * 254}, "give one of them"),
        ({"adc.dnl_lsb": (0.0,) * 7}, "8 bit have 254 steps"),
        ({"adc.range": 0.0}, "adc.range"),
        ({"adc.range": "median"}, "adc.range"),
        ({"adc.percentile": 101.0}, "adc.percentile"),
        ({"adc.columns_per_adc": 0}, "adc.columns_per_adc"),
        ({"dac.gain_sigma": -0.1}, "dac.gain_sigma"),
    ],
)
def test_impossible_converters_are_refused(changes, words):
    with pytest.raises(InputError, match=words):
        chip(**changes)


def test_a_table_of_inl_is_linear_between_its_codes():
    table = table_of(AdcSpec(inl_lsb=(0.0, 2.0, 0.0)), 3.0)
    np.testing.assert_allclose(table, [0, 2 / 3, 4 / 3, 2, 4 / 3, 2 / 3, 0], rtol=1e-6)


def test_dnl_adds_up_to_inl_about_its_line():
    dnl = np.random.default_rng(0).normal(0, 0.2, 14)
    table = table_of(AdcSpec(bits=4, dnl_lsb=tuple(dnl)), 7.0).astype(float)
    codes = np.arange(-7, 8)
    np.testing.assert_allclose(np.diff(np.diff(table)), np.diff(dnl), atol=1e-6)
    np.testing.assert_allclose([table.sum(), (table * codes).sum()], 0, atol=1e-5)
    assert table_of(AdcSpec(bits=4, dnl_lsb=(0.5,) * 14), 7.0) == pytest.approx(np.zeros(15))


@pytest.mark.parametrize("batch", [3, 20])
def test_a_dac_drives_gain_times_code_and_inl_plus_offset(batch):
    spec = chip(**{"adc.bits": "ideal", "dac.gain_sigma": 0.05, "dac.offset_lsb": 0.7,
                   "dac.inl_lsb": (0.0, 1.0, 0.0, -1.0, 0.0)})
    n = 6
    matrix = map_matrix(np.eye(n), spec, [[1.0] * n]).program(2)
    codes = np.random.default_rng(0).integers(-127, 128, (batch, n))
    own = matrix.periphery
    level = (codes + own.dac_table[codes + 127]) * own.dac_gain + own.dac_offset
    np.testing.assert_allclose(matrix.mvm(codes / 127), level / 127, atol=2e-5)
    assert own.dac_gain.std() > 0.01
    assert own.dac_offset.std() > 0.1


@pytest.mark.parametrize("batch", [3, 20])
def test_an_adc_rounds_gain_times_signal_plus_offset_and_inl(batch):
    spec = chip(**{"dac.bits": "ideal", "adc.gain_sigma": 0.05, "adc.offset_lsb": 3.0,
                   "adc.inl_lsb": (0.0, 1.0, 0.0, -1.0, 0.0)})
    matrix = map_matrix(np.eye(6), spec, [[1.0] * 6]).program(2)
    x = np.random.default_rng(0).uniform(-1, 1, (batch, 6))
    own = matrix.periphery
    u = np.clip(x * 127 * own.adc_gain + own.adc_offset, -127, 127)
    u = np.clip(u + np.interp(u, np.arange(-127, 128), own.adc_table), -127, 127)
    near_tie = abs(abs(u - np.trunc(u)) - 0.5) < 1e-3
    np.testing.assert_allclose((matrix.mvm(x) * 127)[~near_tie], np.rint(u)[~near_tie], atol=1e-3)
    assert near_tie.mean() < 0.05


def test_exact_weights_of_a_successive_approximation_give_the_nearest_code():
    weights = (2.0 ** np.arange(8)[::-1]).astype(np.float32)[None]
    values = np.random.default_rng(1).uniform(-127, 127, 500).astype(np.float32)
    found = [approximate(value, weights, 0) for value in values]
    np.testing.assert_array_equal(found, np.rint(values))


def test_a_successive_approximation_never_falls_with_its_signal_and_errs_by_its_weights():
    spec = chip(**{"adc.unit_mismatch": 0.05})
    own = drawn(spec, [0] * 20, np.arange(20))
    values = np.linspace(-127, 127, 2000).astype(np.float32)
    errors = []
    for adc in range(20):
        code = np.array([approximate(value, own.adc_weights, adc) for value in values])
        assert (np.diff(code) >= 0).all()
        errors.append(code - values)
    # half a code apart the weights' errors: sigma_INL near the middle is 0.05 sqrt(2^8) / 2
    assert 0.15 < np.std(errors) < 0.8
    np.testing.assert_allclose(own.adc_weights.sum(axis=1), 255, rtol=1e-6)


def test_every_adc_has_errors_of_its_own_and_its_bit_lines_share_them():
    spec = chip(**{"adc.gain_sigma": 0.01, "adc.offset_lsb": 1.0, "adc.unit_mismatch": 0.02,
                   "adc.columns_per_adc": 4})
    own = drawn(spec, np.repeat([0, 1], 32), np.tile(np.arange(32), 2))
    gain = own.adc_gain.reshape(16, 4)
    assert (gain == gain[:, :1]).all()
    for values in (gain[:, 0], own.adc_offset[::4], own.adc_weights[own.adc_of[::4], 0]):
        assert len(np.unique(values)) == 16
    other = drawn(spec, [1], [5])
    assert other.adc_offset[0] == own.adc_offset[32 + 5]
    assert drawn(spec, [1], [5], replica=1).adc_offset[0] != other.adc_offset[0]
    assert drawn(spec, [1], [5], seed=4).adc_offset[0] != other.adc_offset[0]


def test_errors_have_the_spread_of_the_spec():
    n = 20_000  # 5 sigma of a standard deviation: 2.5 %
    spec = chip(**{"adc.gain_sigma": 0.01, "adc.offset_lsb": 2.0, "dac.gain_sigma": 0.03,
                   "dac.offset_lsb": 0.5})
    own = drawn(spec, np.arange(n) // 250, np.arange(n) % 250, n_rows=n)
    for found, sigma in (
        (own.adc_gain - 1, 0.01), (own.adc_offset, 2.0), (own.dac_gain - 1, 0.03),
        (own.dac_offset, 0.5),
    ):
        assert found.std() == pytest.approx(sigma, rel=0.026)
        assert abs(found.mean()) < 5 * sigma / n**0.5


@pytest.mark.parametrize("batch", [8, 40])
@pytest.mark.parametrize("mode", ["amplitude", "bit_serial"])
def test_the_noise_of_a_drive_is_common_to_all_columns(mode, batch):
    spec = chip(**{"adc.bits": "ideal", "dac.noise_lsb": 2.0, "dac.mode": mode})
    matrix = map_matrix(np.ones((5, 3)), spec, [[1.0] * 5]).program(2)
    x = np.tile([[0.5] * 5], (batch, 1))
    found = matrix.mvm(x) - np.rint(63.5) / 127 * 5
    np.testing.assert_allclose(found, found[:, :1] * np.ones(3), atol=1e-5)
    assert len(np.unique(found[:, 0])) == batch
    np.testing.assert_array_equal(matrix.mvm(x[:3], first_read=2), matrix.mvm(x[:3], first_read=2))


@pytest.mark.parametrize("mode", ["amplitude", "bit_serial"])
def test_the_noise_of_drives_has_the_variance_of_its_steps(mode):
    n, sigma, rows = 20_000, 0.5, 4
    spec = chip(**{"adc.bits": "ideal", "dac.noise_lsb": sigma, "dac.mode": mode})
    matrix = map_matrix(np.ones((rows, 1)), spec, [[1.0] * rows]).program(2)
    found = matrix.mvm(np.zeros((n, rows))).std() * 127
    planes = np.sqrt((4.0 ** np.arange(7)).sum()) if mode == "bit_serial" else 1.0
    assert found == pytest.approx(sigma * rows**0.5 * planes, rel=0.026)


@pytest.mark.parametrize("batch", [2, 20])
def test_bit_serial_inputs_are_converted_plane_by_plane(batch):
    rng = np.random.default_rng(5)
    w = rng.standard_normal((20, 4))
    calibrate = rng.uniform(-1, 1, (50, 20))
    spec = chip(**{"dac.bits": 5, "adc.bits": 5, "dac.mode": "bit_serial", "tile.rows": 12})
    mapped = map_matrix(w, spec, calibrate)
    x = rng.uniform(-1, 1, (batch, 20)) * mapped.full_scale
    codes = np.rint(x / mapped.full_scale * 15).astype(int)
    expected, doubt = np.zeros((batch, 4)), np.zeros((batch, 4), bool)
    for part, rows in enumerate((slice(0, 12), slice(12, 20))):
        step = mapped.adc_range[part] / 15
        for bit in range(4):
            plane = np.sign(codes) * (abs(codes) >> bit & 1)
            u = np.clip(plane[:, rows] @ w[rows] / 15 / step, -15, 15)
            doubt |= abs(abs(u - np.trunc(u)) - 0.5) < 1e-3
            expected += 2**bit * np.rint(u) * step
    found = mapped.program().mvm(x) / mapped.full_scale
    np.testing.assert_allclose(found[~doubt], expected[~doubt], atol=1e-5)
    assert doubt.mean() < 0.2


@pytest.mark.compiled
def test_the_noise_of_adcs_is_new_at_every_bit_plane():
    n = 20_000
    spec = chip(
        **{"dac.bits": 4, "dac.mode": "bit_serial", "adc.bits": 16, "adc.noise_lsb": 100.0}
    )
    mapped = map_matrix([[1.0]], spec, [[1.0]])
    found = mapped.program(1).mvm(np.zeros((n, 1)))
    sigma = 100 * mapped.adc_range[0, 0] / 32767
    assert found.std() == pytest.approx(sigma * np.sqrt(1 + 4 + 16), rel=0.026)


def test_a_fixed_range_counts_full_currents_of_a_cell():
    w = np.array([[1.0, -4.0], [0.5, 2.0]])
    mapped = map_matrix(w, chip(**{"adc.range": 2.5}))
    np.testing.assert_allclose(mapped.adc_range, [[2.5, 10.0]])  # of the largest weight each
    shared = map_matrix(w, chip(**{"adc.range": 2.5}, weight_scale="block"))
    np.testing.assert_allclose(shared.adc_range, [[10.0, 10.0]])


def test_a_range_by_percentile_holds_that_share_of_the_outputs():
    rng = np.random.default_rng(6)
    w, x = rng.standard_normal((30, 5)), rng.standard_normal((4000, 30))
    y = np.abs(x @ w) / np.abs(x).max()
    largest = map_matrix(w, chip(), x).adc_range[0]
    found = map_matrix(w, chip(**{"adc.range": "percentile", "adc.percentile": 98.0}), x)
    exact = np.percentile(y, 98.0, axis=0)
    assert (np.abs(found.adc_range[0] - exact) <= largest / BINS + 1e-9).all()
    together = map_matrix(w, chip(**{"adc.range_per": "matrix"}), x).adc_range[0]
    np.testing.assert_allclose(together, largest.max())


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_range_of_least_error_has_the_least_error(bits):
    rng = np.random.default_rng(7)
    limit = float(converter_limit(bits))
    y = rng.standard_normal((20_000, 1))
    largest = np.abs(y).max(axis=0)
    found = range_of(
        histograms(y, largest), largest, AdcSpec(bits=bits, range="least_error"), limit
    )[0]

    def error(full):
        return ((np.rint(np.clip(y / full * limit, -limit, limit)) * full / limit - y) ** 2).mean()

    best = min(error(largest[0] * k / 64) for k in range(4, 65))
    assert error(found) <= 1.03 * best
    assert error(found) < error(largest[0]) or bits == 8


@pytest.mark.compiled
def test_calibrated_ranges_have_less_error_than_the_largest_output_at_few_bits():
    rng = np.random.default_rng(8)
    w, x = rng.standard_normal((64, 16)), rng.standard_normal((2000, 64))
    errors = {}
    for how in ("largest", "percentile", "least_error"):
        spec = IDEAL.replace(**{"adc.bits": 4, "adc.range": how, "adc.percentile": 99.5})
        found = map_matrix(w, spec, x).program().mvm(x)
        errors[how] = np.sqrt(((found - x @ w) ** 2).mean())
    assert errors["least_error"] <= errors["percentile"] < errors["largest"], errors


@pytest.mark.parametrize("batch", [10, 64])
def test_saturation_is_the_share_of_conversions_that_clip(batch):
    spec = IDEAL.replace(**{"adc.bits": 6, "adc.range": 1.0, "adc.headroom": 1.0})
    matrix = map_matrix(np.ones((4, 3)), spec, [[1.0] * 4]).program()
    x = np.random.default_rng(9).uniform(-1, 1, (batch, 4))
    assert matrix.saturation == 0.0
    matrix.mvm(x)
    clipped = (np.abs(x.sum(axis=1)) > 31.5 / 31).mean()
    assert matrix.saturation == pytest.approx(clipped)
    assert 0 < clipped < 1


def test_a_percentile_of_inputs_sets_the_dac_and_clips_the_rest():
    x = np.linspace(-1, 1, 2001)[:, None]
    mapped = map_matrix([[1.0]], chip(**{"dac.range": "percentile", "dac.percentile": 90.0}), x)
    assert mapped.full_scale == pytest.approx(0.9, abs=1e-3)
    assert mapped.program().mvm([[1.0]])[0, 0] == pytest.approx(mapped.full_scale, rel=1e-6)


@pytest.mark.compiled
@pytest.mark.parametrize("mode", ["amplitude", "bit_serial"])
def test_affine_correction_takes_the_offsets_of_adcs_that_gains_cannot(mode):
    rng = np.random.default_rng(10)
    w, x = rng.standard_normal((32, 16)), rng.uniform(-1, 1, (500, 32))
    errors = {}
    for kind in ("none", "column", "affine"):
        spec = chip(**{"adc.bits": 10, "adc.offset_lsb": 20.0, "adc.gain_sigma": 0.05,
                       "dac.mode": mode}, compensation=kind)
        found = map_matrix(w, spec, x).program(3).mvm(x)
        errors[kind] = np.sqrt(((found - x @ w) ** 2).mean())
    assert errors["affine"] < 0.2 * errors["column"] < 0.2 * errors["none"] * 1.1, errors


def test_a_pulse_width_stands_for_the_value_of_an_amplitude():
    rng = np.random.default_rng(11)
    w, x = rng.standard_normal((9, 3)), rng.standard_normal((4, 9))
    found = [map_matrix(w, chip(**{"dac.mode": mode})).program(1).mvm(x)
             for mode in ("amplitude", "pulse_width")]
    np.testing.assert_array_equal(*found)


def test_the_default_converters_have_no_errors():
    assert DacSpec().mode == "amplitude"
    own = drawn(chip(), [0], [0])
    assert not own.dac_on
    assert not own.adc_on
