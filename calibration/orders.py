"""How mean and spread depend on conductance: orders of polynomials, by cross-validation."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from calibration.statistics import CUT, Basis, Limits, fit_normal, maximise, terms

MOST_ORDER = 4
_CROSS_POINTS = 10_000  # a cross-validation needs no more to choose among five orders
_FOLDS = 5


class Choice(NamedTuple):
    """How mean and spread depend on v: orders of polynomials, or a number of nodes."""

    mean_order: int
    sigma_order: int
    n_nodes: int = 0

    def basis(self, v: np.ndarray) -> Basis:
        """Return the basis over v."""
        return Basis.over(v, self.n_nodes)

    def __str__(self) -> str:
        if self.n_nodes:
            return f"mean and sigma by straight lines between {self.n_nodes} conductances"
        return f"mean of order {self.mean_order}, sigma of order {self.sigma_order}"


def choose_orders(
    v: np.ndarray,
    y: np.ndarray,
    group: np.ndarray,
    *,
    limits: Limits | None = None,
    most_order: int = MOST_ORDER,
    nodes: tuple[int, ...] = (),
) -> Choice:
    """Return the orders of mean and spread that predict left-out groups best.

    Five-fold cross-validation of the log-likelihood over groups (cells, or points), the orders
    raised from (0, 0) while that wins more than 1. An order too many costs only wider errors,
    one too few makes all others wrong. Then lines between `nodes` are tried as well.
    """
    limits = limits or Limits.none(len(v))
    if len(v) > _CROSS_POINTS:
        taken = np.linspace(0, len(v) - 1, _CROSS_POINTS).astype(int)
        v, y, group, limits = v[taken], y[taken], group[taken], limits.take(taken)
    most = min(most_order, len(np.unique(v)) - 1)
    if len(np.unique(group)) < _FOLDS:
        group = np.arange(len(v))
    _, group = np.unique(group, return_inverse=True)
    fold = (group * 7919 % 10007) % _FOLDS  # neighbours in the file go to different folds
    scores: dict[Choice, np.ndarray] = {}

    def gain(choice: Choice, before: Choice) -> float:
        for one in (before, choice):
            if one not in scores:
                scores[one] = _left_out(v, y, fold, limits, one)
        difference = scores[choice] - scores[before]
        return float(difference.sum()) - 1.0

    best = Choice(0, 0)
    while True:
        steps = ((1, 0), (0, 1), (2, 0), (0, 2), (1, 1))
        raised = [Choice(best.mean_order + i, best.sigma_order + j) for i, j in steps]
        gains = [(gain(c, best), c) for c in raised if max(c.mean_order, c.sigma_order) <= most]
        if not gains or max(gains)[0] <= 0:
            break
        best = max(gains)[1]
    for n in nodes:
        choice = Choice(0, 0, n)
        if len(v) >= 20 * n and gain(choice, best) > 0:
            best = choice
    return best


def fixed_or_chosen(
    v: np.ndarray, y: np.ndarray, group: np.ndarray, limits: Limits | None,
    mean_order: int | None, sigma_order: int | None, nodes: tuple[int, ...] = (),
) -> Choice:
    """Return the orders that were given, and those of `choose_orders` where none was."""
    if mean_order is not None and sigma_order is not None:
        return Choice(mean_order, sigma_order)
    fixed = mean_order is not None or sigma_order is not None
    choice = choose_orders(v, y, group, limits=limits, nodes=() if fixed else nodes)
    return Choice(
        choice.mean_order if mean_order is None else mean_order,
        choice.sigma_order if sigma_order is None else sigma_order,
        choice.n_nodes,
    )


def _left_out(
    v: np.ndarray, y: np.ndarray, fold: np.ndarray, limits: Limits, choice: Choice
) -> np.ndarray:
    """Return each point's log-likelihood under the fit without its fold; outliers count alike."""
    result = np.zeros(len(y))
    basis = choice.basis(v)
    orders = choice[:2]
    whole = fit_normal(v, y, *orders, limits=limits, basis=basis)
    x, w = (basis.design(v, order) for order in orders)
    n_mean = x.shape[1]
    start = np.concatenate([whole.mean, whole.sigma])
    for k in range(_FOLDS):
        out = fold == k
        if not out.any():
            continue
        into = ~out & whole.kept
        theta, _ = maximise(x[into], w[into], y[into], limits.take(into), start)
        s = w[out] @ theta[n_mean:]
        s = np.maximum(s, 0.02 * np.abs(s).max())
        value = terms(x[out] @ theta[:n_mean], s, y[out], limits.take(out))[0]
        floor = -0.5 * (1.2 * CUT) ** 2 - np.log(s)
        result[out] = np.maximum(value, floor) if not whole.kept.all() else value
    return result
