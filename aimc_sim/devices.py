"""What a device model predicts: programmed and read conductances over targets and times."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aimc_sim.aging import check_time, relaxation_mean, relaxation_sigma
from aimc_sim.cards import DeviceSpec
from aimc_sim.chip import Chip
from aimc_sim.curves import Curve
from aimc_sim.errors import UsageError
from aimc_sim.mapping import Request, place
from aimc_sim.randomness import Purpose
from aimc_sim.specs import ChipSpec, check_chip
from aimc_sim.units import format_time

_PARTS = {
    "programming": "cells are programmed exactly",
    "drift": "conductances do not drift",
    "relaxation": "conductances do not relax",
    "read_noise": "reads are free of noise",
    "telegraph": "no cell jumps between levels, but for what is in its read noise",
}
_NO_WHITE = "no white part of read noise: all of it is 1/f"
_BEYOND = {"refuse": "others are refused", "warn": "others are extrapolated, with a warning"}
_MOST_CELLS = 1 << 26  # of all targets: 2 GB while they are drawn


@dataclass(frozen=True)
class Prediction:
    """Mean and standard deviation over cells of one target at one time, all in siemens.

    programmed : right after programming. read : at `at_s` seconds after it, all read noise
    gathered until then included.
    """

    target_s: float
    at_s: float
    programmed_mean_s: float
    programmed_std_s: float
    read_mean_s: float
    read_std_s: float


def default_targets(device: DeviceSpec) -> tuple[float, ...]:
    """Return six conductances [S], evenly spaced over the device's range."""
    return tuple(float(g) for g in np.linspace(device.g_min_s, device.g_max_s, 6))


def lacking_parts(device: DeviceSpec) -> list[str]:
    """Return what the card does not say, one line a part.

    A cell has one history, drift or relaxation: with the one, the other is not missed. Read
    noise has a white part where all of it is white, or where a card gives one beside 1/f noise.
    """
    parts = dict(_PARTS)
    if device.pulses is not None:
        parts["programming"] = "cells are programmed exactly, except by pulses ([write] of a chip)"
    if device.relaxation is not None and device.relaxation.kind == "total":
        parts["programming"] = "its error is in that of relaxation"
    for part, other in (("drift", "relaxation"), ("relaxation", "drift")):
        if getattr(device, other) is not None:
            del parts[part]
    lines = [
        f"no {part.replace('_', ' ')} part: {meaning}"
        for part, meaning in parts.items()
        if getattr(device, part) is None
    ]
    noise = device.read_noise
    if noise is not None and noise.spectrum == "one_over_f" and noise.white is None:
        lines.append(_NO_WHITE)
    return lines


def measured_ranges(device: DeviceSpec) -> list[str]:
    """Return which targets and times the card's data cover, and what happens beyond, in words."""
    lines = []
    if device.g_range_s is not None:
        low, high = (f"{1e6 * g:.6g}" for g in device.g_range_s)
        lines.append(f"targets measured: {low} to {high} uS; {_BEYOND[device.outside_g_range]}")
    if device.doi or "time_range_s" in device.model_fields_set:
        first, last = device.time_range_s
        low, high = format_time(first), format_time(last)
        span = f"{low} to {high}" if first < last else f"{low} alone"
        ages = device.drift is not None or device.relaxation is not None
        beyond = _BEYOND[device.outside_time_range]
        if device.outside_time_range == "warn" and not ages:
            beyond = "others read the same, with a warning"
        lines.append(f"times measured: {span}; {beyond}")
    return lines


def telegraph_facts(device: DeviceSpec) -> list[str]:
    """Return how many cells jump between levels, and after which times, in words."""
    part = device.telegraph
    if part is None:
        return []
    high, low = format_time(part.tau_high_s), format_time(part.tau_low_s)
    return [
        f"telegraph noise in {100 * part.fraction:.4g} % of the cells; mean dwell times {high} in "
        f"the upper level, {low} in the lower"
    ]


def card_curves(
    device: DeviceSpec, targets_s: Sequence[float], times_s: Sequence[float]
) -> list[dict[str, Any]]:
    """Return what the card's formulas say at every target, a record each; None where it is mute.

    No cell is drawn: these are the means and sigmas of the formulas, before conductances are
    kept within their limits.

    Keys, SI with the unit in the name, `_q` relative to the cell's conductance:
    target_s; programming_mean_s (shift), programming_sigma_s; nu_mean, nu_std of drift;
    relaxation, a list of at_s, mean_s (shift), sigma_s for times_s; read_q or read_s, sigma of
    the white or 1/f noise; white_q or white_s, of further white noise; set_mean_s, set_sigma_s,
    reset_mean_s, reset_sigma_s of one pulse, starting from the target; telegraph_q or
    telegraph_s, the typical distance of the two levels.

    Examples
    --------
    >>> device = ChipSpec.preset("pcm-nandakumar2019").device
    >>> round(card_curves(device, [25e-6], [0.0])[0]["programming_sigma_s"] * 1e6, 5)
    1.05538
    """
    g = np.asarray(targets_s, float)
    columns: dict[str, np.ndarray | None] = {"target_s": g}

    def put(name: str, part: Any, field: str, factor: float = 1.0) -> None:
        curve: Curve | None = None if part is None else getattr(part, field)
        columns[name] = None if curve is None else curve.evaluate(g, device.g_max_s) * factor

    def put_noise(name: str, part: Any, field: str) -> None:
        relative = part is not None and part.relative
        put(f"{name}_q", part if relative else None, field)
        put(f"{name}_s", None if relative else part, field)

    written = device.programming
    reference = None if written is None else written.g_reference_s
    for name in ("mean", "sigma"):
        scale = device.g_max_s / (reference or device.g_max_s)
        put(f"programming_{name}_s", written, name, scale)
    put("nu_mean", device.drift, "nu_mean")
    put("nu_std", device.drift, "nu_std")
    put_noise("read", device.read_noise, "sigma")
    put_noise("white", device.read_noise, "white")
    for name in ("set_mean", "set_sigma", "reset_mean", "reset_sigma"):
        put(f"{name}_s", device.pulses, name)
    put_noise("telegraph", device.telegraph, "amplitude")
    moved = [
        (float(at), relaxation_mean(device, g, at), relaxation_sigma(device, g, at))
        for at in times_s
        if device.relaxation is not None
    ]
    return [
        {
            **{name: None if v is None else float(v[k]) for name, v in columns.items()},
            "relaxation": [
                {"at_s": at, "mean_s": float(mean[k]), "sigma_s": float(sigma[k])}
                for at, mean, sigma in moved
            ]
            or None,
        }
        for k in range(len(g))
    ]


def predict(
    device: DeviceSpec | ChipSpec,
    targets_s: Sequence[float],
    times_s: Sequence[float],
    n_cells: int = 10_000,
    seed: int = 0,
) -> list[Prediction]:
    """Return what n_cells simulated cells of every target do, a row for each target and time.

    The cells are those of a chip: programmed once, then drift or relaxation from the same
    cell's history, then all its noise: white and 1/f noise and the level that telegraph noise
    has it in. The standard error of a mean is std/sqrt(n_cells).

    Parameters
    ----------
    device : the card, or a chip for the card in it.
    targets_s : conductances asked for [S], within g_min_s .. g_max_s.
    times_s : seconds since programming.
    n_cells : cells of every target, at least 2. seed : of all draws.

    Raises UsageError for a target outside the device's range, too few or too many cells, or a
    time that the card refuses.

    Examples
    --------
    >>> row = predict(ChipSpec.preset("ideal").device, [5e-6], [0.0], n_cells=4)[0]
    >>> round(row.read_mean_s * 1e6, 3), row.read_std_s
    (5.0, 0.0)
    """
    if type(device) is not DeviceSpec:
        check_chip(device, "predict a device")  # type: ignore[arg-type]
        device = device.device  # type: ignore[union-attr]
    _check_request(device, targets_s, times_s, n_cells)
    spec = ChipSpec(name=device.name, device=device, noise_in_time="frozen")
    layout = place([Request("cells", len(targets_s), 1, n_cells, pair=False)], spec)
    targets = np.repeat(np.asarray(targets_s, np.float32), n_cells)
    fresh = Chip(spec, layout, targets, seed)
    shape = (len(targets_s), n_cells)
    programmed = fresh.programmed_s[0].reshape(shape).astype(float)
    rows = []
    for moment in times_s:
        chip = fresh.fresh()
        chip.wait(moment)
        read = _one_read(chip).reshape(shape).astype(float)
        for k, target in enumerate(targets_s):
            rows.append(
                Prediction(
                    float(target),
                    float(moment),
                    float(programmed[k].mean()),
                    float(programmed[k].std(ddof=1)),
                    float(read[k].mean()),
                    float(read[k].std(ddof=1)),
                )
            )
    rows.sort(key=lambda row: list(targets_s).index(row.target_s))
    return rows


def _one_read(chip: Chip) -> np.ndarray:
    """Return what one read of every cell of the first replica finds, (n_cells,) float32 [S]."""
    white = chip.normals(Purpose.READ_CELL, 0, timed=True)[chip.draws.index]
    return chip.clipped(chip.slow() + chip.fast_sigma() * white, 0)


def _check_request(
    device: DeviceSpec, targets_s: Sequence[float], times_s: Sequence[float], n_cells: int
) -> None:
    asked = f"predict device '{device.name}'"
    if not targets_s or not times_s:
        raise UsageError(asked, "no target or no time was given", "give at least one of each")
    for moment in times_s:
        check_time(device, moment)
    low, high = device.g_min_s, device.g_max_s
    for target in targets_s:
        if not (math.isfinite(target) and low * (1 - 1e-9) <= target <= high * (1 + 1e-9)):
            raise UsageError(
                f"{asked} at a target of {target * 1e6:.6g} uS",
                f"its cells hold {low * 1e6:.6g} to {high * 1e6:.6g} uS",
                "choose a target in that range, with its unit (a bare number is in siemens)",
            )
    if n_cells < 2 or n_cells * len(targets_s) > _MOST_CELLS:
        raise UsageError(
            f"{asked} with {n_cells} cells a target",
            f"a spread needs at least 2, all targets together may have {_MOST_CELLS}",
            "choose a number in between",
        )
