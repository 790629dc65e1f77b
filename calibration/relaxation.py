"""Relaxation: how far conductances have moved at a time after programming, and how they spread."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from aimc_sim.cards import RelaxationSpec
from calibration.checks import check_count, check_varies, columns, compare, halves
from calibration.fit import Checked, Fit, Panel, Parameter, correlation_of, goodness
from calibration.orders import Choice, fixed_or_chosen
from calibration.power_law import power_law_aic
from calibration.shapes import basis_parameters, card_curves
from calibration.statistics import (
    Limits,
    NormalFit,
    clipped_moments,
    clustered,
    find_limits,
    fit_normal,
)
from calibration.tables import Table

_FEW_TIMES = 20  # up to so many distinct times are taken as they are
_GAP = 0.5  # in ln t: a wider one parts two times of measurement
_WIDEST = 1.2  # in ln t: a longer stretch without gaps is divided
_NODES = (6, 10, 14)  # numbers of conductances for a spread that no polynomial follows
_WILD = 5.0  # times the largest start: no conductance of these cells


class Histories(NamedTuple):
    """Reads of cells after their start: one point each."""

    cell: np.ndarray
    t_s: np.ndarray
    g_s: np.ndarray
    initial_s: np.ndarray
    start_s: np.ndarray  # when the initial conductance was read; 0 where it was given
    dropped: dict[str, int]


def histories(table: Table, kind: str) -> Histories:
    """Return the reads after the first of each cell; the first itself is the start.

    Where a table has initial_s, reads that repeat it at a cell's first time are starts; without
    it the start of a cell is its first read.
    """
    cell, t, g = columns(table, kind, "cell", "time_s", "conductance_s")
    check_count(kind, "points", len(cell), 20)
    check_varies(kind, "conductance_s", g)
    order = np.lexsort((t, cell))
    cell, t, g = cell[order], t[order], g[order]
    first = np.r_[True, cell[1:] != cell[:-1]]
    begin = np.maximum.accumulate(np.where(first, np.arange(len(cell)), 0))
    if "initial_s" in table.columns:
        initial = np.asarray(table.columns["initial_s"], float)[order]
        is_start = first & (np.isclose(g, initial, rtol=1e-9, atol=0) | (t == 0))
    else:
        initial, is_start = g[begin], first
    start = np.where(is_start[begin], t[begin], 0.0)
    keep = ~is_start & (t > 0)
    top = _WILD * float(np.quantile(initial, 0.99))
    wild = keep & ((g > top) | (initial > top))
    keep &= ~wild
    dropped = dict(table.dropped)
    again = ~is_start & (t <= 0)
    if again.any():
        dropped["at time zero, beside the start"] = int(again.sum())
    if wild.any():
        dropped[f"more than {_WILD:g} times the largest start"] = int(wild.sum())
    return Histories(cell[keep], t[keep], g[keep], initial[keep], start[keep], dropped)


def time_groups(t_s: np.ndarray) -> np.ndarray:
    """Return which time of measurement each point belongs to, from 0 in rising order.

    Up to 20 distinct times are taken as they are; else times are parted where ln t has a gap of
    0.5, and longer stretches than 1.2 into equal ones.
    """
    distinct, index = np.unique(t_s, return_inverse=True)
    if len(distinct) <= _FEW_TIMES:
        return index
    log = np.log(distinct)
    group = np.r_[0, np.cumsum(np.diff(log) > _GAP)]
    result, n = np.empty(len(log), int), 0
    for k in range(group[-1] + 1):
        here = group == k
        span = log[here][-1] - log[here][0]
        pieces = max(1, int(np.ceil(span / _WIDEST)))
        if pieces == 1:
            result[here] = n
        else:
            place = (log[here] - log[here][0]) / span * pieces
            result[here] = n + np.minimum(place.astype(int), pieces - 1)
        n += pieces
    return np.unique(result[index], return_inverse=True)[1]


def fit_relaxation(
    table: Table, *, mean_order: int | None = None, sigma_order: int | None = None
) -> Fit:
    """Return mean and spread of g(t) - g(0) against ln t and g: a table for a card.

    At each time of measurement mean and sigma are polynomials of g(0) in uS (order 0 to 4, one
    pair for all times) or, where none follows the data, straight lines between 6, 10 or 14
    conductances, as cross-validation over cells decides; by maximum likelihood, points at a
    limit of the range censored. Between its times a card interpolates in ln t. Standard errors
    are a sandwich over cells: the points of one cell depend on each other.

    Jumps of filaments have long tails: points beyond 5 sigma are dropped as outliers only where
    they lie apart (`statistics.fit_normal`), else they stay, and a note gives the kurtosis.

    The power-law drift of phase change, ln(g/g0) = -nu ln(1 + t/t0) with normal nu, is fitted to
    the same points; its aic is among the alternatives, and a note says where it is the better.

    table : columns cell, time_s, conductance_s, initial_s (or the first read of each cell).
    mean_order, sigma_order : fixed orders instead of chosen ones.

    Raises InputError for fewer than 20 points or no times after the start.
    """
    data = histories(table, "relaxation")
    check_count("relaxation", "points after the start", len(data.cell), 20)
    group = time_groups(data.t_s)
    n_times = int(group.max()) + 1
    times = np.array([np.exp(np.log(data.t_s[group == k]).mean()) for k in range(n_times)])
    v, y = data.initial_s * 1e6, (data.g_s - data.initial_s) * 1e6
    limits = find_limits(data.g_s)
    counts = np.bincount(group)
    check_count("relaxation", f"points at {times[counts.argmin()]:.4g} s", int(counts.min()), 8)
    orders = _orders(v, y, data.cell, group, limits, mean_order, sigma_order)
    all_cells = np.ones(len(v), bool)
    fits = _fit_times(v, y, group, limits, orders, all_cells)
    covariance = _covariance(fits, data.cell, group, all_cells)
    parameters = _parameters(fits, times, np.sqrt(np.diag(covariance)))
    kept = np.zeros(len(v), bool)
    z = np.zeros(len(v))
    for k, fit in enumerate(fits):
        inside = np.flatnonzero(group == k)[fit.kept]
        kept[inside], z[inside] = True, fit.z
    log_likelihood = sum(fit.log_likelihood for fit in fits)
    n, p = int(kept.sum()), len(parameters)
    other, power = power_law_aic(v[kept], data.g_s[kept] * 1e6, data.t_s[kept],
                                 data.start_s[kept])
    found = goodness(log_likelihood, p, n, float((z[kept] ** 2).sum() / max(n - p, 1)))
    dropped = dict(data.dropped)
    if n < len(v):
        dropped["beyond 5 sigma"] = len(v) - n
    curves = [fit.at(v[group == k]) for k, fit in enumerate(fits)]
    pairs = [card_curves(fit, m, s) for fit, (m, s) in zip(fits, curves, strict=True)]
    spec = RelaxationSpec(
        kind="added",
        times_s=tuple(float(t) for t in times),
        mean=tuple(pair[0] for pair in pairs),
        sigma=tuple(pair[1] for pair in pairs),
    )
    return Fit(
        kind="relaxation",
        model=f"table at {n_times} times, {orders}",
        parameters=parameters,
        correlation=correlation_of(covariance),
        n=n,
        dropped=dropped,
        goodness=found,
        alternatives={power: other},
        heldout=_held_out(v, y, data, group, times, limits, orders),
        residuals=(np.log10(data.t_s[kept]), z[kept]),
        x_label="log10 of the time in s",
        panels=_panels(v, y, group, times, fits, kept),
        converged=all(fit.converged for fit in fits),
        notes=_notes(z[kept & ~limits.any], limits, other, found["aic"], power),
        part={"relaxation": spec},
        g_range_s=(float(data.initial_s.min()), float(data.initial_s.max())),
        time_range_s=(float(data.t_s.min()), float(data.t_s.max())),
        source=table.source,
    )


def _orders(
    v: np.ndarray, y: np.ndarray, cell: np.ndarray, group: np.ndarray, limits: Limits,
    mean_order: int | None, sigma_order: int | None,
) -> Choice:
    """Return the highest orders that the first and the last time of measurement ask for."""
    chosen = []
    for k in {0, int(group.max())}:
        here = np.flatnonzero(group == k)
        chosen.append(fixed_or_chosen(v[here], y[here], cell[here], limits.take(here),
                                      mean_order, sigma_order, _NODES))
    return Choice(*(max(numbers) for numbers in zip(*chosen, strict=True)))


def _fit_times(
    v: np.ndarray, y: np.ndarray, group: np.ndarray, limits: Limits, orders: Choice,
    taken: np.ndarray,
) -> list[NormalFit]:
    fits = []
    for k in range(int(group.max()) + 1):
        here = np.flatnonzero((group == k) & taken)
        fits.append(fit_normal(v[here], y[here], *orders[:2], limits=limits.take(here),
                               basis=orders.basis(v[here])))
    return fits


def _covariance(
    fits: list[NormalFit], cell: np.ndarray, group: np.ndarray, taken: np.ndarray
) -> np.ndarray:
    """Return the covariance of all times' parameters, summed over cells."""
    p = fits[0].n_parameters
    influence, cells = [], []
    for k, fit in enumerate(fits):
        here = np.flatnonzero((group == k) & taken)[fit.kept]
        block = np.zeros((len(here), p * len(fits)))
        block[:, k * p : (k + 1) * p] = fit.influence @ fit.powers.T
        influence.append(block)
        cells.append(cell[here])
    return clustered(np.vstack(influence), np.concatenate(cells))


def _parameters(
    fits: list[NormalFit], times: np.ndarray, error: np.ndarray
) -> dict[str, Parameter]:
    parameters: dict[str, Parameter] = {}
    p = fits[0].n_parameters
    for k, (fit, t) in enumerate(zip(fits, times, strict=True)):
        own, a = error[k * p : (k + 1) * p], len(fit.mean)
        for name, part in (("mean", slice(0, a)), ("sigma", slice(a, p))):
            found = basis_parameters(name, fit.basis, fit.theta[part], own[part])
            parameters |= {f"{key} at {t:.4g} s": value for key, value in found.items()}
    return parameters


def _held_out(
    v: np.ndarray, y: np.ndarray, data: Histories, group: np.ndarray, times: np.ndarray,
    limits: Limits, orders: Choice,
) -> tuple[Checked, ...]:
    """Return mean and spread of the other half of the cells at each time, and a prediction."""
    taken = halves(data.cell)
    counts = [min(((group == k) & taken).sum(), ((group == k) & ~taken).sum())
              for k in range(len(times))]
    needed = 2 * orders.n_nodes + orders.mean_order + orders.sigma_order + 3
    if min(counts) < max(8, needed):
        return ()
    fits = _fit_times(v, y, group, limits, orders, taken)
    low = data.g_s.min() * 1e6 if limits.low.any() else -np.inf
    high = data.g_s.max() * 1e6 if limits.high.any() else np.inf
    checked: list[Checked] = []
    for k, (fit, t) in enumerate(zip(fits, times, strict=True)):
        here = (group == k) & ~taken
        g, found = v[here], y[here]
        if not fit.kept.all():
            m, s = fit.at(g)
            good = np.abs(found - m) <= 5 * s
            g, found = g[good], found[good]
        cell = data.cell[(group == k) & taken][fit.kept]
        checked += compare(
            f"of g(t) - g(0) at {t:.4g} s", fit, g, found, fit.covariance(cell),
            lambda m, s, g=g: clipped_moments(m, s, low - g, high - g),  # type: ignore[misc]
        )
    return tuple(checked)


def _notes(
    z: np.ndarray, limits: Limits, other: float, own: float, power: str
) -> tuple[str, ...]:
    better = "better" if other < own else "worse"
    notes = [
        f"the {power} is the {better} model of these points (aic {other - own:+.4g}); both count "
        "the points of a cell as if they were independent"
    ]
    kurtosis = float((z**4).mean() / (z**2).mean() ** 2 - 3)
    if kurtosis > 1:
        notes.append(
            f"the residuals have long tails (excess kurtosis {kurtosis:.3g}): a card draws normals "
            "of the same mean and standard deviation"
        )
    if limits.any.any():
        notes.append(f"{int(limits.any.sum())} points at a limit of the range count as censored")
    return tuple(notes)


def _panels(
    v: np.ndarray, y: np.ndarray, group: np.ndarray, times: np.ndarray, fits: list[NormalFit],
    kept: np.ndarray,
) -> tuple[Panel, ...]:
    """Return mean and spread of all cells against time."""
    mean, std, error, model_mean, model_std = [], [], [], [], []
    for k, fit in enumerate(fits):
        here = (group == k) & kept
        m, s = fit.at(v[here])
        mean.append(y[here].mean())
        std.append(y[here].std(ddof=1))
        error.append(std[-1] / np.sqrt(here.sum()))
        model_mean.append(m.mean())
        model_std.append(np.sqrt((s**2).mean() + m.var()))
    return (
        Panel("mean of g(t) - g(0)", "time (s)", "mean (uS)", times, np.array(mean),
              np.array(error), times, np.array(model_mean), log_x=True),
        Panel("spread of g(t) - g(0)", "time (s)", "standard deviation (uS)", times,
              np.array(std), np.array(error) / np.sqrt(2), times, np.array(model_std), log_x=True),
    )
