"""Structural pruning: a model with fewer states or heads, and what that changes and frees.

Modes are left out by a score, or a head is replaced by its balanced truncation, a smaller
system with nearly the same impulse response (`ssm.reduction`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aimc_sim.errors import UsageError, nearest
from ssm.model import Layer, Model
from ssm.places import has_rows
from ssm.reduction import (
    Modes,
    discounted,
    energy,
    hankel_values,
    modes_of,
    reduce_head,
)

Real = NDArray[np.float64]
Counts = NDArray[np.int64]

SCOPES = ("head", "layer", "global")
_OF_MODES = ("pole", "drive", "readout", "mode_weight")
_TRUNCATED = ("a", "b", "c", "decay")  # what a truncation computes anew


def _magnitude(layer: Layer) -> Real:
    """Return w |c b|, the first value of a mode's impulse response at most."""
    return np.asarray(layer.mode_weight * np.abs(layer.drive * layer.readout))


def _hinf(layer: Layer) -> Real:
    """Return w |c b| / (1 - |a|), which bounds a mode's transfer function."""
    return _magnitude(layer) / np.maximum(1 - np.abs(layer.pole), 1e-300)


def _last(layer: Layer) -> Real:
    """Return LAST (Gwak et al. 2024, doi:10.48550/arXiv.2411.02824): H-infinity squared, as a
    share of that of all modes of the layer that score no less."""
    return _share_of_larger(_hinf(layer) ** 2)


def _aire(layer: Layer) -> Real:
    """Return AIRE (doi:10.48550/arXiv.2602.00534): energy w |c b|^2 / (1 - |a|^2) of a mode's
    impulse response, as a share of that of all modes of the layer that score no less."""
    gain = np.abs(layer.drive * layer.readout) ** 2
    size = np.maximum(1 - np.abs(layer.pole) ** 2, 1e-300)
    return _share_of_larger(layer.mode_weight * gain / size)


def _share_of_larger(score: Real) -> Real:
    order = np.argsort(-score, axis=None, kind="stable")
    ordered = score.ravel()[order]
    shares = np.empty(score.size)
    shares[order] = ordered / np.maximum(np.cumsum(ordered), 1e-300)
    return shares.reshape(score.shape)


SCORES: dict[str, Callable[[Layer], Real]] = {
    "magnitude": _magnitude, "hinf": _hinf, "last": _last, "aire": _aire,
}
METHODS = (*SCORES, "balanced")


def prune(
    model: Model, keep: float | None = None, *, method: str = "balanced",
    scope: str | None = None, heads: float = 1.0, n_steps: int | None = None,
) -> Model:
    """Return the model with a share of its states, or of its heads.

    Parameters
    ----------
    keep : the largest share of the real states that stays, in (0, 1], of those that the heads
        that stay had before any pruning; the next lower number that the modes allow, a pair being
        two states and never parted. None: half, or all of them where `heads` is asked for.
    method : "balanced", the truncation of every head (`ssm.reduction.reduce_head`); or modes
        with the largest scores stay: "magnitude" |c b|, "hinf" |c b|/(1 - |a|), "last" and
        "aire" (normalised within a layer, for one global threshold).
    scope : within what states compete: "head" (every head keeps that share; the default of
        balanced, magnitude and hinf), "layer", or "global", the whole model (the default of last
        and aire). Balanced truncation compares Hankel values as shares of their sum in a head.
    heads : share of the heads of a layer that stay, (0, 1], of those before any pruning: those
        with the largest norm of the impulse response, skip included, times that of their row of
        the mixing matrix. With scope "global" heads of all layers compete. A pruned head has no
        modes, no skip and no row; the channel through the residual stays.
    n_steps : balanced: the horizon, that is the length of the sequences, a time constant beyond
        which errors of the impulse response hardly count. None: all steps count alike.

    Heads may keep different numbers of states: `Layer.mode_weight` is 0 where a head has fewer
    modes than the largest of its layer. A truncated model carries no bits of A, B and C, which
    it would have to be rounded to anew, and no learned steps of its states. Of a model that was
    pruned before, what its heads had counts as equal shares of what the whole model had.

    Errors: UsageError for shares outside (0, 1], unknown names, where nothing would be left out
    or no state would be left, or with fewer heads than asked for; InputError for an unstable
    model.

    Examples
    --------
    >>> prune(None, keep=1.5)
    Traceback (most recent call last):
        ...
    aimc_sim.errors.UsageError: Keep 1.5 of the states. It is no share in (0, 1]. Give for example \
0.25.
    """
    keep = share_of_states(keep, heads)
    scope = _check(keep, heads, method, scope, n_steps)
    layers = _without_heads(model, heads, scope)
    full = model.unpruned_states or model.n_states
    left, whole = sum(int(layer.mode_weight.sum()) for layer in layers), _before(model, layers)
    share = min(1.0, keep * whole / left) if left else 1.0
    cuts = share < 1.0 - 1e-12  # 0.07 of 100 is 7, rounding aside
    if not cuts and _n_heads(layers) == _n_heads(model.layers):
        raise _nothing_to_leave_out(keep, heads, left, whole, full)
    if cuts:
        if method == "balanced":
            layers = _truncated(layers, share, scope, n_steps)
        else:
            layers = _selected(layers, share, scope, SCORES[method])
    if not any(layer.mode_weight.any() for layer in layers):
        raise UsageError(
            f"keep {keep:g} of the states with scope '{scope}'", "that leaves not one state",
            "keep more" if scope == "global" else "keep more, or use scope 'global'",
        )
    precision = dict(model.precision or {})
    if cuts and method == "balanced":
        precision = {name: bits for name, bits in precision.items() if name not in _TRUNCATED}
    return model.replace(
        layers=tuple(_packed(layer) for layer in layers), precision=precision or None,
        unpruned_states=full, sha256="",
    )


def share_of_states(keep: float | None, heads: float) -> float:
    """Return the share of the states that `prune` keeps where `keep` is not given (None)."""
    if keep is not None:
        return keep
    return 0.5 if heads == 1.0 else 1.0


def _n_heads(layers: Iterable[Layer]) -> int:
    return sum(int(has_rows(layer).sum()) for layer in layers)


def _before(model: Model, layers: list[Layer]) -> float:
    """Return how many states the heads that are left had before any pruning."""
    if model.unpruned_states is None:
        return float(sum(layer.mode_weight.sum() for layer in layers))
    return model.unpruned_states * _n_heads(layers) / (model.n_layers * model.n_heads)


def _nothing_to_leave_out(
    keep: float, heads: float, left: int, whole: float, full: int
) -> UsageError:
    """Return the refusal of shares that a model has already."""
    asked = f"keep {keep:g} of the states"
    if heads < 1.0:
        asked += f" and {heads:g} of the heads"
    if left == full:
        return UsageError(asked, "that leaves nothing out", "give a share below 1")
    owner = "the model holds" if whole == full else "the heads that are left hold"
    return UsageError(
        asked, f"{owner} {left} of {whole:.0f} states, {left / whole:.3g} of them, already",
        f"keep less than {left / whole:.3g}, or start from the unpruned model",
    )


def _check(
    keep: float, heads: float, method: str, scope: str | None, n_steps: int | None
) -> str:
    """Return the scope that is meant."""
    for name, share in (("states", keep), ("heads", heads)):
        if not 0.0 < share <= 1.0:
            raise UsageError(
                f"keep {share:g} of the {name}", "it is no share in (0, 1]", "give for example 0.25"
            )
    for what, chosen, known in (("method", method, METHODS), ("scope", scope, SCOPES)):
        if chosen is not None and chosen not in known:
            guess = nearest(chosen, known)
            hint = f"did you mean '{guess}'? " if guess else ""
            if chosen == "horizon":
                hint = "a horizon goes with balanced (--method balanced --steps N); "
            raise UsageError(
                f"prune with {what} '{chosen}'", f"there is no such {what}",
                f"{hint}choose {', '.join(known)}",
            )
    if n_steps is not None and (method != "balanced" or n_steps < 1):
        raise UsageError(
            f"prune by {method} for sequences of {n_steps} steps",
            "scores do not ask for the length of sequences" if method != "balanced"
            else "no sequence is that short",
            "leave the steps out, or use balanced with the number of steps of a sequence",
        )
    return scope or ("global" if method in ("last", "aire") else "head")


def _without_heads(model: Model, share: float, scope: str) -> list[Layer]:
    if share == 1.0:
        return list(model.layers)
    there = np.stack([has_rows(layer) for layer in model.layers])
    rank = np.where(there, np.stack([_head_scores(layer) for layer in model.layers]), -1.0)
    if scope == "global":
        rank, there = rank.reshape(1, -1), there.reshape(1, -1)
    wanted = max(1, int(share * rank.shape[1] + 1e-9))
    if (there.sum(axis=1) < wanted).any():
        raise UsageError(
            f"keep {share:g} of the heads",
            f"a layer has {there.sum(axis=1).min()} of {rank.shape[1]} heads left already",
            "keep fewer, or start from the unpruned model",
        )
    stays: NDArray[np.bool_] = np.zeros_like(there)
    np.put_along_axis(stays, np.argsort(-rank, axis=1, kind="stable")[:, :wanted], True, axis=1)
    own_heads = stays.reshape(model.n_layers, model.n_heads)
    return [
        dataclasses.replace(
            layer, **_left(layer, own[:, None], (*_OF_MODES, "mix_weight")),
            skip=np.where(own, layer.skip, 0.0),
        )
        for layer, own in zip(model.layers, own_heads, strict=True)
    ]


def _head_scores(layer: Layer) -> Real:
    """Return the norm of each head's impulse response, skip included, times its mixing row's."""
    norms = []
    for head, skip in enumerate(layer.skip):
        modes = modes_of(layer, head)
        first = float(modes.impulse_response(1)[0])
        norms.append(np.sqrt(energy(modes) - first**2 + (first + skip) ** 2))
    return np.asarray(np.array(norms) * np.linalg.norm(layer.mix_weight, axis=1))


def _selected(
    layers: list[Layer], share: float, scope: str, score: Callable[[Layer], Real]
) -> list[Layer]:
    """Return the layers with the modes that score highest, as many as the states allow."""
    weights = np.stack([_padded(layer.mode_weight, layers) for layer in layers])
    scores = np.stack([_padded(score(layer), layers) for layer in layers])
    groups = {"head": weights.shape[0] * weights.shape[1], "layer": len(layers), "global": 1}
    scores, flat = (part.reshape(groups[scope], -1) for part in (scores, weights))
    order = np.argsort(np.where(flat > 0, -scores, np.inf), axis=1, kind="stable")
    taken = np.cumsum(np.take_along_axis(flat, order, 1), axis=1)
    fits = taken <= share * flat.sum(axis=1, keepdims=True) * (1 + 1e-12)
    chosen = np.zeros_like(fits)
    np.put_along_axis(chosen, order, fits, axis=1)
    stays = chosen.reshape(weights.shape)
    return [
        dataclasses.replace(
            layer, state_step=None, **_left(layer, own[:, : layer.pole.shape[1]], _OF_MODES),
        )
        for layer, own in zip(layers, stays, strict=True)
    ]


def _left(layer: Layer, stays: NDArray[np.bool_], names: tuple[str, ...]) -> dict[str, Any]:
    """Return arrays of a layer with zeros for what does not stay."""
    return {name: np.where(stays, getattr(layer, name), 0) for name in names}


def _padded(values: Real, layers: list[Layer]) -> Real:
    most = max(layer.pole.shape[1] for layer in layers)
    return np.pad(values, ((0, 0), (0, most - values.shape[1])))


def _truncated(
    layers: list[Layer], share: float, scope: str, n_steps: int | None
) -> list[Layer]:
    """Return the layers with every head replaced by its balanced truncation."""
    heads = [[modes_of(layer, head) for head in range(len(layer.skip))] for layer in layers]
    orders = _orders(heads, share, scope, n_steps)
    return [
        _reduced(layer, own, wanted, n_steps)
        for layer, own, wanted in zip(layers, heads, orders, strict=True)
    ]


def _orders(
    heads: list[list[Modes]], share: float, scope: str, n_steps: int | None
) -> Counts:
    """Return how many states every head keeps at most, (layers, H)."""
    sizes = np.array([[modes.n_states for modes in own] for own in heads])
    if scope == "head":
        return np.asarray(share * sizes * (1 + 1e-12), np.int64)
    values = np.zeros((*sizes.shape, max(1, sizes.max())))
    for k, own in enumerate(heads):
        for h, modes in enumerate(own):
            found = hankel_values(discounted(modes, n_steps))
            values[k, h, : found.size] = found / max(found.sum(), 1e-300)
    groups = values.reshape(len(heads) if scope == "layer" else 1, -1)
    budget = (share * sizes.sum(axis=None if scope == "global" else 1) * (1 + 1e-12)).astype(int)
    ranks = np.argsort(np.argsort(-groups, axis=1, kind="stable"), axis=1)
    stays = ranks < np.reshape(budget, (-1, 1))
    return np.asarray((stays.reshape(values.shape) & (values > 0)).sum(axis=2), np.int64)


def _reduced(layer: Layer, heads: list[Modes], orders: Counts, n_steps: int | None) -> Layer:
    """Return a layer with its heads reduced; B of a head is the rms of its B before."""
    found = [reduce_head(modes, int(n), n_steps) for modes, n in zip(heads, orders, strict=True)]
    if all(new is old for (new, _), old in zip(found, heads, strict=True)):
        return layer
    size = max(1, *(modes.pole.size for modes, _ in found))
    shape = (len(heads), size)
    pole, drive, readout = (np.zeros(shape, complex) for _ in range(3))
    weight, skip = np.zeros(shape), layer.skip.copy()
    for head, (modes, more) in enumerate(found):
        own = (head, slice(0, modes.pole.size))
        there = layer.mode_weight[head] > 0
        if modes.pole.size:
            scale = np.sqrt((np.abs(layer.drive[head, there]) ** 2).mean()) or 1.0
            pole[own], drive[own], weight[own] = modes.pole, scale, modes.weight
            readout[own] = modes.gain / scale
        skip[head] += more
    return dataclasses.replace(
        layer, pole=pole, drive=drive, readout=readout, mode_weight=weight, skip=skip,
        state_step=None,
    )


def _packed(layer: Layer) -> Layer:
    """Return the layer with every head's modes at the front, and no place that all leave empty."""
    order = np.argsort(layer.mode_weight == 0, axis=1, kind="stable")
    size = max(1, int((layer.mode_weight > 0).sum(axis=1).max()))
    if size == layer.pole.shape[1] and (order == np.arange(size)).all():
        return layer
    parts: dict[str, Any] = {
        name: np.take_along_axis(getattr(layer, name), order, axis=1)[:, :size]
        for name in _OF_MODES
    }
    steps = layer.state_step
    if steps is not None:
        steps = np.take_along_axis(steps, order[:, :, None], axis=1)[:, :size]
    return dataclasses.replace(layer, **parts, state_step=steps)
