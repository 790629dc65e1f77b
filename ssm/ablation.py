"""What a chip suffers from, part by part, and the same chip without some of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aimc_sim.converters import converter_limit, has_adc_errors, has_dac_errors, inl_table
from aimc_sim.curves import Curve, CurvePiece
from aimc_sim.specs import AdcSpec, ChipSpec, DacSpec

_CHANGING = {
    "drift", "relaxation", "1/f noise", "white noise", "telegraph noise", "ADC noise", "DAC noise",
}
_QUANTISATION = {"levels", "DAC", "ADC"}  # quantisation, the same on every chip
_ZERO_CURVE = Curve(pieces=(CurvePiece(polynomial=(0.0,)),))
_FINEST_BITS = 16
_IDEAL_LINES: dict[str, Any] = {
    "wires.node_nm": None, "wires.pitch_nm": None, "wires.r_wl_ohm": 0.0, "wires.r_bl_ohm": 0.0,
    "wires.r_driver_ohm": 0.0, "wires.r_sense_ohm": 0.0,
}


def non_idealities(spec: ChipSpec) -> dict[str, dict[str, Any]]:
    """Return what the chip suffers from: name -> the changes of the spec that switch it off.

    Switched off alone, the others keep their draws. Programming is the write's error, one-shot
    or what write-verify leaves; levels are those of weights on one digit (with several `slices`
    they are how a weight is written, and stay). A converter that is switched off has 16 bits and
    the same errors and noise, or is ideal where it has none; mismatch is all by which it differs
    from an ideal quantiser of its bits. Read noise also moves what a verify read of
    write-verify finds, and with it what is written.

    Examples
    --------
    >>> list(non_idealities(ChipSpec.preset("reram-wan2022")))
    ['relaxation', 'white noise', 'DAC', 'ADC']
    """
    device, noise = spec.device, spec.device.read_noise
    drifts = device.drift is not None and (
        device.drift.nu_mean != _ZERO_CURVE or device.drift.nu_std != _ZERO_CURVE
    )
    flickers = noise is not None and noise.spectrum == "one_over_f" and noise.sigma != _ZERO_CURVE
    is_white = noise is not None and (noise.spectrum == "white" or noise.white is not None)
    dac, adc = spec.dac, spec.adc
    noisy_adc = adc.noise_lsb > 0 and adc.bits != "ideal"
    unlike_dac = has_dac_errors(spec.replace(**{"dac.noise_lsb": 0.0}))
    unlike_adc = has_adc_errors(spec)
    switches: dict[str, tuple[bool, dict[str, Any]]] = {
        "programming": (
            device.programming is not None or spec.write is not None,
            {"device.programming": None, "write": None},
        ),
        "levels": (spec.levels is not None and spec.slices == 1, {"levels": None}),
        "faults": (spec.faults is not None, {"faults": None}),
        # lines of no resistance: pairs lie where they lay and keep their draws
        "wires": (spec.wires is not None and spec.wires.resists, _IDEAL_LINES),
        # drift with exponents of zero: its t0 is the time origin of 1/f noise as well
        "drift": (
            drifts, {"device.drift.nu_mean": _ZERO_CURVE, "device.drift.nu_std": _ZERO_CURVE}
        ),
        "relaxation": (
            device.relaxation is not None,
            # what does not age knows no temperature
            {"device.relaxation": None, "temperature_k": None},
        ),
        "1/f noise": (
            flickers,
            {"device.read_noise.sigma": _ZERO_CURVE} if is_white else {"device.read_noise": None},
        ),
        "white noise": (
            is_white, {"device.read_noise.white": None} if flickers else {"device.read_noise": None}
        ),
        "telegraph noise": (device.telegraph is not None, {"device.telegraph": None}),
        "DAC noise": (dac.noise_lsb > 0 and dac.bits != "ideal", {"dac.noise_lsb": 0.0}),
        "DAC mismatch": (
            unlike_dac,
            {"dac.gain_sigma": 0.0, "dac.offset_lsb": 0.0, "dac.inl_lsb": (), "dac.dnl_lsb": ()},
        ),
        "DAC": (dac.bits != "ideal", _finest("dac", dac, has_dac_errors(spec))),
        "ADC noise": (noisy_adc, {"adc.noise_lsb": 0.0}),
        "ADC mismatch": (
            unlike_adc,
            {
                "adc.gain_sigma": 0.0, "adc.offset_lsb": 0.0, "adc.unit_mismatch": 0.0,
                "adc.inl_lsb": (), "adc.dnl_lsb": (),
            },
        ),
        "ADC": (adc.bits != "ideal", _finest("adc", adc, noisy_adc or unlike_adc)),
    }
    return {name: changes for name, (present, changes) in switches.items() if present}


def _finest(name: str, converter: DacSpec | AdcSpec, has_errors: bool) -> dict[str, Any]:
    """Return the changes that take rounding from a converter: ideal, or finer with its errors."""
    serial = isinstance(converter, DacSpec) and converter.mode == "bit_serial"
    if converter.bits == "ideal" or not (has_errors or serial):
        return {f"{name}.bits": "ideal"}
    finer = float(converter_limit(_FINEST_BITS) / converter_limit(converter.bits))
    step = 1.0 if serial else finer  # a step of a bit-serial driver is the full voltage
    table = inl_table(converter, converter_limit(converter.bits)) * step
    changes: dict[str, Any] = {
        f"{name}.bits": _FINEST_BITS, f"{name}.noise_lsb": converter.noise_lsb * step,
        f"{name}.offset_lsb": converter.offset_lsb * step, f"{name}.dnl_lsb": (),
        f"{name}.inl_lsb": tuple(table.tolist()),
    }
    if isinstance(converter, AdcSpec):
        # the largest weight is 2^(b - 1) units: the same share of the range with more of them
        changes["adc.unit_mismatch"] = min(converter.unit_mismatch * finer**0.5, 1.0)
    return changes


def without(spec: ChipSpec, names: Iterable[str]) -> ChipSpec:
    """Return the chip without some of its non-idealities, one after the other.

    Examples
    --------
    >>> pcm = ChipSpec.preset("pcm-nandakumar2019")
    >>> list(non_idealities(without(pcm, ["drift", "DAC"])))
    ['programming', '1/f noise', 'ADC']
    """
    wanted = set(names)
    for name in non_idealities(spec):
        if name in wanted:
            spec = spec.replace(**non_idealities(spec).get(name, {}))
    return spec


def error_free(spec: ChipSpec) -> ChipSpec:
    """Return the chip with exact cells behind its own converters, without their noise.

    Finite levels stay: like the converters, they are quantisation and the same on every chip.
    """
    return without(spec, set(non_idealities(spec)) - _QUANTISATION).replace(compensation="none")


def is_timeless(spec: ChipSpec) -> bool:
    """Return whether nothing about the chip changes with time or from read to read."""
    return not set(non_idealities(spec)) & _CHANGING
