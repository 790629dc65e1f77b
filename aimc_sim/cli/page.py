"""What the page of a run shows beside its record, and what of that could not be made."""

from __future__ import annotations

import importlib.metadata
import platform
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from aimc_sim.errors import AimcError, UsageError

if TYPE_CHECKING:
    import numpy as np

    from aimc_sim.pages.exhibits import Exhibits
    from ssm.evaluate import Evaluation, Progress
    from ssm.model import Model

_MOST_CHIPS = 4  # of the states and of the page's own budget
_BUDGET_SAMPLES = 24  # on all its chips together
_BUDGET_SHARE = 0.5  # of the sequences that the run itself took
_VERSIONED = ("numpy", "numba", "torch")


def versions() -> dict[str, str]:
    """Return the versions that a run depends on, by name; what is not installed is left out."""
    from aimc_sim import __version__

    found = {"aimc-sim": __version__, "python": platform.python_version()}
    for name in _VERSIONED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {**found, "machine": f"{platform.system()} {platform.machine()}"}


def check_sample(sample: int | None, n: int, has_out: bool) -> int:
    """Return the number of the sequence whose states are shown, refused before the run."""
    if sample is None:
        return 0
    asked = f"use --sample {sample}"
    if not has_out:
        raise UsageError(asked, "there is no --out whose report would show it", "add --out DIR")
    if not 0 <= sample < n:
        raise UsageError(
            asked, f"the run scores sequences 0 to {n - 1}", "choose one of them"
        )
    return sample


def make_exhibits(
    found: Evaluation, model: Model, x: np.ndarray, *, seed: int, sample: int,
    has_budget: bool, on_progress: Progress | None = None,
) -> Exhibits:
    """Return what the page of a run shows; what fails for want of room or data is told there."""
    from aimc_sim.pages.exhibits import Exhibits
    from ssm.evaluate import confusion

    n, chips = found.chip_logits.shape[2], found.chip_logits.shape[1]
    programmed = found.deployment.program(seed=seed).wait(found.times_s[-1])
    missing: list[str] = []
    budget = states = None
    if not has_budget:
        try:
            budget = _small_budget(found, x[:n], seed, on_progress)
        except AimcError as error:
            missing.append(f"budget: {error}")
    try:
        states = _states(found, model, x[:n], seed, sample, min(chips, _MOST_CHIPS))
    except AimcError as error:
        missing.append(f"states: {error}")
    counts = None if found.y is None else confusion(found.chip_logits[-1], found.y)
    return Exhibits(programmed.chip, counts, budget, states, tuple(missing))


def _states(
    found: Evaluation, model: Model, x: np.ndarray, seed: int, sample: int, chips: int
) -> Any:
    from ssm.traces import trace_states

    return trace_states(
        model, found.deployment, x, sample=sample, seed=seed, chips=chips, at_s=found.times_s[-1]
    )


def _small_budget(
    found: Evaluation, x: np.ndarray, seed: int, on_progress: Progress | None
) -> dict[str, Any] | None:
    """Return rows of a budget of few sequences, so that it takes less than the run itself."""
    from ssm.ablation import non_idealities
    from ssm.budget import group_of_cause, network_parts, signal_budget

    d, (times, chips, n, _) = found.deployment, found.chip_logits.shape
    causes = {group_of_cause(name) for name in non_idealities(d.spec)}
    if not causes:
        return None
    runs = len(network_parts(d.network)) * (len(causes) + 1)
    affordable = int(_BUDGET_SHARE * times * chips * n / runs)
    chips = max(1, min(chips, _MOST_CHIPS, affordable))
    most = max(1, min(_BUDGET_SAMPLES, affordable) // chips)
    layers = signal_budget(
        d, x, seed=seed, chips=chips, at_s=found.times_s[-1], most=most, on_progress=on_progress
    )
    rows = [{**asdict(share), "at_s": layers.at_s} for share in layers.shares]
    return {
        "chip": d.spec.name, "budget": rows, "budget_samples": layers.n_samples,
        "budget_chips": chips,
    }
