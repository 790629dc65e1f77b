"""What a fit found: values with errors, how well they hold, and the part of a card they make."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from aimc_sim.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from aimc_sim.cards import DeviceSpec

_SHOWN_CORRELATION = 0.1  # smaller ones are left out of a report, as lmfit does
LARGEST_RELATIVE = 10.0  # error over value, above which a percentage says nothing
_MOST_CORRELATIONS = 20  # shown; a table over times and conductances has thousands


@dataclass(frozen=True)
class Source:
    """Where measurements come from: file, its hash, rows read, and the command that read it.

    sha256, n_rows : of the file in `path`, and rows read of it. command : that read it.
    date : ISO 8601, of the reading. Synthetic measurements name the card in `path`.
    """

    path: str
    sha256: str
    n_rows: int
    date: str
    command: str = ""


@dataclass(frozen=True)
class Parameter:
    """A fitted number and its standard error, both in `unit` ("" for a pure number).

    value, stderr : the estimate and its standard error.
    """

    value: float
    stderr: float
    unit: str = ""

    @property
    def relative(self) -> float:
        """Standard error over the size of the value; infinite where that is zero."""
        return abs(self.stderr / self.value) if self.value else math.inf


@dataclass(frozen=True)
class Checked:
    """A figure of held-out data beside what the fit of the other data predicts.

    what : the figure, in words, in `unit`. error : standard error of found - predicted, of both
    together.
    """

    what: str
    predicted: float
    found: float
    error: float
    unit: str = ""

    @property
    def deviation(self) -> float:
        """(found - predicted) / error."""
        return (self.found - self.predicted) / self.error if self.error else math.nan


@dataclass(frozen=True, eq=False)
class Panel:
    """One picture of a fit: points with error bars, and the fitted curve through them.

    title, x_label, y_label : as shown, with units. x, y, error : (points,); error is one standard
    error of y, or None.
    curve_x, curve_y : (any,) the model, finer than the points; empty where there is none.
    log_x, log_y : logarithmic axes.
    """

    title: str
    x_label: str
    y_label: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    error: NDArray[np.float64] | None = None
    curve_x: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    curve_y: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True, eq=False)
class Fit:
    """What measurements say of a device, and how sure that is.

    kind : of measurement (see `tables.KINDS`). model : name of the model chosen.
    parameters : name -> value and standard error.
    correlation : (p, p) of the estimates, in the order of `parameters`.
    n : points used. dropped : reason -> points left out.
    goodness : reduced_chi_square, log_likelihood, aic, bic; those that exist.
    alternatives : model -> aic of the other models.
    heldout : figures of data that a fit of the rest did not see.
    residuals : x and standardised residual of the points (or of a part of them), x_label of x.
    part : field of DeviceSpec -> its value, such as {"relaxation": RelaxationSpec(...)}.
    converged : whether the search for the maximum ended at one. notes : what to know of it.
    g_range_s, time_range_s : what was measured [S], [s]. source : where that comes from.
    panels : pictures, for `plotting.plot_fit`.
    """

    kind: str
    model: str
    parameters: Mapping[str, Parameter]
    correlation: NDArray[np.float64]
    n: int
    dropped: Mapping[str, int]
    goodness: Mapping[str, float]
    part: Mapping[str, Any]
    converged: bool
    alternatives: Mapping[str, float] = field(default_factory=dict)
    heldout: tuple[Checked, ...] = ()
    residuals: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None
    x_label: str = ""
    panels: tuple[Panel, ...] = ()
    notes: tuple[str, ...] = ()
    g_range_s: tuple[float, float] | None = None
    time_range_s: tuple[float, float] | None = None
    source: Source | None = None

    def replace(self, **changes: Any) -> Fit:
        """Return a copy with fields changed.

        changes : field -> new value.
        """
        return dataclasses.replace(self, **changes)

    def report(self) -> str:
        """Return the fit as text: values, goodness, held-out check, correlations, notes."""
        lines = [f"[[{self.kind}: {self.model}]]"]
        if self.source is not None:
            lines.append(f"    data                = {self.source.path}")
            lines.append(f"    sha256              = {self.source.sha256}")
        lines.append(f"    points              = {self.n}")
        lines += [f"    dropped             = {n} ({why})" for why, n in self.dropped.items()]
        if self.g_range_s is not None:
            low, high = (1e6 * g for g in self.g_range_s)
            lines.append(f"    conductances        = {low:.5g} to {high:.5g} uS")
        if self.time_range_s is not None:
            lines.append("    times               = {:.5g} to {:.5g} s".format(*self.time_range_s))
        lines += [f"    {name:<19} = {value:.7g}" for name, value in self.goodness.items()]
        lines += ["[[values]]", *self._value_lines()]
        if self.alternatives:
            own = self.goodness.get("aic", math.nan)
            lines.append("[[other models]]")
            lines += [
                f"    {name}: aic {aic:.7g} ({aic - own:+.4g})"
                for name, aic in self.alternatives.items()
            ]
        if self.heldout:
            lines.append("[[held-out check: predicted by a fit of the rest, found]]")
            width = max(len(item.what) for item in self.heldout)
            lines += [
                f"    {item.what:<{width}}  {item.predicted:>11.5g} {item.found:>11.5g} "
                f"+- {item.error:.2g} {item.unit}  ({item.deviation:+.1f} errors)"
                for item in self.heldout
            ]
        lines += self._correlation_lines()
        lines += [f"note: {note}" for note in self.notes]
        if not self.converged:
            lines.append("warning: the fit did not converge; its values are no device's")
        return "\n".join(lines) + "\n"

    def _value_lines(self) -> list[str]:
        width = max((len(name) for name in self.parameters), default=0)
        return [
            f"    {name + ':':<{width + 1}} {item.value:>13.7g} +- {item.stderr:.4g} {item.unit}"
            + (f" ({100 * item.relative:.2f} %)" if item.relative < LARGEST_RELATIVE else "")
            for name, item in self.parameters.items()
        ]

    def _correlation_lines(self) -> list[str]:
        names = list(self.parameters)
        pairs = [
            (abs(self.correlation[i, j]), self.correlation[i, j], names[i], names[j])
            for i in range(len(names))
            for j in range(i + 1, len(names))
            if abs(self.correlation[i, j]) > _SHOWN_CORRELATION
        ]
        if not pairs:
            return []
        pairs.sort(reverse=True)
        lines = [f"    C({a}, {b}) = {r:+.4f}" for _, r, a, b in pairs[:_MOST_CORRELATIONS]]
        if len(pairs) > _MOST_CORRELATIONS:
            lines.append(f"    and {len(pairs) - _MOST_CORRELATIONS} smaller ones")
        return [f"[[correlations above {_SHOWN_CORRELATION}]]", *lines]

    def provenance(self) -> str:
        """Return one line for a card: what was measured, from which file, by which command."""
        words = [f"{', '.join(self.part)}: {self.kind}, {self.model}, n = {self.n}"]
        if self.g_range_s is not None:
            words.append("{:.5g} to {:.5g} uS".format(*(1e6 * g for g in self.g_range_s)))
        if self.time_range_s is not None:
            words.append("{:.5g} to {:.5g} s".format(*self.time_range_s))
        if self.source is not None:
            words.append(f"{self.source.path}, sha256 {self.source.sha256}, {self.source.date}")
            words += [self.source.command] if self.source.command else []
        return "; ".join(words)

    def device(self, base: DeviceSpec | None = None, *, name: str | None = None) -> DeviceSpec:
        """Return a card with this fit's part, beside the other parts of `base`.

        A new drift replaces a relaxation of the base and the other way round, since a cell has
        one history; a total error replaces programming. The base's range grows to what was
        measured; its curves of r are then written in uS, so that they stay what they were.
        name : of the new card; None: that of the base.

        Raises
        ------
        InputError : the fit did not converge, has no part, or its part does not hold over the
            card's range.
        """
        from calibration.merging import merge

        asked = f"make a device card of the {self.kind} fit"
        if not self.converged:
            raise InputError(
                asked,
                f"the fit of '{self.model}' did not converge on {self.n} points",
                "give more data or a wider range, and look at the report for what is constant",
            )
        if not self.part:
            raise InputError(
                asked,
                f"a {self.kind} fit holds no part of a device",
                "use its values where they belong, such as [adc] of a chip file",
            )
        return merge(self, base, name)


def covariance_from_hessian(
    cost: Callable[[NDArray[np.float64]], float],
    best: NDArray[np.float64],
    scale: NDArray[np.float64],
) -> NDArray[np.float64] | None:
    """Return the covariance of a maximum-likelihood estimate, or None where it has none.

    The inverse of the observed information, the Hessian of `cost` (a negative log-likelihood)
    at `best`, by central differences.

    best : (p,) the minimum. scale : (p,) steps, of the size of a standard error, at which the
    cost is tried; where it is flat or falls in some direction the answer is None.
    """
    p = len(best)
    step = np.asarray(scale, float)
    here = cost(best)
    plus, minus = np.empty(p), np.empty(p)
    for i in range(p):
        unit = np.zeros(p)
        unit[i] = step[i]
        plus[i], minus[i] = cost(best + unit), cost(best - unit)
    hessian = np.empty((p, p))  # of cost(best + step * u) in u: of order one
    hessian[np.diag_indices(p)] = plus - 2 * here + minus
    for i in range(p):
        for j in range(i):
            both = np.zeros(p)
            both[[i, j]] = step[[i, j]]
            twist = cost(best + both) + cost(best - both) + 2 * here
            hessian[i, j] = hessian[j, i] = 0.5 * (
                twist - plus[i] - minus[i] - plus[j] - minus[j]
            )
    if not np.isfinite(hessian).all():
        return None
    try:
        np.linalg.cholesky(hessian)
    except np.linalg.LinAlgError:
        return None
    return np.asarray(np.linalg.inv(hessian) * np.outer(step, step), float)


def covariance_from_bootstrap(
    estimate: Callable[[NDArray[np.intp]], NDArray[np.float64]],
    groups: NDArray[np.generic],
    *,
    resamples: int = 100,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Return the covariance of an estimate over data whose groups are drawn again.

    estimate : indices of points (with repeats) -> (p,) estimate.
    groups : (n,) cell, ramp or whatever is independent; points of a group stay together.
    """
    order = np.argsort(groups, kind="stable")
    bounds = np.flatnonzero(np.diff(np.unique(groups, return_inverse=True)[1][order])) + 1
    members = np.split(order, bounds)
    rng = np.random.Generator(np.random.Philox(seed))
    draws = [
        estimate(np.concatenate([members[k] for k in rng.integers(0, len(members), len(members))]))
        for _ in range(resamples)
    ]
    return np.atleast_2d(np.cov(np.array(draws), rowvar=False))


def correlation_of(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the correlation matrix of a covariance; zero beside what has no variance."""
    std = np.sqrt(np.diag(covariance))
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = covariance / np.outer(std, std)
    correlation[~np.isfinite(correlation)] = 0.0
    np.fill_diagonal(correlation, 1.0)
    return correlation


def goodness(
    log_likelihood: float, n_parameters: int, n: int, reduced_chi_square: float
) -> dict[str, float]:
    """Return reduced chi-square, log-likelihood, AIC = 2 k - 2 ln L and BIC = k ln n - 2 ln L."""
    return {
        "reduced_chi_square": reduced_chi_square,
        "log_likelihood": log_likelihood,
        "aic": 2 * n_parameters - 2 * log_likelihood,
        "bic": n_parameters * math.log(n) - 2 * log_likelihood,
    }
