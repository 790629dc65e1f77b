"""The normals are normal and independent; every tolerance follows from the sample size."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from aimc_sim.kernels.cells import stream_key
from aimc_sim.kernels.philox import fill_normals
from aimc_sim.randomness import Purpose, seed_words

pytestmark = pytest.mark.compiled

N = 1 << 20
SIGMAS = 5.0  # of the estimate itself: 6e-7 by chance


def normals(*, seed=1, purpose=Purpose.READ, replica=0, place=0, words=(0, 0, 0), n=N):
    key = stream_key(*seed_words(seed), int(purpose), replica, place)
    out = np.empty(n + 64, np.float32)
    fill_normals(out, 0, n, *map(np.uint64, key), *map(np.uint64, words))
    return out[:n].astype(float)


@pytest.fixture(scope="module")
def z():
    return normals()


@pytest.mark.parametrize(
    ("power", "mean", "variance"), [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96), (6, 15, 10170)]
)
def test_moments_up_to_the_sixth_are_those_of_a_normal(z, power, mean, variance):
    assert abs((z**power).mean() - mean) < SIGMAS * np.sqrt(variance / N)


def test_the_distribution_passes_kolmogorov_and_smirnov(z):
    assert stats.kstest(z, "norm").pvalue > 1e-4


@pytest.mark.parametrize("lane", range(4))
def test_every_lane_is_normal_on_its_own(z, lane):
    own = z.reshape(-1, 4, 8)[:, lane].ravel()
    assert stats.kstest(own, "norm").pvalue > 1e-4


@pytest.mark.parametrize("beyond", [2.0, 3.0, 4.0])
@pytest.mark.parametrize("side", [-1, 1])
def test_tails_hold_as_many_as_they_should(z, beyond, side):
    expected = N * stats.norm.sf(beyond)
    assert abs((side * z > beyond).sum() - expected) < SIGMAS * np.sqrt(expected)


def test_no_normal_leaves_its_stated_range(z):
    assert np.isfinite(z).all()
    assert 4.5 < np.abs(z).max() <= 6.67


def test_the_two_normals_of_one_word_pair_have_a_uniform_angle_and_an_exponential_square(z):
    lanes = z.reshape(-1, 4, 8)
    for first, second in ((0, 1), (2, 3)):
        a, b = lanes[:, first].ravel(), lanes[:, second].ravel()
        angle = np.arctan2(b, a) / (2 * np.pi) + 0.5
        assert stats.kstest(angle, "uniform").pvalue > 1e-4
        assert stats.kstest((a * a + b * b) / 2, "expon").pvalue > 1e-4


def assert_uncorrelated(a, b):
    """Neither the values, nor their squares, nor one with the square of the other."""
    n = len(a)
    for p, q in itertools.product((1, 2), repeat=2):
        product = (a**p - (p == 2)) * (b**q - (q == 2)) / np.sqrt(p * q)
        assert abs(product.mean()) < SIGMAS * product.std() / np.sqrt(n), (p, q)


@pytest.mark.parametrize(("first", "second"), [*itertools.combinations(range(4), 2)])
def test_lanes_are_independent(z, first, second):
    lanes = z.reshape(-1, 4, 8)
    assert_uncorrelated(lanes[:, first].ravel(), lanes[:, second].ravel())


@pytest.mark.parametrize("lag", [1, 2, 7, 8, 16, 31, 32, 33, 256])
def test_neighbouring_elements_are_independent(z, lag):
    assert_uncorrelated(z[:-lag], z[lag:])


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 2},
        {"seed": 1 + (1 << 32)},
        {"purpose": Purpose.READ_CELL},
        {"replica": 1},
        {"place": 1},
        {"words": (1, 0, 0)},
        {"words": (0, 1, 0)},
        {"words": (0, 0, 1)},
    ],
    ids=lambda other: "-".join(map(str, next(iter(other.items())))),
)
def test_streams_that_differ_in_one_part_of_their_address_are_independent(z, other):
    assert_uncorrelated(z, normals(**other))


def test_successive_steps_of_one_element_are_independent_and_normal():
    n_steps = 20_000
    series = np.array([normals(words=(0, step, 0), n=8) for step in range(n_steps)])
    assert stats.kstest(series.ravel(), "norm").pvalue > 1e-4
    for lag in (1, 2, 3):
        assert_uncorrelated(series[:-lag].ravel(), series[lag:].ravel())
