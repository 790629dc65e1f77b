"""Which sequences a run scores, and which set the converters' ranges."""

from __future__ import annotations

import dataclasses
import hashlib
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aimc_sim.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ssm.model import Model

CALIBRATION_ROWS = 64
# what numpy and zipfile raise for a damaged archive; NotImplementedError is a RuntimeError
_DAMAGES = (OSError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError)


@dataclass(frozen=True, eq=False)
class RunData:
    """What a run reads.

    x : (n, time, features). y : (n,) labels or None. calibrate : (n, time, features).
    name : what a person calls the data. sha256 : of the file, or of the arrays' bytes.
    calibration : what `calibrate` is. notes : what the reader must know of the data.
    """

    x: NDArray[np.floating]
    y: NDArray[np.int64] | None
    calibrate: NDArray[np.floating]
    name: str
    sha256: str
    calibration: str
    notes: tuple[str, ...]


def choose_data(model: Model, data: str | None, calibrate: Path | None) -> RunData:
    """Return the data of a run: a file, a task, the model's own task, or a probe signal.

    Raises InputError for a bad file, UsageError for an unknown task.
    """
    from ssm.tasks import task_names

    name = model.task if data is None else data
    if data is not None and _is_file_name(data):
        chosen = _from_file(model, Path(data))
    elif name is not None and (data is not None or name in task_names()):
        chosen = _from_task(model, name)
    else:
        chosen = _from_probe(model)
    if calibrate is None:
        return chosen
    x, _ = read_npz(calibrate, model, asked="calibrate with")
    return dataclasses.replace(
        chosen, calibrate=x, calibration=f"{len(x)} sequences of {calibrate.name}"
    )


def _is_file_name(text: str) -> bool:
    return text.endswith(".npz") or "/" in text or "\\" in text or Path(text).is_file()


def _from_file(model: Model, path: Path) -> RunData:
    x, y = read_npz(path, model, asked="run the data")
    rows = x[:CALIBRATION_ROWS]
    notes = () if y is not None else (f"{path.name} has no labels y: no accuracy",)
    calibration = f"the first {len(rows)} sequences of {path.name}: scored rows were used"
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return RunData(x, y, rows, path.name, sha256, calibration, notes)


def _from_task(model: Model, name: str) -> RunData:
    from ssm.tasks import load_task

    task = load_task(name)
    asked = f"run task '{name}'"
    _check_width(task.x_test, model, asked)
    _check_labels(task.y_test, model, asked)
    rows = task.calibration(CALIBRATION_ROWS)
    digest = hashlib.sha256(task.x_test.tobytes() + task.y_test.tobytes()).hexdigest()
    return RunData(
        task.x_test,
        task.y_test,
        rows,
        f"task '{name}' (test split)",
        digest,
        f"{len(rows)} training sequences of task '{name}'",
        (),
    )


def _from_probe(model: Model) -> RunData:
    from ssm.ranges import default_signal

    x, what = default_signal(model)
    known = (
        f"its task '{model.task}' is not part of the package"
        if model.task
        else ("the file names no task")
    )
    note = f"no --data and {known}: the run is on {what}, without labels"
    digest = hashlib.sha256(x.tobytes()).hexdigest()
    return RunData(x, None, x, "a probe signal", digest, what, (note,))


def read_npz(
    path: Path, model: Model, *, asked: str
) -> tuple[NDArray[np.floating], NDArray[np.int64] | None]:
    """Return x (n, time, features) and y (n,) or None of a data file, checked for `model`.

    Nothing in the file is ever unpickled. Raises InputError.
    """
    import numpy as np

    asked = f"{asked} {path}"
    x, y = _read_arrays(path, asked)
    x = x if x.dtype in (np.float32, np.float64) else x.astype(np.float32)
    _check_width(x, model, asked)
    if not np.isfinite(x).all():
        raise InputError(asked, "its x has NaN or infinite values", "clean the data")
    return x, _labels(y, x, model, asked)


def read_arrays(path: Path, *, asked: str) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    """Return x and y of a file to train on, not yet checked; nothing is ever unpickled.

    Raises InputError for a file that cannot be read or has no x or y.
    """
    x, y = _read_arrays(path, asked)
    if y is None:
        raise InputError(asked, "it has no labels y", "save with np.savez(path, x=x, y=y)")
    return x, y


def _read_arrays(path: Path, asked: str) -> tuple[Any, Any]:
    """Return x, real numbers, and y or None of a data file; nothing is ever unpickled."""
    import numpy as np

    if not path.is_file():
        raise InputError(asked, "there is no such file", "check the path")
    try:
        file = np.load(path, allow_pickle=False)
        if isinstance(file, np.ndarray):
            raise InputError(
                asked,
                "it holds one array, not an archive of arrays",
                "save with np.savez(path, x=x, y=y)",
            )
        with file:
            arrays = {key: file[key] for key in ("x", "y") if key in file.files}
            others = ", ".join(file.files) or "nothing"
    except ValueError as error:
        if "allow_pickle" not in str(error) and "pickled" not in str(error):
            raise InputError(asked, f"it cannot be read ({error})", "save it again") from None
        raise InputError(
            asked,
            "it holds Python objects, which could run code when read, or is no .npz file",
            "save arrays of numbers with np.savez(path, x=x, y=y)",
        ) from None
    except _DAMAGES as error:
        raise InputError(
            asked, f"it is damaged or no .npz file ({error})", "save it again with np.savez"
        ) from None
    if "x" not in arrays:
        raise InputError(
            asked, f"it has no array x (it has {others})", "save with np.savez(path, x=x, y=y)"
        )
    x = arrays["x"]
    if x.dtype.kind not in "fiub":
        raise InputError(asked, f"its x is of type {x.dtype}", "give real numbers")
    return x, arrays.get("y")


def _labels(
    y: NDArray[np.generic] | None, x: NDArray[np.floating], model: Model, asked: str
) -> NDArray[np.int64] | None:
    import numpy as np

    if y is None:
        return None
    if y.dtype.kind not in "iu" or y.shape != (len(x),):
        raise InputError(
            asked,
            f"its y has shape {y.shape} and type {y.dtype}, x has {len(x)} sequences",
            "give one whole number a sequence, or leave y out",
        )
    labels = y.astype(np.int64)
    _check_labels(labels, model, asked)
    return labels


def _check_width(x: NDArray[np.generic], model: Model, asked: str) -> None:
    width = model.d_input
    if x.ndim == 3 and x.shape[2] == width and x.size > 0:
        return
    if x.ndim == 2 and width == 1:
        do = "give x the shape (n, time, 1): x[:, :, None]"
    else:
        do = f"give x the shape (n, time, {width}), not empty"
    raise InputError(
        asked, f"its x has shape {x.shape}, the model reads {width} feature(s) a step", do
    )


def _check_labels(y: NDArray[np.int64], model: Model, asked: str) -> None:
    if y.min() < 0 or y.max() >= model.n_classes:
        raise InputError(
            asked,
            f"its labels run from {y.min()} to {y.max()}",
            f"the model has classes 0 to {model.n_classes - 1}: give labels in that range",
        )
