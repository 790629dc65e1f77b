"""A and C of every head in one array: exact on ideal cells, sized as its shape says."""

from __future__ import annotations

import numpy as np
import pytest
from small_models import IDEAL, random_input, random_model, relative_error

import ssm
from aimc_sim.errors import CapacityError, UsageError
from aimc_sim.specs import ChipSpec

pytestmark = pytest.mark.compiled

FORMS = [("leapfrog", "tile"), ("leapfrog", "digital"), ("delta", "tile"), ("direct", "tile")]
HEAD = {"layout": "head", "tile.rows": 64, "tile.cols": 64}


def head_chip(spec=IDEAL, **changes):
    return spec.replace(**{**HEAD, **changes})


@pytest.mark.parametrize("idle", ["off", "g_min"])
@pytest.mark.parametrize(("form", "decay"), FORMS)
def test_an_ideal_chip_answers_as_the_float_model(form, decay, idle):
    model = random_model(seed=3)
    x = random_input(4, 3, 60, model.d_input)
    for pieces in ({}, {"cells_per_weight": 2}):
        spec = head_chip(**{"tile.idle": idle}, **pieces)
        d = ssm.deploy(model, spec, form, decay=decay, calibrate=x)
        assert relative_error(d.program(0).infer(x).logits, model.logits(x)) < 1e-5


@pytest.mark.parametrize("cols", [7, 13])
@pytest.mark.parametrize(("form", "decay"), FORMS)
def test_arrays_cut_into_tiles_answer_as_the_float_model(form, decay, cols):
    model = random_model(seed=3)
    x = random_input(4, 3, 60, model.d_input)
    spec = head_chip(**{"tile.rows": 6, "tile.cols": cols})  # six states; the input lies below
    d = ssm.deploy(model, spec, form, decay=decay, calibrate=x)
    assert relative_error(d.program(0).infer(x).logits, model.logits(x)) < 1e-5


def test_sixteen_heads_of_64_states_take_96_tiles_of_64_by_64():
    """65 rows of 65 pairs: two parts down and three across for every head."""
    model = random_model(seed=1, n_heads=16, n_modes=32, n_layers=1)
    d = ssm.deploy(model, head_chip(), "direct", calibrate=random_input(1, 1, 2))
    a, c = d.layout.array("layer 0 A"), d.layout.array("layer 0 C")
    tiles = {*np.unique(a.tile), *np.unique(c.tile)}
    head_tiles = set(range(min(tiles), min(tiles) + 96))
    assert tiles <= head_tiles
    assert d.layout.n_tiles == 96 + 1  # encoder, mixing and decoder share one
    used = sum(r.used for r in d.layout.rectangles if r.array.endswith((" A", " C")))
    assert used == 2 * 16 * (32 * 4 + 65)
    assert used / (96 * 64 * 64) == pytest.approx(0.0157, abs=1e-4)


@pytest.mark.parametrize("idle", ["off", "g_min"])
@pytest.mark.parametrize(("form", "decay"), FORMS)
def test_cells_are_distinct_and_lie_where_rows_and_columns_cross(form, decay, idle):
    model = random_model(seed=3, n_layers=1)
    n, n_out = 3, 1 if decay == "digital" else 2
    d = ssm.deploy(
        model, head_chip(**{"tile.idle": idle}), form, decay=decay,
        calibrate=random_input(1, 1, 2),
    )
    cells = np.stack(d.layout.addresses, axis=1)
    assert len(np.unique(cells, axis=0)) == len(cells) == d.layout.n_cells
    width = 1 if form == "leapfrog" else 2
    a, c = d.layout.array("layer 0 A"), d.layout.array("layer 0 C")
    for head in range(4):
        for mode in range(n):
            group, first = (head, mode) if idle == "g_min" else (head * n + mode, 0)
            for row in range(2):
                for col in range(n_out):
                    at = (0, group, 2 * first + row, n_out * first + col)
                    line, place = divmod(int(a.element[at]), 64)
                    assert (line, place) == (row * n + mode, width * (col * n + mode))
                    assert a.tile[at] == c.tile[0, head, 0, 0]
        np.testing.assert_array_equal(c.element[0, head, :, 0] // 64, np.arange(2 * n + 1))
        np.testing.assert_array_equal(c.element[0, head, :, 0] % 64, width * n_out * n)
    assert len(np.unique(c.tile[0, :, 0, 0])) == 4  # tiles of its own for every head
    assert d.network.group_a == (n if idle == "g_min" else 1)


def test_rectangles_cover_the_array_and_count_its_weights():
    model = random_model(seed=3)
    for idle in ("off", "g_min"):
        d = ssm.deploy(
            model, head_chip(**{"tile.idle": idle, "tile.rows": 6, "tile.cols": 7}), "direct",
            calibrate=random_input(1, 1, 2),
        )
        for array in d.layout.arrays:
            boxes = [r for r in d.layout.rectangles if r.array == array.request.name]
            inside = np.zeros(array.tile.shape, bool)
            row, col = np.divmod(array.element, 7)
            for r in boxes:
                rows, cols = slice(r.row, r.row + r.rows), slice(r.col, r.col + r.cols)
                inside |= (
                    (array.tile == r.tile) & (row >= rows.start) & (row < rows.stop)
                    & (col >= cols.start) & (col < cols.stop)
                )
            assert inside.all()
            assert sum(r.used for r in boxes) == array.carries_weight().sum()


def test_idle_cells_at_g_min_disturb_a_head_and_cells_that_are_off_do_not():
    model = random_model(seed=3, n_modes=16, longest=0.98)
    x = random_input(4, 8, 40)
    errors = {}
    for idle in ("off", "g_min"):
        spec = head_chip(ChipSpec.preset("generic-taox-64"), **{"tile.idle": idle})
        chips = ssm.deploy(model, spec, "leapfrog", calibrate=x).program(1, chips=120)
        logits = chips.infer(x).logits
        errors[idle] = np.array([relative_error(each, model.logits(x)) for each in logits])
    # at 5 standard errors of the difference of 120 chips each
    spread = np.sqrt(sum(each.var(ddof=1) / 120 for each in errors.values()))
    assert errors["g_min"].mean() - errors["off"].mean() > 5 * spread


def test_a_saved_chip_of_that_layout_answers_as_before(tmp_path):
    model = random_model(seed=3, longest=0.98)
    x = random_input(4, 3, 20)
    spec = head_chip(ChipSpec.preset("cmo-hfox"), **{"tile.idle": "g_min"})
    programmed = ssm.deploy(model, spec, calibrate=x).program(1, chips=2)
    programmed.wait(60.0)
    programmed.save(tmp_path / "chip.npz")
    again = ssm.load_chip(tmp_path / "chip.npz")
    np.testing.assert_array_equal(again.infer(x).logits, programmed.infer(x).logits)


@pytest.mark.parametrize("compensation", ["global", "column"])
def test_compensation_finds_the_columns_of_that_layout(compensation):
    model = random_model(seed=3, longest=0.98)
    x = random_input(4, 4, 30)
    spec = head_chip(ChipSpec.preset("pcm-nandakumar2019"))
    day = {}
    for kind in ("none", compensation):
        chip = ssm.deploy(model, spec.replace(compensation=kind), calibrate=x).program(1)
        chip.wait(86400.0)
        day[kind] = relative_error(chip.infer(x).logits, model.logits(x))
    assert day[compensation] < 0.8 * day["none"]


def test_what_does_not_fit_that_layout_is_refused_in_three_parts():
    model, x = random_model(seed=3), random_input(1, 1, 2)
    short = head_chip(**{"tile.rows": 5})
    with pytest.raises(CapacityError, match=r"sums its 6 rows of states .* at least 6 rows"):
        ssm.deploy(model, short, "direct", calibrate=x)
    with pytest.raises(CapacityError, match="sums its 6 rows"):
        ssm.deploy(model, short.replace(**{"tile.idle": "g_min"}), "leapfrog", calibrate=x)
    ssm.deploy(model, short, "leapfrog", calibrate=x)  # each access reads one cell of a column
    with pytest.raises(CapacityError, match="A weight takes 2 neighbouring cells"):
        ssm.deploy(model, head_chip(**{"tile.cols": 1}), "leapfrog", calibrate=x)
    with pytest.raises(UsageError, match="A is in digital logic"):
        ssm.deploy(model, head_chip(), "digital", calibrate=x)
    with pytest.raises(UsageError, match="C is in digital logic"):
        ssm.deploy(model, head_chip(), "leapfrog", digital=["readout"], calibrate=x)
    with pytest.raises(CapacityError, match="the chip has 8"):
        ssm.deploy(model, head_chip(max_tiles=8), "leapfrog", calibrate=x)
