"""The model of costs against what published chips draw."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "12_costs.py"


@pytest.fixture(scope="module")
def published():
    return runpy.run_path(str(EXAMPLE))


def test_neurram_is_met_within_a_quarter_with_two_fitted_constants(published):
    rows = published["compare_neurram"]()
    assert len(rows) == 8 + 6
    for row in rows:
        assert row.ours == pytest.approx(row.published, rel=0.25), row.what
    # measured here: within 11 %, so that a change of the model is seen
    assert max(abs(row.ours / row.published - 1) for row in rows) < 0.12


def test_without_a_fit_the_regression_is_pessimistic_about_neurram(published):
    """What the constants of the literature say of its converters: more than was measured."""
    import aimc_sim as aimc

    spec = aimc.ChipSpec.preset("reram-wan2022")
    _, neurons_fj, _ = published["neurram"](spec, 2)
    assert neurons_fj > 5 * published["NEURRAM_SPLIT_FJ"][4, 2][1]


def test_an_lstm_step_of_hermes_is_met_within_a_factor_of_one_and_a_half(published):
    for row in published["compare_hermes"]():
        assert 1 / 1.5 < row.ours / row.published < 1.5, row.what


def test_the_share_of_adcs_in_isaac_is_met_within_ten_points(published):
    (row,) = published["compare_isaac"]()
    assert abs(row.ours - row.published) < 10
