"""Fitted polynomials and tables as curves of a device card, and as named parameters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aimc_sim.curves import Curve, CurvePiece
from calibration.fit import Parameter
from calibration.statistics import Basis, NormalFit

MICRO = 1e-6


def polynomial_curve(
    coefficients: np.ndarray,
    *,
    low: float | None = None,
    high: float | None = None,
    unit_s: float = MICRO,
) -> Curve:
    """Return the curve sum c_k v^k of v in microsiemens, held between low and high."""
    piece = CurvePiece(polynomial=tuple(float(c) for c in coefficients), low=low, high=high)
    return Curve(of="g_us", unit_s=unit_s, pieces=(piece,))


def bounded_curve(
    coefficients: np.ndarray, values: np.ndarray, *, signed: bool, unit_s: float = MICRO
) -> Curve:
    """Return a polynomial that cannot run away beyond the conductances it was fitted at.

    values : of the polynomial at those. It is held within half of their spread beyond their
    extremes; a spread (not signed) above half of the least.
    """
    least, most = float(values.min()), float(values.max())
    margin = 0.5 * (most - least)
    if len(coefficients) == 1:
        return polynomial_curve(coefficients, unit_s=unit_s)
    low = least - margin if signed else max(0.5 * least, least - margin)
    return polynomial_curve(coefficients, low=low, high=most + margin, unit_s=unit_s)


def table_curve(v: np.ndarray, value: np.ndarray, *, unit_s: float = MICRO) -> Curve:
    """Return straight lines through (v, value), v rising in microsiemens; level outside."""
    pieces = [CurvePiece(below=float(v[0]), polynomial=(float(value[0]),))]
    for k in range(len(v) - 1):
        slope = (value[k + 1] - value[k]) / (v[k + 1] - v[k])
        constant = float(value[k] - slope * v[k])
        pieces.append(CurvePiece(below=float(v[k + 1]), polynomial=(constant, float(slope))))
    pieces.append(CurvePiece(polynomial=(float(value[-1]),)))
    return Curve(of="g_us", unit_s=unit_s, pieces=tuple(pieces))


def power_unit(order: int, unit: str = "uS") -> str:
    """Return the unit of the coefficient of v^order, v in uS, of a quantity in `unit`."""
    if order == 0:
        return unit
    if unit == "uS":
        return "" if order == 1 else f"uS^{1 - order}"
    return f"{unit + ' ' if unit else ''}uS^-{order}"


def polynomial_parameters(
    name: str, theta: np.ndarray, error: np.ndarray, unit: str = "uS"
) -> dict[str, Parameter]:
    """Return the coefficients as parameters name.c0, name.c1, ..."""
    return {
        f"{name}.c{k}": Parameter(float(theta[k]), float(error[k]), power_unit(k, unit))
        for k in range(len(theta))
    }


def level_parameters(
    name: str, levels_us: Sequence[float], theta: np.ndarray, error: np.ndarray, unit: str = "uS"
) -> dict[str, Parameter]:
    """Return values at single conductances as parameters "name at 100 uS"."""
    return {
        f"{name} at {level:.6g} uS": Parameter(float(theta[k]), float(error[k]), unit)
        for k, level in enumerate(levels_us)
    }


def basis_parameters(
    name: str, basis: Basis, theta: np.ndarray, error: np.ndarray, unit: str = "uS"
) -> dict[str, Parameter]:
    """Return the coefficients of powers, or the values at nodes, as parameters."""
    if basis.nodes is None:
        return polynomial_parameters(name, theta, error, unit)
    return level_parameters(name, basis.nodes.tolist(), theta, error, unit)


def card_curves(fit: NormalFit, m: np.ndarray, s: np.ndarray) -> tuple[Curve, Curve]:
    """Return mean and spread of a fit in microsiemens as curves; m, s : their values at points."""
    a = len(fit.mean)
    if fit.basis.nodes is not None:
        return (table_curve(fit.basis.nodes, fit.theta[:a]),
                table_curve(fit.basis.nodes, fit.theta[a:]))
    return (bounded_curve(fit.theta[:a], m, signed=True),
            bounded_curve(fit.theta[a:], s, signed=False))
