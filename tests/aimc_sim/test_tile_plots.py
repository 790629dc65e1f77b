"""Pictures of tiles show every cell in the colour of its array and the shade of its head."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from aimc_sim.mapping import Assembly, Request, place
from aimc_sim.plotting import COLOURS
from aimc_sim.specs import ChipSpec, TileSpec
from aimc_sim.tile_plots import count_pages, draw_tiles

SPEC = ChipSpec.preset("ideal").replace(
    tile=TileSpec(rows=16, cols=12), short_tile=TileSpec(rows=2, cols=40)
)


def images(figure):
    return [image.get_array() for image in figure.axes[0].images]


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def test_every_tile_is_drawn_once_with_its_share_in_use():
    requests = [Request("w", 1, 40, 30), Request("a", 60, 2, 2, kind="short_tile")]
    layout = place(requests, SPEC)
    pages = list(draw_tiles(layout, SPEC))
    assert len(pages) == count_pages(layout, SPEC) == 2
    titles = [text for page in pages for text in texts(page) if text.startswith("tile ")]
    assert sorted(int(t.split()[1].rstrip(":")) for t in titles) == list(range(layout.n_tiles))
    pictures = [image for page in pages for image in images(page)]
    drawn = np.array([(image != 1.0).any(axis=2).mean() for image in pictures])
    said = np.array([float(title.split()[2]) / 100 for title in titles])
    np.testing.assert_allclose(said, drawn, atol=0.0006)
    assert "16 x 12 cells each" in texts(pages[0])[-1]
    assert f"(all tiles: {100 * layout.utilisation(SPEC):.1f} %)" in texts(pages[0])[-1]


def test_cells_have_the_colour_of_their_array_and_the_shade_of_their_head():
    layout = place([Request("w", 1, 3, 2), Request("c", 4, 5, 1)], SPEC)
    page = next(draw_tiles(layout, SPEC, {"c": 2}))
    image = images(page)[0].reshape(-1, 3)
    w, c = layout.arrays
    np.testing.assert_allclose(image[w.element.ravel()], [to_rgb(COLOURS[0])] * 12)
    first, last = image[c.element[:, :2].ravel()], image[c.element[:, 2:].ravel()]
    np.testing.assert_allclose(first, [to_rgb(COLOURS[1])] * 20)
    assert (last >= first).all()
    assert (np.ptp(last, axis=0) == 0).all()
    assert last[0].sum() > first[0].sum() + 0.5  # and not so light that it is lost on white
    assert last[0].sum() < 2.7
    names = [text.get_text() for text in page.legends[0].get_texts()]
    assert names == ["w", "c"]
    assert any(text.endswith("heads 0 .. 1") for text in texts(page))


def test_idle_cells_that_are_driven_are_grey():
    spec = SPEC.replace(**{"tile.idle": "g_min"})
    assembly = Assembly(
        Request("a", 6, 2, 2, pair=False), Request("c", 2, 7, 1), together=True
    )
    layout = place([assembly], spec)
    page = next(draw_tiles(layout, spec, {"a": 3, "c": 1}))
    grey = [int((np.ptp(image, axis=2) == 0)[(image < 1).all(axis=2)].sum()) for image in
            images(page)]
    assert grey == [24, 24]  # of 6 x 6 cells 12 carry weights
    assert [text.get_text() for text in page.legends[0].get_texts()] == [
        "a", "c", "idle, at g_min"
    ]


@pytest.mark.parametrize("n_arrays", [8, 11])
def test_arrays_beyond_the_palette_are_hatched(n_arrays):
    layout = place([Request(f"w{k}", 1, 2, 2) for k in range(n_arrays)], SPEC)
    page = next(draw_tiles(layout, SPEC))
    patches = page.legends[0].get_patches()
    assert [bool(patch.get_hatch()) for patch in patches] == [k >= 8 for k in range(n_arrays)]
    hatched = [each for each in page.axes[0].collections if each.get_hatch()]
    assert sum(len(each.get_paths()) for each in hatched) == max(0, n_arrays - 8)
