"""Plots of runs and chips: what is drawn is what was given."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

import aimc_sim as aimc
from aimc_sim.errors import InputError, UsageError
from aimc_sim.mapping import Request, place
from aimc_sim.plotting import (
    pareto_set,
    plot_area,
    plot_budget,
    plot_conductances,
    plot_confusion,
    plot_energy,
    plot_pareto,
    plot_placement,
    plot_states,
    to_svg,
)
from aimc_sim.plotting.conductances import tile_map
from aimc_sim.plotting.placement import Area, join
from aimc_sim.specs import ChipSpec

KINDS = {"ADC": 3e-9, "DAC": 1e-9, "cells": 0.5e-9, "leakage": 2.5e-9}
TWINS = {"fp32": {"logic": 4e-9, "weights": 1e-9}, "int8": {"logic": 0.5e-9, "states": 0.5e-9}}


def record_with_costs():
    return {
        "model": "m", "chip": "some chip", "energy_breakdown_j": {"kind": KINDS},
        "costs": {
            "of": "sequence", "node_nm": 28.0, "area_m2": {"ADC": 2e-7, "cells": 1e-8},
            "in_logic_breakdown_j": TWINS,
        },
    }


def titles(svg):
    return re.findall(r"<title>([^<]*)</title>", svg)


def test_bars_of_energy_add_up_to_what_the_record_says():
    ax = plot_energy(record_with_costs())
    names = [text.get_text() for text in ax.get_yticklabels()]
    assert names == ["some chip", "in logic, fp32", "in logic, int8"]
    assert ax.get_xlabel() == "energy of a sequence [nJ]"
    ends = [0.0] * 3
    for bar in ax.patches:
        place = round(bar.get_y() + bar.get_height() / 2)
        assert bar.get_x() == pytest.approx(ends[place])  # one after the other
        ends[place] += bar.get_width()
    assert ends == pytest.approx([7.0, 5.0, 1.0])


def test_a_kind_of_energy_looks_the_same_in_every_plot():
    def looks(ax):
        handles, labels = ax.get_legend_handles_labels()
        patches = (handle.patches[0] for handle in handles)
        return {k: (p.get_facecolor(), p.get_hatch()) for k, p in zip(labels, patches, strict=True)}

    energy, area = looks(plot_energy(record_with_costs())), looks(plot_area(record_with_costs()))
    assert len(set(energy.values())) == len(energy)  # told apart
    assert all(energy[kind] == area[kind] for kind in energy.keys() & area.keys())
    assert {"ADC", "cells"} <= energy.keys() & area.keys()


def test_costs_that_are_not_known_are_not_drawn():
    with pytest.raises(InputError, match="its notes say why"):
        plot_energy({"model": "m", "chip": "c", "costs": None})


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=12))
def test_the_pareto_set_is_what_no_other_design_beats(designs):
    cost, score = zip(*designs, strict=True)

    def beaten(k):
        return any(
            c <= cost[k] and s >= score[k] and (c, s) != (cost[k], score[k]) for c, s in designs
        )

    found = pareto_set(cost, score)
    assert sorted(found) == [k for k in range(len(designs)) if not beaten(k)]
    assert [score[k] for k in found] == sorted((score[k] for k in found), reverse=True)


def test_designs_carry_their_names_and_those_without_a_cost_are_left_out():
    rows = [
        {"name": "small", "energy_j": 1e-9, "accuracy": 0.9, "group": "a", "low": 0.88,
         "high": 0.91},
        {"name": "large", "energy_j": 1e-7, "accuracy": 0.95, "group": "b"},
        {"name": "worse", "energy_j": 2e-7, "accuracy": 0.93, "group": "b"},
        {"name": "unknown", "energy_j": None, "accuracy": 0.99},
    ]
    ax = plot_pareto(rows)
    assert [text.get_text() for text in ax.texts] == ["small", "large", "worse"]
    assert ax.get_xscale() == "log"
    (steps,) = [line for line in ax.lines if line.get_label() == "Pareto set"]
    assert steps.get_xydata().tolist() == [[1e-9, 90.0], [1e-7, 95.0]]
    with pytest.raises(InputError, match="None of 1 has"):
        plot_pareto(rows[3:])


def test_confusion_is_in_percent_of_the_true_class_and_shows_what_was_not_finite():
    ax = plot_confusion([[8, 2, 0], [0, 5, 0]])
    assert ax.collections[0].get_array().ravel().tolist() == [80, 20, 0, 100]
    lost = plot_confusion(np.array([[8, 2, 0], [0, 3, 2]]))
    assert lost.collections[0].get_array().ravel().tolist() == [80, 20, 0, 0, 60, 40]
    assert [text.get_text() for text in lost.get_xticklabels()] == ["0", "1", "none"]
    many = plot_confusion(np.eye(300, 301, dtype=int))
    assert len(many.get_xticks()) <= 24 and not many.texts


@given(st.data())
def test_joined_areas_cover_the_same_cells_once(data):
    """Blocks cut at random out of a 12 x 12 tile; the oracle is the tile cell by cell."""
    free = np.ones((12, 12), bool)
    areas = []
    for _ in range(data.draw(st.integers(1, 12))):
        row, col = data.draw(st.integers(0, 11)), data.draw(st.integers(0, 11))
        rows, cols = data.draw(st.integers(1, 12 - row)), data.draw(st.integers(1, 12 - col))
        here = (slice(row, row + rows), slice(col, col + cols))
        if free[here].all():
            free[here] = False
            areas.append(Area(row, col, rows, cols))
    drawn = np.zeros((12, 12), int)
    joined = join(areas)
    for area in joined:
        drawn[area.row : area.row + area.rows, area.col : area.col + area.cols] += 1
    assert (drawn == ~free).all()
    assert len(joined) <= len(areas)


def test_thousands_of_blocks_are_drawn_as_a_few_areas_that_say_what_they_are():
    spec = ChipSpec.preset("cmo-hfox")
    layout = place([Request("a", 3000, 2, 2, kind="short_tile"), Request("w", 1, 40, 20)], spec)
    assert len(layout.rectangles) > 3000
    svg = to_svg(lambda: plot_placement(layout, spec))
    said = titles(svg)
    assert len(said) < 100
    assert any(re.fullmatch(r"w on tile \d+: rows 0 .. 39, columns 0 .. 39", s) for s in said)
    assert "the first 2 shown" in plot_placement(layout, spec, most=2).get_title()


def test_placement_takes_whatever_lies_on_tiles(programmed):
    said = plot_placement(programmed.mapped.layout, programmed.mapped.spec).get_title()
    for data in (programmed, programmed.mapped, programmed.chip):
        assert plot_placement(data).get_title() == said
    with pytest.raises(UsageError, match="int"):
        plot_placement(3)


def test_a_legend_too_long_for_the_figure_is_left_out():
    spec = ChipSpec.preset("cmo-hfox")
    for n, there in ((32, True), (33, False)):
        layout = place([Request(f"w{k}", 1, 4, 4) for k in range(n)], spec)
        for width in (3.8, 6.8):
            ax = plot_placement(layout, spec, width=width)
            ax.figure.canvas.draw()
            assert (ax.get_legend() is not None) is there
            assert ax.get_window_extent().height > 50


def test_a_part_of_one_row_is_drawn_as_thick_as_a_line():
    spec = ChipSpec.preset("cmo-hfox")
    layout = place([Request("thin", 1, 1, 60), Request("w", 1, 40, 60)], spec)
    boxes = plot_placement(layout, spec).patches[:2]
    tile = spec.tile.rows
    assert [box.get_height() > tile / 100 for box in boxes] == [True, True]
    assert boxes[1].get_height() == 40
    assert boxes[0].get_zorder() > boxes[1].get_zorder()  # and not hidden


def budget(largest):
    rows = [
        {"layer": layer, "cause": cause, "at_s": 0.0, "relative_rms": share, "logit_rms": share / 3}
        for layer in ("encoder", "layer 0 A")
        for cause, share in (("drift", largest), ("ADC", largest / 40))
    ]
    return {"chip": "a chip", "budget": rows}


@pytest.mark.parametrize("largest", [3.0, 0.347, 0.001])
def test_colour_bars_in_logs_have_plain_figures(largest):
    figure = plot_budget(budget(largest)).figure
    figure.canvas.draw()
    said = [text.get_text() for text in figure.axes[1].get_yticklabels()]
    assert 5 <= len(said) <= 8
    assert all(f"{float(text):g}" == text for text in said)
    low, high = largest, 100 * largest
    assert all(0.99 * low <= float(text) <= 1.01 * high for text in said)


def test_a_budget_is_drawn_at_one_place_alone_too():
    both, one = plot_budget(budget(0.3)), plot_budget(budget(0.3), where="logits")
    assert (len(both.get_xticks()), len(one.get_xticks())) == (4, 2)
    with pytest.raises(UsageError, match="output or logits"):
        plot_budget(budget(0.3), where="here")


@pytest.mark.parametrize("width", [3.8, 6.4])
def test_titles_and_legends_stay_inside_of_a_figure(width):
    ax = Figure(figsize=(width, 3.4), layout="constrained").subplots()
    record = {**record_with_costs(), "model": "a model with a long name of many words"}
    figure = plot_energy(record, ax=ax).figure
    figure.canvas.draw()
    for part in (ax.title, ax.get_legend()):
        box = part.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= figure.bbox.width


@pytest.fixture(scope="module")
def programmed():
    spec = ChipSpec.preset("pcm-nandakumar2019").replace(
        **{"tile.rows": 32, "tile.cols": 40, "compensation": "none"}
    )
    w = np.random.default_rng(0).standard_normal((50, 17))
    return aimc.map_matrix(w, spec).program(seed=3)


def test_a_map_holds_every_cell_of_the_tile_where_it_lies(programmed):
    chip = programmed.chip
    tiles, elements = chip.layout.addresses
    for tile in range(chip.layout.n_tiles):
        maps = {what: tile_map(chip, what, tile) for what in ("target", "programmed", "error")}
        own = tiles == tile
        for cell in np.flatnonzero(own)[::37]:
            row, col = divmod(int(elements[cell]), 40)
            assert maps["target"][row, col] == pytest.approx(1e6 * chip.target_s[cell])
            assert maps["programmed"][row, col] == pytest.approx(1e6 * chip.programmed_s[0, cell])
        assert np.count_nonzero(~np.isnan(maps["target"])) == own.sum()
        assert maps["error"] == pytest.approx(maps["programmed"] - maps["target"], nan_ok=True)


def test_aged_cells_of_phase_change_memory_lie_below_programmed_ones(programmed):
    old = aimc.map_matrix(np.ones((20, 10)), programmed.chip.spec).program(seed=1).wait("1d")
    before = np.nanmean(tile_map(old.chip, "programmed", 0))
    assert np.nanmean(tile_map(old.chip, "aged", 0)) < 0.9 * before
    assert "aged at 1 d" in plot_conductances(old, what="aged").get_title()


def test_maps_share_the_range_of_the_device_and_errors_are_symmetric(programmed):
    axes = Figure().subplots(1, 2)
    assert plot_conductances(programmed, ax=axes[0], what="target") is axes[0]
    plot_conductances(programmed, ax=axes[1], what="error")
    first, second = (ax.images[0].get_clim() for ax in axes)
    device = programmed.chip.spec.device
    assert first == pytest.approx((1e6 * device.g_min_s, 1e6 * device.g_max_s))
    assert second[0] == -second[1] < 0


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"what": "eror"}, "Did you mean 'error'"),
        ({"tile": 9}, "The chip has tiles 0 to 1"),
        ({"replica": 1}, "The chip has replicas 0 to 0"),
    ],
)
def test_maps_that_are_not_there_are_refused(programmed, given, found):
    with pytest.raises(UsageError, match=found):
        plot_conductances(programmed, **given)


def test_a_thing_without_cells_has_no_map():
    with pytest.raises(UsageError, match="Program it first"):
        plot_conductances(ChipSpec.preset("ideal"))


def test_states_lie_in_lanes_as_high_as_the_float_state():
    exact = np.stack([np.sin(np.arange(50) / 3), 100 * np.cos(np.arange(50) / 5)])
    data = {"names": ["one", "two"], "float": exact, "chips": exact[None] * [[[1.0], [0.5]]]}
    ax = plot_states(data)
    chip_one, float_one, chip_two, float_two = (line.get_ydata() for line in ax.lines)
    assert chip_one == pytest.approx(float_one)
    assert np.abs(float_two + 1).max() == pytest.approx(0.42)
    assert chip_two + 1 == pytest.approx(0.5 * (float_two + 1))
    assert "+-100" in ax.get_yticklabels()[1].get_text()
    with pytest.raises(InputError, match="Float has shape"):
        plot_states({**data, "names": ["one"]})


def test_long_states_keep_their_extremes():
    values = np.random.default_rng(0).standard_normal(40_003)
    ax = plot_states({"names": ["long"], "float": values[None], "chips": values[None, None]})
    drawn = ax.lines[1].get_ydata()
    assert len(drawn) < 2_000
    largest = np.abs(values).max()
    assert [drawn.min(), drawn.max()] == pytest.approx(
        [0.42 * values.min() / largest, 0.42 * values.max() / largest]
    )


def test_pictures_in_svg_keep_every_pixel_and_take_few_bytes(programmed):
    svg = to_svg(lambda: plot_conductances(programmed, what="target"))
    found = [base64.b64decode(data) for data in re.findall(r"image/png;base64,([^\"]+)", svg)]
    from PIL import Image

    images = [Image.open(io.BytesIO(data)) for data in found]
    (image,) = [each for each in images if each.size == (34, 32)]
    assert image.mode == "P"
    values = tile_map(programmed.chip, "target", 0)[:32, :34]
    ax = plot_conductances(programmed, what="target")
    wanted = ax.images[0].cmap(ax.images[0].norm(values), bytes=True)
    assert (np.asarray(image.convert("RGBA"))[..., :3] == wanted[..., :3]).all()


def test_equal_plots_are_equal_bytes_and_text_stays_text():
    first, second = (to_svg(lambda: plot_energy(record_with_costs())) for _ in range(2))
    assert first == second
    assert ">energy of a sequence [nJ]<" in first
    assert "some chip, ADC: 3 nJ, 42.9 %" in titles(first)
    assert "tip: " not in first
