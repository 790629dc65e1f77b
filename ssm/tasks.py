"""Tasks: labelled sequences, split once and for all.

The digits come with the package; larger sets are read from a local folder or downloaded
(`ssm.datasets`).

A task is one function that returns a `Task`, registered under its name:

>>> task = load_task("digits")
>>> task.x_train.shape[1:], task.n_classes
((64, 1), 10)
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aimc_sim.errors import UsageError, nearest
from ssm import datasets


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

    def calibration(self, n: int = 64) -> np.ndarray:
        """Return n training sequences that set the ranges of converters, (n, time, features).

        The first n; where these lack a class, as in data sorted by class, n evenly spread.
        """
        return self.x_train[calibration_rows(self.y_train, n)]


def calibration_rows(y: np.ndarray, n: int) -> np.ndarray:
    """Return which n of the sequences with labels y set ranges, see `Task.calibration`."""
    if n >= len(y) or np.isin(y, y[:n]).all():
        return np.arange(min(n, len(y)))
    return np.linspace(0, len(y) - 1, n).astype(int)


Loader = Callable[[str | Path | None], Task]

_TASKS: dict[str, Loader] = {}
_NEEDS: dict[str, str | None] = {}


def register(name: str, needs: str | None = None) -> Callable[[Loader], Loader]:
    """Return a decorator that makes a function's task known under `name`.

    needs : the data set of `ssm.datasets` that it reads; None: it comes with the package.
    """

    def keep(load: Loader) -> Loader:
        _TASKS[name], _NEEDS[name] = load, needs
        return load

    return keep


def task_names() -> tuple[str, ...]:
    """Return the names that `load_task` knows, sorted."""
    return tuple(sorted(_TASKS))


def is_at_hand(name: str) -> bool:
    """Return whether a task's data are there without a download."""
    needs = _NEEDS[name]
    return needs is None or datasets.is_local(needs)


def load_task(name: str, data: str | Path | None = None) -> Task:
    """Return the task of that name.

    data : folder or file with the data of a task that does not come with the package; None:
    the folder in the environment variable AIMC_DATA, else a download.

    Errors: UsageError where no task has the name, with the nearest one, and where the data are
    not to be had; InputError for damaged data.
    """
    if name not in _TASKS:
        near = nearest(name, _TASKS)
        hint = f"did you mean {near!r}? Known tasks" if near else "choose one of the known tasks"
        raise UsageError(
            f"task {name!r} was asked for",
            "no task has that name",
            f"{hint}: {', '.join(task_names())}",
        )
    return _TASKS[name](data)


@register("digits")
def load_digits(data: str | Path | None = None) -> Task:
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


def _image_task(
    name: str, needs: str, data: str | Path | None, shape: Callable[[np.ndarray], np.ndarray]
) -> Task:
    arrays = datasets.load_images(needs, data)
    parts = {}
    for part in ("train", "test"):
        images = arrays[f"x_{part}"].astype(np.float32) / np.float32(255.0)
        parts[f"x_{part}"] = np.ascontiguousarray(shape(images))
        parts[f"y_{part}"] = arrays[f"y_{part}"].astype(np.int64)
    return Task(name=name, n_classes=10, source=_SOURCES[needs], **parts)


def _pixels(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1, 1)


@register("smnist", "mnist")
def load_smnist(data: str | Path | None = None) -> Task:
    """Return MNIST read pixel by pixel: 784 grey values in [0, 1], row by row."""
    return _image_task("smnist", "mnist", data, _pixels)


@register("smnist-rows", "mnist")
def load_smnist_rows(data: str | Path | None = None) -> Task:
    """Return MNIST read row by row: 28 steps of 28 grey values."""
    return _image_task("smnist-rows", "mnist", data, lambda images: images)


@register("smnist-14x14", "mnist")
def load_smnist_small(data: str | Path | None = None) -> Task:
    """Return MNIST at half the resolution, means of 2 x 2 pixels: 196 grey values."""
    return _image_task(
        "smnist-14x14", "mnist", data,
        lambda images: _pixels(images.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4))),
    )


@register("fashion-mnist", "fashion-mnist")
def load_fashion_mnist(data: str | Path | None = None) -> Task:
    """Return Fashion-MNIST read pixel by pixel: 784 grey values in [0, 1]."""
    return _image_task("fashion-mnist", "fashion-mnist", data, _pixels)


@register("fsdd", "fsdd")
def load_fsdd(data: str | Path | None = None) -> Task:
    """Return spoken digits as 64 steps of 32 log-mel bands (`ssm.datasets.log_mel`).

    Clips are sorted by digit: take `Task.calibration`, not the first rows.
    """
    clips, labels, tested = datasets.load_fsdd(data)
    x = np.stack([datasets.log_mel(clip) for clip in clips])
    return Task(
        "fsdd", x[~tested], labels[~tested], x[tested], labels[tested], 10, _SOURCES["fsdd"]
    )


_SOURCES = {
    "mnist": "Y. LeCun et al., Proc. IEEE 86, 2278 (1998), doi:10.1109/5.726791",
    "fashion-mnist": "H. Xiao et al., MIT licence, doi:10.48550/arXiv.1708.07747",
    "fsdd": "Z. Jackson et al., Free Spoken Digit Dataset, CC BY-SA 4.0, "
    "doi:10.5281/zenodo.1342401",
}
