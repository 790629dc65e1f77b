"""Parameter files as CrossSim 3 writes them become chips, with a list of what does not fit."""

from __future__ import annotations

import copy
import json
import warnings

import numpy as np
import pytest

import aimc_sim as aimc
from aimc_sim.errors import InputError
from aimc_sim.interop.crosssim import import_parameters


def converter(model, bits, **more):
    mvm = {"model": model, "bits": bits, "signed": True, **more}
    return {"_match": True, "mvm": mvm, "vmm": copy.deepcopy(mvm)}


def error(model="IdealDevice", magnitude=0.0):
    return {"enable": model != "IdealDevice", "model": model, "magnitude": magnitude}


def parameters():
    """What the peer writes with its defaults, and converters of 8 bits."""
    span = {"clipping": False, "min": -1.0, "max": 1.0, "percentile": None}
    return {
        "core": {
            "style": 1, "rows_max": 128, "cols_max": 64, "weight_bits": 0,
            "complex_matrix": False, "complex_input": False,
            "balanced": {"style": 1, "interleaved_posneg": False, "subtract_current_in_xbar": True},
            "bit_sliced": {"style": 1, "num_slices": 2}, "offset": {"style": 1},
            "mapping": {
                "weights": {
                    "clipping": True, "min": None, "max": None, "percentile": 1.0,
                    "row_partition_priority": [], "col_partition_priority": [],
                    "row_partition_strategy": 1, "col_partition_strategy": 1,
                },
                "inputs": {"_match": True, "mvm": span, "vmm": dict(span)},
            },
        },
        "simulation": {"useGPU": False, "gpu_id": 0},
        "xbar": {
            "device": {
                "cell_bits": 0, "Rmin": 1e4, "Rmax": 1e5, "time": 0,
                "infinite_on_off_ratio": False, "clip_conductance": False,
                "read_noise": error(), "programming_error": error(), "drift_error": error(),
            },
            "array": {
                "Icol_max": 0,
                "parasitics": {"enable": False, "Rp_row": 0, "Rp_col": 0, "gate_input": False},
            },
            "adc": converter(
                "QuantizerADC", 8, stochastic_rounding=False, adc_per_ibit=False,
                calibrated_range=[-9.0, 9.0], adc_range_option=1,
            ),
            "dac": converter("SignMagnitudeDAC", 8, input_bitslicing=False, slice_size=1),
        },
    }


@pytest.fixture
def imported(tmp_path):
    def read(data):
        path = tmp_path / "params.json"
        path.write_text(data if isinstance(data, str) else json.dumps(data), "utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return import_parameters(path)

    return read


def fates(got):
    return {remark.setting: remark.fate for remark in got.remarks}


def both(data, which, **changes):
    for op in ("mvm", "vmm"):
        data["xbar"][which][op].update(changes)


def test_a_plain_file_is_a_chip(imported, tmp_path):
    got = imported(parameters())
    chip = got.chip
    assert (chip.tile.rows, chip.tile.cols) == (128, 128)
    assert (chip.device.g_min_s, chip.device.g_max_s) == (pytest.approx(1e-5), pytest.approx(1e-4))
    assert (chip.dac.bits, chip.dac.mode, chip.adc.bits) == (8, "amplitude", 8)
    # 9 currents of a cell at 1/Rmin are 10 of its range, 0.1 to 1
    assert chip.adc.range == pytest.approx(10.0)
    assert chip.levels is None and chip.wires is None and chip.device.programming is None
    assert fates(got) == {"core.mapping.inputs.mvm.min, max": "changed"}
    chip.to_toml(tmp_path / "chip.toml")
    assert aimc.load_chip(tmp_path / "chip.toml") == chip


@pytest.mark.parametrize(
    ("model", "sigma"),
    [
        ("NormalIndependentDevice", lambda r: 0.02 + 0 * r),
        ("NormalProportionalDevice", lambda r: 0.02 * r),
        ("NormalInverseProportionalDevice", lambda r: 0.02 / r),
        ("UniformIndependentDevice", lambda r: 0.02 / 12**0.5 + 0 * r),
        ("UniformProportionalDevice", lambda r: 0.02 / 12**0.5 * r),
    ],
)
def test_generic_errors_are_sigmas_in_units_of_the_largest_conductance(imported, model, sigma):
    data = parameters()
    data["xbar"]["device"]["programming_error"] = error(model, 0.02)
    data["xbar"]["device"]["read_noise"] = error(model, 0.02)
    got = imported(data)
    device, r = got.chip.device, np.linspace(0.1, 1, 10)
    for part in (device.programming, device.read_noise):
        assert part.sigma.evaluate(r * 1e-4, 1e-4) == pytest.approx(1e-4 * sigma(r))
    assert device.read_noise.spectrum == "white" and not device.read_noise.relative
    changed = {"xbar.device.programming_error", "xbar.device.read_noise"}
    assert changed <= fates(got).keys() if model.startswith("Uniform") else True


@pytest.mark.compiled
def test_cells_of_a_generic_device_err_by_its_magnitude(imported):
    data = parameters()
    data["xbar"]["device"]["programming_error"] = error("NormalProportionalDevice", 0.03)
    spec = imported(data).chip
    row = aimc.predict(spec, [5e-5], [0.0], n_cells=31_250)[0]
    assert row.programmed_std_s == pytest.approx(0.03 * 5e-5, rel=0.02)


def test_bits_slices_lines_and_shared_adcs_have_counterparts(imported):
    data = parameters()
    data["core"] |= {"style": 2, "weight_bits": 8}
    data["core"]["bit_sliced"] |= {"num_slices": 4}
    data["xbar"]["device"]["cell_bits"] = 2
    data["xbar"]["array"]["parasitics"] = {"enable": True, "Rp_row": 1.5, "Rp_col": 2.5}
    both(data, "dac", input_bitslicing=True)
    both(data, "adc", model="SarADC", adc_per_ibit=True, adc_range_option=3, group_size=8,
         sigma_capacitor=0.02, calibrated_range=None)
    got = imported(data)
    chip = got.chip
    assert (chip.levels, chip.slices, chip.dac.mode) == (4, 4, "bit_serial")
    assert chip.wires.segments_ohm == (1.5, 2.5)
    assert (chip.adc.columns_per_adc, chip.adc.unit_mismatch) == (8, 0.02)
    # a step is what one level of one cell changes under full drive
    assert chip.adc.range / 127 == pytest.approx(1 / 3)
    assert fates(got)["xbar.adc.mvm.sigma_capacitor"] == "defect"
    assert fates(got)["core.bit_sliced.num_slices"] == "changed"


def test_named_devices_are_our_cards_of_the_same_source(imported):
    data = parameters()
    for which in ("programming_error", "drift_error"):
        data["xbar"]["device"][which] = error("SONOS")
    got = imported(data)
    card = aimc.ChipSpec.preset("sonos-agrawal2022").device
    assert got.chip.device == card.replace(read_noise=None)
    assert fates(got)["xbar.device.Rmin, Rmax"] == "changed"


def test_the_error_that_vanishes_with_time_is_said_and_stays(imported):
    data = parameters()
    data["xbar"]["device"] |= {
        "programming_error": error("NormalIndependentDevice", 0.02), "time": 3600,
    }
    got = imported(data)
    assert fates(got)["xbar.device.programming_error"] == "defect"
    assert fates(got)["xbar.device.time"] == "changed"
    assert got.chip.device.programming is not None


def test_what_has_no_counterpart_is_listed(imported, tmp_path):
    data = parameters()
    data["core"]["balanced"] |= {"style": 2, "subtract_current_in_xbar": False}
    data["core"]["mapping"]["weights"] |= {"percentile": 0.99, "row_partition_strategy": 2}
    data["xbar"]["array"]["Icol_max"] = 20
    data["xbar"]["device"]["drift_error"] = error("MyDrift", 0.1)
    both(data, "adc", stochastic_rounding=True, calibrated_range=[-2.0, 4.0], gain_db=60)
    data["xbar"]["adc"]["_match"] = False
    data["xbar"]["adc"]["vmm"]["bits"] = 4
    got = imported(data)
    assert {name for name, fate in fates(got).items() if fate == "dropped"} == {
        "core.balanced.style", "core.balanced.subtract_current_in_xbar",
        "core.mapping.weights.percentile", "xbar.array.Icol_max", "xbar.device.drift_error",
        "xbar.adc.mvm.stochastic_rounding", "xbar.adc.mvm.gain_db", "xbar.adc.vmm",
    }
    assert fates(got)["xbar.adc.mvm.calibrated_range"] == "changed"
    assert got.chip.adc.range == pytest.approx(4.0 / 0.9)
    with pytest.warns(UserWarning, match="Icol_max = 20"):
        import_parameters(tmp_path / "params.json")


def test_a_misspelt_parameter_is_listed_and_not_taken(imported):
    # the peer takes any name and never says so
    data = parameters()
    data["xbar"]["device"]["Rmim"] = 5e3
    data["xbar"]["adc"]["mvm"]["bitz"] = 4
    found = fates(imported(data))
    assert found["xbar.device.Rmim"] == found["xbar.adc.mvm.bitz"] == "dropped"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"Rmin": "abc"}, "xbar.device.Rmin is 'abc', no number"),
        ({"Rmin": -5.0}, "Rmin is -5 ohm.*0 < Rmin < Rmax"),
        ({"Rmin": 1e6}, "0 < Rmin < Rmax"),
        ({"Rmax": float("nan")}, "no number"),
        ({"programming_error": error("NormalIndependentDevice", -1.0)}, "magnitude is -1"),
        ({"programming_error": error("NormalIndependentDevice", 9.0)}, "more than the largest"),
        ({"read_noise": 3}, "'xbar.device.read_noise' is no object"),
    ],
)
def test_numbers_that_are_no_chip_are_refused(imported, change, said):
    data = parameters()
    data["xbar"]["device"] |= change
    with pytest.raises(InputError, match=said):
        imported(data)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not JSON"), ("[1, 2]", "sections 'core' and 'xbar'"), ("{}", "sections 'core'"),
        ('{"core": {}, "xbar": {"default": {}}}', "no device.*CrossSim 4"),
    ],
)
def test_another_file_is_refused(imported, text, said):
    with pytest.raises(InputError, match=said):
        imported(text)


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        import_parameters(tmp_path / "none.json")
