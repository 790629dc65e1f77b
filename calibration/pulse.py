"""Pulses: how far one SET or RESET pulse moves a cell, from ramps of identical pulses."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from aimc_sim.cards import PulseSpec
from aimc_sim.curves import Curve
from aimc_sim.errors import InputError
from calibration.checks import check_count, check_varies, columns, halves, std_error
from calibration.fit import (
    Checked,
    Fit,
    Panel,
    Parameter,
    correlation_of,
    covariance_from_hessian,
    goodness,
)
from calibration.likelihood import minimise
from calibration.orders import Choice, choose_orders
from calibration.shapes import basis_parameters, polynomial_curve, table_curve
from calibration.statistics import Basis, fit_normal
from calibration.tables import Table

_NODES = (8, 12, 16)  # numbers of conductances for a response that no polynomial follows


class _Side(NamedTuple):
    """The steps of one polarity, with what fits them."""

    name: str
    ramp: np.ndarray  # (n,) number of the ramp
    v: np.ndarray  # (n,) conductance before the pulse [uS]
    y: np.ndarray  # (n,) change [uS]
    choice: Choice
    basis: Basis
    start: np.ndarray
    x: np.ndarray  # (n, p) basis of the mean
    w: np.ndarray  # (n, q) basis of sigma
    outliers: int

    def log_likelihood(self, theta: np.ndarray, spread: float) -> float:
        """Return that of y = a m + s xi, a ~ N(1, spread^2) one for each ramp.

        The ramp's covariance s^2 + spread^2 m m^T has one rank beside its diagonal, so with
        q = sum m^2/s^2 and b = sum m r/s^2 of a ramp it takes
        ln det = sum ln s^2 + ln(1 + spread^2 q), r^T C^-1 r = sum r^2/s^2 - spread^2 b^2/(1 + ..).
        """
        p = self.x.shape[1]
        m = self.x @ theta[:p]
        s = np.maximum(self.w @ theta[p:], 1e-12)
        r = self.y - m
        q = np.bincount(self.ramp, m * m / s**2)
        b = np.bincount(self.ramp, m * r / s**2)
        common = spread**2
        total = -0.5 * float((r * r / s**2 + np.log(2 * np.pi * s**2)).sum())
        factor = 1 + common * q
        return total + 0.5 * float((common * b * b / factor - np.log(factor)).sum())


def fit_pulse(table: Table) -> Fit:
    """Return the pulse response: dg = a mean(g) + sigma(g) xi, for SET and RESET.

    g is the conductance before the pulse; sigma is the spread from cycle to cycle, a =
    1 + device_spread xi' one factor for each ramp and polarity (ramps of several devices give
    the spread between devices, ramps of one device that between its ramps). mean and sigma are
    polynomials in uS of order 0 to 4, or straight lines between 8, 12 or 16 conductances, chosen
    by cross-validation over ramps. Maximum likelihood
    of all steps of a ramp together (linear mixed model, Laird and Ware 1982,
    doi:10.2307/2529876), standard errors from the Hessian; steps beyond 5 sigma dropped where
    they lie apart. The noise of a read is in sigma, twice.

    table : columns ramp, pulse, conductance_s, polarity (+1 SET, -1 RESET). Steps are taken
    between successive pulses of a ramp.

    Raises InputError for fewer than 20 steps of a polarity, or with only one polarity.
    """
    ramp, pulse, g, polarity = columns(
        table, "pulse", "ramp", "pulse", "conductance_s", "polarity"
    )
    check_count("pulse", "points", len(g), 20)
    check_varies("pulse", "conductance_s", g)
    order = np.lexsort((pulse, ramp, polarity))
    ramp, pulse, g, polarity = ramp[order], pulse[order], g[order] * 1e6, polarity[order]
    same = (ramp[1:] == ramp[:-1]) & (polarity[1:] == polarity[:-1])
    same &= pulse[1:] == pulse[:-1] + 1
    sides = []
    chosen = {name: same & (polarity[1:] == sign) for name, sign in (("set", 1), ("reset", -1))}
    for name, mine in chosen.items():
        if not mine.any():
            raise InputError(
                "fit pulse", f"no ramp has {name.upper()} pulses",
                "give the ramps of both polarities (+1 SET, -1 RESET): a cell needs both",
            )
        check_count("pulse", f"{name.upper()} steps", int(mine.sum()), 20)
    for name, mine in chosen.items():
        sides.append(_side(name, ramp[1:][mine], g[:-1][mine], np.diff(g)[mine]))
    theta, covariance, converged, value = _maximise(sides)
    parameters, to_powers = _parameters(sides, theta, covariance)
    moved = to_powers @ covariance @ to_powers.T
    n = sum(len(side.y) for side in sides)
    pairs = list(zip(sides, _parts(sides, theta), strict=True))
    z = [_residuals(side, part, theta[-1]) for side, part in pairs]
    chi = sum(float((one**2).sum()) for one in z) / max(n - len(theta), 1)
    dropped = dict(table.dropped)
    outliers = sum(side.outliers for side in sides)
    if outliers:
        dropped["steps beyond 5 sigma"] = outliers
    return Fit(
        kind="pulse",
        model="; ".join(f"{side.name} {side.choice}" for side in sides),
        parameters=parameters,
        correlation=correlation_of(moved),
        n=n,
        dropped=dropped,
        goodness=goodness(value, len(theta), n, chi),
        heldout=_held_out(sides),
        residuals=(np.concatenate([side.v for side in sides]), np.concatenate(z)),
        x_label="conductance before the pulse (uS)",
        panels=tuple(_panel(side, part) for side, part in pairs),
        converged=converged,
        notes=("sigma holds the noise of the two reads of a step",),
        part={"pulses": _spec(sides, theta)},
        g_range_s=(float(g.min()) * 1e-6, float(g.max()) * 1e-6),
        source=table.source,
    )


def _side(name: str, ramp: np.ndarray, v: np.ndarray, y: np.ndarray) -> _Side:
    choice = choose_orders(v, y, ramp, nodes=_NODES)
    basis = choice.basis(v)
    fit = fit_normal(v, y, *choice[:2], basis=basis)
    kept = fit.kept
    number = np.unique(ramp[kept], return_inverse=True)[1]
    return _Side(
        name, number, v[kept], y[kept], choice, basis, np.concatenate([fit.mean, fit.sigma]),
        basis.design(v[kept], choice.mean_order), basis.design(v[kept], choice.sigma_order),
        int((~kept).sum()),
    )


def _parts(sides: list[_Side], theta: np.ndarray) -> list[np.ndarray]:
    """Return each side's own numbers."""
    parts, at = [], 0
    for side in sides:
        parts.append(theta[at : at + len(side.start)])
        at += len(side.start)
    return parts


def _cost(sides: list[_Side], theta: np.ndarray) -> float:
    return -sum(side.log_likelihood(part, theta[-1])
                for side, part in zip(sides, _parts(sides, theta), strict=True))


def _maximise(sides: list[_Side]) -> tuple[np.ndarray, np.ndarray, bool, float]:
    """Return numbers, covariance, whether they were reached, and the log-likelihood."""
    start = np.concatenate([*(side.start for side in sides), [_first_spread(sides)]])
    theta, scale, converged = minimise(lambda x: _cost(sides, x), start)
    theta[-1] = abs(theta[-1])
    covariance = None
    if (scale > 0).all():
        covariance = covariance_from_hessian(lambda x: _cost(sides, x), theta, 0.3 * scale)
    if covariance is None:
        return theta, np.full((len(theta),) * 2, np.nan), False, -_cost(sides, theta)
    return theta, covariance, converged, -_cost(sides, theta)


def _bessel(sides: list[_Side]) -> float:
    """Return what makes up for the ramps whose mean factor each side's mean step has taken."""
    n = sum(int(side.ramp.max()) + 1 for side in sides)
    return float(np.sqrt(n / max(n - len(sides), 1)))


def _first_spread(sides: list[_Side]) -> float:
    """Return the spread of the ramps' own factors, less what their steps' noise makes."""
    excess = []
    for side in sides:
        p = side.x.shape[1]
        m, s = side.x @ side.start[:p], side.w @ side.start[p:]
        q = np.maximum(np.bincount(side.ramp, m * m / s**2), 1e-30)
        factor = np.bincount(side.ramp, m * side.y / s**2) / q
        excess.append(float(factor.var() - (1 / q).mean()))
    return float(np.sqrt(max(float(np.mean(excess)), 1e-4)))


def _parameters(
    sides: list[_Side], theta: np.ndarray, covariance: np.ndarray
) -> tuple[dict[str, Parameter], np.ndarray]:
    """Return named coefficients of powers of g, and the matrix to them."""
    matrix = np.eye(len(theta))
    blocks, at = [], 0
    for side in sides:
        for what, order, size in (("mean", side.choice.mean_order, side.x.shape[1]),
                                  ("sigma", side.choice.sigma_order, side.w.shape[1])):
            block = slice(at, at + size)
            matrix[block, block] = side.basis.to_natural(order)
            blocks.append((f"{side.name}_{what}", side.basis, block))
            at += size
    matrix[-1, -1] = _bessel(sides)
    value = matrix @ theta
    error = np.sqrt(np.diag(matrix @ covariance @ matrix.T))
    parameters: dict[str, Parameter] = {}
    for name, basis, block in blocks:
        parameters |= basis_parameters(name, basis, value[block], error[block])
    parameters["device_spread"] = Parameter(float(value[-1]), float(error[-1]))
    return parameters, matrix


def _spec(sides: list[_Side], theta: np.ndarray) -> PulseSpec:
    curves: dict[str, Curve] = {}
    for side, part in zip(sides, _parts(sides, theta), strict=True):
        p = side.x.shape[1]
        m, s = side.x @ part[:p], side.w @ part[p:]
        least, most = float(m.min()), float(m.max())
        margin = 0.5 * (most - least)
        # a SET pulse never lowers the mean, a RESET pulse never raises it, whatever the
        # polynomial does beyond what was measured
        low, high = least - margin, most + margin
        low, high = (max(low, 0.0), high) if side.name == "set" else (low, min(high, 0.0))
        if side.basis.nodes is not None:
            nodes = side.basis.nodes
            curves[f"{side.name}_mean"] = table_curve(nodes, np.clip(part[:p], low, high))
            curves[f"{side.name}_sigma"] = table_curve(nodes, part[p:])
            continue
        power = [side.basis.to_natural(order) for order in side.choice[:2]]
        curves[f"{side.name}_mean"] = polynomial_curve(power[0] @ part[:p], low=low, high=high)
        curves[f"{side.name}_sigma"] = polynomial_curve(
            power[1] @ part[p:], low=0.5 * float(s.min()), high=1.5 * float(s.max())
        )
    return PulseSpec(
        set_mean=curves["set_mean"], set_sigma=curves["set_sigma"],
        reset_mean=curves["reset_mean"], reset_sigma=curves["reset_sigma"],
        device_spread=float(min(abs(theta[-1]) * _bessel(sides), 1.0)),
    )


def _residuals(side: _Side, part: np.ndarray, spread: float) -> np.ndarray:
    """Return steps in sigmas after each ramp's own factor (its best guess)."""
    p = side.x.shape[1]
    m, s = side.x @ part[:p], side.w @ part[p:]
    r = side.y - m
    q = np.bincount(side.ramp, m * m / s**2)
    b = np.bincount(side.ramp, m * r / s**2)
    own = spread**2 * b / (1 + spread**2 * q)
    return np.asarray((r - own[side.ramp] * m) / s)


def _held_out(sides: list[_Side]) -> tuple[Checked, ...]:
    """Return mean, standard deviation and median step of every other ramp, and a prediction."""
    checked: list[Checked] = []
    for side in sides:
        taken = halves(side.ramp)
        if min(taken.sum(), (~taken).sum()) < 20:
            continue
        fit = fit_normal(side.v[taken], side.y[taken], *side.choice[:2], basis=side.basis)
        m, s = fit.at(side.v[~taken])
        y = side.y[~taken]
        own = fit.covariance(side.ramp[taken][fit.kept])
        slope = side.basis.natural(side.v[~taken], side.choice.mean_order).mean(0)
        p = len(slope)
        mean_error = float(slope @ own[:p, :p] @ slope)
        # the steps of a ramp share its factor: their mean is known as well as that of ramps
        ramps = np.unique(side.ramp[~taken], return_inverse=True)[1]
        rest = np.bincount(ramps, y - m) / np.bincount(ramps)
        found_error = float(rest.var(ddof=1)) / len(rest) if len(rest) > 1 else np.nan
        error = float(np.sqrt(mean_error + found_error))
        std = float(np.sqrt((s**2).mean() + m.var()))
        name = side.name.upper()
        checked += [
            Checked(f"mean step of {name}", float(m.mean()), float(y.mean()), error, "uS"),
            Checked(f"median step of {name}", float(np.median(m)), float(np.median(y)),
                    1.2533 * error, "uS"),
            Checked(f"std of the steps of {name}", std, float(y.std(ddof=1)),
                    float(np.hypot(std_error(y), error)), "uS"),
        ]
    return tuple(checked)


def _panel(side: _Side, part: np.ndarray) -> Panel:
    """Return the mean step against the conductance before it."""
    order = np.argsort(side.v)
    bins = np.array_split(order, min(20, max(2, len(order) // 10)))
    x = np.array([side.v[b].mean() for b in bins])
    y = np.array([side.y[b].mean() for b in bins])
    error = np.array([side.y[b].std(ddof=1) / np.sqrt(len(b)) for b in bins])
    fine = np.linspace(side.v.min(), side.v.max(), 200)
    curve = side.basis.design(fine, side.choice.mean_order) @ part[: side.x.shape[1]]
    return Panel(f"{side.name.upper()} pulse", "conductance before it (uS)", "mean step (uS)",
                 x, y, error, fine, curve)
