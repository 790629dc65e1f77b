"""Balanced truncation of diagonal heads: Gramians, Hankel values, bounds, kinds of poles."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import solve_discrete_lyapunov

from aimc_sim.errors import InputError
from ssm.reduction import (
    Modes,
    energy,
    gramians,
    hankel_values,
    kernel_error,
    order_within,
    reduce_head,
    truncate,
)

ANGLES = np.linspace(0.0, np.pi, 257)


def random_modes(seed, n_pairs=6, n_real=3, longest=0.999):
    rng = np.random.default_rng(seed)
    n = n_pairs + n_real
    size = 1 - np.exp(rng.uniform(np.log(1 - longest), np.log(0.5), n))
    alone = np.arange(n) >= n_pairs
    turn = np.exp(1j * rng.uniform(0.01, 3.1, n))
    pole = size * np.where(alone, rng.choice([-1.0, 1.0], n), turn)
    gain = rng.normal(size=n) + 1j * np.where(alone, 0.0, rng.normal(size=n))
    return Modes(pole, gain * (1 - size), np.where(alone, 1.0, 2.0))


def distance(one, other, angles=ANGLES):
    return np.abs(one.response(angles) - other.response(angles)).max()


def size(modes):
    return np.abs(modes.response(ANGLES)).max()


def at_poles(modes):
    """Return angles at which the response is largest or changes fastest."""
    near = np.abs(np.angle(modes.pole))[:, None] + np.array([-1e-3, 0.0, 1e-3])
    return np.concatenate([ANGLES, near.ravel()])


@pytest.mark.parametrize("seed", range(5))
def test_gramians_in_closed_form_solve_the_lyapunov_equations(seed):
    a, b, c, p, q = gramians(random_modes(seed))
    expected = solve_discrete_lyapunov(a, np.outer(b, b))
    np.testing.assert_allclose(p, expected, rtol=0, atol=1e-9 * np.abs(expected).max())
    expected = solve_discrete_lyapunov(a.T, np.outer(c, c))
    np.testing.assert_allclose(q, expected, rtol=0, atol=1e-9 * np.abs(expected).max())


def test_the_real_system_has_the_impulse_response_of_the_modes():
    modes = random_modes(1)
    a, b, c, _, _ = gramians(modes)
    found = [c @ np.linalg.matrix_power(a, step) @ b for step in range(50)]
    np.testing.assert_allclose(found, modes.impulse_response(50), rtol=0, atol=1e-13)


def test_energy_is_that_of_a_long_impulse_response():
    modes = random_modes(2, longest=0.99)
    assert energy(modes) == pytest.approx((modes.impulse_response(4000) ** 2).sum(), rel=1e-10)


def test_kernel_error_counts_the_skip_at_the_first_step_alone():
    before, after = random_modes(3, longest=0.99), random_modes(4, longest=0.99)
    change = after.impulse_response(4000) - before.impulse_response(4000)
    change[0] += 0.25
    assert kernel_error(before, after, 0.25) == pytest.approx(np.linalg.norm(change), rel=1e-9)


@pytest.mark.parametrize("seed", range(8))
def test_a_truncation_that_leaves_out_nothing_has_the_transfer_function_of_the_head(seed):
    modes = random_modes(seed)
    # a mode that nobody hears adds a state, so that asking for all others truncates
    more = Modes(np.append(modes.pole, 0.5), np.append(modes.gain, 0.0), np.append(modes.weight, 1))
    reduced = truncate(more, modes.n_states)
    assert reduced.n_states <= modes.n_states
    angles = at_poles(modes)
    assert distance(reduced, modes, angles) < 1e-9 * np.abs(modes.response(angles)).max()


@given(seed=st.integers(0, 10_000), share=st.floats(0.05, 0.95))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_errors_of_a_truncation_stay_within_twice_the_dropped_hankel_values(seed, share):
    modes = random_modes(seed)
    values = hankel_values(modes)
    reduced = truncate(modes, int(share * modes.n_states))
    bound = 2 * values[reduced.n_states :].sum()
    rounding = 1e-9 * size(modes)
    assert distance(reduced, modes, at_poles(modes)) <= bound + rounding
    assert kernel_error(modes, reduced) <= bound + 1e-7 * np.sqrt(energy(modes))
    # gains fitted anew come nearer still, with the skip for the first step
    fitted, skip = reduce_head(modes, int(share * modes.n_states))
    error = kernel_error(modes, fitted, skip)
    assert error <= kernel_error(modes, reduced) + 1e-7 * np.sqrt(energy(modes))


@given(seed=st.integers(0, 10_000), n_states=st.integers(1, 14), n_steps=st.integers(2, 500))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_reduced_poles_are_stable_and_come_in_pairs_or_are_real(seed, n_states, n_steps):
    modes = random_modes(seed)
    reduced, _ = reduce_head(modes, n_states, n_steps)
    assert (np.abs(reduced.pole) <= np.abs(modes.pole).max() * (1 + 1e-12)).all()
    alone = reduced.weight == 1.0
    assert (reduced.pole.imag[alone] == 0).all()
    assert (reduced.gain.imag[alone] == 0).all()
    assert (reduced.pole.imag[~alone] > 0).all()
    assert reduced.n_states <= n_states


def test_a_horizon_brings_the_first_steps_nearer():
    modes = random_modes(5, n_pairs=12, longest=0.9999)
    errors = {}
    for n_steps in (None, 50):
        reduced, skip = reduce_head(modes, 6, n_steps)
        change = reduced.impulse_response(50) - modes.impulse_response(50)
        change[0] += skip
        errors[n_steps] = np.linalg.norm(change)
        assert change[0] == pytest.approx(0.0, abs=1e-12)
    assert errors[50] < 0.8 * errors[None]


def test_gains_are_the_least_squares_ones_of_a_long_response():
    modes = random_modes(6, longest=0.98)
    reduced, _ = reduce_head(modes, 5)
    steps = np.arange(1, 3000)
    powers = reduced.pole[:, None] ** steps
    pair = reduced.weight == 2.0
    columns = np.concatenate([(reduced.weight[:, None] * powers).real, -2 * powers.imag[pair]])
    best = np.linalg.lstsq(columns.T, modes.impulse_response(3000)[1:], rcond=None)[0]
    n = reduced.pole.size
    expected = best[:n] + 0j
    expected[pair] += 1j * best[n:]
    np.testing.assert_allclose(reduced.gain, expected, rtol=1e-6, atol=1e-9)


def test_orders_never_split_equal_hankel_values():
    values = np.array([3.0, 2.0, 2.0, 1.0, 1e-14])
    assert [order_within(values, wanted) for wanted in range(6)] == [0, 1, 1, 3, 4, 4]
    assert order_within(np.ones(4), 2) == 4  # a part of an all-pass is none
    assert order_within(np.ones(4), 0) == 0


def test_a_head_without_states_and_one_that_asks_for_all_stay_as_they_are():
    modes = random_modes(7)
    assert truncate(modes, modes.n_states) is modes
    assert truncate(modes, 0).n_states == 0
    assert hankel_values(truncate(modes, 0)).size == 0


def test_poles_on_the_unit_circle_have_no_gramians():
    with pytest.raises(InputError, match="1 of its poles lie on or outside the unit circle"):
        Modes(np.array([1.0 + 0j, 0.5]), np.ones(2, complex), np.ones(2))
