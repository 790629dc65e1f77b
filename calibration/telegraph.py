"""Telegraph noise of one cell: two levels, their dwell times, and whether there are any."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from calibration.fit import covariance_from_hessian
from calibration.kernels.telegraph import telegraph_log_likelihood, telegraph_step
from calibration.likelihood import unit_steps

_STEPS = 80  # of expectation and maximisation
_SURROGATES = 3
_CLEAR = 10.0  # of bic
_LEAST_JUMPS = 4.0
_ORDER = 16  # of the autoregression that takes the spectrum out
_KURTOSIS = 1.0


@dataclass(frozen=True, eq=False)
class Telegraph:
    """Two levels [uS] in normal noise sigma, chances up and down of a jump between samples."""

    low: float
    high: float
    sigma: float
    up: float
    down: float
    period_s: float
    log_likelihood: float
    jumps: float
    gain: float  # by which its bic beats that of one level

    @property
    def amplitude(self) -> float:
        """Distance of the levels [uS]."""
        return self.high - self.low

    @property
    def share(self) -> float:
        """Share of time in the upper level."""
        return self.up / (self.up + self.down)

    @property
    def rate(self) -> float:
        """1/tau_high + 1/tau_low [1/s]; in one period the chain forgets exp(-rate period)."""
        return -math.log(max(1 - self.up - self.down, 1e-12)) / self.period_s

    @property
    def dwell_s(self) -> tuple[float, float]:
        """Mean times in the upper and in the lower level [s]."""
        return 1 / (self.rate * (1 - self.share)), 1 / (self.rate * self.share)

    def path(self, y: np.ndarray) -> np.ndarray:
        """Return the expected level of every sample [uS], all samples known."""
        _, post, _ = _expect(y, self.low, self.high, self.sigma, self.up, self.down)
        return np.asarray(self.low + self.amplitude * post)

    def errors(self, y: np.ndarray) -> np.ndarray:
        """Return the covariance of (amplitude, ln tau_high, ln tau_low), from the Hessian."""
        tau = np.log(self.dwell_s)

        def cost(x: np.ndarray) -> float:
            low, amplitude, log_sigma, high_time, low_time = x
            rates = np.exp(-np.array([high_time, low_time]))
            rate = float(rates.sum())
            moved = 1 - math.exp(-rate * self.period_s)
            share = float(rates[1]) / rate
            return -float(telegraph_log_likelihood(
                y, low, low + amplitude, math.exp(log_sigma), share * moved, (1 - share) * moved
            ))

        best = np.array([self.low, self.amplitude, math.log(self.sigma), *tau])
        covariance = covariance_from_hessian(cost, best, 0.3 * unit_steps(cost, best))
        if covariance is None:
            return np.full((3, 3), np.nan)
        return covariance[np.ix_([1, 3, 4], [1, 3, 4])]


def _expect(
    y: np.ndarray, low: float, high: float, sigma: float, up: float, down: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    prior, post, sums = np.empty(len(y)), np.empty(len(y)), np.empty(9)
    telegraph_step(y, low, high, sigma, up, down, prior, post, sums)
    return prior, post, sums


def fit_telegraph(y: np.ndarray, period_s: float) -> Telegraph:
    """Return the two-level chain of highest likelihood for (n,) samples y [uS].

    Baum-Welch from three starts: the halves about the middle of the range, and a rare upper or
    lower level.
    """
    n = len(y)
    one_level = -0.5 * n * (1 + math.log(2 * math.pi * max(float(y.var()), 1e-300)))
    best: Telegraph | None = None
    for low, high in _starts(y):
        sigma = max(float(np.minimum(np.abs(y - low), np.abs(y - high)).std()),
                    1e-3 * (high - low), 1e-12)
        up = down = 0.05
        before = -math.inf
        sums = np.empty(9)
        for _ in range(_STEPS):
            _, _, sums = _expect(y, low, high, sigma, up, down)
            low, high = float(sums[6]), float(sums[7])
            sigma = math.sqrt(max(float(sums[8]) / n, 1e-24))
            up = min(max(float(sums[1] / max(sums[3], 1e-12)), 1e-9), 0.95)
            down = min(max(float(sums[2] / max(sums[4], 1e-12)), 1e-9), 0.95)
            if up + down > 0.99:
                up, down = (0.99 * x / (up + down) for x in (up, down))
            if sums[0] - before < 1e-4:
                break
            before = float(sums[0])
        value = float(telegraph_log_likelihood(y, low, high, sigma, up, down))
        if low > high:
            low, high, up, down = high, low, down, up
        gain = 2 * (value - one_level) - 3 * math.log(n)
        if best is None or value > best.log_likelihood:
            best = Telegraph(low, high, sigma, up, down, period_s, value,
                             float(sums[1] + sums[2]), gain)
    assert best is not None
    return best


def _starts(y: np.ndarray) -> list[tuple[float, float]]:
    least, most = np.quantile(y, [0.002, 0.998])
    low, high = float(least), float(most)
    for _ in range(20):
        upper = y > (low + high) / 2
        if upper.all() or not upper.any():
            break
        low, high = float(y[~upper].mean()), float(y[upper].mean())
    middle = float(np.median(y))
    width = max(float(most - least), 1e-12)
    starts = [(low, high), (middle, float(most)), (float(least), middle)]
    return [(a, b if b > a else a + 0.1 * width) for a, b in starts]


def has_telegraph(y: np.ndarray, chain: Telegraph, seed: int = 0) -> bool:
    """Return whether the levels of a chain are real, or slow normal noise cut in two.

    Its BIC must beat that of one level, at least 4 jumps must have been seen, and either of two
    must hold. The gain is more than 1.5 times what the same fit gains on surrogates, normal
    series of the same periodogram with phases drawn anew (Theiler et al. 1992,
    doi:10.1016/0167-2789(92)90102-S). Or the innovations of y, what an autoregression of order
    16 leaves, have longer tails than a normal: a jump is an innovation of its own, which no
    normal noise of any spectrum has.
    """
    if chain.gain < _CLEAR or chain.jumps < _LEAST_JUMPS:
        return False
    if _innovation_kurtosis(y) > max(_KURTOSIS, 10 * math.sqrt(24 / len(y))):
        return True
    generator = np.random.Generator(np.random.Philox(seed))
    size = np.abs(np.fft.rfft(y - y.mean()))
    for _ in range(_SURROGATES):
        phase = np.exp(2j * np.pi * generator.random(len(size)))
        made = np.fft.irfft(size * phase, len(y)) + y.mean()
        if chain.gain < 1.5 * max(fit_telegraph(made, chain.period_s).gain, 0.0) + _CLEAR:
            return False
    return True


def _innovation_kurtosis(y: np.ndarray) -> float:
    """Return the excess kurtosis of what an autoregression of order 16 leaves of y."""
    n = len(y)
    x = y - y.mean()
    size = np.fft.rfft(x, 2 * n)
    covariance = np.fft.irfft(np.abs(size) ** 2)[: _ORDER + 1] / n
    matrix = covariance[np.abs(np.subtract.outer(np.arange(_ORDER), np.arange(_ORDER)))]
    weights = np.linalg.lstsq(matrix, covariance[1:], rcond=1e-12)[0]
    rest = x[_ORDER:].copy()
    for k in range(_ORDER):
        rest -= weights[k] * x[_ORDER - 1 - k : n - 1 - k]
    rest -= rest.mean()
    return float((rest**4).mean() / (rest**2).mean() ** 2 - 3)
