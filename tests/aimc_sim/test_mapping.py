"""Weights on several cells: rounded once, summed exactly, the errors of their cells averaged."""

from __future__ import annotations

import math

import numpy as np
import pytest
from pydantic import ValidationError

from aimc_sim.errors import InputError
from aimc_sim.mapping import pieces_of
from aimc_sim.matrix import map_matrix
from aimc_sim.specs import ChipSpec

pytestmark = pytest.mark.compiled
W = np.random.default_rng(7).standard_normal((300, 40))


def exact_cells(card, **changes):
    device = ChipSpec.preset(card).device
    device = device.replace(programming=None, drift=None, relaxation=None, read_noise=None)
    return ChipSpec(name="exact", device=device, **changes)


def weights(spec, seed=0, w=W):
    return map_matrix(w, spec).program(seed).weights()[0].astype(float)


@pytest.mark.parametrize(("levels", "slices", "cells"), [(2, 8, 1), (16, 2, 3), (180, 1, 2)])
@pytest.mark.parametrize("card", ["ideal", "cmo-hfox"])
def test_exact_cells_stand_for_the_matrix_rounded_to_its_steps(card, levels, slices, cells):
    spec = exact_cells(card, levels=levels, slices=slices, cells_per_weight=cells)
    step = np.abs(W).max(axis=0) / (levels**slices - 1)
    expected = np.rint(W / step) * step
    # conductances are float32: a relative 2^-24 of each, up to 88 / 79 of a range with an offset
    np.testing.assert_allclose(weights(spec), expected, atol=3e-7 * np.abs(W).max())


def test_cells_in_parallel_without_levels_hold_the_matrix_itself():
    spec = exact_cells("ideal", cells_per_weight=4)
    np.testing.assert_allclose(weights(spec), W, atol=2e-7 * np.abs(W).max())


def test_layout_counts_the_cells_of_all_pieces():
    spec = ChipSpec.preset("ideal").replace(levels=4, slices=2, cells_per_weight=3)
    mapped = map_matrix(W, spec)
    assert pieces_of(spec).count == 6
    assert mapped.layout.n_used() == mapped.layout.n_cells == 12 * W.size
    # 256 columns hold 21 weights of 12 cells: 300 rows and 40 columns make 2 x 2 rectangles
    assert [(r.rows, r.cols) for r in mapped.layout.rectangles] == [
        (256, 252), (256, 228), (44, 252), (44, 228)
    ]


@pytest.mark.parametrize("cells", [2, 4, 9])
def test_n_cells_in_parallel_lower_the_programming_error_by_the_root_of_n(cells):
    spec = ChipSpec.preset("pcm-nandakumar2019")
    # targets far from g_min, where no cell is clipped at zero: half of the range everywhere
    w = np.full((200, 150), 0.5)
    w[0] = 1.0
    single = weights(spec.replace(**{"device.drift": None, "device.read_noise": None}), w=w)
    several = weights(
        spec.replace(
            cells_per_weight=cells, **{"device.drift": None, "device.read_noise": None}
        ), w=w,
    )
    # the idle halves are clipped at zero: their mean shifts, their spread averages as any other
    errors = [np.asarray(found[1:]) for found in (single, several)]
    ratio = errors[0].std() / errors[1].std()
    n = errors[0].size
    tolerance = 5 * math.sqrt(2 / (2 * n))  # of a ratio of two standard deviations
    assert ratio == pytest.approx(math.sqrt(cells), rel=tolerance)
    assert abs(errors[1].mean() - errors[0].mean()) < 5 * errors[0].std() * math.sqrt(2 / n)


def test_digits_carry_their_errors_with_their_weight():
    """The error of a weight on slices is that of its digits, each at its share of the range."""
    levels, slices = 4, 3
    spec = ChipSpec.preset("pcm-nandakumar2019").replace(
        levels=levels, slices=slices, **{"device.drift": None, "device.read_noise": None}
    )
    w = np.ones((200, 150))  # every digit at g_max, every idle half at g_min
    chip = map_matrix(w, spec).program(3)
    g = chip.array.by_piece(chip.chip.programmed_s)[:, :, 0].astype(float)
    span = spec.device.g_max_s - spec.device.g_min_s
    shares = np.array([48, 12, 3]) / 63
    expected = np.einsum("s,s...->...", shares, g[:, 0] - g[:, 1]) / span
    np.testing.assert_allclose(chip.weights()[0], expected, atol=1e-6)
    spread = (g[:, 0] - g[:, 1]).std(axis=(1, 2)) / span
    n = w.size
    assert chip.weights()[0].std() == pytest.approx(
        math.sqrt(((shares * spread) ** 2).sum()), rel=5 / math.sqrt(2 * n) * 2
    )


def test_read_noise_of_the_pieces_adds_up_in_the_variance():
    spec = ChipSpec.preset("pcm-nandakumar2019").replace(
        levels=8, slices=2, cells_per_weight=2, noise_in_time="white", compensation="none"
    )
    matrix = map_matrix(W[:50], spec).program(1).wait(3600.0)
    _, v, noisy = matrix.weights()
    assert noisy
    variance = matrix.array.by_piece(matrix.chip.expected().variance)[:, :, 0].astype(float)
    shares = np.repeat([8 * 7 / 63, 7 / 63], 2) / 2
    expected = np.einsum("p,ph...->...", shares**2, variance) * matrix.mapped.scale[0] ** 2
    np.testing.assert_allclose(v, expected, rtol=1e-6)


def test_slices_without_levels_and_steps_beyond_counting_are_refused():
    ideal = ChipSpec.preset("ideal")
    with pytest.raises((ValidationError, InputError), match="(?i)say how many levels a cell has"):
        ideal.replace(slices=2)
    with pytest.raises((ValidationError, InputError), match=r"more than 2\^48 steps"):
        ideal.replace(levels=65536, slices=4)
    assert ideal.replace(levels=65536, slices=3).slices == 3
