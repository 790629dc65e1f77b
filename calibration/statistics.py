"""Maximum likelihood for errors whose mean and spread change with conductance.

The model of every kind is y = m(v) + s(v) xi with m and s polynomials of v, the conductance in
microsiemens, and xi normal; a value at a limit of the instrument says only that the true one
lies at or beyond it (Tobin 1958, doi:10.2307/1907382). Fits are made in polynomials of the
scaled variable u in -1 .. 1 (Chebyshev's) and handed out in powers of v.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.polynomial import chebyshev, polynomial
from scipy import optimize, special, stats

from calibration.fit import covariance_from_hessian

Cost = Callable[[np.ndarray], float]
Terms = Callable[[np.ndarray], np.ndarray]

MOST_ORDER = 4
CUT = 5.0  # sigmas beyond which a point is an outlier
MOST_DROPPED = 0.1  # share of points that may be outliers
_CROSS_POINTS = 10_000  # a cross-validation needs no more to choose among five orders
_FOLDS = 5


@dataclass(frozen=True, eq=False)
class Basis:
    """Functions of v that make up mean and spread.

    Chebyshev polynomials of u = (v - centre)/half up to an order; or, where there are nodes,
    straight lines between values at these, one function for each.
    """

    centre: float
    half: float
    nodes: np.ndarray | None = None

    @classmethod
    def over(cls, v: np.ndarray, n_nodes: int = 0) -> Basis:
        """Return the basis over the range of v; its nodes have equal numbers of points between."""
        low, high = float(v.min()), float(v.max())
        nodes = None
        if n_nodes:
            nodes = np.unique(np.quantile(v, np.linspace(0, 1, n_nodes)))
        return cls((low + high) / 2, (high - low) / 2 or 1.0, nodes)

    def design(self, v: np.ndarray, order: int) -> np.ndarray:
        """Return the functions at v: (n, order + 1), or (n, nodes)."""
        if self.nodes is None:
            return chebyshev.chebvander((v - self.centre) / self.half, order)
        return np.stack(
            [np.interp(v, self.nodes, unit) for unit in np.eye(len(self.nodes))], axis=1
        )

    def natural(self, v: np.ndarray, order: int) -> np.ndarray:
        """Return what multiplies `NormalFit.theta`: powers of v, or the functions of nodes."""
        if self.nodes is None:
            return np.asarray(v[:, None] ** np.arange(order + 1))
        return self.design(v, order)

    def to_natural(self, order: int) -> np.ndarray:
        """Return the matrix from coefficients here to those of powers of v, or of nodes."""
        if self.nodes is not None:
            return np.eye(len(self.nodes))
        matrix = np.zeros((order + 1, order + 1))
        shift = np.array([-self.centre, 1.0]) / self.half
        for k in range(order + 1):
            power: np.ndarray = np.ones(1)
            total: np.ndarray = np.zeros(1)
            for c in chebyshev.cheb2poly(np.eye(order + 1)[k]):
                total = polynomial.polyadd(total, c * power)
                power = polynomial.polymul(power, shift)
            matrix[: len(total), k] = total[: order + 1]
        return matrix


@dataclass(frozen=True, eq=False)
class NormalFit:
    """A fitted y = m(v) + s(v) xi. Arrays over points are those that were kept.

    mean, sigma : coefficients in the basis. influence : (n, p) each point's share in the
    parameters, H^-1 times its score: their covariance is the sum of their outer products.
    kept : (n_all,) which points the likelihood counts. z : standardised residuals.
    """

    basis: Basis
    mean: np.ndarray
    sigma: np.ndarray
    influence: np.ndarray
    kept: np.ndarray
    z: np.ndarray
    log_likelihood: float
    converged: bool

    @property
    def n_parameters(self) -> int:
        """Coefficients of both polynomials."""
        return len(self.mean) + len(self.sigma)

    @property
    def theta(self) -> np.ndarray:
        """Coefficients of powers of v (or values at nodes): the mean's, then those of sigma."""
        return self.powers @ np.concatenate([self.mean, self.sigma])

    @property
    def powers(self) -> np.ndarray:
        """Matrix from coefficients of the basis to `theta`."""
        a, b = len(self.mean), len(self.sigma)
        matrix = np.zeros((a + b, a + b))
        matrix[:a, :a] = self.basis.to_natural(a - 1)
        matrix[a:, a:] = self.basis.to_natural(b - 1)
        return matrix

    def covariance(self, cell: np.ndarray | None = None) -> np.ndarray:
        """Return the covariance of `theta`, robust to any distribution of the residuals.

        Huber's sandwich (White 1982, doi:10.2307/1912526). cell : (n,) of the kept points; those
        of one cell may depend on each other, their influences are added before they are squared.
        """
        return clustered(self.influence @ self.powers.T, cell)

    def at(self, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return m(v) and s(v)."""
        mean = self.basis.design(v, len(self.mean) - 1) @ self.mean
        sigma = self.basis.design(v, len(self.sigma) - 1) @ self.sigma
        return mean, sigma


def clustered(influence: np.ndarray, cell: np.ndarray | None = None) -> np.ndarray:
    """Return the covariance that influences (n, p) add up to, those of one cell as one draw."""
    if cell is None:
        n, total = len(influence), influence
    else:
        _, index = np.unique(cell, return_inverse=True)
        n = int(index.max()) + 1
        total = np.stack(
            [np.bincount(index, influence[:, k], n) for k in range(influence.shape[1])], axis=1
        )
    return total.T @ total * (n / max(n - 1, 1))


@dataclass(frozen=True, eq=False)
class Limits:
    """Which points lie at the lower or upper limit of what can be measured."""

    low: np.ndarray
    high: np.ndarray

    @classmethod
    def none(cls, n: int) -> Limits:
        """Return that no point does."""
        return cls(np.zeros(n, bool), np.zeros(n, bool))

    def take(self, index: np.ndarray) -> Limits:
        """Return those of some points."""
        return Limits(self.low[index], self.high[index])

    @property
    def any(self) -> np.ndarray:
        """Points at either."""
        return self.low | self.high


def find_limits(value: np.ndarray) -> Limits:
    """Return which values lie at a limit: one extreme found far more often than its neighbours.

    An extreme counts as a limit where at least 5 points and 5 times as many as at each of the
    five values next to it share it exactly; a grid of an instrument's steps does not.
    """
    distinct, count = np.unique(value, return_counts=True)
    limits = Limits.none(len(value))
    if len(distinct) < 7:
        return limits
    if count[0] >= max(5, 5 * count[1:6].max()):
        limits.low[:] = value == distinct[0]
    if count[-1] >= max(5, 5 * count[-6:-1].max()):
        limits.high[:] = value == distinct[-1]
    return limits


def fit_normal(
    v: np.ndarray,
    y: np.ndarray,
    mean_order: int,
    sigma_order: int,
    *,
    limits: Limits | None = None,
    basis: Basis | None = None,
) -> NormalFit:
    """Return the maximum-likelihood polynomials of mean and spread of y against v.

    Outliers: beyond 5 sigmas of the fit (of 100,000 normal points 0.06) a point is left out and
    the fit made again from a start by medians, until nothing changes; but where they are more
    than a tenth, or join the rest without a gap (`_inliers`), they are the distribution's own
    tail, and all stay.

    Parameters
    ----------
    v : (n,) conductances in microsiemens. y : (n,) errors. limits : censored points.
    """
    basis = basis or Basis.over(v)
    limits = limits or Limits.none(len(v))
    x, w = basis.design(v, mean_order), basis.design(v, sigma_order)
    n_mean = x.shape[1]
    start = _robust_start(x, w, y, limits)
    kept = _inliers(y, x @ start[:n_mean], w @ start[n_mean:], limits)
    for _ in range(8):
        theta, converged = _maximise(x[kept], w[kept], y[kept], limits.take(kept), start)
        now = _inliers(y, x @ theta[:n_mean], w @ theta[n_mean:], limits)
        if (now == kept).all() or kept.all():
            break
        kept, start = now, theta
    return _finished(x, w, y, limits, theta, kept, basis, n_mean, converged)


def _inliers(y: np.ndarray, m: np.ndarray, s: np.ndarray, limits: Limits) -> np.ndarray:
    """Return which points the fit counts; all of them where the far ones are a tail.

    A tail goes on: the stretch of 3.5 to 5 sigma then holds more points than three times a
    normal's and five, and more than a fifth of those beyond. Outliers lie apart.
    """
    z = np.abs(y - m) / s
    kept = (z <= CUT) | limits.any
    far = len(y) - int(kept.sum())
    shoulder = int(((z > 3.5) & kept & ~limits.any).sum())
    goes_on = shoulder > max(5 + 3 * 4.65e-4 * len(y), 0.2 * far)
    if goes_on or far > MOST_DROPPED * len(y):
        return np.ones(len(y), bool)
    return np.asarray(kept)


def _finished(
    x: np.ndarray, w: np.ndarray, y: np.ndarray, limits: Limits, theta: np.ndarray,
    kept: np.ndarray, basis: Basis, n_mean: int, converged: bool,
) -> NormalFit:
    x, w, y, limits = x[kept], w[kept], y[kept], limits.take(kept)
    value, dm, ds, *second = _terms(x @ theta[: n_mean], w @ theta[n_mean :],
                                    y, limits)
    hessian = _hessian(x, w, *second)
    score = np.hstack([x * dm[:, None], w * ds[:, None]])
    influence = np.linalg.lstsq(-hessian, score.T, rcond=None)[0].T
    z = (y - x @ theta[: n_mean]) / (w @ theta[n_mean :])
    definite = bool(np.linalg.eigvalsh(-hessian)[0] > 0)
    return NormalFit(
        basis, theta[: n_mean], theta[n_mean :], influence, kept, z,
        float(value.sum()), converged and definite,
    )


def _robust_start(x: np.ndarray, w: np.ndarray, y: np.ndarray, limits: Limits) -> np.ndarray:
    """Return coefficients by Huber's reweighting: mean of y, then that of |residual|."""
    free = ~limits.any if (~limits.any).sum() > x.shape[1] + w.shape[1] else slice(None)
    mean = _huber(x[free], y[free])
    size = np.abs(y[free] - x[free] @ mean) * 1.2533  # sqrt(pi/2): E|xi| = 0.798
    sigma = _huber(w[free], size)
    middle = float(np.median(size)) * 1.183
    if not (w @ sigma > 0.05 * middle).all() or middle == 0:
        sigma = _constant(w, middle or float(size.mean()) or 1e-30)
    return np.concatenate([mean, sigma])


def _constant(w: np.ndarray, value: float) -> np.ndarray:
    """Return the coefficients of a constant: of the first polynomial, or of all nodes."""
    nodes = bool(np.ptp(w[:, 0]) > 0)
    return np.r_[value, np.full(w.shape[1] - 1, value if nodes else 0.0)]


def _huber(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    theta = np.linalg.lstsq(x, y, rcond=None)[0]
    for _ in range(10):
        r = y - x @ theta
        scale = 1.4826 * np.median(np.abs(r)) or np.abs(r).mean()
        if not scale > 0:
            break
        weight = np.minimum(1.0, 1.345 * scale / np.maximum(np.abs(r), 1e-300))
        weighted = x.T * weight
        theta = np.linalg.lstsq(weighted @ x, weighted @ y, rcond=None)[0]
    return theta


def _maximise(
    x: np.ndarray, w: np.ndarray, y: np.ndarray, limits: Limits, start: np.ndarray
) -> tuple[np.ndarray, bool]:
    """Return the maximum by Newton or Fisher scoring, steps halved, and whether it was reached."""
    n_mean = x.shape[1]
    theta = start.copy()
    if not (w @ theta[n_mean:] > 0).all():
        theta[n_mean:] = _constant(w, float(y.std()) or 1e-30)
    value, dm, ds, *second = _terms(x @ theta[:n_mean], w @ theta[n_mean:], y, limits)
    best = float(value.sum())
    for _ in range(40):
        s = w @ theta[n_mean:]
        gradient = np.concatenate([x.T @ dm, w.T @ ds])
        information = -_hessian(x, w, *second)
        if not np.linalg.eigvalsh(information)[0] > 0:
            information = _expected(x, w, s)
        step = np.linalg.lstsq(information, gradient, rcond=None)[0]
        gain = float(gradient @ step)
        factor = 1.0
        while factor > 1e-3:
            trial = theta + factor * step
            s_trial = w @ trial[n_mean:]
            if (s_trial > 0.02 * np.abs(s)).all():
                terms = _terms(x @ trial[:n_mean], s_trial, y, limits)
                found = float(terms[0].sum())
                if found >= best - 1e-9 * abs(best):
                    break
            factor /= 2
        else:
            return theta, gain < 1e-3
        theta, best = trial, found
        value, dm, ds, *second = terms
        if gain < 1e-7:
            return theta, True
    return theta, False


def _terms(m: np.ndarray, s: np.ndarray, y: np.ndarray, limits: Limits) -> tuple[np.ndarray, ...]:
    """Return log-likelihoods of points and their first and second derivatives by m and s."""
    z = (y - m) / s
    value = -0.5 * z * z - np.log(s) - 0.5 * np.log(2 * np.pi)
    dm, ds = z / s, (z * z - 1) / s
    mm, ms, ss = -1 / s**2, -2 * z / s**2, (1 - 3 * z * z) / s**2
    for at, sign in ((limits.low, 1.0), (limits.high, -1.0)):
        if at.any():
            a = sign * z[at]
            value[at] = special.log_ndtr(a)
            ratio = np.exp(-0.5 * a * a - 0.5 * np.log(2 * np.pi) - value[at])
            bend = -ratio * (a + ratio)
            si = s[at]
            dm[at], ds[at] = -sign * ratio / si, -a * ratio / si
            mm[at] = bend / si**2
            ms[at] = sign * (bend * a + ratio) / si**2
            ss[at] = (bend * a * a + 2 * ratio * a) / si**2
    return value, dm, ds, mm, ms, ss


def _hessian(
    x: np.ndarray, w: np.ndarray, mm: np.ndarray, ms: np.ndarray, ss: np.ndarray
) -> np.ndarray:
    cross = (x.T * ms) @ w
    return np.block([[(x.T * mm) @ x, cross], [cross.T, (w.T * ss) @ w]])


def _expected(x: np.ndarray, w: np.ndarray, s: np.ndarray) -> np.ndarray:
    zero = np.zeros((x.shape[1], w.shape[1]))
    scale = 1 / s**2
    return np.block([[(x.T * scale) @ x, zero], [zero.T, 2 * (w.T * scale) @ w]])


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
    result = np.empty(len(y))
    basis = choice.basis(v)
    orders = choice[:2]
    whole = fit_normal(v, y, *orders, limits=limits, basis=basis)
    x, w = (basis.design(v, order) for order in orders)
    n_mean = x.shape[1]
    start = np.concatenate([whole.mean, whole.sigma])
    for k in range(_FOLDS):
        out = fold == k
        into = ~out & whole.kept
        theta, _ = _maximise(x[into], w[into], y[into], limits.take(into), start)
        s = w[out] @ theta[n_mean:]
        s = np.maximum(s, 0.02 * np.abs(s).max())
        value = _terms(x[out] @ theta[:n_mean], s, y[out], limits.take(out))[0]
        floor = -0.5 * (1.2 * CUT) ** 2 - np.log(s)
        result[out] = np.maximum(value, floor) if not whole.kept.all() else value
    return result


def clipped_moments(
    m: np.ndarray, s: np.ndarray, low: float | np.ndarray, high: float | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and second moment of m + s xi held between two limits."""
    a, b = (low - m) / s, (high - m) / s
    inside = stats.norm.cdf(b) - stats.norm.cdf(a)
    pa, pb = stats.norm.pdf(a), stats.norm.pdf(b)
    below, above = stats.norm.cdf(a), stats.norm.sf(b)
    low_ = np.where(np.isfinite(low), low, 0.0)
    high_ = np.where(np.isfinite(high), high, 0.0)
    a_ = np.where(np.isfinite(a), a, 0.0)
    b_ = np.where(np.isfinite(b), b, 0.0)
    first = m * inside + s * (pa - pb) + low_ * below + high_ * above
    second = (
        (m * m + s * s) * inside + 2 * m * s * (pa - pb) + s * s * (a_ * pa - b_ * pb)
        + low_**2 * below + high_**2 * above
    )
    return first, second


def unit_steps(cost: Cost, best: np.ndarray) -> np.ndarray:
    """Return for each parameter the step that raises a negative log-likelihood by about 0.5.

    That is one standard error were there no other parameters: a scale to differentiate and
    search on. 0 where no step changes the cost.
    """
    here = cost(best)
    steps = np.zeros(len(best))
    for k in range(len(best)):
        step = 1e-3 * max(abs(float(best[k])), 1e-6)
        for _ in range(80):
            there = best.copy()
            there[k] += step
            rise = abs(cost(there) - here)
            if rise < 0.2:
                step *= 2.0 if rise > 1e-3 else 8.0
            elif not rise <= 2.0:
                step /= 3.0
            else:
                steps[k] = step
                break
    return steps


def minimise(cost: Cost, start: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    """Return the minimum of a negative log-likelihood, the steps of `unit_steps` there, and
    whether it was reached; BFGS on parameters scaled by those steps.
    """
    best = start.astype(float)
    converged = False
    scale = np.ones(len(best))
    for _ in range(4):
        scale = unit_steps(cost, best)
        free = scale > 0
        if not free.all():
            return best, scale, False
        found = optimize.minimize(
            lambda u, at=best, by=scale: cost(at + u * by), np.zeros(len(best)), method="BFGS",
            options={"gtol": 1e-2, "eps": 1e-4, "maxiter": 300},
        )
        gain = cost(best) - float(found.fun)
        if gain > 0:
            best = best + found.x * scale
        converged = gain < 1e-2
        if converged:
            break
    return best, scale, converged


def maximise_sum(
    terms: Terms, start: np.ndarray, iterations: int = 60
) -> tuple[np.ndarray, np.ndarray | None, bool]:
    """Return the maximum of a sum of log-likelihoods, its covariance, whether it was reached.

    terms : parameters -> (n,) log-likelihood of each independent unit. Steps are those of
    Berndt, Hall, Hall and Hausman (1974): the outer product of the units' scores stands for the
    Hessian, at the end as well, which bends of the model do not disturb as second differences.
    """
    theta = start.astype(float)
    value = terms(theta)
    best = float(value.sum())
    steps = unit_steps(lambda x: -float(terms(x).sum()), theta)
    if not (steps > 0).all():
        return theta, None, False
    converged = False
    for _ in range(iterations):
        score = _scores(terms, theta, 0.03 * steps)
        information = score.T @ score
        if not np.isfinite(information).all():
            return theta, None, False
        scale = np.sqrt(np.diag(information))
        if not (scale > 0).all():
            return theta, None, False
        scaled = information / np.outer(scale, scale)
        gradient = score.sum(0) / scale
        direction = np.linalg.solve(scaled + 1e-8 * np.eye(len(scaled)), gradient)
        gain = float(gradient @ direction)
        steps = 1 / scale
        if gain < 1e-4:
            converged = True
            break
        factor = 1.0
        while factor > 1e-4:
            trial = theta + factor * direction / scale
            found = float(terms(trial).sum())
            if found > best:
                break
            factor /= 2
        else:
            converged = gain < 0.05
            break
        if found - best < 1e-3 and factor == 1.0 and gain < 0.02:
            theta, best, converged = trial, found, True
            break
        theta, best = trial, found
    try:
        covariance = np.linalg.inv(scaled) / np.outer(scale, scale)
    except np.linalg.LinAlgError:
        return theta, None, False
    return theta, covariance, converged


def _scores(terms: Terms, theta: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Return each unit's derivatives by the parameters, (n, p), by central differences."""
    columns = []
    for k, step in enumerate(steps):
        above, below = theta.copy(), theta.copy()
        above[k] += step
        below[k] -= step
        columns.append((terms(above) - terms(below)) / (above[k] - below[k]))
    return np.stack(columns, axis=1)


def covariance_from(cost: Cost, best: np.ndarray) -> np.ndarray | None:
    """Return the inverse Hessian of a negative log-likelihood at its minimum, None without one."""
    steps = unit_steps(cost, best)
    if not (steps > 0).all():
        return None
    return covariance_from_hessian(cost, best, 0.3 * steps)
