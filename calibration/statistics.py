"""Maximum likelihood for errors whose mean and spread change with conductance.

The model of every kind is y = m(v) + s(v) xi with m and s polynomials of v, the conductance in
microsiemens, and xi normal; a value at a limit of the instrument says only that the true one
lies at or beyond it (Tobin 1958, doi:10.2307/1907382). Fits are made in polynomials of the
scaled variable u in -1 .. 1 (Chebyshev's) and handed out in powers of v.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.polynomial import chebyshev, polynomial
from scipy import special, stats

CUT = 5.0  # sigmas beyond which a point is an outlier
MOST_DROPPED = 0.1  # share of points that may be outliers


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
        theta, converged = maximise(x[kept], w[kept], y[kept], limits.take(kept), start)
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
    value, dm, ds, *second = terms(x @ theta[: n_mean], w @ theta[n_mean :],
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


def maximise(
    x: np.ndarray, w: np.ndarray, y: np.ndarray, limits: Limits, start: np.ndarray
) -> tuple[np.ndarray, bool]:
    """Return the maximum by Newton or Fisher scoring, steps halved, and whether it was reached."""
    n_mean = x.shape[1]
    theta = start.copy()
    if not (w @ theta[n_mean:] > 0).all():
        theta[n_mean:] = _constant(w, float(y.std()) or 1e-30)
    value, dm, ds, *second = terms(x @ theta[:n_mean], w @ theta[n_mean:], y, limits)
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
                made = terms(x @ trial[:n_mean], s_trial, y, limits)
                found = float(made[0].sum())
                if found >= best - 1e-9 * abs(best):
                    break
            factor /= 2
        else:
            return theta, gain < 1e-3
        theta, best = trial, found
        value, dm, ds, *second = made
        if gain < 1e-7:
            return theta, True
    return theta, False


def terms(m: np.ndarray, s: np.ndarray, y: np.ndarray, limits: Limits) -> tuple[np.ndarray, ...]:
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
