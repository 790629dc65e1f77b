"""What pruned models cost: what is not there has no cell, conversion, state, weight or product."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from small_models import random_input, random_model

import aimc_sim as aimc
from ssm.baseline import cost_digital, digital_twins, judge
from ssm.complexity import macs_per_step, measure, stored_bits, weight_counts
from ssm.costs import cost_inference
from ssm.deploy import deploy
from ssm.drives import measured_drives
from ssm.model import Model
from ssm.prune import prune
from ssm.quantize import Precision, quantize

CHIP = aimc.ChipSpec.preset("ideal").replace(state_bits=16, **{"adc.bits": 8, "dac.bits": 8})
# tiles so small that columns of C and rows of mixing are cut
SMALL = CHIP.replace(**{"tile.rows": 4, "tile.cols": 8})
MODEL = random_model(3, n_heads=6, n_modes=5, real_share=0.3)
PRUNED = {
    "balanced": prune(MODEL, 0.5),
    "last": prune(MODEL, 0.4, method="last"),
    "heads": prune(MODEL, 0.6, heads=0.5),
}
FORMS = [("leapfrog", "tile"), ("leapfrog", "digital"), ("delta", "tile"), ("direct", "tile"),
         ("digital", "tile")]
# ADC and DAC events of A in a step: of a pair, of a real pole
OF_A = {
    ("leapfrog", "tile"): ((4, 3), (1, 1)), ("leapfrog", "digital"): ((2, 2), (0, 0)),
    ("delta", "tile"): ((2, 2), (1, 1)), ("direct", "tile"): ((2, 2), (1, 1)),
    ("digital", "tile"): ((0, 0), (0, 0)),
}
X = random_input(0, 3, 40)


def count(layer):
    """Return pairs, real poles, columns of C and rows of mixing of a layer, one by one."""
    pairs = alone = columns = rows = 0
    for head in range(len(layer.skip)):
        own = [int(weight) for weight in layer.mode_weight[head]]
        pairs, alone = pairs + own.count(2), alone + own.count(1)
        column = any(own) or layer.skip[head] != 0
        columns += column
        rows += column or any(layer.mix_weight[head])
    return pairs, alone, columns, rows


def padded(model: Model) -> Model:
    """Return the same model with an empty place in front of every head's modes and behind."""
    def wider(layer):
        arrays = {name: np.pad(getattr(layer, name), ((0, 0), (1, 1)))
                  for name in ("pole", "drive", "readout", "mode_weight")}
        return dataclasses.replace(layer, **arrays)

    return model.replace(layers=tuple(wider(layer) for layer in model.layers))


@pytest.mark.parametrize("name", PRUNED)
def test_sizes_of_a_pruned_model_are_the_sums_over_its_own_modes(name):
    model = PRUNED[name]
    counts = [count(layer) for layer in model.layers]
    pairs, alone, columns, rows = (sum(each) for each in zip(*counts, strict=True))
    n_mix = model.layers[0].mix_weight.shape[1]
    states = 2 * pairs + alone
    assert states < MODEL.n_states
    found = weight_counts(model)
    assert (found["a"], found["c"], found["d"]) == (states, states, columns)
    assert found["mix"] == rows * n_mix
    assert macs_per_step(model) == {
        "a": 4 * pairs + alone, "c": states, "d": columns, "mix": rows * n_mix,
        "enc": model.n_heads,
    }
    assert measure(model)["state_bits"] == 32 * states


@pytest.mark.parametrize(("form", "decay"), FORMS)
@pytest.mark.parametrize("name", PRUNED)
def test_conversions_and_drives_are_those_of_modes_that_are_there(name, form, decay):
    free = {f"costs.{key}": 0.0 for key in (
        "adc_leak", "line_f_per_m", "add_j_per_bit", "multiply_j_per_bit2", "shift_j_per_bit",
        "buffer_j_per_bit", "state_j_per_bit", "weight_j_per_bit",
    )}
    model = PRUNED[name]
    chip = CHIP.replace(**free, **{"costs.adc_j": 1e-9, "costs.dac_j": 1e-12})
    d = deploy(model, chip, form, decay=decay, calibrate=X)
    costs = cost_inference(d, 5).costs.times(1e9)  # in nJ
    found = costs.by("layer", "part", "kind")
    for k, layer in enumerate(model.layers):
        pairs, alone, columns, rows = count(layer)
        of_pair, of_real = OF_A[form, decay]
        adc, dac = (pairs * a + alone * b for a, b in zip(of_pair, of_real, strict=True))
        assert found.get(f"layer {k} A ADC", 0.0) == pytest.approx(5 * adc)
        assert found.get(f"layer {k} A DAC", 0.0) == pytest.approx(5e-3 * dac)
        assert found[f"layer {k} C ADC"] == pytest.approx(5 * columns)
        assert found[f"layer {k} C DAC"] == pytest.approx(5e-3 * (2 * pairs + alone + columns))
        assert found[f"layer {k} mixing ADC"] == pytest.approx(5 * layer.mix_weight.shape[1])
        assert found[f"layer {k} mixing DAC"] == pytest.approx(5e-3 * rows)
    events = d.conversions()
    adc_nj = costs.by("kind")["ADC"]
    assert adc_nj == pytest.approx(5 * events["per_step"] + events["at_end"])


@pytest.mark.parametrize(("form", "decay"), FORMS)
@pytest.mark.parametrize("spec", [CHIP, SMALL], ids=["whole", "cut"])
def test_an_empty_place_costs_nothing_at_all(spec, form, decay):
    """Energy by part, time, area and memory to the last bit but those of sums."""
    model = random_model(5, n_heads=4, n_modes=3)
    even, uneven = (
        deploy(each, spec, form, decay=decay, calibrate=X) for each in (model, padded(model))
    )
    if spec is CHIP:
        before, after = (
            cost_inference(d, 7, drives=measured_drives(d)) for d in (even, uneven)
        )
        keys = ("layer", "part", "kind")
        assert after.costs.by(*keys) == pytest.approx(before.costs.by(*keys), rel=1e-9)
        assert after.costs.latency_s == pytest.approx(before.costs.latency_s, rel=1e-9)
        assert after.area_m2 == pytest.approx(before.area_m2, rel=1e-9)
        verdicts = [judge(d, cost_inference(d, 7), 7) for d in (even, uneven)]
        assert verdicts[1].digital_j == verdicts[0].digital_j
        assert verdicts[1].analog_j == pytest.approx(verdicts[0].analog_j, rel=1e-9)
        assert stored_bits(uneven) == stored_bits(even)
    else:
        # cut columns are cut elsewhere: what the cells draw is the same, sums of parts are not
        before, after = (cost_inference(d, 7) for d in (even, uneven))
        assert after.costs.by("kind")["DAC"] == pytest.approx(before.costs.by("kind")["DAC"])
    assert measure(padded(model)) == measure(model)
    assert digital_twins(uneven, 7) == digital_twins(even, 7)


@pytest.mark.parametrize("name", PRUNED)
@pytest.mark.parametrize("form", ["leapfrog", "delta"])
def test_cells_of_a_pruned_model_draw_what_they_draw_one_by_one(form, name):
    """V^2 g t / 3 of every cell on every driven line, in plain loops over the whole chip."""
    d = deploy(PRUNED[name], SMALL, form, calibrate=X)
    g_s = np.random.default_rng(3).uniform(1e-6, 5e-5, d.layout.n_cells)
    tile, element = d.layout.addresses
    cols = np.array([SMALL.tile.cols if kind == "tile" else SMALL.short_tile.cols
                     for kind in d.layout.tile_kinds])
    row = element // cols[tile]
    expected = 0.0
    for array in d.layout.arrays:
        here = slice(array.first, array.first + array.n_cells)
        lines = set()
        for k, (t, r) in enumerate(zip(tile[here], row[here], strict=True)):
            _, group, within, _ = np.unravel_index(k, array.tile.shape)
            lines.add((group, within, t, r))
        steps = 1 if array.request.name == "decoder" else 7
        for _, within, t, r in sorted(lines):
            # q, and in leapfrog form q twice: before and after the products of p
            times = 2 if form == "leapfrog" and array.request.name.endswith("pairs A") and (
                within % 2) else 1
            expected += steps * times * g_s[(tile == t) & (row == r)].sum() / 3
    found = cost_inference(d, 7, g_s=g_s)
    v, t = found.constants["read_v"].value, found.constants["read_s"].value
    assert found.costs.by("kind")["cells"] == pytest.approx(v**2 * t * expected, rel=1e-9)


@pytest.mark.parametrize("name", PRUNED)
def test_states_and_weights_in_logic_are_those_that_are_there(name):
    model = PRUNED[name]
    d = deploy(model, CHIP, "digital", calibrate=X, digital=("readout", "mixing"))
    counts = [count(layer) for layer in model.layers]
    pairs, alone, columns, rows = (sum(each) for each in zip(*counts, strict=True))
    n_mix = model.layers[0].mix_weight.shape[1]
    bits = stored_bits(d)
    assert bits["state"] == 16 * (2 * pairs + alone)
    assert bits["digital weights"] == 8 * (2 * (2 * pairs + alone) + columns + rows * n_mix)
    assert bits["scales"] == 16 * (model.n_heads + model.n_classes)
    one = deploy(model, CHIP, "leapfrog", decay="digital", calibrate=X)
    assert stored_bits(one)["digital weights"] == 8 * (pairs + alone)


@pytest.mark.parametrize("name", PRUNED)
def test_the_digital_twin_of_a_pruned_model_is_counted_by_hand(name):
    only = {f"costs.{key}": 0.0 for key in (
        "add_j_per_bit", "multiply_j_per_bit2", "float_add_j", "buffer_j_per_bit",
        "state_j_per_bit", "weight_j_per_bit",
    )}
    model = PRUNED[name]
    d = deploy(model, CHIP.replace(**only, **{"costs.float_multiply_j": 1e-9}), calibrate=X)
    heads, n_mix, expected = model.n_heads, model.layers[0].mix_weight.shape[1], 0
    for layer in model.layers:
        pairs, alone, columns, rows = count(layer)
        expected += 4 * pairs + alone + 2 * pairs + alone + columns + rows * n_mix
        expected += heads * (1 + 2 + 3)
    expected = 10 * (heads + expected) + heads * model.n_classes
    assert 1e9 * cost_digital(d, 10, "fp32").energy_j == pytest.approx(expected)


def test_b_takes_bits_where_it_is_not_folded_into_c():
    ones = tuple(
        dataclasses.replace(layer, drive=(layer.mode_weight > 0).astype(complex))
        for layer in PRUNED["balanced"].layers
    )
    folded = PRUNED["balanced"].replace(layers=ones)
    bits = Precision(a=8, b=8, c=8)
    apart, together = (quantize(model, bits) for model in (PRUNED["balanced"], folded))
    assert weight_counts(apart)["b"] == weight_counts(apart)["a"] > 0
    assert weight_counts(together)["b"] == 0
    heads = sum(int((layer.mode_weight > 0).any(axis=1).sum()) for layer in ones)
    saved = measure(apart)["memory_bits"] - measure(together)["memory_bits"]
    assert saved == 8 * apart.n_states + 16 * heads
