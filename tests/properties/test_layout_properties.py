"""Whatever is mapped: every weight has cells of its own, and they stand for it exactly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aimc_sim.errors import CapacityError, InputError
from aimc_sim.mapping import (
    KINDS,
    Assembly,
    Pieces,
    Request,
    group_size,
    pieces_of,
    place,
    target_conductances,
    tile_of,
    weight_scale,
)
from aimc_sim.specs import ChipSpec
from ssm.parts import group_blocks

FIXED = settings(
    derandomize=True,
    deadline=None,
    max_examples=60,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)

tiles = st.fixed_dictionaries(
    {
        "rows": st.integers(1, 24),
        "cols": st.integers(12, 24),  # a weight of these tests takes up to 12 neighbouring cells
        "idle": st.sampled_from(["absent", "off", "g_min"]),
        "drive": st.sampled_from(["serial", "parallel"]),
    }
)
# small blocks are grouped and packed, large ones are split
lengths = st.integers(1, 4) | st.integers(1, 30)
requests = st.builds(
    Request,
    name=st.just("array"),
    n_blocks=st.integers(1, 7),
    n_in=lengths,
    n_out=lengths,
    pair=st.booleans(),
    kind=st.sampled_from(KINDS),
)


# levels and slices, cells in parallel: up to six pieces a weight
WHOLE = (None, 1, 1)
divisions = st.just(WHOLE) | st.tuples(
    st.integers(2, 9), st.integers(1, 3), st.integers(1, 2)
)


def chip_of(tile, short_tile, division=WHOLE):
    levels, slices, cells = division
    return ChipSpec.preset("ideal").replace(
        levels=levels,
        slices=slices,
        cells_per_weight=cells,
        **{f"tile.{key}": value for key, value in tile.items()},
        **{f"short_tile.{key}": value for key, value in short_tile.items()},
    )


def addresses(layout):
    """Return (tile, element) of every cell of the chip, (n_cells, 2)."""
    return np.concatenate(
        [np.stack([a.tile.ravel(), a.element.ravel()], axis=1) for a in layout.arrays]
    )


@FIXED
@given(
    tile=tiles,
    short_tile=tiles,
    division=divisions,
    wanted=st.lists(requests, min_size=1, max_size=4),
)
def test_cells_are_distinct_and_lie_on_their_tile(tile, short_tile, division, wanted):
    spec = chip_of(tile, short_tile, division)
    layout = place(wanted, spec)
    cells = addresses(layout)
    assert len(cells) == layout.n_cells == len(np.unique(cells, axis=0))
    for array in layout.arrays:
        size = tile_of(spec, array.request.kind)
        assert array.tile.min() >= 0
        assert array.element.min() >= 0
        assert array.element.max() < size.rows * size.cols
        assert {layout.tile_kinds[t] for t in np.unique(array.tile)} == {array.request.kind}


@FIXED
@given(
    tile=tiles,
    short_tile=tiles,
    division=divisions,
    wanted=st.lists(requests, min_size=1, max_size=4),
)
def test_cells_are_numbered_in_order_and_rectangles_cover_them_without_overlap(
    tile, short_tile, division, wanted
):
    spec = chip_of(tile, short_tile, division)
    layout = place(wanted, spec)
    index = np.concatenate([array.cell_index().ravel() for array in layout.arrays])
    np.testing.assert_array_equal(index, np.arange(layout.n_cells))
    covered = []
    for piece in layout.rectangles:
        size = tile_of(spec, layout.tile_kinds[piece.tile])
        assert piece.row + piece.rows <= size.rows
        assert piece.col + piece.cols <= size.cols
        row, col = np.mgrid[piece.row : piece.row + piece.rows, piece.col : piece.col + piece.cols]
        element = (row * size.cols + col).ravel()
        covered.append(np.stack([np.full(element.size, piece.tile), element], axis=1))
    assert sum(map(len, covered)) == layout.n_cells
    found = {tuple(cell) for cell in np.concatenate(covered)}
    assert found == {tuple(cell) for cell in addresses(layout)}


@FIXED
@given(
    tile=tiles,
    short_tile=tiles,
    division=divisions,
    wanted=st.lists(requests, min_size=1, max_size=4),
)
def test_used_cells_are_counted_once_and_never_exceed_the_tiles(
    tile, short_tile, division, wanted
):
    spec = chip_of(tile, short_tile, division)
    layout = place(wanted, spec)
    planes = [(2 if r.pair else 1) * division[1] * division[2] for r in wanted]
    weights = [r.n_blocks * r.n_in * r.n_out * p for r, p in zip(wanted, planes, strict=True)]
    assert layout.n_used() == sum(weights)
    assert [int(array.carries_weight().sum()) for array in layout.arrays] == weights
    assert 0 < layout.utilisation(spec) <= 1


@FIXED
@given(tile=tiles, division=divisions, request=requests)
def test_cells_that_work_together_share_lines(tile, division, request):
    spec = chip_of(tile, tile, division)
    array = place([request], spec).arrays[0]
    cols = tile["cols"]
    for plane in range(1, len(array.tile)):  # all cells of a weight lie side by side on a row
        np.testing.assert_array_equal(array.tile[0], array.tile[plane])
        np.testing.assert_array_equal(array.element[0] + plane, array.element[plane])
        np.testing.assert_array_equal(array.element[0] // cols, array.element[plane] // cols)
    line = array.element % cols
    for row in range(0, array.tile.shape[2], array.part_rows):
        part = slice(row, row + array.part_rows)
        # the cells of one output in one part hang on one bit line of one tile
        assert (array.tile[:, :, part] == array.tile[:, :, row : row + 1]).all()
        assert (line[:, :, part] == line[:, :, row : row + 1]).all()
    assert array.n_parts == -(-array.tile.shape[2] // array.part_rows)


@FIXED
@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 8), st.integers(1, 8)),
    seed=st.integers(0, 1000),
    per=st.sampled_from(["column", "block"]),
    pair=st.booleans(),
    card=st.sampled_from(["ideal", "cmo-hfox"]),
)
def test_targets_lie_in_range_and_decode_to_the_weights(shape, seed, per, pair, card):
    device = ChipSpec.preset(card).device
    w = np.random.default_rng(seed).standard_normal(shape) * 10.0 ** (seed % 7 - 3)
    w[:, :, 0] *= seed % 2
    w = w if pair else np.abs(w)
    scale = weight_scale(w, device, per)
    assert scale.shape == (shape[0], 1, shape[2] if per == "column" else 1)
    g = target_conductances(w, scale, device, pair=pair)
    assert g.shape == (2 if pair else 1, *shape)
    assert g.min() >= device.g_min_s
    assert g.max() <= device.g_max_s * (1 + 1e-12)
    decoded = (g[0] - g[1]) * scale if pair else (g[0] - device.g_min_s) * scale
    np.testing.assert_allclose(decoded, w, atol=1e-12 * np.abs(w).max())
    if pair:
        assert (g.min(axis=0) == device.g_min_s).all()


def decode(g, scale, device, pieces, *, pair):
    """The weights that conductances stand for, by the sum over pieces as the chip adds it."""
    halves = (g - device.g_min_s).reshape(pieces.count, 2 if pair else 1, *g.shape[1:])
    sign = np.array([1.0, -1.0] if pair else [1.0])
    return np.einsum("p,h,ph...->...", pieces.shares, sign, halves) * scale


@FIXED
@given(
    seed=st.integers(0, 1000),
    levels=st.integers(2, 200),
    slices=st.integers(1, 4),
    cells=st.integers(1, 5),
    pair=st.booleans(),
    card=st.sampled_from(["ideal", "cmo-hfox"]),
)
def test_weights_on_levels_and_slices_are_off_by_at_most_half_a_step(
    seed, levels, slices, cells, pair, card
):
    device = ChipSpec.preset(card).device
    pieces = Pieces(levels, cells, slices)
    w = np.random.default_rng(seed).standard_normal((2, 7, 5))
    w = w if pair else np.abs(w)
    scale = weight_scale(w, device, "column")
    g = target_conductances(w, scale, device, pair=pair, pieces=pieces)
    assert g.shape == (pieces.count * (2 if pair else 1), *w.shape)
    # every cell is at one of its levels
    place_of = (g - device.g_min_s) / (device.g_max_s - device.g_min_s) * (levels - 1)
    np.testing.assert_allclose(place_of, np.rint(place_of), atol=1e-9 * levels)
    assert place_of.min() >= -1e-9
    assert place_of.max() <= (levels - 1) * (1 + 1e-12)
    step = scale * (device.g_max_s - device.g_min_s) / (levels**slices - 1)
    error = np.abs(decode(g, scale, device, pieces, pair=pair) - w)
    assert (error <= step / 2 + 1e-12 * np.abs(w).max()).all()
    # a weight that is a whole number of steps comes back as it is
    whole = np.rint(w / step) * step
    again = target_conductances(whole, scale, device, pair=pair, pieces=pieces)
    np.testing.assert_allclose(decode(again, scale, device, pieces, pair=pair), whole, atol=1e-11)
    np.testing.assert_array_equal(again, g)


@FIXED
@given(tile=tiles, division=divisions, request=requests, seed=st.integers(0, 1000))
def test_weights_read_back_from_the_rectangles_of_the_tiles_are_those_put_there(
    tile, division, request, seed
):
    spec = chip_of(tile, tile, division)
    layout = place([request], spec)
    array, pieces = layout.arrays[0], pieces_of(spec)
    steps = (pieces.levels or 100) ** pieces.slices - 1
    blocks = np.random.default_rng(seed).integers(
        -steps if request.pair else 0, steps + 1, (request.n_blocks, request.n_in, request.n_out)
    )
    w = group_blocks(blocks / steps, array.group)
    span = spec.device.g_max_s - spec.device.g_min_s
    scale = np.full((1, 1, 1), 1 / span)
    target = target_conductances(w, scale, spec.device, pair=request.pair, pieces=pieces)
    images = np.full((layout.n_tiles, tile["rows"] * tile["cols"]), np.nan)
    images[array.tile, array.element] = target
    images = images.reshape(layout.n_tiles, tile["rows"], tile["cols"])
    found = np.full(w.shape, np.nan)
    row = col = 0
    for piece in layout.rectangles:  # row by row of rectangles in a block, left to right
        rows = slice(piece.row, piece.row + piece.rows)
        g = images[piece.tile, rows, piece.col : piece.col + piece.cols]
        g = g.reshape(piece.rows, -1, len(target)).transpose(2, 0, 1)
        part = decode(g, scale[0], spec.device, pieces, pair=request.pair)
        found[piece.block, row : row + part.shape[0], col : col + part.shape[1]] = part
        col += part.shape[1]
        if col == w.shape[2]:
            row, col = (row + part.shape[0]) % w.shape[1], 0
    np.testing.assert_allclose(found, w, atol=1e-11)


@FIXED
@given(
    tile=tiles,
    division=divisions,
    n_heads=st.integers(1, 4),
    n=st.integers(1, 9),
    n_out=st.integers(1, 2),
    pairs=st.tuples(st.booleans(), st.booleans()),
    together=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_assembled_weights_read_back_from_dense_images_of_the_arrays_are_those_put_there(
    tile, division, n_heads, n, n_out, pairs, together, seed
):
    """Unpacking: tiles side by side form one array for every head; columns are read along it."""
    spec = chip_of(tile, tile, division)
    pieces = pieces_of(spec)
    blocks = Request("A", n_heads * n, 2, n_out, pair=pairs[0])
    columns = Request("C", n_heads, 2 * n + 1, 1, pair=pairs[1])
    layout = place([Assembly(blocks, columns, together)], spec)
    a, c = layout.arrays
    numbers = np.arange(1, 1 + blocks.n_blocks * 2 * n_out + columns.n_blocks * (2 * n + 1))
    np.random.default_rng(seed).shuffle(numbers)
    own = numbers[: blocks.n_blocks * 2 * n_out].reshape(-1, 2, n_out)
    read = numbers[own.size :].reshape(-1, 2 * n + 1, 1)
    images = np.zeros((layout.n_tiles, tile["rows"] * tile["cols"]), int)
    images[a.tile, a.element] = group_blocks(own, a.group)[None]
    images[c.tile, c.element] = read[None]
    down = -(-(2 * n + 1) // tile["rows"])
    across = layout.n_tiles // n_heads // down
    arrays = images.reshape(n_heads, down, across, tile["rows"], tile["cols"])
    arrays = arrays.transpose(0, 1, 3, 2, 4).reshape(n_heads, down * tile["rows"], -1)
    widths = [(2 if pair else 1) * pieces.count for pair in pairs]
    starts, at = [], 0
    for width in [widths[0]] * (n_out * n) + [widths[1]]:
        at += tile["cols"] - at % tile["cols"] if at % tile["cols"] + width > tile["cols"] else 0
        starts.append(at)
        at += width
    assert across == -(-at // tile["cols"])
    dense = arrays[:, : 2 * n + 1, starts]
    for head in range(n_heads):
        for mode in range(n):
            found = dense[head][[mode, n + mode]][:, [k * n + mode for k in range(n_out)]]
            np.testing.assert_array_equal(found, own[head * n + mode])
        np.testing.assert_array_equal(dense[head, :, -1], read[head, :, 0])
    # nothing else is written: each head's image has its weights' cells and no others
    cells = (2 * n * n_out * widths[0] + (2 * n + 1) * widths[1]) * n_heads
    assert np.count_nonzero(images) == cells == layout.n_used()
    assert layout.n_cells == cells + together * n_heads * 2 * n * (n - 1) * n_out * widths[0]


@pytest.mark.parametrize("pieces", [Pieces(), Pieces(cells=3), Pieces(7, 2, 3), Pieces(2, 1, 8)])
def test_the_shares_of_the_pieces_add_up_to_the_weight(pieces):
    assert pieces.shares.shape == (pieces.count,)
    assert pieces.shares.sum() == pytest.approx(1.0, abs=1e-15)
    digits = pieces.shares.reshape(pieces.slices, pieces.cells)
    np.testing.assert_array_equal(digits, digits[:, :1] * np.ones(pieces.cells))
    if pieces.slices > 1:  # a digit weighs `levels` times as much as the next
        np.testing.assert_allclose(digits[:-1] / digits[1:], pieces.levels, rtol=1e-14)


def test_digits_are_those_of_the_rounded_weight():
    device = ChipSpec.preset("ideal").device
    span = device.g_max_s - device.g_min_s
    w = np.array([[[11 / 15], [-6 / 15], [0.0], [1.0]]])  # of 15: 23, -12, 0, 33 in base 4
    scale = np.full((1, 1, 1), 1 / span)
    g = target_conductances(w, scale, device, pair=True, pieces=Pieces(4, 1, 2))
    digits = np.rint((g[:, 0, :, 0] - device.g_min_s) / span * 3).astype(int)
    np.testing.assert_array_equal(
        digits, [[2, 0, 0, 3], [0, 1, 0, 0], [3, 0, 0, 3], [0, 2, 0, 0]]
    )


@FIXED
@given(n=st.integers(1, 9), rows=st.integers(1, 4), cols=st.integers(1, 4), group=st.integers(1, 5))
def test_grouped_blocks_hold_every_block_on_the_diagonal_and_nothing_else(n, rows, cols, group):
    blocks = 1.0 + np.random.default_rng(n).random((n, rows, cols))
    grouped = group_blocks(blocks, group)
    assert grouped.shape == (-(-n // group), group * rows, group * cols)
    for k in range(n):
        which, j = divmod(k, group)
        found = grouped[which, j * rows : (j + 1) * rows, j * cols : (j + 1) * cols]
        np.testing.assert_array_equal(found, blocks[k])
    assert grouped.sum() == pytest.approx(blocks.sum())
    assert np.count_nonzero(grouped) == blocks.size


@FIXED
@given(tile=tiles, request=requests, n_pieces=st.integers(1, 6))
def test_blocks_are_grouped_only_where_idle_cells_conduct_and_are_driven(tile, request, n_pieces):
    size = group_size(request, tile_of(chip_of(tile, tile), "tile"), n_pieces)
    assert 1 <= size <= request.n_blocks
    if tile["idle"] != "g_min" or tile["drive"] == "serial":
        assert size == 1
    if size > 1:
        assert size * request.n_in <= tile["rows"]
        assert size * request.n_out * (2 if request.pair else 1) * n_pieces <= tile["cols"]


@FIXED
@given(tile=tiles, division=divisions, request=requests)
def test_a_block_that_must_stay_whole_is_whole_or_refused(tile, division, request):
    spec = chip_of(tile, tile, division)
    whole = Request(**{**request.__dict__, "may_split": False})
    planes = (2 if request.pair else 1) * pieces_of(spec).count
    fits = request.n_in <= tile["rows"] and request.n_out * planes <= tile["cols"]
    if not fits:
        with pytest.raises(CapacityError, match=r"Map 'array'\. A block of .* must stay whole"):
            place([whole], spec)
        return
    array = place([whole], spec).arrays[0]
    assert array.n_parts == 1
    for group in range(array.tile.shape[1]):
        assert len(np.unique(array.tile[:, group])) == 1


def test_too_few_tiles_are_refused_with_their_number():
    spec = ChipSpec.preset("ideal").replace(**{"tile.rows": 4, "tile.cols": 4}, max_tiles=3)
    place([Request("w", 1, 12, 2)], spec)
    with pytest.raises(CapacityError, match=r"It needs 4 tiles, the chip has 3\. .*max_tiles"):
        place([Request("w", 1, 13, 2)], spec)


def test_a_tile_of_one_column_holds_no_pair():
    spec = ChipSpec.preset("ideal").replace(**{"tile.cols": 1})
    with pytest.raises(CapacityError, match=r"holds 256 x 1\. Choose a chip whose tile has"):
        place([Request("w", 1, 2, 1)], spec)
    assert place([Request("w", 1, 2, 1, pair=False)], spec).n_cells == 2


def test_a_weight_of_more_pieces_than_a_tile_has_columns_is_refused():
    spec = ChipSpec.preset("ideal").replace(levels=4, slices=3, cells_per_weight=2)
    place([Request("w", 1, 2, 1)], spec.replace(**{"tile.cols": 12}))
    with pytest.raises(
        CapacityError,
        match=r"A weight takes 12 neighbouring cells, a tile of kind 'tile' holds 256 x 11\. "
        r"Choose .* at least 12 columns, or fewer cells_per_weight or slices",
    ):
        place([Request("w", 1, 2, 1)], spec.replace(**{"tile.cols": 11}))


@pytest.mark.parametrize("shape", [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_an_empty_array_is_refused(shape):
    with pytest.raises(InputError, match=r"Map 'w'\. It is empty .* at least one row"):
        place([Request("w", *shape)], ChipSpec.preset("ideal"))


def test_a_negative_weight_finds_no_single_cell():
    device = ChipSpec.preset("ideal").device
    w = np.array([[[1.0], [-0.5]]])
    with pytest.raises(InputError, match=r"One of them is negative\. Use pairs"):
        target_conductances(w, weight_scale(w, device, "block"), device, pair=False)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 2.0])
def test_a_weight_beyond_its_scale_is_refused(bad):
    device = ChipSpec.preset("ideal").device
    scale = weight_scale(np.ones((1, 1, 1)), device, "block")
    with pytest.raises(InputError, match=r"outside the range of its scale\. Give finite"):
        target_conductances(np.full((1, 1, 1), bad), scale, device, pair=True)
