"""Pictures of a fit: the points with their errors and the curve, and what it leaves over."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from calibration.fit import Fit

_SHOWN = 2000  # residuals drawn at most; more make a file of megabytes and no other picture
_BINS = 20  # of the line through the residuals


def _axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    return Figure(figsize=(6.4, 4.4), layout="constrained").subplots()


def plot_fit(fit: Fit, *, ax: Axes | None = None, panel: int = 0) -> Axes:
    """Return axes with the points of a fit, one standard error up and down, and its curve.

    fit, ax : what is drawn, and where; None: new axes. panel : which of its pictures. A fit without
    any shows its residuals.
    """
    if not fit.panels:
        return plot_residuals(fit, ax=ax)
    from aimc_sim.plotting import COLOURS

    ax = _axes(ax)
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


def plot_residuals(fit: Fit, *, ax: Axes | None = None) -> Axes:
    """Return axes with the standardised residuals, and their mean and spread in bins.

    A model that holds leaves a mean of 0 and a spread of 1 everywhere. At most 2,000 points
    are drawn, every k-th; the bins take all. fit, ax : what is drawn, and where; None: new axes.
    """
    from aimc_sim.plotting import COLOURS

    ax = _axes(ax)
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


def draw(fit: Fit) -> dict[str, Axes]:
    """Return name -> axes of every picture of a fit, the residuals last."""
    axes = {f"fit-{k + 1}": plot_fit(fit, panel=k) for k in range(len(fit.panels))}
    return {**axes, "residuals": plot_residuals(fit)}


def draw_svg(fit: Fit, *, ink: str, paper: str) -> list[str]:
    """Return every picture of a fit as SVG, its text as text, in two colours of the caller."""
    import matplotlib as mpl

    inks = ("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color",
            "ytick.color", "legend.labelcolor", "legend.edgecolor")
    papers = ("axes.facecolor", "figure.facecolor", "legend.facecolor")
    style: dict[Any, str] = {
        "svg.fonttype": "none", "svg.hashsalt": "aimc-sim",
        **dict.fromkeys(inks, ink), **dict.fromkeys(papers, paper),
    }
    found = []
    with mpl.rc_context(style):
        for ax in draw(fit).values():
            stream = io.StringIO()
            figure: Any = ax.figure
            figure.savefig(stream, format="svg", metadata={"Date": None})
            found.append(stream.getvalue())
    return found
