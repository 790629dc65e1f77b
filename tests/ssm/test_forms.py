"""Analog forms of A: exact nominal dynamics, and stability where it is promised."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import random_model

from aimc_sim.errors import UsageError
from ssm.forms import (
    FORMS,
    leapfrog_cells,
    leapfrog_matrix,
    power_of_two_above,
    state_form,
)

RADII = st.floats(0.0, 1.0, exclude_max=True, allow_subnormal=False)
ANGLES = st.one_of(
    st.floats(-np.pi, np.pi), st.sampled_from([0.0, np.pi / 2, -np.pi / 2, np.pi, -np.pi])
)
COEFFICIENTS = st.floats(-100.0, 100.0, allow_subnormal=False)


@pytest.fixture(scope="module")
def oracle(shared):
    with np.load(shared / "reference" / "leapfrog.npz") as file:
        return {key: file[key] for key in file}


def run_leapfrog(cells, u):
    """Return y (time, K) of the sequential leapfrog recurrence in float64."""
    p, q = np.zeros(cells.e.size), np.zeros(cells.e.size)
    y = np.empty((len(u), cells.e.size))
    for k, value in enumerate(u):
        p1 = p - cells.e * q
        q1 = q + cells.e * p1
        p = cells.sign * (p1 - cells.d * p1) + value
        q = cells.sign * (q1 - cells.d * q1)
        y[k] = cells.c0 * p + cells.c1 * q
    return y


def run_blocks(form, name, u, n_heads, digital_decay):
    """Return y (time, H) of the heads for one layer's blocks and readout row, in float64.

    u : (time, H). A's products are state rows times block columns, y = x @ w.
    """
    n_modes = len(form.sign) // n_heads
    x = np.zeros((len(form.sign), 2))
    y = np.empty(u.shape)
    for k, inputs in enumerate(u):
        if name == "digital":
            z = (form.pole[0] + 1j * form.pole[1]) * (x[:, 0] + 1j * x[:, 1])
            x = np.stack([z.real, z.imag], axis=1)
        elif name == "leapfrog":
            p, q = x.T
            p = p - form.blocks[:, 1, 0] * q
            q = q + form.blocks[:, 0, 0] * p
            d0, d1 = [form.decay] * 2 if digital_decay else form.blocks[:, :, 1].T
            x = form.sign[:, None] * np.stack([p - d0 * p, q - d1 * q], axis=1)
        else:
            product = (x[:, None, :] @ form.blocks)[:, 0]
            x = product + x if name == "delta" else product
        x[:, 0] += np.repeat(inputs, n_modes)
        rows = np.concatenate(
            [
                x.T.reshape(2, n_heads, n_modes).transpose(1, 0, 2).reshape(n_heads, -1),
                inputs[:, None],
            ],
            axis=1,
        )
        y[k] = (rows * form.readout).sum(axis=1)
    return y


def test_leapfrog_cells_equal_the_reference_with_its_input_weight_moved_to_the_readout(oracle):
    cells = leapfrog_cells(oracle["dA"], 2 * oracle["C"] * oracle["dB"])
    np.testing.assert_array_equal(cells.sign, oracle["sigma"])
    np.testing.assert_allclose(cells.e, oracle["seq_e"], rtol=0, atol=1e-14)
    np.testing.assert_allclose(cells.d, oracle["seq_d"], rtol=0, atol=1e-14)
    for ours, theirs in ((cells.c0, "seq_c0"), (cells.c1, "seq_c1")):
        expected = oracle["seq_b0"] * oracle[theirs]
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


def test_leapfrog_recurrence_gives_the_reference_output_at_every_step(oracle):
    cells = leapfrog_cells(oracle["dA"], 2 * oracle["C"] * oracle["dB"])
    y = run_leapfrog(cells, oracle["u"])
    scale = np.abs(oracle["y"]).max(axis=0)
    assert (np.abs(y - oracle["y"]).max(axis=0) < 1e-9 * scale).all()


def test_reference_covers_the_angles_at_which_the_form_changes(oracle):
    angle = np.angle(oracle["dA"])
    for special in (0.0, np.pi / 2, -np.pi / 2, np.pi):
        assert (np.abs(angle - special) < 1e-9).any()


@given(radius=RADII, angle=ANGLES)
@settings(max_examples=400, deadline=None, derandomize=True)
def test_nominal_leapfrog_cells_have_the_eigenvalues_of_the_mode(radius, angle):
    pole = np.array(radius * np.exp(1j * angle))
    cells = leapfrog_cells(pole, np.array(1.0 + 0.5j))
    matrix = cells.sign * leapfrog_matrix(cells.e, cells.e, cells.d, cells.d)
    found = np.sort_complex(np.linalg.eigvals(matrix))
    expected = np.array([pole, pole.conj()])
    assert min(np.abs(found - expected).max(), np.abs(found - expected[::-1]).max()) < 1e-12


@given(radius=RADII, angle=ANGLES)
@settings(max_examples=400, deadline=None, derandomize=True)
def test_leapfrog_cells_are_never_negative_nor_larger_than_the_root_of_two(radius, angle):
    pole = np.array(radius * np.exp(1j * angle))
    cells = leapfrog_cells(pole, np.array(1.0 + 0j))
    assert 0 <= cells.e <= np.sqrt(2) * (1 + 1e-15)
    # one rounding of the product may put the pole itself on the circle, or an ulp beyond
    assert abs(cells.d - (1 - radius)) <= 1e-15
    assert cells.d > 0 or radius > 1 - 1e-15
    assert cells.d <= 1
    assert abs(cells.sign) == 1


@given(radius=RADII, angle=ANGLES, re=COEFFICIENTS, im=COEFFICIENTS)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_leapfrog_answers_as_the_complex_mode_does(radius, angle, re, im):
    pole, gain = radius * np.exp(1j * angle), complex(re, im)
    u = np.random.default_rng(0).normal(size=60)
    cells = leapfrog_cells(np.array([pole]), np.array([gain]))
    x, expected = 0j, []
    for value in u:
        x = pole * x + value
        expected.append((gain * x).real)
    tolerance = 1e-12 * max(1.0, abs(gain)) * np.abs(u).sum()
    np.testing.assert_allclose(run_leapfrog(cells, u)[:, 0], expected, rtol=0, atol=tolerance)


@given(
    radius=st.floats(0.93, 0.99999),
    angle=ANGLES,
    errors=st.tuples(*[st.floats(-0.3899, 0.3899)] * 4),
)
@settings(max_examples=500, deadline=None, derandomize=True)
def test_leapfrog_is_stable_for_any_constant_errors_below_39_percent(radius, angle, errors):
    cells = leapfrog_cells(np.array(radius * np.exp(1j * angle)), np.array(1.0 + 0j))
    nominal = (cells.e, cells.e, cells.d, cells.d)
    matrix = leapfrog_matrix(*(v * (1 + a) for v, a in zip(nominal, errors, strict=True)))
    assert np.abs(np.linalg.eigvals(matrix)).max() < 1


def test_leapfrog_is_stable_in_all_corners_of_39_percent_error_on_a_grid_of_modes():
    radius = 1 - np.geomspace(1e-5, 0.07, 30)[:, None]
    angle = np.concatenate([[0.0, 1e-9, 1e-4], np.linspace(0.01, np.pi / 2, 60)])
    cells = leapfrog_cells(radius * np.exp(1j * angle), np.ones((30, angle.size), complex))
    for a in itertools.product([-0.39, 0.39], repeat=4):
        matrix = leapfrog_matrix(
            cells.e * (1 + a[0]), cells.e * (1 + a[1]), cells.d * (1 + a[2]), cells.d * (1 + a[3])
        )
        # at angle 0 and 1e-9 the poles are real, 1 - d (1 + a) at most
        assert np.abs(np.linalg.eigvals(matrix)).max() < 1


@pytest.mark.parametrize(
    ("rho", "allowed"), [(0.9999, 0.414), (0.99, 0.411), (0.93, 0.395), (0.8, 0.36)]
)
def test_worst_error_allowed_at_a_right_angle_is_the_published_one(rho, allowed):
    cells = leapfrog_cells(np.array(rho * 1j), np.array(1.0 + 0j))

    def worst(a):
        return max(
            np.abs(
                np.linalg.eigvals(
                    leapfrog_matrix(
                        *(
                            np.array([cells.e, cells.e, cells.d, cells.d])
                            * (1 + a * np.array(signs))
                        )
                    )
                )
            ).max()
            for signs in itertools.product([-1, 1], repeat=4)
        )

    assert worst(allowed - 0.002) < 1 < worst(allowed + 0.002)


@given(
    e1=st.floats(0, 3),
    e2=st.floats(0, 3),
    d1=st.floats(0.001, 0.999),
    d2=st.floats(0.001, 0.999),
)
@settings(max_examples=500, deadline=None, derandomize=True)
def test_determinant_depends_on_the_decays_alone_and_jury_bounds_the_angles(e1, e2, d1, d2):
    matrix = leapfrog_matrix(*(np.array(v) for v in (e1, e2, d1, d2)))
    assert np.linalg.det(matrix) == pytest.approx((1 - d1) * (1 - d2), abs=1e-12)
    bound = (2 - d1) * (2 - d2) / (1 - d2)
    if abs(e1 * e2 - bound) > 1e-9 * bound:  # on the bound itself rounding decides
        assert (np.abs(np.linalg.eigvals(matrix)).max() < 1) == (e1 * e2 < bound)


@pytest.mark.parametrize(
    ("name", "digital_decay"), [*((f, False) for f in FORMS), ("leapfrog", True)]
)
def test_blocks_and_readout_of_every_form_answer_as_the_layer_does(name, digital_decay):
    layer = random_model(seed=11, n_heads=5, n_modes=6, real_share=0.3).layers[0]
    u = np.random.default_rng(1).normal(size=(1, 150, 5))
    expected, _ = layer.respond(u)
    form = state_form(layer, name, digital_decay=digital_decay)
    found = run_blocks(form, name, u[0], 5, digital_decay)
    assert np.abs(found - expected[0]).max() < 1e-11 * np.abs(expected).max()


@pytest.mark.parametrize("name", ["direct", "delta", "leapfrog"])
def test_scales_are_powers_of_two_of_which_the_largest_weight_uses_more_than_half(name):
    layer = random_model(seed=12, n_heads=20, n_modes=20).layers[0]
    form = state_form(layer, name)
    assert (np.frexp(form.scale)[0] == 0.5).all()
    axes = 1 if name == "leapfrog" else (1, 2)
    share = np.abs(form.blocks).max(axis=axes, keepdims=True) / form.scale
    smallest = form.scale <= 2.0**-16
    assert (share <= 1 + 1e-9).all()
    assert (share > 0.5)[~np.broadcast_to(smallest, share.shape)].all()


def test_leapfrog_sits_on_single_cells_and_the_other_forms_on_pairs():
    layer = random_model(seed=13).layers[0]
    assert not state_form(layer, "leapfrog").pair
    assert (state_form(layer, "leapfrog").blocks >= 0).all()
    assert state_form(layer, "delta").pair
    assert state_form(layer, "direct").pair
    assert state_form(layer, "digital").blocks is None
    assert state_form(layer, "leapfrog", digital_decay=True).blocks.shape[2] == 1


def test_power_of_two_above_leaves_powers_and_lifts_everything_else():
    x = np.array([1.0, 0.5, 0.500001, 3.0, -3.0, 0.0, 1e-9])
    expected = [1.0, 0.5, 1.0, 4.0, 4.0, 2.0**-16, 2.0**-16]
    np.testing.assert_array_equal(power_of_two_above(x), expected)


def test_unknown_form_names_the_nearest():
    layer = random_model(seed=0).layers[0]
    with pytest.raises(
        UsageError, match="Use form 'leapfrg'. There is no such form. Did you mean 'leapfrog'"
    ):
        state_form(layer, "leapfrg")
    with pytest.raises(UsageError, match="Choose one of digital, direct, delta, leapfrog"):
        state_form(layer, "zzz")
