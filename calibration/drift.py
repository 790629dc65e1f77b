"""Drift: the exponents of a power law, from conductances of the same cells at several times."""

from __future__ import annotations

import math

import numpy as np

from aimc_sim.cards import DriftSpec
from aimc_sim.errors import InputError, UsageError
from calibration.checks import check_count, halves, std_error
from calibration.exponents import (
    FORMS,
    Best,
    Cells,
    Form,
    exact_t0,
    exponents,
    maximise,
    taken_of,
)
from calibration.fit import (
    Checked,
    Fit,
    Panel,
    Parameter,
    correlation_of,
    goodness,
)
from calibration.power_law import POWER_LAW
from calibration.relaxation import Histories, histories, time_groups
from calibration.statistics import find_limits, fit_normal
from calibration.tables import Table

_HOPELESS = 1.0  # of aic for each read: no dependence of nu on g makes that good
_LEAST = 0.02  # of the largest start: below, the logarithm of a ratio is noise
_CUT = 12.0  # robust sigmas, of all g together: at small g exponents spread more
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(24)


def fit_drift(table: Table, *, t0_s: float | None = None) -> Fit:
    """Return power-law drift g = g0 (1 + t/t0)^-nu, nu = |mu(g) + s(g) xi| one for each cell.

    mu and s are constants, lines in ln g, or such lines held at a least value, whichever has the
    lowest BIC. Exact likelihood of all reads of a cell, whose ln(g/g0) share the exponent and
    have normal noise tau of their own: with L = ln((t + t0)/(t_start + t0)) the estimate
    nu_c = -sum L y/sum L^2 of a cell is |N(mu, s^2)| blurred by tau^2/sum L^2. Standard errors
    from the scores of the cells (`likelihood.maximise_sum`). Cells whose exponent, or scatter
    about it, lies beyond 12 robust sigmas are dropped, up to a tenth of all.

    Starts below 2 % of the largest are dropped, since the logarithm of their ratio is noise.

    Parameters
    ----------
    table : columns cell, time_s, conductance_s, initial_s (or the first read of each cell).
    t0_s : the time after programming at which drift is counted to begin; None: fitted.

    Raises
    ------
    InputError : too few points, or data that relaxation describes better (by AIC of all
        reads as densities of g): then no exponent is a property of the device.
    UsageError : a t0_s that is not positive.
    """
    if t0_s is not None and not 0 < t0_s < math.inf:
        raise UsageError(
            f"fit power-law drift with t0_s = {t0_s:g}", "it is not a positive time",
            "give seconds, or None to fit it",
        )
    data = histories(table, "drift")
    check_count("drift", "points after the start", len(data.cell), 20)
    cells, dropped = _cells(data)
    check_count("drift", "cells", len(cells.log_g), 8)
    log_t0 = None if t0_s is None else math.log(t0_s)
    if log_t0 is None and len(np.unique(cells.t_s)) < 2:
        raise InputError(
            "fit power-law drift", "all reads are at one time, which says nothing of t0",
            "give t0_s, or measure at two times or more",
        )
    cells, outliers = _without_outliers(cells, log_t0)
    if outliers:
        dropped["cells with an exponent beyond 12 robust sigmas"] = outliers
    exact = exact_t0(cells) if log_t0 is None else None
    if exact is not None:
        log_t0 = exact[0]
    found = [maximise(cells, FORMS[0], log_t0)]
    own, other = _compare(cells, found[0])
    if own - other < _HOPELESS * len(cells.y):
        found += [maximise(cells, form, log_t0) for form in FORMS[1:]]
    best = min(found, key=lambda one: 2 * one.cost + len(one.theta) * math.log(len(cells.log_g)))
    own += 2 * (best.cost - found[0].cost) + 2 * (len(best.theta) - len(found[0].theta))
    if other < own:
        raise InputError(
            f"fit power-law drift to {len(cells.y)} reads of {len(cells.log_g)} cells",
            f"relaxation describes them better (aic {other:.7g}, {POWER_LAW} {own:.7g}); "
            f"{100 * float((cells.y > 0).mean()):.3g} % of the reads lie above their start",
            "use fit_relaxation (calibrate relaxation)",
        )
    parameters, correlation = _parameters(best, t0_s is None, exact)
    n = len(cells.y)
    own_aic = 2 * len(best.theta) + 2 * best.cost
    z = _residuals(cells, best, log_t0)
    size = best.form.size
    mu, s = best.theta[-2 * size : -size], best.theta[-size:]
    mu_values = best.form.values(mu, cells.log_g)
    s_values = best.form.values(s, cells.log_g)
    time = math.exp(best.theta[0] if log_t0 is None else log_t0)
    start = np.exp(cells.log_g) * 1e-6
    return Fit(
        kind="drift",
        model=f"{POWER_LAW}, exponents {best.form.name}",
        parameters=parameters,
        correlation=correlation,
        n=n,
        dropped=dropped,
        goodness=goodness(-best.cost, len(best.theta), n, float((z**2).sum()) / max(
            len(z) - 2 * size, 1)),
        alternatives={
            "relaxation, correlated in time": own_aic + other - own,
            **{f"{POWER_LAW}, exponents {one.form.name}": 2 * len(one.theta) + 2 * one.cost
               for one in found if one is not best},
        },
        heldout=_held_out(cells, best.form, log_t0, best.theta),
        residuals=(start * 1e6, z),
        x_label="start (uS)",
        panels=_panels(cells, best, mu_values, s_values, time),
        converged=best.converged and best.covariance is not None,
        notes=(
            f"{POWER_LAW} is the better model of these reads (aic as densities of g {own:.7g}, "
            f"relaxation {other:.7g})",
        ),
        part={
            "drift": DriftSpec(
                t0_s=time,
                nu_mean=best.form.curve(mu, 1.5 * float(mu_values.max())),
                nu_std=best.form.curve(s, 1.5 * float(s_values.max())),
            )
        },
        g_range_s=(float(start.min()), float(start.max())),
        time_range_s=(float(cells.t_s.min()), float(cells.t_s.max())),
        source=table.source,
    )


def _compare(cells: Cells, best: Best) -> tuple[float, float]:
    """Return the AIC of all reads under the power law and under relaxation, as densities of g.

    Relaxation: at each time a normal about the start, mean and spread polynomials of it, the
    times of a cell correlated as they are found to be (a normal copula).
    """
    g = np.exp(cells.y + cells.log_g[cells.owner])
    v = np.exp(cells.log_g)[cells.owner]
    own = 2 * len(best.theta) + 2 * (best.cost + float(np.log(g).sum()))
    group = time_groups(cells.t_s)
    n_times = int(group.max()) + 1
    z = np.full((len(cells.log_g), n_times), np.nan)
    other = 0.0
    for k in range(n_times):
        here = np.flatnonzero(group == k)
        order = max(0, min(2, len(np.unique(v[here])) - 1, len(here) // 10 - 1))
        fits = [fit_normal(v[here], (g - v)[here], m, s, limits=find_limits(g[here]))
                for m, s in sorted({(0, 0), (order, min(order, 1)), (order, order)})]
        # outliers that the relaxation leaves out cost it as if they were at five sigma
        aic = [2 * fit.n_parameters - 2 * fit.log_likelihood + 25.0 * (~fit.kept).sum()
               for fit in fits]
        fit = fits[int(np.argmin(aic))]
        z[cells.owner[here][fit.kept], k] = fit.z
        other += min(aic)
    whole = z[np.isfinite(z).all(axis=1)]
    if n_times > 1 and len(whole) > 4 * n_times:
        correlation = np.corrcoef(whole, rowvar=False)
        sign, log_det = np.linalg.slogdet(correlation)
        if sign > 0:
            excess = np.linalg.inv(correlation) - np.eye(n_times)
            gain = -0.5 * (log_det + float(np.mean(np.einsum("ij,jk,ik->i", whole, excess, whole))))
            other += n_times * (n_times - 1) - 2 * gain * len(z)
    return own, other


def _cells(data: Histories) -> tuple[Cells, dict[str, int]]:
    least = _LEAST * float(np.quantile(data.initial_s, 0.99))
    keep = (data.initial_s >= least) & (data.g_s > 0)
    dropped = dict(data.dropped)
    if not keep.all():
        dropped["start below 2 % of the largest, or nothing left"] = int((~keep).sum())
    cell, index = np.unique(data.cell[keep], return_inverse=True)
    start = np.zeros(len(cell))
    start[index] = data.initial_s[keep]
    return (
        Cells(index, np.log(data.g_s[keep] / data.initial_s[keep]), data.t_s[keep],
               data.start_s[keep], np.log(start * 1e6)),
        dropped,
    )


def _without_outliers(cells: Cells, log_t0: float | None) -> tuple[Cells, int]:
    """Return the cells without those whose exponent, or scatter about it, stands out."""
    guess = float(np.log(np.median(cells.t_s))) - 3 if log_t0 is None else log_t0
    nu, _, rest = exponents(cells, guess)
    keep = np.ones(len(nu), bool)
    for value in (nu, np.sqrt(rest)):
        middle = np.median(value)
        size = 1.4826 * float(np.median(np.abs(value - middle)))
        if size > 0:
            keep &= np.abs(value - middle) <= _CUT * size
    if keep.all() or keep.mean() < 0.9:
        return cells, 0
    return taken_of(cells, keep), int((~keep).sum())


def _parameters(
    best: Best, wants_t0: bool, exact: tuple[float, float] | None
) -> tuple[dict[str, Parameter], np.ndarray]:
    """Return named values; t0 and tau from their logarithms."""
    theta, covariance = best.theta, best.covariance
    if covariance is None:
        covariance = np.full((len(theta), len(theta)), np.nan)
    error = np.sqrt(np.diag(covariance))
    parameters = {}
    size = best.form.size
    logs = (["t0"] if wants_t0 and exact is None else []) + ["tau"]
    logs = logs[: len(theta) - 2 * size]
    for k, name in enumerate(logs):
        value = math.exp(theta[k])
        parameters[name] = Parameter(value, value * float(error[k]), "s" if name == "t0" else "")
    names = best.form.labels("nu_mean") + best.form.labels("nu_std")
    for k, name in enumerate(names, start=len(logs)):
        parameters[name] = Parameter(float(theta[k]), float(error[k]))
    correlation = correlation_of(covariance)
    if exact is not None:
        time = math.exp(exact[0])
        parameters = {"t0": Parameter(time, time * exact[1], "s"), **parameters}
        correlation = np.pad(correlation, ((1, 0), (1, 0)))
        correlation[0, 0] = 1.0
    return parameters, correlation


def _residuals(cells: Cells, best: Best, log_t0: float | None) -> np.ndarray:
    """Return the cells' exponents in units of their spread and blur."""
    size = best.form.size
    own = best.theta[: len(best.theta) - 2 * size]
    nu, square, _ = exponents(cells, float(own[0]) if log_t0 is None else log_t0)
    mu = best.form.values(best.theta[-2 * size : -size], cells.log_g)
    s = best.form.values(best.theta[-size:], cells.log_g)
    blurred = len(own) > (log_t0 is None)
    tau2 = math.exp(2 * own[-1]) if blurred else 0.0
    return np.asarray((nu - mu) / np.sqrt(s**2 + tau2 / square))


def _predicted(cells: Cells, theta: np.ndarray, form: Form, log_t0: float | None,
               here: np.ndarray) -> np.ndarray:
    """Return mean and standard deviation of g/g0 over some reads."""
    k = 0 if log_t0 is not None else 1
    time = theta[0] if log_t0 is None else log_t0
    blurred = len(theta) > k + 2 * form.size
    tau2 = math.exp(2 * theta[k]) if blurred else 0.0
    log_g = cells.log_g[cells.owner[here]]
    mu = form.values(theta[-2 * form.size : -form.size], log_g)[:, None]
    s = form.values(theta[-form.size :], log_g)[:, None]
    span = cells.spans(time)[here][:, None]
    ratio = np.exp(-np.abs(mu + s * _NODES) * span)
    weight = _WEIGHTS / _WEIGHTS.sum()
    first = float((ratio @ weight).mean()) * math.exp(tau2 / 2)
    second = float((ratio**2 @ weight).mean()) * math.exp(2 * tau2)
    return np.array([first, math.sqrt(max(second - first**2, 0.0))])


def _held_out(
    cells: Cells, form: Form, log_t0: float | None, start: np.ndarray
) -> tuple[Checked, ...]:
    """Return mean and spread of g/g0 of every other cell, predicted by a fit of the rest."""
    taken = halves(np.arange(len(cells.log_g)))
    if taken.sum() < 4 * form.size + 4:
        return ()
    mine = taken[cells.owner]
    half = taken_of(cells, taken)
    best = maximise(half, form, log_t0, start)
    group = time_groups(cells.t_s)
    checked: list[Checked] = []
    for k in range(int(group.max()) + 1):
        here = np.flatnonzero((group == k) & ~mine)
        if len(here) < 5:
            continue
        ratio = np.exp(cells.y[here])
        guess = _predicted(cells, best.theta, form, log_t0, here)
        own = np.zeros(2)
        if best.covariance is not None:
            step = 0.1 * np.sqrt(np.diag(best.covariance))
            slope = np.stack([
                _predicted(cells, best.theta + change, form, log_t0, here) - guess
                for change in np.diag(step)
            ]) / step[:, None]
            own = np.einsum("ik,ij,jk->k", slope, best.covariance, slope)
        t = float(np.exp(np.log(cells.t_s[here]).mean()))
        error = (float(ratio.std()) / math.sqrt(len(ratio)), std_error(ratio))
        for what, value, seen, e, p in zip(
            ("mean", "std"), guess, (ratio.mean(), ratio.std(ddof=1)), error, own, strict=True
        ):
            checked.append(Checked(f"{what} of g/g0 at {t:.4g} s", float(value), float(seen),
                                   math.sqrt(e**2 + max(float(p), 0.0))))
    return tuple(checked)


def _panels(
    cells: Cells, best: Best, mu: np.ndarray, s: np.ndarray, t0_s: float
) -> tuple[Panel, ...]:
    """Return mean and spread of the cells' exponents against their start."""
    nu, _, _ = exponents(cells, math.log(t0_s))
    order = np.argsort(cells.log_g)
    bins = np.array_split(order, min(16, max(2, len(order) // 20)))
    x = np.array([np.exp(cells.log_g[b]).mean() for b in bins])
    mean = np.array([nu[b].mean() for b in bins])
    std = np.array([nu[b].std(ddof=1) for b in bins])
    n = np.array([len(b) for b in bins])
    fine = np.exp(cells.log_g[order])
    return (
        Panel("mean exponent", "start (uS)", "mean of nu", x, mean, std / np.sqrt(n), fine,
              mu[order]),
        Panel("spread of the exponent", "start (uS)", "standard deviation of nu", x, std,
              std / np.sqrt(2 * n), fine, s[order]),
    )
