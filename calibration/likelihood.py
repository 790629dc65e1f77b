"""Maxima of likelihoods without a closed form, and the covariances there."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import optimize

from calibration.fit import covariance_from_hessian

Cost = Callable[[np.ndarray], float]
Terms = Callable[[np.ndarray], np.ndarray]


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
