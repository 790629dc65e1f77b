"""Results of a sweep as one xarray dataset, and that dataset in a NetCDF file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aimc_sim.errors import InputError, UsageError
from aimc_sim.sweep.campaign import Campaign, Value
from aimc_sim.sweep.journal import SCHEMA
from aimc_sim.sweep.tasks import Outcome, failure_text

if TYPE_CHECKING:
    import numpy as np
    import xarray

_NEEDS = ("joblib", "xarray", "h5netcdf")


def check_installed() -> None:
    """Refuse, before anything runs, what could not be written after it."""
    missing = [name for name in _NEEDS if find_spec(name) is None]
    if missing:
        raise UsageError(
            "run a sweep", f"{', '.join(missing)} is not installed",
            "install it with pip install 'aimc-sim[sweep]'",
        )


def make(
    campaign: Campaign, chosen: Mapping[int, Outcome], until: float | None = None
) -> xarray.Dataset:
    """Return outcomes as a dataset with a dimension for every axis.

    chosen : outcomes by position in the campaign's order. A position that has none, or whose
    task failed, is NaN in every output; `failed` is 1 for failed tasks, and `error`, there only
    where some failed, says why. Coordinates and outputs carry their unit as `units`.
    """
    import numpy as np
    import xarray

    n, dims = len(campaign.tasks), [axis.name for axis in campaign.axes]
    values = {name: np.full(n, np.nan) for name in campaign.outputs}
    failed, errors = np.zeros(n, np.int8), np.full(n, "", object)
    for place, outcome in chosen.items():
        if outcome.values is None:
            failed[place] = 1
            errors[place] = failure_text(outcome.error or {"type": "unknown", "message": ""})
            continue
        for name, value in outcome.values.items():
            values[name][place] = np.nan if value is None else value
    variables = {
        name: (dims, found.reshape(campaign.shape), {"units": campaign.outputs[name]})
        for name, found in values.items()
    }
    variables["failed"] = (dims, failed.reshape(campaign.shape), {"units": "1"})
    if failed.any():
        variables["error"] = (dims, errors.reshape(campaign.shape), {})
    coordinates = {}
    for axis in campaign.axes:
        described = {axis.name: (axis.values, axis.unit), **axis.along}
        for name, (points, unit) in described.items():
            coordinates[name] = (axis.name, to_array(points), {"units": unit})
    facts = {"schema": SCHEMA, "sweep": campaign.name, **campaign.facts}
    facts["function"] = campaign.tasks[0].function
    if until is not None:
        facts["until"] = f"half-width of the 95 % interval of the mean at most {until:g}"
    return xarray.Dataset(variables, coordinates, facts)


def to_array(values: Sequence[Value]) -> np.ndarray:
    """Return values of an axis as numbers where all are, else as texts."""
    import numpy as np

    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        return np.array(values)
    return np.array([str(value) for value in values], object)


def write(found: xarray.Dataset, path: Path) -> None:
    """Write a dataset to NetCDF, whole or not at all; UsageError where that fails."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        found.to_netcdf(aside, engine="h5netcdf")
        with aside.open("rb") as stream:
            os.fsync(stream.fileno())
        os.replace(aside, path)
    except OSError as error:
        raise UsageError(
            f"write results to {path}", f"the system refuses ({error}); the journal has them all",
            "make room or choose another place, and start again: nothing is computed again",
        ) from None
    finally:
        aside.unlink(missing_ok=True)


def read(path: str | Path) -> xarray.Dataset:
    """Return the results in a NetCDF file that a sweep wrote; InputError where it is none."""
    import xarray

    asked = f"read results {path}"
    try:
        with xarray.open_dataset(path, engine="h5netcdf") as file:
            found = file.load()
    except (OSError, ValueError, KeyError) as error:
        raise InputError(asked, f"it cannot be read ({error})", "check the path") from None
    if found.attrs.get("schema") != SCHEMA:
        raise InputError(
            asked, f"its schema is {found.attrs.get('schema')}, this version reads {SCHEMA}",
            "give a file that `aimc-sim sweep` wrote",
        )
    return found


def summarise(found: xarray.Dataset, output: str, repeats: Sequence[str]) -> list[dict[str, Any]]:
    """Return a row for every combination of the axes that do not repeat.

    Each has the values of its coordinates, and of `output` the number of repetitions `n`, their
    `mean`, `std` (None for one), and the 95 % bounds `low` and `high` of the mean, Student's t
    (None for one).
    """
    import numpy as np

    from aimc_sim.sweep.plan import Interval

    kept = [str(name) for name in found[output].dims if name not in repeats]
    values = found[output].transpose(*kept, *repeats).values
    shape = values.shape[: len(kept)]
    failed = found["failed"].transpose(*kept, *repeats).values.reshape(*shape, -1)
    rows = []
    for place in np.ndindex(shape):
        one = values[place].ravel()
        one = one[np.isfinite(one)]
        at = dict(zip(kept, place, strict=True))
        point = found.isel(at).coords
        row: dict[str, Any] = {
            str(name): point[name].item() for name in found.coords
            if set(found[name].dims) <= set(kept)
        }
        interval = Interval()
        for value in one:
            interval.add(float(value))
        several = len(one) > 1
        half = interval.half_width if several else None
        rows.append(
            {
                "at": row,
                "n": len(one),
                "values": one,
                "failed": int(failed[place].sum()),
                "mean": interval.mean if len(one) else None,
                "std": float(one.std(ddof=1)) if several else None,
                "low": None if half is None else interval.mean - half,
                "high": None if half is None else interval.mean + half,
            }
        )
    return rows
