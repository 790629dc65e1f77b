"""The same matrix and cells in aihwkit and here, and whether their distributions agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aimc_sim.chip import Chip
from aimc_sim.errors import UsageError
from aimc_sim.interop.aihwkit.noise import Defects, import_noise_model
from aimc_sim.mapping import Request, place
from aimc_sim.specs import ChipSpec

_QUANTILES = (0.05, 0.5, 0.95)
_US = 1e-6
_LEAST_STD = 1e-9  # relative to g_max: below it float32 alone differs


@dataclass(frozen=True)
class Comparison:
    """Errors of cells, g minus target [S], of both simulators at one stage and time.

    stage : "programmed" or "read". ours, theirs : mean, std and the quantiles at 5, 50 and 95 %.
    deviation : by how many standard errors of both samples the figures differ at most.
    agrees : whether that is within the limit that was asked for.
    """

    stage: str
    at_s: float
    n_ours: int
    n_theirs: int
    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    deviation: float
    agrees: bool

    def __str__(self) -> str:
        def said(values: tuple[float, ...]) -> str:
            return " ".join(f"{1e6 * value:8.4f}" for value in values)

        return (
            f"{self.stage:>10} {self.at_s:10.6g} s  ours {said(self.ours)}  "
            f"theirs {said(self.theirs)} uS  {self.deviation:5.2f} sigma"
            + ("" if self.agrees else "  DIFFERENT")
        )


def cross_check(
    model: Any,
    w: np.ndarray,
    times_s: Sequence[float] = (1.0, 86400.0),
    *,
    repeats: int = 8,
    seed: int = 0,
    sigmas: float = 5.0,
    defects: Defects = "kept",
) -> list[Comparison]:
    """Return how the cells of a matrix err in aihwkit and here, at every stage and time.

    Both program the conductances that the peer's converter makes of the matrix, `repeats` times,
    and read them at every time; errors of all cells are pooled. Two samples of the same
    distribution differ by their standard errors: of a mean sqrt(2/n) sigma, of a standard
    deviation from its fourth moment, of the share q of our cells below a quantile of theirs
    sqrt(2 q (1 - q)/n). Cells that are clipped to one value count as lying on its near side.

    Parameters
    ----------
    model : a noise model of aihwkit. w : (n_in, n_out). times_s : seconds since programming.
    repeats : chips. seed : of both sides; torch's global generator is left as it was.
    sigmas : standard errors up to which two figures agree.
    defects : as of `import_noise_model`: "kept" compares with what the peer draws, "mended" shows
        what its defects do.

    Every cell is compared for itself. Weights as the peer's tiles read them are not: it folds the
    programmed pair into a weight and splits it again, so the smaller cell of a pair loses its
    noise and the larger one gains its error.

    Raises UsageError for no times or fewer than 2 cells.
    """
    import torch

    asked = "compare aihwkit's cells with ours"
    w = np.asarray(w, np.float32)
    if not len(times_s) or w.size * repeats < 2:
        raise UsageError(
            asked, f"there are {len(times_s)} times and {w.size * repeats} cells",
            "give at least one time and a matrix",
        )
    chip = import_noise_model(model, defects=defects).chip.replace(noise_in_time="frozen")
    made = model.g_converter.convert_to_conductances(torch.from_numpy(w))[0]
    targets = torch.stack(list(made)) if isinstance(made, list) else made
    theirs = _their_errors(model, targets, times_s, repeats, seed)
    ours = _our_errors(chip, targets.numpy().ravel() * _US, times_s, repeats, seed)
    least = _LEAST_STD * chip.device.g_max_s
    return [
        _compare(*stage, ours[stage], theirs[stage], sigmas, least)
        for stage in theirs
    ]


_Errors = dict[tuple[str, float], np.ndarray]


def _their_errors(
    model: Any, targets: Any, times_s: Sequence[float], repeats: int, seed: int
) -> _Errors:
    import torch

    found: dict[tuple[str, float], list[Any]] = {("programmed", 0.0): []}
    found |= {("read", float(t)): [] for t in times_s}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(repeats):
            # the peer changes targets in place
            written = model.apply_programming_noise_to_conductance(targets.clone())
            nu = model.generate_drift_coefficients(targets.clone())
            found["programmed", 0.0].append(written - targets)
            for t in times_s:
                read = model.apply_drift_noise_to_conductance(written.clone(), nu.clone(), t)
                found["read", float(t)].append(read - targets)
    return {
        stage: torch.stack(each).numpy().astype(float).ravel() * _US
        for stage, each in found.items()
    }


def _our_errors(
    spec: ChipSpec, target_s: np.ndarray, times_s: Sequence[float], repeats: int, seed: int
) -> _Errors:
    n = target_s.size
    spec = spec.replace(**{
        "tile.rows": min(n, 65536), "tile.cols": 1, "cells_per_weight": 1, "parallel": "equal",
    })
    layout = place([Request("cells", 1, n, 1, pair=False)], spec)
    fresh = Chip(spec, layout, target_s, seed, repeats)
    found: _Errors = {}
    if spec.device.relaxation is not None and spec.device.relaxation.kind == "total":
        # the error of writing is in that of the first time
        found["programmed", 0.0] = _read(fresh) - np.tile(target_s, repeats)
    else:
        found["programmed", 0.0] = fresh.programmed_s.astype(float).ravel() - np.tile(
            target_s, repeats
        )
    for t in times_s:
        chip = fresh.fresh()
        chip.wait(t)
        found["read", float(t)] = _read(chip) - np.tile(target_s, repeats)
    return found


def _read(chip: Chip) -> np.ndarray:
    return np.concatenate([chip.read(k).astype(float) for k in range(chip.n_replicas)])


def _figures(x: np.ndarray) -> tuple[float, ...]:
    return (float(x.mean()), float(x.std()), *(float(q) for q in np.quantile(x, _QUANTILES)))


def _std_error(x: np.ndarray) -> float:
    """Return the standard error of the std of a sample, from its own fourth moment."""
    variance = float(x.var())
    if variance == 0:
        return 0.0
    excess = float(((x - x.mean()) ** 4).mean()) - variance**2
    return float(np.sqrt(max(excess, 0.0) / variance / 4 / x.size))


def _compare(
    stage: str, at_s: float, ours: np.ndarray, theirs: np.ndarray, sigmas: float, least: float
) -> Comparison:
    a, b = _figures(ours), _figures(theirs)
    mean_error = np.sqrt(ours.var() / ours.size + theirs.var() / theirs.size)
    std_error = np.hypot(_std_error(ours), _std_error(theirs))
    worst = max(
        (abs(a[k] - b[k]) - least) / max(error, least)
        for k, error in ((0, mean_error), (1, std_error))
    )
    for k, share in enumerate(_QUANTILES, start=2):
        worst = max(worst, _quantile_deviation(ours, b[k], share, theirs.size, least))
    worst = max(worst, 0.0)
    return Comparison(
        stage, at_s, ours.size, theirs.size, a, b, float(worst), bool(worst <= sigmas)
    )


def _quantile_deviation(
    ours: np.ndarray, theirs: float, share: float, n_theirs: int, least: float
) -> float:
    """Return how many standard errors the share of ours below their quantile is off.

    Where cells are clipped many have the same value: the nearest share counts.
    """
    error = np.sqrt(share * (1 - share) * (1 / ours.size + 1 / n_theirs))
    below = float((ours < theirs - least).mean())
    up_to = float((ours <= theirs + least).mean())
    off = max(below - share, share - up_to, 0.0)
    return float(off / error)
