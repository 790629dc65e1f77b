"""Reading objects of aihwkit needs no aihwkit: stand-ins with the names and values of its own."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import aimc_sim as aimc
from aimc_sim.errors import InputError, UsageError
from aimc_sim.interop import aihwkit as ours


class SinglePairConductanceConverter:
    g_min, g_max = 0.0, 25.0


class PCMLikeNoiseModel:
    """The attributes of the peer's model as its constructor leaves them."""

    def __init__(self, **changes):
        self.g_converter = SinglePairConductanceConverter()
        self.g_max = 25.0
        self.prog_coeff, self.prog_coeff_g_max_reference = [0.26348, 1.9650, -1.1731], 25.0
        self.t_0, self.t_read = 20.0, 250e-9
        self.prog_noise_scale = self.read_noise_scale = self.drift_scale = 1.0
        self.__dict__.update(changes)


class MyNoiseModel(PCMLikeNoiseModel):
    pass


@pytest.fixture
def without_aihwkit(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("aihwkit.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "aihwkit", None)


def test_a_noise_model_is_read_by_its_attributes(without_aihwkit):
    got = ours.import_noise_model(PCMLikeNoiseModel())
    assert got.remarks == ()
    card = aimc.ChipSpec.preset("pcm-nandakumar2019").device
    assert got.chip.device.replace(zero_time=card.zero_time) == card
    assert got.chip.weight_scale == "block"


def test_scales_scale_and_zero_switches_off():
    half = ours.import_noise_model(PCMLikeNoiseModel(prog_noise_scale=0.5, drift_scale=0.25))
    card, device = aimc.ChipSpec.preset("pcm-nandakumar2019").device, half.chip.device
    g = np.linspace(0, 25e-6, 20)
    for part, field, factor in (
        ("programming", "sigma", 0.5), ("drift", "nu_mean", 0.25), ("drift", "nu_std", 0.25),
        ("read_noise", "sigma", 1.0),
    ):
        before, after = (getattr(getattr(d, part), field).evaluate(g, 25e-6)
                         for d in (card, device))
        assert after == pytest.approx(factor * before)
    off = ours.import_noise_model(PCMLikeNoiseModel(prog_noise_scale=0.0, read_noise_scale=0.0))
    assert off.chip.device.programming is None and off.chip.device.read_noise is None


def test_an_unknown_attribute_is_listed():
    with pytest.warns(UserWarning, match="1 setting without a counterpart .*humidity = 0.4"):
        got = ours.import_noise_model(PCMLikeNoiseModel(humidity=0.4))
    assert [remark.setting for remark in got.remarks] == ["noise_model.humidity"]


def test_an_unknown_model_is_refused_by_name():
    # a class of the user's may override any formula: its attributes say nothing
    with pytest.raises(UsageError, match="MyNoiseModel.*did you mean .*NoiseModel.*chip file"):
        ours.import_noise_model(MyNoiseModel())
    with pytest.raises(UsageError, match="Choose 'mended' or 'kept'"):
        ours.import_noise_model(PCMLikeNoiseModel(), defects="ignored")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"drift_scale": -1.0}, "a scale is -1"),
        ({"g_max": 0.0}, "g_max_s"),
        ({"g_max": float("nan")}, "finite number"),
        ({"prog_coeff": [0.1, -9.0]}, "rogramming.sigma is negative"),
        ({"t_0": 0.0}, "greater than 0"),
        ({"prog_coeff": None}, "not iterable"),
    ],
)
def test_numbers_that_are_no_device_are_refused(changes, said):
    with pytest.raises(InputError, match="Read an aihwkit noise model of class PCMLike") as refused:
        ours.import_noise_model(PCMLikeNoiseModel(**changes))
    assert said in str(refused.value)


@pytest.mark.parametrize("bits", range(2, 17))
def test_a_resolution_is_as_many_bits_as_it_has_steps(bits):
    from aimc_sim.interop.aihwkit.config import bits_of

    steps = 2**bits - 2
    assert bits_of(1 / steps) == bits_of(1.0 / float(np.float32(steps))) == (bits, True)
    if steps > 2:
        assert bits_of(float(steps)) == (bits, True)
    assert bits_of(1 / (steps + 2)) == (bits, False) or bits < 3


def test_a_configuration_of_training_is_refused():
    class SingleRPUConfig:
        device = None

    with pytest.raises(UsageError, match="SingleRPUConfig.*no noise model.*InferenceRPUConfig"):
        ours.import_config(SingleRPUConfig())


def test_without_the_package_making_its_objects_says_how_to_install_it(without_aihwkit):
    with pytest.raises(UsageError, match=r"cannot be imported.*pip install 'aimc-sim\[aihwkit\]'"):
        ours.export_noise_model(aimc.ChipSpec.preset("pcm-nandakumar2019"))


def test_only_a_module_has_layers():
    with pytest.raises(InputError, match="A str is no torch module. Give the model itself"):
        ours.import_layers("model.pt")
