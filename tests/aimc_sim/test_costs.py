"""Prices of converters, logic, memory and lines, and what they add up to."""

from __future__ import annotations

import math

import pytest

import aimc_sim as aimc
from aimc_sim import circuits, costs
from aimc_sim.costs import Costs, Entry, Events
from aimc_sim.errors import InputError, UsageError


def chip(**changes):
    """The ideal device behind 8-bit converters."""
    return aimc.ChipSpec.preset("ideal").replace(**{"adc.bits": 8, "dac.bits": 8, **changes})


@pytest.mark.parametrize(
    ("node_nm", "bits", "energy_pj", "area_um2"),
    [(65, 8, 6.494, 11862), (45, 6, 2.022, 5807), (28, 8, 1.333, 3200), (14, 8, 0.3622, 1089)],
)
def test_the_adc_regression_gives_its_check_values(node_nm, bits, energy_pj, area_um2):
    assert 1e12 * costs.adc_energy_j(bits, 100e6, node_nm) == pytest.approx(energy_pj, rel=1e-3)
    assert 1e12 * costs.adc_area_m2(bits, 100e6, node_nm) == pytest.approx(area_um2, rel=1e-3)


def test_the_adc_regression_reaches_180_nm():
    assert 1e12 * costs.adc_energy_j(8, 100e6, 180) == pytest.approx(44.1, rel=1e-3)


def test_slow_adcs_cost_alike_and_fast_ones_more():
    slow = costs.adc_energy_j(8, 1e6, 65)
    assert costs.adc_energy_j(8, 100e6, 65) == slow
    assert costs.adc_energy_j(8, 20e9, 65) > 1.5 * slow


@pytest.mark.parametrize("call", [costs.adc_energy_j, costs.adc_area_m2])
def test_adcs_below_4_bits_are_refused_with_what_to_use_instead(call):
    with pytest.raises(InputError, match=r"3 effective bits.*from 4 bits on.*adc_j.*0\.226 pJ"):
        call(3, 100e6, 45)
    with pytest.raises(UsageError, match="positive rate"):
        call(8, 0.0, 45)


def test_a_chip_of_coarse_adcs_needs_their_figures_and_takes_them():
    coarse = chip(**{"adc.bits": 3})
    with pytest.raises(InputError, match="adc_j and adc_area_m2"):
        costs.constants(coarse)
    with pytest.raises(InputError, match="adc_j and adc_area_m2"):
        costs.constants(coarse.replace(**{"costs.adc_j": 0.2e-12}))
    given = coarse.replace(**{"costs.adc_j": 0.2e-12, "costs.adc_area_m2": 3e-10})
    assert costs.constants(given)["adc_j"] == (0.2e-12, "J", "the chip's file")
    assert "adc_enob" not in costs.constants(given)
    assert aimc.costs is costs
    better = coarse.replace(**{"costs.adc_enob": 4.0})
    assert costs.constants(better)["adc_j"].value == costs.adc_energy_j(4, 1e7, 45)


def test_an_ideal_converter_has_no_price():
    with pytest.raises(InputError, match=r"ideal converter has no energy.*number of bits"):
        costs.constants(aimc.ChipSpec.preset("ideal"))


def test_nodes_outside_the_table_are_refused_and_extrapolated_only_on_request():
    assert costs.node_factor(45) == 1.0
    assert costs.node_factor(130) == 3.068
    for node in (180, 40, 5):
        with pytest.raises(InputError, match=rf"{node} nm.*table of nodes.*Choose one"):
            costs.node_factor(node)
    with pytest.raises(InputError, match="extrapolate_node"):
        costs.node_factor(180)
    with pytest.raises(InputError, match="table of nodes"):
        costs.node_factor(5, extrapolate=True)
    assert costs.node_factor(180, extrapolate=True) == pytest.approx(3.068 * (180 / 130) ** 3)
    used = costs.constants(chip(**{"costs.node_nm": 180.0, "costs.extrapolate_node": True}))
    assert "EXTRAPOLATED" in used["add_j_per_bit"].source


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"costs.node_nm": 180.0}, r"the table of nodes has 130, .*Choose one.*extrapolate_node"),
        ({"costs.node_nm": 40.0}, r"node_nm is 40.*Choose one of them\."),
        ({"costs.node_nm": 5.0, "costs.extrapolate_node": True}, "node_nm is 5"),
        ({"costs.adc_enob": 3.0}, r"holds from 4 bits on.*Give adc_j and adc_area_m2"),
    ],
)
def test_a_chip_with_costs_outside_their_tables_is_refused(changes, text):
    with pytest.raises(InputError, match=text):
        chip(**changes)


def test_logic_costs_what_horowitz_says_at_his_voltage():
    to_his = (0.9 / 0.8) ** 2
    assert 1e12 * to_his * 8 * circuits.add_j_per_bit(1.0) == pytest.approx(0.03, rel=0.1)
    assert 1e12 * to_his * 64 * circuits.multiply_j_per_bit2(1.0) == pytest.approx(0.2, rel=0.02)
    assert 1e12 * to_his * circuits.float_multiply_j(1.0) == pytest.approx(3.7)
    assert circuits.float_add_j(0.5) == circuits.float_add_j(1.0) / 2


@pytest.mark.parametrize(("size_kb", "picojoule"), [(1, 10), (8, 10), (32, 20), (1024, 100)])
def test_memories_cost_what_horowitz_says_and_never_less_than_8_kb(size_kb, picojoule):
    found = 64e12 * (0.9 / 0.8) ** 2 * circuits.sram_j_per_bit(1024 * size_kb, 1.0)
    assert found == pytest.approx(picojoule)


def test_a_larger_memory_costs_more():
    sizes = [8 * 1024 * 2**k for k in range(10)]
    energies = [circuits.sram_j_per_bit(size, 1.0) for size in sizes]
    assert energies == sorted(energies)
    assert len(set(energies)) == len(energies)


def test_lines_are_as_wide_as_the_tabled_wires_and_between_them_grow_with_the_node():
    assert circuits.line_pitch_m(130) == pytest.approx(350e-9)
    nodes = [5, 7, 10, 14, 16, 22, 28, 32, 45, 65, 90, 130, 180]
    pitches = [circuits.line_pitch_m(node) for node in nodes]
    assert pitches == sorted(pitches)


@pytest.mark.parametrize(
    ("mode", "bits", "picojoule"),
    [("bit_serial", 1, 0.3255), ("amplitude", 8, 8 * 0.3255)],
)
def test_drivers_are_those_of_isaac_at_its_node(mode, bits, picojoule):
    assert 1e12 * circuits.drive_j(mode, bits, costs.node_factor(32)) == pytest.approx(picojoule)


def test_a_pulse_width_driver_is_that_of_timely_at_its_node():
    factor = costs.node_factor(65)
    assert 1e12 * circuits.drive_j("pulse_width", 8, factor) == pytest.approx(0.0375)
    assert 1e12 * circuits.drive_area_m2("pulse_width", 8, 65) == pytest.approx(240)


def test_every_constant_can_be_given_and_then_says_so():
    usual = costs.constants(chip())
    assert all(constant.source for constant in usual.values())
    for name, constant in usual.items():
        changed = 32.0 if name == "node_nm" else constant.value / 2 or 1e-3
        if name in ("logic_bits", "adc_enob"):
            changed = 6
        own = costs.constants(chip(**{f"costs.{name}": changed}))[name]
        assert own.value == changed, name
        assert own.source == "the chip's file", name


def test_an_unknown_constant_is_refused_with_the_nearest_name():
    with pytest.raises(InputError, match=r"costs\.adc_joule.*unknown"):
        aimc.ChipSpec.from_text(
            'schema_version = "aimc-sim.chip/1"\n[device]\nname = "x"\ng_min_s = 0\n'
            "g_max_s = 1e-6\n[costs]\nadc_joule = 1e-12\n", origin="x",
        )
    with pytest.raises(InputError, match="adc_leak"):
        chip(**{"costs.adc_leak": 1.5})


def test_costs_of_a_chip_survive_the_file(tmp_path):
    spec = chip(**{"costs.node_nm": 28.0, "costs.adc_j": 1e-12})
    spec.to_toml(tmp_path / "chip.toml")
    assert aimc.ChipSpec.from_toml(tmp_path / "chip.toml") == spec
    assert costs.constants(spec)["read_v"].source != "the chip's file"


def test_the_energy_of_events_is_their_number_times_their_price():
    used = costs.constants(chip())
    events = [
        Events("layer 0", "A", {"conversions": 10.0, "drives": 3.0, "cell_reads_j": 2e-12}),
        Events("layer 0", "A", {"conversions": 5.0}),
        Events("", "encoder", {"add_bits": 16.0, "leakage_j": 1e-12}),
    ]
    found = costs.price(events, used, 1e-6)
    adc_j = 15 * used["adc_j"].value * 0.8
    assert found.by("layer", "part", "kind")["layer 0 A ADC"] == pytest.approx(adc_j, rel=1e-12)
    assert found.by("kind")["cells"] == 2e-12
    assert found.by("part")["encoder"] == pytest.approx(
        16 * used["add_j_per_bit"].value + 1e-12, rel=1e-12
    )
    assert found.energy_j == pytest.approx(
        adc_j + 3 * used["dac_j"].value + 3e-12 + 16 * used["add_j_per_bit"].value, rel=1e-12
    )
    assert found.latency_s == 1e-6


def test_events_without_a_price_or_with_a_senseless_count_are_refused():
    with pytest.raises(UsageError, match=r"no such event.*Did you mean 'conversions'"):
        Events("layer 0", "A", {"conversion": 1.0})
    for count in (-1.0, math.inf, math.nan):
        with pytest.raises(UsageError, match="neither negative nor infinite"):
            Events("layer 0", "A", {"drives": count})


def test_shared_adcs_are_fewer_and_faster():
    spec = chip()
    used = costs.constants(spec)
    assert costs.outputs_per_adc(spec, 2) == 1
    shared = spec.replace(**{"adc.columns_per_adc": 8})
    assert costs.outputs_per_adc(shared, 2) == 4  # a pair takes two bit lines
    assert costs.constants(shared)["adc_hz"].value == pytest.approx(8 / 100e-9)
    leak_w = costs.leak_w(used, 100)
    assert leak_w == pytest.approx(100 * 0.2 * used["adc_j"].value / 100e-9)
    area = costs.tile_area_m2(spec, used, "tile", 100)
    assert area["cells"] == pytest.approx((256 * 160e-9) ** 2)
    assert area["ADC"] == pytest.approx(100 * used["adc_area_m2"].value)
    with pytest.raises(UsageError, match="no such kind of tile"):
        costs.tile_area_m2(spec, used, "square", 100)


def test_lines_are_as_long_as_the_wires_of_the_chip_say():
    wired = chip(wires={"r_wl_ohm": None, "r_bl_ohm": None, "node_nm": 45, "pitch_nm": 500.0})
    pitch = costs.constants(wired)["line_pitch_m"]
    assert (pitch.value, pitch.source) == (pytest.approx(5e-7), "the chip's wires")


def test_modes_of_the_dac_have_their_own_driver():
    sources = {}
    for mode in ("amplitude", "pulse_width", "bit_serial"):
        sources[mode] = costs.constants(chip(**{"dac.mode": mode}))["dac_j"]
    assert "TIMELY" in sources["pulse_width"].source
    assert sources["amplitude"].value == pytest.approx(8 * sources["bit_serial"].value)


def test_parts_are_summed_once_rounded():
    entries = tuple(Entry("", f"part {k}", "ADC", 10.0**-k) for k in range(20))
    assert Costs(entries).energy_j == math.fsum(entry.energy_j for entry in entries)
    assert Costs(entries).times(3).energy_j == math.fsum(3 * e.energy_j for e in entries)
