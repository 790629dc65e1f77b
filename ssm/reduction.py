"""Smaller systems with nearly the same answer: balanced truncation of diagonal modes.

A head is modes x_k = a x_(k-1) + u_k with y_k = Re(sum_m w_m g_m x_k), the input weight folded
into the gain g = C dB; w = 2 where a mode stands for its conjugate too, 1 where a real pole
stands alone, 0 where there is none. Its impulse response is K_l = Re(sum_m w_m g_m a_m^l).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aimc_sim.errors import InputError
from ssm.model import Layer

Real = NDArray[np.float64]
Complex = NDArray[np.complex128]

_RANK = 1e-12  # Hankel values below this share of the largest are rounding
_EQUAL = 1e-8  # relative distance below which two Hankel values count as equal
_STABLE = 1.0 - 1e-12


@dataclass(frozen=True, eq=False)
class Modes:
    """The modes of one head that exist: pole, gain and weight, each (M,).

    Raises InputError for poles on or outside the unit circle.
    """

    pole: Complex
    gain: Complex
    weight: Real

    def __post_init__(self) -> None:
        if (np.abs(self.pole) >= 1.0).any():
            raise InputError(
                "take Gramians of a head",
                f"{int((np.abs(self.pole) >= 1.0).sum())} of its poles lie on or outside the unit "
                "circle, where they do not exist",
                "use a stable model",
            )

    @property
    def n_states(self) -> int:
        """Real states: 2 of a pair, 1 of a pole that stands alone."""
        return int(self.weight.sum())

    def impulse_response(self, n_steps: int) -> Real:
        """Return K_l = Re(sum w g a^l) for l = 0 .. n_steps - 1, (n_steps,)."""
        powers = self.pole[:, None] ** np.arange(n_steps)
        return np.asarray(((self.weight * self.gain) @ powers).real)

    def response(self, angle: Real) -> Complex:
        """Return the transfer function sum_l K_l e^(-i angle l) at angles per step, their shape."""
        turn = np.exp(-1j * angle)[..., None]
        pair = self.weight == 2.0
        own = self.gain / (1 - self.pole * turn)
        mirrored = self.gain[pair].conj() / (1 - self.pole[pair].conj() * turn)
        return np.asarray(own.sum(axis=-1) + mirrored.sum(axis=-1))


def modes_of(layer: Layer, head: int) -> Modes:
    """Return the modes of one head that exist."""
    there = layer.mode_weight[head] > 0
    gain = layer.drive[head] * layer.readout[head]
    weight = layer.mode_weight[head, there]
    pole, gain = layer.pole[head, there], gain[there]
    alone = weight == 1.0
    # a pole that stands alone is real, and the real part of its gain is all that is heard
    return Modes(pole, np.where(alone, gain.real, gain), weight)


def gramians(modes: Modes) -> tuple[Real, Real, Real, Real, Real]:
    """Return A (n, n), b (n,), c (n,) of a head as a real system, and its two Gramians.

    In the basis of modes and their conjugates, with b = sqrt|g| and c = g/b,

        P_ij = b_i conj(b_j) / (1 - a_i conj(a_j)),  Q_ij = conj(c_i) c_j / (1 - conj(a_i) a_j),

    which solve P = A P A^H + b b^H and Q = A^H Q A + c^H c (Antoulas, Approximation of
    Large-Scale Dynamical Systems, doi:10.1137/1.9780898718713). A unitary change of basis,
    (x, conj x) -> sqrt 2 (Re x, Im x), makes all five real.
    """
    pair = modes.weight == 2.0
    b = np.sqrt(np.abs(modes.gain)).astype(complex)
    c = np.where(b == 0, 0, modes.gain / np.where(b == 0, 1, b))
    a, b, c = (np.concatenate([v, v[pair].conj()]) for v in (modes.pole, b, c))
    p = b[:, None] * b.conj() / (1 - a[:, None] * a.conj())
    q = c.conj()[:, None] * c / (1 - a.conj()[:, None] * a)
    turn = np.eye(a.size, dtype=complex)
    first, second = np.flatnonzero(pair), modes.pole.size + np.arange(pair.sum())
    half = np.sqrt(0.5)
    turn[first, first] = turn[first, second] = half
    turn[second, first], turn[second, second] = -1j * half, 1j * half
    back = turn.conj().T
    return (
        (turn * a @ back).real, (turn @ b).real, (c @ back).real, (turn @ p @ back).real,
        (turn @ q @ back).real,
    )


def _root(gramian: Real) -> Real:
    """Return L with L L^T = gramian; eigenvalues that rounding made negative count as zero."""
    values, vectors = np.linalg.eigh(gramian)
    return np.asarray(vectors * np.sqrt(np.clip(values, 0.0, None)))


def hankel_values(modes: Modes) -> Real:
    """Return the Hankel singular values of a head, largest first: (n_states,), sqrt eig(P Q).

    Half the bound of what leaving a state out changes: with those after the r-th dropped,
    sup |G - G_r| <= 2 sum of the dropped (Glover 1984, doi:10.1080/00207178408933239, of
    discrete systems Al-Saggaf and Franklin 1987, doi:10.1109/TAC.1987.1104711), and so is the
    L2 norm of the error of the impulse response, which is a mean of |G - G_r| over angles.
    """
    if modes.n_states == 0:
        return np.zeros(0)
    _, _, _, p, q = gramians(modes)
    values = np.linalg.svd(_root(q).T @ _root(p), compute_uv=False)
    return np.asarray(values)


def order_within(values: Real, wanted: int) -> int:
    """Return the largest order <= wanted that splits no equal Hankel values and keeps no rounding.

    values : Hankel values, largest first. Where the first of them all are equal, and more than
    wanted, all of them stay: a part of an all-pass is no reduced system.
    """
    def splits(order: int) -> bool:
        if order in (0, values.size):
            return False
        return bool(values[order] >= values[order - 1] * (1 - _EQUAL))

    rank = int((values > _RANK * values.max(initial=0.0)).sum())
    order = min(wanted, rank)
    below = next(k for k in range(order, -1, -1) if not splits(k))
    if below or order == 0:
        return below
    return next(k for k in range(order, values.size + 1) if not splits(k))


def truncate(modes: Modes, n_states: int) -> Modes:
    """Return the balanced truncation of a head to at most n_states real states, diagonal again.

    With P = L L^T, Q = R R^T and R^T L = U S V^T, the projection T = L V_1 S_1^(-1/2),
    W = R U_1 S_1^(-1/2) gives (W^T A T, W^T b, c T) (Moore 1981,
    doi:10.1109/TAC.1981.1102568; square roots after Laub et al. 1987,
    doi:10.1109/TAC.1987.1104549), whose eigenvectors make it diagonal. The arithmetic is real,
    so that poles come in conjugate pairs or are real. A truncation between distinct Hankel
    values is stable (Pernebo and Silverman 1982, doi:10.1109/TAC.1982.1102945); where rounding
    says otherwise, one state fewer stays.

    Equal Hankel values stay or go together (`order_within`). Pairs come first, then real poles,
    each from slow to fast.
    """
    if n_states >= modes.n_states:
        return modes
    if n_states <= 0:
        return Modes(modes.pole[:0], modes.gain[:0], modes.weight[:0])
    a, b, c, p, q = gramians(modes)
    left, right = _root(q), _root(p)
    u, values, vt = np.linalg.svd(left.T @ right)
    order = order_within(values, n_states)
    while order > 0:
        scale = 1 / np.sqrt(values[:order])
        into, out = right @ vt[:order].T * scale, left @ u[:, :order] * scale
        pole, gain, weight = _diagonal(out.T @ a @ into, out.T @ b, c @ into)
        if (np.abs(pole) < _STABLE).all():
            return Modes(pole, gain, weight)
        order = order_within(values, order - 1)
    return Modes(modes.pole[:0], modes.gain[:0], modes.weight[:0])


def _diagonal(a: Real, b: Real, c: Real) -> tuple[Complex, Complex, Real]:
    """Return pole, gain and weight of the modes of a real system (n, n), (n,), (n,)."""
    pole, vectors = np.linalg.eig(a)
    vectors = vectors.astype(complex)
    gain = (c @ vectors) * np.linalg.solve(vectors, b.astype(complex))
    kept = np.flatnonzero(pole.imag >= 0)  # LAPACK gives exact pairs, the upper one first
    weight = np.where(pole[kept].imag > 0, 2.0, 1.0)
    order = np.lexsort((-np.abs(pole[kept]), weight == 1.0))
    kept, weight = kept[order], weight[order]
    gain = np.where(weight == 1.0, gain[kept].real, gain[kept])
    return np.asarray(pole[kept], complex), np.asarray(gain, complex), weight


def discounted(modes: Modes, n_steps: int | None) -> Modes:
    """Return the modes whose impulse response is e^(-l/n_steps) K_l; None: K_l itself."""
    factor = 1.0 if n_steps is None else np.exp(-1.0 / n_steps)
    return Modes(modes.pole * factor, modes.gain, modes.weight)


def reduce_head(modes: Modes, n_states: int, n_steps: int | None = None) -> tuple[Modes, float]:
    """Return a head of at most n_states real states and what to add to its skip D.

    Poles are those of balanced truncation. Gains are then fitted to the impulse response from
    l = 1 on in least squares, over all steps and in closed form: with the mode functions
    f_i(l) = a_i^l, sum_j <f_i, f_j> g_j = <f_i, K> and <f_i, f_j> = conj(a_i) a_j /
    (1 - conj(a_i) a_j). At l = 0 the skip makes up for the difference exactly. So the error
    stays within the bound of `hankel_values`.

    n_steps : the length of sequences, where known: errors at step l then count e^(-l/n_steps)
        times as much, since what a head does after the end is never seen. A pole that this
        would make slower than the slowest of the head is as slow as that one. None: all steps
        count alike.
    """
    if n_states >= modes.n_states:
        return modes, 0.0
    soon = discounted(modes, n_steps)
    reduced = truncate(soon, n_states)
    pole = reduced.pole
    if n_steps is not None:
        slowest = np.abs(modes.pole).max()
        pole = pole * np.exp(1.0 / n_steps)
        pole = pole * np.minimum(1.0, slowest / np.maximum(np.abs(pole), slowest))
    fitted = _fit_gains(soon, discounted(Modes(pole, reduced.gain, reduced.weight), n_steps))
    result = Modes(pole, fitted.gain, fitted.weight)
    return result, float(modes.impulse_response(1)[0] - result.impulse_response(1)[0])


def _fit_gains(target: Modes, start: Modes) -> Modes:
    """Return `start` with the gains that come nearest to the target from step 1 on."""
    (a, _), (b, _) = _with_conjugates(start), _with_conjugates(target)
    _, gain = _with_conjugates(target)
    own = a.conj()[:, None] * a / (1 - a.conj()[:, None] * a)
    cross = a.conj()[:, None] * b / (1 - a.conj()[:, None] * b)
    found = np.linalg.lstsq(own, cross @ gain, rcond=1e-13)[0][: start.pole.size]
    return Modes(start.pole, np.where(start.weight == 1.0, found.real, found), start.weight)


def _with_conjugates(modes: Modes) -> tuple[Complex, Complex]:
    """Return poles and gains of all modes, then of the conjugates of those that have one."""
    pair = modes.weight == 2.0
    pole, gain = (np.concatenate([v, v[pair].conj()]) for v in (modes.pole, modes.gain))
    return pole, gain


def energy(modes: Modes) -> float:
    """Return the energy sum_l K_l^2 of the impulse response, over all steps, exactly.

    sum_ij g_i conj(g_j) / (1 - a_i conj(a_j)) over modes and conjugates.
    """
    a, g = _with_conjugates(modes)
    return max(0.0, float((g[:, None] * g.conj() / (1 - a[:, None] * a.conj())).sum().real))


def kernel_error(before: Modes, after: Modes, skip: float = 0.0) -> float:
    """Return the L2 distance sqrt(sum_l (K_l - K'_l)^2) of two impulse responses, over all steps.

    skip : what the second one's skip has more than the first one's, part of K'_0. Exact but for
    rounding: below 1e-8 of the norm of K it means nothing.
    """
    both = Modes(
        np.concatenate([before.pole, after.pole]), np.concatenate([before.gain, -after.gain]),
        np.concatenate([before.weight, after.weight]),
    )
    first = float(both.impulse_response(1)[0])
    return float(np.sqrt(max(0.0, energy(both) - first**2 + (first - skip) ** 2)))
