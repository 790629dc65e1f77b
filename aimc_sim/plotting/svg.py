"""A plot as SVG: its text as text, its tips as titles, its pictures of few colours small."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np

from aimc_sim.plotting.look import TIP

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INKS = (
    "text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color",
    "ytick.color", "legend.labelcolor", "legend.edgecolor",
)
_PAPERS = ("axes.facecolor", "figure.facecolor", "legend.facecolor", "savefig.facecolor")
_UNDATED = dict.fromkeys(("Date", "Creator", "Format", "Type"))  # equal data, equal bytes


def to_svg(
    draw: Callable[[], Axes | Figure], *, ink: str | None = None, paper: str | None = None
) -> str:
    """Return what `draw` draws as SVG.

    ink, paper : colours of text and frames, and of the ground; None: matplotlib's.
    """
    style: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "aimc-sim"}
    style |= dict.fromkeys(_INKS if ink else (), ink)
    style |= dict.fromkeys(_PAPERS if paper else (), paper)
    stream = io.StringIO()
    with mpl.rc_context(style):
        drawn = draw()
        figure: Any = drawn if hasattr(drawn, "savefig") else drawn.figure
        figure.savefig(stream, format="svg", metadata=_UNDATED)
    return _smaller_pictures(_titled(stream.getvalue()))


def _titled(svg: str) -> str:
    """Return SVG with a title in every group whose id is a tip; browsers show it at a pointer."""
    return re.sub(rf'<g id="{TIP}([^"]*)">', r"<g><title>\1</title>", svg)


def _smaller_pictures(svg: str) -> str:
    """Return SVG whose embedded pictures of up to 256 colours are stored by index.

    The same pixels in a quarter of the bytes: a map of conductances has 64 colours.
    """
    return re.sub(r"(data:image/png;base64,)([^\"]+)", _by_index, svg)


def _by_index(found: re.Match[str]) -> str:
    from PIL import Image

    data = base64.b64decode(found[2])
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))
    colours, index = np.unique(
        np.ascontiguousarray(pixels).view(np.uint32).ravel(), return_inverse=True
    )
    if len(colours) > 256:
        return found[0]
    table = colours.view(np.uint8).reshape(-1, 4)
    image = Image.fromarray(index.reshape(pixels.shape[:2]).astype(np.uint8), mode="L")
    image.putpalette(table[:, :3].tobytes())
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True, transparency=table[:, 3].tobytes())
    smaller = stream.getvalue()
    return found[1] + base64.b64encode(min(data, smaller, key=len)).decode()
