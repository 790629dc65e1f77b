"""All pictures of a fit, by name and as SVG."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from aimc_sim.plotting import plot_fit, plot_residuals
from aimc_sim.plotting.look import new_axes
from aimc_sim.plotting.svg import to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from calibration.fit import Fit

_SIZE = (4.4, 3.5)  # inches

__all__ = ["draw_svg", "drawings", "plot_fit", "plot_residuals"]


def drawings(fit: Fit) -> dict[str, Callable[..., Axes]]:
    """Return name -> what draws it, of every picture of a fit, the residuals last."""
    found: dict[str, Callable[..., Axes]] = {
        f"fit-{k + 1}": partial(plot_fit, fit, panel=k) for k in range(len(fit.panels))
    }
    return {**found, "residuals": partial(plot_residuals, fit)}


def draw_svg(fit: Fit, *, ink: str, paper: str) -> dict[str, str]:
    """Return name -> SVG of every picture of a fit, in two colours of the caller.

    As wide as a telephone, so that their text can be read there too.
    """

    def drawn(drawing: Callable[..., Axes]) -> str:
        return to_svg(lambda: drawing(ax=new_axes(None, *_SIZE)), ink=ink, paper=paper)

    return {name: drawn(drawing) for name, drawing in drawings(fit).items()}
