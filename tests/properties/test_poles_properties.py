"""Whatever the poles, bits and form: a rounded A is stable, and near where it was."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssm.grids import round_poles
from ssm.poles import BOUNDED, FORMS_OF_A, from_coordinates, to_coordinates
from ssm.schemes import Scheme


@st.composite
def poles(draw):
    """Poles (H, M) inside the unit circle, as slow as 1 - 1e-12, real ones and zero among them."""
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 6)))
    n = shape[0] * shape[1]
    exponent = draw(st.lists(st.floats(-12, 0), min_size=n, max_size=n))
    angle = draw(
        st.lists(
            st.one_of(st.floats(-np.pi, np.pi), st.sampled_from([0.0, np.pi, np.pi / 2, -np.pi])),
            min_size=n, max_size=n,
        )
    )
    size = 1 - 10.0 ** np.array(exponent)
    return (size * np.exp(1j * np.array(angle))).reshape(shape)


def schemes():
    kinds = [
        {"form_of_a": form, "per": per, "sides": sides}
        for form in FORMS_OF_A
        for per in ("tensor", "channel", "mode")
        for sides in ("symmetric", "asymmetric")
        if not (per == "mode" and sides == "asymmetric")
    ]
    return st.sampled_from(kinds)


@settings(max_examples=400)
@given(pole=poles(), kind=schemes(), bits=st.integers(2, 16), decay=st.integers(1, 16))
def test_no_bits_and_no_form_put_a_pole_on_or_outside_the_unit_circle(pole, kind, bits, decay):
    form, choice = kind["form_of_a"], Scheme(**kind).of("a")
    grid, outside = round_poles(pole, bits, form, choice, decay if form in BOUNDED else None)
    found = grid.values()
    assert (np.abs(found) < 1).all()
    assert (outside == 0) if form in BOUNDED else (0 <= outside <= pole.size)
    codes = grid.codes.astype(int)
    widths = np.array([bits, decay if form in BOUNDED else bits])
    assert (np.ptp(np.concatenate([codes.reshape(-1, 2), 0 * codes[:1, 0]]), axis=0)
            < 2**widths).all()


@settings(max_examples=200)
@given(pole=poles(), form=st.sampled_from(FORMS_OF_A))
def test_coordinates_lead_back_to_the_poles(pole, form):
    x, signs = to_coordinates(pole, form)
    np.testing.assert_allclose(from_coordinates(x, form, signs), pole, atol=2e-14, rtol=0)


@settings(max_examples=200)
@given(pole=poles(), form=st.sampled_from(BOUNDED), bits=st.integers(2, 12))
def test_the_bounded_forms_err_by_half_a_step_of_each_number(pole, form, bits):
    grid, _ = round_poles(pole, bits, form, Scheme(form).of("a"))
    x, _ = to_coordinates(pole, form)
    assert (np.abs((grid.codes - grid.zero) * grid.scale - x)
            <= (0.5 + 1e-6) * grid.scale).all()


@settings(max_examples=200)
@given(pole=poles(), form=st.sampled_from(["cartesian", "delta"]), bits=st.integers(5, 12))
def test_a_pole_moved_inside_stays_within_a_step_and_a_half(pole, form, bits):
    grid, outside = round_poles(pole, bits, form, Scheme(form).of("a"))
    error = np.abs(grid.values() - pole) / grid.scale[..., 0]
    assert error.max() <= np.sqrt(2) + 1e-6
    if not outside:
        assert error.max() <= np.sqrt(0.5) + 1e-6


@pytest.mark.parametrize("form", ["cartesian", "delta"])
def test_modes_at_the_edge_are_counted_and_kept_inside(form):
    pole = np.array([[0.99999 * np.exp(1j * np.pi / 6), 0.1 + 0.2j, 0.99999 * np.exp(1.5j)]])
    grid, outside = round_poles(pole, 4, form, Scheme(form).of("a"))
    steps = grid.scale[..., 0]
    shifted = pole - 1 if form == "delta" else pole
    nearest = steps * (np.rint(shifted.real / steps) + 1j * np.rint(shifted.imag / steps))
    nearest = nearest + 1 if form == "delta" else nearest
    assert outside == (np.abs(nearest) >= 1).sum() > 0
    inside = np.abs(nearest) < 1
    np.testing.assert_allclose(grid.values()[inside], nearest[inside], atol=1e-12)


def test_powers_of_two_of_a_mode_are_shifts():
    pole = np.array([[0.999 * np.exp(0.01j), 0.9 * np.exp(2j)]])
    for form in ("cartesian", "delta", "leapfrog"):
        grid, _ = round_poles(pole, 8, form, Scheme(form, per={"a": "mode"}).of("a"))
        scale = np.broadcast_to(grid.scale, grid.codes.shape)[..., 0]
        np.testing.assert_array_equal(np.log2(scale), np.rint(np.log2(scale)))
    fine, _ = round_poles(pole, 8, "delta", Scheme("delta", per={"a": "mode"}).of("a"))
    coarse, _ = round_poles(pole, 8, "delta", Scheme("delta").of("a"))
    # the slow mode's own scale is 64 times finer than that of the head
    error, wide = np.abs(fine.values() - pole)[0, 0], np.abs(coarse.values() - pole)[0, 0]
    assert error < 1e-4 < wide


def test_few_bits_of_decay_leave_the_angle_as_fine():
    pole = np.exp(-np.array([[0.001, 0.01, 0.1]]) + 1j * np.array([[0.1, 1.0, 2.5]]))
    for form in BOUNDED:
        grid, _ = round_poles(pole, 8, form, Scheme(form).of("a"), decay_bits=1)
        assert np.unique(grid.codes[..., 1]).size == 2
        np.testing.assert_allclose(np.angle(grid.values()), np.angle(pole), atol=2.4 / 255)
