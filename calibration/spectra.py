"""Spectra of reads in time: white and 1/f noise by the Whittle likelihood."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from calibration.likelihood import minimise

_PER_DECADE = 12
_MODEL = 200.0  # a bin weighs as so many frequencies at most: no model is better than 7 %
_EXPONENTS = (0.51, 1.49)
_TRUST = np.array([0.1, 0.3])  # in ln of power and rate of a chain where the model is loose


class Gram(NamedTuple):
    """A one-sided periodogram in bins of equal width in ln f."""

    f_hz: np.ndarray  # (bins,) mean frequency
    power: np.ndarray  # (bins,) mean power [uS^2/Hz]
    lines: np.ndarray  # (bins,) frequencies in a bin
    step_hz: float  # between frequencies
    variance: float  # of the series [uS^2]

    @property
    def weight(self) -> np.ndarray:
        """Frequencies that a bin counts for, with the model's own error beside the sampling's."""
        return np.asarray(self.lines / (1 + self.lines / _MODEL))


class Spectrum(NamedTuple):
    """S(f) = white + sigma^2 f^-a of one cell [uS^2/Hz]; powers at 1 Hz."""

    white: float
    sigma2: float
    exponent: float


def periodogram(y: np.ndarray, period_s: float) -> Gram:
    """Return the binned periodogram of evenly spaced samples; its sum over f is the variance."""
    n = len(y)
    power = np.abs(np.fft.rfft(y - y.mean())) ** 2 * (2 * period_s / n)
    f = np.fft.rfftfreq(n, period_s)
    inner = slice(1, (n - 1) // 2 + 1)  # at half the sampling rate a line has one degree
    f, power = f[inner], power[inner]
    place = np.floor(np.log10(f / f[0]) * _PER_DECADE).astype(int)
    _, index = np.unique(place, return_inverse=True)
    count = np.bincount(index)
    return Gram(np.bincount(index, f) / count, np.bincount(index, power) / count,
                count.astype(float), float(f[0]), float(y.var()))


def model_spectrum(spectrum: Spectrum, f_hz: np.ndarray) -> np.ndarray:
    """Return white + sigma^2 f^-a [uS^2/Hz]."""
    return np.asarray(spectrum.white + spectrum.sigma2 * f_hz ** -spectrum.exponent)


def lorentzian(
    amplitude: float, share: float, rate: float, f_hz: np.ndarray
) -> np.ndarray:
    """Return the one-sided spectrum of telegraph noise, 4 A^2 p (1 - p) k/(k^2 + (2 pi f)^2).

    k = 1/tau_high + 1/tau_low. Machlup, J. Appl. Phys. 25:341, 1954 (doi:10.1063/1.1721637).
    """
    k = rate
    return np.asarray(4 * amplitude**2 * share * (1 - share) * k / (k**2 + (2 * np.pi * f_hz) ** 2))


class SpectrumFit(NamedTuple):
    """White, sigma^2, exponent and, where there is a chain, the power V and rate of its jumps.

    covariance : of (ln white, ln sigma^2, exponent[, ln V, ln rate]). misfit : mean squared
    deviation of the bins in units of their own spread; 1 for a model that holds.
    """

    spectrum: Spectrum
    jumps: tuple[float, float] | None
    covariance: np.ndarray
    misfit: float
    converged: bool

    def power(self, f_hz: np.ndarray) -> np.ndarray:
        """Return the whole spectrum [uS^2/Hz]."""
        s = model_spectrum(self.spectrum, f_hz)
        if self.jumps is not None:
            s = s + 4 * lorentzian(self.jumps[0] ** 0.5, 0.5, self.jumps[1], f_hz)
        return s


def fit_spectrum(
    gram: Gram, jumps: tuple[float, float] | None = None, *, loose: bool = False,
    exponent: float | None = None,
) -> SpectrumFit:
    """Return the spectrum of highest Whittle likelihood -sum w (ln S + I/S) over bins.

    jumps : start of (V, rate), V = A^2 p (1 - p), of a Lorentzian. loose : for data that no sum
    of these is equal to: a bin weighs as 200 frequencies at most, and the variance of the model
    is held to that of the series within some 2 %, power and rate of the jumps near their start.
    exponent : fixed. The covariance is a sandwich: a bin's mean power spreads by S/sqrt(lines),
    or by its misfit if that is more.
    """
    weight = gram.weight if loose else gram.lines

    def build(x: np.ndarray) -> SpectrumFit:
        a = exponent or float(np.clip(x[2], *_EXPONENTS))
        own = None if jumps is None else tuple(np.exp(np.clip(x[3:], -60, 60)).tolist())
        white, pink = np.exp(np.clip(x[:2], -60, 60))
        return SpectrumFit(Spectrum(float(white), float(pink), a), own, np.empty(0), 0, True)

    band = np.log(2 * np.pi * gram.f_hz[[0, -1]])
    middle, width = float(band.mean()), float(np.ptp(band)) / 2 + 1.0

    def cost(x: np.ndarray) -> float:
        s = build(x).power(gram.f_hz)
        total = float((weight * (np.log(s) + gram.power / s)).sum())
        if loose:
            variance = float((s * gram.lines).sum()) * gram.step_hz
            total += 0.5 * (np.log(variance / gram.variance) / 0.015) ** 2
        # beyond allowed exponents, and rates in the band, the way back must be felt
        total += 1e4 * max(abs(float(x[2]) - 1) - 0.49, 0.0) ** 2
        if jumps is not None:
            total += 1e2 * max(abs(float(x[4]) - middle) - width, 0.0) ** 2
            if loose:  # the chain's own figures, as far as a model that does not hold has any
                total += 0.5 * float(((x[3:] - np.log(jumps)) / _TRUST) @ ((x[3:] - np.log(jumps))
                                                                         / _TRUST))
        return total

    pink = gram.f_hz ** -(exponent or 1.0)
    level = float(np.exp(np.log(gram.power / pink).mean()))
    best, value = None, np.inf
    # jumps may be told from 1/f noise at more than one rate: the best of three starts counts
    rates = (1.0,) if jumps is None else (1.0, 2 * np.pi / jumps[1], 60.0 / jumps[1])
    for tail, faster in [(0.7, 1.0), *((0.05, rate) for rate in rates)]:
        start = [np.log(tail * gram.power[-3:].mean()), np.log(0.5 * level), exponent or 1.0]
        start += [] if jumps is None else [np.log(jumps[0]), np.log(faster * jumps[1])]
        free = np.array([True, True, exponent is None] + [True] * (0 if jumps is None else 2))
        whole = np.array(start)

        def partial(x: np.ndarray, whole: np.ndarray = whole, free: np.ndarray = free) -> float:
            there = whole.copy()
            there[free] = x
            return cost(there)

        found, _, reached = minimise(partial, whole[free])
        if partial(found) < value:
            best, value, converged = whole.copy(), partial(found), reached
            best[free] = found
    assert best is not None
    if jumps is None and not loose:
        power = float((gram.lines * gram.power).sum() / gram.lines.sum())
        flat = float((gram.lines * (np.log(power) + gram.power / power)).sum())
        if flat - value < np.log(gram.lines.sum()):  # by BIC nothing but white noise
            alone = Spectrum(power, 1e-12 * power, 1.0)
            error = np.diag([1 / float(gram.lines.sum()), 0.0, 1e6])
            off = gram.power / power - 1
            return SpectrumFit(alone, None, error, float((gram.lines * off**2).mean()), True)
    fit = build(best)
    s = fit.power(gram.f_hz)
    off = gram.power / s - 1
    misfit = float((gram.lines * off**2).mean())
    step = 1e-4
    slope = np.stack([
        (np.log(build(best + step * unit).power(gram.f_hz)) - np.log(s)) / step
        for unit in np.eye(len(best))
    ])
    slope[2] = slope[2] if exponent is None else 0.0
    inverse = np.linalg.pinv((slope * weight) @ slope.T)
    spread = (slope * weight**2 * np.maximum(1 / gram.lines, off**2 if loose else 0)) @ slope.T
    return fit._replace(covariance=inverse @ spread @ inverse, misfit=misfit, converged=converged)
