"""The task of a sweep: one model on one sampled chip at one time, scored.

Everything comes from what the task says: hashes of files, the chip's TOML, settings, numbers.
Models, data and deployments are kept in the process that runs it, for the next task alike.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aimc_sim.errors import AimcError, InputError
from aimc_sim.kernels.threads import one_thread
from aimc_sim.specs import ChipSpec
from aimc_sim.storage import Words, read_archive
from ssm.baseline import Verdict, judge
from ssm.checkpoint import load
from ssm.complexity import measure
from ssm.costs import cost_inference
from ssm.deploy import Deployment, deploy
from ssm.drives import Drives, measured_drives
from ssm.evaluate import accuracy, relative_rms
from ssm.inference import ProgrammedModel, Run
from ssm.quantize import Precision, quantize

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ssm.model import Model

# what a task returns, and its unit
OUTPUTS = {
    "accuracy": "1", "logit_error": "1", "diverged": "1", "unstable_modes": "1",
    "float_accuracy": "1", "tiles": "1", "cells": "1", "energy_j": "J", "latency_s": "s",
    "memory_bits": "1", "bops_per_step": "1",
}
CALIBRATION_ROWS = 64  # of the data, as a run takes them
_REFERENCE_SAMPLES = 32  # sequences of the float model at once
_WORDS = Words(
    "give an .npz with x, and y where there are labels", "save the data again",
    "give an .npz with x, and y where there are labels",
)


@dataclass(frozen=True, eq=False)
class Data:
    """Sequences that are scored, x (n, time, features) and labels y (n,) or None, and those that
    set the converters' ranges; a hash of all."""

    x: NDArray[np.floating]
    y: NDArray[np.int64] | None
    calibrate: NDArray[np.floating]
    sha256: str


def score(task: Mapping[str, Any]) -> dict[str, float | None]:
    """Return how one sampled chip answers: shares of right answers, errors, sizes.

    accuracy, float_accuracy : of the chip and of the model as trained, None without labels.
    logit_error : relative rms error of the chip's logits, None where none is finite.
    diverged : sequences whose logits are not finite. unstable_modes : outside the unit circle.
    tiles, cells : in use. energy_j, latency_s : of a sequence on this chip as it is now, drives
    of rows from the calibration signal (`ssm.costs`); None where costs are not known.
    memory_bits, bops_per_step : of the model at its precision (`ssm.complexity`).

    task : hashes and facts of model and data, `chip` (TOML), form, decay, precision, limit,
    `at_s`, seed, replica; and where the files are.

    Raises InputError where a file is not the one that the task was made for.
    """
    shared = {
        key: value for key, value in task.items() if key not in ("at_s", "seed", "replica")
    }
    with one_thread(), warnings.catch_warnings():
        # the sweep's reader has said them once
        warnings.simplefilter("ignore", UserWarning)
        deployment, reference, x, y = _deployed(json.dumps(shared, sort_keys=True))
        chip = ProgrammedModel(deployment, task["seed"], 1, task["replica"]).wait(task["at_s"])
        run = chip.infer(x)
        logits, size = run.logits, measure(deployment.model)
        return {
            "accuracy": None if y is None else float(accuracy(logits, y)),
            "logit_error": relative_rms(logits, reference),
            "diverged": float((~np.isfinite(logits).all(axis=-1)).sum()),
            "unstable_modes": float(chip.unstable_modes().sum()),
            "float_accuracy": None if y is None else float(accuracy(reference, y)),
            "tiles": float(deployment.layout.n_tiles),
            "cells": float(deployment.layout.n_used()),
            **_costs(deployment, x.shape[1], run),
            "memory_bits": float(size["memory_bits"]),
            "bops_per_step": float(size["bops_per_step"]),
        }


def _costs(deployment: Deployment, n_steps: int, run: Run) -> dict[str, float | None]:
    """Return energy and latency of a sequence on the chip that ran; None where unknown."""
    try:
        found = cost_inference(deployment, n_steps, drives=_drives(deployment), g_s=run.g_s).costs
    except AimcError:
        # such as of ideal converters: the sweep still wants the rest
        return {"energy_j": None, "latency_s": None}
    return {"energy_j": found.energy_j, "latency_s": found.latency_s}


@lru_cache(maxsize=2)
def _drives(deployment: Deployment) -> Drives:
    return measured_drives(deployment)


def open_model(path: str, norm: str | None, disc: str | None, pool: str | None) -> Model:
    """Return the model of a file, named as the file where it has no name."""
    model = load(path, norm=norm, disc=disc, pool=pool)
    return model if model.name.strip() else model.replace(name=Path(path).stem)


def find_data(model: Model, name: str | None, calibrate: str | None) -> Data:
    """Return what a run of the model reads: a file, a task, its own task, or a probe signal.

    name : an .npz file with x and y, a task, or None. calibrate : an .npz file, or None for the
    first rows of the file, training rows of the task, or the probe.

    Raises InputError for a file that cannot be read or does not suit the model, UsageError for
    an unknown task.
    """
    from ssm.ranges import default_signal
    from ssm.tasks import load_task, task_names

    x: NDArray[np.floating]
    y: NDArray[np.int64] | None = None
    if name is not None and name.endswith(".npz"):
        x, y = _read_file(Path(name), model)
        rows = x[:CALIBRATION_ROWS]
    elif name is not None or model.task in task_names():
        task = load_task(str(name or model.task))
        x, y, rows = task.x_test, task.y_test, task.calibration(CALIBRATION_ROWS)
        _check(x, y, model, f"score task '{task.name}'")
    else:
        x, _ = default_signal(model)
        rows = x
    if calibrate is not None:
        rows, _ = _read_file(Path(calibrate), model)
    digest = hashlib.sha256()
    for array in (x, y, rows):
        if array is not None:
            digest.update(f"{array.dtype} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
    return Data(x, y, rows, digest.hexdigest())


def _read_file(path: Path, model: Model) -> tuple[NDArray[np.floating], NDArray[np.int64] | None]:
    asked = f"read the data {path}"
    arrays = read_archive(path, asked, ("x",), ("y",), _WORDS)
    x, y = arrays["x"], arrays.get("y")
    if x.dtype.kind not in "fiub":
        raise InputError(asked, f"its x is of type {x.dtype}", "give real numbers")
    x = x if x.dtype in (np.float32, np.float64) else x.astype(np.float32)
    if y is not None and (y.dtype.kind not in "iu" or y.shape != x.shape[:1]):
        raise InputError(
            asked, f"its y has shape {y.shape} and type {y.dtype}, x has {len(x)} sequences",
            "give one whole number a sequence, or leave y out",
        )
    labels = None if y is None else y.astype(np.int64)
    _check(x, labels, model, asked)
    return x, labels


def _check(
    x: NDArray[np.floating], y: NDArray[np.int64] | None, model: Model, asked: str
) -> None:
    if x.ndim != 3 or x.shape[2] != model.d_input or x.size == 0:
        raise InputError(
            asked,
            f"its x has shape {x.shape}, the model reads {model.d_input} feature(s) a step",
            f"give x the shape (n, time, {model.d_input}), not empty",
        )
    if not np.isfinite(x).all():
        raise InputError(asked, "its x has NaN or infinite values", "clean the data")
    if y is not None and (y.min() < 0 or y.max() >= model.n_classes):
        raise InputError(
            asked, f"its labels run from {y.min()} to {y.max()}",
            f"the model has classes 0 to {model.n_classes - 1}: give labels in that range",
        )


@lru_cache(maxsize=2)
def _trained(
    path: str, sha256: str, norm: str | None, disc: str | None, pool: str | None
) -> Model:
    model = open_model(path, norm, disc, pool)
    if model.sha256 != sha256:
        raise InputError(
            f"run the model {path}", "the file has changed since the sweep was made",
            "put the old file back, or start the sweep again",
        )
    return model


@lru_cache(maxsize=2)
def _scored(
    model: Model, name: str | None, calibrate: str | None, sha256: str
) -> Data:
    data = find_data(model, name, calibrate)
    if data.sha256 != sha256:
        raise InputError(
            f"score the data {name or model.task}", "they have changed since the sweep was made",
            "put the old data back, or start the sweep again",
        )
    return data


@lru_cache(maxsize=2)
def _reference(
    model: Model, name: str | None, calibrate: str | None, sha256: str, limit: int | None
) -> NDArray[np.float64]:
    """Return the float model's logits (n, n_classes)."""
    x = _scored(model, name, calibrate, sha256).x[:limit]
    starts = range(0, len(x), _REFERENCE_SAMPLES)
    return np.concatenate([model.logits(x[k : k + _REFERENCE_SAMPLES]) for k in starts])


@lru_cache(maxsize=2)
def _deployed(
    shared: str,
) -> tuple[Deployment, NDArray[np.float64], NDArray[np.floating], NDArray[np.int64] | None]:
    """Return a deployment, the float model's logits, and the sequences and labels to score.

    shared : JSON of what tasks on chips of one kind have in common.
    """
    task = json.loads(shared)
    deployment, model, data = _laid_out(task)
    limit = task["limit"]
    y = None if data.y is None else data.y[:limit]
    reference = _reference(model, *_source(task), limit)
    return deployment, reference, data.x[:limit], y


def judge_task(task: Mapping[str, Any]) -> Verdict:
    """Return what A of a task costs on tiles and in logic; nothing is simulated.

    Drives of rows from the calibration signal, conductances as asked for. task : as of `score`.

    Raises InputError where the chip's costs cannot be known, and as `score`.
    """
    with one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        deployment, _, data = _laid_out(task)
        n_steps = data.x.shape[1]
        found = cost_inference(deployment, n_steps, drives=measured_drives(deployment))
        return judge(deployment, found, n_steps)


def _source(task: Mapping[str, Any]) -> tuple[str | None, str | None, str]:
    return task["data_name"], task["calibrate_file"], task["data"]


def _laid_out(task: Mapping[str, Any]) -> tuple[Deployment, Model, Data]:
    """Return a deployment, its model as trained, and its data."""
    model = _trained(
        task["model_file"], task["model"], task["norm"], task["disc"], task["pool"]
    )
    data = _scored(model, *_source(task))
    spec = ChipSpec.from_text(task["chip"], origin="of the task")
    if "fault_map" in task:
        path = Path(task["fault_map_file"])
        if hashlib.sha256(path.read_bytes()).hexdigest() != task["fault_map"]:
            raise InputError(
                f"read the fault map {path}", "the file has changed since the sweep was made",
                "put the old file back, or start the sweep again",
            )
        spec = spec.replace(**{"faults.map": str(path)})
    bits = Precision(**task["precision"])
    on_chip = quantize(model, bits) if bits.given() else model
    deployment = deploy(
        on_chip, spec, task["form"], decay=task["decay"], calibrate=data.calibrate
    )
    return deployment, model, data
