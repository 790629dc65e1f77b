"""Compensation: fits of columns against closed forms, and what they leave alone."""

import numpy as np
import pytest

from aimc_sim import compensation
from aimc_sim.chip import Chip
from aimc_sim.compensation import Wiring, fit_columns, patterns
from aimc_sim.matrix import map_matrix
from aimc_sim.specs import ChipSpec

pytestmark = pytest.mark.compiled

DAY = 86400.0
SIGMAS = 5.0
IDEAL = ChipSpec.preset("ideal")
PCM = ChipSpec.preset("pcm-nandakumar2019")
EXACT = {"dac.bits": "ideal", "adc.bits": "ideal"}
FLAT = {"of": "r", "polynomial": [0.05]}


def weights(seed, shape):
    return np.random.default_rng(seed).normal(size=shape)


def dense_wiring(w, part_rows):
    n_in, n_out = w.shape
    parts = np.arange(n_in) // part_rows
    n_columns = (parts[-1] + 1) * n_out
    return Wiring(
        np.repeat(np.arange(n_in), n_out), (parts[:, None] * n_out + np.arange(n_out)).ravel(),
        np.ones(n_in, np.float32), np.ones(n_columns, np.float32), np.float32(0), np.float32(0),
        np.float32(0), np.array([0, n_columns]),
    )


def chip_of(spec, w, **options):
    return map_matrix(w, spec).program(**options).chip


def direct_fit(w, found, variance=None, compensation="affine", part_rows=1000, seed=1, reads=100):
    spec = IDEAL.replace(compensation=compensation, compensation_reads=reads)
    chip = chip_of(spec, w, seed=seed)
    variance = np.zeros(w.size) if variance is None else variance
    return fit_columns(
        chip, dense_wiring(w, part_rows), w.ravel(), np.float32(found).ravel(),
        np.float32(variance).ravel(), 0,
    )


# against exact answers


@pytest.mark.parametrize("kind", ["global", "column", "affine"])
def test_drift_that_is_the_same_for_all_cells_is_undone_exactly(kind):
    w = weights(2, (30, 7))
    drift = {"t0_s": 20.0, "nu_mean": FLAT, "nu_std": {"of": "r", "polynomial": [0.0]}}
    device = PCM.device.replace(programming=None, read_noise=None, drift=drift)
    spec = PCM.replace(device=device, compensation=kind, **EXACT)
    a = map_matrix(w, spec).program(seed=3).wait(DAY)
    plain = map_matrix(w, spec.replace(compensation="none")).program(seed=3).wait(DAY)
    left = ((20 + DAY) / 20) ** -0.05
    np.testing.assert_allclose(plain.weights()[0], left * w, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(a.weights()[0], w, rtol=1e-5, atol=1e-6)


def test_gains_are_those_of_least_squares_on_the_same_patterns():
    w = weights(4, (20, 6))
    found = np.float32(w * np.linspace(0.5, 1.2, 6) + 0.1 * weights(5, w.shape))
    wiring = dense_wiring(w, 8)
    x, further = (patterns(wiring, k, k + 100).astype(float) for k in (0, 100))
    assert np.abs(x).max() <= 1
    column, affine = (
        direct_fit(w, found, compensation=kind, part_rows=8) for kind in ("column", "affine")
    )
    for part in range(3):
        rows = slice(8 * part, 8 * part + 8)
        for j in range(6):
            wanted, read = x[:, rows] @ w[rows, j], x[:, rows] @ found[rows, j]
            k = 6 * part + j
            assert column.gain[k] == pytest.approx(wanted @ read / (wanted @ wanted), rel=1e-5)
            first, _ = np.polyfit(wanted, read, 1)
            again = further[:, rows] @ found[rows, j] / first  # with that gain set
            slope, constant = np.polyfit(further[:, rows] @ w[rows, j], again, 1)
            assert affine.gain[k] == pytest.approx(first * slope, rel=1e-5)
            assert affine.offset[k] in (0.0, pytest.approx(constant, rel=1e-3))


def test_a_matrix_in_row_parts_is_mended_part_by_part():
    # columns of one cell: the gain of a part is that of its only row, programming error included
    w = weights(6, (3, 40))
    spec = PCM.replace(
        compensation="column", **EXACT, **{"tile.rows": 1, "device.read_noise": None}
    )
    a = map_matrix(w, spec).program(seed=7).wait(DAY)
    held = np.abs(a.weights()[0] - w) / np.abs(w)
    plain = map_matrix(w, spec.replace(compensation="none")).program(seed=7).wait(DAY)
    assert held.max() < 1e-4
    assert np.abs(plain.weights()[0] - w).mean() > 0.1 * np.abs(w).mean()


@pytest.mark.parametrize("batch", [3, 40])
def test_an_offset_of_the_outputs_is_found_and_subtracted_at_every_input_scale(batch, monkeypatch):
    w = weights(8, (12, 5))
    shift = np.array([0.3, -0.2, 0.0, 0.5, -1.0])
    convert = compensation._convert

    def shifted(*arguments):
        return convert(*arguments) + np.tile(shift, 2)

    spec = IDEAL.replace(compensation="affine", **{"tile.rows": 6})
    x = weights(9, (batch, 12))
    x[1] = 0.0
    plain = map_matrix(w, spec).program().mvm(x)
    monkeypatch.setattr(compensation, "_convert", shifted)
    full_scale = np.abs(x).max(axis=1, keepdims=True)
    full_scale[1] = 1.0
    found = map_matrix(w, spec).program().mvm(x)
    np.testing.assert_allclose(found, plain - 2 * full_scale * shift, rtol=1e-4, atol=1e-4)
    held = map_matrix(w, spec, calibrate=2 * x).program().mvm(x)
    scale = 2 * np.abs(x).max()
    np.testing.assert_allclose(held, plain - 2 * scale * shift, rtol=1e-4, atol=1e-4)


def test_the_offset_of_an_adc_is_found_whatever_gain_its_column_needs():
    # columns of one cell far down a word line: a gain each, and nothing else to mend
    w = 1 + 0.1 * weights(20, (1, 24))
    spec = IDEAL.replace(
        compensation="affine", wires={"r_wl_ohm": 1000.0, "r_bl_ohm": 0.0},
        **{"adc.bits": 12, "adc.headroom": 2.0, "tile.cols": 64},
    )
    x = weights(21, (50, 1))
    errors = {}
    for steps in (0.0, 40.0):
        a = map_matrix(w, spec.replace(**{"adc.offset_lsb": steps}), x).program(seed=1)
        errors[steps] = np.abs(a.mvm(x) - x @ w).mean()
    gain = a._multiplier.correction()[0]
    assert gain.min() < 0.7
    offset = 40 * a.mapped.adc_range.mean() / 2047  # before correction
    assert errors[40.0] - errors[0.0] < 0.02 * offset, errors


def test_complex_matrices_are_compensated_as_their_real_ones():
    w = weights(10, (6, 4)) + 1j * weights(11, (6, 4))
    real = np.block([[w.real, w.imag], [-w.imag, w.real]])
    spec = PCM.replace(compensation="column")
    one = map_matrix(w, spec).program(seed=1).wait(DAY)
    other = map_matrix(real, spec).program(seed=1).wait(DAY)
    np.testing.assert_allclose(one.weights()[0], other.weights()[0], rtol=1e-2, atol=1e-2)


# noise of the calibration itself


def test_read_noise_spreads_gains_as_least_squares_predicts():
    # one row, found = wanted: the gain's variance is that of the noise over sum y*^2
    n_columns, n_reads, relative = 4000, 25, 0.1
    w = np.ones((1, n_columns))
    variance = np.full(w.size, relative**2)
    fit = direct_fit(w, w, variance, "column", reads=n_reads)
    x = patterns(dense_wiring(w, 1), 0, n_reads).ravel().astype(float)
    # noise of a read is x s xi, so the sum is over x^4
    sigma = relative * np.sqrt((x**4).sum()) / (x**2).sum()
    assert fit.gain.mean() == pytest.approx(1, abs=SIGMAS * sigma / np.sqrt(n_columns))
    assert fit.gain.std() == pytest.approx(sigma, rel=SIGMAS / np.sqrt(2 * n_columns))
    assert not fit.left_alone.any()


def test_adc_noise_spreads_gains_as_least_squares_predicts():
    n_columns, n_reads, noise = 4000, 25, 3.0
    w = np.ones((1, n_columns))
    chip = chip_of(IDEAL.replace(compensation="column", compensation_reads=n_reads), w, seed=1)
    wiring = Wiring(
        np.zeros(n_columns, int), np.arange(n_columns), np.ones(1, np.float32),
        np.full(n_columns, 2 / 511, np.float32), np.float32(0), np.float32(511),
        np.float32(noise), np.array([0, n_columns]),
    )
    zero = np.zeros(n_columns, np.float32)
    fit = fit_columns(chip, wiring, w.ravel(), np.float32(w).ravel(), zero, 0)
    x = patterns(wiring, 0, n_reads).ravel().astype(float)
    # rounding adds a variance of 1/12 step^2
    sigma = 2 / 511 * np.sqrt((noise**2 + 1 / 12) / (x**2).sum())
    assert fit.gain.mean() == pytest.approx(1, abs=SIGMAS * sigma / np.sqrt(n_columns))
    assert fit.gain.std() == pytest.approx(sigma, rel=SIGMAS / np.sqrt(2 * n_columns))


def test_noise_alone_hardly_ever_makes_an_offset():
    n_columns = 4000
    w = np.ones((1, n_columns))
    fit = direct_fit(w, w, np.full(w.size, 0.01), "affine")
    # beyond 3 standard errors of Student's t with 98 degrees lie 0.34 %; 5 sigma of that count
    expected = 0.0034 * n_columns
    assert 0 < (fit.offset != 0).sum() < expected + SIGMAS * np.sqrt(expected)


def test_rounded_and_clipped_reads_bend_no_gain():
    # an ADC that covers less than the patterns ask for: its reads near the end are left out
    w = weights(12, (16, 30))
    spec = IDEAL.replace(
        compensation="column", compensation_reads=1000, **{"adc.bits": 8, "adc.headroom": 0.4}
    )
    a = map_matrix(w, spec).program()
    gain = np.divide(w, a.weights()[0])
    assert np.abs(gain - 1).max() < 3e-3


def test_calibration_reads_have_draws_of_their_own():
    w = weights(13, (40, 20))
    spec = PCM.replace(compensation="column")
    mapped = map_matrix(w, spec)
    first = mapped.program(seed=5).wait(60.0).weights()[0]
    again = mapped.program(seed=5).wait(30.0).wait(30.0)
    again.mvm(weights(14, (3, 40)))
    np.testing.assert_array_equal(again.weights()[0], first)
    # on a chip that does not drift only the reads' noise moves the gains
    still = spec.replace(**{"device.drift": None, "device.programming": None})
    one, other = (map_matrix(w, still).program(seed=5).wait(t) for t in (60.0, 61.0))
    gains = [a._multiplier.correction()[0] for a in (one, other)]
    assert not np.array_equal(*gains)
    assert np.abs(gains[0] - gains[1]).max() < 0.05


def test_the_patterns_are_the_same_for_every_chip_and_lie_on_the_dac_grid():
    w = weights(15, (9, 4))
    wiring = dense_wiring(w, 9)
    whole = patterns(wiring, 0, 10)
    np.testing.assert_array_equal(np.concatenate([patterns(wiring, 0, 3), patterns(wiring, 3, 10)]),
                                  whole)
    coarse = Wiring(
        wiring.row, wiring.column, np.full(9, 0.25, np.float32), wiring.adc_step, np.float32(7),
        np.float32(0), np.float32(0), wiring.first,
    )
    codes = patterns(coarse, 0, 2000) / 0.25
    assert set(np.unique(codes)) == set(range(-7, 8))


# what is left alone


def test_a_dead_column_and_one_without_weights_keep_gain_one():
    w = weights(16, (10, 4))
    w[:, 2] = 0.0
    found = 0.7 * w
    found[:, 1] = 0.0  # dead: noise is all that its reads find
    found[:, 3] *= -1
    variance = np.full(w.shape, 0.01)
    fit = direct_fit(w, found, variance)
    assert fit.gain[1:].tolist() == [1.0, 1.0, 1.0]
    assert fit.offset[1:].tolist() == [0.0, 0.0, 0.0]
    assert fit.gain[0] == pytest.approx(0.7, abs=0.1)
    assert fit.left_alone.tolist() == [False, True, False, True]


def test_too_few_reads_for_a_fit_leave_the_column_alone():
    w = np.ones((1, 3))
    fit = direct_fit(w, 0.5 * w, compensation="affine", reads=2)
    assert fit.left_alone.all()
    assert direct_fit(w, 0.5 * w, compensation="column", reads=2).gain == pytest.approx([0.5] * 3)


def test_reads_are_counted():
    w = weights(17, (300, 4))
    counts = {
        kind: map_matrix(w, PCM.replace(compensation=kind, compensation_reads=50))
        .program().calibration_reads
        for kind in ("none", "global", "column", "affine")
    }
    assert counts == {"none": 0, "global": 2, "column": 100, "affine": 200}


def test_calibration_leaves_chips_as_they_are():
    w = weights(18, (12, 6))
    a = map_matrix(w, PCM.replace(compensation="affine")).program(seed=2).wait(10.0)
    b = map_matrix(w, PCM).program(seed=2).wait(10.0)
    a.mvm(np.ones((1, 12)))
    assert isinstance(a.chip, Chip)
    np.testing.assert_array_equal(a.chip.read(), b.chip.read())
    np.testing.assert_array_equal(a.chip.programmed_s, b.chip.programmed_s)


@pytest.mark.compiled
@pytest.mark.parametrize("kind", ["column", "affine"])
def test_a_calibration_sees_the_noise_that_a_limit_clips_as_a_run_does(kind):
    # the idle half of a pair at a floor of 0 reads 0.40 sigma more on average: 2 of 25 uS
    sigma_us, n_rows = 5.0, 200
    noise = {"sigma": {"unit_s": 1e-6, "polynomial": [sigma_us]}, "relative": False}
    device = IDEAL.device.replace(read_noise={**noise, "spectrum": "white"})
    spec = IDEAL.replace(device=device, compensation=kind, compensation_reads=2000, **EXACT)
    a = map_matrix(np.ones((n_rows, 4)), spec).program(seed=2)
    plain = map_matrix(np.ones((n_rows, 4)), spec.replace(compensation="none")).program(seed=2)
    short = sigma_us / np.sqrt(2 * np.pi) / 25
    np.testing.assert_allclose(plain.weights()[0], 1 - short, rtol=1e-5)
    # a weight of 1 is read with (1 + 0.34) sigma^2; patterns have a mean square of 1/3
    error = sigma_us / 25 * np.sqrt(1.34 / 2000)
    np.testing.assert_allclose(a.weights()[0], 1.0, atol=SIGMAS * error)
