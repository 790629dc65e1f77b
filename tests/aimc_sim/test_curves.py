"""Compiled curves against `Curve.evaluate`, the reference."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from aimc_sim.curves import Curve, flatten
from aimc_sim.kernels.curves import BLOCK, curve_values, exp_float
from aimc_sim.specs import ChipSpec, presets

pytestmark = pytest.mark.compiled

SPAN_S = 50e-6
CURVES = {
    "constant": {"polynomial": [0.3]},
    "zero": {},
    "cubic": {"unit_s": 1e-6, "polynomial": [0.1, -2.0, 3.0, 5.0]},
    "logarithm": {"log_slope": -0.0155, "polynomial": [0.0244], "low": 0.049, "high": 0.1},
    "power": {"power": [0.0088, -0.65], "high": 0.2},
    "exponential": {"of": "g_us", "unit_s": 1e-6, "exponential": [5.5, 12.0]},
    "all of it": {
        "of": "g_us", "polynomial": [1.0, 0.02], "log_slope": 0.1, "power": [2.0, 0.5],
        "exponential": [0.3, 7.0],
    },
    "pieces": {
        "pieces": [
            {"below": 0.0945, "log_slope": -0.0387, "polynomial": [-0.0182], "high": 0.13},
            {"below": 0.5, "polynomial": [0.0736, -0.0126, -0.0436]},
            {"exponential": [0.07, 0.4], "low": 0.01},
        ]
    },
}


def curves_of(spec):
    """Return all curves in a spec and its parts."""
    if isinstance(spec, Curve):
        return [spec]
    if isinstance(spec, tuple):
        return [curve for item in spec for curve in curves_of(item)]
    fields = getattr(type(spec), "model_fields", {})
    return [curve for name in fields for curve in curves_of(getattr(spec, name))]


def assert_agree(found, expected):
    # 1e-6 of the value; where a curve passes through zero, of its size
    allowed = 1e-6 * np.abs(expected) + 1e-9 * np.abs(expected).max()
    assert (np.abs(found - expected) <= allowed).all()


@pytest.mark.parametrize("name", presets())
def test_every_curve_of_every_preset_is_its_formula_over_the_range(name):
    device = ChipSpec.preset(name).device
    g = np.linspace(device.g_min_s, device.g_max_s, 10_001).astype(np.float32)
    for curve in curves_of(device):
        found = curve_values(flatten((curve,), device.g_max_s), g)[0]
        assert_agree(found, curve.evaluate(g.astype(float), device.g_max_s))


@pytest.mark.parametrize("name", CURVES)
def test_every_kind_of_term_is_its_formula(name):
    curve = Curve.model_validate(CURVES[name])
    g = np.linspace(0, SPAN_S, 10_007).astype(np.float32)
    found = curve_values(flatten((curve,), SPAN_S), g)[0]
    assert found.dtype == np.float32
    assert_agree(found, curve.evaluate(g.astype(float), SPAN_S))


@pytest.mark.parametrize("n", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7])
def test_curves_of_a_table_are_evaluated_side_by_side(n):
    curves = [Curve.model_validate(CURVES[name]) for name in ("all of it", "pieces", "power")]
    g = np.linspace(0.0, SPAN_S, n).astype(np.float32)
    found = curve_values(flatten([*curves[:1], None, *curves[1:]], SPAN_S, 2.0), g)
    assert found.shape == (4, n)
    assert not found[1].any()
    for row, curve in zip(found[[0, 2, 3]], curves, strict=True):
        np.testing.assert_allclose(row, 2 * curve.evaluate(g.astype(float), SPAN_S), rtol=1e-6)


def test_a_curve_that_ends_before_the_range_is_refused():
    with pytest.raises(ValidationError, match="the last piece holds up to the end"):
        Curve.model_validate({"pieces": [{"below": 0.5, "polynomial": [1.0]}]})


def test_the_exponential_of_drift_is_exact_to_float32():
    x = np.linspace(-80, 80, 20_001).astype(np.float32)
    found = np.array([exp_float(value) for value in x])
    np.testing.assert_allclose(found, np.exp(x.astype(float)), rtol=2e-7)
    assert exp_float(np.float32(-1e9)) < 1e-37
    assert np.isfinite(exp_float(np.float32(1e9)))
