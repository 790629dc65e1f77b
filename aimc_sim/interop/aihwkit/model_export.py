"""Device cards as noise models of aihwkit, which must be installed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from aimc_sim.cards import DeviceSpec
from aimc_sim.curves import Curve
from aimc_sim.errors import UsageError
from aimc_sim.interop.aihwkit.noise import read_device
from aimc_sim.interop.remarks import Exported, Notes
from aimc_sim.specs import ChipSpec

_US = 1e-6
_POINTS = 65  # conductances at which two curves are compared and a table of drift is made
_SAME = 1e-6  # relative
_LOST = 1e-3  # relative difference of a curve from which it is another one
_LEAST = 1e-12
_HERMES = {"pcm-hermes2023-1dev": 1, "pcm-hermes2023-2dev": 2}


def export_noise_model(device: DeviceSpec | ChipSpec) -> Exported[Any]:
    """Return the noise model of aihwkit whose cells are those of a card, as far as it has one.

    Relaxation of kind "total" becomes a ReRamWan2022NoiseModel, that by a law in ln t a
    ReRamCMONoiseModel. Other cards become the model of phase-change memory whose drift and read
    noise are theirs times a factor (PCMLikeNoiseModel, HermesNoiseModel), the
    StateIndependentNoiseModel, or a CustomDriftPCMLikeNoiseModel with the drift as a table. What
    the model draws differently is a remark, found by reading it back.

    Raises UsageError where aihwkit is not installed, or its version lacks the class.
    """
    chip = device if isinstance(device, ChipSpec) else None
    card = device.device if isinstance(device, ChipSpec) else device
    notes = Notes()
    model = model_of(card, chip, notes)
    return Exported(model, notes.say(f"export device '{card.name}'"))


def peer_class(module: str, name: str) -> Any:
    """Return a class of aihwkit. Raises UsageError where it is not there."""
    asked = f"make an aihwkit {name}"
    try:
        return getattr(import_module(f"aihwkit.{module}"), name)
    except ImportError as error:
        raise UsageError(
            asked, f"aihwkit cannot be imported ({error})", "install it: pip install "
            "'aimc-sim[aihwkit]'",
        ) from None
    except AttributeError:
        raise UsageError(
            asked, "the installed version has no such class", "install aihwkit 1.1 or 1.2"
        ) from None


def model_of(
    card: DeviceSpec, chip: ChipSpec | None, notes: Notes, *, say_white: bool = True
) -> Any:
    """Return the noise model of a card, with the cells of a weight of `chip` where one is given.

    say_white : whether white read noise is taken down as lost.
    """
    model = _make_model(card, notes)
    if chip is not None:
        _set_cells(model, chip, notes)
    _note_differences(card, model, notes, say_white)
    return model


def _make_model(card: DeviceSpec, notes: Notes) -> Any:
    relaxation = card.relaxation
    if relaxation is not None and relaxation.kind == "total":
        return _wan(card, notes)
    if relaxation is not None and not relaxation.times_s:
        return _cmo(card, notes)
    return _phase_change(card, notes)


def _range(card: DeviceSpec) -> dict[str, float]:
    return {"g_max": card.g_max_s / _US, "g_min": card.g_min_s / _US}


def _converter(card: DeviceSpec) -> Any:
    return peer_class("inference", "SinglePairConductanceConverter")(**_range(card))


def _in_r(name: str, curve: Curve, card: DeviceSpec, notes: Notes) -> list[float]:
    """Return a polynomial of r in microsiemens that is the curve, or nearly."""
    g = np.linspace(card.g_min_s, card.g_max_s, _POINTS)
    value = curve.evaluate(g, card.g_max_s) / _US
    r = g / card.g_max_s
    for degree in range(8):
        fit = np.polynomial.polynomial.polyfit(r, value, degree)
        worst = np.abs(np.polynomial.polynomial.polyval(r, fit) - value).max()
        if worst <= _SAME * max(value.max(), 1e-30):
            break
    else:
        notes.add(
            name, "a curve", "changed",
            f"a polynomial of degree {degree} in r, {worst:.2g} uS from it at most",
        )
    return [float(c) for c in fit]


def _phase_change(card: DeviceSpec, notes: Notes) -> Any:
    """Return the phase-change model whose drift and read noise come nearest to the card's."""
    written = card.programming
    coefficients, reference = [0.0], card.g_max_s
    if written is not None:
        coefficients = _in_r("device.programming.sigma", written.sigma, card, notes)
        reference = written.g_reference_s or card.g_max_s
    common = {
        "g_converter": _converter(card), "prog_coeff": coefficients,
        "t_0": card.drift.t0_s if card.drift is not None else 20.0,
        "drift_scale": 1.0, "read_noise_scale": 1.0,
    }
    if card.read_noise is not None:
        common["t_read"] = card.read_noise.t_read_s
    flat = _flat(card)
    if flat is not None:
        values = {name: v for name, v in common.items() if name != "drift_scale"}
        factor = 1.0 if reference == card.g_max_s else card.g_max_s / reference
        values["prog_coeff"] = [c * factor for c in coefficients]
        model = peer_class("inference", "StateIndependentNoiseModel")(**values)
        model.drift_nu_mean, model.drift_nu_std, q = flat
        model.read_noise_scale = q * model.g_max
        return model
    drift, noise, device_count = _proportions(card)
    if noise is not None:
        common["read_noise_scale"] = noise
    else:
        common["read_noise_scale"] = 0.0
    if drift is not None or card.drift is None:
        common["drift_scale"] = drift or 0.0
        if device_count:
            model = peer_class("inference.noise.hermes", "HermesNoiseModel")(
                num_devices=device_count, **common
            )
        else:
            model = peer_class("inference", "PCMLikeNoiseModel")(**common)
    else:
        model = peer_class("inference", "CustomDriftPCMLikeNoiseModel")(
            custom_drift_model=_drift_table(card), **common
        )
        notes.add(
            "device.drift", "curves", "changed", f"tables of {_POINTS} conductances, read linearly"
        )
    # the peer's constructor drops the reference that it is given
    model.prog_coeff_g_max_reference = reference / _US
    return model


def _flat(card: DeviceSpec) -> tuple[float, float, float] | None:
    """Return nu, its spread and relative noise where none of them depends on the conductance."""
    if card.drift is None or (card.read_noise is not None and not card.read_noise.relative):
        return None
    g = np.linspace(card.g_min_s, card.g_max_s, _POINTS)
    curves: list[Curve | None] = [card.drift.nu_mean, card.drift.nu_std]
    curves.append(None if card.read_noise is None else card.read_noise.sigma)
    values = [np.zeros(1) if c is None else c.evaluate(g, card.g_max_s) for c in curves]
    if any(np.ptp(v) > _SAME * np.abs(v).max() for v in values):
        return None
    nu, spread, q = (float(v[0]) for v in values)
    return nu, spread, q


def _proportions(card: DeviceSpec) -> tuple[float | None, float | None, int]:
    """Return by which factors drift and read noise are those of a known model, and of which.

    The last is the number of devices of a HermesNoiseModel, 0 for the PCMLikeNoiseModel.
    """
    best: tuple[float | None, float | None, int] = (None, None, 0)
    for preset, count in {"pcm-nandakumar2019": 0, **_HERMES}.items():
        if count and card.g_max_s > ChipSpec.preset(preset).device.g_max_s * (1 + _SAME):
            continue  # the peer refuses conductances that were not characterised
        known = ChipSpec.preset(preset).device
        drift = noise = None
        if card.drift is not None and known.drift is not None:
            drift = _ratio(card, card.drift.nu_mean, known.drift.nu_mean)
            spread = _ratio(card, card.drift.nu_std, known.drift.nu_std)
            drift = drift if drift == spread or _near(drift, spread) else None
        part = card.read_noise
        if part is not None and part.relative and known.read_noise is not None:
            noise = _ratio(card, part.sigma, known.read_noise.sigma)
        found = (drift, noise, count)
        if sum(x is not None for x in found[:2]) > sum(x is not None for x in best[:2]):
            best = found
    return best


def _near(a: float | None, b: float | None) -> bool:
    return a is not None and b is not None and abs(a - b) <= _SAME * abs(a)


def _ratio(card: DeviceSpec, curve: Curve, known: Curve) -> float | None:
    """Return the factor by which a curve is a known one over the card's range, None: it is not."""
    g = np.linspace(card.g_min_s, card.g_max_s, _POINTS)
    a, b = curve.evaluate(g, card.g_max_s), known.evaluate(g, card.g_max_s)
    factor = float(a @ b / (b @ b))
    return factor if np.abs(a - factor * b).max() <= _SAME * np.abs(a).max() else None


def _drift_table(card: DeviceSpec) -> dict[str, list[float]]:
    assert card.drift is not None
    g = np.linspace(card.g_min_s, card.g_max_s, _POINTS)
    return {
        "g_lst": [float(x) for x in g / _US],
        "nu_mean_lst": [float(x) for x in card.drift.nu_mean.evaluate(g, card.g_max_s)],
        "nu_std_lst": [float(x) for x in card.drift.nu_std.evaluate(g, card.g_max_s)],
    }


def _wan(card: DeviceSpec, notes: Notes) -> Any:
    part = card.relaxation
    assert part is not None
    factor = card.g_max_s / (part.g_reference_s or card.g_max_s)
    table = {
        t: [c * factor for c in _in_r(f"device.relaxation.sigma at {t:g} s", curve, card, notes)]
        for t, curve in zip(part.times_s, part.sigma, strict=True)
    }
    if part.mean:
        notes.add("device.relaxation.mean", "curves", "dropped", "the peer's cells keep their mean")
    notes.add(
        "times", "between those of the table", "dropped", "the peer refuses times without a formula"
    )
    model = peer_class("inference", "ReRamWan2022NoiseModel")(
        coeff_dic=table, g_converter=_converter(card)
    )
    # the sigmas are those of this g_max already
    model.coeff_g_max_reference = model.g_max
    return model


def _cmo(card: DeviceSpec, notes: Notes) -> Any:
    part, written, noise = card.relaxation, card.programming, card.read_noise
    assert part is not None
    coefficients = [0.0, 0.0]
    if written is not None:
        in_r = _in_r("device.programming.sigma", written.sigma, card, notes)
        factor = card.g_max_s / (written.g_reference_s or card.g_max_s)
        g_max_us = card.g_max_s / _US
        coefficients = [c * factor / g_max_us**k for k, c in enumerate(in_r)]
    read = {"K": 0.0, "t_read": 1e-6}
    if noise is not None:
        known = Curve.model_validate({"of": "g_us", "unit_s": _US, "log_slope": 1.0, "low": 0.0})
        slope = None if noise.relative else _ratio(card, noise.sigma, known)
        read = {"K": (slope or 0.0) * float(np.log(10)), "t_read": noise.t_read_s}
    us = 1 / _US
    return peer_class("inference", "ReRamCMONoiseModel")(
        coeff_dict={2: coefficients}, acceptance_range=2, read_dict=read,
        decay_dict={
            "mean": [part.mean_per_ln_t_s * us],
            "std": [part.std_per_ln_t_s * us, part.std_offset_s * us],
        },
        **_range(card),
    )


def _set_cells(model: Any, spec: ChipSpec, notes: Notes) -> None:
    """Give a model the cells that hold a weight on a chip."""
    n = spec.cells_per_weight
    if type(model).__name__ == "ReRamCMONoiseModel":
        notes.add(
            "device", spec.device.name, "changed",
            "the peer's model of these cells holds a weight in one of them, not in a pair",
        )
    elif n > 1 and spec.parallel == "fill":
        model.g_converter = peer_class("inference", "NPairConductanceConverter")(
            [1.0] * n, **_range(spec.device)
        )
    elif n > 1:
        notes.add("cells_per_weight", n, "dropped", "the peer fills one cell after the other")


_CURVES = (
    ("programming", "sigma"), ("programming", "mean"), ("drift", "nu_mean"), ("drift", "nu_std"),
    ("read_noise", "sigma"),
)


def _note_differences(card: DeviceSpec, model: Any, notes: Notes, say_white: bool) -> None:
    """Read the model back and take down what is not as in the card."""
    again, _ = read_device(model, "kept", Notes())
    g = np.linspace(card.g_min_s, card.g_max_s, _POINTS)
    for part, field in _CURVES:
        ours, theirs = (_values(d, part, field, g) for d in (card, again))
        size = np.abs(ours).max()
        where = f"device.{part}.{field}"
        if part == "read_noise" and size and _is_white(card):
            if say_white:
                notes.add(
                    "device.read_noise", "white", "dropped",
                    "noise new at every product; the compiled tiles have forward.w_noise for it",
                )
        elif (
            np.abs(ours - theirs).max() > _LOST * max(size, _LEAST)
            and (where, "changed") not in notes.found
        ):
            notes.add(
                where, f"up to {size:.4g}", "dropped",
                f"the peer's is {np.abs(theirs).max():.4g} at most" if theirs.any()
                else "the peer's model has none",
            )
    for name in ("floor_s", "ceiling_s"):
        ours, theirs = getattr(card, name), getattr(again, name)
        if ours != theirs and not (ours and theirs and abs(ours - theirs) < _SAME * ours):
            notes.add(
                f"device.{name}", ours, "dropped",
                "reads of the peer have " + ("no such limit" if theirs is None else "another one"),
            )
    _note_parts(card, notes)


def _values(device: DeviceSpec, part: str, field: str, g_s: np.ndarray) -> np.ndarray:
    """Return a curve of a card at conductances g_s [S], in SI; 0 where the card has none."""
    own = getattr(device, part)
    curve: Curve | None = None if own is None else getattr(own, field)
    if curve is None:
        return np.zeros(g_s.shape)
    values = curve.evaluate(g_s, device.g_max_s)
    if part == "programming" and own.g_reference_s:
        values = values * (device.g_max_s / own.g_reference_s)
    return values


def _is_white(card: DeviceSpec) -> bool:
    return card.read_noise is not None and card.read_noise.spectrum == "white"


def _note_parts(card: DeviceSpec, notes: Notes) -> None:
    """Take down parts of a card that no noise model of the peer has."""
    noise, relaxation = card.read_noise, card.relaxation
    if card.telegraph is not None:
        notes.add("device.telegraph", "present", "dropped", "no model of the peer jumps")
    if card.pulses is not None:
        notes.add("device.pulses", "present", "dropped", "the peer's cells for inference have none")
    if noise is not None and noise.exponent != 1:
        notes.add("device.read_noise.exponent", noise.exponent, "dropped", "the peer's is 1")
    if noise is not None and noise.white is not None:
        notes.add(
            "device.read_noise.white", "present", "dropped",
            "noise new at every product is forward.w_noise of the compiled tiles",
        )
    if relaxation is not None and relaxation.kind == "added" and relaxation.times_s:
        notes.add("device.relaxation", "a table", "dropped", "the peer knows a law in ln t alone")
    for name, part in (("drift", card.drift), ("relaxation", relaxation)):
        if part is not None and part.activation_energy_ev is not None:
            notes.add(
                f"device.{name}.activation_energy_ev", part.activation_energy_ev, "dropped",
                "the peer has no temperature",
            )
