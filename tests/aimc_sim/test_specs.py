"""Specs: TOML in and out, checks on every field, errors that name the mistake."""

from __future__ import annotations

import math

import numpy as np
import pytest
from pydantic import ValidationError

import aimc_sim as aimc
from aimc_sim.curves import Curve
from aimc_sim.errors import InputError, UsageError
from aimc_sim.specs import AdcSpec, ChipSpec, load_chip, presets

PUBLISHED = {"ideal", "pcm-nandakumar2019", "reram-wan2022", "cmo-hfox"}
MINIMAL = '[device]\nname = "mine"\ng_min_s = "1uS"\ng_max_s = "20uS"\n'


def chip(text=MINIMAL):
    return ChipSpec.from_text(text, origin="mine.toml")


def test_the_published_presets_are_there_and_sorted():
    assert set(presets()) >= PUBLISHED
    assert presets() == sorted(presets())


def test_the_package_still_lists_its_presets_after_one_was_read():
    ChipSpec.preset("ideal")
    assert aimc.presets() == presets()


@pytest.mark.parametrize("name", presets())
def test_a_preset_survives_the_way_through_toml(name, tmp_path):
    spec = ChipSpec.preset(name)
    assert spec.name == spec.device.name == name
    path = tmp_path / "chip.toml"
    text = spec.to_toml(path)
    assert chip(text) == spec
    assert ChipSpec.from_toml(path) == spec == load_chip(path)


@pytest.mark.parametrize("name", sorted(set(presets()) - {"ideal"}))
def test_a_published_preset_names_its_source_and_what_it_leaves_out(name):
    device = ChipSpec.preset(name).device
    assert device.cite
    assert device.doi or device.provenance  # published, or fitted to published data
    assert device.description
    assert device.caveats
    assert device.not_modelled


def test_a_device_table_alone_is_a_chip_with_default_periphery():
    spec = chip()
    assert spec.name == "mine"
    assert (spec.tile.rows, spec.tile.cols, spec.tile.idle) == (256, 256, "off")
    assert (spec.short_tile.rows, spec.short_tile.cols) == (2, 256)
    assert (spec.dac.bits, spec.adc.bits) == (8, 8)
    assert spec.device.programming is None
    assert spec.device.g_max_s == pytest.approx(20e-6)


def test_quantities_may_carry_units():
    relaxation = (
        '[device.relaxation]\nkind = "added"\nstart_s = "500ms"\nstd_offset_s = "0.4uS"\n'
        'mean_per_ln_t_s = "-90nS"\n'
    )
    text = 'step_period_s = "2us"\n' + MINIMAL + 'time_range_s = ["0s", "1d"]\n' + relaxation
    spec = chip(text)
    assert spec.step_period_s == pytest.approx(2e-6)
    assert spec.device.time_range_s == (0.0, 86400.0)
    assert spec.device.relaxation.start_s == 0.5
    assert spec.device.relaxation.std_offset_s == pytest.approx(0.4e-6)
    assert spec.device.relaxation.mean_per_ln_t_s == pytest.approx(-90e-9)
    total = ChipSpec.preset("reram-wan2022").device.relaxation
    assert total.times_s == (1.0, 86400.0, 172800.0)


def test_only_the_ideal_chip_keeps_states_without_rounding():
    assert {name: ChipSpec.preset(name).state_bits for name in PUBLISHED} == {
        "ideal": "ideal",
        "pcm-nandakumar2019": 16,
        "reram-wan2022": 16,
        "cmo-hfox": 16,
    }


def test_a_spec_cannot_be_changed():
    spec = ChipSpec.preset("ideal")
    with pytest.raises(ValidationError, match="frozen"):
        spec.name = "other"
    with pytest.raises(ValidationError, match="frozen"):
        spec.device.g_max_s = 1.0


def test_replace_reaches_into_parts_and_leaves_the_original():
    spec = ChipSpec.preset("cmo-hfox")
    other = spec.replace(**{"adc.bits": 6, "device.read_noise.t_read_s": "2us"}, max_tiles=3)
    assert (other.adc.bits, other.max_tiles) == (6, 3)
    assert other.device.read_noise.t_read_s == pytest.approx(2e-6)
    assert (spec.adc.bits, spec.max_tiles) == (8, None)
    assert other.replace(adc=AdcSpec(), max_tiles=None, device=spec.device) == spec


def three_parts(error):
    return error.value.asked, error.value.found, error.value.do


@pytest.mark.parametrize(
    ("name", "guess"),
    [("adc.bitz", "bits"), ("tile.colums", "cols"), ("noise_in_tim", "noise_in_time")],
)
def test_replacing_a_misspelt_field_suggests_the_right_one(name, guess):
    with pytest.raises(InputError) as error:
        ChipSpec.preset("ideal").replace(**{name: 1})
    asked, found, do = three_parts(error)
    assert name in asked
    assert "no field" in found
    assert f"did you mean '{guess}'?" in do


@pytest.mark.parametrize(
    ("line", "where", "guess"),
    [
        ("[adc]\nbitz = 8", "adc.bitz", "bits"),
        ("[tile]\nrow = 8", "tile.row", "rows"),
        ("[device.drift]\nt0 = 20.0\nnu_mean = {}\nnu_std = {}", "device.drift.t0", "t0_s"),
        ("[device.read_noise]\nspectrun = 1\nsigma = {}", "device.read_noise.spectrun", "spectrum"),
        (
            "[device.read_noise]\nsigma = { polynomal = [1.0] }",
            "device.read_noise.sigma.polynomal",
            "polynomial",
        ),
        (
            "[device.read_noise]\nsigma = { polynomial = [1.0], unit = 1e-6 }",
            "device.read_noise.sigma.unit",
            "unit_s",
        ),
        (
            "[device.programming]\nsigma = { pieces = [{ hihg = 1.0 }] }",
            "device.programming.sigma.pieces.0.hihg",
            "high",
        ),
        (
            '[device.relaxation]\nkind = "total"\ntimes_s = [1.0]\nsigma = [{ log_slop = 1.0 }]',
            "device.relaxation.sigma.0.log_slop",
            "log_slope",
        ),
    ],
)
def test_a_misspelt_field_of_a_file_is_named_with_the_nearest_one(line, where, guess):
    text = MINIMAL + line
    text = text.replace("t0 = 20.0", "t0_s = 20.0\nt0 = 20.0") if "drift" in line else text
    with pytest.raises(InputError) as error:
        chip(text)
    asked, found, do = three_parts(error)
    assert "mine.toml" in asked
    assert f"field '{where}' is unknown" in found
    assert f"did you mean '{guess}'?" in do
    assert error.value.exit_code == 3


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"adc.bits": 40}, "adc.bits"),
        ({"adc.bits": 0}, "adc.bits"),
        ({"dac.bits": "eight"}, "dac.bits"),
        ({"dac.headroom": -1.0}, "dac.headroom"),
        ({"adc.noise_lsb": -0.5}, "adc.noise_lsb"),
        ({"tile.rows": 0}, "tile.rows"),
        ({"tile.idle": "asleep"}, "tile.idle"),
        ({"device.g_max_s": math.nan}, "device.g_max_s"),
        ({"device.g_max_s": math.inf}, "device.g_max_s"),
        ({"device.g_max_s": -1e-6}, "device.g_max_s"),
        ({"device.drift.t0_s": 0.0}, "device.drift.t0_s"),
        ({"device.programming.g_reference_s": 0.0}, "device.programming.g_reference_s"),
        ({"device.programming.g_reference_s": -1e-6}, "device.programming.g_reference_s"),
        ({"state_bits": 0}, "state_bits"),
        ({"state_bits": 32}, "state_bits"),
        ({"step_period_s": 0.0}, "step_period_s"),
        ({"max_tiles": 0}, "max_tiles"),
        ({"weight_scale": "row"}, "weight_scale"),
    ],
    ids=str,
)
def test_an_impossible_value_is_refused_by_the_name_of_its_field(changes, where):
    with pytest.raises(InputError) as error:
        ChipSpec.preset("pcm-nandakumar2019").replace(**changes)
    asked, found, do = three_parts(error)
    assert asked.startswith("replace")
    assert f"field '{where}" in found
    assert do


def test_a_wrong_unit_in_a_file_is_an_input_error_that_names_the_field():
    with pytest.raises(InputError, match=r"device\.g_max_s.*25 parsec"):
        chip(MINIMAL.replace('"20uS"', '"25 parsec"'))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device.g_min_s": 30e-6}, "floor_s <= g_min_s < g_max_s"),
        ({"device.floor_s": 1e-6}, "floor_s <= g_min_s < g_max_s"),
        ({"device.ceiling_s": 20e-6}, "ceiling_s must not lie below g_max_s"),
        ({"device.g_max_s": 1e300}, "no memristor's"),
        ({"device.g_max_s": 50.0}, r"siemens, no memristor's\. Write text such as '50uS'"),
        ({"device.programming.sigma.unit_s": 1.0}, r"Give a formula in microsiemens unit_s = 1e-6"),
        ({"device.g_max_s": 1e-60}, "must differ"),
        ({"device.time_range_s": (10.0, 1.0)}, "0 <= first <= last"),
        ({"device.time_range_s": (-1.0, 1.0)}, "0 <= first <= last"),
    ],
)
def test_conductance_limits_must_be_in_order(changes, message):
    with pytest.raises(InputError, match=message):
        ChipSpec.preset("pcm-nandakumar2019").replace(**changes)


@pytest.mark.parametrize(
    ("card", "field", "value", "message"),
    [
        ("pcm-nandakumar2019", "programming.mean", -3.0, r"(?i)ing\.mean is -3e\+06 uS, more"),
        ("cmo-hfox", "read_noise.sigma", 0.5, r"(?i)read_noise\.sigma is 5e\+05 uS, more"),
        ("cmo-hfox", "read_noise.white", 0.01, r"(?i)read_noise\.white is 1e\+04 uS, more"),
        ("cmo-hfox", "telegraph.amplitude", 2.0, r"(?i)telegraph\.amplitude is 2e\+06 uS, more"),
        ("cmo-hfox", "pulses.reset_mean", -1.0, r"(?i)pulses\.reset_mean is -1e\+06 uS, more"),
        ("cmo-hfox", "pulses.reset_mean", 1e-6, r"(?i)pulses\.reset_mean is positive \(1e-06\)"),
    ],
)
def test_a_formula_in_microsiemens_without_its_unit_is_refused(card, field, value, message):
    small = {"polynomial": [1.0], "unit_s": 1e-6}
    down = {"polynomial": [-1.0], "unit_s": 1e-6}
    device = ChipSpec.preset(card).device.replace(
        telegraph={
            "fraction": 0.1, "amplitude": small, "relative": False, "tau_high_s": 1.0,
            "tau_low_s": 1.0,
        },
        pulses={
            "set_mean": small, "set_sigma": small, "reset_mean": down, "reset_sigma": small,
        },
    )
    with pytest.raises(InputError, match=message):
        device.replace(**{field: {"polynomial": [value]}})
    device.replace(**{field: {"polynomial": [value], "unit_s": 1e-6}} if value != 1e-6 else {})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"slices": 2}, r"^Replace slices\. Slices are digits of a weight\. Say how many levels"),
        ({"compensation": "affin"}, r"Did you mean 'affine'\? choose one of none, global"),
        ({"temperature_k": 350.0}, r"no activation energy\. Leave temperature_k out or take"),
        ({"temperature_k": "1kg"}, r"one of K, or a bare number in SI"),
        ({"tile": 6}, r"\(got 6\)\. Give a value of that kind"),
        ({"adc.bits": 0}, r"\(got 0\)\. Give a value in range"),
        ({"adc.bits": "idel"}, r"known value \(got idel\)\. Did you mean 'ideal'\?"),
        ({"adc.range": -3}, r"greater than 0 \(got -3\)\. Give a value in range"),
        ({"adc.range": "most"}, r"\(got most\)\. Choose one of largest, percentile, least_error"),
        ({"device.floor_s": 1e-6}, r"g_max_s\. Give values that go together"),
    ],
)
def test_a_wrong_value_comes_with_what_to_do_about_it(changes, message):
    with pytest.raises(InputError, match=message):
        ChipSpec.preset("pcm-nandakumar2019").replace(**changes)


@pytest.mark.parametrize(
    "field",
    [
        "adc.bits", "dac.bits", "adc.range", "dac.inl_lsb", "state_bits", "levels", "single_cells",
        "step_period_s", "tile.rows", "device.g_max_s", "costs.adc_leak", "costs.node_nm",
        "costs.logic_bits", "max_tiles", "compensation_reads", "adc.gain_sigma", "temperature_k",
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", [True, False])
def test_true_and_false_are_no_numbers(field, value):
    value = (0.1, value) if field.endswith("inl_lsb") else value
    with pytest.raises(InputError, match=rf"Field '{field}': it is true or false"):
        ChipSpec.preset("pcm-nandakumar2019").replace(**{field: value})


def test_true_in_a_file_is_no_number_but_answers_where_it_is_asked_for():
    with pytest.raises(InputError, match=r"Field 'adc\.bits': it is true or false, which is no n"):
        chip(MINIMAL + "[adc]\nbits = true\n")
    with pytest.raises(InputError, match=r"sigma\.polynomial': it is true or false"):
        chip(MINIMAL + "[device.read_noise]\nsigma = { polynomial = [true] }\n")
    spec = chip(MINIMAL + "[costs]\npipeline = false\n")
    assert spec.costs.pipeline is False


def test_a_temperature_may_have_its_unit():
    spec = ChipSpec.preset("pcm-nandakumar2019").replace(temperature_k="300 K")
    assert spec.temperature_k == 300.0


def test_a_card_cannot_count_the_programming_error_twice():
    programming = ChipSpec.preset("pcm-nandakumar2019").device.programming
    with pytest.raises(InputError, match=r"holds the programming error\. Leave programming out"):
        ChipSpec.preset("reram-wan2022").replace(**{"device.programming": programming})


def test_a_card_has_one_history_of_a_cell():
    drift = ChipSpec.preset("pcm-nandakumar2019").device.drift
    for name in ("reram-wan2022", "cmo-hfox"):
        with pytest.raises(InputError, match="drift or relaxation, one history of a cell"):
            ChipSpec.preset(name).replace(**{"device.drift": drift})


def test_relaxation_starts_after_programming_and_its_spread_is_no_less_than_zero():
    spec = ChipSpec.preset("cmo-hfox")
    for start_s in (0.0, -1.0):
        with pytest.raises(InputError, match=r"relaxation\.start_s': .*greater than 0"):
            spec.replace(**{"device.relaxation.start_s": start_s})
    with pytest.raises(InputError, match="deviation of relaxation is negative at 1e-09 s"):
        spec.replace(**{"device.relaxation.start_s": 1e-9})
    with pytest.raises(InputError, match="deviation of relaxation is negative at 31536000"):
        spec.replace(**{"device.relaxation.std_per_ln_t_s": -1e-6})


@pytest.mark.parametrize(
    ("part", "curve", "message"),
    [
        ("programming.sigma", {"polynomial": [1.0, -2.0]}, "negative (-1) at 25 uS"),
        ("drift.nu_std", {"polynomial": [-0.1]}, "negative (-0.1) at 0 uS"),
        ("read_noise.sigma", {"of": "g_us", "log_slope": 1.0}, "negative (-27.6) at 0 uS"),
        ("read_noise.sigma", {"power": [1.0, -10.0]}, "not finite at 0 uS"),
        ("programming.mean", {"polynomial": [0.0, 1e300]}, "not finite at "),
        ("drift.nu_mean", {"polynomial": [1e39]}, "not finite at 0 uS"),
        (
            "programming.sigma",
            # negative in one narrow piece, between the conductances that are tried evenly
            {"pieces": [{"below": 0.5, "polynomial": [1.0]}, {"below": 0.501, "polynomial": [-1]},
                        {"polynomial": [1.0]}]},
            "negative (-1) at 12.5 uS",
        ),
    ],
    ids=str,
)  # fmt: skip
def test_a_curve_that_fails_over_the_range_is_refused_by_its_name(part, curve, message):
    spec = ChipSpec.preset("pcm-nandakumar2019")
    with pytest.raises(InputError) as error:
        spec.replace(**{f"device.{part}": curve})
    assert f"{part} is {message}" in three_parts(error)[1]


def test_a_mean_shift_may_be_negative():
    spec = ChipSpec.preset("pcm-nandakumar2019")
    mean = {"polynomial": [-0.5], "unit_s": 1e-6}
    assert spec.replace(**{"device.programming.mean": mean}).device.programming.mean is not None


def test_a_total_relaxation_needs_a_sigma_for_each_rising_time():
    spec = ChipSpec.preset("reram-wan2022")
    with pytest.raises(InputError, match="one sigma for each"):
        spec.replace(**{"device.relaxation.times_s": (1.0, 86400.0)})
    with pytest.raises(InputError, match="one sigma for each"):
        spec.replace(**{"device.relaxation.times_s": (1.0, 172800.0, 86400.0)})


def test_a_missing_field_is_named():
    found = r"mine\.toml\. Field 'device\.g_max_s' is missing\. Add it"
    with pytest.raises(InputError, match=found):
        chip(MINIMAL.replace('g_max_s = "20uS"\n', ""))


def test_a_newer_schema_is_refused_by_name():
    with pytest.raises(InputError, match=r"schema_version.*reads aimc-sim\.chip/1.*chip/2"):
        chip('schema_version = "aimc-sim.chip/2"\n' + MINIMAL)


def test_a_file_may_say_what_differs_from_a_preset(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('base = "reram-wan2022"\n[adc]\nbits = 6\n[device]\ng_max_s = "50uS"\n')
    base = ChipSpec.preset("reram-wan2022")
    spec = load_chip(path)
    wanted = base.replace(**{"adc.bits": 6, "device.g_max_s": 5e-5, "name": spec.name})
    assert spec == wanted
    assert spec.name == "reram-wan2022, changed"
    named = ChipSpec.from_text('name = "mine"\nbase = "reram-wan2022"', origin="x")
    assert named == base.replace(name="mine")


@pytest.mark.parametrize("base", ['"reram-wan2023"', "3", "[1]", "{ device = 1 }"])
def test_a_base_that_is_no_preset_is_refused(base):
    with pytest.raises(InputError, match=r"is no preset") as error:
        ChipSpec.from_text(f"base = {base}", origin="x")
    assert "reram-wan2022" in error.value.do


def test_text_that_is_no_toml_is_refused_with_its_line():
    with pytest.raises(InputError, match=r"mine\.toml\. It is not TOML \(.*at line 2"):
        chip("[device]\nname = = 3\n")


def test_a_missing_file_is_refused_by_its_path(tmp_path):
    with pytest.raises(InputError, match=r"Read chip file .*absent\.toml\. It cannot be read"):
        load_chip(tmp_path / "absent.toml")


def test_text_with_a_slash_or_backslash_is_a_path_and_no_preset():
    for text in ("cards/mine", "cards\\mine"):
        with pytest.raises(InputError, match="It cannot be read"):
            load_chip(text)


def test_a_chip_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"Write the chip to .*The system refuses"):
        ChipSpec.preset("ideal").to_toml(tmp_path / "absent" / "chip.toml")


def test_an_unknown_preset_suggests_the_nearest():
    with pytest.raises(UsageError) as error:
        ChipSpec.preset("pcm-nandakumar2018")
    assert three_parts(error)[1] == "no preset has that name"
    assert "did you mean 'pcm-nandakumar2019'?" in three_parts(error)[2]
    assert error.value.exit_code == 2
    with pytest.raises(UsageError, match=r"Choose one of cmo-hfox"):
        load_chip("zzzzzz")


# curves


def test_a_curve_is_a_clamped_polynomial_with_logarithm_and_power():
    g = np.array([0.0, 1e-6, 5e-6, 25e-6])
    r = g / 25e-6
    line = Curve.model_validate({"polynomial": [0.5, 2.0], "unit_s": 1e-6})
    np.testing.assert_allclose(line.evaluate(g, 25e-6), (0.5 + 2 * r) * 1e-6)
    power = Curve.model_validate({"power": [0.0088, -0.65], "high": 0.2})
    np.testing.assert_allclose(
        power.evaluate(g[1:], 25e-6), np.minimum(0.2, 0.0088 * r[1:] ** -0.65)
    )
    assert power.evaluate(g[:1], 25e-6)[0] == 0.2
    log = Curve.model_validate({"of": "g_us", "log_slope": 2.0})
    np.testing.assert_allclose(log.evaluate(g[1:], 25e-6), 2 * np.log([1, 5, 25]))


def test_the_first_piece_whose_bound_is_not_reached_holds():
    curve = Curve.model_validate(
        {"pieces": [{"below": 0.5, "polynomial": [1.0]}, {"polynomial": [0.0, 10.0]}]}
    )
    found = curve.evaluate(np.array([0.0, 0.49, 0.5, 1.0]), 1.0)
    np.testing.assert_allclose(found, [1.0, 1.0, 5.0, 10.0])
