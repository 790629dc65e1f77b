"""AnalogMatrix: addresses of reads, batch paths, complex matrices, errors."""

from __future__ import annotations

import numpy as np
import pytest

from aimc_sim.errors import CapacityError, InputError, UsageError
from aimc_sim.matrix import map_matrix
from aimc_sim.specs import ChipSpec

NOISY = "reram-wan2022"
RNG = np.random.default_rng(0)
W = RNG.standard_normal((20, 6))
X = RNG.standard_normal((64, 20))


def noisy(**changes):
    return ChipSpec.preset(NOISY).replace(**{"adc.bits": "ideal", "dac.bits": "ideal", **changes})


def test_a_batch_of_any_size_reads_the_same_numbers():
    matrix = map_matrix(W, noisy(**{"tile.rows": 8})).program(seed=1)
    whole = matrix.mvm(X, first_read=0)
    for batch in (1, 15, 16, 17, 64):
        parts = [matrix.mvm(X[k : k + batch], first_read=k) for k in range(0, len(X), batch)]
        np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-5, atol=2e-5)


def test_a_vector_is_addressed_by_its_read_index():
    matrix = map_matrix(W, noisy()).program(seed=1)
    whole = matrix.mvm(X[:20], first_read=100)
    for k in (0, 7, 19):
        alone = matrix.mvm(X[k : k + 1], first_read=100 + k)
        np.testing.assert_allclose(alone[0], whole[k], rtol=1e-5, atol=2e-5)
        elsewhere = matrix.mvm(X[k : k + 1], first_read=500)
        assert abs(elsewhere[0] - whole[k]).max() > 1e-3


def test_reads_are_counted_and_an_explicit_index_is_not():
    matrix = map_matrix(W, noisy()).program(seed=1)
    first, second = matrix.mvm(X[:3]), matrix.mvm(X[:3])
    assert matrix.reads == 6
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(matrix.mvm(X[:3], first_read=3), second)
    assert matrix.reads == 6


def test_read_indices_beyond_32_bits_are_reads_of_their_own():
    matrix = map_matrix(W, noisy()).program(seed=1)
    low, high = (matrix.mvm(X[:1], first_read=7 + shift) for shift in (0, 1 << 32))
    assert not np.array_equal(low, high)


@pytest.mark.parametrize("seconds", [1e-9, 4096e-9, 1.0, 3600.0])
def test_reads_at_another_time_draw_other_noise(seconds):
    matrix = map_matrix(W, noisy(**{"device.relaxation": None})).program(seed=1)
    before = matrix.mvm(X[:4], first_read=0)
    after = matrix.wait(seconds).mvm(X[:4], first_read=0)
    assert not np.array_equal(before, after)


def test_seeds_and_replicas_are_other_chips_and_the_same_seed_is_the_same_chip():
    mapped = map_matrix(W, noisy())
    one, again = mapped.program(seed=3), mapped.program(seed=3)
    np.testing.assert_array_equal(one.mvm(X[:5]), again.mvm(X[:5]))
    for other in (mapped.program(seed=4), mapped.program(seed=3, replica=1)):
        assert not np.array_equal(one.mvm(X[:5], first_read=0), other.mvm(X[:5], first_read=0))


def test_row_parts_draw_noise_of_their_own():
    w = np.vstack([np.eye(4), np.eye(4)])
    matrix = map_matrix(w, noisy(**{"tile.rows": 4, "device.relaxation": None})).program(seed=1)
    x = np.zeros((2, 8))
    x[0, :4], x[1, 4:] = 1, 1
    top, bottom = (matrix.mvm(x[k : k + 1], first_read=0)[0] - 1 for k in (0, 1))
    assert abs(top).max() > 1e-3
    assert not np.allclose(top, bottom, atol=1e-4)


@pytest.mark.parametrize("card", ["pcm-nandakumar2019", NOISY, "cmo-hfox"])
def test_the_variance_of_a_read_is_that_of_both_cells(card):
    # a step of a millisecond, so that the fast octaves of 1/f noise are there on every card
    spec = ChipSpec.preset(card).replace(compensation="none", step_period_s=1e-3)
    matrix = map_matrix(W, spec).program(seed=2).wait(60.0)
    reads = matrix.chip.expected()
    mean, per_cell = (
        a.astype(float).reshape(2, *W.shape) for a in (reads.mean_s, reads.variance)
    )
    weights, variance, is_noisy = matrix.weights()
    assert is_noisy
    scale = matrix.mapped.scale[0]
    np.testing.assert_allclose(variance, per_cell.sum(axis=0) * scale**2, rtol=1e-5)
    np.testing.assert_allclose(weights, (mean[0] - mean[1]) * scale, atol=1e-6)
    # inside its range a cell has the noise of its card
    slow, sigma = (a.astype(float).reshape(2, *W.shape) for a in
                   (matrix.chip.slow(), matrix.chip.fast_sigma()))
    low, high = matrix.chip.limits_s
    inside = (slow - low > 6.1 * sigma) & (high - slow > 6.1 * sigma)
    assert inside.sum() > W.size // 2
    np.testing.assert_array_equal(mean[inside], slow[inside])
    np.testing.assert_allclose(per_cell[inside], sigma[inside] ** 2, rtol=1e-5)


def test_a_product_in_operator_form_is_an_mvm():
    matrix = map_matrix(W, ChipSpec.preset("ideal")).program()
    np.testing.assert_array_equal(X @ matrix, matrix.mvm(X))
    assert (X @ matrix).dtype == np.float32
    assert (X[0] @ matrix).shape == (1, 6)
    assert matrix.mvm(np.empty((0, 20))).shape == (0, 6)


def test_a_vector_of_zeros_gives_zeros():
    matrix = map_matrix(W, ChipSpec.preset("ideal").replace(**{"dac.bits": 8})).program()
    for batch in (1, 16):
        np.testing.assert_array_equal(matrix.mvm(np.zeros((batch, 20))), 0)


@pytest.mark.parametrize("batch", [3, 20])
def test_a_complex_matrix_takes_real_and_complex_inputs(batch):
    rng = np.random.default_rng(5)
    w = rng.standard_normal((5, 4)) + 1j * rng.standard_normal((5, 4))
    z = rng.standard_normal((batch, 5)) + 1j * rng.standard_normal((batch, 5))
    matrix = map_matrix(w, ChipSpec.preset("ideal")).program()
    assert matrix.mvm(z).dtype == np.complex64
    np.testing.assert_allclose(matrix.mvm(z), z @ w, atol=1e-5)
    np.testing.assert_allclose(matrix.mvm(z.real), z.real @ w, atol=1e-5)


def test_waiting_returns_the_matrix_and_ages_its_weights():
    matrix = map_matrix(W, ChipSpec.preset("pcm-nandakumar2019")).program()
    fresh = matrix.weights()[0]
    assert matrix.wait(3600.0) is matrix
    assert not np.array_equal(fresh, matrix.weights()[0])
    assert matrix.weights()[0] is matrix.weights()[0]


def test_global_compensation_restores_the_sum_of_all_conductances():
    spec = ChipSpec.preset("pcm-nandakumar2019").replace(
        **{"device.programming": None, "device.read_noise": None}, weight_scale="block"
    )
    w = np.abs(W)
    plain = map_matrix(w, spec.replace(compensation="none")).program(seed=3).wait(86400.0)
    assert plain.weights()[0].sum() < 0.75 * w.sum()
    mended = map_matrix(w, spec.replace(compensation="global")).program(seed=3).wait(86400.0)
    assert mended.weights()[0].sum() == pytest.approx(w.sum(), rel=1e-5)


def test_a_mapped_matrix_says_where_it_lies():
    spec = ChipSpec.preset("ideal").replace(**{"tile.rows": 16, "tile.cols": 32})
    text = str(map_matrix(W, spec))
    assert "real 20 x 6 matrix on 1 tile(s) of 16 x 32 (ideal), 240 cells" in text
    assert text.endswith(f"{100 * 240 / 512:.1f} % used")
    assert str(map_matrix(1j * W, spec)).startswith("complex 20 x 6")


@pytest.mark.parametrize(
    ("w", "words"),
    [
        (np.ones(3), r"It is no matrix, its shape is \(3,\)\. Give rows and columns"),
        (np.ones((2, 2, 2)), r"It is no matrix, its shape is \(2, 2, 2\)"),
        (np.empty((0, 3)), r"It is empty, its shape is \(0, 3\)"),
        ([[]], "It is empty"),
        ([[np.nan]], r"Some of its values \(float64\) are not finite numbers\. Give finite"),
        ([[np.inf, 1.0]], "not finite"),
        ([[1.0, 1j * np.inf]], r"\(complex128\) are not finite"),
        (np.array([["a"]]), "not finite numbers"),
        (np.array([[None]]), r"\(object\) are not finite numbers"),
    ],
)
def test_what_is_no_finite_matrix_is_refused(w, words):
    with pytest.raises(InputError, match=r"Map a matrix\. .*" + words):
        map_matrix(w, ChipSpec.preset("ideal"))


def test_inputs_that_do_not_match_are_refused():
    matrix = map_matrix(W, ChipSpec.preset("ideal")).program()
    with pytest.raises(InputError, match=r"shape \(2, 5\).*20 rows.*\(batch, 20\)"):
        matrix.mvm(np.ones((2, 5)))
    with pytest.raises(InputError, match=r"Some are NaN or infinite\. Give finite"):
        matrix.mvm(np.full((1, 20), np.nan))
    with pytest.raises(InputError, match=r"complex inputs.*matrix is real.*apart"):
        matrix.mvm(np.full((1, 20), 1j))
    with pytest.raises(InputError, match=r"All inputs are zero\. Give inputs"):
        map_matrix(W, ChipSpec.preset("ideal"), np.zeros((3, 20)))


def test_a_matrix_larger_than_the_chip_is_refused():
    spec = ChipSpec.preset("ideal").replace(**{"tile.rows": 8, "tile.cols": 8}, max_tiles=2)
    with pytest.raises(CapacityError, match=r"chip 'ideal'\. It needs 4 tiles, the chip has 2\."):
        map_matrix(W, spec)


def test_a_matrix_shows_its_size_its_chip_and_its_age_on_one_line():
    matrix = map_matrix(W, noisy()).program(seed=3).wait("1h")
    assert matrix.chip.time_s == 3600.0
    assert repr(matrix).startswith("real 20 x 6 matrix on 1 tile(s) of 256 x 256 (reram-wan2022)")
    assert repr(matrix).endswith("; 1 chip of seed 3, 1 h after programming")
    assert repr(matrix.mapped) == str(matrix.mapped)


def test_times_as_text_are_those_in_seconds_and_unknown_units_are_refused():
    late = map_matrix(W, noisy()).program(seed=3).wait("30min").wait("1800")
    at_once = map_matrix(W, noisy()).program(seed=3).wait(3600.0)
    np.testing.assert_array_equal(X @ late, X @ at_once)
    with pytest.raises(UsageError, match="Read '1 parsec' as a time"):
        late.wait("1 parsec")
    with pytest.raises(UsageError, match="Time does not run backwards"):
        late.wait("-1h")


def test_the_name_of_a_preset_is_no_chip():
    with pytest.raises(UsageError, match=r"given as str, not as a ChipSpec\. Give ChipSpec.preset"):
        map_matrix(W, NOISY)


def test_seeds_and_numbers_of_chips_are_whole_and_not_negative():
    mapped = map_matrix(W, noisy())
    for seed in (1.5, "1", -1, 1 << 64, None):
        with pytest.raises(UsageError, match=r"no whole number in \[0, 2\^64\)"):
            mapped.program(seed=seed)
    assert mapped.program(seed=np.int64(3)).chip.seed == 3
    with pytest.raises(UsageError, match=r"Program chip number -1\. They are counted from 0"):
        mapped.program(replica=-1)
