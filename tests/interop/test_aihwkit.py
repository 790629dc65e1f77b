"""aihwkit itself beside what is made of it: cards, configurations, layers, and back."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import aimc_sim as aimc
from aimc_sim.errors import InputError, UsageError

pytest.importorskip("aihwkit", reason="aihwkit is not installed (pip install '.[aihwkit]')")

import torch
from aihwkit import inference as peer
from aihwkit.inference.noise.hermes import HermesNoiseModel
from aihwkit.nn import AnalogConv2d, AnalogLinear
from aihwkit.nn.conversion import convert_to_analog
from aihwkit.simulator.configs import InferenceRPUConfig, TorchInferenceRPUConfig
from aihwkit.simulator.parameters.enums import (
    BoundManagementType,
    NoiseManagementType,
    WeightModifierType,
    WeightNoiseType,
)
from aihwkit.simulator.presets import StandardHWATrainingPreset

from aimc_sim.interop import aihwkit as ours
from aimc_sim.interop.aihwkit import check

DAY = 86400.0
TABLE = {"g_lst": [0.0, 10.0, 25.0], "nu_mean_lst": [0.1, 0.05, 0.06], "nu_std_lst": [0.04] * 3}
MODELS = {
    "pcm": peer.PCMLikeNoiseModel,
    "pcm scaled": lambda: peer.PCMLikeNoiseModel(
        g_max=40.0, t_0=50.0, t_read=1e-6, prog_noise_scale=0.5, drift_scale=1.5,
        read_noise_scale=2.0,
    ),
    "pcm above zero": lambda: peer.PCMLikeNoiseModel(
        g_converter=peer.SinglePairConductanceConverter(g_max=20.0, g_min=2.0)
    ),
    "pcm two pairs": lambda: peer.PCMLikeNoiseModel(
        g_converter=peer.DualPairConductanceConverter([1, 1])
    ),
    "custom drift": lambda: peer.CustomDriftPCMLikeNoiseModel(TABLE),
    "hermes, 1": lambda: HermesNoiseModel(num_devices=1),
    "hermes, 2": lambda: HermesNoiseModel(num_devices=2, g_max=15.0),
    "state-independent": lambda: peer.StateIndependentNoiseModel(prog_coeff=[0.1, 0.5]),
    "wan": peer.ReRamWan2022NoiseModel,
    "cmo": peer.ReRamCMONoiseModel,
    "cmo, 2 %": lambda: peer.ReRamCMONoiseModel(acceptance_range=2, read_noise_scale=3.0),
}
PRESET = {
    "pcm": "pcm-nandakumar2019", "hermes, 1": "pcm-hermes2023-1dev", "cmo": "cmo-hfox-fine",
    "cmo, 2 %": "cmo-hfox",
}


def settings_off(config):
    """A configuration without anything that is not deterministic or not exact here."""
    config.forward.out_noise = 0.0
    config.forward.bound_management = BoundManagementType.NONE
    config.mapping.weight_scaling_omega = 1.0
    return config


@pytest.mark.compiled
@pytest.mark.parametrize("name", MODELS)
def test_cells_of_an_imported_model_are_distributed_as_the_peers(name):
    w = np.random.default_rng(3).normal(size=(64, 64))
    # 16 chips of 8,192 cells: a std is known to about 0.4 %
    rows = ours.cross_check(MODELS[name](), w, [1.0, DAY], repeats=16, seed=5)
    assert [(row.stage, row.at_s) for row in rows] == [
        ("programmed", 0.0), ("read", 1.0), ("read", DAY)
    ]
    assert all(row.n_ours == row.n_theirs >= 16 * 4096 for row in rows)
    assert all(row.agrees for row in rows), "\n".join(map(str, rows))


@pytest.mark.compiled
def test_a_cross_check_sees_errors_of_some_percent_and_leaves_torch_as_it_was(monkeypatch):
    w = np.random.default_rng(3).normal(size=(64, 64))
    before = torch.random.get_rng_state()
    model = peer.PCMLikeNoiseModel()
    same = ours.cross_check(model, w, [1.0], repeats=16, seed=5)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert ours.cross_check(model, w, [1.0], repeats=16, seed=5) == same
    # 4 % noisier cells of the peer beside the card of those before
    card = ours.import_noise_model(model)
    monkeypatch.setattr(check, "import_noise_model", lambda *_, **__: card)
    model.prog_noise_scale = 1.04
    assert not ours.cross_check(model, w, [1.0], repeats=16, seed=5)[0].agrees


@pytest.mark.compiled
def test_the_defect_of_wan_is_mended_or_kept_as_asked():
    model, w = peer.ReRamWan2022NoiseModel(), np.random.default_rng(3).normal(size=(64, 64))
    (programmed, *_) = ours.cross_check(model, w, [1.0], repeats=16, defects="mended")
    assert not programmed.agrees
    # the clipped cells at zero are not scaled exactly
    assert programmed.theirs[1] / programmed.ours[1] == pytest.approx(1.6, rel=0.05)
    mended, kept = (
        ours.import_noise_model(model, defects=which) for which in ("mended", "kept")
    )
    for got in (mended, kept):
        (remark,) = got.of_fate("defect")
        assert remark.setting == "noise_model.g_max" and "1.6 times" in remark.why
    at = [np.array([10e-6])]
    card = aimc.ChipSpec.preset("reram-wan2022").device.relaxation
    for got, reference in ((mended, 40e-6), (kept, 25e-6)):
        part = got.chip.device.relaxation
        assert part.g_reference_s == pytest.approx(reference)
        assert part.times_s == card.times_s
        assert part.sigma[0].evaluate(*at, 25e-6) == pytest.approx(
            card.sigma[0].evaluate(*at, 25e-6)
        )
    # at the g_max of the fit there is nothing to mend
    assert not ours.import_noise_model(peer.ReRamWan2022NoiseModel(g_max=40.0)).of_fate("defect")


def test_the_tolerance_that_the_peer_falls_back_to_is_said():
    asked_for_2_percent = peer.ReRamCMONoiseModel(acceptance_range=0.02)
    got = ours.import_noise_model(asked_for_2_percent)
    (remark,) = got.of_fate("defect")
    assert remark.setting == "noise_model.acceptance_range" and "2 %" in remark.why
    fine = aimc.ChipSpec.preset("cmo-hfox-fine").device
    assert got.chip.device.programming.sigma.evaluate(
        np.array([5e-5]), 88e-6
    ) == pytest.approx(fine.programming.sigma.evaluate(np.array([5e-5]), 88e-6))
    two = ours.import_noise_model(peer.ReRamCMONoiseModel(acceptance_range=2))
    assert not two.of_fate("defect")


@pytest.mark.parametrize("name", PRESET)
def test_default_models_are_the_published_presets(name):
    card, got = aimc.ChipSpec.preset(PRESET[name]).device, ours.import_noise_model(MODELS[name]())
    device = got.chip.device
    assert device.doi == card.doi and device.cite == card.cite
    g = np.linspace(card.g_min_s, card.g_max_s, 50)
    # the peer's CMO ends at 88.199997 uS, and its read noise has 3 times the size
    for part, field in (("programming", "sigma"), ("drift", "nu_mean"), ("drift", "nu_std")):
        known = getattr(card, part)
        assert (known is None) == (getattr(device, part) is None)
        if known is not None:
            values = getattr(getattr(device, part), field).evaluate(g, device.g_max_s)
            assert values == pytest.approx(getattr(known, field).evaluate(g, card.g_max_s), 1e-6)
    ratio = 3.0 if name == "cmo, 2 %" else 1.0
    assert device.read_noise.sigma.evaluate(g, device.g_max_s) == pytest.approx(
        ratio * card.read_noise.sigma.evaluate(g, card.g_max_s), rel=1e-6
    )


def test_an_imported_chip_is_a_chip_file_like_any_other(tmp_path):
    for make in MODELS.values():
        chip = ours.import_noise_model(make()).chip
        chip.to_toml(tmp_path / "chip.toml")
        assert aimc.load_chip(tmp_path / "chip.toml") == chip


def test_what_has_no_counterpart_is_a_remark_and_a_warning():
    config = InferenceRPUConfig()
    forward = config.forward
    forward.ir_drop, forward.r_series, forward.out_nonlinearity = 1.0, 0.1, 0.2
    forward.inp_sto_round, forward.out_noise_std, forward.out_scale = True, 0.3, 2.0
    config.mapping.digital_bias = False
    config.modifier.type = WeightModifierType.ADD_NORMAL
    with pytest.warns(UserWarning, match=r"ir_drop = 1; forward.out_nonlinearity = 0.2") as said:
        got = ours.import_config(config)
    dropped = {remark.setting for remark in got.of_fate("dropped")}
    assert dropped == {
        "forward.ir_drop", "forward.r_series", "forward.out_nonlinearity", "forward.inp_sto_round",
        "forward.out_noise_std", "forward.out_scale", "forward.bound_management",
        "mapping.digital_bias",
    }
    assert all(name in str(said[0].message) for name in dropped)
    assert said[0].filename == __file__
    assert [remark.setting for remark in got.of_fate("training")] == ["modifier"]
    assert all(remark.why and str(remark).count(";") >= 1 for remark in got.remarks)


def test_every_setting_of_a_product_is_known_or_listed():
    # each field in turn away from its default: it changes the chip, or it is in the remarks
    import dataclasses
    import enum

    config = settings_off(InferenceRPUConfig())
    of_other_settings = {  # have an effect beside another one alone, or none on the result
        "ir_drop_g_ratio", "max_bm_factor", "max_bm_res", "bm_test_negative_bound", "w_noise",
        "w_noise_type", "nm_thres",
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = ours.import_config(config)
        for field in dataclasses.fields(config.forward):
            if field.name in of_other_settings:
                continue
            value = getattr(config.forward, field.name)
            if isinstance(value, enum.Enum):
                other = next(v for v in type(value) if v is not value)
            else:
                other = (not value) if isinstance(value, bool) else value / 3 + 0.1
            setattr(config.forward, field.name, other)
            got = ours.import_config(config)
            assert got.remarks != plain.remarks or got.chip != plain.chip, field.name
            setattr(config.forward, field.name, value)
        for pair in (
            {"w_noise": 0.1, "w_noise_type": WeightNoiseType.PCM_READ},
            {"noise_management": NoiseManagementType.CONSTANT, "nm_thres": 2.0},
            {"nm_thres": 2.0},
        ):
            before = {name: getattr(config.forward, name) for name in pair}
            for name, value in pair.items():
                setattr(config.forward, name, value)
            got = ours.import_config(config)
            assert got.remarks != plain.remarks or got.chip != plain.chip, pair
            for name, value in before.items():
                setattr(config.forward, name, value)


def test_the_standard_setting_of_rasch_is_found_in_its_preset():
    with pytest.warns(UserWarning, match="ir_drop"):
        got = ours.import_config(StandardHWATrainingPreset())
    chip = got.chip
    assert (chip.dac.bits, chip.adc.bits, chip.adc.range) == (8, 8, 10.0)
    assert chip.adc.noise_lsb == pytest.approx(0.04 / (10 / 127))
    assert chip.tile.rows == 512 and chip.weight_scale == "column"
    assert chip.compensation == "global"
    g = np.array([5e-6, 25e-6])
    white = chip.device.read_noise.white.evaluate(g, 25e-6) * g  # relative to the cell
    assert white == pytest.approx(0.0175 * 25e-6 * np.sqrt(g / 25e-6))


def test_weight_noise_of_every_kind_is_that_of_two_cells():
    config = settings_off(InferenceRPUConfig(noise_model=peer.ReRamWan2022NoiseModel(g_max=40.0)))
    config.forward.w_noise, config.forward.w_noise_type = 0.01, WeightNoiseType.ADDITIVE_CONSTANT
    noise = ours.import_config(config).chip.device.read_noise
    assert noise.spectrum == "white" and not noise.relative
    sigma = noise.sigma.evaluate(np.array([0.0, 40e-6]), 40e-6)
    assert np.hypot(*sigma) == pytest.approx(0.01 * 40e-6)


@pytest.mark.compiled
@pytest.mark.parametrize("columnwise", [False, True])
@pytest.mark.parametrize("bits", [(8, 8), (6, 5), (10, 12)])
def test_products_with_converters_are_those_of_the_peers_torch_tile(bits, columnwise):
    # the same grid on both sides: all that is left is which way ties fall in float32
    torch.manual_seed(1)
    config = settings_off(TorchInferenceRPUConfig())
    config.forward.inp_res, config.forward.out_res = (1 / (2**b - 2) for b in bits)
    config.forward.out_bound = 10.0
    config.mapping.weight_scaling_columnwise = columnwise
    layer = AnalogLinear(48, 20, rpu_config=config).eval()
    got = ours.import_layers(layer)[""]
    spec = got.matrix.spec
    assert (spec.dac.bits, spec.adc.bits) == bits
    assert spec.weight_scale == ("column" if columnwise else "block")
    exact = spec.replace(device=aimc.ChipSpec.preset("ideal").device, compensation="none")
    matrix = ours.import_layers(layer, exact)[""].matrix.program()
    x = torch.randn(200, 48)
    y = matrix.mvm(x.numpy()) + got.bias
    theirs = layer(x).detach().numpy()
    unit = np.abs(matrix.mapped.w).max(axis=0 if columnwise else None)
    step = np.abs(x.numpy()).max(axis=1, keepdims=True) * unit * 10.0 / (2 ** (bits[1] - 1) - 1)
    off = np.abs(y - theirs) / step
    assert (off < 1.01).all()  # at most one step, where an ADC rounds the other way
    assert (off < 1e-3).mean() > 0.99
    assert np.abs(theirs - (x.numpy() @ matrix.mapped.w + got.bias)).max() > step.min() / 4


@pytest.mark.compiled
@pytest.mark.parametrize("which", ["out_noise", "inp_noise"])
def test_noise_of_converters_is_as_large_as_in_the_peers_torch_tile(which):
    torch.manual_seed(1)
    config = settings_off(TorchInferenceRPUConfig())
    config.forward.out_res, config.forward.out_bound = 1 / (2**10 - 2), 10.0
    setattr(config.forward, which, 0.3)
    layer = AnalogLinear(32, 16, rpu_config=config).eval()
    spec = ours.import_layers(layer)[""].matrix.spec
    exact = spec.replace(device=aimc.ChipSpec.preset("ideal").device, compensation="none")
    matrix = ours.import_layers(layer, exact)[""].matrix.program()
    n = 5000
    x = torch.randn(1, 32).repeat(n, 1)
    mine, theirs = matrix.mvm(x.numpy()).std(axis=0), layer(x).detach().numpy().std(axis=0)
    # two samples of n for each of 16 outputs
    assert mine == pytest.approx(theirs, rel=5 * n**-0.5)
    assert (mine / theirs).mean() == pytest.approx(1, abs=5 * (16 * n) ** -0.5)


def test_layers_of_a_model_keep_weights_bias_and_ranges():
    torch.manual_seed(2)
    config = settings_off(TorchInferenceRPUConfig())
    config.forward.noise_management = NoiseManagementType.NONE
    config.pre_post.input_range.enable = True
    config.pre_post.input_range.init_value = 2.5
    plain = torch.nn.Sequential(
        torch.nn.Linear(7, 30), torch.nn.ReLU(), torch.nn.Linear(30, 5, bias=False)
    )
    found = ours.import_layers(convert_to_analog(plain, config))
    assert list(found) == ["0", "2"]
    for name, layer in found.items():
        original = plain[int(name)]
        assert layer.matrix.w == pytest.approx(original.weight.detach().numpy().T, abs=1e-6)
        assert layer.matrix.full_scale == pytest.approx(2.5)
    assert found["0"].bias == pytest.approx(plain[0].bias.detach().numpy())
    assert found["2"].bias is None
    assert {r.setting for r in found["0"].remarks} >= {"pre_post.input_range"}


def test_a_convolution_is_its_unfolded_matrix():
    torch.manual_seed(3)
    layer = AnalogConv2d(2, 4, 3, rpu_config=settings_off(TorchInferenceRPUConfig()))
    found = ours.import_layers(layer)[""]
    weight = np.array(layer.get_weights()[0]).reshape(4, 18)
    assert found.matrix.w == pytest.approx(weight.T, abs=1e-6)


def test_a_layer_on_several_tiles_says_how_it_is_cut():
    torch.manual_seed(4)
    config = settings_off(TorchInferenceRPUConfig())
    config.mapping.max_input_size = config.mapping.max_output_size = 20
    plain = torch.nn.Sequential(torch.nn.Linear(50, 30))
    found = ours.import_layers(convert_to_analog(plain, config))["0"]
    assert found.matrix.w == pytest.approx(plain[0].weight.detach().numpy().T, abs=1e-6)
    assert found.matrix.spec.tile.rows == 20 and found.matrix.spec.tile.cols == 40
    assert any("even parts" in remark.why for remark in found.remarks)
    # unscaled weights: the bound is of the largest weight on the tiles
    config.mapping.weight_scaling_omega = 0.0
    found = ours.import_layers(convert_to_analog(plain, config))["0"]
    largest = float(plain[0].weight.detach().abs().max())
    assert found.matrix.spec.adc.range == pytest.approx(12.0 / largest, rel=1e-5)


@pytest.mark.parametrize("name", aimc.presets())
def test_every_preset_comes_back_from_the_peer_or_says_what_is_lost(name):
    spec = aimc.ChipSpec.preset(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = ours.export_noise_model(spec)
        again = ours.import_noise_model(made.value, defects="kept").chip.device
    lost = {remark.setting for remark in made.remarks}
    g = np.linspace(spec.device.g_min_s, spec.device.g_max_s, 40)
    for part, field in (
        ("programming", "sigma"), ("drift", "nu_mean"), ("drift", "nu_std"),
        ("read_noise", "sigma"),
    ):
        before, after = getattr(spec.device, part), getattr(again, part)
        ours_, theirs = (
            np.zeros(40) if p is None else getattr(p, field).evaluate(g, d.g_max_s)
            for p, d in ((before, spec.device), (after, again))
        )
        same = np.abs(ours_ - theirs).max() <= 1e-5 * max(np.abs(ours_).max(), 1e-12)
        assert same or any(setting.startswith(f"device.{part}") for setting in lost), (part, lost)


@pytest.mark.compiled
@pytest.mark.parametrize("name", ["pcm-nandakumar2019", "pcm-hermes2023-2dev", "cmo-hfox",
                                  "generic-taox-64", "pcm-joshi2020"])
def test_an_exported_card_draws_what_the_card_says(name):
    made = ours.export_noise_model(aimc.ChipSpec.preset(name).device)
    w = np.random.default_rng(3).normal(size=(64, 64))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = ours.cross_check(made.value, w, [1.0], repeats=16, seed=6)
    assert all(row.agrees for row in rows), "\n".join(map(str, rows))
    drawn = rows[0].theirs[1]
    assert drawn > 0


def test_a_chip_with_a_counterpart_goes_there_and_back():
    spec = aimc.ChipSpec.preset("pcm-hermes2023-1dev").replace(**{
        "dac.bits": 6, "dac.noise_lsb": 0.3, "adc.bits": 9, "adc.noise_lsb": 0.7, "adc.range": 8.0,
        "weight_scale": "block", "cells_per_weight": 2, "parallel": "fill", "tile.rows": 128,
        "device.read_noise.white": {"of": "r", "power": [0.02, -0.5]},
    })
    made = ours.export_config(spec, "cpp")
    assert [remark.fate for remark in made.remarks] == []
    got = ours.import_config(made.value)
    assert {remark.fate for remark in got.remarks} == {"changed"}  # white noise that drifts
    for name in ("compensation", "weight_scale", "cells_per_weight", "parallel"):
        assert getattr(got.chip, name) == getattr(spec, name)
    assert got.chip.tile.rows == 128 and got.chip.tile.cols == spec.tile.cols
    assert got.chip.dac.noise_lsb == pytest.approx(0.3)
    assert (got.chip.adc.bits, got.chip.adc.range) == (9, pytest.approx(8.0))
    assert got.chip.adc.noise_lsb == pytest.approx(0.7)
    g = np.linspace(1e-6, spec.device.g_max_s, 9)
    for field in ("sigma", "white"):
        assert getattr(got.chip.device.read_noise, field).evaluate(
            g, spec.device.g_max_s
        ) == pytest.approx(getattr(spec.device.read_noise, field).evaluate(g, spec.device.g_max_s))


def test_what_a_configuration_cannot_say_is_listed():
    spec = aimc.ChipSpec.preset("pcm-nandakumar2019").replace(**{
        "levels": 16, "slices": 2, "faults": {"stuck_low": 0.1}, "dac.mode": "bit_serial",
        "wires": {"r_wl_ohm": 1.0, "r_bl_ohm": 1.0}, "adc.gain_sigma": 0.02,
        "compensation": "affine",
    })
    with pytest.warns(UserWarning, match="levels = 16"):
        made = ours.export_config(spec)
    found = {remark.setting: remark.fate for remark in made.remarks}
    assert found == {
        "levels": "dropped", "slices": "dropped", "faults": "dropped", "wires": "dropped",
        "dac.mode": "dropped", "adc.gain_sigma": "dropped", "adc.range": "changed",
        "compensation": "changed",
    }
    layer = AnalogLinear(5, 3, rpu_config=made.value).eval()
    layer.drift_analog_weights(DAY)
    assert torch.isfinite(layer(torch.randn(2, 5))).all()


def test_bad_input_names_the_next_step():
    with pytest.raises(UsageError, match="no such kind.*Choose one of torch, cpp"):
        ours.export_config(aimc.ChipSpec.preset("ideal"), "cuda")
    with pytest.raises(UsageError, match="There are 0 times.*Give at least one time"):
        ours.cross_check(peer.PCMLikeNoiseModel(), np.ones((2, 2)), [])
    with pytest.raises(InputError, match="has no analog layer.*convert_to_analog"):
        ours.import_layers(torch.nn.Linear(2, 2))
    config = settings_off(TorchInferenceRPUConfig())
    config.forward.out_res = float("nan")
    with pytest.raises(InputError, match="forward.out_res is nan.*an ideal converter"):
        ours.import_config(config)
    config = settings_off(TorchInferenceRPUConfig())
    config.forward.out_noise = 1e9
    with pytest.raises(InputError, match="Field 'adc.noise_lsb'.*in range"):
        ours.import_config(config)
    broken = AnalogLinear(2, 2, rpu_config=settings_off(TorchInferenceRPUConfig()))
    broken.set_weights(torch.full((2, 2), float("nan")), torch.zeros(2))
    with pytest.raises(InputError, match="Weights of '' are not finite"):
        ours.import_layers(broken)


@pytest.mark.parametrize("columnwise", [False, True])
def test_learned_scales_of_outputs_are_part_of_the_imported_weights(columnwise):
    torch.manual_seed(5)
    config = settings_off(TorchInferenceRPUConfig())
    config.forward.is_perfect = True
    config.mapping.learn_out_scaling = True
    config.mapping.out_scaling_columnwise = columnwise
    layer = AnalogLinear(9, 6, rpu_config=config).eval()
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if "scal" in name:
                parameter.copy_(0.5 + torch.rand_like(parameter))
    assert any("scal" in name for name, _ in layer.named_parameters())
    found = ours.import_layers(layer)[""]
    x = torch.randn(4, 9)
    wanted = x.numpy() @ found.matrix.w + found.bias
    assert wanted == pytest.approx(layer(x).detach().numpy(), abs=1e-6)
    assert found.matrix.spec.dac.bits == found.matrix.spec.adc.bits == "ideal"
