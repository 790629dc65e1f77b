"""A fit's part put into a device card, beside the parts that the card has already."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from aimc_sim.cards import DeviceSpec
from aimc_sim.curves import Curve, CurvePiece
from aimc_sim.fields import Spec, validated

if TYPE_CHECKING:
    from calibration.fit import Fit

_NEAR = 0.02  # of a card's range, by which the ends of another measurement may stray
_HISTORIES = ("drift", "relaxation")


def merge(fit: Fit, base: DeviceSpec | None, name: str | None) -> DeviceSpec:
    """Return `base` with the part of `fit` in it; a new card where there is no base."""
    asked = f"put the {fit.kind} fit into a device card"
    caveats: list[str] = []
    line = fit.provenance()
    if base is not None and fit.g_range_s is not None:
        fit = fit.replace(g_range_s=_as_in(fit.g_range_s, (base.g_min_s, base.g_max_s)))
    low, high = _range(fit, base, caveats)
    if base is None:
        data: dict[str, Any] = {"name": name or "measured", "description": "calibrated"}
    else:
        grown = low < base.g_min_s or high > base.g_max_s
        data = dict(in_microsiemens(base) if grown else base)
        data["name"] = name or base.name
        caveats = [*base.caveats, *caveats]
        if grown:
            ends = f"{1e6 * base.g_min_s:.5g} and above {1e6 * base.g_max_s:.5g} uS"
            caveats.append(f"below {ends} the parts of '{base.name}' keep their value there")
        caveats += _make_room(data, fit.part, fit.kind)
    data |= {"g_min_s": low, "g_max_s": high, **fit.part}
    ceiling = data.get("ceiling_s")
    if ceiling is not None and ceiling < high:
        data["ceiling_s"] = high
    if data.get("floor_s", 0.0) > low:
        data["floor_s"] = low
    if fit.g_range_s is not None and fit.g_range_s[0] < fit.g_range_s[1]:
        data["g_range_s"] = _common(data.get("g_range_s"), fit.g_range_s)
    if fit.time_range_s is not None and any(part in fit.part for part in _HISTORIES):
        data["time_range_s"] = (0.0, fit.time_range_s[1])
    # a line stays while any part that it names does; words that name none are a preset's own
    stale = {*fit.part, *(part for part, value in data.items() if value is None)}
    lines = [old for old in data.get("provenance", ()) if _parts_of(old) - stale]
    data["provenance"] = (*lines, line)
    data["caveats"] = tuple(dict.fromkeys(caveats))
    return validated(DeviceSpec, {key: _dump(value) for key, value in data.items()}, asked)


def _dump(value: Any) -> Any:
    return value.model_dump() if isinstance(value, Spec) else value


def _parts_of(line: str) -> set[str]:
    return {part.strip() for part in line.split(":")[0].split(",")}


def _range(fit: Fit, base: DeviceSpec | None, caveats: list[str]) -> tuple[float, float]:
    """Return the range of the card: what was measured, and the base's where there is one."""
    known = [] if base is None else [base.g_min_s, base.g_max_s]
    if fit.g_range_s is not None:
        known += fit.g_range_s
    if not known:
        return 0.0, 100e-6
    low, high = min(known), max(known)
    if low == high:
        caveats.append(f"one conductance was measured, {1e6 * high:.5g} uS")
        low = 0.0
    return low, high


def _as_in(
    new: tuple[float, float], old: tuple[float, float]
) -> tuple[float, float]:
    """Return a range with the ends of `old` where they lie near: cells stray about targets."""
    near = _NEAR * (old[1] - old[0])
    low, high = (b if abs(a - b) <= near else a for a, b in zip(new, old, strict=True))
    return low, high


def _common(
    old: tuple[float, float] | None, new: tuple[float, float]
) -> tuple[float, float]:
    """Return the conductances that both were measured at, or the new where none is in both."""
    if old is None:
        return new
    low, high = max(old[0], new[0]), min(old[1], new[1])
    return (low, high) if low < high else new


def _make_room(data: dict[str, Any], part: Any, kind: str) -> list[str]:
    """Take out of a card what cannot stand beside the new part, and say it."""
    gone: list[str] = []
    if "drift" in part and data.get("relaxation") is not None:
        gone.append("relaxation")
    if "relaxation" in part:
        gone += ["drift"] if data.get("drift") is not None else []
        total = getattr(part["relaxation"], "kind", None) == "total"
        gone += ["programming"] if total and data.get("programming") is not None else []
    old = data.get("relaxation")
    if "programming" in part and old is not None and old.kind == "total":
        gone.append("relaxation")
    if kind == "read-noise" and "telegraph" not in part and data.get("telegraph") is not None:
        gone.append("telegraph")  # the new reads show none
    for name in gone:
        data[name] = None
    new = ", ".join(part)
    return [f"the {name} of the card before is left out: {new} takes its place" for name in gone]


def in_microsiemens(device: DeviceSpec) -> DeviceSpec:
    """Return the same device with every curve of r = g/g_max written in g_us, and held outside.

    Its range may then grow: at a conductance that it had, errors stay what they were; beyond
    the old range they keep the value of its end, where a polynomial may well turn negative.
    """
    span = (1e6 * device.g_min_s, 1e6 * device.g_max_s)
    changed: dict[str, Any] = {}
    for name in ("programming", "pulses", "drift", "relaxation", "read_noise", "telegraph"):
        part = getattr(device, name)
        if part is None:
            continue
        reference = getattr(part, "g_reference_s", None)
        scale = 1.0 if reference is None else device.g_max_s / reference
        fields: dict[str, Any] = {}
        for field in type(part).model_fields:
            value = getattr(part, field)
            if isinstance(value, Curve):
                fields[field] = _held(_of_g(value, device.g_max_s, scale), span)
            elif isinstance(value, tuple) and value and isinstance(value[0], Curve):
                fields[field] = tuple(
                    _held(_of_g(curve, device.g_max_s, scale), span) for curve in value
                )
        if reference is not None:
            fields["g_reference_s"] = None
        changed[name] = part.model_copy(update=fields)
    return device.model_copy(update=changed)


def _of_g(curve: Curve, g_max_s: float, scale: float) -> Curve:
    unit_s = curve.unit_s * scale
    if curve.of == "g_us":
        return Curve(of="g_us", unit_s=unit_s, pieces=curve.pieces)
    top = 1e6 * g_max_s
    pieces = []
    for piece in curve.pieces:
        polynomial = [c / top**k for k, c in enumerate(piece.polynomial or (0.0,))]
        polynomial[0] -= piece.log_slope * math.log(top)
        a, p = piece.power
        b, length = piece.exponential
        pieces.append(
            CurvePiece(
                below=None if piece.below is None else piece.below * top,
                polynomial=tuple(polynomial),
                log_slope=piece.log_slope,
                power=(a * top**-p, p),
                exponential=(b, length * top),
                low=piece.low,
                high=piece.high,
            )
        )
    return Curve(of="g_us", unit_s=unit_s, pieces=tuple(pieces))


def _held(curve: Curve, span: tuple[float, float]) -> Curve:
    """Return a curve of g_us that keeps its end values outside `span` [uS]."""
    low, high = span
    ends = curve.evaluate(np.array(span) * 1e-6, 1.0) / curve.unit_s
    pieces = [CurvePiece(below=low, polynomial=(float(ends[0]),))] if low > 0 else []
    for piece in curve.pieces:
        last = piece.below is None or piece.below >= high
        if piece.below is None or piece.below > low:
            pieces.append(piece.model_copy(update={"below": high}) if last else piece)
        if last:
            break
    return Curve(
        of="g_us", unit_s=curve.unit_s,
        pieces=(*pieces, CurvePiece(polynomial=(float(ends[1]),))),
    )
