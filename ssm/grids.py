"""Grids of weights: integers and the scales that turn them into values.

Uniform grids, symmetric or with a zero of their own, ranges from the largest weights or from
percentiles, ternary weights, and poles in the coordinates of `ssm.poles` inside the unit circle.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from aimc_sim.errors import InputError
from ssm.poles import BOUNDED, from_coordinates, to_coordinates
from ssm.schemes import Choice

TERNARY_THRESHOLD = 0.7  # of mean |w| (Li et al., doi:10.48550/arXiv.1605.04711)
LEAST_SHARE = 2.0**-12  # of the largest range: a signal that never moved needs some range
_FORMS = ("real", "cartesian", "delta", "polar", "log-polar", "leapfrog")


@dataclass(frozen=True, eq=False)
class Grid:
    """Integers and scales of one array: coordinates x = (code - zero) scale.

    Parameters
    ----------
    codes : integers of the array's shape; of a complex array with a last axis of 2.
    scale, zero : float64 that broadcast against the codes; scale is positive.
    form : "real", or what the two coordinates of a complex number are (`ssm.poles`).
    signs : int8 of the codes' shape, of the leapfrog form alone.

    Raises InputError for shapes, forms or values that fit no array.
    """

    codes: np.ndarray
    scale: np.ndarray
    zero: np.ndarray
    form: str = "real"
    signs: np.ndarray | None = None

    def __post_init__(self) -> None:
        found = self._fault()
        if found:
            raise InputError("build a grid of weights", found, "give integers and their scales")

    def _fault(self) -> str:
        """Return what is wrong with the parts, "" where nothing is."""
        shape = np.shape(self.codes)
        if self.form not in _FORMS:
            return f"form '{self.form}' is unknown"
        if np.asarray(self.codes).dtype.kind not in "iu":
            return f"its codes are {np.asarray(self.codes).dtype}, not integers"
        if self.form != "real" and shape[-1:] != (2,):
            return f"its codes have shape {shape}, not (H, M, 2)"
        if (self.signs is not None) != (self.form == "leapfrog"):
            return "signs belong to the leapfrog form alone"
        if self.signs is not None and (
            np.shape(self.signs) != shape or not np.isin(self.signs, (-1, 1)).all()
        ):
            return "its signs are not one of -1 and 1 for every code"
        for name in ("scale", "zero"):
            part = np.asarray(getattr(self, name))
            try:
                fits = np.broadcast_shapes(part.shape, shape) == shape
            except ValueError:
                fits = False
            if not fits or not np.isfinite(part).all():
                return f"its {name} of shape {part.shape} does not fit codes of shape {shape}"
        return "" if (np.asarray(self.scale) > 0).all() else "it has a scale that is not positive"

    def values(self) -> np.ndarray:
        """Return what the integers stand for, float64 or complex128."""
        x = (self.codes - self.zero) * self.scale
        return x if self.form == "real" else from_coordinates(x, self.form, self.signs)


def fitting(grids: Mapping[str, Grid] | None, owner: Any) -> dict[str, Grid]:
    """Return those grids whose values still are the array of that name of `owner`.

    A weight that was changed after it was rounded has no integers any more.
    """
    return {
        name: grid for name, grid in (grids or {}).items()
        if np.array_equal(grid.values(), getattr(owner, name))
    }


def as_codes(codes: np.ndarray) -> np.ndarray:
    """Return whole numbers as the smallest kind of integer that holds them all."""
    low, high = codes.min(initial=0), codes.max(initial=0)
    for kind in (np.int8, np.uint8, np.int16, np.uint16):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return np.asarray(codes).astype(kind)
    raise InputError(
        "keep codes of weights", f"they run from {low} to {high}", "use at most 16 bits"
    )


def round_weights(w: np.ndarray, bits: int, choice: Choice, axis: int | tuple[int, ...]) -> Grid:
    """Return real weights on a grid whose range is found along `axis`.

    Symmetric: code = round(w/s) in -L .. L, L = 2^(bits - 1) - 1. Asymmetric: 2^bits codes from
    0, with a whole zero, so that a weight of 0 stays 0. Power of two (`choice.per` "mode"): s is
    the least power of two >= the largest weight over 2^(bits - 1), the last code clips. Ternary:
    0 up to 0.7 mean |w|, beyond it +-mean of what lies beyond.
    """
    if choice.method == "ternary":
        size = np.abs(w)
        codes = np.sign(w) * (size > TERNARY_THRESHOLD * size.mean(axis=axis, keepdims=True))
        beyond = np.abs(codes).sum(axis=axis, keepdims=True)
        scale = (size * np.abs(codes)).sum(axis=axis, keepdims=True) / np.maximum(beyond, 1.0)
        return Grid(as_codes(codes), _positive(scale), np.zeros_like(scale))
    if choice.sides == "asymmetric":
        low, high = _ends(w, choice, axis)
        last = 2**bits - 1
        scale = _positive((high - low) / last)
        zero = np.clip(np.rint(-low / scale), 0, last)
        return Grid(as_codes(np.clip(np.rint(w / scale) + zero, 0, last)), scale, zero)
    limit = 2 ** (bits - 1) - 1
    if choice.method == "percentile":
        most = np.quantile(np.abs(w), choice.percentile / 100, axis=axis, keepdims=True)
    else:
        most = np.abs(w).max(axis=axis, keepdims=True)
    scale = _positive(_next_power(most) / (limit + 1) if choice.per == "mode" else most / limit)
    codes = np.clip(np.rint(w / scale), -limit, limit)
    return Grid(as_codes(codes), scale, np.zeros_like(scale))


def round_complex(w: np.ndarray, bits: int, choice: Choice) -> Grid:
    """Return complex weights (H, M) on a grid that real and imaginary parts share."""
    planes = np.stack([w.real, w.imag], axis=-1)
    grid = round_weights(planes, bits, choice, _axes(choice.per))
    return Grid(grid.codes, grid.scale, grid.zero, "cartesian")


def round_poles(
    pole: np.ndarray, bits: int, form: str, choice: Choice, decay_bits: int | None = None,
    counted: np.ndarray | None = None,
) -> tuple[Grid, int]:
    """Return poles (H, M) on a grid inside the unit circle, and how many had to be moved there.

    Polar, log-polar and leapfrog: 2^bits codes of the first coordinate from its smallest to its
    largest value, 2^decay_bits of the second, which keeps |dA| below 1 by itself. Cartesian and
    delta: one symmetric grid for both parts, or with "asymmetric" one for each; where the
    nearest code is unstable, the nearest stable one of its neighbours is taken. Leapfrog signs
    are kept apart and take no bits.

    Parameters
    ----------
    choice : per "channel" is a range for every head, "mode" a power of two for both parts of a
        mode (leapfrog: for e; d keeps the range of its head). counted : (H, M) of the poles
        that count as moved, None: all.
    """
    x, signs = to_coordinates(pole, form)
    if form not in BOUNDED:
        return _inside(pole, x, bits, form, choice, counted)
    return round_bounded(x, signs, bits, form, choice, decay_bits), 0


def round_bounded(
    x: np.ndarray, signs: np.ndarray | None, bits: int, form: str, choice: Choice,
    decay_bits: int | None = None,
) -> Grid:
    """Return polar, log-polar or leapfrog coordinates (H, M, 2) on the grid of `round_poles`.

    Angles may lie beyond +-pi, as training leaves them.
    """
    axis: tuple[int, ...] = (0, 1) if choice.per == "tensor" else (1,)
    last = np.array([2**bits - 1, 2 ** (decay_bits or bits) - 1], dtype=float)
    low, high = x.min(axis=axis, keepdims=True), x.max(axis=axis, keepdims=True)
    scale = _positive((high - low) / last)
    zero = -low / scale
    if choice.per == "mode":  # of the leapfrog form
        shift = _positive(_next_power(x[..., :1]) / 2.0**bits)
        scale = np.concatenate([shift, np.broadcast_to(scale[..., 1:], shift.shape)], axis=-1)
        zero = np.concatenate([0 * shift, np.broadcast_to(zero[..., 1:], shift.shape)], axis=-1)
    codes = np.clip(np.rint(x / scale + zero), 0, last)
    return Grid(as_codes(codes), scale, zero, form, signs)


def _inside(
    pole: np.ndarray, x: np.ndarray, bits: int, form: str, choice: Choice,
    counted: np.ndarray | None,
) -> tuple[Grid, int]:
    """Return Cartesian or delta codes of stable poles, and how many nearest codes were not."""
    axis = _axes(choice.per)
    if choice.sides == "asymmetric":
        axis = tuple(a for a in axis if a != 2)  # a range for each part
    grid = round_weights(x, bits, choice, axis)
    first, last = (0, 2**bits - 1) if choice.sides == "asymmetric" else (
        1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1
    )
    exact = x / grid.scale + grid.zero
    corners = [
        np.stack([up(exact[..., 0]), right(exact[..., 1])], axis=-1)
        for up in (np.floor, np.ceil) for right in (np.floor, np.ceil)
    ]
    # one step of most grids leads inside; a coarse one may need the code next to dA = 0
    centre = np.array([-1.0 if form == "delta" else 0.0, 0.0])
    deepest = np.broadcast_to(np.rint(centre / grid.scale) + grid.zero, x.shape).copy()
    if form == "delta":
        deepest[..., 0] = np.minimum(deepest[..., 0], grid.zero[..., 0] - 1)
    tried = np.clip(np.stack([grid.codes.astype(float), *corners, deepest]), first, last)
    poles = from_coordinates((tried - grid.zero) * grid.scale, form)
    far = np.abs(poles - pole)
    far[0] -= 1e-9  # the nearest code, where it is stable
    far[np.abs(poles) >= 1.0] = np.inf
    best = far[:-1].argmin(axis=0)
    best = np.where(np.isinf(far[:-1].min(axis=0)), len(tried) - 1, best)
    codes = np.take_along_axis(tried, best[None, ..., None], axis=0)[0]
    moved = np.abs(poles[0]) >= 1.0
    outside = int((moved if counted is None else moved & counted).sum())
    return Grid(as_codes(codes), grid.scale, grid.zero, form), outside


def _axes(per: str) -> tuple[int, ...]:
    """Return the axes of (H, M, 2) that share a range."""
    return {"tensor": (0, 1, 2), "channel": (1, 2), "mode": (2,)}[per]


def _ends(
    w: np.ndarray, choice: Choice, axis: int | tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Return both ends of the range of w; zero lies between them."""
    if choice.method == "percentile":
        share = choice.percentile / 100
        low, high = np.quantile(w, [1 - share, share], axis=axis, keepdims=True)
    else:
        low, high = w.min(axis=axis, keepdims=True), w.max(axis=axis, keepdims=True)
    return np.minimum(low, 0.0), np.maximum(high, 0.0)


def _positive(scale: np.ndarray) -> np.ndarray:
    """Return scales with 1 in the place of 0: all weights of that range are equal."""
    return np.where(scale > 0, scale, 1.0)


def _next_power(x: np.ndarray) -> np.ndarray:
    """Return the least power of two >= x, of 0 itself 0."""
    with np.errstate(divide="ignore"):
        return np.asarray(np.exp2(np.ceil(np.log2(x))))
