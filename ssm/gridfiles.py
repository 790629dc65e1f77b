"""Grids of weights as tensors of a file: codes and scales, and the forms in a line of text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aimc_sim.errors import AimcError, InputError
from ssm.grids import Grid, as_codes

Tensors = dict[str, NDArray[Any]]
_PARTS = ("codes", "scale", "zero", "signs")


def pack(grids: Mapping[str, Grid]) -> tuple[Tensors, str]:
    """Return the tensors ``key.codes``, ``.scale``, ``.zero`` and ``.signs``, and the forms."""
    tensors = {
        f"{key}.{part}": np.ascontiguousarray(getattr(grid, part))
        for key, grid in grids.items() for part in _PARTS if getattr(grid, part) is not None
    }
    return tensors, json.dumps({key: grid.form for key, grid in grids.items()}, sort_keys=True)


def unpack(tensors: Tensors, text: str | None, asked: str) -> tuple[dict[str, Grid], Tensors]:
    """Return the grids of a file's tensors (as float64) and the tensors that are left.

    Raises InputError where a part is missing or does not fit; `asked` opens the message.
    """
    if text is None:
        return {}, tensors
    try:
        forms = {str(key): str(form) for key, form in json.loads(text).items()}
        grids = {key: _grid(tensors, key, form) for key, form in forms.items()}
    except (ValueError, KeyError, AttributeError, AimcError) as error:
        found = error.found if isinstance(error, AimcError) else f"{error} is missing or damaged"
        raise InputError(asked, f"its integers of weights: {found}", "save it again") from error
    taken = {f"{key}.{part}" for key in forms for part in _PARTS}
    return grids, {key: array for key, array in tensors.items() if key not in taken}


def _grid(tensors: Tensors, key: str, form: str) -> Grid:
    signs = tensors.get(f"{key}.signs")
    return Grid(
        _whole(tensors[f"{key}.codes"], key), tensors[f"{key}.scale"], tensors[f"{key}.zero"],
        form, None if signs is None else _whole(signs, key),
    )


def _whole(array: NDArray[Any], key: str) -> NDArray[Any]:
    if not (np.isfinite(array).all() and (array == np.rint(array)).all()):
        raise InputError("read codes", f"{key} has codes that are not whole", "save it again")
    return as_codes(array)
