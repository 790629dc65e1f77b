"""Text with units: every number and unit goes in, and times come back out."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aimc_sim.errors import UsageError
from aimc_sim.units import FACTORS, format_quantity, format_time, parse_quantity

FIXED = settings(derandomize=True, deadline=None, database=None)
UNITS = [(kind, unit) for kind, factors in FACTORS.items() for unit in factors]
numbers = st.floats(-1e12, 1e12, allow_nan=False)


def test_the_units_of_the_contract_are_all_there():
    assert set(FACTORS["time"]) == {"s", "ms", "us", "ns", "min", "h", "d", "w", "y"}
    assert set(FACTORS["conductance"]) == {"S", "mS", "uS", "nS"}
    assert set(FACTORS["resistance"]) == {"ohm", "kohm"}
    assert set(FACTORS["voltage"]) == {"V", "mV"}
    assert set(FACTORS["current"]) == {"A", "mA", "uA", "nA"}
    assert set(FACTORS["energy"]) == {"J", "mJ", "uJ", "nJ", "pJ", "fJ", "aJ"}
    assert set(FACTORS["area"]) == {"m2", "mm2", "um2", "nm2"}
    assert FACTORS["time"]["y"] == 365 * 86400


@FIXED
@given(pair=st.sampled_from(UNITS), number=numbers, space=st.sampled_from(["", " ", "  "]))
def test_a_number_with_a_unit_is_that_many_of_it(pair, number, space):
    kind, unit = pair
    expected = pytest.approx(number * FACTORS[kind][unit], rel=3e-16, abs=0)
    assert parse_quantity(f"{space}{number!r}{space}{unit}{space}", kind) == expected


@pytest.mark.parametrize("text, value", [("5uS", 5e-6), ("40uS", 40e-6), ("250ns", 250e-9)])
def test_a_quantity_is_the_float_that_its_scientific_notation_is(text, value):
    kind = "time" if text.endswith("s") else "conductance"
    assert parse_quantity(text, kind) == value


@FIXED
@given(kind=st.sampled_from(sorted(FACTORS)), number=numbers)
def test_a_bare_number_is_si(kind, number):
    assert parse_quantity(repr(number), kind) == number


@FIXED
@given(pair=st.sampled_from(UNITS), kind=st.sampled_from(sorted(FACTORS)))
def test_a_unit_of_another_kind_is_refused(pair, kind):
    unit = pair[1]
    if unit in FACTORS[kind]:
        return
    with pytest.raises(
        UsageError, match=rf"Read '3{unit}' as a {kind}\. .*Write a number and one of"
    ):
        parse_quantity(f"3{unit}", kind)


@pytest.mark.parametrize(
    "text", ["", "h", "1.2.3 s", "1 h 30 min", "0x10", "nan", "inf", "1,5 s", "--1"]
)
def test_what_is_no_number_with_a_unit_is_refused(text):
    with pytest.raises(UsageError, match=r"is not a number followed by a known unit"):
        parse_quantity(text, "time")


def test_a_number_beyond_all_floats_is_refused():
    with pytest.raises(UsageError, match=r"It is not finite\. Write a finite number"):
        parse_quantity("1e400s", "time")


def test_micro_may_be_written_as_the_sign():
    assert parse_quantity("25\N{MICRO SIGN}S", "conductance") == 25e-6


@FIXED
@given(kind=st.sampled_from(sorted(FACTORS)), value=st.floats(1e-15, 1e10))
def test_a_quantity_as_a_person_writes_it_reads_back_to_three_digits(kind, value):
    text = format_quantity(value, kind)
    assert math.isclose(parse_quantity(text, kind), value, rel_tol=5.1e-3), text


@FIXED
@given(st.floats(1e-9, 1e10))
def test_a_time_as_a_person_writes_it_reads_back_to_four_digits(seconds):
    text = format_time(seconds)
    assert math.isclose(parse_quantity(text, "time"), seconds, rel_tol=5.1e-4), text


def test_round_times_are_written_in_their_largest_unit():
    times = [0, 1e-6, 0.02, 1, 90, 3600, 5400, 86400, 604800, 8 * 86400, 2592000, 31536000]
    texts = [
        "0 s",
        "1 us",
        "20 ms",
        "1 s",
        "1.5 min",
        "1 h",
        "1.5 h",
        "1 d",
        "1 w",
        "8 d",
        "30 d",
        "1 y",
    ]
    assert [format_time(seconds) for seconds in times] == texts


@pytest.mark.parametrize("text", ["1e999", "-1e400h", "1e999999h", "1e99999999999999999999s"])
def test_a_number_too_large_for_a_float_is_refused(text):
    with pytest.raises(UsageError, match="It is not finite"):
        parse_quantity(text, "time")
