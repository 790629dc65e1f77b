"""The power law of drift as one candidate among models of single reads, for comparing AIC."""

from __future__ import annotations

import numpy as np
from numpy.polynomial.polynomial import polyval

from calibration.likelihood import minimise

POWER_LAW = "power-law drift"
_POINTS = 5_000  # that choose its eight numbers; its likelihood is that of all points


def power_law_aic(
    initial_us: np.ndarray, g_us: np.ndarray, t_s: np.ndarray, start_s: np.ndarray
) -> tuple[float, str]:
    """Return the AIC of single reads under power-law drift, and the model's name.

    ln(g/g0) ~ N(-mu L, (s L)^2 + tau^2), L = ln((t + t0)/(t_start + t0)); mu and ln s are
    parabolas in ln g0; tau is the noise of a read. As a density of g, so that it
    compares with models of g itself. Points that are not positive cannot be drift: they are
    given the density of the least ratio found.

    All arrays (n,), conductances in microsiemens.
    """
    positive = np.minimum(initial_us, g_us) > 0
    least = float(np.min(g_us[positive] / initial_us[positive], initial=1e-3))
    start = np.maximum(initial_us, 1e-9)
    y = np.log(np.maximum(g_us / start, least))
    x = np.log(start / np.exp(np.log(start).mean()))
    x = x / max(float(np.abs(x).max()), 1e-9)
    jacobian = float(np.log(np.maximum(g_us, least * start)).sum())

    def cost(theta: np.ndarray, take: np.ndarray | slice = slice(None)) -> float:
        log_t0, log_tau = theta[:2]
        t0 = np.exp(np.clip(log_t0, -30, 30))
        span = np.log((t_s[take] + t0) / (start_s[take] + t0))
        spread = np.exp(np.clip(polyval(x[take], theta[5:]), -30, 10)) * span
        variance = spread**2 + np.exp(2 * np.clip(log_tau, -20, 5))
        r = y[take] + polyval(x[take], theta[2:5]) * span
        return 0.5 * float((r * r / variance + np.log(2 * np.pi * variance)).sum())

    # a fixed stride would take one time of all cells
    some = np.random.Generator(np.random.Philox(0)).permutation(len(y))[:_POINTS]
    middle = float(np.log(np.median(t_s)))
    std = max(float(y.std()), 1e-6)
    best, value = None, np.inf
    for log_t0 in (middle - 5.0, middle):
        guess = np.array([log_t0, np.log(std) - 1, 0, 0, 0, np.log(std / 5), 0, 0])
        found, _, _ = minimise(lambda theta: cost(theta, some), guess)
        if cost(found) < value:
            best, value = found, cost(found)
    assert best is not None
    return 2 * len(best) + 2 * (value + jacobian), POWER_LAW
