"""What the page of a run shows beside its record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aimc_sim.chip import Chip
from aimc_sim.pages.html import INK, PAPER
from aimc_sim.plotting import to_svg
from aimc_sim.plotting.look import new_axes

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

NARROW = 3.8  # inches: as wide as a telephone, so that text keeps its size there
Record = Mapping[str, Any]
Section = tuple[str, str, str]  # name, title and inside


@dataclass(frozen=True, eq=False)
class Exhibits:
    """What the page shows beside the record.

    chip : the first sampled chip, at the last time. confusion : (classes, classes + 1) counts at
    that time, over all chips, None without labels. budget : rows as those of the record, with
    `budget_samples`, `budget_chips`; None: not there. states : of `ssm.traces.trace_states`.
    missing : what could not be shown, and why.
    """

    chip: Chip
    confusion: NDArray[np.int64] | None = None
    budget: Record | None = None
    states: Record | None = None
    missing: tuple[str, ...] = ()

    def why_not(self, name: str) -> str:
        """Return why something is not shown."""
        found = [said for said in self.missing if said.startswith(name)]
        return found[0] if found else f"{name}: this chip has nothing to show"


def draw(drawing: Callable[..., Axes], size: tuple[float, float] | None = None) -> str:
    """Return what a function draws as SVG in the page's colours.

    size : of the figure [inches]; None: the function's own.
    """
    if size is None:
        return to_svg(drawing, ink=INK, paper=PAPER)
    return to_svg(lambda: drawing(ax=new_axes(None, *size)), ink=INK, paper=PAPER)


def in_percent(value: float | None) -> str:
    """Return a share in percent, a dash where there is none."""
    return "-" if value is None else f"{100 * value:.3g} %"


def counted(n: int, what: str) -> str:
    """Return a number of things in words."""
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
