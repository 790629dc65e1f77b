"""What a table must hold before it is fitted, and how a fit is held against data it never saw."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from aimc_sim.errors import InputError
from calibration.fit import Checked
from calibration.statistics import NormalFit
from calibration.tables import Table


def columns(table: Table, kind: str, *names: str) -> list[np.ndarray]:
    """Return columns of a table as float64; InputError where one is missing or too short."""
    asked = f"fit {kind}"
    missing = [name for name in names if name not in table.columns]
    if missing:
        raise InputError(
            asked,
            f"the table lacks {', '.join(missing)}; it has {', '.join(table.columns)}",
            f"read it as a table of {kind}, with the columns mapped",
        )
    return [np.asarray(table.columns[name], float) for name in names]


def check_count(kind: str, what: str, found: int, needed: int) -> None:
    """Refuse to fit fewer points than needed. Raises InputError."""
    if found < needed:
        raise InputError(
            f"fit {kind}", f"there are {found} {what}, too few for the parameters",
            f"measure at least {needed}",
        )


def check_varies(kind: str, name: str, values: np.ndarray) -> None:
    """Refuse a column that holds one number. Raises InputError."""
    if len(values) and np.ptp(values) == 0:
        raise InputError(
            f"fit {kind}", f"column {name} is constant ({values[0]:.6g})",
            "map the column that was measured",
        )


def halves(cell: np.ndarray) -> np.ndarray:
    """Return which points belong to the half of the cells that is fitted: every other cell.

    The rest is held out.
    """
    _, index = np.unique(cell, return_inverse=True)
    return np.asarray(index % 2 == 0)


def std_error(values: np.ndarray) -> float:
    """Return the standard error of the standard deviation, whatever the distribution.

    std sqrt((kurtosis - 1)/(4 n)).
    """
    centred = values - values.mean()
    variance = float((centred**2).mean())
    if variance == 0:
        return 0.0
    kurtosis = float((centred**4).mean()) / variance**2
    return float(np.sqrt(variance * max(kurtosis - 1, 0.1) / (4 * len(values))))


def compare(
    label: str, fit: NormalFit, v: np.ndarray, y: np.ndarray, covariance: np.ndarray,
    clip: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]] | None = None,
) -> tuple[Checked, Checked]:
    """Return mean and standard deviation of held-out errors y [uS] beside a fit's prediction.

    covariance : of the fit's theta. clip : moments of (m, s) within the limits
    of the instrument. The error of a comparison is that of the found and of the predicted.
    """
    m, s = fit.at(v)
    first, second = clip(m, s) if clip else (m, m * m + s * s)
    mean = float(first.mean())
    std = float(np.sqrt(max(second.mean() - mean**2, 0.0)))
    n_mean = len(fit.mean)
    by_mean = fit.basis.natural(v, n_mean - 1).mean(0)
    by_std = (s[:, None] * fit.basis.natural(v, len(fit.sigma) - 1)).mean(0) / max(std, 1e-30)
    predicted_mean = float(by_mean @ covariance[:n_mean, :n_mean] @ by_mean)
    predicted_std = float(by_std @ covariance[n_mean:, n_mean:] @ by_std)
    found = float(y.std(ddof=1))
    return (
        Checked(f"mean {label}", mean, float(y.mean()),
                float(np.sqrt(found**2 / len(y) + predicted_mean)), "uS"),
        Checked(f"std {label}", std, found,
                float(np.sqrt(std_error(y) ** 2 + predicted_std)), "uS"),
    )
