"""Pictures of tiles, cell by cell: which array and which head every cell belongs to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.collections import PatchCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from aimc_sim.mapping import KINDS, CellArray, Layout, tile_of
from aimc_sim.mapping import Rectangle as Box
from aimc_sim.plotting import COLOURS
from aimc_sim.specs import ChipSpec, TileSpec

_HATCHES = ("", "//", "..", "xx")  # of the arrays beyond the eighth, and again
_LIGHTEST = 0.7  # share of white in the shade of the last head
_IDLE, _EMPTY = (0.82, 0.82, 0.82), (1.0, 1.0, 1.0)  # at g_min between driven blocks; none
_SHORT = 0.2  # rows over columns of a kind below which it is drawn as strips
_THIN = 0.005  # of a tile: what is thinner gets an outline, or no pixel would be left of it
_GAP, _TITLE, _HEAD, _FOOT = 0.15, 0.3, 0.4, 0.6  # inches between, above and below tiles
_LEGEND, _LEAST = 1.9, 5.5  # inches beside the tiles; least width of these


@dataclass(frozen=True)
class _Page:
    """Tiles on a page, down and across, and the width and height of one in inches."""

    down: int
    across: int
    width: float
    height: float


def _page_of(size: TileSpec) -> _Page:
    if size.rows < _SHORT * size.cols:
        return _Page(20, 1, 8.0, 0.22)
    tall = min(size.rows / size.cols, 2.0)
    if size.cols > 64:
        return _Page(3, 4, 2.6, 2.6 * tall)
    return _Page(5, 7, 1.5, 1.5 * tall)


def count_pages(layout: Layout, spec: ChipSpec) -> int:
    """Return how many pages `draw_tiles` makes."""
    total = 0
    for kind in KINDS:
        page = _page_of(tile_of(spec, kind))
        total += -(-layout.tile_kinds.count(kind) // (page.down * page.across))
    return total


def draw_tiles(
    layout: Layout, spec: ChipSpec, per_head: Mapping[str, int] | None = None
) -> Iterator[Figure]:
    """Return pages with every tile, kind by kind, a cell a pixel; made one at a time.

    Colour (and hatch, from the ninth on) says the array, shade the head: blocks of the array
    per_head[name] at a time, dark first; without an entry it has one shade. Grey cells are idle
    and programmed to g_min between blocks that are driven together; white ones carry nothing.
    """
    per_head = per_head or {}
    pixels = _pixels(layout, per_head)
    used = np.bincount(layout.addresses[0][layout.carries_weight()], minlength=layout.n_tiles)
    for kind in KINDS:
        page = _page_of(tile_of(spec, kind))
        own = [k for k, each in enumerate(layout.tile_kinds) if each == kind]
        for first in range(0, len(own), page.down * page.across):
            tiles = own[first : first + page.down * page.across]
            yield _draw_page(tiles, page, layout, spec, kind, pixels, used, per_head)


@dataclass(frozen=True, eq=False)
class _Cells:
    """Cells of one array on a tile: their elements (n,), colours (n, 3), first and last head."""

    element: np.ndarray
    colour: np.ndarray
    heads: list[int]


def _pixels(layout: Layout, per_head: Mapping[str, int]) -> dict[int, list[_Cells]]:
    """Return what every tile holds."""
    found: dict[int, list[_Cells]] = {}
    for number, array in enumerate(layout.arrays):
        n = per_head.get(array.request.name, 0)
        head, n_heads = _heads(array, n)
        shade = _shade(number, head / max(n_heads - 1, 1))
        colours = np.where(array.carries_weight().ravel()[:, None], shade, _IDLE)
        tile, element = array.tile.ravel(), array.element.ravel()
        order = np.argsort(tile, kind="stable")
        numbers, starts = np.unique(tile[order], return_index=True)
        for k, own in zip(numbers, np.split(order, starts[1:]), strict=True):
            ends = [int(head[own].min()), int(head[own].max())] if n else []
            found.setdefault(int(k), []).append(_Cells(element[own], colours[own], ends))
    return found


def _heads(array: CellArray, per_head: int) -> tuple[np.ndarray, int]:
    """Return the head of every cell of an array, (n_cells,), and how many heads there are."""
    request, group = array.request, array.group
    if not per_head:
        return np.zeros(array.n_cells, np.int64), 1
    n_heads = -(-request.n_blocks // per_head)
    groups = np.arange(array.tile.shape[1])[:, None] * group
    block = groups + np.arange(array.tile.shape[2]) // request.n_in  # (n_groups, rows)
    head = np.minimum(block // per_head, n_heads - 1)[None, :, :, None]
    return np.broadcast_to(head, array.tile.shape).ravel(), n_heads


def _shade(number: int, place: np.ndarray | float) -> np.ndarray:
    """Return the colour of array `number` at a place in 0 .. 1 along its heads, (..., 3)."""
    colour, light = np.array(to_rgb(COLOURS[number % len(COLOURS)])), _LIGHTEST * np.array(place)
    return np.asarray(colour + light[..., None] * (1.0 - colour))


def _draw_page(
    tiles: list[int], page: _Page, layout: Layout, spec: ChipSpec, kind: str,
    pixels: Mapping[int, list[_Cells]], used: np.ndarray, per_head: Mapping[str, int],
) -> Figure:
    """Return one page: a single pair of axes in inches, which is ten times as fast as many."""
    size = tile_of(spec, kind)
    down, across = -(-len(tiles) // page.across), min(page.across, len(tiles))
    wide, tall = across * (page.width + _GAP), down * (page.height + _TITLE)
    width, height = max(wide, _LEAST) + _LEGEND, max(tall, _LEAST / 2) + _HEAD + _FOOT
    figure = Figure(figsize=(width, height))
    ax = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    ax.set(xlim=(-_GAP, width - _GAP), ylim=(height - _HEAD, -_HEAD))
    ax.axis("off")
    names = [array.request.name for array in layout.arrays]
    shown: set[str] = set()
    over: dict[str, list[Rectangle]] = {}  # hatch -> what is drawn over the cells
    boxes: dict[int, list[Box]] = {tile: [] for tile in tiles}
    for box in layout.rectangles:
        if box.tile in boxes:
            boxes[box.tile].append(box)
    for k, tile in enumerate(tiles):
        x, y = k % across * (page.width + _GAP), k // across * (page.height + _TITLE) + _TITLE
        image = np.empty((size.rows * size.cols, 3))
        image[:] = _EMPTY
        heads: list[int] = []
        for cells in pixels.get(tile, ()):
            image[cells.element] = cells.colour
            heads += cells.heads
        picture = image.reshape(size.rows, size.cols, 3)
        ax.imshow(
            picture, interpolation="nearest", aspect="auto",
            extent=(x, x + page.width, y + page.height, y),
        )
        ax.add_patch(
            Rectangle(
                (x, y), page.width, page.height, facecolor="none", edgecolor="0.5", linewidth=0.5
            )
        )
        for box in boxes[tile]:
            shown.add(box.array)
            hatch = _HATCHES[names.index(box.array) // len(COLOURS) % 4]
            thin = box.rows < _THIN * size.rows or box.cols < _THIN * size.cols
            if box.used and (hatch or thin):
                cell = page.width / size.cols, page.height / size.rows
                over.setdefault(hatch, []).append(
                    Rectangle(
                        (x + box.col * cell[0], y + box.row * cell[1]), box.cols * cell[0],
                        box.rows * cell[1], facecolor="none",
                        edgecolor="0.2" if hatch else picture[box.row, box.col],
                        linewidth=0.8 if thin else 0.0,
                    )
                )
        share = 100 * used[tile] / (size.rows * size.cols)
        ax.text(x, y - 0.05, f"tile {tile}: {share:.1f} %{_span(heads)}", fontsize=7)
    for hatch, marks in over.items():
        ax.add_collection(
            PatchCollection(marks, match_original=True, hatch=hatch or None), autolim=False
        )
    ax.text(
        0.0, 0.28 - _HEAD,
        f"{spec.name}: tiles {tiles[0]} .. {tiles[-1]} of {layout.n_tiles}, {size.rows} x "
        f"{size.cols} cells each, and the share of them in use "
        f"(all tiles: {100 * layout.utilisation(spec):.1f} %)", fontsize=9,
    )
    _explain(figure, layout, names, shown, per_head, _HEAD / height)
    return figure


def _explain(
    figure: Figure, layout: Layout, names: list[str], shown: set[str],
    per_head: Mapping[str, int], top: float,
) -> None:
    """Add the arrays' colours, and a bar that says which shade of them is which head."""
    handles = [
        Patch(
            facecolor=tuple(_shade(k, 0.0)), hatch=_HATCHES[k // len(COLOURS) % 4],
            edgecolor="0.2", linewidth=0.4, label=name,
        )
        for k, name in enumerate(names) if name in shown
    ]
    if not layout.carries_weight().all():
        handles.append(Patch(facecolor=_IDLE, label="idle, at g_min"))
    figure.legend(
        handles=handles, loc="upper right", fontsize=8, bbox_to_anchor=(1.0, 1.0 - top),
        frameon=False,
    )
    n_heads = max(
        (layout.array(name).request.n_blocks // n for name, n in per_head.items() if n), default=1
    )
    if n_heads > 1:
        width, height = figure.get_size_inches()
        ax = figure.add_axes((0.35 / width, 0.28 / height, 3.0 / width, 0.12 / height))
        shades = _shade(COLOURS.index("#000000"), np.arange(n_heads) / (n_heads - 1))
        ax.imshow(shades[None], aspect="auto", interpolation="nearest")
        ax.set_yticks([])
        ax.set_xticks([0, n_heads - 1], ["head 0", f"head {n_heads - 1}"], fontsize=7)


def _span(heads: list[int]) -> str:
    if not heads:
        return ""
    first, last = min(heads), max(heads)
    return f", head {first}" if first == last else f", heads {first} .. {last}"
