"""A programmed matrix seen from its columns, and on disk."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pulse_cards import write_spec

import aimc_sim as aimc
from aimc_sim.errors import InputError, UsageError
from aimc_sim.matrix import load_matrix, map_matrix
from aimc_sim.specs import ChipSpec
from aimc_sim.storage import SCHEMA

RNG = np.random.default_rng(0)
W = RNG.standard_normal((30, 14)) * 10.0 ** RNG.uniform(-1, 1, 14)
X, Z = RNG.standard_normal((20, 30)), RNG.standard_normal((20, 14))
SMALL = {"tile.rows": 8, "tile.cols": 10}
NOISY = ChipSpec.preset("reram-wan2022").replace(**SMALL)


def complex_like(values):
    return values + 1j * RNG.standard_normal(values.shape)


def error(found, wanted):
    return np.linalg.norm(found - wanted) / np.linalg.norm(wanted)


@pytest.mark.parametrize("compensation", ["none", "global", "column", "affine"])
@pytest.mark.parametrize("make", [np.asarray, complex_like], ids=["real", "complex"])
def test_the_columns_of_ideal_cells_multiply_by_the_transpose(make, compensation):
    w, x, z = make(W), make(X), make(Z)
    a = map_matrix(w, ChipSpec.preset("ideal").replace(**SMALL, compensation=compensation))
    a = a.program(seed=1)
    np.testing.assert_allclose(z @ a.T, z @ w.T, atol=3e-5)
    np.testing.assert_allclose(z[:2] @ a.T, z[:2] @ w.T, atol=3e-5)
    np.testing.assert_allclose(x @ a, x @ w, atol=3e-5)
    assert a.T.T is a
    assert a.T is a.T


@pytest.mark.parametrize("pieces", [{}, {"levels": 5, "slices": 2, "cells_per_weight": 2}])
def test_both_directions_read_the_same_cells(pieces):
    """Without noise of reads the transpose is that of what the cells hold, errors and all."""
    spec = NOISY.replace(**pieces, **{"device.read_noise": None, "dac.bits": "ideal",
                                      "adc.bits": "ideal"})
    a = map_matrix(W, spec).program(seed=5).wait(3600.0)
    found = np.eye(30) @ a
    assert error(found, W) > 0.03
    np.testing.assert_allclose(np.eye(14) @ a.T, found.T, rtol=1e-4, atol=1e-4)
    a.wait(86400.0)
    aged = np.eye(30) @ a
    assert error(aged, found) > 0.01
    np.testing.assert_allclose(np.eye(14) @ a.T, aged.T, rtol=1e-4, atol=1e-4)


def test_converters_of_the_columns_have_ranges_of_that_direction():
    spec = ChipSpec.preset("ideal").replace(**SMALL, **{"dac.bits": 10, "adc.bits": 10})
    w = np.abs(W)
    a = map_matrix(w, spec, calibrate=X).program(seed=1)
    assert a.T.mapped.adc_range.shape == (-(-14 // 5), 30)
    assert error(Z @ a.T, Z @ w.T) < 0.01
    small = a.transpose(calibrate=1e-3 * Z)  # a fixed full scale, too small for the inputs
    assert small.mapped.full_scale < 0.01 * np.abs(Z).max() * np.abs(w).max()
    assert error(Z @ small, Z @ w.T) > 0.5
    assert error(1e-3 * Z @ small, 1e-3 * Z @ w.T) < 0.01


@pytest.mark.parametrize("batch", [3, 20])
@pytest.mark.parametrize("turned", [False, True])
def test_partial_sums_are_added_after_their_own_converters(turned, batch):
    spec = ChipSpec.preset("ideal").replace(**SMALL, **{"adc.bits": 6})
    a = map_matrix(W, spec).program(seed=1)
    a, x = (a.T, Z[:batch] * a.T.mapped.drive) if turned else (a, X[:batch])
    n_parts, step = len(a.mapped.adc_range), (a.mapped.adc_range / 31).astype(float)
    assert n_parts == (3 if turned else 4)
    full = np.abs(x).max(axis=1, keepdims=True)
    wanted = np.zeros((batch, a.mapped.real.shape[1]))
    size = a.mapped.part_rows
    for part in range(n_parts):
        rows = slice(size * part, size * (part + 1))
        y = x[:, rows] / full @ a.mapped.real[rows]
        wanted += np.clip(np.rint(y / step[part]), -31, 31) * step[part] * full
    found = (Z if turned else X)[:batch] @ a
    # exact, but for sums that float32 rounds to the other side of a step
    assert np.isclose(found, wanted, rtol=1e-4, atol=1e-5).mean() > 0.99
    assert (np.abs(found - wanted) <= 1.5 * step.sum(axis=0) * full).all()


def test_rows_and_columns_have_converters_of_their_own():
    spec = ChipSpec.preset("ideal").replace(
        **{"tile.rows": 8, "tile.cols": 16, "dac.bits": 8, "adc.bits": 8,
           "adc.gain_sigma": 0.05, "dac.gain_sigma": 0.05}
    )
    a = map_matrix(np.ones((8, 8)), spec).program(seed=1)
    here, there = a.periphery, a.T.periphery
    for name in ("adc_gain", "dac_gain"):
        gains = np.concatenate([getattr(here, name), getattr(there, name)])
        assert gains.size == len(np.unique(gains)) == 16
    half = (np.arange(8) < 3).astype(float)  # of an ADC's range
    rows = (half @ a.T)[0]  # output j: ADC j of the rows
    order = np.argsort(there.adc_gain)
    assert (np.diff(rows[order]) >= -1e-4).all()
    assert np.ptp(rows) > 0.05


def test_reads_of_rows_and_of_columns_draw_noise_of_their_own():
    w = np.ones((8, 8))
    a = map_matrix(w, NOISY.replace(**{"tile.cols": 16, "dac.bits": "ideal",
                                       "adc.bits": "ideal", "device.relaxation": None,
                                       "device.programming": None})).program(seed=1)
    x = np.ones((400, 8))
    rows, columns = (x @ a)[:, 0], (x @ a.T)[:, 0]
    assert a.reads == a.T.reads == 400
    assert rows.std() > 0
    assert columns.std() / rows.std() == pytest.approx(1.0, abs=0.2)
    # 5 standard errors of the correlation of 400 independent pairs
    assert abs(np.corrcoef(rows, columns)[0, 1]) < 5 / np.sqrt(400)


def test_an_output_whose_calibration_reads_are_all_alike_keeps_its_gain():
    """Of this matrix one: few patterns stay within its range, and all of them read one code."""
    rng = np.random.default_rng(6)
    w = rng.standard_normal((3000, 4)) * 10.0 ** rng.uniform(-2, 2, 4)
    spec = ChipSpec.preset("reram-wan2022").replace(
        compensation="affine", compensation_reads=40
    )
    z = rng.standard_normal((20, 4))
    assert error(z @ map_matrix(w, spec).program(seed=3).wait(3600.0).T, z @ w.T) < 0.5


def test_noise_that_moves_with_the_reads_of_rows_is_refused_for_columns():
    a = map_matrix(W, NOISY.replace(noise_in_time="spectrum")).program(seed=1)
    with pytest.raises(UsageError, match="noise moves with the reads of its rows"):
        a.T  # noqa: B018
    quiet = NOISY.replace(noise_in_time="spectrum", **{"device.read_noise": None})
    assert (Z @ map_matrix(W, quiet).program(seed=1).T).shape == (20, 30)


def test_the_mapped_transpose_programs_the_same_chip():
    mapped = map_matrix(W, NOISY)
    assert mapped.T.T is mapped
    np.testing.assert_array_equal(mapped.T.target_s, mapped.target_s)
    np.testing.assert_array_equal(
        mapped.T.program(seed=3).mvm(Z), mapped.program(seed=3).T.mvm(Z)
    )


def test_matrices_say_what_they_are():
    a = map_matrix(complex_like(W), NOISY).program(seed=7).wait(3600.0)
    a.mvm(X)
    assert repr(a).startswith("complex 30 x 14 matrix on ")
    assert repr(a).endswith("seed 7, 1 h after programming")
    assert "driven from the columns" in repr(a.T)
    assert repr(a.mapped).startswith("complex 30 x 14")


SAVED = {
    "noise": NOISY.replace(**{"adc.noise_lsb": 0.5}),
    "faults": NOISY.replace(faults={"stuck_low": 0.1, "dead_rows": 0.1}),
    "write-verify": write_spec(),
    "affine": NOISY.replace(compensation="affine"),
    "converters": NOISY.replace(
        **{"adc.gain_sigma": 0.02, "adc.offset_lsb": 0.5, "dac.gain_sigma": 0.02,
           "dac.noise_lsb": 0.3, "adc.columns_per_adc": 4}
    ),
    "bit-serial": NOISY.replace(**{"dac.mode": "bit_serial"}),
    "moving": ChipSpec.preset("pcm-nandakumar2019").replace(noise_in_time="spectrum"),
}


@pytest.mark.parametrize("make", [np.asarray, complex_like], ids=["real", "complex"])
@pytest.mark.parametrize("kind", SAVED)
def test_a_saved_matrix_answers_bit_for_bit_as_it_would_have(kind, make, tmp_path):
    w, x, z = make(W), make(X), make(Z)
    a = map_matrix(w, SAVED[kind], calibrate=x).program(seed=2**40 + 3, replica=5)
    a.wait(1234.5)
    a.mvm(x)
    turned = kind != "moving"
    if turned:
        a.T.mvm(z)
    a.save(tmp_path / "a.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]
    b = load_matrix(tmp_path / "a.npz")
    assert (b.reads, b.chip.clock_ns, b.chip.age_ns) == (20, a.chip.clock_ns, a.chip.age_ns)
    for name in ("g_s", "faults", "pulses", "failed", "energy_j"):
        before, after = (getattr(each.chip.written, name) for each in (a, b))
        assert (before is None) == (after is None)
        np.testing.assert_array_equal(before, after)
    np.testing.assert_array_equal(x @ a, x @ b)
    if turned:
        assert b.T.reads == 20
        np.testing.assert_array_equal(z @ a.T, z @ b.T)
    np.testing.assert_array_equal(x[:3] @ a.wait(3600.0), x[:3] @ b.wait(3600.0))


def test_saving_the_transpose_saves_the_matrix(tmp_path):
    a = map_matrix(W, NOISY).program(seed=1)
    a.T.mvm(Z)
    a.T.save(tmp_path / "a.npz")
    b = aimc.load_matrix(tmp_path / "a.npz")
    np.testing.assert_array_equal(X @ a, X @ b)
    np.testing.assert_array_equal(Z @ a.T, Z @ b.T)


def spoil(path, facts=None, **arrays):
    """Write the archive again with some facts or arrays changed; None takes one away."""
    with np.load(path) as archive:
        held = dict(archive)
    meta = json.loads(str(held.pop("meta"))) | (facts or {})
    held = {k: v for k, v in {**held, **arrays}.items() if v is not None}
    np.savez(path, meta=np.array(json.dumps(meta)), **held)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"facts": {"schema": "aimc-sim.matrix/2"}},
         r"schema is aimc-sim.matrix/2, this version reads aimc-sim.matrix/1"),
        ({"facts": {"seed": "7"}}, "lacks or garbles seed"),
        ({"facts": {"reads": [1, -1]}}, "no counts"),
        ({"facts": {"reads": [1]}}, "no counts"),
        ({"facts": {"chip": "name = 1"}}, "chip in "),
        ({"w": None}, "lacks w"),
        ({"w": W[:, :3]}, r"holds \(1, 840\) conductances"),
        ({"w": np.full(W.shape, np.nan)}, "Its w are not finite numbers"),
        ({"programmed_s": np.zeros((1, 3), np.float32)}, r"holds \(1, 3\) conductances"),
        ({"adc_range": np.ones((1, 14))}, r"and \(1, 14\) ranges"),
        ({"adc_range": np.zeros((4, 14))}, "Its adc_range are not above zero"),
        ({"faults": np.zeros((1, 3), np.int8)}, "Its faults are not int8"),
        ({"faults": np.full((1, 840), 9, np.int8)}, "Its faults are not codes"),
    ],
)
def test_damaged_or_newer_files_are_refused_in_words(changes, words, tmp_path):
    path = tmp_path / "a.npz"
    map_matrix(W, NOISY).program(seed=1).save(path)
    load_matrix(path)
    spoil(path, **changes)
    with pytest.raises(InputError, match=words):
        load_matrix(path)
    assert SCHEMA == "aimc-sim.matrix/1"


def test_what_is_no_saved_matrix_is_refused_in_words(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        load_matrix(tmp_path / "absent.npz")
    np.save(tmp_path / "one.npy", W)
    with pytest.raises(InputError, match="holds one array"):
        load_matrix(tmp_path / "one.npy")
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(InputError, match="cannot be read"):
        load_matrix(tmp_path / "cut.npz")


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path):
    a = map_matrix(W, NOISY).program(seed=1)
    with pytest.raises(UsageError, match=r"Save the matrix as .* Choose a place"):
        a.save(tmp_path / "absent" / "a.npz")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match="Save the matrix"):
        a.save(tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
