"""Coordinates of a diagonal A: the two real numbers of a pole that a grid rounds.

Published: Cartesian, polar and log-polar (Zhao et al., doi:10.48550/arXiv.2506.12480), delta
(Middleton and Goodwin, doi:10.1109/TAC.1986.1104162). Leapfrog are the cells of `ssm.forms`. In
polar, log-polar and leapfrog coordinates no value that lies between those of stable poles leaves
the unit circle; in Cartesian and delta coordinates `ssm.grids` keeps codes inside.
"""

from __future__ import annotations

import numpy as np

from aimc_sim.errors import UsageError, nearest

FORMS_OF_A = ("log-polar", "polar", "cartesian", "delta", "leapfrog")
BOUNDED = ("log-polar", "polar", "leapfrog")  # first number turns, second decays
LARGEST = 1.0 - 1e-14  # |dA| of the longest memory: products with e^(i phase) stay below 1
_LEAST = 1e-300  # |dA| of a pole at zero in coordinates that need its logarithm


def check_form_of_a(form: str) -> str:
    """Return `form` if it names coordinates of A; raises UsageError with the nearest name."""
    if form not in FORMS_OF_A:
        guess = nearest(str(form), FORMS_OF_A)
        raise UsageError(
            f"round A in the form '{form}'", "there is no such form",
            (f"did you mean '{guess}'? " if guess else "")
            + f"choose one of {', '.join(FORMS_OF_A)}",
        )
    return form


def to_coordinates(pole: np.ndarray, form: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the coordinates (H, M, 2) of poles (H, M) and their signs, int8 (H, M, 2) or None.

    log-polar: angle and ln ln 1/|dA|. polar: angle and |dA|. cartesian: Re dA, Im dA. delta:
    Re and Im of dA - 1. leapfrog: e = 2 sin(theta/2) and ln d, d = 1 - |dA|, with
    dA = sigma |dA| e^(+-i theta), 0 <= theta <= pi/2; its signs are sigma and that of the angle.
    """
    if form in ("cartesian", "delta"):
        shifted = pole - 1.0 if form == "delta" else pole
        return np.stack([shifted.real, shifted.imag], axis=-1), None
    size = np.clip(np.abs(pole), _LEAST, LARGEST)
    if form == "leapfrog":
        sigma = np.where(pole.real < 0, -1, 1)
        turned = sigma * pole
        up = np.where(turned.imag < 0, -1, 1)
        e = 2.0 * np.sin(0.5 * np.arctan2(np.abs(turned.imag), np.abs(turned.real)))
        signs = np.stack([sigma, up], axis=-1).astype(np.int8)
        return np.stack([e, np.log1p(-size)], axis=-1), signs
    second = np.abs(np.minimum(np.abs(pole), LARGEST))
    if form == "log-polar":
        second = np.log(-np.log(size))
    return np.stack([np.angle(pole), second], axis=-1), None


def from_coordinates(x: np.ndarray, form: str, signs: np.ndarray | None = None) -> np.ndarray:
    """Return the poles (H, M) that coordinates (H, M, 2) stand for: `to_coordinates` backwards."""
    first, second = x[..., 0], x[..., 1]
    if form == "cartesian":
        return np.asarray(first + 1j * second)
    if form == "delta":
        return np.asarray((1.0 + first) + 1j * second)
    if form == "leapfrog":
        assert signs is not None
        theta = 2.0 * np.arcsin(np.clip(0.5 * first, -1.0, 1.0))
        size = -np.expm1(second)
        return np.asarray(signs[..., 0] * size * np.exp(1j * signs[..., 1] * theta))
    size = np.exp(-np.exp(second)) if form == "log-polar" else second
    # the smallest magnitude that has a logarithm here stands for a pole at zero
    return np.where(size > 2 * _LEAST, size * np.exp(1j * first), 0.0)
