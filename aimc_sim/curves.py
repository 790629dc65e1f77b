"""Published functions of a cell's target conductance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from aimc_sim.fields import PositiveSiemens, Spec

_CHECKED = 65  # conductances at which a curve is tried, evenly over a device's range


class CurvePiece(Spec):
    """One piece of a curve, then clamped: polynomial + log_slope ln v + power[0] v^power[1]
    + exponential[0] exp(-v/exponential[1])."""

    below: float | None = None  # piece holds for v < below (None: up to the end)
    polynomial: tuple[float, ...] = ()  # ascending coefficients
    log_slope: float = 0.0
    power: tuple[float, float] = (0.0, 0.0)
    exponential: tuple[float, float] = (0.0, 1.0)
    low: float | None = None
    high: float | None = None

    @field_validator("exponential")
    @classmethod
    def _decays(cls, exponential: tuple[float, float]) -> tuple[float, float]:
        if exponential[1] <= 0:
            raise ValueError("exponential = [a, b] is a exp(-v/b) with b > 0")
        return exponential


class Curve(Spec):
    """A published function of a cell's target conductance.

    of : the variable v of the formula, "r" (g / g_max) or "g_us" (g in microsiemens).
    unit_s : siemens in one unit of the result; 1 for a pure number (nu, Q).
    pieces : tried in order; the first with v < below holds.
    """

    of: Literal["r", "g_us"] = "r"
    unit_s: PositiveSiemens = 1.0
    pieces: tuple[CurvePiece, ...] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _one_piece_may_be_flat(cls, data: Any) -> Any:
        if isinstance(data, dict) and "pieces" not in data:
            own = {key: data[key] for key in ("of", "unit_s") if key in data}
            return {**own, "pieces": [{k: v for k, v in data.items() if k not in own}]}
        return data

    @field_validator("pieces")
    @classmethod
    def _reaches_the_end(cls, pieces: tuple[CurvePiece, ...]) -> tuple[CurvePiece, ...]:
        if pieces[-1].below is not None:
            raise ValueError("the last piece holds up to the end: leave its 'below' out")
        return pieces

    def evaluate(self, g_s: np.ndarray, g_max_s: float) -> np.ndarray:
        """Return the curve at conductances g_s [S], in SI (float64, the shape of g_s)."""
        g = np.asarray(g_s, float)
        v = g / g_max_s if self.of == "r" else g * 1e6
        if len(self.pieces) == 1 and self.pieces[0].below is None:
            return _piece(self.pieces[0], v) * self.unit_s
        result = np.empty_like(v)
        left = np.ones(v.shape, bool)
        for piece in self.pieces:
            here = left if piece.below is None else left & (v < piece.below)
            result[here] = _piece(piece, v[here])
            left = left & ~here
        return result * self.unit_s


def _piece(piece: CurvePiece, v: np.ndarray) -> np.ndarray:
    value = np.polynomial.polynomial.polyval(v, piece.polynomial or (0.0,))
    if piece.log_slope or piece.power[0]:
        positive = np.maximum(v, 1e-12)  # ln 0 and 0^-p run into the clamps, as in the papers
        if piece.log_slope:
            value = value + piece.log_slope * np.log(positive)
        if piece.power[0]:
            value = value + piece.power[0] * positive ** piece.power[1]
    if piece.exponential[0]:
        value = value + piece.exponential[0] * np.exp(-v / piece.exponential[1])
    if piece.low is None and piece.high is None:
        return value
    return np.asarray(np.clip(value, piece.low, piece.high))


def flatten(curves: Sequence[Curve | None], g_max_s: float, scale: float = 1.0) -> np.ndarray:
    """Return curves times `scale` as the table of numbers that compiled code evaluates.

    (n_rows, 10 + n_coefficients) float64, n_coefficients >= 2, a row for each piece; None is
    zero everywhere.
    Columns: number of the curve, siemens in one unit of v, below, low, high, log_slope, both
    numbers of power, the size of exponential and its rate -1/b, the polynomial. Values are SI.
    """
    zero = Curve(pieces=(CurvePiece(),))
    present = [zero if curve is None else curve for curve in curves]
    width = 10 + max(2, *(len(piece.polynomial) for curve in present for piece in curve.pieces))
    rows = []
    for number, curve in enumerate(present):
        unit = curve.unit_s * scale
        for piece in curve.pieces:
            row = np.zeros(width)
            row[:5] = (
                number,
                g_max_s if curve.of == "r" else 1e-6,
                math.inf if piece.below is None else piece.below,
                -math.inf if piece.low is None else piece.low * unit,
                math.inf if piece.high is None else piece.high * unit,
            )
            row[5:10] = (
                piece.log_slope * unit, piece.power[0] * unit, piece.power[1],
                piece.exponential[0] * unit, -1 / piece.exponential[1],
            )
            row[10 : 10 + len(piece.polynomial)] = np.asarray(piece.polynomial) * unit
            rows.append(row)
    return np.array(rows)


def check_curve(
    name: str,
    curve: Curve | None,
    g_range_s: tuple[float, float],
    *,
    scale: float = 1.0,
    signed: bool = False,
    most: float = math.inf,
) -> None:
    """Refuse a curve that cannot be used over a device's range.

    Its values times `scale` must fit float32, not exceed `most`, and not be negative unless
    `signed`. Tried at evenly spaced conductances of `g_range_s` [S] and at the bounds of pieces.

    Raises ValueError.
    """
    if curve is None:
        return
    low, high = g_range_s
    unit = high if curve.of == "r" else 1e-6
    bounds = [piece.below * unit for piece in curve.pieces if piece.below is not None]
    inside = [bound for bound in bounds if low <= bound <= high]
    g = np.concatenate([np.linspace(low, high, _CHECKED), inside])
    with np.errstate(all="ignore"):
        value = curve.evaluate(g, high) * scale
        finite = np.isfinite(value.astype(np.float32))
    if not finite.all():
        raise ValueError(f"{name} is not finite at {1e6 * g[~finite][0]:.6g} uS")
    if not signed and value.min() < 0:
        worst = int(value.argmin())
        raise ValueError(f"{name} is negative ({value[worst]:.3g}) at {1e6 * g[worst]:.6g} uS")
    if value.max() > most:
        raise ValueError(
            f"{name} is {1e6 * value.max():.4g} uS, more than the largest conductance: a formula "
            "in microsiemens needs unit_s = 1e-6"
        )
