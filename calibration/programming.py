"""Programming error: what a finished write leaves of its target, from (target, measured)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import special

from aimc_sim.cards import ProgrammingSpec
from calibration.checks import check_count, check_varies, columns, compare, halves
from calibration.fit import Checked, Fit, Panel, Parameter, correlation_of, goodness
from calibration.likelihood import covariance_from, minimise
from calibration.orders import Choice, fixed_or_chosen
from calibration.shapes import (
    bounded_curve,
    level_parameters,
    polynomial_parameters,
    table_curve,
)
from calibration.statistics import Limits, NormalFit, clipped_moments, find_limits, fit_normal
from calibration.tables import Table

_FEW_TARGETS = 16  # up to so many are described one by one
_EACH = 20  # points that a target of its own needs
_CLEAR = 2.0  # of aic, by which a band of even odds must win to be named


class _Shape(NamedTuple):
    """A fitted description of the errors: its numbers and its curves."""

    name: str
    parameters: dict[str, Parameter]
    covariance: np.ndarray
    log_likelihood: float
    spec: ProgrammingSpec
    kept: np.ndarray
    z: np.ndarray
    sigma: np.ndarray  # at the kept points [uS]
    converged: bool


def fit_programming(
    table: Table, *, mean_order: int | None = None, sigma_order: int | None = None
) -> Fit:
    """Return the programming error: measured = target + mean(g) + sigma(g) xi.

    mean and sigma are polynomials of the target g in uS whose orders, 0 to 4, cross-validation
    chooses; where cells were written to at most 16 targets with 20 cells each, a value at each
    target joined by straight lines, and the polynomial is named among the alternatives. Maximum
    likelihood, points at a limit of the range censored (`statistics.find_limits`), points
    beyond 5 sigma dropped up to a tenth of all. Standard errors are Huber's sandwich.

    `tolerance` is the half width of a band with even odds inside, blurred by the read, as a
    write-verify loop leaves it, for the mean sigma. It is given where it describes the errors
    better than the normal; a card holds the normal of the same sigma.

    Parameters
    ----------
    table : columns target_s, measured_s.
    mean_order, sigma_order : fixed orders instead of chosen ones.

    Raises InputError for fewer than 10 points, or a constant column.
    """
    target, measured = columns(table, "programming", "target_s", "measured_s")
    check_count("programming", "points", len(target), 10)
    check_varies("programming", "measured_s", measured)
    v, y = target * 1e6, (measured - target) * 1e6
    limits = find_limits(measured)
    levels, count = np.unique(v, return_counts=True)
    fixed = mean_order is not None or sigma_order is not None
    orders = fixed_or_chosen(v, y, np.arange(len(v)), limits, mean_order, sigma_order)
    check_count("programming", "points", len(target), sum(orders[:2]) + 3)
    shape = polynomial = _polynomials(v, y, limits, orders)
    few = len(levels) <= _FEW_TARGETS and int(count.min()) >= _EACH and not fixed
    if few and len(levels) > 1:
        shape = _at_targets(v, y, limits, levels)
    band = _tolerance(shape.z[~limits.any[shape.kept]])
    middle = float(shape.sigma.mean())
    parameters = dict(shape.parameters)
    if band.gain > _CLEAR:
        parameters["tolerance"] = Parameter(band.half * middle, band.error * middle, "uS")
    n = int(shape.kept.sum())
    p = len(shape.parameters)
    notes = [_band_note(band, band.half * middle)]
    if limits.any.any():
        notes.append(f"{int(limits.any.sum())} points at a limit of the range count as censored")
    alternatives = {}
    if shape is not polynomial:
        alternatives[polynomial.name] = (
            2 * len(polynomial.parameters) - 2 * polynomial.log_likelihood
        )
    covariance = np.zeros((len(parameters), len(parameters)))
    covariance[:p, :p] = shape.covariance
    dropped = dict(table.dropped)
    if n < len(v):
        dropped["beyond 5 sigma"] = len(v) - n
    return Fit(
        kind="programming",
        model=shape.name,
        parameters=parameters,
        correlation=correlation_of(covariance),
        n=n,
        dropped=dropped,
        goodness=goodness(
            shape.log_likelihood, p, n, float((shape.z**2).sum() / max(n - p, 1))
        ),
        alternatives=alternatives,
        heldout=_held_out(v, y, limits, measured, orders, levels if few else None),
        residuals=(v[shape.kept], shape.z),
        x_label="target (uS)",
        panels=_panels(v[shape.kept], y[shape.kept], shape.spec, levels if few else None),
        converged=shape.converged,
        notes=tuple(notes),
        part={"programming": shape.spec},
        g_range_s=(float(target.min()), float(target.max())),
        source=table.source,
    )


def _polynomials(
    v: np.ndarray, y: np.ndarray, limits: Limits, orders: Choice
) -> _Shape:
    fit = fit_normal(v, y, *orders[:2], limits=limits)
    covariance = fit.covariance()
    error = np.sqrt(np.diag(covariance))
    a = orders.mean_order + 1
    m, s = fit.at(v)
    parameters = polynomial_parameters("mean", fit.theta[:a], error[:a])
    parameters |= polynomial_parameters("sigma", fit.theta[a:], error[a:])
    spec = ProgrammingSpec(
        mean=bounded_curve(fit.theta[:a], m, signed=True),
        sigma=bounded_curve(fit.theta[a:], s, signed=False),
    )
    return _Shape(
        f"normal, {orders}", parameters, covariance,
        fit.log_likelihood, spec, fit.kept, fit.z, s[fit.kept], fit.converged,
    )


def _at_targets(v: np.ndarray, y: np.ndarray, limits: Limits, levels: np.ndarray) -> _Shape:
    k = len(levels)
    theta, error = np.empty(2 * k), np.empty(2 * k)
    covariance = np.zeros((2 * k, 2 * k))
    kept, z, sigma = np.zeros(len(v), bool), np.zeros(len(v)), np.zeros(len(v))
    total, converged = 0.0, True
    for i, level in enumerate(levels):
        here = np.flatnonzero(v == level)
        fit = fit_normal(v[here], y[here], 0, 0, limits=limits.take(here))
        both = [i, k + i]
        theta[both] = fit.theta
        covariance[np.ix_(both, both)] = fit.covariance()
        inside = here[fit.kept]
        kept[inside], z[inside], sigma[inside] = True, fit.z, fit.theta[1]
        total += fit.log_likelihood
        converged &= fit.converged
    error = np.sqrt(np.diag(covariance))
    parameters = level_parameters("mean", levels.tolist(), theta[:k], error[:k])
    parameters |= level_parameters("sigma", levels.tolist(), theta[k:], error[k:])
    spec = ProgrammingSpec(
        mean=table_curve(levels, theta[:k]), sigma=table_curve(levels, theta[k:])
    )
    return _Shape(
        f"normal, a mean and a sigma at each of {k} targets", parameters, covariance, total,
        spec, kept, z[kept], sigma[kept], converged,
    )


class _Band(NamedTuple):
    """A band of even odds, blurred: half width and blur in sigmas, and how it fits."""

    half: float
    error: float
    blur: float
    gain: float  # aic of the normal less that of the band


def _tolerance(z: np.ndarray) -> _Band:
    """Return the band that describes standardised errors: z = half u + blur xi, u in -1 .. 1."""
    z = z[:: max(1, len(z) // 20_000)]

    def cost(x: np.ndarray) -> float:
        half, blur = np.exp(x)
        with np.errstate(divide="ignore"):
            inside = special.ndtr((z + half) / blur) - special.ndtr((z - half) / blur)
            return -float(np.log(np.maximum(inside, 1e-300)).sum() - len(z) * np.log(2 * half))

    best, _, _ = minimise(cost, np.log([1.6, 0.4]))
    covariance = covariance_from(cost, best)
    half, blur = np.exp(best)
    error = half * np.sqrt(covariance[0, 0]) if covariance is not None else np.nan
    std = z.std()
    normal = 0.5 * len(z) * (1 + np.log(2 * np.pi * std**2))
    return _Band(float(half), float(error), float(blur), 2 * (normal - cost(best)))


def _band_note(band: _Band, tolerance_us: float) -> str:
    if band.gain > _CLEAR:
        return (
            f"the errors fill a band of +-{tolerance_us:.4g} uS evenly, as a write-verify loop of "
            f"that tolerance leaves them (aic {band.gain:.4g} better than the normal); the card "
            "holds the normal of the same sigma"
        )
    return f"a normal describes the errors, no band of even odds does better (aic {band.gain:.4g})"


def _held_out(
    v: np.ndarray, y: np.ndarray, limits: Limits, measured: np.ndarray,
    orders: Choice, levels: np.ndarray | None,
) -> tuple[Checked, ...]:
    """Return the held-out half's mean and std, at each target or in quarters of the range."""
    taken = halves(np.arange(len(v)))
    rest = ~taken
    bins = v if levels is not None else _quarters(v)
    low = measured.min() * 1e6 if limits.low.any() else -np.inf
    high = measured.max() * 1e6 if limits.high.any() else np.inf
    checked: list[Checked] = []
    whole: NormalFit | None = None
    if levels is None:
        whole = fit_normal(v[taken], y[taken], *orders[:2], limits=limits.take(taken))
    for value in np.unique(bins):
        inner, outer = taken & (bins == value), rest & (bins == value)
        if min(inner.sum(), outer.sum()) < 5:
            continue
        fit = whole or fit_normal(v[inner], y[inner], 0, 0, limits=limits.take(inner))
        g = v[outer]
        m, s = fit.at(g)
        good = np.abs(y[outer] - m) <= 5 * s
        g, found = g[good], y[outer][good]
        label = f"at {g.mean():.4g} uS" if levels is not None else f"about {g.mean():.4g} uS"
        checked += compare(
            label, fit, g, found, fit.covariance(),
            lambda m, s, g=g: clipped_moments(m, s, low - g, high - g),  # type: ignore[misc]
        )
    return tuple(checked)


def _quarters(v: np.ndarray) -> np.ndarray:
    edges = np.quantile(v, [0.25, 0.5, 0.75])
    return np.searchsorted(edges, v, side="right").astype(float)


def _panels(
    v: np.ndarray, y: np.ndarray, spec: ProgrammingSpec, levels: np.ndarray | None
) -> tuple[Panel, ...]:
    """Return mean and spread against the target, in up to 20 bins of equal number."""
    if levels is None:
        edges = np.quantile(v, np.linspace(0, 1, min(20, max(2, len(v) // 20)) + 1)[1:-1])
        index = np.searchsorted(edges, v, side="right")
    else:
        index = np.searchsorted(levels, v)
    used = [k for k in np.unique(index) if (index == k).sum() > 2]
    x = np.array([v[index == k].mean() for k in used])
    mean = np.array([y[index == k].mean() for k in used])
    std = np.array([y[index == k].std(ddof=1) for k in used])
    n = np.array([(index == k).sum() for k in used])
    fine = np.linspace(v.min(), v.max(), 200)
    panels = []
    for title, curve, value, error in (
        ("mean error", spec.mean, mean, std / np.sqrt(n)),
        ("spread of the error", spec.sigma, std, std / np.sqrt(2 * n)),
    ):
        assert curve is not None
        panels.append(
            Panel(title, "target (uS)", f"{title} (uS)", x, value, error, fine,
                  curve.evaluate(fine * 1e-6, v.max() * 1e-6) * 1e6)
        )
    return tuple(panels)
