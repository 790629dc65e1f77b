"""Converters: gain, offset and the tables of non-linearity, from (code, output)."""

from __future__ import annotations

import numpy as np

from calibration.checks import check_count, check_varies, columns
from calibration.fit import Checked, Fit, Panel, Parameter, correlation_of, goodness
from calibration.tables import Table

_CUT = 8.0  # robust sigmas of a code's repeats


def fit_converter(table: Table) -> Fit:
    """Return gain, offset, INL and DNL of a converter: output = offset + gain code + gain INL.

    The line is that of least squares through the mean output of each code. INL is the distance
    of a code's mean from it, DNL the difference of successive codes' means less one step where
    the codes are neighbours, both in LSB (one step of the line). Their standard errors come
    from the repeats of a code; without repeats those of gain and offset come from the INL and
    the table has none (0).

    table : columns code, output. Repeats beyond 8 robust sigmas of their code are dropped.

    The tables are parameters "inl[code]", "dnl[code]"; a converter is part of a chip, not of a
    device, so `Fit.device` refuses.

    Raises InputError for fewer than 4 codes, or a constant column.
    """
    code, output = columns(table, "converter", "code", "output")
    check_varies("converter", "output", output)
    codes, index = np.unique(code, return_inverse=True)
    check_count("converter", "codes", len(codes), 4)
    unit = table.units.get("output", "")
    kept = _inliers(index, output, len(codes))
    code, output, index = code[kept], output[kept], index[kept]
    n = np.bincount(index, minlength=len(codes))
    mean = np.bincount(index, output, len(codes)) / n
    within = np.bincount(index, (output - mean[index]) ** 2, len(codes))
    free = int(len(output) - len(codes))
    noise = float(np.sqrt(within.sum() / free)) if free > 0 else 0.0
    x = np.stack([np.ones(len(codes)), codes], axis=1)
    inverse = np.linalg.inv(x.T @ x)
    offset, gain = inverse @ (x.T @ mean)
    rest = mean - x @ np.array([offset, gain])
    if free > 0:
        weight = inverse @ x.T
        covariance = (weight * (noise**2 / n)) @ weight.T
    else:
        covariance = inverse * float((rest**2).sum()) / (len(codes) - 2)
    hat = np.eye(len(codes)) - x @ inverse @ x.T
    own = (hat * (noise**2 / n)) @ hat.T / gain**2
    inl = rest / gain
    steps = np.diff(mean) / gain
    near = np.isclose(np.diff(codes), 1)
    dnl = (steps - 1)[near]
    dnl_error = noise / abs(gain) * np.sqrt(1 / n[1:] + 1 / n[:-1])[near]
    error = np.sqrt(np.diag(covariance))
    parameters = {
        "gain": Parameter(float(gain), float(error[1]), f"{unit}/code" if unit else ""),
        "offset": Parameter(float(offset), float(error[0]), unit),
        "noise": Parameter(noise, noise / np.sqrt(2 * free) if free else 0.0, unit),
    }
    for c, value, e in zip(codes, inl, np.sqrt(np.maximum(np.diag(own), 0)), strict=True):
        parameters[f"inl[{c:g}]"] = Parameter(float(value), float(e), "LSB")
    for c, value, e in zip(codes[1:][near], dnl, dnl_error, strict=True):
        parameters[f"dnl[{c:g}]"] = Parameter(float(value), float(e), "LSB")
    full = np.zeros((len(parameters), len(parameters)))
    full[:2, :2] = covariance[::-1, ::-1]
    sigma = noise or float(np.sqrt((rest**2).sum() / (len(codes) - 2))) or 1e-300
    about = (mean[index] if free > 0 else (x @ [offset, gain])[index])
    z = (output - about) / sigma
    p = len(codes) + 1 if free > 0 else 3
    log_likelihood = -0.5 * float((z**2 + np.log(2 * np.pi * sigma**2)).sum())
    dropped = dict(table.dropped)
    if not kept.all():
        dropped["beyond 8 sigma of their code"] = int((~kept).sum())
    largest = f"largest INL {np.abs(inl).max():.3g} LSB"
    if len(dnl):
        largest += f", largest DNL {np.abs(dnl).max():.3g} LSB"
    missing = int((~near).sum())
    notes = [largest] + ([f"{missing} steps between codes are gaps: no DNL there"] * (missing > 0))
    if free == 0:
        notes.append("one output for each code: errors of gain and offset hold the INL")
    return Fit(
        kind="converter",
        model="a line, and a table of INL",
        parameters=parameters,
        correlation=correlation_of(full),
        n=len(output),
        dropped=dropped,
        goodness=goodness(log_likelihood, p, len(output),
                          float((z**2).sum()) / max(len(output) - p + (free > 0), 1)),
        heldout=_held_out(codes, index, output, unit),
        residuals=(code, z),
        x_label="code",
        panels=(
            Panel("integral non-linearity", "code", "INL (LSB)", codes, inl,
                  np.sqrt(np.maximum(np.diag(own), 0)) if free > 0 else None),
            Panel("differential non-linearity", "code", "DNL (LSB)", codes[1:][near], dnl,
                  dnl_error if free > 0 else None),
        ),
        converged=bool(np.isfinite(gain) and gain != 0),
        notes=tuple(notes),
        part={},
        source=table.source,
    )


def inl_lsb(fit: Fit) -> tuple[float, ...]:
    """Return the table of INL of a fitted converter in order of its codes, in LSB.

    What `inl_lsb` of a chip's DAC or ADC takes, where the codes are evenly spaced.
    """
    found = {
        float(name[4:-1]): parameter.value
        for name, parameter in fit.parameters.items() if name.startswith("inl[")
    }
    return tuple(found[code] for code in sorted(found))


def _inliers(index: np.ndarray, output: np.ndarray, n_codes: int) -> np.ndarray:
    """Return which repeats lie near the median of their code."""
    middle = np.array([np.median(output[index == k]) for k in range(n_codes)])
    far = np.abs(output - middle[index])
    repeated = np.bincount(index, minlength=n_codes)[index] > 2
    size = 1.4826 * float(np.median(far[repeated])) if repeated.any() else 0.0
    return ~repeated | (far <= _CUT * size) if size > 0 else np.ones(len(output), bool)


def _held_out(
    codes: np.ndarray, index: np.ndarray, output: np.ndarray, unit: str
) -> tuple[Checked, ...]:
    """Return the mean of every other repeat (or code) beside what the rest predicts."""
    order = np.argsort(index, kind="stable")
    place = np.empty(len(index), int)
    begin = np.r_[0, np.cumsum(np.bincount(index))[:-1]]
    place[order] = np.arange(len(index)) - begin[index[order]]
    taken = place % 2 == 0 if place.max() > 0 else index % 2 == 0
    x = np.stack([np.ones(len(index)), codes[index]], axis=1)
    if min(taken.sum(), (~taken).sum()) < 4 or len(np.unique(index[taken])) < 3:
        return ()
    inverse = np.linalg.inv(x[taken].T @ x[taken])
    line = inverse @ (x[taken].T @ output[taken])
    rest = output - x @ line
    middle = x[~taken].mean(0)
    variance = float(rest[taken].var(ddof=2))
    error = np.sqrt(variance * float(middle @ inverse @ middle)
                    + float(rest[~taken].var(ddof=1)) / (~taken).sum())
    return (
        Checked("mean output", float(middle @ line), float(output[~taken].mean()), float(error),
                unit),
    )
