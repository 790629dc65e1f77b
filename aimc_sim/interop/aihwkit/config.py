"""Configurations of aihwkit (RPUConfig for inference) as chips.

Everything is read from attributes, so that this module needs no aihwkit. What a field means is
in aihwkit/simulator/parameters/io.py and mapping.py of version 1.1 and 1.2.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from aimc_sim.cards import DeviceSpec
from aimc_sim.errors import InputError, UsageError
from aimc_sim.fields import validated
from aimc_sim.interop.aihwkit.noise import Defects, read_device
from aimc_sim.interop.remarks import Imported, Notes
from aimc_sim.specs import ChipSpec

_MOST_ROWS = 65536
_MOST_BITS = 16
_US = 1e-6
# what a product of the peer can suffer from and ours cannot: where it is off, and why it is left
_OFF: dict[str, tuple[Any, str]] = {
    "inp_sto_round": (False, "stochastic rounding of inputs"),
    "inp_asymmetry": (0.0, "inputs of both signs are driven in one pass"),
    "out_noise_std": (0.0, "noise is as strong at every output (and the peer's torch tile takes "
                           "any value for 1)"),
    "out_sto_round": (False, "stochastic rounding of outputs"),
    "out_scale": (1.0, "a factor in logic, not of the chip"),
    "out_asymmetry": (0.0, "inputs of both signs are driven in one pass"),
    "ir_drop": (0.0, "an approximate formula; resistive lines here are [wires] with ohms"),
    "out_nonlinearity": (0.0, "an S-shaped line before the ADC; a table of its codes is inl_lsb"),
    "out_nonlinearity_std": (0.0, "an S-shaped line before the ADC"),
    "slope_calibration": (0.0, "an S-shaped line before the ADC"),
    "v_offset_std": (0.0, "offsets of voltages of columns"),
    "v_offset_w_min": (-1.0, "offsets of voltages of columns"),
    "r_series": (0.0, "resistances here are those of [wires], in ohms"),
    "w_read_asymmetry_dtod": (0.0, "cells conduct alike in both directions"),
    "nm_thres": (0.0, "a bound of the scale of inputs"),
    "apply_xdep_pcm_read_noise": (False, "read noise that depends on the input"),
}
# settings of what is off, or of numbers that a chip does not have
_SILENT = (
    "ir_drop_g_ratio", "ir_drop_rs", "ir_drop_segments", "ir_drop_time_step_resolution_scale",
    "ir_drop_v_read", "split_mode_bit_shift", "xdep_pcm_read_noise_scale", "adc_quantization",
    "adc_frequency", "ir_drop_integration_sum", "max_bm_factor", "max_bm_res",
    "bm_test_negative_bound",
)
_HERE = (
    "is_perfect", "mv_type", "inp_bound", "inp_noise", "inp_res", "out_bound", "out_noise",
    "out_res", "bound_management", "noise_management", "w_noise", "w_noise_type",
)
_MAPPING_HERE = (
    "digital_bias", "weight_scaling_omega", "weight_scaling_columnwise", "max_input_size",
    "max_output_size",
)


def import_config(
    config: Any, *, largest_weight: float = 1.0, defects: Defects = "mended"
) -> Imported:
    """Return the chip of an InferenceRPUConfig, TorchInferenceRPUConfig or one derived of them.

    Parameters
    ----------
    config : the configuration, or a preset of aihwkit.
    largest_weight : largest |weight| of the layer as it lies on its tile. It matters where the
        configuration leaves weights as they are (mapping.weight_scaling_omega = 0): out_bound,
        out_noise and w_noise are then in units of the weights (`import_layers` knows them).
    defects : as of `import_noise_model`.

    A resolution 1/(2^b - 2) is b bits. An output bound is adc.range over the largest weight: so
    many currents of a cell at g_max. Output noise becomes adc.noise_lsb, input noise
    dac.noise_lsb, and weight noise white read noise of the cells. A tile takes two bit lines for
    every output (and for each of its pairs of cells).

    Raises UsageError for a configuration without a noise model (one of training), and for a
    largest_weight that is no positive number; InputError where its numbers are no chip.
    """
    name = type(config).__name__
    asked = f"import the aihwkit configuration {name}"
    if not hasattr(config, "noise_model") or not hasattr(config, "forward"):
        raise UsageError(
            asked, "it has no noise model of programmed cells",
            "give an InferenceRPUConfig, a TorchInferenceRPUConfig, or one derived of them",
        )
    if not (math.isfinite(largest_weight) and largest_weight > 0):
        raise UsageError(
            asked, f"the largest weight is {largest_weight}", "give a positive number"
        )
    notes = Notes()
    device, cells = read_device(config.noise_model, defects, notes)
    # weight that a cell at g_max stands for
    omega = float(config.mapping.weight_scaling_omega)
    unit = omega if omega > 0 else largest_weight
    chip: dict[str, Any] = {"name": f"{device.name} ({name})", "device": device, **cells}
    chip |= _read_mapping(config.mapping, cells.get("cells_per_weight", 1), notes)
    forward = config.forward
    if bool(forward.is_perfect) or _text(forward.mv_type) == "Ideal":
        chip |= {"dac": {"bits": "ideal"}, "adc": {"bits": "ideal"}}
    else:
        chip["dac"] = _read_dac(forward, notes)
        chip["adc"] = _read_adc(forward, unit, notes)
        chip["device"] = _with_weight_noise(device, forward, unit, notes)
        _note_rest(forward, notes)
    if omega <= 0 and "range" in chip["adc"]:
        notes.add(
            "mapping.weight_scaling_omega", omega, "changed",
            f"weights are not rescaled: bounds and noise are of a largest weight of "
            f"{largest_weight:.6g}",
        )
    chip["compensation"] = _read_compensation(config.drift_compensation, notes)
    _note_training(config, notes)
    return Imported(validated(ChipSpec, chip, asked), notes.say(f"import {name}"))


def full_scale(config: Any) -> float | None:
    """Return the input at the DACs' end, where it does not follow each vector's largest element."""
    forward = config.forward
    if bool(forward.is_perfect) or _text(forward.mv_type) == "Ideal":
        return None
    management = _text(forward.noise_management)
    bound = float(forward.inp_bound) if forward.inp_bound > 0 else 1.0
    if management == "None":
        return bound
    if management == "Constant":
        return bound * (float(forward.nm_thres) if forward.nm_thres > 0 else 1.0)
    return None


def bits_of(resolution: float) -> tuple[int | None, bool]:
    """Return the bits of a resolution and whether they are exactly it; None: infinitely many.

    b bits have 2^b - 2 steps; a resolution above 1 is a number of steps.
    """
    if resolution <= 0:
        return None, True
    steps = resolution if resolution > 1 else 1 / resolution
    bits = math.log2(steps + 2)
    whole = min(max(round(bits), 2), _MOST_BITS)
    return whole, abs(bits - whole) < 1e-6


def _text(value: Any) -> str:
    return str(getattr(value, "value", value))


def _bits(name: str, resolution: float, needed: str, notes: Notes) -> int | str:
    """Return the bits of a converter; so many that nothing is seen of them where it is `needed`."""
    if not math.isfinite(resolution):
        raise InputError(
            "import an aihwkit configuration", f"its forward.{name} is {resolution}",
            "give a resolution, or one <= 0 for an ideal converter",
        )
    bits, exact = bits_of(float(resolution))
    if bits is not None:
        if not exact:
            steps = resolution if resolution > 1 else 1 / resolution
            notes.add(
                f"forward.{name}", float(resolution), "changed",
                f"{steps:.6g} steps over the range; {bits} bits have {2**bits - 2}",
            )
        return bits
    if not needed:
        return "ideal"
    notes.add(
        f"forward.{name}", float(resolution), "changed",
        f"{_MOST_BITS} bits stand for infinitely many: an ideal converter has no {needed}",
    )
    return _MOST_BITS


def _read_dac(forward: Any, notes: Notes) -> dict[str, Any]:
    noise = float(forward.inp_noise)
    bits = _bits("inp_res", forward.inp_res, "noise" if noise > 0 else "", notes)
    dac: dict[str, Any] = {"bits": bits}
    bound = float(forward.inp_bound)
    if noise > 0:
        # a step of the DAC is bound / limit, and its end here the end of the input
        limit = 2 ** (int(bits) - 1) - 1
        dac["noise_lsb"] = noise / (bound if bound > 0 else 1.0) * limit
    management = _text(forward.noise_management)
    if management not in ("AbsMax", "None", "Constant"):
        notes.add(
            "forward.noise_management", management, "changed",
            "every vector is scaled to its largest element",
        )
    elif management != "AbsMax":
        notes.add(
            "forward.noise_management", management, "changed",
            f"inputs have a fixed range of {full_scale_text(forward)}: give map_matrix inputs "
            "that reach it (`calibrate`; import_layers does)",
        )
    elif bound != 1.0:
        notes.add(
            "forward.inp_bound", bound, "dropped",
            "every vector is scaled to its largest element, which is the end of the DACs",
        )
    if _text(forward.bound_management) != "None":
        notes.add(
            "forward.bound_management", _text(forward.bound_management), "dropped",
            "a product that clips is not repeated with smaller inputs; clipped conversions are "
            "counted (AnalogMatrix.saturation)",
        )
    return dac


def full_scale_text(forward: Any) -> str:
    """Return the fixed range of inputs in words."""
    constant = _text(forward.noise_management) == "Constant" and forward.nm_thres > 0
    bound = float(forward.inp_bound) if forward.inp_bound > 0 else 1.0
    return f"{bound * (float(forward.nm_thres) if constant else 1.0):.6g}"


def _read_adc(forward: Any, unit: float, notes: Notes) -> dict[str, Any]:
    noise, bound = float(forward.out_noise), float(forward.out_bound)
    lacks = " and no ".join(
        word for word, on in (("noise", noise > 0), ("end", bound > 0)) if on
    )
    bits = _bits("out_res", forward.out_res, lacks, notes)
    if bits == "ideal":
        return {"bits": bits}
    adc: dict[str, Any] = {"bits": bits}
    if bound <= 0:
        notes.add(
            "forward.out_bound", bound, "changed",
            "an ADC has an end: the largest output of a calibration signal",
        )
        if noise > 0:
            notes.add("forward.out_noise", noise, "dropped", "its unit is the output bound's")
        return adc
    adc["range"] = bound / unit
    adc["noise_lsb"] = noise / bound * (2 ** (int(bits) - 1) - 1)
    return adc


def _with_weight_noise(
    device: DeviceSpec, forward: Any, unit: float, notes: Notes
) -> DeviceSpec:
    """Return the card with the white noise of every product's weights as read noise of cells.

    AdditiveConstant: sigma of a weight, w_noise, is that of two cells. PCMRead: sigma =
    w_noise sqrt(|w|), in the cell that carries it.
    """
    kind, size = _text(forward.w_noise_type), float(forward.w_noise)
    if kind == "None" or size <= 0:
        return device
    if kind not in ("AdditiveConstant", "PCMRead"):
        notes.add("forward.w_noise_type", kind, "dropped", "this kind of noise is not known here")
        return device
    power = 0.0 if kind == "AdditiveConstant" else 0.5
    share = size / unit / math.sqrt(2) if kind == "AdditiveConstant" else size / math.sqrt(unit)
    if kind == "PCMRead" and device.g_min_s > 0:
        notes.add(
            "forward.w_noise", size, "changed",
            "the noise of a cell follows its conductance, not its distance to g_min",
        )
    span_s = device.g_max_s - device.g_min_s
    known = device.read_noise
    if known is None or not known.relative:
        curve = {"of": "r", "unit_s": span_s, "power": (share, power)}
    else:
        curve = {"of": "r", "power": (share * span_s / device.g_max_s, power - 1.0)}
        notes.add(
            "forward.w_noise", size, "changed",
            "white noise relative to the programmed conductance: it drifts with the cell, and a "
            "cell at exactly 0 has none",
        )
    if known is None:
        noise: dict[str, Any] = {"sigma": curve, "relative": False, "spectrum": "white"}
    else:
        noise = known.model_dump() | {"white": curve}
    asked = f"import the weight noise of an aihwkit configuration for '{device.name}'"
    return validated(DeviceSpec, device.model_dump() | {"read_noise": noise}, asked)


def _note_rest(forward: Any, notes: Notes) -> None:
    """Take down every setting of a product that is on there and does not exist here."""
    if _text(forward.mv_type) != "OnePass":
        notes.add(
            "forward.mv_type", _text(forward.mv_type), "dropped",
            "inputs of both signs are driven at once (dac.mode = 'bit_serial' has bit planes)",
        )
    constant = _text(forward.noise_management) == "Constant"
    for field in dataclasses.fields(forward):
        value = getattr(forward, field.name)
        if field.name in _OFF:
            off, why = _OFF[field.name]
            if value != off and not (field.name == "nm_thres" and constant):
                notes.add(f"forward.{field.name}", value, "dropped", why)
        elif field.name not in (*_HERE, *_SILENT) and value != field.default:
            notes.add(f"forward.{field.name}", value, "dropped", "this setting is not known here")


def _read_mapping(mapping: Any, cells_per_weight: int, notes: Notes) -> dict[str, Any]:
    rows, outputs = int(mapping.max_input_size), int(mapping.max_output_size)
    each = 2 * cells_per_weight
    if not mapping.digital_bias:
        notes.add(
            "mapping.digital_bias", False, "dropped",
            "a bias is added in logic; here no row of cells holds it",
        )
    for name, size in (("max_input_size", rows), ("max_output_size", outputs)):
        if size <= 0:
            notes.add(
                f"mapping.{name}", size, "changed",
                f"a tile has an end: {_MOST_ROWS} lines",
            )
    for field in dataclasses.fields(mapping):
        value = getattr(mapping, field.name)
        if field.name in _MAPPING_HERE or value == field.default:
            continue
        notes.add(
            f"mapping.{field.name}", value, "training",
            "scales of outputs are part of the weights that import_layers reads",
        )
    return {
        "tile": {
            "rows": rows if 0 < rows < _MOST_ROWS else _MOST_ROWS,
            "cols": min(outputs * each, _MOST_ROWS) if outputs > 0 else _MOST_ROWS,
        },
        "weight_scale": "column" if mapping.weight_scaling_columnwise else "block",
    }


def _read_compensation(compensation: Any, notes: Notes) -> str:
    kind = "none" if compensation is None else type(compensation).__name__
    if kind == "none":
        return "none"
    if kind == "GlobalDriftCompensation":
        return "global"
    if kind == "GlobalDriftCompensationWithExactReference":
        notes.add(
            "drift_compensation", kind, "changed",
            "a global gain is relative to the targets here in any case",
        )
        return "global"
    if kind == "PerColumnDriftCompensation":
        notes.add(
            "drift_compensation", kind, "changed",
            "gains are fitted to random patterns, not found from the mean of one-hot reads",
        )
        return "column"
    notes.add("drift_compensation", kind, "dropped", "this compensation is not known here")
    return "none"


def _note_training(config: Any, notes: Notes) -> None:
    why = "hardware-aware training; weights are imported as they are"
    for name in ("clip", "remap", "modifier"):
        part = getattr(config, name, None)
        if part is None or _text(getattr(part, "type", "None")) == "None":
            continue
        if name == "modifier" and getattr(part, "enable_during_test", False):
            notes.add(f"{name}.enable_during_test", True, "dropped", "weights change at each read")
        notes.add(name, f"type {_text(part.type)}", "training", why)
    pre_post = getattr(config, "pre_post", None)
    learned = getattr(pre_post, "input_range", None)
    if learned is not None and learned.enable:
        notes.add(
            "pre_post.input_range", "enabled", "changed",
            "a range of inputs for each layer: give map_matrix inputs that reach it (`calibrate`; "
            "import_layers does)",
        )
    quantised = getattr(pre_post, "periph_quant", None)
    if quantised is not None and quantised.n_bits > 0:
        notes.add(
            "pre_post.periph_quant.n_bits", quantised.n_bits, "dropped",
            "scales and bias are exact in logic",
        )
    if getattr(config, "act_quant_config", None) is not None:
        notes.add("act_quant_config", "given", "dropped", "outputs are exact in logic")
