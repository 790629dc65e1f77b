"""How a diagonal A becomes cells: digital, direct, delta and leapfrog form.

All forms use two real states per mode and an input weight of 1, so the input needs no product:
the mode is x_k = dA x_(k-1) + u_k and y_k = Re(sum G x_k) + D u_k with G = mode_weight C dB.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aimc_sim.errors import InputError, UsageError, nearest
from ssm.model import Layer

FORMS = ("digital", "direct", "delta", "leapfrog")
_LEAST_EXPONENT = -16  # of a power-of-two scale: a zero weight needs some scale


@dataclass(frozen=True, eq=False)
class StateForm:
    """The cells of one layer's A and the matching readout.

    blocks : (K, 2, n_out) weights of A's 2-row blocks, rows the states, None for digital.
        direct, delta: columns Re and Im of the update. leapfrog: rows p, q; columns e and d.
    scale : (K, 1, n_out) largest weight of a column, a power of two.
    pair : signed weights, two cells each. Leapfrog cells are single and never negative.
    sign : (K,) sigma of the leapfrog form, else ones. decay : (K,) d = 1 - |dA|.
    pole : (2, K) dA, real and imaginary part. readout : (H, 2 M + 1) weights of C's row on both
        states and on the input u.
    """

    blocks: np.ndarray | None
    scale: np.ndarray | None
    pair: bool
    sign: np.ndarray
    decay: np.ndarray
    pole: np.ndarray
    readout: np.ndarray


def power_of_two_above(x: np.ndarray, least: int = _LEAST_EXPONENT) -> np.ndarray:
    """Return the least power of two >= |x|, at least 2^least, elementwise."""
    return np.exp2(np.ceil(np.log2(np.maximum(np.abs(x), 2.0**least)) - 1e-12))


def state_form(layer: Layer, form: str, *, digital_decay: bool = False) -> StateForm:
    """Return the cells and readout of `layer` in a form of FORMS.

    Leapfrog (sequential): with dA = sigma rho e^(i theta), 0 <= theta <= pi/2 after conjugation,
    e = 2 sin(theta/2), d = 1 - rho. Its states are scaled so that u enters p with weight 1.
    """
    if form not in FORMS:
        guess = nearest(form, FORMS)
        raise UsageError(
            f"use form '{form}'", "there is no such form",
            (f"did you mean '{guess}'? " if guess else "") + f"choose one of {', '.join(FORMS)}",
        )
    gain = layer.mode_weight * layer.readout * layer.drive
    # of a real pole that stands alone the second state is zero, and so is what reads it
    gain = np.where(layer.mode_weight == 1.0, gain.real, gain)
    pole = layer.pole.ravel()
    planes = np.stack([pole.real, pole.imag])
    ones = np.ones(pole.size)
    decay = 1.0 - np.abs(pole)
    if form == "leapfrog":
        if (decay <= 0).any():
            raise InputError(
                "put A on cells in leapfrog form",
                f"{int((decay <= 0).sum())} poles lie on or outside the unit circle",
                "use a stable model",
            )
        cells = leapfrog_cells(layer.pole, gain)
        readout = np.concatenate([cells.c0, cells.c1, layer.skip[:, None]], axis=1)
        e, d = cells.e.ravel(), cells.d.ravel()
        columns = np.stack([e] if digital_decay else [e, d], axis=1)
        blocks = np.repeat(columns[:, None, :], 2, axis=1)
        scale = power_of_two_above(columns)[:, None, :]
        return StateForm(blocks, scale, False, cells.sign.ravel(), d, planes, readout)
    readout = np.concatenate([gain.real, -gain.imag, layer.skip[:, None]], axis=1)
    if form == "digital":
        return StateForm(None, None, True, ones, decay, planes, readout)
    r = pole - 1.0 if form == "delta" else pole
    blocks = np.stack(
        [np.stack([r.real, r.imag], axis=1), np.stack([-r.imag, r.real], axis=1)], axis=1
    )
    scale = power_of_two_above(np.abs(blocks).max(axis=(1, 2)))[:, None, None]
    return StateForm(blocks, np.broadcast_to(scale, (pole.size, 1, 2)), True, ones, decay,
                     planes, readout)


@dataclass(frozen=True, eq=False)
class LeapfrogCells:
    """Cells and readout of the sequential leapfrog form, arrays of the poles' shape.

    (p, q) <- sigma (p1 - d p1, q1 - d q1) + (u, 0), p1 = p - e q, q1 = q + e p1;
    y = c0 p + c1 q.
    """

    sign: np.ndarray
    e: np.ndarray
    d: np.ndarray
    c0: np.ndarray
    c1: np.ndarray


def leapfrog_cells(pole: np.ndarray, gain: np.ndarray) -> LeapfrogCells:
    """Return the leapfrog form of modes x <- dA x + u, y = Re(G x).

    Parameters
    ----------
    pole : dA, complex, |dA| < 1. gain : G, complex, same shape.
    """
    sign = np.where(pole.real < 0, -1.0, 1.0)
    turned = sign * pole
    mirrored = turned.imag < 0
    turned = np.where(mirrored, turned.conj(), turned)
    gain = np.where(mirrored, gain.conj(), gain)
    half = 0.5 * np.arctan2(turned.imag, np.abs(turned.real))  # a pole at -0.0 lies at angle 0
    return LeapfrogCells(
        sign=sign,
        e=2.0 * np.sin(half),
        d=1.0 - np.abs(turned),
        c0=gain.real,
        c1=-(gain.imag * np.cos(half) + gain.real * np.sin(half)),
    )


def leapfrog_matrix(
    e1: np.ndarray, e2: np.ndarray, d1: np.ndarray, d2: np.ndarray
) -> np.ndarray:
    """Return the 2 x 2 step matrices (..., 2, 2) that four cells make (sigma left out)."""
    return leapfrog_group_matrix(*(np.asarray(x)[..., None, None] for x in (e1, e2, d1, d2)))


def leapfrog_group_matrix(
    e1: np.ndarray, e2: np.ndarray, d1: np.ndarray, d2: np.ndarray
) -> np.ndarray:
    """Return the step matrices (..., 2 g, 2 g) of (p, q) for planes of cells (..., g, g).

    (1 - d1, 1 - d2) [[1, -e1], [e2, 1 - e2 e1]]: g modes that share rows, sigma left out.
    """
    one = np.eye(e1.shape[-1])
    row0 = np.concatenate([one - d1, -(one - d1) @ e1], axis=-1)
    row1 = np.concatenate([(one - d2) @ e2, (one - d2) @ (one - e2 @ e1)], axis=-1)
    return np.concatenate([row0, row1], axis=-2)
