"""A fit of measured data: its points with their errors and the curve, and what it leaves over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from aimc_sim.plotting.look import COLOURS, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SHOWN = 2000  # residuals drawn at most; more make a file of megabytes and no other picture
_BINS = 20  # of the line through the residuals


class FitLike(Protocol):
    """What a plot asks of a `calibration.Fit`, whose package stands on this one."""

    @property
    def panels(self) -> Sequence[Any]:
        """Pictures: points, errors, curve and labels of each."""

    @property
    def residuals(self) -> tuple[np.ndarray, np.ndarray] | None:
        """x and standardised residuals of the points."""

    @property
    def x_label(self) -> str:
        """What x of the residuals is."""


def plot_fit(fit: FitLike, *, ax: Axes | None = None, panel: int = 0) -> Axes:
    """Return axes with the points of a fit, one standard error up and down, and its curve.

    fit, ax : what is drawn, and where; None: new axes. panel : which of its pictures. A fit without
    any shows its residuals.
    """
    if not fit.panels:
        return plot_residuals(fit, ax=ax)
    ax = new_axes(ax)
    what = fit.panels[panel]
    if len(what.curve_x):
        ax.plot(what.curve_x, what.curve_y, color=COLOURS[1], label="fit")
    crowd = len(what.x) > _BINS * 10
    ax.errorbar(
        what.x, what.y, what.error, fmt="." if crowd else "o", markersize=3 if crowd else 5,
        capsize=0 if crowd else 3, elinewidth=1, color=COLOURS[0],
        label="measured" if what.error is None else "measured, one standard error",
        zorder=1 if crowd else 3,
    )
    if what.log_x:
        ax.set_xscale("log")
    if what.log_y:
        ax.set_yscale("log")
    ax.set_xlabel(what.x_label)
    ax.set_ylabel(what.y_label)
    ax.set_title(what.title)
    ax.margins(y=0.15)
    ax.legend(fontsize="small")
    return ax


def plot_residuals(fit: FitLike, *, ax: Axes | None = None) -> Axes:
    """Return axes with the standardised residuals, and their mean and spread in bins.

    A model that holds leaves a mean of 0 and a spread of 1 everywhere. At most 2,000 points
    are drawn, every k-th; the bins take all. fit, ax : what is drawn, and where; None: new axes.
    """
    ax = new_axes(ax)
    ax.set_title("standardised residuals")
    ax.set_xlabel(fit.x_label)
    ax.set_ylabel("(measured - fit) / sigma")
    if fit.residuals is None or len(fit.residuals[0]) == 0:
        ax.text(0.5, 0.5, "this fit has no residuals", ha="center", transform=ax.transAxes)
        return ax
    x, z = (np.asarray(part, float) for part in fit.residuals)
    step = max(1, -(-len(x) // _SHOWN))
    ax.axhspan(-1, 1, color=COLOURS[5], alpha=0.15, linewidth=0)
    ax.axhline(0, color=COLOURS[5], linewidth=1)
    ax.plot(x[::step], z[::step], ".", color=COLOURS[0], markersize=2.5, alpha=0.5,
            label=f"{len(x[::step]):,} of {len(x):,} points")
    middle, mean, std = _binned(x, z)
    if len(middle) > 1:
        ax.errorbar(middle, mean, std, fmt="o", color=COLOURS[1], capsize=3, markersize=4,
                    elinewidth=1.2, label="mean and spread in bins")
    ax.set_ylim(min(-3.2, 1.1 * z.min()), max(4.2, 1.3 * z.max()))  # room for the legend
    ax.legend(fontsize="small", loc="upper right", ncols=2)
    return ax


def _binned(x: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return middle, mean and standard deviation in bins of about as many points each."""
    levels = np.unique(x)
    if len(levels) <= _BINS:
        place = np.searchsorted(levels, x)
    else:
        edges = np.unique(np.quantile(x, np.linspace(0, 1, _BINS + 1)))
        place = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, len(edges) - 2)
    bins = [np.flatnonzero(place == k) for k in np.unique(place)]
    bins = [here for here in bins if len(here) > 2]
    return (
        np.array([x[here].mean() for here in bins]),
        np.array([z[here].mean() for here in bins]),
        np.array([z[here].std() for here in bins]),
    )
