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
    with pytest.raises(InputError, match=r"3 effective bits.*4 bits on.*costs\.adc_j.*'0\.226pJ'"):
        call(3, 100e6, 45)
    with pytest.raises(UsageError, match="positive rate"):
        call(8, 0.0, 45)


def test_a_chip_of_coarse_adcs_needs_their_figures_and_takes_them():
    coarse = chip(**{"adc.bits": 3})
    with pytest.raises(InputError, match=r"costs\.adc_j and costs\.adc_area_m2"):
        costs.constants(coarse)
    with pytest.raises(InputError, match=r"costs\.adc_j and costs\.adc_area_m2"):
        costs.constants(coarse.replace(**{"costs.adc_j": 0.2e-12}))
    given = coarse.replace(**{"costs.adc_j": 0.2e-12, "costs.adc_area_m2": 3e-10})
    assert costs.constants(given)["adc_j"] == (0.2e-12, "J", "the chip")
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
        ({"costs.node_nm": -45.0}, r"node_nm is -45, the table of nodes has 130, .* 7 nm"),
        ({"costs.node_nm": "45 parsec"}, r"node_nm is '45 parsec', the table of nodes has 130, "),
        ({"costs.node_nm": "coarse"}, r"node_nm is 'coarse', the table of nodes has 130, "),
        ({"costs.adc_enob": 3.0}, r"holds from 4 bits on.*Set costs\.adc_j and costs\.adc_area_m2"),
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
        assert own.source == "the chip", name


def test_an_unknown_constant_is_refused_with_the_nearest_name():
    with pytest.raises(InputError, match=r"costs\.adc_joule.*unknown"):
        aimc.ChipSpec.from_text(
            'schema_version = "aimc-sim.chip/1"\n[device]\nname = "x"\ng_min_s = 0\n'
            "g_max_s = 1e-6\n[costs]\nadc_joule = 1e-12\n", origin="x",
        )
    with pytest.raises(InputError, match="adc_leak"):
        chip(**{"costs.adc_leak": 1.5})


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("adc_j", "0.3pJ", 0.3e-12), ("adc_j", "3e-13", 3e-13), ("adc_area_m2", "284um2", 284e-12),
        ("adc_area_m2", "284 um²", 284e-12), ("adc_hz", "100MHz", 1e8), ("dac_j", "30 fJ", 30e-15),
        ("line_f_per_m", "0.3fF/um", 0.3e-9), ("line_pitch_m", "500nm", 5e-7),
        ("float_add_j", "1pJ", 1e-12), ("state_j_per_bit", "120fJ", 120e-15),
        ("memory_area_m2_per_bit", "0.3um2", 0.3e-12), ("leak_w", "2mW", 2e-3),
        ("read_v", "300mV", 0.3), ("read_s", "50ns", 50e-9), ("node_nm", "28nm", 28.0),
        ("node_nm", "28", 28.0),
    ],
)  # fmt: skip
def test_constants_are_read_from_text_with_a_unit_to_the_last_bit(field, text, value):
    assert getattr(chip(**{f"costs.{field}": text}).costs, field) == value


@pytest.mark.parametrize(
    ("field", "text", "units"),
    [
        ("adc_j", "0.3 parsec", "one of J, mJ, uJ, nJ, pJ, fJ"), ("adc_j", "3pF", "pJ, fJ"),
        ("adc_area_m2", "284 um", "one of m2, mm2, um2"), ("adc_hz", "1 s", "one of Hz, kHz"),
        ("line_f_per_m", "3 fF", "one of F/m"), ("leak_w", "1 J", "one of W, mW"),
        ("read_v", "1 A", "one of V, mV"),
    ],
)  # fmt: skip
def test_a_unit_of_another_kind_is_refused_with_those_of_the_constant(field, text, units):
    with pytest.raises(InputError, match=rf"Field 'costs\.{field}'.*got {text}.*{units}"):
        chip(**{f"costs.{field}": text})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "adc_j", 0.3,
            r"'costs\.adc_j' is 0\.3, 9e\+10 times the 3\.25pJ that is published.*'3\.25pJ'",
        ),
        ("adc_j", 1e-17, r"e-0[4-9] times"), ("adc_area_m2", 284.0, r"um2 that is published"),
        ("dac_j", 3.0, "fJ that is|pJ that is"), ("read_s", 100.0, "1e\\+09 times the 100ns"),
        ("adc_hz", 100.0, "1e-05 times the 10MHz"), ("line_f_per_m", 0.2, "200pF/m that is"),
        ("float_multiply_j", 3.7, "times the 2.92pJ"), ("memory_area_m2_per_bit", 0.3, "um2 that"),
        ("line_pitch_m", 160.0, "times the 160nm"),
    ],
)  # fmt: skip
def test_a_constant_that_forgot_its_prefix_is_refused_beside_the_published_one(
    field, value, message
):
    with pytest.raises(InputError, match=message) as error:
        chip(**{f"costs.{field}": value})
    assert "write text with a unit" in error.value.do


def test_how_far_a_constant_may_lie_is_counted_from_that_of_its_own_chip():
    fast, slow = (chip(**{"costs.node_nm": node}) for node in (7.0, 130.0))
    usual = [costs.constants(spec)["adc_j"].value for spec in (fast, slow)]
    for spec, value in zip((fast, slow), usual, strict=True):
        for factor in (0.0, 1.1e-4, 0.9e4):
            given = spec.replace(**{"costs.adc_j": factor * value})
            assert costs.constants(given)["adc_j"].value == factor * value
        for factor in (0.9e-4, 1.1e4):
            with pytest.raises(InputError, match="times the"):
                spec.replace(**{"costs.adc_j": factor * value})
    # of an ADC without a regression, and of an ideal one, that of the last bit and of 8 bits
    with pytest.raises(InputError, match="times the"):
        chip(**{"adc.bits": 3, "costs.adc_j": 0.3})
    with pytest.raises(InputError, match="times the"):
        aimc.ChipSpec.preset("ideal").replace(**{"costs.adc_j": 0.3})


def test_costs_of_a_chip_survive_the_file(tmp_path):
    spec = chip(**{"costs.node_nm": 28.0, "costs.adc_j": 1e-12})
    spec.to_toml(tmp_path / "chip.toml")
    assert aimc.ChipSpec.from_toml(tmp_path / "chip.toml") == spec
    assert costs.constants(spec)["read_v"].source != "the chip"


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
