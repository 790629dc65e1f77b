"""Exponents of a power law: one for each cell, by the likelihood of all of its reads."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from aimc_sim.curves import Curve, CurvePiece
from calibration.likelihood import maximise_sum

_EXACT = 1e-5  # of ln(g/g0): less scatter is rounding
_ENOUGH = 2000  # cells that choose a form and a start; its numbers are those of all cells


class Cells(NamedTuple):
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


class Form(NamedTuple):
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


FORMS = (Form("the same at every g", False, False), Form("a line in ln g", True, False),
          Form("a line in ln g with a least value", True, True))


def exponents(cells: Cells, log_t0: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each cell's estimate of nu, its sum of L^2, and the sum of its squared residuals."""
    span = cells.spans(log_t0)
    n = len(cells.log_g)
    square = np.bincount(cells.owner, span * span, n)
    nu = -np.bincount(cells.owner, span * cells.y, n) / square
    rest = cells.y + nu[cells.owner] * span
    return nu, square, np.bincount(cells.owner, rest * rest, n)


class Best(NamedTuple):
    """The numbers of highest likelihood of a form; theta as `Likelihood` takes it."""

    form: Form
    theta: np.ndarray
    covariance: np.ndarray | None
    cost: float
    converged: bool


class Likelihood:
    """Log-likelihoods of cells by (ln t0 where fitted, ln tau where known, mu, s)."""

    def __init__(self, cells: Cells, form: Form, log_t0: float | None) -> None:
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
        """Return one log-likelihood a cell, (cells,)."""
        k = 0
        log_t0 = self.log_t0
        if log_t0 is None:
            log_t0, k = float(theta[0]), 1
        tau2 = self.rounding2
        if self.blurred:
            tau2, k = math.exp(2 * min(max(float(theta[k]), -40.0), 5.0)), k + 1
        mu, s = theta[k : k + self.form.size], theta[k + self.form.size :]
        nu, square, rest = exponents(self.cells, log_t0)
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


def maximise(
    cells: Cells, form: Form, log_t0: float | None, start: np.ndarray | None = None
) -> Best:
    """Return the best numbers of a form; found on some cells, then finished on all."""
    if start is None:
        some = _some(cells)
        terms = Likelihood(some, form, log_t0)
        tries = [maximise_sum(terms, guess) for guess in _guesses(some, form, log_t0)]
        sound = [one for one in tries if one[1] is not None] or tries
        start = max(sound, key=lambda one: float(terms(one[0]).sum()))[0]
    terms = Likelihood(cells, form, log_t0)
    theta, covariance, converged = maximise_sum(terms, start)
    return Best(form, theta, covariance, -float(terms(theta).sum()), converged)


def _noise(cells: Cells, log_t0: float) -> float:
    """Return the scatter of the reads of a cell about its power law."""
    reads = np.bincount(cells.owner, minlength=len(cells.log_g))
    free = float((reads - 1).sum())
    return math.sqrt(float(exponents(cells, log_t0)[2].sum()) / free) if free else 0.0


def exact_t0(cells: Cells) -> tuple[float, float] | None:
    """Return ln t0 and its standard error where reads follow the law to rounding, else None."""
    best = _first_t0(cells)
    noise = _noise(cells, best)
    if noise >= _EXACT:
        return None
    step = 1e-3
    bend = sum(float(exponents(cells, best + s)[2].sum()) for s in (-step, step))
    bend = (bend - 2 * float(exponents(cells, best)[2].sum())) / step**2
    return best, noise * math.sqrt(2 / bend) if bend > 0 else math.nan


def _some(cells: Cells) -> Cells:
    n = len(cells.log_g)
    if n <= _ENOUGH:
        return cells
    return taken_of(cells, np.arange(n) % -(-n // _ENOUGH) == 0)


def taken_of(cells: Cells, keep: np.ndarray) -> Cells:
    """Return the reads of some cells."""
    place, mine = np.cumsum(keep) - 1, keep[cells.owner]
    return Cells(place[cells.owner[mine]], cells.y[mine], cells.t_s[mine], cells.start_s[mine],
                  cells.log_g[keep])


def _guesses(cells: Cells, form: Form, log_t0: float | None) -> list[np.ndarray]:
    """Return starts: exponents by least squares, three places of the bend where there is one."""
    terms = Likelihood(cells, form, log_t0)
    time = _first_t0(cells) if log_t0 is None else log_t0
    nu, _, rest = exponents(cells, time)
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


def _first_t0(cells: Cells) -> float:
    """Return ln t0 at which every cell's reads lie best on a line through its start."""
    middle = float(np.log(np.median(cells.t_s)))
    grid = np.linspace(middle - 25, middle + 8, 67)
    for _ in range(8):
        cost = [float(exponents(cells, t)[2].sum()) for t in grid]
        k = min(max(int(np.argmin(cost)), 1), len(grid) - 2)
        grid = np.linspace(grid[k - 1], grid[k + 1], 9)
    return float(grid[4])
