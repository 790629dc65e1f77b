"""Parameter files of CrossSim as chips.

What a parameter means is in simulator/parameters of CrossSim 3.0 to 3.2, whose files have the
sections core, xbar and simulation. The last says how to compute, not on what, and is left out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aimc_sim.errors import InputError
from aimc_sim.fields import validated
from aimc_sim.interop.remarks import Imported, Notes
from aimc_sim.specs import ChipSpec

_PRESETS = {
    "SONOS": "sonos-agrawal2022", "PCMJoshi": "pcm-joshi2020", "RRAMMilo": "rram-milo2021",
}
_STYLES = {"BALANCED": 1, "BITSLICED": 2, "OFFSET": 3, "CALIBRATED": 1, "MAX": 2, "GRANULAR": 3,
           "ONE_SIDED": 1, "TWO_SIDED": 2}
_MOST_LINES = 65536
_HERE = "this parameter is not known here; CrossSim itself takes any name"
_FORM = "a JSON object with the sections 'core' and 'xbar'"


def import_parameters(path: str | Path) -> Imported:
    """Return the chip that a JSON file of CrossSim's parameters describes.

    Conductances are 1/Rmax (or 0) to 1/Rmin. Errors of the generic devices are sigmas in units of
    the largest conductance, of the target, or of its inverse; SONOS, PCMJoshi and RRAMMilo are our
    presets of the same sources, with the ranges of those. A calibrated ADC range, in currents of a
    cell at 1/Rmin, is adc.range; input bit slices of 1 bit that are converted each are
    dac.mode = "bit_serial"; sigma_capacitor is adc.unit_mismatch, and a SAR group shares an ADC.
    The converters are those of the products of matrices with vectors ("mvm").

    Remarks say what has no counterpart, which includes every parameter of an unknown name, and
    where the peer's defects act: its programming error vanishes at time > 0 without a drift model.

    Raises InputError for a file that is not such a JSON, or numbers that are no chip.
    """
    asked = f"import CrossSim parameters {path}"
    try:
        data = json.loads(Path(path).read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(asked, f"it cannot be read ({error})", "check the path") from None
    except json.JSONDecodeError as error:
        raise InputError(asked, f"it is not JSON ({error})", "mend that line") from None
    if not (isinstance(data, dict) and {"core", "xbar"} <= data.keys()):
        raise InputError(
            asked, f"it is not {_FORM}",
            "give the parameters of CrossSim 3 as it writes them (to_json)",
        )
    if not isinstance(data["xbar"], dict) or "device" not in data["xbar"]:
        raise InputError(
            asked, "its xbar has no device: crossbars by name are of CrossSim 4",
            "give the file of one crossbar, as CrossSim 3 writes it",
        )
    notes = Notes()
    root = _Part(data, "", asked, notes)
    chip = _chip_of(root, Path(path).stem)
    root.finish()
    return Imported(validated(ChipSpec, chip, asked), notes.say(asked))


class _Part:
    """A section of the file: values are taken once, and what is left at the end is unknown."""

    def __init__(self, data: Any, path: str, asked: str, notes: Notes) -> None:
        if not isinstance(data, Mapping):
            raise InputError(
                asked, f"its section '{path.rstrip('.')}' is no object", f"give {_FORM}"
            )
        self.data, self.path, self.asked, self.notes = dict(data), path, asked, notes
        self.parts: list[_Part] = []

    def part(self, name: str) -> _Part:
        data = self.data.pop(name, None) or {}
        found = _Part(data, f"{self.path}{name}.", self.asked, self.notes)
        self.parts.append(found)
        return found

    def take(self, name: str, default: Any = None) -> Any:
        """Return a value as it is there."""
        return self.data.pop(name, default)

    def number(self, name: str, default: float) -> float:
        """Return a finite number. Raises InputError, also for text that the peer would take."""
        value = self.data.pop(name, default)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (is_number and math.isfinite(value)):
            raise InputError(
                self.asked, f"its {self.path}{name} is {value!r}, no number", "give a number"
            )
        return float(value)

    def style(self, name: str, default: int) -> int:
        """Return the number of a choice, which may be written as its name."""
        value = self.data.pop(name, default)
        known = _STYLES.get(value) if isinstance(value, str) else value
        if not isinstance(known, int):
            raise InputError(
                self.asked, f"its {self.path}{name} is {value!r}, no known choice",
                "give 1, 2 or 3",
            )
        return known

    def note(self, name: str, value: Any, fate: Any, why: str) -> None:
        self.notes.add(self.path + name, value, fate, why)

    def off(self, name: str, off: Any, why: str) -> None:
        """Take a value that has no counterpart; it is a remark where it is not off."""
        value = self.data.pop(name, off)
        if value != off and value is not None:
            self.note(name, value, "dropped", why)

    def finish(self) -> None:
        """Take down every value that nobody took."""
        for name, value in self.data.items():
            self.note(name, value, "dropped", _HERE)
        for part in self.parts:
            part.finish()


def _chip_of(root: _Part, name: str) -> dict[str, Any]:
    root.take("simulation")
    core, xbar = root.part("core"), root.part("xbar")
    device_part = xbar.part("device")
    cell_bits = int(device_part.number("cell_bits", 0))
    device = _device(device_part, name)
    chip = {"name": name, "device": device, "weight_scale": "block", "state_bits": 16}
    chip |= _core(core, cell_bits)
    span = 1 - device["g_min_s"] / device["g_max_s"]
    dac_part, adc_part = (_converter(xbar.part(which)) for which in ("dac", "adc"))
    per_bit = bool(adc_part.take("adc_per_ibit", False))
    chip["dac"] = _dac(dac_part, per_bit)
    chip["adc"] = _adc(adc_part, chip, span, per_bit)
    wires = _array(xbar.part("array"))
    return chip | ({"wires": wires} if wires else {})


def _converter(paired: _Part) -> _Part:
    """Return the parameters of products with vectors; those of the transpose are left."""
    match, vmm = paired.take("_match", True), paired.take("vmm")
    own = paired.part("mvm")
    if not match and vmm is not None and dict(vmm) != own.data:
        paired.note("vmm", "other values", "dropped", "the transpose has converters of this kind")
    return own


def _device(part: _Part, name: str) -> dict[str, Any]:
    r_min, r_max = part.number("Rmin", 1000.0), part.number("Rmax", 10000.0)
    if not 0 < r_min < r_max:
        raise InputError(
            part.asked, f"its Rmin is {r_min:g} ohm and its Rmax {r_max:g} ohm",
            "give two resistances, 0 < Rmin < Rmax",
        )
    infinite = bool(part.take("infinite_on_off_ratio", False))
    clip, time = bool(part.take("clip_conductance", False)), part.number("time", 0.0)
    errors = {which: _error(part.part(which)) for which in (
        "programming_error", "read_noise", "drift_error"
    )}
    low, high = 0.0 if infinite else 1 / r_max, 1 / r_min
    written, read, drift = errors.values()
    if time > 0:
        part.note("time", time, "changed", "time passes by `wait`, it is no part of a chip")
        if written is not None and drift is None:
            part.note(
                "programming_error", written[0], "defect",
                "at time > 0 without a drift model the peer's programming error vanishes; here "
                "it stays",
            )
    named = next((kind for kind, _ in filter(None, (written, drift)) if kind in _PRESETS), None)
    if named is not None:
        card = ChipSpec.preset(_PRESETS[named]).device
        part.note(
            "Rmin, Rmax", f"{r_min:g}, {r_max:g}", "changed",
            f"errors in siemens belong to the range of the data: {1e6 * card.g_min_s:g} to "
            f"{1e6 * card.g_max_s:g} uS",
        )
        device = card.model_dump(exclude_unset=True) | {
            "read_noise": None, "g_min_s": card.g_min_s, "g_max_s": card.g_max_s,
        }
        low, high = card.g_min_s, card.g_max_s
        ages = card.drift is not None or card.relaxation is not None
        if ages != (drift is not None):
            part.note("drift_error", "on" if drift else "off", "changed",
                      "the card ages" if ages else "the card has no formula of ageing")
    else:
        device = {
            "name": name, "g_min_s": low, "g_max_s": high,
            "description": "Parameters of CrossSim",
            "caveats": ("not a device: generic errors",),
        }
        if written is not None:
            device["programming"] = {"sigma": _curve(part, "programming_error", *written)}
        if drift is not None:
            part.note("drift_error", drift[0], "dropped", "no formula of that name is known here")
    if clip:
        device |= {"floor_s": low, "ceiling_s": high}
        part.note("clip_conductance", True, "changed", "reads find nothing outside, cells may be")
    if read is not None:
        sigma = _curve(part, "read_noise", *read)
        # relative noise follows a cell as it ages
        device["read_noise"] = {"sigma": sigma, "relative": False, "spectrum": "white"}
    return _in_siemens(device, high)


def _in_siemens(device: dict[str, Any], g_max_s: float) -> dict[str, Any]:
    """Give curves of ours, in units of the largest conductance, their unit."""
    for part in ("programming", "read_noise"):
        found = device.get(part)
        if isinstance(found, dict) and found["sigma"].get("unit_s") == "g_max":
            found["sigma"]["unit_s"] = g_max_s
    return device


def _error(part: _Part) -> tuple[str, float] | None:
    """Return model and size of an error, None where it is off."""
    on, kind = bool(part.take("enable", False)), str(part.take("model", "IdealDevice"))
    size = part.number("magnitude", 0.0)
    if not on or kind == "IdealDevice":
        return None
    if size < 0:
        raise InputError(part.asked, f"its {part.path}magnitude is {size:g}", "give one >= 0")
    return kind, size


def _curve(part: _Part, which: str, kind: str, size: float) -> dict[str, Any]:
    """Return sigma over r in units of g_max; an unknown model is 0 and a remark."""
    if kind.startswith("Uniform"):
        part.note(which, kind, "changed", "a normal error of the same standard deviation")
        size /= math.sqrt(12)
    kinds: dict[str, dict[str, Any]] = {
        "Independent": {"polynomial": [size]},
        "Proportional": {"polynomial": [0.0, size]},
        "InverseProportional": {
            # a cell without conductance has no error there
            "pieces": [{"below": 1e-9, "polynomial": [0.0]}, {"power": [size, -1.0]}]
        },
    }
    law = kind.removeprefix("Normal").removeprefix("Uniform").removesuffix("Device")
    if law not in kinds:
        part.note(which, kind, "dropped", "no formula of that name is known here")
        law, kinds = "Independent", {"Independent": {"polynomial": [0.0]}}
    return {"of": "r", "unit_s": "g_max", **kinds[law]}


def _core(core: _Part, cell_bits: int) -> dict[str, Any]:
    style = core.style("style", 1)
    rows, cols = int(core.number("rows_max", 1024)), int(core.number("cols_max", 1024))
    weight_bits = int(core.number("weight_bits", 0))
    for name in ("complex_matrix", "complex_input"):
        core.take(name)  # here a matrix is complex where its numbers are
    balanced, sliced, offset = (core.part(name) for name in ("balanced", "bit_sliced", "offset"))
    offset.take("style")
    inner, slices = sliced.style("style", 1), int(sliced.number("num_slices", 2))
    balanced.take("interleaved_posneg")
    if balanced.style("style", 1) == 2:
        balanced.note("style", "TWO_SIDED", "dropped", "one cell of a pair stays at g_min here")
    if not balanced.take("subtract_current_in_xbar", True):
        balanced.note(
            "subtract_current_in_xbar", False, "dropped", "currents of a pair go to one ADC"
        )
    if style == 3 or (style == 2 and inner == 3):
        core.note(
            "style", "OFFSET", "changed", "a signed weight is a pair of cells, not one with an "
            "offset"
        )
    levels = 2 ** (cell_bits or max(weight_bits - 1, 0))
    chip: dict[str, Any] = {
        "tile": {"rows": min(rows, _MOST_LINES), "cols": min(2 * cols, _MOST_LINES)},
    }
    if levels > 1:
        chip["levels"] = levels
    if style == 2:
        chip["slices"] = slices
        sliced.note(
            "num_slices", slices, "changed",
            "currents of all digits are added before one ADC, whose range is that of whole "
            "weights; the peer converts every digit",
        )
    _mapping(core.part("mapping"))
    return chip


def _mapping(mapping: _Part) -> None:
    weights = mapping.part("weights")
    weights.take("clipping")
    for name, off in (("percentile", 1.0), ("min", None), ("max", None)):
        weights.off(name, off, "the largest weight of a matrix fills a cell")
    for which in ("row", "col"):
        weights.off(f"{which}_partition_priority", [], "tiles are filled one after the other")
        if weights.style(f"{which}_partition_strategy", 2) == 2:
            weights.note(f"{which}_partition_strategy", "EQUAL", "changed",
                         "tiles are filled one after the other")
    inputs = _converter(mapping.part("inputs"))
    inputs.take("clipping")
    ends = [inputs.take("min", -1.0), inputs.take("max", 1.0)]
    inputs.off("percentile", None, "dac.range = 'percentile' takes one of calibration inputs")
    if ends != [None, None]:
        inputs.note("min, max", f"{ends[0]}, {ends[1]}", "changed",
                    "give map_matrix inputs that reach them (`calibrate`)")


def _dac(dac: _Part, per_bit: bool) -> dict[str, Any]:
    model, bits = str(dac.take("model", "IdealDAC")), int(dac.number("bits", 0))
    sliced, width = bool(dac.take("input_bitslicing", False)), int(dac.number("slice_size", 1))
    if not dac.take("signed", True):
        dac.note("signed", False, "changed", "inputs have a sign")
    if model == "IdealDAC" or bits <= 0:
        return {"bits": "ideal"}
    if model == "QuantizerDAC":
        dac.note("model", model, "changed", "codes are symmetric about zero: one fewer")
    elif model != "SignMagnitudeDAC":
        dac.note("model", model, "dropped", "this DAC is not known here")
    if sliced and per_bit and width == 1:
        return {"bits": bits, "mode": "bit_serial"}
    if sliced:
        dac.note(
            "slice_size" if per_bit else "input_bitslicing", width if per_bit else True, "changed",
            "inputs come at once: slices of 1 bit that are converted each are dac.mode = "
            "'bit_serial'",
        )
    return {"bits": bits}


def _adc(adc: _Part, chip: Mapping[str, Any], span: float, per_bit: bool) -> dict[str, Any]:
    model, bits = str(adc.take("model", "IdealADC")), int(adc.number("bits", 0))
    option, ends = adc.style("adc_range_option", 1), adc.take("calibrated_range")
    mismatch, group = adc.number("sigma_capacitor", 0.0), int(adc.number("group_size", 1))
    adc.off("stochastic_rounding", False, "stochastic rounding of outputs")
    adc.off("sigma_comparator", 0.0, "comparators are exact")
    adc.off("gain_db", 100, "amplifiers of a pipeline are exact")
    adc.number("weight_bits", 0)
    for name in ("symmetric_cdac", "split_cdac"):
        adc.take(name)
    if not adc.take("signed", True):
        adc.note("signed", False, "changed", "codes are symmetric about zero")
    if model == "IdealADC" or bits <= 0:
        return {"bits": "ideal"}
    found: dict[str, Any] = {"bits": bits}
    limit = max(2 ** (bits - 1) - 1, 1)
    if option == 2:
        found["range"] = float(chip["tile"]["rows"])
        adc.note("adc_range_option", "MAX", "changed", "all rows of a tile, used or not")
    elif option == 3:
        found["range"] = limit / max(int(chip.get("levels", 2)) - 1, 1)
    elif ends is not None:
        found["range"] = _widest(adc, ends) / span
    else:
        adc.note("calibrated_range", ends, "changed", "the largest calibration output is the end")
    if model == "SarADC":
        found["columns_per_adc"] = max(group, 1)
        if mismatch:
            found["unit_mismatch"] = mismatch
            adc.note("sigma_capacitor", mismatch, "defect",
                     "the peer's groups all share one draw; here every ADC has its own")
    elif mismatch:
        adc.note("sigma_capacitor", mismatch, "dropped", f"a {model} is exact here")
    return found


def _widest(adc: _Part, ends: Any) -> float:
    """Return the larger end of a range, of all slices."""
    pairs = ends if isinstance(ends[0], list) else [ends]
    if len(pairs) > 1 or any(abs(low + high) > 1e-9 * abs(high) for low, high in pairs):
        adc.note("calibrated_range", ends, "changed",
                 "one range symmetric about zero: the largest of these ends")
    return float(max(abs(float(end)) for pair in pairs for end in pair))


def _array(array: _Part) -> dict[str, Any] | None:
    array.off("Icol_max", 0, "currents of columns are not bounded before the ADC")
    lines = array.part("parasitics")
    on = bool(lines.take("enable", False))
    row, column = lines.number("Rp_row", 0.0), lines.number("Rp_col", 0.0)
    gate = bool(lines.take("gate_input", False))
    lines.take("current_from_input")
    if not on:
        return None
    if gate and row:
        lines.note("gate_input", True, "changed", "rows that drive gates carry no current: 0 ohm")
    return {"r_wl_ohm": 0.0 if gate else row, "r_bl_ohm": column}
