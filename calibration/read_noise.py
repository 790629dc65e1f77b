"""Read noise: white, 1/f and telegraph noise, from many reads of cells in time."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from aimc_sim.cards import ReadNoiseSpec, TelegraphSpec
from aimc_sim.curves import Curve
from aimc_sim.errors import InputError
from calibration.checks import check_count, check_varies, columns
from calibration.fit import Checked, Fit, Panel, Parameter, correlation_of
from calibration.shapes import level_parameters, polynomial_curve, table_curve
from calibration.spectra import Gram, Spectrum, SpectrumFit, fit_spectrum, lorentzian, periodogram
from calibration.tables import Table
from calibration.telegraph import Telegraph, fit_telegraph, has_telegraph

_LEAST_READS = 64
_UNEVEN = 0.2  # of the sample period, by which times may stray
_SPIKE = 12.0  # robust sigmas of the step from its neighbours' median to a read
_ANY_EXPONENT = 2.0  # standard error of an exponent that the reads do not tell
_UNSEEN = 2.0  # error of the logarithm of the power of jumps: of their amplitude all
_MISFIT = 2.2  # mean square of the bins' deviations, above which the model is approximate


class _Cell(NamedTuple):
    """The reads of one cell [uS] and what fits them."""

    level: float
    n: int
    period_s: float
    gram: Gram  # of the reads as they are
    chain: Telegraph | None
    spectrum: SpectrumFit  # of what the chain leaves, or of all with a Lorentzian
    amplitude: float  # 0 without a chain
    dwell_s: tuple[float, float]  # in the upper and the lower level
    jump_errors: np.ndarray  # (3,) of amplitude, ln tau_high, ln tau_low
    loose: bool

    @property
    def share(self) -> float:
        """Share of time in the upper level."""
        return self.dwell_s[0] / (self.dwell_s[0] + self.dwell_s[1])

    def power(self, f_hz: np.ndarray) -> np.ndarray:
        """Return the whole spectrum of the model [uS^2/Hz]."""
        s = self.spectrum.power(f_hz)
        if self.amplitude and self.spectrum.jumps is None:
            rate = 1 / self.dwell_s[0] + 1 / self.dwell_s[1]
            s = s + lorentzian(self.amplitude, self.share, rate, f_hz)
        return np.asarray(s)


def fit_read_noise(table: Table) -> Fit:
    """Return read noise: white, 1/f of any exponent, and telegraph noise where a cell has it.

    Each cell's reads, evenly spaced in time, are taken apart. A two-level hidden Markov chain in
    normal noise is fitted (Baum-Welch); whether it is telegraph noise `telegraph.has_telegraph`
    decides. What its path leaves gives white + sigma^2/f^a (f in Hz) by the Whittle likelihood
    of the periodogram (Whittle 1953, doi:10.1007/BF02590998). Where the sum of the three is not
    the measured spectrum within its own scatter (mean square above 2.2), all three are fitted to
    the spectrum again, held to the measured variance: the figures then are an approximation, a
    note says so, and their errors include the misfit.

    Of a card, sigma, white and amplitude are straight lines between the measured conductances
    (cells at one conductance pooled); exponent is that of all cells, weighted, at which sigma
    and white are fitted again; the share of cells with telegraph noise, the geometric mean of
    their dwell times and the spreads make its telegraph part.

    Correlations between the parameters are not estimated: `correlation` is the identity.

    The noise held out is the second half of each cell's reads: its standard deviation beside the
    integral of the spectrum of the first.

    table : columns cell, time_s, conductance_s. A read farther than 12 robust sigmas from both
    of its neighbours, which agree, is replaced by their mean and counted.

    Raises InputError for fewer than 64 reads of a cell, uneven times, or constant reads.
    """
    cell, time, g = columns(table, "read-noise", "cell", "time_s", "conductance_s")
    check_count("read-noise", "reads", len(g), _LEAST_READS)
    cells, replaced = [], 0
    for k, label in enumerate(np.unique(cell)):
        mine = cell == label
        y, period_s = _even(label, time[mine], g[mine] * 1e6)
        y, spikes = _despiked(y)
        replaced += spikes
        cells.append(_fit_cell(y, period_s, seed=k))
    halves = _later(cells, _series(cell, time, g))
    exponent, exponent_error = _common_exponent(cells)
    groups = _groups(np.array([one.level for one in cells]))
    parameters, variances = _parameters(cells, groups, exponent, exponent_error)
    levels = np.array([np.mean([cells[k].level for k in group]) for group in groups])
    jumping = [one for one in cells if one.amplitude]
    loose = [one for one in cells if one.loose]
    dropped = dict(table.dropped)
    if replaced:
        dropped["single reads far from both neighbours (replaced by their mean)"] = replaced
    n = sum(one.n for one in cells)
    part: dict[str, object] = {"read_noise": _noise_spec(cells, groups, levels, exponent)}
    if jumping:
        part["telegraph"] = _telegraph_spec(cells, jumping)
    value = -sum(_whittle(one) for one in cells)
    p = len(parameters)
    return Fit(
        kind="read-noise",
        model="white + 1/f" + (" + telegraph" if jumping else ""),
        parameters=parameters,
        correlation=correlation_of(np.diag(variances)),
        n=n,
        dropped=dropped,
        goodness={
            "reduced_chi_square": float(np.mean([_misfit(one) for one in cells])),
            "log_likelihood": value,
            "aic": 2 * p - 2 * value,
            "bic": p * math.log(n) - 2 * value,
        },
        heldout=tuple(_held_out(cells, halves)),
        residuals=_residuals(cells),
        x_label="log10 of the frequency in Hz",
        panels=tuple(_panel(one) for one in cells[:8]),
        converged=all(one.spectrum.converged for one in cells),
        notes=_notes(cells, jumping, loose),
        part=part,
        g_range_s=(float(levels.min()) * 1e-6, float(levels.max()) * 1e-6),
        time_range_s=(min(one.period_s for one in cells),
                      max(one.n * one.period_s for one in cells)),
        source=table.source,
    )


def _later(
    cells: list[_Cell], series: list[tuple[np.ndarray, float]]
) -> list[tuple[_Cell, np.ndarray]]:
    """Return the fit of the first half of each cell's reads, and the second half."""
    return [(_fit_cell(y[: len(y) // 2], period, k, quick=cells[k]), y[len(y) // 2 :])
            for k, (y, period) in enumerate(series)]


def _series(
    cell: np.ndarray, time: np.ndarray, g: np.ndarray
) -> list[tuple[np.ndarray, float]]:
    """Return each cell's reads [uS], cleaned, and their period."""
    result = []
    for label in np.unique(cell):
        y, period_s = _even(label, time[cell == label], g[cell == label] * 1e6)
        result.append((_despiked(y)[0], period_s))
    return result


def _even(label: float, time: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
    """Return reads in order of time and their period, or refuse what is not evenly spaced."""
    check_count("read-noise", f"reads of cell {label:g}", len(y), _LEAST_READS)
    check_varies("read-noise", f"conductance_s of cell {label:g}", y)
    order = np.argsort(time, kind="stable")
    time, y = time[order], y[order]
    period_s = float(time[-1] - time[0]) / (len(time) - 1)
    if not period_s > 0 or np.abs(np.diff(time) / period_s - 1).max() > _UNEVEN:
        raise InputError(
            f"fit read-noise of cell {label:g}",
            f"its reads are not evenly spaced (mean period {period_s:.4g} s)",
            "give reads at one rate, without gaps, or say the period with sample_period_s",
        )
    return y, period_s


def _despiked(y: np.ndarray) -> tuple[np.ndarray, int]:
    """Return reads with single spikes replaced by their neighbours' mean, and how many."""
    before, after, here = y[:-2], y[2:], y[1:-1]
    size = 1.4826 * float(np.median(np.abs(np.diff(y)))) or float(np.diff(y).std())
    middle = 0.5 * (before + after)
    lone = (np.abs(here - middle) > _SPIKE * size) & (np.abs(before - after) < 4 * size)
    if not size > 0 or lone.mean() > 1e-3:  # many are jumps of the cell, not errors of reads
        return y, 0
    clean = y.copy()
    clean[1:-1][lone] = middle[lone]
    return clean, int(lone.sum())


def _fit_cell(y: np.ndarray, period_s: float, seed: int, quick: _Cell | None = None) -> _Cell:
    """Return what fits one cell; quick : keeps the decisions of that fit."""
    gram = periodogram(y, period_s)
    chain: Telegraph | None = None
    if quick is None or quick.amplitude:
        chain = fit_telegraph(y, period_s)
        if quick is None and not has_telegraph(y, chain, seed):
            chain = None
    none = (1.0, 1.0)
    cell = _Cell(float(y.mean()), len(y), period_s, gram, chain,
                 fit_spectrum(gram if chain is None else periodogram(y - chain.path(y), period_s)),
                 0.0, none, np.zeros(3), False)
    if chain is not None:
        error = np.sqrt(np.maximum(np.diag(chain.errors(y)), 0))
        # the chain takes noise for white: what 1/f adds, weighted as the jumps' own spectrum
        weight = gram.lines * lorentzian(1.0, chain.share, chain.rate, gram.f_hz)
        seen = float((weight * cell.spectrum.power(gram.f_hz)).sum() / weight.sum())
        error[0] *= math.sqrt(max(seen / (2 * period_s * chain.sigma**2), 1.0))
        cell = cell._replace(amplitude=chain.amplitude, dwell_s=chain.dwell_s, jump_errors=error)
    if _misfit(cell) <= _MISFIT and (quick is None or not quick.loose):
        return cell
    jumps = None
    if chain is not None:
        jumps = (chain.amplitude**2 * chain.share * (1 - chain.share), chain.rate)
    spectrum = fit_spectrum(gram, jumps, loose=True)
    cell = cell._replace(spectrum=spectrum, loose=True)
    if chain is None or spectrum.jumps is None:
        return cell
    power, rate = spectrum.jumps
    share = min(max(chain.share, 0.01), 0.99)
    error = np.sqrt(np.maximum(np.diag(spectrum.covariance)[3:], 0))
    if error[0] > _UNSEEN and quick is None:  # the spectrum does without the jumps
        return cell._replace(chain=None, amplitude=0.0, dwell_s=none, jump_errors=np.zeros(3),
                             spectrum=fit_spectrum(gram, loose=True))
    amplitude = math.sqrt(power / (share * (1 - share)))
    return cell._replace(
        amplitude=amplitude,
        dwell_s=(1 / (rate * (1 - share)), 1 / (rate * share)),
        jump_errors=np.array([0.5 * amplitude * error[0], error[1], error[1]]),
    )


def _misfit(cell: _Cell) -> float:
    """Return the mean square of the bins' deviations in units of their scatter."""
    gram = cell.gram
    return float((gram.lines * (gram.power / cell.power(gram.f_hz) - 1) ** 2).mean())


def _whittle(cell: _Cell) -> float:
    gram = cell.gram
    s = cell.power(gram.f_hz)
    return float((gram.lines * (np.log(s) + gram.power / s)).sum())


def _std(cell: _Cell) -> float:
    """Return the standard deviation [uS] that the model has over a run as long as the cell's."""
    gram = cell.gram
    return math.sqrt(float((cell.power(gram.f_hz) * gram.lines).sum()) * gram.step_hz)


def _common_exponent(cells: list[_Cell]) -> tuple[float, float]:
    """Return the exponent of all cells, each weighted by its own error."""
    value = np.array([one.spectrum.spectrum.exponent for one in cells])
    variance = np.array([max(one.spectrum.covariance[2, 2], 1e-8) for one in cells])
    weight = 1 / variance
    mean = float((weight * value).sum() / weight.sum())
    error = math.sqrt(1 / float(weight.sum()))
    if len(cells) > 1:  # cells that differ by more than their errors make the mean less sure
        chi = float((weight * (value - mean) ** 2).sum()) / (len(cells) - 1)
        error *= math.sqrt(max(chi, 1.0))
    return mean, error


def _groups(level: np.ndarray) -> list[list[int]]:
    """Return which cells share a conductance, to a hundredth of the range; rising."""
    order = np.argsort(level)
    step = 0.01 * max(float(np.ptp(level)), 1e-9)
    groups: list[list[int]] = [[int(order[0])]]
    for k in order[1:]:
        near = level[k] - level[groups[-1][0]] <= step or float(np.ptp(level)) < 0.02 * level.max()
        if near:
            groups[-1].append(int(k))
        else:
            groups.append([int(k)])
    return groups


def _pooled(values: np.ndarray, errors: np.ndarray) -> tuple[float, float]:
    """Return the mean of cells and its standard error: of the fits, or of the cells' spread."""
    mean = float(values.mean())
    own = math.sqrt(float((errors**2).sum())) / len(values)
    between = float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 2 else 0.0
    return mean, max(own, between)


def _at(cell: _Cell, what: str) -> tuple[float, float]:
    """Return sigma at 1 Hz [uS] or the white density [uS/sqrt(Hz)] as noise of a read [uS]."""
    index = 0 if what == "white" else 1
    spectrum: Spectrum = cell.spectrum.spectrum
    power = spectrum.white if what == "white" else spectrum.sigma2
    scale = 0.5 / cell.period_s if what == "white" else 1.0
    value = math.sqrt(power * scale)
    error = scale * math.sqrt(max(cell.spectrum.covariance[index, index], 0.0))
    # a power within its error of nothing: its root is known to the root of that error
    return value, min(error / (2 * value), math.sqrt(error)) if value > 0 else math.sqrt(error)


def _parameters(
    cells: list[_Cell], groups: list[list[int]], exponent: float, exponent_error: float
) -> tuple[dict[str, Parameter], np.ndarray]:
    parameters = {"exponent": Parameter(exponent, exponent_error)}
    levels = [float(np.mean([cells[k].level for k in group])) for group in groups]
    for what in ("sigma", "white"):
        pairs = [
            _pooled(*np.array([_at(cells[k], what) for k in group]).T)
            for group in groups
        ]
        parameters |= level_parameters(
            what, levels, np.array([pair[0] for pair in pairs]),
            np.array([pair[1] for pair in pairs]),
        )
    if len(groups) > 1:
        for group, level in zip(groups, levels, strict=True):
            own = cells[group[0]].spectrum
            error = math.sqrt(max(own.covariance[2, 2], 0.0))
            if error < _ANY_EXPONENT:
                parameters |= level_parameters(
                    "exponent", [level], np.array([own.spectrum.exponent]), np.array([error]), ""
                )
    for group, level in zip(groups, levels, strict=True):
        jumping = [cells[k] for k in group if cells[k].amplitude]
        if not jumping:
            continue
        errors = np.array([one.jump_errors for one in jumping])
        value, error = _pooled(np.array([one.amplitude for one in jumping]), errors[:, 0])
        parameters[f"amplitude at {level:.6g} uS"] = Parameter(value, error, "uS")
        for j, name in enumerate(("tau_high", "tau_low")):
            log = np.log([one.dwell_s[j] for one in jumping])
            mean, error = _pooled(log, errors[:, 1 + j])
            time = math.exp(mean)
            parameters[f"{name} at {level:.6g} uS"] = Parameter(time, time * error, "s")
    n = len(cells)
    share = sum(one.amplitude > 0 for one in cells) / n
    # Agresti and Coull: two of each kind added, so that none or all has an error as well
    held = (share * n + 2) / (n + 4)
    parameters["fraction"] = Parameter(share, math.sqrt(held * (1 - held) / (n + 4)))
    return parameters, np.array([one.stderr**2 for one in parameters.values()])


def _noise_spec(
    cells: list[_Cell], groups: list[list[int]], levels: np.ndarray, exponent: float
) -> ReadNoiseSpec:
    """Return the card's part: at its one exponent each cell's white and 1/f noise once more."""
    again = []
    for one in cells:
        jumps = one.spectrum.jumps
        gram = one.gram
        if one.amplitude and jumps is None:
            rate = 1 / one.dwell_s[0] + 1 / one.dwell_s[1]
            rest = gram.power - lorentzian(one.amplitude, one.share, rate, gram.f_hz)
            gram = gram._replace(power=np.maximum(rest, 0.05 * gram.power))
        again.append(one._replace(
            spectrum=fit_spectrum(gram, jumps, loose=one.loose, exponent=exponent)
        ))
    curves = {
        what: _curve(levels, np.array([
            np.mean([_at(again[k], what)[0] for k in group]) for group in groups
        ]))
        for what in ("sigma", "white")
    }
    return ReadNoiseSpec(
        relative=False, spectrum="one_over_f", exponent=exponent, sigma=curves["sigma"],
        white=curves["white"], t_read_s=min(one.period_s for one in cells),
    )


def _curve(levels: np.ndarray, values: np.ndarray) -> Curve:
    if len(levels) == 1:
        return polynomial_curve(values)
    return table_curve(levels, values)


def _telegraph_spec(cells: list[_Cell], jumping: list[_Cell]) -> TelegraphSpec:
    order = np.argsort([one.level for one in jumping])
    amplitude = np.log([jumping[k].amplitude for k in order])
    level = np.array([jumping[k].level for k in order])
    groups = _groups(level)
    middle = np.array([amplitude[group].mean() for group in groups])
    rest = np.concatenate([amplitude[group] - amplitude[group].mean() for group in groups])
    free = len(rest) - len(groups)
    times = np.log([one.dwell_s for one in jumping])
    spread = float(times.std(axis=0, ddof=1).mean()) if len(jumping) > 1 else 0.0
    high, low = np.exp(times.mean(axis=0))
    return TelegraphSpec(
        fraction=len(jumping) / len(cells),
        relative=False,
        amplitude=_curve(np.array([level[group].mean() for group in groups]), np.exp(middle)),
        amplitude_spread=min(math.sqrt(float((rest**2).sum()) / free), 3.0) if free else 0.0,
        tau_high_s=float(high),
        tau_low_s=float(low),
        tau_spread=min(spread, 10.0),
    )


def _held_out(
    cells: list[_Cell], halves: list[tuple[_Cell, np.ndarray]]
) -> list[Checked]:
    """Return the spread of each cell's later reads beside what the spectrum of the first says."""
    checked = []
    for cell, (first, later) in list(zip(cells, halves, strict=True))[:16]:
        gram = periodogram(later, cell.period_s)
        power = first.power(gram.f_hz)
        variance = float((power * gram.lines).sum()) * gram.step_hz
        # each frequency's power spreads by itself; the spectrum's own error is about as large
        spread = math.sqrt(2 * float((power**2 * gram.lines).sum())) * gram.step_hz
        std = math.sqrt(variance)
        checked.append(Checked(f"std of later reads at {cell.level:.4g} uS", std,
                               float(later.std()), 0.5 * spread / std, "uS"))
    return checked


def _residuals(cells: list[_Cell]) -> tuple[np.ndarray, np.ndarray]:
    f = np.concatenate([np.log10(one.gram.f_hz) for one in cells])
    z = np.concatenate([
        np.sqrt(one.gram.lines) * (one.gram.power / one.power(one.gram.f_hz) - 1) for one in cells
    ])
    return f, z


def _panel(cell: _Cell) -> Panel:
    gram = cell.gram
    return Panel(
        f"spectrum at {cell.level:.4g} uS", "frequency (Hz)", "power (uS^2/Hz)", gram.f_hz,
        gram.power, gram.power / np.sqrt(gram.lines), gram.f_hz, cell.power(gram.f_hz),
        log_x=True, log_y=True,
    )


def _notes(cells: list[_Cell], jumping: list[_Cell], loose: list[_Cell]) -> tuple[str, ...]:
    def named(some: list[_Cell]) -> str:
        shown = ", ".join(f"{one.level:.4g}" for one in some[:8])
        return shown + (f" and {len(some) - 8} more" if len(some) > 8 else "")

    notes = [f"telegraph noise in {len(jumping)} of {len(cells)} cells"
             + (f": at {named(jumping)} uS" if jumping else "")]
    if loose:
        notes.append(
            f"white + 1/f + telegraph noise is an approximation at {named(loose)} uS (more than "
            "two levels, or a level that wanders): held to the measured variance"
        )
    worst = max(cells, key=lambda one: abs(math.log(_std(one) / math.sqrt(one.gram.variance))))
    ratio = _std(worst) / math.sqrt(worst.gram.variance)
    notes.append(f"the model's standard deviation is that measured within "
                 f"{100 * abs(ratio - 1):.2g} % in every cell")
    return tuple(notes)
