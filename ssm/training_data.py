"""What a training is given: sequences and labels that can be learned from, settings in range."""

from __future__ import annotations

import warnings

import numpy as np

from aimc_sim.errors import InputError, UsageError
from ssm.tasks import Task, load_task


def training_data(
    task: str | Task | tuple[np.ndarray, np.ndarray],
) -> tuple[str | None, np.ndarray, np.ndarray, int]:
    """Return (name, x, y, n_classes) of the training part, checked."""
    if isinstance(task, str):
        task = load_task(task)
    if isinstance(task, Task):
        _check_data(task.x_train, task.y_train, task.n_classes)
        return task.name, task.x_train, task.y_train, task.n_classes
    if not isinstance(task, tuple) or len(task) != 2:
        raise UsageError(
            "training was asked for",
            f"the task is {type(task).__name__}, not a name, a Task or a pair (x, y)",
            "pass a task's name or (x, y)",
        )
    x, y = np.asarray(task[0]), np.asarray(task[1])
    _check_data(x, y, None)
    return None, x, y, int(y.max()) + 1


def _check_data(x: np.ndarray, y: np.ndarray, n_classes: int | None) -> None:
    asked = f"training on x {x.shape} and y {y.shape} was asked for"
    if x.ndim != 3 or y.ndim != 1:
        raise InputError(
            asked, "the axes are not (n, time, features) and (n,)", "reshape the arrays"
        )
    if len(x) != len(y):
        raise InputError(
            asked, f"x holds {len(x)} sequences and y {len(y)} labels", "pass one label a sequence"
        )
    if x.size == 0:
        raise InputError(asked, "x is empty", "pass at least one sequence of one step")
    if x.dtype.kind not in "fiub":
        raise InputError(asked, f"x has type {x.dtype}, not real numbers", "convert x to float32")
    if not np.isfinite(x).all():
        bad = int(np.argwhere(~np.isfinite(x))[0][0])
        raise InputError(asked, f"x is not finite in sequence {bad}", "drop or repair that row")
    if y.dtype.kind not in "iu":
        raise InputError(
            asked, f"y has type {y.dtype}, not integers", "pass class numbers 0, 1, 2, ..."
        )
    top = int(y.max()) if n_classes is None else n_classes - 1
    if y.min() < 0 or y.max() > top:
        raise InputError(
            asked,
            f"the labels run from {y.min()} to {y.max()}",
            f"number the classes from 0 to {top}",
        )


def check_classes(y: np.ndarray, n_classes: int) -> None:
    """Refuse labels from which no new model can be made or learn; warn of empty classes."""
    asked = f"a new model of {n_classes} classes was asked for"
    if n_classes > max(len(y), 2):
        raise InputError(
            asked, f"the labels run to {int(y.max())}, of {len(y)} sequences",
            "number the classes 0, 1, 2, ...",
        )
    there = np.unique(y)
    if len(there) < 2:
        raise InputError(
            asked, f"all labels are {int(there[0])}: there is nothing to tell apart",
            "give sequences of two classes or more",
        )
    if len(there) < n_classes:
        empty = np.setdiff1d(np.arange(n_classes), there)
        shown = ", ".join(map(str, empty[:5])) + (", ..." if len(empty) > 5 else "")
        warnings.warn(
            f"no sequence is of class {shown}, yet the model gets {n_classes} classes; number "
            "the classes from 0 without gaps",
            stacklevel=3,
        )


def check_settings(
    epochs: int,
    batch_size: int,
    lr: float,
    kernel_lr: float,
    weight_decay: float,
    label_smoothing: float,
) -> None:
    """Refuse settings of a training that are out of range, by a UsageError that names one."""
    for name, count in (("epochs", epochs), ("batch_size", batch_size)):
        if count < 1:
            raise UsageError(f"{name} = {count} was asked for", "it is below 1", "pass >= 1")
    for name, rate in (("lr", lr), ("kernel_lr", kernel_lr)):
        if not 0.0 < rate < np.inf:
            raise UsageError(
                f"{name} = {rate} was asked for",
                "a learning rate is positive and finite",
                "pass a rate such as 0.01",
            )
    if not 0.0 <= weight_decay < np.inf:
        raise UsageError(
            f"weight_decay = {weight_decay} was asked for",
            "it is negative or not finite",
            "pass 0 to do without",
        )
    if not 0.0 <= label_smoothing < 1.0:
        raise UsageError(
            f"label_smoothing = {label_smoothing} was asked for",
            "it is a fraction, at least 0 and below 1",
            "pass 0 to do without",
        )
