"""All pictures of a fit, by name and as SVG."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from aimc_sim.plotting import plot_fit, plot_residuals
from aimc_sim.plotting.svg import to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from calibration.fit import Fit

__all__ = ["draw", "draw_svg", "plot_fit", "plot_residuals"]


def draw(fit: Fit) -> dict[str, Axes]:
    """Return name -> axes of every picture of a fit, the residuals last."""
    axes = {f"fit-{k + 1}": plot_fit(fit, panel=k) for k in range(len(fit.panels))}
    return {**axes, "residuals": plot_residuals(fit)}


def draw_svg(fit: Fit, *, ink: str, paper: str) -> dict[str, str]:
    """Return name -> SVG of every picture of a fit, in two colours of the caller."""
    drawings = {
        f"fit-{k + 1}": partial(plot_fit, fit, panel=k) for k in range(len(fit.panels))
    }
    drawings["residuals"] = partial(plot_residuals, fit)
    return {name: to_svg(drawing, ink=ink, paper=paper) for name, drawing in drawings.items()}
