"""Errors say what was asked, what was found and what to do, and survive a process border."""

from __future__ import annotations

import pickle

import pytest

from aimc_sim.errors import (
    AimcError,
    CapacityError,
    DefectError,
    InputError,
    UsageError,
    nearest,
)


@pytest.mark.parametrize(
    ("kind", "code"),
    [(AimcError, 3), (DefectError, 1), (UsageError, 2), (InputError, 3), (CapacityError, 4)],
)
def test_an_error_is_three_sentences_and_an_exit_code(kind, code):
    error = kind("read x.pt", "it is empty", "give another file.")
    assert str(error) == "Read x.pt. It is empty. Give another file."
    assert error.exit_code == code


def test_an_error_keeps_its_parts_when_pickled():
    error = pickle.loads(pickle.dumps(CapacityError("map A", "too tall", "split it")))
    assert type(error) is CapacityError
    assert (error.asked, error.found, error.do) == ("map A", "too tall", "split it")


def test_the_nearest_word_is_found_or_there_is_none():
    assert nearest("leapfog", ["direct", "leapfrog", "delta"]) == "leapfrog"
    assert nearest("qqq", ["direct", "leapfrog"]) is None
    assert nearest("x", []) is None
