"""Steps of state registers and DACs from signals: what training learns, found without training."""

from __future__ import annotations

import dataclasses

import numpy as np

from aimc_sim.errors import InputError, UsageError, nearest
from ssm.grids import LEAST_SHARE
from ssm.model import Layer, Model, gelu
from ssm.quantize import Precision

METHODS = ("min-max", "percentile")
PER = ("mode", "channel", "tensor")


def set_steps(
    model: Model, x: np.ndarray, precision: Precision, *, method: str = "min-max",
    percentile: float = 99.999, per: str = "mode",
) -> Model:
    """Return the model with steps for the bits of state and activations, from what it shows on x.

    A grid of b bits ends at L = 2^(b - 1) - 1 steps. Its end is the largest magnitude of the
    signal over sequences and steps, or with "percentile" that percentile of the magnitudes: rare
    peaks then clip, and the rest has finer steps. The network runs in float64 without rounding
    of signals. Deployment uses the steps in the forms of A but leapfrog, whose states are others.

    Parameters
    ----------
    x : (n, time, d_input), of the training data.
    precision : its state and act alone count; the model carries them from now on.
    per : which states share a range: "mode" (each of a mode's two has its own), "channel" (a
        head) or "tensor" (a layer). Activations have one range for each input of a matrix.

    Raises UsageError for unknown words or a precision without state and act, InputError for x
    of another shape.

    Examples
    --------
    >>> import ssm
    >>> model = ssm.start_models([0], d_input=1, n_classes=10, n_heads=4, n_states=6, n_layers=1)[0]
    >>> x = ssm.load_task("digits").x_train[:20]
    >>> set_steps(model, x, Precision(state=8)).layers[0].state_step.shape
    (4, 3, 2)
    """
    _check(precision, method, percentile, per)
    x = np.asarray(x, dtype=np.float64)
    if x.ndim != 3 or x.shape[2] != model.d_input or x.size == 0 or not np.isfinite(x).all():
        raise InputError(
            f"set steps from signals of shape {x.shape}",
            f"the model reads finite arrays (n, time, {model.d_input})",
            "give some sequences of the training data",
        )
    share = 1.0 if method == "min-max" else percentile / 100

    def act_step(*signals: np.ndarray) -> np.ndarray | None:
        if precision.act is None:
            return None
        ends = np.array([_end(np.abs(signal), share, None) for signal in signals])
        return np.asarray(_steps(ends, precision.act))

    h = x @ model.encoder_weight + model.encoder_bias
    layers = []
    for layer in model.layers:
        u = model.normalise(layer, h) if model.norm == "pre" else h
        y, _ = layer.respond(u)
        states = None
        if precision.state is not None:
            states = _steps(_state_ends(layer, u, share, per), precision.state)
        layers.append(
            dataclasses.replace(
                layer,
                state_step=layer.state_step if states is None else states,
                act_step=layer.act_step if precision.act is None else act_step(u, gelu(y)),
            )
        )
        h, _ = model.apply(layer, h)
    pooled = h.mean(axis=1) if model.pool == "mean" else h[:, -1]
    bits = {name: n for name, n in precision.given().items() if name in ("state", "act")}
    return model.replace(
        layers=tuple(layers),
        act_step=model.act_step if precision.act is None else act_step(x, pooled),
        precision={**(model.precision or {}), **bits},
    )


def _check(precision: Precision, method: str, percentile: float, per: str) -> None:
    for name, word, known in (("method", method, METHODS), ("per", per, PER)):
        if word not in known:
            guess = nearest(word, known)
            raise UsageError(
                f"set steps with {name} '{word}'", f"there is no such {name}",
                (f"did you mean '{guess}'? " if guess else "") + f"choose {' or '.join(known)}",
            )
    if not 50.0 < percentile <= 100.0:
        raise UsageError(
            f"set steps from percentile {percentile}", "most of the signal would be clipped",
            "give more than 50 and at most 100",
        )
    if precision.state is None and precision.act is None:
        raise UsageError(
            "set steps of states and activations", "neither has bits",
            "give for example Precision(state=8, act=6)",
        )


def _state_ends(layer: Layer, u: np.ndarray, share: float, per: str) -> np.ndarray:
    """Return the ends of the ranges of all states (H, M, 2), the input weight being 1."""
    n, n_steps, n_heads = u.shape
    if per == "tensor" and share < 1.0:
        parts = np.concatenate(
            [_states(layer.pole[h], u[:, :, h]).ravel() for h in range(n_heads)]
        )
        return np.full((*layer.pole.shape, 2), np.quantile(parts, share))
    ends = np.empty((*layer.pole.shape, 2))
    for h in range(n_heads):  # one head at a time: all states of a layer would not fit the memory
        axes = (0, 1) if per == "mode" else None
        ends[h] = _end(_states(layer.pole[h], u[:, :, h]), share, axes)
    return np.full_like(ends, ends.max()) if per == "tensor" else ends


def _states(pole: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Return |Re x| and |Im x| of a head's modes, (n, time, M, 2) float32, for inputs (n, time)."""
    x = np.zeros((len(u), len(pole)), complex)
    found = np.empty((*u.shape, len(pole), 2), np.float32)
    for step in range(u.shape[1]):
        x = pole * x + u[:, step, None]
        found[:, step, :, 0], found[:, step, :, 1] = x.real, x.imag
    return np.abs(found, out=found)


def _end(size: np.ndarray, share: float, axes: tuple[int, ...] | None) -> np.ndarray:
    return np.asarray(size.max(axis=axes) if share == 1.0 else np.quantile(size, share, axis=axes))


def _steps(ends: np.ndarray, bits: int) -> np.ndarray:
    """Return the steps of grids with these ends, none below 2^-12 of the largest."""
    largest = float(ends.max()) or 1.0
    return np.asarray(np.maximum(ends, largest * LEAST_SHARE) / (2 ** (bits - 1) - 1), float)
