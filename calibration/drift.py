"""Drift: the exponents of a power law, from conductances of the same cells at several times."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from aimc_sim.cards import DriftSpec
from aimc_sim.curves import Curve, CurvePiece
from aimc_sim.errors import InputError
from calibration.checks import check_count, halves, std_error
from calibration.fit import (
    Checked,
    Fit,
    Panel,
    Parameter,
    correlation_of,
    goodness,
)
from calibration.likelihood import maximise_sum
from calibration.power_law import POWER_LAW
from calibration.relaxation import Histories, histories, time_groups
from calibration.statistics import find_limits, fit_normal
from calibration.tables import Table

_HOPELESS = 1.0  # of aic for each read: no dependence of nu on g makes that good
_EXACT = 1e-5  # of ln(g/g0): less scatter is rounding
_LEAST = 0.02  # of the largest start: below, the logarithm of a ratio is noise
_ENOUGH = 2000  # cells that choose a form and a start; its numbers are those of all cells
_CUT = 12.0  # robust sigmas, of all g together: at small g exponents spread more
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(24)


class _Cells(NamedTuple):
    """The reads of all cells: ln(g/g0) at a time, and which cell it is of."""

    owner: np.ndarray  # (n,) cell of a read
    y: np.ndarray  # (n,) ln(g/g0)
    t_s: np.ndarray
    start_s: np.ndarray
    log_g: np.ndarray  # (cells,) ln of the start in microsiemens

    def spans(self, log_t0: float) -> np.ndarray:
        """Return ln((t + t0)/(t_start + t0)) of all reads."""
        t0 = math.exp(min(max(log_t0, -60.0), 60.0))
        return np.asarray(np.log1p((self.t_s - self.start_s) / (self.start_s + t0)))


class _Form(NamedTuple):
    """How mean and spread of the exponent depend on g: c0 + c1 ln g, and a least value."""

    name: str
    slope: bool
    clamped: bool

    @property
    def size(self) -> int:
        """Numbers for the mean, and as many for the spread."""
        return 1 + self.slope + self.clamped

    def values(self, theta: np.ndarray, log_g: np.ndarray) -> np.ndarray:
        """Return the exponents' mean, or their spread, at ln g."""
        value = np.full(log_g.shape, theta[0])
        if self.slope:
            value = value + theta[1] * log_g
        if self.clamped:
            value = np.maximum(value, theta[2])
        return value

    def labels(self, name: str) -> list[str]:
        """Return the names of the numbers."""
        return [f"{name}.{what}" for what in ("c0", "ln g", "low")[: self.size]]

    def curve(self, theta: np.ndarray, most: float) -> Curve:
        """Return the law as a curve of a card, held at `most` where ln g would carry it on."""
        piece = CurvePiece(
            polynomial=(float(theta[0]),),
            log_slope=float(theta[1]) if self.slope else 0.0,
            low=float(theta[2]) if self.clamped else 0.0,
            high=most if self.slope else None,
        )
        return Curve(of="g_us", pieces=(piece,))


_FORMS = (_Form("the same at every g", False, False), _Form("a line in ln g", True, False),
          _Form("a line in ln g with a least value", True, True))


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
    """
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
    exact = _exact_t0(cells) if log_t0 is None else None
    if exact is not None:
        log_t0 = exact[0]
    found = [_maximise(cells, _FORMS[0], log_t0)]
    own, other = _compare(cells, found[0])
    if own - other < _HOPELESS * len(cells.y):
        found += [_maximise(cells, form, log_t0) for form in _FORMS[1:]]
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


def _compare(cells: _Cells, best: _Best) -> tuple[float, float]:
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


def _cells(data: Histories) -> tuple[_Cells, dict[str, int]]:
    least = _LEAST * float(np.quantile(data.initial_s, 0.99))
    keep = (data.initial_s >= least) & (data.g_s > 0)
    dropped = dict(data.dropped)
    if not keep.all():
        dropped["start below 2 % of the largest, or nothing left"] = int((~keep).sum())
    cell, index = np.unique(data.cell[keep], return_inverse=True)
    start = np.zeros(len(cell))
    start[index] = data.initial_s[keep]
    return (
        _Cells(index, np.log(data.g_s[keep] / data.initial_s[keep]), data.t_s[keep],
               data.start_s[keep], np.log(start * 1e6)),
        dropped,
    )


def _exponents(cells: _Cells, log_t0: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each cell's estimate of nu, its sum of L^2, and the sum of its squared residuals."""
    span = cells.spans(log_t0)
    n = len(cells.log_g)
    square = np.bincount(cells.owner, span * span, n)
    nu = -np.bincount(cells.owner, span * cells.y, n) / square
    rest = cells.y + nu[cells.owner] * span
    return nu, square, np.bincount(cells.owner, rest * rest, n)


def _without_outliers(cells: _Cells, log_t0: float | None) -> tuple[_Cells, int]:
    """Return the cells without those whose exponent, or scatter about it, stands out."""
    guess = float(np.log(np.median(cells.t_s))) - 3 if log_t0 is None else log_t0
    nu, _, rest = _exponents(cells, guess)
    keep = np.ones(len(nu), bool)
    for value in (nu, np.sqrt(rest)):
        middle = np.median(value)
        size = 1.4826 * float(np.median(np.abs(value - middle)))
        if size > 0:
            keep &= np.abs(value - middle) <= _CUT * size
    if keep.all() or keep.mean() < 0.9:
        return cells, 0
    return _taken(cells, keep), int((~keep).sum())


class _Best(NamedTuple):
    form: _Form
    theta: np.ndarray
    covariance: np.ndarray | None
    cost: float
    converged: bool


class _Likelihood:
    """Log-likelihoods of cells by (ln t0 where fitted, ln tau where known, mu, s)."""

    def __init__(self, cells: _Cells, form: _Form, log_t0: float | None) -> None:
        self.cells, self.form, self.log_t0 = cells, form, log_t0
        self.reads = np.bincount(cells.owner, minlength=len(cells.log_g))
        several = bool((self.reads > 1).any())
        # reads on their power law to rounding: that rounding is known, and not fitted
        exact = several and log_t0 is not None and _noise(cells, log_t0) < _EXACT
        self.rounding2 = 0.0
        if exact and log_t0 is not None:
            self.rounding2 = max(_noise(cells, log_t0), 1e-12) ** 2
        self.blurred = several and not exact

    def __call__(self, theta: np.ndarray) -> np.ndarray:
        k = 0
        log_t0 = self.log_t0
        if log_t0 is None:
            log_t0, k = float(theta[0]), 1
        tau2 = self.rounding2
        if self.blurred:
            tau2, k = math.exp(2 * min(max(float(theta[k]), -40.0), 5.0)), k + 1
        mu, s = theta[k : k + self.form.size], theta[k + self.form.size :]
        nu, square, rest = _exponents(self.cells, log_t0)
        m = self.form.values(mu, self.cells.log_g)
        spread = self.form.values(s, self.cells.log_g)
        spread = np.maximum(spread, 1e-9)
        variance = spread**2 + tau2 / square
        # |N(m, s^2)|: a cell's nu may come from either sign; its fold lies at -nu
        near, far = -0.5 * (nu - m) ** 2 / variance, -0.5 * (nu + m) ** 2 / variance
        folded = near + np.where(nu > 0, np.log1p(np.exp(np.minimum(far - near, 700.0))), 0.0)
        total = folded - 0.5 * np.log(2 * np.pi * variance) - 0.5 * np.log(square)
        if tau2 > 0:
            total -= 0.5 * ((self.reads - 1) * math.log(2 * math.pi * tau2) + rest / tau2)
        return np.asarray(total)


def _maximise(
    cells: _Cells, form: _Form, log_t0: float | None, start: np.ndarray | None = None
) -> _Best:
    """Return the best numbers of a form; found on some cells, then finished on all."""
    if start is None:
        some = _some(cells)
        terms = _Likelihood(some, form, log_t0)
        tries = [maximise_sum(terms, guess) for guess in _guesses(some, form, log_t0)]
        sound = [one for one in tries if one[1] is not None] or tries
        start = max(sound, key=lambda one: float(terms(one[0]).sum()))[0]
    terms = _Likelihood(cells, form, log_t0)
    theta, covariance, converged = maximise_sum(terms, start)
    return _Best(form, theta, covariance, -float(terms(theta).sum()), converged)


def _noise(cells: _Cells, log_t0: float) -> float:
    """Return the scatter of the reads of a cell about its power law."""
    reads = np.bincount(cells.owner, minlength=len(cells.log_g))
    free = float((reads - 1).sum())
    return math.sqrt(float(_exponents(cells, log_t0)[2].sum()) / free) if free else 0.0


def _exact_t0(cells: _Cells) -> tuple[float, float] | None:
    """Return ln t0 and its standard error where reads follow the law to rounding, else None."""
    best = _first_t0(cells)
    noise = _noise(cells, best)
    if noise >= _EXACT:
        return None
    step = 1e-3
    bend = sum(float(_exponents(cells, best + s)[2].sum()) for s in (-step, step))
    bend = (bend - 2 * float(_exponents(cells, best)[2].sum())) / step**2
    return best, noise * math.sqrt(2 / bend) if bend > 0 else math.nan


def _some(cells: _Cells) -> _Cells:
    n = len(cells.log_g)
    if n <= _ENOUGH:
        return cells
    return _taken(cells, np.arange(n) % -(-n // _ENOUGH) == 0)


def _taken(cells: _Cells, keep: np.ndarray) -> _Cells:
    """Return the reads of some cells."""
    place, mine = np.cumsum(keep) - 1, keep[cells.owner]
    return _Cells(place[cells.owner[mine]], cells.y[mine], cells.t_s[mine], cells.start_s[mine],
                  cells.log_g[keep])


def _guesses(cells: _Cells, form: _Form, log_t0: float | None) -> list[np.ndarray]:
    """Return starts: exponents by least squares, three places of the bend where there is one."""
    terms = _Likelihood(cells, form, log_t0)
    time = _first_t0(cells) if log_t0 is None else log_t0
    nu, _, rest = _exponents(cells, time)
    start = [] if log_t0 is not None else [time]
    if terms.blurred:
        free = float((terms.reads - 1).sum())
        least = float(np.abs(nu).mean()) * 1e-9
        start.append(0.5 * math.log(max(float(rest.sum()) / free, least**2)))
    x = np.stack([np.ones_like(cells.log_g), cells.log_g], axis=1)[:, : 1 + form.slope]
    if not form.clamped:
        line = np.linalg.lstsq(x, nu, rcond=None)[0]
        size = np.linalg.lstsq(x, 1.2533 * np.abs(nu - x @ line), rcond=None)[0]
        if not (x @ size > 0.1 * float(nu.std())).all():
            size = np.array([float(nu.std()), 0.0])[: 1 + form.slope]
        return [np.array([*start, *line, *size])]
    guesses = []
    for share in (0.3, 0.6, 0.85):  # of cells below the bend
        low = cells.log_g <= float(np.quantile(cells.log_g, share))
        if low.all():
            continue
        line = np.linalg.lstsq(x[low], nu[low], rcond=None)[0]
        far = 1.2533 * np.abs(nu - np.maximum(x @ line, nu[~low].mean()))
        size = np.linalg.lstsq(x[low], far[low], rcond=None)[0]
        guesses.append(
            np.array([*start, *line, float(nu[~low].mean()), *size, float(nu[~low].std())])
        )
    return guesses or [np.array([*start, *[float(nu.mean()), 0.0, 0.0, float(nu.std()), 0.0,
                                           0.5 * float(nu.std())]])]


def _first_t0(cells: _Cells) -> float:
    """Return ln t0 at which every cell's reads lie best on a line through its start."""
    middle = float(np.log(np.median(cells.t_s)))
    grid = np.linspace(middle - 25, middle + 8, 67)
    for _ in range(8):
        cost = [float(_exponents(cells, t)[2].sum()) for t in grid]
        k = min(max(int(np.argmin(cost)), 1), len(grid) - 2)
        grid = np.linspace(grid[k - 1], grid[k + 1], 9)
    return float(grid[4])


def _parameters(
    best: _Best, wants_t0: bool, exact: tuple[float, float] | None
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


def _residuals(cells: _Cells, best: _Best, log_t0: float | None) -> np.ndarray:
    """Return the cells' exponents in units of their spread and blur."""
    size = best.form.size
    own = best.theta[: len(best.theta) - 2 * size]
    nu, square, _ = _exponents(cells, float(own[0]) if log_t0 is None else log_t0)
    mu = best.form.values(best.theta[-2 * size : -size], cells.log_g)
    s = best.form.values(best.theta[-size:], cells.log_g)
    blurred = len(own) > (log_t0 is None)
    tau2 = math.exp(2 * own[-1]) if blurred else 0.0
    return np.asarray((nu - mu) / np.sqrt(s**2 + tau2 / square))


def _predicted(cells: _Cells, theta: np.ndarray, form: _Form, log_t0: float | None,
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
    cells: _Cells, form: _Form, log_t0: float | None, start: np.ndarray
) -> tuple[Checked, ...]:
    """Return mean and spread of g/g0 of every other cell, predicted by a fit of the rest."""
    taken = halves(np.arange(len(cells.log_g)))
    if taken.sum() < 4 * form.size + 4:
        return ()
    mine = taken[cells.owner]
    half = _taken(cells, taken)
    best = _maximise(half, form, log_t0, start)
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
    cells: _Cells, best: _Best, mu: np.ndarray, s: np.ndarray, t0_s: float
) -> tuple[Panel, ...]:
    """Return mean and spread of the cells' exponents against their start."""
    nu, _, _ = _exponents(cells, math.log(t0_s))
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
