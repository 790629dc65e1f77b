"""Pruned models on chips: every form, cells and conversions counted one by one."""

import dataclasses

import numpy as np
import pytest
from small_models import IDEAL, PCM, random_input, random_model, relative_error

import ssm
from aimc_sim.errors import UsageError
from ssm.deploy import deploy
from ssm.places import on_tiles, row_parts
from ssm.prune import prune

pytestmark = pytest.mark.compiled

MODEL = random_model(3, n_heads=6, n_modes=5, real_share=0.3)
PRUNED = {
    "balanced": prune(MODEL, 0.5),
    "last": prune(MODEL, 0.4, method="last"),
    "heads": prune(MODEL, 0.6, heads=0.5),
}
FORMS = [("digital", "tile"), ("direct", "tile"), ("delta", "tile"), ("leapfrog", "tile"),
         ("leapfrog", "digital")]
# tiles so small that columns of C and rows of mixing are cut
SMALL = IDEAL.replace(**{"tile.rows": 4, "tile.cols": 8})
# whole tiles driven at once, with currents through idle cells
DRIVEN = {f"{kind}.{name}": value for kind in ("tile", "short_tile")
          for name, value in (("idle", "g_min"), ("drive", "parallel"))}
X = random_input(0, 3, 40)


def expected_counts(model, form, decay):
    """Return cells and conversions a step, counted head by head."""
    n_heads, n_mix = model.n_heads, model.layers[0].mix_weight.shape[1]
    cells = 2 * (model.encoder_weight.size + model.decoder_weight.size)
    conversions, products = n_heads, 0
    a = {"digital": ((0, 0), (0, 0)), "direct": ((8, 2), (2, 1)), "delta": ((8, 2), (2, 1)),
         "leapfrog": ((4, 4), (1, 1)) if decay == "tile" else ((2, 2), (0, 0))}[form]
    for layer in model.layers:
        pairs, alone = (layer.mode_weight == 2).sum(), (layer.mode_weight == 1).sum()
        cells += pairs * a[0][0] + alone * a[1][0]
        products += pairs * a[0][1] + alone * a[1][1]
        states = layer.mode_weight.sum(axis=1)
        columns = (states > 0) | (layer.skip != 0)
        cells += 2 * int(states.sum() + columns.sum())
        conversions += int(columns.sum()) + n_mix
        cells += 2 * n_mix * int((columns | (layer.mix_weight != 0).any(axis=1)).sum())
    return int(cells), int(conversions + products), int(products)


@pytest.mark.parametrize(("form", "decay"), FORMS)
@pytest.mark.parametrize("name", PRUNED)
def test_an_ideal_chip_answers_as_the_pruned_model_does(name, form, decay):
    model = PRUNED[name]
    reference = model.logits(X)
    for spec in (IDEAL, SMALL):
        found = deploy(model, spec, form, decay=decay).program().infer(X)
        assert relative_error(found.logits, reference) < 1e-4


@pytest.mark.parametrize(("form", "decay"), FORMS)
@pytest.mark.parametrize("name", PRUNED)
def test_cells_and_conversions_are_those_of_states_that_are_there(name, form, decay):
    model = PRUNED[name]
    deployment = deploy(model, IDEAL, form, decay=decay)
    cells, per_step, products = expected_counts(model, form, decay)
    assert deployment.layout.n_used() == deployment.layout.n_cells == cells
    assert deployment.conversions() == {
        "per_step": per_step, "at_end": 3, "state_products": products
    }
    assert deployment.n_modes == sum((layer.mode_weight > 0).sum() for layer in model.layers)
    cell = deployment.weights.plus[deployment.weights.plus >= 0]
    minus = deployment.weights.minus[deployment.weights.minus >= 0]
    np.testing.assert_array_equal(np.sort([*cell, *minus]), np.arange(cells))


def test_a_layer_of_real_poles_alone_needs_one_cell_a_state_in_leapfrog_form():
    model = random_model(5, n_heads=4, n_modes=3, real_share=1.0)
    deployment = deploy(model, IDEAL, "leapfrog")
    assert deployment.layout.array("layer 0 real A").n_cells == 12
    assert "layer 0 pairs A" not in [row[0] for row in deployment.placements()]
    found = deployment.program().infer(X)
    assert relative_error(found.logits, model.logits(X)) < 1e-4


@pytest.mark.parametrize("form", ["delta", "leapfrog"])
def test_steps_one_by_one_give_what_the_whole_sequence_gives(form):
    programmed = deploy(PRUNED["balanced"], PCM, form).program(seed=3)
    run = programmed.infer(X)
    state = None
    for step in range(X.shape[1]):
        y, state = programmed.step(X[:, step], state)
    np.testing.assert_array_equal(y, run.logits)
    assert (programmed.unstable_modes() >= 0).all()


def test_a_programmed_chip_of_a_pruned_model_is_the_same_after_a_file(tmp_path):
    programmed = deploy(PRUNED["balanced"], PCM, "leapfrog").program(seed=4).wait("1h")
    programmed.save(tmp_path / "chip.npz")
    again = ssm.load_chip(tmp_path / "chip.npz")
    np.testing.assert_array_equal(again.infer(X).logits, programmed.infer(X).logits)


def test_weights_without_cells_never_move():
    deployment = deploy(PRUNED["balanced"], PCM, "leapfrog")
    programmed = deployment.program(seed=1).wait("1d")
    none = deployment.weights.plus[0] < 0
    found = programmed._static_weights(0, programmed._corrections()[0].gain)
    np.testing.assert_array_equal(found[none], deployment.weights.exact[none])
    assert (found[~none] != deployment.weights.exact[~none]).mean() > 0.5


@pytest.mark.parametrize("compensation", ["global", "column", "affine"])
def test_compensation_of_a_pruned_model_serves_columns_that_have_cells(compensation):
    spec = PCM.replace(compensation=compensation)
    programmed = deploy(PRUNED["balanced"], spec, "leapfrog").program(seed=2).wait("1d")
    programmed.infer(X)
    gain = programmed._corrections()[0].gain
    none = programmed.deployment.weights.plus[0] < 0
    if compensation != "global":
        assert (gain[none] == 1).all()
    assert np.median(gain[~none]) == pytest.approx(0.65, abs=0.2)  # a day of drift


def test_rows_are_summed_on_one_tile_where_those_that_are_there_fit():
    rows = np.array([[1, 1, 0, 0, 1, 0], [1, 0, 1, 0, 0, 1]], bool)
    assert row_parts(rows, 3) == [(0, 6)]
    assert row_parts(rows, 2) == [(0, 2), (2, 4), (4, 6)]


def test_heads_of_other_sizes_cannot_be_driven_together():
    for change in ({"layout": "head"}, DRIVEN):
        with pytest.raises(UsageError, match="They keep different numbers of modes"):
            deploy(PRUNED["last"], IDEAL.replace(**change), "leapfrog")
        even = prune(random_model(4, n_modes=6), 0.5, method="hinf")
        found = deploy(even, IDEAL.replace(**change), "leapfrog").program().infer(X)
        assert relative_error(found.logits, even.logits(X)) < 1e-4


def test_a_model_without_pruning_lies_as_it_always_did():
    model = random_model(1)
    deployment = deploy(model, IDEAL, "leapfrog")
    assert all(part.places is None for part in on_tiles([], model, IDEAL))
    names = [row[0] for row in deployment.placements()]
    assert names[:4] == ["encoder", "layer 0 A", "layer 0 C", "layer 0 mixing"]
    assert set(deployment.blocks_per_head()) == {f"layer {k} {x}" for k in (0, 1) for x in "AC"}


def test_an_empty_place_adds_nothing_to_the_budget_and_lies_between_no_rows():
    """Two deployments of one model: converters of 6 bits are all that errs, and err alike."""
    from ssm.budget import network_parts, signal_budget
    from ssm.wiring import wire

    model = random_model(5, n_heads=4, n_modes=3)
    wider = model.replace(layers=tuple(
        dataclasses.replace(layer, **{
            name: np.pad(getattr(layer, name), ((0, 0), (0, 1)))
            for name in ("pole", "drive", "readout", "mode_weight")
        })
        for layer in model.layers
    ))
    chip = IDEAL.replace(**{"adc.bits": 6, "dac.bits": 8})
    even, uneven = (deploy(each, chip, calibrate=X) for each in (model, wider))
    found = [signal_budget(d, X) for d in (even, uneven)]
    for old, new in zip(found[0].shares, found[1].shares, strict=True):
        assert (new.layer, new.cause) == (old.layer, old.cause)
        assert new.signal_rms == pytest.approx(old.signal_rms, rel=1e-5)
        assert new.relative_rms == pytest.approx(old.relative_rms, rel=0.02)
    names = [[part.name for part in network_parts(d.network)] for d in (even, uneven)]
    assert names[0] == names[1]
    counts = []
    for d in (even, uneven):
        wiring, there = wire(d.network, d.converters), d.weights.plus[0] >= 0
        assert (wiring.row[there] >= 0).all() and (wiring.column[there] >= 0).all()
        counts.append((np.unique(wiring.row[there]).size, np.unique(wiring.column[there]).size))
    assert counts[0] == counts[1]
