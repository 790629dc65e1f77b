"""Programmed chips on disk: as they were, or refused in three parts."""

from __future__ import annotations

import dataclasses
import json
import zipfile

import numpy as np
import pytest
from small_models import PCM, random_model

import ssm
from aimc_sim.errors import InputError, UsageError


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Path of a file with two programmed chips."""
    x = np.random.default_rng(1).random((3, 8, 1))
    programmed = ssm.deploy(random_model(seed=1), PCM, calibrate=x).program(seed=4, chips=2)
    path = tmp_path_factory.mktemp("chips") / "chips.npz"
    programmed.wait(60.0).save(path)
    return path


def changed(saved, path, **arrays):
    """Write a copy of the file with some arrays replaced, and those that are None left out."""
    with np.load(saved) as archive:
        new = {**{key: archive[key] for key in archive.files}, **arrays}
    np.savez(path, **{key: value for key, value in new.items() if value is not None})
    return path


def facts_of(saved):
    with np.load(saved) as archive:
        return json.loads(str(archive["meta"]))


@pytest.mark.compiled
def test_chips_come_back_with_seed_clock_and_conductances(saved):
    found = ssm.load_chip(saved)
    assert (found.chip.seed, found.chips, found.time_s) == (4, 2, 60.0)
    with np.load(saved) as archive:
        np.testing.assert_array_equal(found.chip.programmed_s, archive["programmed_s"])


def test_damage_in_any_array_of_the_file_is_an_input_error(saved, tmp_path):
    whole = saved.read_bytes()
    path = tmp_path / "bad.npz"
    with zipfile.ZipFile(saved) as archive:
        members = [(each.header_offset, each.compress_size) for each in archive.infolist()]
    for offset, size in members:
        start = offset + 30 + whole[offset + 26] + whole[offset + 28]  # behind name and extras
        for place in (start, start + size // 2):
            damaged = bytearray(whole)
            damaged[place : place + 8] = b"\xff" * 8
            path.write_bytes(damaged)
            with pytest.raises(InputError, match="It cannot be read"):
                ssm.load_chip(path)
    for length in (0, 100, len(whole) // 2):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match="It cannot be read"):
            ssm.load_chip(path)


@pytest.mark.parametrize("name", ["chip", "form", "decay", "digital", "seed", "clock_ns", "sha256"])
def test_a_fact_that_is_missing_or_of_a_wrong_kind_is_named(saved, tmp_path, name):
    facts = facts_of(saved)
    for wrong in (
        {key: value for key, value in facts.items() if key != name},
        {**facts, name: {"no": "such kind"}},
    ):
        path = changed(saved, tmp_path / "bad.npz", meta=np.array(json.dumps(wrong)))
        with pytest.raises(InputError, match=f"It lacks or garbles {name}"):
            ssm.load_chip(path)


@pytest.mark.parametrize("text", ["[1, 2]", "3", "null", "{", ""])
def test_facts_that_are_no_mapping_are_refused(saved, tmp_path, text):
    path = changed(saved, tmp_path / "bad.npz", meta=np.array(text))
    with pytest.raises(InputError, match="Its facts (are no mapping|cannot be read)"):
        ssm.load_chip(path)


def test_a_newer_schema_is_refused_by_name(saved, tmp_path):
    meta = np.array(json.dumps({**facts_of(saved), "schema": "aimc-sim.programmed/9"}))
    with pytest.raises(InputError, match=r"programmed/9, this version reads .*programmed/1"):
        ssm.load_chip(changed(saved, tmp_path / "bad.npz", meta=meta))


def test_what_no_caller_asked_for_is_the_files_mistake(saved, tmp_path):
    meta = np.array(json.dumps({**facts_of(saved), "form": "leapfrg"}))
    with pytest.raises(InputError, match="leapfrg"):
        ssm.load_chip(changed(saved, tmp_path / "bad.npz", meta=meta))


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"signal": None}, "It lacks signal"),
        ({"signal": np.array(["a"])}, "signal are not finite numbers"),
        ({"programmed_s": np.full((1, 4), np.nan)}, "programmed_s are not finite numbers"),
        ({"programmed_s": np.ones((1, 4), np.float32)}, "conductances, the layout has"),
        ({"programmed_s": np.ones(4, np.float32)}, "conductances, the layout has"),
        ({"model": np.zeros(10, np.uint8)}, "Load the chip"),
    ],
    ids=str,
)
def test_arrays_that_cannot_be_are_refused(saved, tmp_path, arrays, text):
    with pytest.raises(InputError, match=text):
        ssm.load_chip(changed(saved, tmp_path / "bad.npz", **arrays))


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    """Two chips with faults and what a write loop might have counted, and their file."""
    x = np.random.default_rng(1).random((3, 8, 1))
    spec = PCM.replace(faults={"stuck_low": 0.05, "dead_rows": 0.05}, cells_per_weight=2)
    programmed = ssm.deploy(random_model(seed=1), spec, calibrate=x).program(seed=4, chips=2)
    written = programmed.chip.written
    shape = written.g_s.shape
    rng = np.random.default_rng(2)
    written = dataclasses.replace(
        written, pulses=rng.integers(1, 50, shape, np.uint16), failed=rng.random(shape) < 0.1,
        energy_j=rng.random(shape, np.float32),
    )
    programmed.chip.written = written
    path = tmp_path_factory.mktemp("chips") / "faulty.npz"
    programmed.wait(60.0).save(path)
    return programmed, path


@pytest.mark.compiled
def test_faults_and_what_writing_took_come_back(faulty):
    before, path = faulty
    found = ssm.load_chip(path)
    for name in ("g_s", "faults", "pulses", "failed", "energy_j"):
        expected, loaded = (getattr(each.chip.written, name) for each in (before, found))
        np.testing.assert_array_equal(loaded, expected)
        assert loaded.dtype == expected.dtype
    x = np.random.default_rng(3).random((2, 8, 1))
    np.testing.assert_array_equal(found.infer(x).logits, before.infer(x).logits)


@pytest.mark.compiled
def test_files_from_before_faults_and_write_loops_are_read(saved):
    written = ssm.load_chip(saved).chip.written
    with np.load(saved) as archive:
        assert set(archive.files) == {"meta", "model", "signal", "programmed_s"}
    assert (written.faults, written.pulses, written.failed, written.energy_j) == (None,) * 4


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("faults", lambda old: old.astype(np.int64)),
        ("faults", lambda old: np.where(old == 1, np.int8(4), old)),
        ("faults", lambda old: old[:, :-1]),
        ("pulses", lambda old: old.astype(float)),
        ("failed", lambda old: old.astype(np.int8)),
        ("energy_j", lambda old: old[0]),
    ],
    ids=str,
)
def test_what_cannot_be_said_of_the_cells_is_refused_by_name(faulty, tmp_path, name, wrong):
    _, path = faulty
    with np.load(path) as archive:
        bad = wrong(archive[name])
    with pytest.raises(InputError, match=f"Its {name} are not .* values of its cells"):
        ssm.load_chip(changed(path, tmp_path / "bad.npz", **{name: bad}))


def test_other_files_are_refused(tmp_path):
    np.save(tmp_path / "one.npy", np.ones(3))
    with pytest.raises(InputError, match="It holds one array"):
        ssm.load_chip(tmp_path / "one.npy")
    with pytest.raises(InputError, match="It cannot be read"):
        ssm.load_chip(tmp_path / "absent.npz")


def test_a_place_that_cannot_be_written_is_a_usage_error_as_everywhere(saved, tmp_path):
    with pytest.raises(UsageError, match="The system refuses"):
        ssm.load_chip(saved).save(tmp_path / "absent" / "chips.npz")
