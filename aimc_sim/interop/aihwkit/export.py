"""Chips as configurations of aihwkit, which must be installed."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from aimc_sim.cards import DeviceSpec
from aimc_sim.errors import UsageError
from aimc_sim.interop.aihwkit.model_export import model_of, peer_class
from aimc_sim.interop.remarks import Exported, Notes
from aimc_sim.specs import ChipSpec, check_chip

_POINTS = 65  # conductances at which white noise is looked at


def export_config(
    spec: ChipSpec, kind: Literal["torch", "cpp"] = "torch"
) -> Exported[Any]:
    """Return a chip as a configuration of aihwkit for inference.

    kind : "torch" makes a TorchInferenceRPUConfig, "cpp" an InferenceRPUConfig for the compiled
        tiles, which alone know the white noise of weights.

    Weights are scaled to 1 (weight_scaling_omega), inputs to the largest of every vector, and
    there is no bound management. What a chip has and a configuration cannot say is a remark.

    Raises UsageError for another kind, what is no ChipSpec, or where aihwkit is not installed.
    """
    check_chip(spec, "export a chip to aihwkit")
    kinds = {"torch": "TorchInferenceRPUConfig", "cpp": "InferenceRPUConfig"}
    if kind not in kinds:
        raise UsageError(
            f"export a chip to aihwkit as '{kind}'", "there is no such kind",
            f"choose one of {', '.join(kinds)}",
        )
    notes = Notes()
    config = peer_class("simulator.configs", kinds[kind])()
    config.noise_model = model_of(spec.device, spec, notes, say_white=kind == "torch")
    forward, enums = config.forward, "simulator.parameters.enums"
    forward.noise_management = peer_class(enums, "NoiseManagementType").ABS_MAX
    forward.bound_management = peer_class(enums, "BoundManagementType").NONE
    _write_converters(spec, forward, notes)
    if kind == "cpp":
        _write_weight_noise(spec.device, forward, peer_class(enums, "WeightNoiseType"), notes)
    mapping = config.mapping
    mapping.weight_scaling_omega = 1.0
    mapping.weight_scaling_columnwise = spec.weight_scale == "column"
    mapping.max_input_size = spec.tile.rows
    mapping.max_output_size = max(spec.tile.cols // (2 * spec.cells_per_weight), 1)
    config.drift_compensation = _compensation(spec, notes)
    _note_rest(spec, notes)
    return Exported(config, notes.say(f"export chip '{spec.name}'"))


def _write_converters(spec: ChipSpec, forward: Any, notes: Notes) -> None:
    dac, adc = spec.dac, spec.adc
    forward.inp_bound, forward.inp_noise, forward.out_noise = 1.0, 0.0, 0.0
    forward.inp_res = -1.0
    if dac.bits != "ideal":
        forward.inp_res = 1 / (2**dac.bits - 2) if dac.bits > 1 else 1 / 2
        forward.inp_noise = dac.noise_lsb / max(2 ** (dac.bits - 1) - 1, 1)
    forward.out_res, forward.out_bound = -1.0, 0.0
    if adc.bits == "ideal":
        return
    forward.out_res = 1 / (2**adc.bits - 2) if adc.bits > 1 else 1 / 2
    if isinstance(adc.range, str):
        forward.out_bound = 10.0
        notes.add(
            "adc.range", adc.range, "changed",
            "the peer has one output bound for all columns: 10 currents of a full cell",
        )
    else:
        forward.out_bound = adc.range * adc.headroom
    forward.out_noise = adc.noise_lsb * forward.out_bound / max(2 ** (adc.bits - 1) - 1, 1)


def _write_weight_noise(card: DeviceSpec, forward: Any, kinds: Any, notes: Notes) -> None:
    """Write white noise of cells as that of weights, where it is flat or goes as sqrt(g)."""
    noise = card.read_noise
    if noise is None:
        return
    curve = noise.sigma if noise.spectrum == "white" else noise.white
    if curve is None:
        return
    g = np.linspace(0.02, 1.0, _POINTS) * card.g_max_s
    sigma = curve.evaluate(g, card.g_max_s) * (g if noise.relative else 1.0)
    share = sigma / (card.g_max_s - card.g_min_s)
    root = share / np.sqrt(g / card.g_max_s)
    if np.ptp(share) <= 1e-4 * share.max():
        forward.w_noise_type, forward.w_noise = kinds.ADDITIVE_CONSTANT, float(share[0] * 2**0.5)
    elif np.ptp(root) <= 1e-4 * root.max():
        forward.w_noise_type, forward.w_noise = kinds.PCM_READ, float(root[0])
    else:
        notes.add(
            "device.read_noise", "white", "dropped",
            "the peer's white noise is the same for all weights, or goes as sqrt(|w|)",
        )
        return
    notes.found.pop(("device.read_noise.white", "dropped"), None)


def _compensation(spec: ChipSpec, notes: Notes) -> Any:
    names = {
        "global": ("inference", "GlobalDriftCompensation"),
        "column": ("inference.compensation.drift", "PerColumnDriftCompensation"),
    }
    if spec.compensation == "none":
        return None
    if spec.compensation == "affine":
        notes.add(
            "compensation", "affine", "changed", "the peer has gains of columns and no offsets"
        )
    return peer_class(*names.get(spec.compensation, names["column"]))()


# what is written above, or says nothing about a product of one matrix
_WRITTEN = {
    "schema_version", "name", "device", "dac.bits", "dac.noise_lsb", "adc.bits", "adc.noise_lsb",
    "adc.range", "adc.headroom", "tile.rows", "tile.cols", "weight_scale", "compensation",
    "cells_per_weight", "parallel", "short_tile", "state_bits", "layout", "single_cells", "costs",
    "step_period_s", "spectrum_from_steps", "compensation_reads",
}


def _note_rest(spec: ChipSpec, notes: Notes) -> None:
    """Take down every field of a chip that is not at its default and that nothing above writes."""
    plain = ChipSpec(name=spec.name, device=spec.device).model_dump()
    for name, value in spec.model_dump().items():
        parts = {"": value}
        if isinstance(value, dict) and isinstance(plain[name], dict):
            parts = {f".{field}": v for field, v in value.items()}
        for field, v in parts.items():
            default = plain[name][field[1:]] if field else plain[name]
            if {name, name + field}.isdisjoint(_WRITTEN) and v != default:
                notes.add(name + field, v, "dropped", "the peer has no such setting")
