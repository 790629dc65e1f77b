"""Costs of a deployment in the records of `run` and `map`."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from aimc_sim.errors import AimcError
from aimc_sim.units import format_time

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ssm.costs import Inference
    from ssm.deploy import Deployment
    from ssm.evaluate import Evaluation

_MAP_STEPS = 1024  # over which a step of `map` is the mean: its start and end do not show
_COMPARED = 500  # sequences on which A on tiles and A in logic are scored beside each other


def add_run_costs(
    record: dict[str, Any], found: Evaluation, x: NDArray[np.floating], seed: int
) -> None:
    """Put what a sequence costs into an `aimc-sim.run/1` record; a note where it is not known.

    x : the sequences that `found` scored, or more of them. Conductances are those of the first
    chip at the first time, drives those of the error-free model on the calibration signal.
    """
    from ssm.complexity import measure
    from ssm.costs import cost_inference, drawn_conductances
    from ssm.drives import measured_drives

    d, n_steps = found.deployment, record["n_steps"]
    record["complexity"] = measure(d.model)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the run has said it already
            chip = d.program(seed=seed).wait(found.times_s[0]).chip
        inference = cost_inference(
            d, n_steps, drives=measured_drives(d), g_s=drawn_conductances(chip, chip.aged())
        )
        _put(record, d, inference, n_steps, "sequence")
    except AimcError as error:
        _note(record, f"no costs and no verdict on A: {error}")
        return
    _add_accuracy(record["costs"]["verdict"], found, x, seed)
    writing = record["writing"]
    record["costs"]["writing_j"] = None if writing is None else writing["energy_j"]
    costs = inference.costs
    record["energy_j_per_inference"] = costs.energy_j
    record["latency_s_per_inference"] = costs.latency_s
    record["energy_breakdown_j"] = {
        name: costs.by(name) for name in ("kind", "part", "layer")
    }


def add_map_costs(record: dict[str, Any], d: Deployment, *, measured: bool) -> None:
    """Put what a step costs into an `aimc-sim.map/1` record; a note where it is not known.

    measured : the calibration signal is data, so drives of the rows are measured on it.
    """
    from ssm.complexity import measure

    record["complexity"] = measure(d.model)
    try:
        inference = _cost_of_steps(d, measured=measured)
        _put(record, d, inference, _MAP_STEPS, "step")
    except AimcError as error:
        _note(record, f"no costs and no verdict on A: {error}")
        return
    each = inference.costs.times(1 / _MAP_STEPS)
    record["energy_j_per_step"] = each.energy_j
    record["energy_breakdown_j"] = {name: each.by(name) for name in ("kind", "part", "layer")}


def _cost_of_steps(d: Deployment, *, measured: bool) -> Inference:
    from ssm.costs import cost_inference
    from ssm.drives import measured_drives

    return cost_inference(d, _MAP_STEPS, drives=measured_drives(d) if measured else None)


def costs_of_step(d: Deployment, *, measured: bool) -> tuple[float | None, float | None]:
    """Return energy [J] and time [s] of a step, in the middle of a sequence; None: not known.

    measured : as of `add_map_costs`.
    """
    try:
        inference = _cost_of_steps(d, measured=measured)
    except AimcError:
        return None, None
    return inference.costs.energy_j / _MAP_STEPS, inference.step_s


def _put(
    record: dict[str, Any], d: Deployment, inference: Inference, n_steps: int, of: str
) -> None:
    from ssm.baseline import digital_twins, judge

    verdict = judge(d, inference, n_steps)
    n = n_steps if of == "step" else 1
    twins = {name: twin.times(1 / n) for name, twin in digital_twins(d, n_steps).items()}
    record["area_m2"] = sum(inference.area_m2.values())
    record["costs"] = {
        "of": of,
        "node_nm": d.spec.costs.node_nm,
        "energy_j_per_step": inference.costs.energy_j / n_steps,
        "step_s": inference.step_s,
        "area_m2": dict(inference.area_m2),
        "in_logic_j": {name: twin.energy_j for name, twin in twins.items()},
        "in_logic_breakdown_j": {name: twin.by("kind") for name, twin in twins.items()},
        "verdict": {
            "analog_j_per_step": verdict.analog_j,
            "digital_j_per_step": verdict.digital_j,
            "form": verdict.form,
            "drives_assumed": verdict.assumed,
            "accuracy": None,
            "text": str(verdict),
        },
        "drives": inference.drives,
        "constants": [
            {"name": name, "value": each.value, "unit": each.unit, "source": each.source}
            for name, each in inference.constants.items()
        ],
    }
    _note(record, f"costs: drives of rows from {inference.drives}")
    if inference.step_s > d.spec.step_period_s:
        _note(
            record,
            f"costs: a step takes {format_time(inference.step_s)} on these tiles; noise and drift "
            f"count {format_time(d.spec.step_period_s)} (step_period_s)",
        )


def _note(record: dict[str, Any], text: str) -> None:
    """Put a note before those on what to cite."""
    notes = record["notes"]
    first = next((k for k, note in enumerate(notes) if note.startswith("to cite")), len(notes))
    notes.insert(first, text)


def _add_accuracy(
    verdict: dict[str, Any], found: Evaluation, x: NDArray[np.floating], seed: int
) -> None:
    """Put into a verdict how often A on tiles is right and how often A in logic.

    Both on the first chip at the last time and on the same sequences, up to `_COMPARED` of those
    that were scored. Nothing without labels, or where the other A has no place on the chip.
    """
    from ssm.baseline import counterpart
    from ssm.evaluate import accuracy

    d, at_s = found.deployment, found.times_s[-1]
    if found.y is None:
        return
    y = found.y[:_COMPARED]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            chip = counterpart(d).program(seed=seed).wait(at_s)
            other = chip.infer(x[: len(y)], engine=found.engine).logits
    except AimcError:
        return  # the verdict says already that A does not go onto tiles
    shares = [float(accuracy(logits, y)) for logits in (found.chip_logits[-1, 0, : len(y)], other)]
    on_tiles, in_logic = reversed(shares) if d.form == "digital" else shares
    verdict["accuracy"] = {
        "analog": on_tiles, "digital": in_logic, "at_s": at_s, "n_samples": len(y)
    }
    verdict["text"] += (
        f"; on one chip after {format_time(at_s)}, A on tiles gets {100 * on_tiles:.1f} % and "
        f"digital A {100 * in_logic:.1f} % of {len(y)} sequences right"
    )
