"""Tasks that come with the package: labelled sequences, split once and for all.

A task is one function that returns a `Task`, registered under its name:

>>> task = load_task("digits")
>>> task.x_train.shape[1:], task.n_classes
((64, 1), 10)
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from aimc_sim.errors import UsageError, nearest


@dataclass(frozen=True, eq=False)
class Task:
    """Labelled sequences for classification, split into training and test.

    Attributes
    ----------
    name : the name that `load_task` knows and saved models carry.
    x_train, x_test : (n, time, features) float32.
    y_train, y_test : (n,) int64, 0 .. n_classes - 1.
    n_classes : number of classes.
    source : where the data come from, with licence and DOI.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    n_classes: int
    source: str


_TASKS: dict[str, Callable[[], Task]] = {}


def register(name: str) -> Callable[[Callable[[], Task]], Callable[[], Task]]:
    """Return a decorator that makes a function's task known under `name`."""

    def keep(load: Callable[[], Task]) -> Callable[[], Task]:
        _TASKS[name] = load
        return load

    return keep


def task_names() -> tuple[str, ...]:
    """Return the names that `load_task` knows, sorted."""
    return tuple(sorted(_TASKS))


def load_task(name: str) -> Task:
    """Return the task of that name.

    Errors: UsageError where no task has the name, with the nearest one.
    """
    if name not in _TASKS:
        near = nearest(name, _TASKS)
        hint = f"did you mean {near!r}? Known tasks" if near else "choose one of the known tasks"
        raise UsageError(
            f"task {name!r} was asked for",
            "no task has that name",
            f"{hint}: {', '.join(task_names())}",
        )
    return _TASKS[name]()


@register("digits")
def load_digits() -> Task:
    """Return 1,797 handwritten digits, each an 8 x 8 image read as 64 grey values in [0, 1].

    One pixel a step, row by row from the top left; 1,438 training and 359 test
    sequences, the test set a fixed fifth of every class (its indices lie in the file).
    Writers occur in both parts, so the test asks for new digits, not for new hands.

    Reference: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI
    Machine Learning Repository (1998), CC BY 4.0, doi:10.24432/C50P49.
    """
    resource = importlib.resources.files("ssm").joinpath("data").joinpath("digits.npz")
    with resource.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
        pixels, labels, test_index = file["pixels"], file["labels"], file["test_index"]
    is_test = np.zeros(len(labels), dtype=bool)
    is_test[test_index] = True
    x = (pixels.astype(np.float32) / np.float32(16.0))[:, :, np.newaxis]
    y = labels.astype(np.int64)
    return Task(
        name="digits",
        x_train=x[~is_test],
        y_train=y[~is_test],
        x_test=x[is_test],
        y_test=y[is_test],
        n_classes=10,
        source=(
            "E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine "
            "Learning Repository (1998), CC BY 4.0, doi:10.24432/C50P49; scikit-learn's copy"
        ),
    )
