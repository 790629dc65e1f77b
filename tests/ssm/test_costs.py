"""What a deployed model costs: counts by hand, cells one by one, and its digital twin."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import random_model

import aimc_sim as aimc
from aimc_sim.costs import leak_w
from aimc_sim.errors import InputError, UsageError
from aimc_sim.lines import outputs
from ssm.baseline import Verdict, cost_digital, digital_twins, judge
from ssm.complexity import macs_per_step, measure, stored_bits, weight_counts
from ssm.costs import cost_idle, cost_inference
from ssm.deploy import deploy
from ssm.drives import access_rows, even_drives, measured_drives
from ssm.prune import prune
from ssm.quantize import Precision, quantize

CHIP = aimc.ChipSpec.preset("ideal").replace(state_bits=16, **{"adc.bits": 8, "dac.bits": 8})
MODEL = random_model(seed=1, n_heads=4, n_modes=3)
ONE_STEP = np.ones((1, 1, 1), np.float32)
FORMS = [("leapfrog", "tile"), ("leapfrog", "digital"), ("delta", "tile"), ("direct", "tile"),
         ("digital", "tile")]


def put(spec=CHIP, form="leapfrog", decay="tile", model=MODEL, **options):
    options.setdefault("calibrate", ONE_STEP)
    return deploy(model, spec, form, decay=decay, **options)


@pytest.mark.parametrize(("form", "decay"), FORMS)
def test_conversions_and_drives_are_those_counted_by_hand(form, decay):
    """12 modes and 4 heads a layer, 8 mixing columns; nothing else costs here. In nJ."""
    free = {f"costs.{name}": 0.0 for name in (
        "adc_leak", "line_f_per_m", "add_j_per_bit", "multiply_j_per_bit2", "shift_j_per_bit",
        "buffer_j_per_bit", "state_j_per_bit", "weight_j_per_bit",
    )}
    d = put(CHIP.replace(**free, **{"costs.adc_j": 1e-9, "costs.dac_j": 1e-12}), form, decay)
    costs = cost_inference(d, 5).costs.times(1e9)
    found = costs.by("layer", "part", "kind")
    converted = {"leapfrog": 4, "delta": 2, "direct": 2, "digital": 0}[form]
    driven = {"leapfrog": 3, "delta": 2, "direct": 2, "digital": 0}[form]
    if decay == "digital":
        converted, driven = 2, 2
    for layer in ("layer 0", "layer 1"):
        assert found.get(f"{layer} A ADC", 0.0) == pytest.approx(5 * 12 * converted)
        assert found.get(f"{layer} A DAC", 0.0) == pytest.approx(5e-3 * 12 * driven)
        assert found[f"{layer} C ADC"] == pytest.approx(5 * 4)
        assert found[f"{layer} C DAC"] == pytest.approx(5e-3 * (24 + 4))
        assert found[f"{layer} mixing ADC"] == pytest.approx(5 * 8)
        assert found[f"{layer} mixing DAC"] == pytest.approx(5e-3 * 4)
    assert found["encoder ADC"] == pytest.approx(5 * 4)
    assert found["decoder ADC"] == pytest.approx(3)
    events = d.conversions()
    adc_nj = costs.by("kind")["ADC"]
    assert adc_nj == pytest.approx(5 * events["per_step"] + events["at_end"])


@pytest.mark.parametrize("layout", ["packed", "head"])
@pytest.mark.parametrize("form", ["leapfrog", "delta"])
def test_cells_draw_what_they_draw_one_by_one(form, layout):
    """V^2 g t of every cell on every driven line, in plain loops over the whole chip."""
    d = put(CHIP.replace(layout=layout, **{"tile.rows": 16, "tile.cols": 16}), form)
    rng = np.random.default_rng(3)
    g_s = rng.uniform(1e-6, 5e-5, d.layout.n_cells)
    drives = even_drives(d)
    tile, element = d.layout.addresses
    kinds = d.layout.tile_kinds
    cols = np.array([16 if kind == "tile" else CHIP.short_tile.cols for kind in kinds])
    row = element // cols[tile]
    expected = 0.0
    for array in d.layout.arrays:
        steps = 0 if array.request.name == "decoder" else 7
        accesses = [None]
        if array.request.name.endswith(" A"):
            accesses = access_rows(d.form, d.decay)
        for rows in accesses:
            n_groups, n_rows = array.tile.shape[1:3]
            for group in range(n_groups):
                for r in range(n_rows):
                    if rows is not None and r % 2 not in rows:
                        continue
                    lines = {
                        (t, e // cols[t]) for t, e in
                        zip(array.tile[0, group, r], array.element[0, group, r], strict=True)
                    }
                    for t, line in lines:
                        on_it = (tile == t) & (row == line)
                        expected += (steps or 1) / 3 * 0.2**2 * 100e-9 * g_s[on_it].sum()
    found = cost_inference(d, 7, drives=drives, g_s=g_s).costs.by("kind")["cells"]
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.compiled
@pytest.mark.parametrize("form", ["leapfrog", "delta"])
def test_measured_drives_are_those_of_the_states_that_the_kernel_runs_through(form):
    x = np.random.default_rng(0).random((3, 40, 1)).astype(np.float32)
    d = put(CHIP, form, calibrate=x)
    drives = measured_drives(d)
    exact = put(aimc.ChipSpec.preset("ideal"), form, calibrate=x)
    states = exact.program(seed=0).infer(x, return_states=True).states[0]  # (n, time, 2, K)
    full = d.converters.state_step.reshape(2, -1) * d.converters.state_dac_limit
    share = np.minimum(np.abs(states) / full, 1) ** 2
    found = np.concatenate(drives.states, axis=1)
    assert found == pytest.approx(share.mean(axis=(0, 1)), rel=2e-3, abs=1e-6)
    # the first access drives the states that the step before left
    before = np.concatenate([0 * share[:, :1], share[:, :-1]], axis=1).mean(axis=(0, 1))
    accesses = np.concatenate(drives.accesses, axis=2)
    assert accesses[1, 0] == pytest.approx(before[1], rel=2e-3, abs=1e-6)
    assert "3 calibration sequences of 40 steps" in drives.source


def test_what_decides_a_drive_is_how_the_dac_drives():
    assert even_drives(put()).inputs == pytest.approx(1 / 3)
    assert even_drives(put()).accesses[0][0, 0] == pytest.approx(0)  # p rests while q is driven
    assert even_drives(put()).accesses[0][1, 0] == pytest.approx(1 / 3)


def test_a_pulse_of_any_width_charges_its_line_to_the_full_voltage():
    """V^2 of full scale, where amplitudes spread evenly over the range have a third of it."""
    pulses, volts = (
        cost_inference(put(CHIP.replace(**{"dac.mode": mode})), 3).costs.by("kind")
        for mode in ("pulse_width", "amplitude")
    )
    assert pulses["lines"] == pytest.approx(3 * volts["lines"])
    assert pulses["cells"] == pytest.approx(1.5 * volts["cells"])  # 1/2 and 1/3


def test_bit_serial_inputs_drive_and_convert_once_a_bit():
    """Seven bits of magnitude: every plane is a drive and a conversion, for as long."""
    spec = CHIP.replace(**{"costs.adc_leak": 0.0, "costs.dac_j": 1e-12})
    serial = put(spec.replace(**{"dac.mode": "bit_serial"}))
    whole, planes = (cost_inference(d, 3) for d in (put(spec), serial))
    for kind in ("ADC", "DAC"):
        ratio = planes.costs.by("kind")[kind] / whole.costs.by("kind")[kind]
        assert ratio == pytest.approx(7)
    assert planes.costs.latency_s == pytest.approx(7 * whole.costs.latency_s)


def test_shared_adcs_take_longer_where_they_are_slow():
    """Eight bit lines an ADC: four pairs of a matrix in turn, at 10 million a second."""
    slow = CHIP.replace(**{"costs.adc_hz": 1e7, "costs.pipeline": False})
    apart, shared = (
        cost_inference(put(slow.replace(**{"adc.columns_per_adc": n})), 1) for n in (1, 8)
    )
    assert shared.step_s > apart.step_s
    assert shared.area_m2["ADC"] < apart.area_m2["ADC"]


@pytest.mark.compiled
def test_cells_behind_wires_draw_less():
    x = np.random.default_rng(0).random((2, 6, 1)).astype(np.float32)
    drawn = []
    for ohm in (None, 1e-6, 100.0):
        wires = None if ohm is None else {"r_wl_ohm": ohm, "r_bl_ohm": ohm}
        run = put(CHIP.replace(wires=wires), calibrate=x).program(seed=0).infer(x)
        drawn.append(run.costs.by("kind")["cells"])
    assert drawn[1] == pytest.approx(drawn[0], rel=1e-5)
    assert 0 < drawn[2] < 0.999 * drawn[0]


@settings(max_examples=25)
@given(
    form=st.sampled_from(FORMS), n_steps=st.integers(1, 500), batch=st.integers(1, 50),
    n_heads=st.integers(1, 5), n_modes=st.integers(1, 5),
)
def test_energy_is_the_sum_of_its_parts_and_a_batch_of_two_costs_twice_as_much(
    form, n_steps, batch, n_heads, n_modes
):
    model = random_model(seed=2, n_heads=n_heads, n_modes=n_modes)
    found = cost_inference(put(CHIP, *form, model=model), n_steps).costs
    assert found.energy_j == math.fsum(entry.energy_j for entry in found.entries)
    for names in (("kind",), ("layer",), ("part",), ("layer", "part", "kind")):
        assert sum(found.by(*names).values()) == pytest.approx(found.energy_j, rel=1e-12)
    assert found.times(2).energy_j == 2 * found.energy_j
    assert found.times(2 * batch).energy_j == 2 * found.times(batch).energy_j
    assert found.times(2).latency_s == 2 * found.latency_s
    assert all(entry.energy_j > 0 for entry in found.entries)


def test_an_idle_chip_costs_leakage_alone():
    d = put(CHIP.replace(**{"costs.leak_w": 1e-3}))
    idle = cost_idle(d, 2.0)
    assert set(idle.by("kind")) == {"leakage"}
    assert idle.by("part")["chip"] == pytest.approx(2e-3)
    assert idle.energy_j == pytest.approx(cost_idle(d, 1.0).energy_j * 2)
    busy = cost_inference(d, 10).costs
    assert busy.by("kind")["leakage"] == pytest.approx(cost_idle(d, busy.latency_s).energy_j)


@pytest.mark.parametrize("pruned", [False, True])
@pytest.mark.parametrize("layout", ["packed", "head"])
def test_leakage_of_a_tile_is_shared_by_the_cells_of_its_arrays(layout, pruned):
    """One ADC for every output of a tile's widest access: counted here from the rectangles."""
    model = random_model(seed=3)
    if pruned:
        model = prune(model, 0.5, method="hinf", scope="head")
    d = put(CHIP.replace(layout=layout, **{"adc.columns_per_adc": 1}), model=model)
    leak = cost_idle(d, 1.0)
    cells = {}
    for rectangle in d.layout.rectangles:
        own = cells.setdefault(rectangle.tile, {})
        own[rectangle.array] = own.get(rectangle.array, 0) + rectangle.used
    assert sum(sum(own.values()) for own in cells.values()) == d.layout.n_used()
    found = leak.by("layer", "part")
    used = cost_inference(d, 1).constants
    each_w = leak_w(used, 1)
    # what a tile leaks is a whole number of ADCs, and its arrays share it as they share its cells
    expected = dict.fromkeys(found, 0.0)
    for tile, own in cells.items():
        n_adcs = max(
            outputs(d.layout, array,
                    together=layout == "head" and array.request.name[-2:] in (" A", " C"))[tile]
            for array in d.layout.arrays
        )
        for name, n in own.items():
            words = name.split(" ")
            key = name if words[0] != "layer" else f"layer {words[1]} {words[-1]}"
            expected[key] += n_adcs * each_w * n / sum(own.values())
    assert found == pytest.approx(expected, rel=1e-12)


def test_without_leakage_every_further_step_costs_the_same():
    d = put(CHIP.replace(**{"costs.adc_leak": 0.0}))
    energies = [cost_inference(d, n).costs.energy_j for n in (1, 2, 3)]
    assert energies[2] - energies[1] == pytest.approx(energies[1] - energies[0], rel=1e-9)


def test_modes_on_a_short_tile_are_driven_one_after_the_other_and_heads_at_once():
    """12 modes of two layers on one short tile, three accesses of 100 ns each for a mode; a
    conversion ends each round."""
    packed, head = (cost_inference(put(CHIP.replace(layout=name)), 1) for name in
                    ("packed", "head"))
    assert packed.step_s == pytest.approx(2 * 3 * (12 + 1) * 100e-9)  # both layers on it
    assert head.step_s < packed.step_s / 5
    serial = cost_inference(put(CHIP.replace(**{"costs.pipeline": False})), 1)
    assert serial.step_s > packed.step_s
    assert serial.costs.latency_s == pytest.approx(packed.costs.latency_s)


def test_a_pipeline_of_layers_ends_a_long_sequence_sooner():
    spec = CHIP.replace(**{"short_tile.cols": 24})  # a tile a layer
    through, apart = (
        cost_inference(put(spec.replace(**{"costs.pipeline": on})), 1000).costs.latency_s
        for on in (True, False)
    )
    assert through < 0.6 * apart


def test_conductances_and_voltages_decide_what_cells_draw():
    d = put()
    base = cost_inference(d, 3).costs.by("kind")
    more = cost_inference(d, 3, g_s=2 * d.target_s).costs.by("kind")
    assert more["cells"] == pytest.approx(2 * base["cells"])
    assert {k: v for k, v in more.items() if k != "cells"} == {
        k: v for k, v in base.items() if k != "cells"
    }
    higher = cost_inference(put(CHIP.replace(**{"costs.read_v": 0.4})), 3).costs.by("kind")
    assert higher["cells"] == pytest.approx(4 * base["cells"])
    assert higher["lines"] == pytest.approx(4 * base["lines"])


def test_parts_in_logic_cost_memory_instead_of_conversions():
    d = put(digital=("mixing", "readout", "encoder", "decoder"), form="digital")
    kinds = cost_inference(d, 4).costs.by("kind")
    assert set(kinds) == {"logic", "states", "weights"}
    assert d.layout.n_tiles == 0


def test_the_digital_twin_is_counted_by_hand():
    """One MAC less would show: multiplications, additions and weights of 12 modes and 4 heads."""
    only = {f"costs.{name}": 0.0 for name in (
        "add_j_per_bit", "multiply_j_per_bit2", "float_add_j", "buffer_j_per_bit",
        "state_j_per_bit", "weight_j_per_bit",
    )}
    d = put(CHIP.replace(**only, **{"costs.float_multiply_j": 1e-9}))
    layer = 4 * 12 + (24 + 4) + 4 * 8 + 4 * (1 + 2 + 3)
    assert 1e9 * cost_digital(d, 10, "fp32").energy_j == pytest.approx(10 * (4 + 2 * layer) + 12)
    only.pop("costs.multiply_j_per_bit2")
    own = {"costs.multiply_j_per_bit2": 1e-12, "costs.float_multiply_j": 0}
    d = put(CHIP.replace(**only, **own))
    layer = 8 * 16 * (4 * 12 + 28) + 64 * (4 * 8 + 4 * 6)
    found_pj = 1e12 * cost_digital(d, 10, "int8").energy_j
    assert found_pj == pytest.approx(10 * (64 * 4 + 2 * layer) + 768)


@pytest.mark.parametrize(("form", "decay"), FORMS)
def test_the_twin_does_not_depend_on_how_a_was_deployed(form, decay):
    twins = digital_twins(put(form=form, decay=decay), 20)
    assert twins == digital_twins(put(), 20)
    assert 0 < twins["int8"].energy_j < twins["fp32"].energy_j


@pytest.mark.parametrize(("form", "decay"), FORMS)
def test_every_deployment_ends_with_a_verdict_on_a(form, decay):
    d = put(form=form, decay=decay)
    found = cost_inference(d, 20)
    verdict = judge(d, found, 20)
    assert verdict.digital_j == judge(put(), cost_inference(put(), 20), 20).digital_j
    if form != "digital":
        assert verdict.analog_j == pytest.approx(found.costs.by("part")["A"] / 20)
    else:
        assert verdict.digital_j == pytest.approx(
            sum(cost_inference(d, 1).costs.by("part", "kind")[f"A {kind}"]
                for kind in ("logic", "states", "weights"))
        )
    assert "A on tiles" in str(verdict)
    assert "times cheaper" in str(verdict)


@pytest.mark.parametrize("form", ["leapfrog", "digital"])
def test_a_verdict_says_where_drives_are_assumed(form):
    x = np.random.default_rng(2).random((4, 30, 1)).astype(np.float32)
    d = put(form=form, calibrate=x)
    assert "are assumed, not measured" in str(judge(d, cost_inference(d, 30), 30))
    measured = judge(d, cost_inference(d, 30, drives=measured_drives(d)), 30)
    assert "assumed" not in str(measured)
    on_tiles = put(calibrate=x)
    wanted = cost_inference(on_tiles, 30, drives=measured_drives(on_tiles)).costs.by("part")["A"]
    assert measured.analog_j == pytest.approx(wanted / 30, rel=1e-12)


def test_a_verdict_names_the_cheaper_one():
    dear = put(CHIP.replace(**{"costs.multiply_j_per_bit2": 2e-11}))
    assert "A on tiles is" in str(judge(dear, cost_inference(dear, 5), 5))
    assert "digital A is" in str(judge(put(), cost_inference(put(), 5), 5))


def test_poles_in_logic_are_priced_by_the_memory_that_they_fill():
    """16,384 numbers of 8 bits take 16 KB: twice the smallest memory, whatever form A has."""
    model = random_model(seed=3, n_heads=64, n_modes=64)
    forms = [put(model=model, form=form, decay=decay) for form, decay in
             (("leapfrog", "tile"), ("leapfrog", "digital"), ("digital", "tile"))]
    found = [judge(d, cost_inference(d, 2), 2).digital_j for d in forms]
    assert found == [found[2]] * 3
    used = cost_inference(forms[2], 2).constants
    assert "SRAM of 16 KB" in used["weight_j_per_bit"].source
    own = cost_inference(forms[2], 2).costs.by("part", "kind")
    assert found[2] == pytest.approx(
        sum(own[f"A {kind}"] for kind in ("logic", "states", "weights")) / 2
    )


def test_a_verdict_is_written_without_exponents():
    assert str(Verdict(2.5e-6, 1e-8, "delta", 8, 16)).endswith(
        "costs 2.5 uJ a step, digital A (8-bit poles, 16-bit states) costs 10 nJ a step: "
        "digital A is 250 times cheaper"
    )
    assert str(Verdict(0.0, 1e-8, "delta", 8, 16)).endswith("A on tiles is inf times cheaper")
    assert str(Verdict(1.4e-8, 1e-8, "delta", 8, 16)).endswith("digital A is 1.4 times cheaper")


def test_decay_in_logic_reads_one_number_a_mode_from_memory():
    """24 modes of 8 bits a step, and nothing of A where all of it lies on tiles."""
    chip = CHIP.replace(**{"costs.weight_j_per_bit": 1e-12})
    found = cost_inference(put(chip, decay="digital"), 5).costs.by("kind")
    assert found["weights"] == pytest.approx(5 * 24 * 8e-12, rel=1e-12)
    assert "weights" not in cost_inference(put(chip), 5).costs.by("kind")


def test_a_verdict_says_why_a_does_not_go_onto_tiles():
    d = put(CHIP.replace(max_tiles=1), "digital")
    verdict = judge(d, cost_inference(d, 5), 5)
    assert verdict.analog_j is None
    assert "A does not go onto tiles" in str(verdict)


def test_costs_that_cannot_be_known_are_refused():
    with pytest.raises(InputError, match="ideal converter"):
        cost_inference(put(aimc.ChipSpec.preset("ideal")), 5)
    with pytest.raises(UsageError, match="at least one"):
        cost_inference(put(), 0)


def test_complexity_is_counted_by_hand():
    counts = weight_counts(MODEL)
    assert counts == {"a": 48, "b": 48, "c": 48, "d": 8, "mix": 64, "enc": 4, "dec": 12}
    assert macs_per_step(MODEL) == {"a": 96, "c": 48, "d": 8, "mix": 64, "enc": 4}
    floats = measure(MODEL)
    assert floats["macs_per_step"] == 220
    assert floats["bops_per_step"] == 220 * 32 * 32
    assert floats["memory_bits"] == 32 * (floats["parameters"] + floats["states"])
    q = quantize(MODEL, Precision(a=8, c=4, mix=4, enc=4, d=4, dec=4, b=4, state=8, act=6))
    small = measure(q)
    assert small["bops_per_step"] == 96 * 8 * 8 + 48 * 4 * 8 + (8 + 64 + 4) * 4 * 6
    assert small["state_bits"] == 48 * 8
    assert small["memory_bits"] < floats["memory_bits"] / 2


def test_real_poles_count_once():
    model = random_model(seed=4, real_share=1.0)
    assert weight_counts(model)["a"] == model.n_states == 24
    assert macs_per_step(model)["a"] == 24


def test_states_and_scales_are_stored_beside_the_tiles():
    bits = stored_bits(put())
    assert bits["state"] == 2 * 24 * 16
    assert bits["digital weights"] == 0
    assert bits["scales"] == 16 * (4 + 2 * (48 + 4 + 8) + 3)
    assert stored_bits(put(form="digital"))["digital weights"] == 2 * 24 * 8
