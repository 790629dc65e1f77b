"""States of one sequence step by step: of the float model and of sampled chips, side by side."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from aimc_sim.arrays import tile_of
from aimc_sim.errors import UsageError
from aimc_sim.specs import ChipSpec
from ssm.deploy import deploy
from ssm.inference import ProgrammedModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ssm.deploy import Deployment
    from ssm.model import Model

_MOST_LAYERS = 4  # of which states are shown, evenly spread
_OF_A_LAYER = 2
_NAMES = {"leapfrog": "p"}  # of a mode's first real state; Re x of the other forms


def trace_states(
    model: Model,
    deployment: Deployment,
    x: NDArray[np.floating],
    *,
    sample: int = 0,
    seed: int = 0,
    chips: int = 1,
    at_s: float = 0.0,
) -> Mapping[str, Any]:
    """Return states of one sequence on chips and in the float model, in the same coordinates.

    Shown is the first real state (p of the leapfrog form, else Re x, for an input weight of 1) of
    two modes of every layer, of at most four layers: that with the largest root mean square in
    the float model, and the median one. The choice looks at the float model alone.

    Parameters
    ----------
    model : the float model. deployment : what runs on the chips.
    x : (n, time, d_input), of which number `sample` is run, as itself in its address of noise.
    seed, chips : replicas 0 .. chips - 1. at_s : seconds since programming.

    Returns `names` (states,), `float` (states, time), `chips` (chips, states, time), `title` and
    `sample`, as `aimc_sim.plotting.plot_states` takes them.

    Raises UsageError for a sample that is not there; what `deploy` and `infer` raise.
    """
    if not 0 <= sample < len(x):
        raise UsageError(
            f"show the states of sequence {sample}", f"there are sequences 0 to {len(x) - 1}",
            "choose one of them",
        )
    one = np.asarray(x)[sample : sample + 1]
    exact = _states(_without_chip(model, deployment), one, sample, 0, 1, 0.0)[0]
    shown = _choose(model, exact)
    there = _states(deployment, one, sample, seed, chips, at_s)
    state = _NAMES.get(deployment.form, "Re x")
    return {
        "names": [f"layer {layer}, head {head}, mode {mode}: {state}" for layer, head, mode, _ in
                  shown],
        "float": exact[:, [place for *_, place in shown]].T,
        "chips": there[:, :, [place for *_, place in shown]].transpose(0, 2, 1),
        "title": f"sequence {sample}",
        "sample": sample,
    }


def _without_chip(model: Model, d: Deployment) -> Deployment:
    """Return the float model in the same form on cells and converters without any error."""
    ideal = ChipSpec.preset("ideal")
    sizes = {
        f"{kind}.{side}": max(
            getattr(tile_of(d.spec, kind), side), getattr(tile_of(ideal, kind), side)
        )
        for kind in ("tile", "short_tile") for side in ("rows", "cols")
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a chip that nobody asked for
        return deploy(
            model, ideal.replace(**sizes), d.form, decay=d.decay, calibrate=d.signal[:1],
            digital=d.digital,
        )


def _states(
    d: Deployment, one: np.ndarray, sample: int, seed: int, chips: int, at_s: float
) -> np.ndarray:
    """Return the first real states of all modes, (chips, time, K), chip by chip for memory."""
    found = []
    for chip in range(chips):
        programmed = ProgrammedModel(d, seed, 1, chip).wait(at_s)
        run = programmed.infer(one, first_sample=sample, return_states=True)
        assert run.states is not None
        found.append(run.states[0, 0, :, 0])
    return np.stack(found)


def _choose(model: Model, exact: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Return layer, head, mode and place of the states that are shown."""
    layers = np.unique(np.linspace(0, model.n_layers - 1, _MOST_LAYERS).round().astype(int))
    first = np.cumsum([0, *(layer.pole.size for layer in model.layers)])
    strength = np.sqrt((exact.astype(float) ** 2).mean(axis=0))
    shown = []
    for layer in layers.tolist():
        own = model.layers[layer]
        there = np.flatnonzero(own.mode_weight.ravel() > 0)
        order = there[np.argsort(-strength[first[layer] + there], kind="stable")]
        for place in dict.fromkeys([int(order[0]), int(order[len(order) // 2])][:_OF_A_LAYER]):
            head, mode = divmod(place, own.pole.shape[1])
            shown.append((layer, head, mode, int(first[layer]) + place))
    return shown
