"""Resistance of word and bit lines: the conductances that the terminals of an array see.

Currents and voltages of a resistive network are linear in each other, so an array with wires is,
at its terminals, an array without wires that has other conductances: I = V^T Geff exactly. The
map holds for one set of terminations: here every bit line is grounded, read or not, and word
lines that are not driven are at 0 V.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from aimc_sim.errors import InputError, UsageError
from aimc_sim.kernels import wires

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

kernels: Any = wires  # numba's, whose signatures star-arguments hide from a type checker

_MOST_HELD = 64
_FINER = 0.01  # of the largest resistance: (1 - P)/r of a smaller one would lose digits


@dataclass(frozen=True, eq=False)
class Network:
    """An array of cells between its wires.

    g : (n, m) float64 [S]. left, right : [S] from the ends of every word line to its source, inf
    for none between, 0 for an open end. word : (m,) [ohm] between neighbouring nodes of a word
    line, word[k] left of node k, word[0] unused. bit : (n,) [ohm] of the bit lines below every
    word line, the last one to ground.
    """

    g: np.ndarray
    left: float
    right: float
    word: np.ndarray
    bit: np.ndarray

    @property
    def to_ground(self) -> np.ndarray:
        """Resistance of a bit line from every word line to ground, (n,) [ohm]."""
        return np.cumsum(self.bit[::-1])[::-1]

    def turned(self) -> Network:
        """Return the network with word and bit lines exchanged, driven where it was read.

        By reciprocity its effective conductances are the same, (::-1, ::-1) and transposed.
        """
        word = np.concatenate([[0.0], self.bit[:-1][::-1]])
        bit = np.concatenate([self.word[1:][::-1], [_inverse(self.left)]])
        return Network(
            np.ascontiguousarray(self.g.T[::-1, ::-1]), _inverse(self.bit[-1]), 0.0, word, bit
        )


def effective_conductance(
    g_s: ArrayLike,
    *,
    r_wl_ohm: float,
    r_bl_ohm: float,
    r_driver_ohm: float = 0.0,
    r_sense_ohm: float = 0.0,
    drive: Literal["left", "both"] = "left",
) -> np.ndarray:
    """Return the conductances that the terminals of an array see: I = V^T Geff.

    Word line i is driven at its left end through r_driver and one segment r_wl, or at both ends;
    bit line j is grounded at its bottom end through one segment r_bl and r_sense, and its
    current there is what is read. Zero resistances are ideal wires.

    Parameters
    ----------
    g_s : (rows, cols) conductances of the cells [S], not negative.
    r_wl_ohm, r_bl_ohm : [ohm] of one segment, cell to cell.
    r_driver_ohm, r_sense_ohm : [ohm] of every driver and of every input of a converter.
    drive : "left", or "both" ends of every word line by the same source.

    Returns
    -------
    (rows, cols) float64 [S]. Exact but for rounding: word lines are eliminated one after the
    other, each leaving a dense admittance between the bit lines; O(rows cols min(rows, cols)^2).

    Cells are linear here: a current that bends with the voltage is not modelled.

    Raises InputError for conductances that are negative or not finite, UsageError for such
    resistances.

    Examples
    --------
    >>> effective_conductance([[1e-3]], r_wl_ohm=100.0, r_bl_ohm=100.0).round(9).tolist()
    [[0.000833333]]
    """
    network = make_network(
        g_s, r_wl_ohm=r_wl_ohm, r_bl_ohm=r_bl_ohm, r_driver_ohm=r_driver_ohm,
        r_sense_ohm=r_sense_ohm, drive=drive,
    )
    return effective(network)


def make_network(
    g_s: ArrayLike, *, r_wl_ohm: float, r_bl_ohm: float, r_driver_ohm: float = 0.0,
    r_sense_ohm: float = 0.0, drive: Literal["left", "both"] = "left",
    rows: np.ndarray | None = None, cols: np.ndarray | None = None,
    shape: tuple[int, int] | None = None,
) -> Network:
    """Return the network of an array; errors as `effective_conductance`.

    rows, cols : which lines of an array of `shape` the cells lie on, rising; the others hold no
    cell. None: g_s is the whole array.
    """
    g = _check_conductances(g_s)
    ohms = {
        "r_wl_ohm": r_wl_ohm, "r_bl_ohm": r_bl_ohm, "r_driver_ohm": r_driver_ohm,
        "r_sense_ohm": r_sense_ohm,
    }
    for name, value in ohms.items():
        if not (math.isfinite(value) and value >= 0):
            raise UsageError(
                f"solve an array with {name} = {value}", "it is negative or not finite",
                "give zero (an ideal wire) or a positive resistance in ohm",
            )
    if drive not in ("left", "both"):
        raise UsageError(
            f"drive word lines from '{drive}'", "that is no way to drive them",
            "choose left or both",
        )
    rows = np.arange(g.shape[0]) if rows is None else rows
    cols = np.arange(g.shape[1]) if cols is None else cols
    n, m = g.shape if shape is None else shape
    right = _inverse(r_driver_ohm + r_wl_ohm * (m - cols[-1])) if drive == "both" else 0.0
    return Network(
        g, _inverse(r_driver_ohm + r_wl_ohm * (1 + cols[0])), right,
        r_wl_ohm * np.diff(cols, prepend=cols[0]).astype(float),
        r_bl_ohm * np.diff(rows, append=n).astype(float)
        + r_sense_ohm * (np.arange(rows.size) == rows.size - 1),
    )


def _check_conductances(g_s: ArrayLike) -> np.ndarray:
    g = np.asarray(g_s)
    if g.ndim != 2 or g.size == 0 or g.dtype.kind not in "fiub":
        raise InputError(
            f"solve an array of shape {g.shape}", f"it is empty, not 2-D or of type {g.dtype}",
            "give conductances (rows, cols) in siemens",
        )
    g = np.ascontiguousarray(g, float)
    bad = ~((g >= 0) & (g < np.inf))
    if bad.any():
        row, col = np.argwhere(bad)[0]
        raise InputError(
            "solve an array with wires",
            f"{bad.sum()} conductance(s) are negative or not finite, the first is "
            f"{g[row, col]} S at row {row}, column {col}",
            "give finite conductances of at least zero",
        )
    return g


def _inverse(ohm: float) -> float:
    return 1 / ohm if ohm > 0 else math.inf


def effective(network: Network) -> np.ndarray:
    """Return the effective conductances of a network, (n, m) [S]."""
    if _prefers_turning(network):
        return np.ascontiguousarray(effective(network.turned())[::-1, ::-1].T)
    return _Lines(network).effective()


def _prefers_turning(network: Network) -> bool:
    n, m = network.g.shape
    # an ideal bit line costs one elimination in all, an ideal word line as many as there are rows
    ideal_bits, ideal_words = not network.bit[:-1].any(), not network.word.any()
    if network.right > 0 or (ideal_bits and n >= m):
        return False
    return m > n or (ideal_words and not ideal_bits and m >= n)


class _Lines:
    """Elimination of one word line after the other, from the far end of the bit lines.

    Y_i (m, m) is the admittance of word lines 1 .. i between the bit lines below line i, J_i the
    currents there with the bit lines grounded. A segment r of every bit line makes them
    P Y and P J with P = (1 + r Y)^-1; the next word line adds its own to both.
    Symmetric matrices are kept in the upper triangle, LAPACK's lower one in Fortran order.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self.n, self.m = network.g.shape
        self.ideal_words = math.isinf(network.left)
        m = self.m
        self.line = [np.zeros(m) for _ in range(5)]  # see kernels.open_line

    def open(self, i: int) -> np.ndarray:
        """Fill `line` for word line i; return the currents it feeds into grounded bit lines."""
        net, g = self.network, self.network.g[i]
        if self.ideal_words:
            self.line[4][:] = 1.0
            return g
        kernels.open_line(g, net.word, net.left, net.right, *self.line)
        return np.asarray(g * self.line[4])

    def _add(self, i: int, y: np.ndarray) -> None:
        """Y += the admittance of word line i, whose `line` is filled."""
        g = self.network.g[i]
        if self.ideal_words:
            y[np.diag_indices(self.m)] += g
        else:
            kernels.add_line(g, *self.line[:4], y)

    def _invert(self, y: np.ndarray, ohm: float, p: np.ndarray) -> None:
        """P = (1 + ohm Y)^-1, upper triangle."""
        from scipy.linalg import lapack

        kernels.one_plus(y, ohm, p)
        _, info = lapack.dpotrf(p.T, lower=1, overwrite_a=1, clean=0)
        if info == 0:
            _, info = lapack.dpotri(p.T, lower=1, overwrite_c=1)
        if info != 0:
            raise InputError(
                "solve an array with wires", "rounding leaves no positive network",
                "give resistances and conductances of physical size",
            )

    def _behind(self, y: np.ndarray, p: np.ndarray, ohm: float) -> None:
        """Y becomes that behind the segment `ohm`, whose P is given."""
        if ohm >= _FINER * self.network.bit.max():
            kernels.through_segment(p, ohm, y)
            return
        full, square = y.copy(), p.copy()
        kernels.mirror(full)
        kernels.mirror(square)
        product = square @ full
        y[...] = 0.5 * (product + product.T)

    def effective(self) -> np.ndarray:
        from scipy.linalg import blas

        n, m, bit = self.n, self.m, self.network.bit
        y, p = np.zeros((m, m)), np.empty((m, m))
        currents, spare = np.empty((m, n), order="F"), np.empty((m, n), order="F")
        # an ideal line grounds what follows it: only the admittance above a resistance matters
        for i in range(n):
            currents[:, i] = self.open(i)
            if not bit[i:].any():
                continue
            self._add(i, y)
            if bit[i] == 0:
                continue
            self._invert(y, bit[i], p)
            done = i + 1
            blas.dsymm(
                1.0, p.T, currents[:, :done], lower=1, c=spare[:, :done], overwrite_c=1
            )
            currents, spare = spare, currents
            if i < n - 1:
                self._behind(y, p, bit[i])
        return np.ascontiguousarray(currents.T)

    def voltages(self) -> tuple[np.ndarray, np.ndarray]:
        """Return what `cell_voltages` does."""
        n, m, bit = self.n, self.m, self.network.bit
        y, currents = np.zeros((m, m)), np.zeros((m, n))
        p, fed = np.tile(np.eye(m), (n, 1, 1)), np.empty((n, m, n))
        for i in range(n):
            currents[:, i] = self.open(i)
            fed[i] = currents
            self._add(i, y)
            if bit[i] > 0:
                self._invert(y, bit[i], p[i])
                self._behind(y, p[i], bit[i])
                kernels.mirror(p[i])
                currents = p[i] @ currents
        drives, senses = np.empty((n, n, m)), np.empty((m, n, m))
        bits, read = np.zeros((m, n)), np.eye(m)  # of bit lines: by source, and by output
        for i in range(n - 1, -1, -1):
            bits = p[i] @ (bits + bit[i] * fed[i]) if bit[i] > 0 else bits
            read = p[i] @ read
            self.open(i)
            follow = self._following(i)
            word = follow @ bits
            word[:, i] += self.line[4]
            drives[:, i] = (word - bits).T
            senses[:, i] = (read - follow @ read).T
        return drives, senses

    def _following(self, i: int) -> np.ndarray:
        """Return T^-1 diag(g): how word line i, its `line` filled, follows the bit lines."""
        if self.ideal_words:
            return np.zeros((self.m, self.m))
        _, _, z, share, _ = self.line
        falls = np.tril(np.cumprod(np.tril(share[:, None] * np.ones(self.m), -1)
                                   + np.triu(np.ones((self.m, self.m))), axis=0))
        inverse = falls * z  # T^-1_ab of a >= b; T is symmetric
        return np.asarray((inverse + np.tril(inverse, -1).T) * self.network.g[i])


def cell_voltages(network: Network) -> tuple[np.ndarray, np.ndarray]:
    """Return the voltages across all cells, exactly, for 1 V at one terminal at a time.

    drives (n, n, m): by the word line whose source is on, from word to bit line. senses
    (m, n, m): by the bit line at whose end 1 V stands, from bit to word line. To first order
        d effective_ij/d g_kl = drives_ikl senses_jkl.

    Raises UsageError for more than 64 lines a side: all voltages are held.
    """
    n, m = network.g.shape
    if max(n, m) > _MOST_HELD:
        raise UsageError(
            f"hold all voltages of {n} x {m} cells",
            f"at most {_MOST_HELD} x {_MOST_HELD} are supported", "take a smaller array",
        )
    return _Lines(network).voltages()


def own_voltages(network: Network) -> tuple[np.ndarray, np.ndarray]:
    """Return the voltages of cells per volt of their own word and bit line nearly, in O(n m).

    Both (n, m): drive with all bit lines at 0 V and 1 V at the word line's source, sense with
    all word lines at 0 V and 1 V at the bit line's end; each line is a ladder on its own. Their
    product misses d effective_ij/d g_ij by a second order of wire resistance times
    conductance: at 1 ohm a segment and 1 .. 100 uS by at most 0.3, 0.6 and 1.1 % of 16, 32 and
    64 lines (examples/16_wires.py).
    """
    return _ladders(network), np.ascontiguousarray(_ladders(network.turned())[::-1, ::-1].T)


def _ladders(network: Network) -> np.ndarray:
    """Return the voltages of word lines per volt of their sources, bit lines at 0 V, (n, m)."""
    result = np.ones(network.g.shape)
    if math.isfinite(network.left):
        lines = _Lines(network)
        for i in range(lines.n):
            lines.open(i)
            result[i] = lines.line[4]
    return result


def shared_noise(
    effective_s: np.ndarray, sense: np.ndarray, to_ground: np.ndarray, variance: np.ndarray
) -> np.ndarray:
    """Return the variance [S^2] that noise of the other cells of a bit line adds to effective g.

    A current through cell (i, j) lifts bit line j by Geff_ij R_max(i,k) at row k, R_k being the
    line's resistance from there to ground, and cell (k, j) is read at that voltage as well:
        Geff_ij^2 sum_{k != i} (sense_kj R_max(i,k))^2 variance_kj,
    to first order in R G; other cells add less by a further such factor.

    sense : of `own_voltages`. to_ground (n,) : of `Network`. variance : of the cells [S^2].
    """
    square = to_ground[:, None] ** 2
    seen = sense**2 * variance
    below = np.cumsum((seen * square)[::-1], axis=0)[::-1] - seen * square
    above = (np.cumsum(seen, axis=0) - seen) * square
    return np.asarray(effective_s**2 * np.maximum(below + above, 0.0))


@dataclass(frozen=True)
class NoiseError:
    """How far standard deviations of outputs are off, relative, rms over columns and inputs.

    linear : those exact in the voltages, first order in the noise, from a full solve of every
        read; floor : what the finite number of reads alone would make of it.
    diagonal : only sum_i x_i^2 W_ij of that quadratic form in x, from the whole form.
    used : W as a chip has it, by `own_voltages` and `shared_noise`, from the whole form.
    ideal : noise without wires, from the whole form.
    """

    linear: float
    floor: float
    diagonal: float
    used: float
    ideal: float


def noise_error(
    network: Network, sigma_s: np.ndarray, x: np.ndarray, n_draws: int = 1000, seed: int = 0
) -> NoiseError:
    """Return how far what is made of read noise behind wires is from solving every read.

    To first order noise dG of the cells changes the current of output j by
        dI_j = sum_ik a^j_ik dG_ik v_ik,
    v_ik the voltage across cell (i, k) and a^j_ik that for 1 V at the end of bit line j alone:
    a variance that is quadratic in x. It is compared with the spread of n_draws full solves.

    network : at most 64 x 64 (every voltage of every source is held). sigma_s (n, m) [S] of the
    cells, small enough that none turns negative; x (batch, n) inputs [V].

    Raises UsageError for a larger array.
    """
    n, m = network.g.shape
    drives, senses = cell_voltages(network)
    variance = sigma_s**2
    across = np.tensordot(x, drives, axes=1)
    linear = np.einsum("jik,bik,ik->bj", senses**2, across**2, variance, optimize=True)
    diagonal = x**2 @ np.einsum("jik,sik,ik->sj", senses**2, drives**2, variance, optimize=True)
    drive, sense = own_voltages(network)
    own = (drive * sense) ** 2 * variance
    shared = shared_noise(effective(network), sense, network.to_ground, variance)
    used = x**2 @ (own + shared)
    rng = np.random.Generator(np.random.Philox(seed))
    reads = np.stack([
        x @ effective(replace(
            network, g=np.maximum(network.g + sigma_s * rng.standard_normal((n, m)), 0.0)
        ))
        for _ in range(n_draws)
    ])
    found = reads.std(axis=0, ddof=1)

    def off(these: np.ndarray, those: np.ndarray) -> float:
        return float(np.sqrt(np.mean((np.sqrt(these / those) - 1) ** 2)))

    return NoiseError(
        off(linear, found**2), 1 / math.sqrt(2 * (n_draws - 1)), off(diagonal, linear),
        off(used, linear), off(x**2 @ variance, linear),
    )
