"""Noise models of aihwkit as device cards.

What a noise model means is read from its attributes, so that this module needs no aihwkit. The
formulas are those of aihwkit 1.1 and 1.2 (aihwkit/inference/noise); they are the published ones
of our cards, whose sources the result keeps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from aimc_sim.cards import DeviceSpec
from aimc_sim.curves import Curve, CurvePiece
from aimc_sim.errors import InputError, UsageError, nearest
from aimc_sim.fields import validated
from aimc_sim.interop.remarks import Imported, Notes
from aimc_sim.specs import ChipSpec

Defects = Literal["mended", "kept"]
_US = 1e-6
_PER_S = 1e6  # microsiemens in a siemens; a division rounds to what text in uS does
_ASKED = "read an aihwkit noise model"


def import_noise_model(model: Any, *, defects: Defects = "mended") -> Imported:
    """Return the chip whose cells behave as a noise model of aihwkit says.

    The converters are those of a chip file that has [device] alone, weights are scaled by the
    largest of a matrix, as that noise model does, and there is no compensation.

    Parameters
    ----------
    model : PCMLikeNoiseModel, CustomDriftPCMLikeNoiseModel, HermesNoiseModel,
        StateIndependentNoiseModel, ReRamWan2022NoiseModel or ReRamCMONoiseModel.
    defects : "mended" gives what the sources say where the peer draws something else, "kept" what
        it draws: ReRamWan2022NoiseModel keeps the microsiemens of a fit at 40 uS whatever its
        g_max, so that at its own 25 uS it is 1.6 times too noisy.

    Raises UsageError for another class, and InputError where its numbers are no device.

    Remarks say what is different: the peer's fallback to 0.2 % acceptance, one cell for a weight
    where there is a pair here, times between measured ones.
    """
    notes = Notes()
    device, cells = read_device(model, defects, notes)
    name = f"{device.name} (aihwkit)"
    chip = ChipSpec(name=name, device=device, weight_scale="block", **cells)
    return Imported(chip, notes.say(f"import {type(model).__name__}"))


def read_device(model: Any, defects: Defects, notes: Notes) -> tuple[DeviceSpec, dict[str, Any]]:
    """Return the card of a noise model and how many cells hold a weight, as fields of a chip."""
    return _read(model, defects, notes), _converter(model, notes)


def _read(model: Any, defects: Defects, notes: Notes) -> DeviceSpec:
    kind = type(model).__name__
    if kind not in _READERS:
        guess = nearest(kind, _READERS)
        raise UsageError(
            f"{_ASKED} of class {kind}",
            "its formulas are not known here" + (f"; did you mean {guess}?" if guess else ""),
            f"give one of {', '.join(_READERS)}, or write its formulas into a chip file",
        )
    if defects not in ("mended", "kept"):
        raise UsageError(
            _ASKED, f"defects = '{defects}' is unknown", "choose 'mended' or 'kept'"
        )
    read, own = _READERS[kind]
    notes.rest(
        vars(model), {*own, "g_converter", "g_max", "g_min"}, "noise_model.",
        "this attribute is not known here",
    )
    asked = f"{_ASKED} of class {kind}"
    try:
        data = read(model, defects, notes)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        first = str(error).strip().splitlines()
        raise InputError(
            asked,
            f"its attributes are not as aihwkit makes them ({type(error).__name__}: "
            f"{first[0] if first else ''})",
            "mend the attributes of the model",
        ) from None
    return validated(DeviceSpec, data, asked)


def scaled(curve: Curve | None, factor: float) -> Curve | None:
    """Return a curve times a factor >= 0."""
    if curve is None or factor == 1.0:
        return curve
    if not (math.isfinite(factor) and factor >= 0):
        raise ValueError(f"a scale is {factor}")

    def times(value: float | None) -> float | None:
        return None if value is None else value * factor

    pieces = tuple(
        piece.model_copy(update={
            "polynomial": tuple(c * factor for c in piece.polynomial),
            "log_slope": piece.log_slope * factor,
            "power": (piece.power[0] * factor, piece.power[1]),
            "exponential": (piece.exponential[0] * factor, piece.exponential[1]),
            "low": times(piece.low), "high": times(piece.high),
        })
        for piece in curve.pieces
    )
    return Curve(of=curve.of, unit_s=curve.unit_s, pieces=pieces)


def _polynomial(coefficients: Sequence[float], factor: float = 1.0, of: str = "r") -> Curve:
    values = [float(c) * factor for c in coefficients]
    return Curve.model_validate({"of": of, "unit_s": _US, "polynomial": values})


def through_points(g_us: Sequence[float], values: Sequence[float], factor: float = 1.0) -> Curve:
    """Return the curve of straight lines through points, and flat beyond them.

    g_us : rising conductances [uS]. values : at those, of a pure number.
    """
    g, v = np.asarray(g_us, float), np.asarray(values, float) * factor
    pieces = [CurvePiece(below=float(g[0]), polynomial=(float(v[0]),))]
    for k in range(len(g) - 1):
        if g[k + 1] > g[k]:
            slope = float((v[k + 1] - v[k]) / (g[k + 1] - g[k]))
            line = (float(v[k]) - slope * float(g[k]), slope)
            pieces.append(CurvePiece(below=float(g[k + 1]), polynomial=line))
    return Curve(of="g_us", pieces=(*pieces, CurvePiece(polynomial=(float(v[-1]),))))


def _base(preset: str, model: Any) -> dict[str, Any]:
    """Return a published card as data, with the range of the model's cells."""
    device = ChipSpec.preset(preset).device
    low = float(getattr(model.g_converter, "g_min", 0.0))
    return device.model_dump(exclude_unset=True) | {
        "g_min_s": low / _PER_S, "g_max_s": float(model.g_max) / _PER_S,
        "floor_s": min(device.floor_s, low / _PER_S), "ceiling_s": None,
    }


def _phase_change(preset: str, model: Any) -> dict[str, Any]:
    """Return programming by the model's polynomial, drift and 1/f noise of a preset, scaled."""
    data, card = _base(preset, model), ChipSpec.preset(preset).device
    drift, noise = card.drift, card.read_noise
    assert drift is not None and noise is not None
    if model.prog_noise_scale:
        data["programming"] = {
            "sigma": _polynomial(model.prog_coeff, model.prog_noise_scale).model_dump(),
            "g_reference_s": float(model.prog_coeff_g_max_reference) / _PER_S,
        }
    else:
        data["programming"] = None
    data["drift"] = drift.model_copy(update={
        "t0_s": float(model.t_0),
        "nu_mean": scaled(drift.nu_mean, model.drift_scale),
        "nu_std": scaled(drift.nu_std, model.drift_scale),
    }).model_dump()
    data["read_noise"] = noise.model_copy(update={
        "sigma": scaled(noise.sigma, model.read_noise_scale), "t_read_s": float(model.t_read),
    }).model_dump() if model.read_noise_scale else None
    data["zero_time"] = (
        f"0 s reads t0 = {float(model.t_0):g} s after programming, where drift starts to be counted"
    )
    return data


def _read_pcm(model: Any, defects: Defects, notes: Notes) -> dict[str, Any]:
    return _phase_change("pcm-nandakumar2019", model)


def _read_hermes(model: Any, defects: Defects, notes: Notes) -> dict[str, Any]:
    return _phase_change(f"pcm-hermes2023-{int(model.num_devices)}dev", model)


def _read_custom_drift(model: Any, defects: Defects, notes: Notes) -> dict[str, Any]:
    data = _phase_change("pcm-nandakumar2019", model)
    table: Mapping[str, Any] = model.custom_drift_model
    data["name"] = "custom drift"
    data["drift"] |= {
        name: through_points(
            table["g_lst"], table[f"{name}_lst"], model.drift_scale
        ).model_dump()
        for name in ("nu_mean", "nu_std")
    }
    data["caveats"] = (*data["caveats"], "drift is a table of the user's")
    return data


def _read_state_independent(model: Any, defects: Defects, notes: Notes) -> dict[str, Any]:
    def flat(value: float) -> dict[str, Any]:
        return {"polynomial": [float(value)]}

    q = float(model.read_noise_scale) / float(model.g_max)  # the peer's is in uS at g_max
    scale = float(model.drift_scale)
    return {
        "name": "state-independent",
        "description": "Drift and relative read noise that are the same for every conductance",
        "g_min_s": float(getattr(model.g_converter, "g_min", 0.0)) / _PER_S,
        "g_max_s": float(model.g_max) / _PER_S,
        "zero_time": f"0 s reads t0 = {float(model.t_0):g} s after programming",
        "caveats": ("not a device: a model for studies",),
        "programming": {"sigma": _polynomial(model.prog_coeff, model.prog_noise_scale).model_dump()}
        if model.prog_noise_scale else None,
        "drift": {
            "t0_s": float(model.t_0), "nu_mean": flat(model.drift_nu_mean * scale),
            "nu_std": flat(model.drift_nu_std * scale),
        },
        "read_noise": {"sigma": flat(q), "t_read_s": float(model.t_read)} if q else None,
    }


def _read_wan(model: Any, defects: Defects, notes: Notes) -> dict[str, Any]:
    data = _base("reram-wan2022", model)
    times = sorted(float(t) for t in model.coeff_dic)
    drawn = float(getattr(model, "coeff_g_max_reference", None) or model.g_max)
    meant = float(getattr(model, "prog_coeff_g_max_reference", None) or drawn)
    if drawn != meant:
        notes.add(
            "noise_model.g_max", float(model.g_max), "defect",
            f"the fit is of {meant:g} uS and the peer does not rescale it, which makes it "
            f"{meant / drawn:.3g} times as noisy as published; "
            + ("mended here" if defects == "mended" else "kept here"),
        )
    data["relaxation"] = {
        "kind": "total",
        "times_s": times,
        "sigma": [
            _polynomial(model.coeff_dic[t], model.noise_scale).model_dump() for t in times
        ],
        "g_reference_s": (meant if defects == "mended" else drawn) / _PER_S,
        "interpolate": "log" if times[0] > 0 else "linear",
    }
    data["time_range_s"] = (0.0, times[-1])
    data["read_noise"] = None
    notes.add(
        "noise_model.coeff_dic", ", ".join(f"{t:g} s" for t in times), "changed",
        "the peer refuses other times; here the error is interpolated in ln t between them",
    )
    return data


def _read_cmo(model: Any, defects: Defects, notes: Notes) -> dict[str, Any]:
    accepted = model.acceptance_range
    data = _base("cmo-hfox" if accepted == 2 else "cmo-hfox-fine", model)
    low, high = float(model.g_min) / _PER_S, float(model.g_max) / _PER_S
    if accepted not in (0.2, 2):
        data["name"] = f"cmo-hfox, acceptance {accepted}"
    elif accepted == 0.2:
        notes.add(
            "noise_model.acceptance_range", accepted, "defect",
            "in percent: asked for 0.02 (its default) or any value that it lacks, the peer takes "
            "the smallest it has; ask for 2 if 2 % is meant",
        )
    if (unit := float(model.coeff_g_max_reference)) != model.g_max:
        notes.add("noise_model.coeff_g_max_reference", unit, "changed", "taken into the error")
    factor = float(model.prog_noise_scale) * float(model.g_max) / unit
    mean, slope, offset = (
        float(value) * float(model.drift_scale)
        for value in (model.decay_dict["mean"][0], *model.decay_dict["std"])
    )
    read = float(model.read_dict["K"]) * float(model.read_noise_scale) / math.log(10)
    error = _polynomial(model.coeff_dict[accepted], factor, "g_us").model_dump()
    data |= {
        "floor_s": low, "ceiling_s": high,
        "programming": {"sigma": error} if factor else None,
        "relaxation": {
            "kind": "added", "mean_per_ln_t_s": mean / _PER_S, "std_per_ln_t_s": slope / _PER_S,
            "std_offset_s": offset / _PER_S,
        } if model.drift_scale else None,
        "read_noise": {
            "sigma": {"of": "g_us", "unit_s": _US, "log_slope": read, "low": 0.0},
            "relative": False, "t_read_s": float(model.read_dict["t_read"]),
        } if read else None,
    }
    notes.add(
        "t_inference", "below 1 s", "changed",
        "the peer's formula in ln t runs on to 0 s; here relaxation starts at 1 s",
    )
    return data


_SCALES = ("prog_noise_scale", "read_noise_scale", "drift_scale", "t_0", "t_read")
_PCM = ("prog_coeff", "prog_coeff_g_max_reference", *_SCALES)
_READERS: dict[str, tuple[Callable[[Any, Defects, Notes], dict[str, Any]], tuple[str, ...]]] = {
    "PCMLikeNoiseModel": (_read_pcm, _PCM),
    "CustomDriftPCMLikeNoiseModel": (_read_custom_drift, (*_PCM, "custom_drift_model")),
    "HermesNoiseModel": (_read_hermes, (*_PCM, "num_devices")),
    "StateIndependentNoiseModel": (
        _read_state_independent, ("prog_coeff", "drift_nu_mean", "drift_nu_std", *_SCALES),
    ),
    "ReRamWan2022NoiseModel": (
        _read_wan,
        ("coeff_dic", "noise_scale", "coeff_g_max_reference", "prog_coeff_g_max_reference"),
    ),
    "ReRamCMONoiseModel": (
        _read_cmo,
        ("coeff_dict", "decay_dict", "read_dict", "acceptance_range", "coeff_g_max_reference",
         *_SCALES[:3]),
    ),
}


def _converter(model: Any, notes: Notes) -> dict[str, Any]:
    """Return how many cells hold a weight; what a pair of lines cannot do is taken down."""
    converter = model.g_converter
    kind, name = type(converter).__name__, "noise_model.g_converter"
    if kind == "SinglePairConductanceConverter":
        return {}
    factors = list(getattr(converter, "f_lst", []))
    if kind in ("NPairConductanceConverter", "DualPairConductanceConverter"):
        if all(factor == 1 for factor in factors) and 1 <= len(factors) <= 16:
            # the peer fills one pair after the other
            return {"cells_per_weight": len(factors), "parallel": "fill"}
        notes.add(
            name, f"{kind}(f_lst={factors})", "dropped",
            "pairs with unequal shares of the current; every weight sits on one pair",
        )
    elif kind == "SingleDeviceConductanceConverter":
        notes.add(
            name, kind, "changed",
            "one cell holds a weight, its lowest value at g_min; here a weight is a pair of cells",
        )
    else:
        notes.add(name, kind, "dropped", "every weight sits on one pair of cells")
    return {}
