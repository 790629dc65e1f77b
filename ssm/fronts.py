"""Designs beside each other: names of precisions, size and cost of a model, the Pareto set."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aimc_sim.errors import UsageError
from ssm.complexity import measure
from ssm.quantize import Precision

if TYPE_CHECKING:
    from aimc_sim.specs import ChipSpec
    from ssm.model import Model

_NAME = re.compile(r"W(\d+)A(\d+)-A(\d+)x(\d+)")


def named_precision(name: str) -> Precision:
    """Return the bits that a name such as W4A6-A8x7 stands for.

    W : all weights but A's, A : activations; then A, and x : the state (Zhao et al.,
    doi:10.48550/arXiv.2506.12480).

    Raises UsageError for other names.

    Examples
    --------
    >>> named_precision("W4A6-A8x7").given()
    {'a': 8, 'c': 4, 'd': 4, 'mix': 4, 'enc': 4, 'dec': 4, 'state': 7, 'act': 6}
    """
    found = _NAME.fullmatch(name)
    if found is None:
        raise UsageError(
            f"read the precision '{name}'", "it is no name of bits",
            "write bits of weights, activations, A and state as in W4A6-A8x8",
        )
    w, act, a, state = map(int, found.groups())
    return Precision(a=a, c=w, d=w, mix=w, enc=w, dec=w, state=state, act=act)


def size_of(
    model: Model, spec: ChipSpec, form: str = "leapfrog", decay: str = "tile"
) -> dict[str, int]:
    """Return what `ssm.complexity.measure` does, and the cells and tiles of a chip.

    cells : in use. tiles : of both kinds, matrices' and A's.

    Errors: those of `ssm.deploy`.
    """
    from ssm.deploy import deploy

    # converter ranges have no say in the placement: one step is signal enough
    one_step = np.ones((1, 1, model.d_input), np.float32)
    layout = deploy(model, spec, form, decay=decay, calibrate=one_step).layout
    return {**measure(model), "cells": layout.n_used(), "tiles": layout.n_tiles}


def pareto(score: ArrayLike, cost: ArrayLike) -> NDArray[np.bool_]:
    """Return which designs no other beats, (n,).

    Another beats a design if it scores no less and costs no more in any column of `cost`, and is
    better in one of them. Designs that are equal in everything do not beat each other.

    Parameters
    ----------
    score : (n,), more is better. cost : (n,) or (n, k), less is better.

    Raises UsageError for shapes that do not fit, and for values that are not numbers.

    Examples
    --------
    >>> pareto([0.9, 0.8, 0.95], [10, 20, 30]).tolist()
    [True, False, True]
    """
    merit = np.asarray(score, np.float64)
    price = np.asarray(cost, np.float64)
    price = price[:, np.newaxis] if price.ndim == 1 else price
    if merit.ndim != 1 or price.ndim != 2 or len(price) != len(merit):
        raise UsageError(
            "find the Pareto set",
            f"scores have shape {np.shape(score)} and costs {np.shape(cost)}",
            "give one score and one row of costs for every design",
        )
    if np.isnan(merit).any() or np.isnan(price).any():
        raise UsageError(
            "find the Pareto set", "some scores or costs are not numbers",
            "leave out designs that were not measured",
        )
    worth = np.column_stack([merit, -price])
    no_worse = (worth[:, np.newaxis] >= worth).all(axis=2)
    better = (worth[:, np.newaxis] > worth).any(axis=2)
    return np.asarray(~(no_worse & better).any(axis=0))
