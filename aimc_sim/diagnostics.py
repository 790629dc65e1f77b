"""How good the products of a programmed matrix are: error, and effective number of bits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from aimc_sim.errors import InputError
from aimc_sim.matrix import AnalogMatrix

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

# of an ideal converter and a sine at full scale, SNDR = 6.02 b + 1.76 dB
_DB_PER_BIT = 20 * math.log10(2)
_DB_OF_SINE = 10 * math.log10(1.5)


@dataclass(frozen=True)
class Estimate:
    """A figure and its standard error from the inputs that were tried on one chip.

    value, standard_error : both in the unit of the figure. The error of programming is the same for
    all inputs: what another chip would give differs by more than `standard_error` where it
    dominates.
    """

    value: float
    standard_error: float

    def __str__(self) -> str:
        return f"{self.value:.4g} +- {self.standard_error:.2g}"


def mvm_error(matrix: AnalogMatrix, x: ArrayLike) -> Estimate:
    """Return the MVM error of a programmed matrix: mean |y - y*| over mean |y*|.

        e = < ||y_k - y*_k||_2 > / < ||y*_k||_2 >,    y*_k = x_k w in float64

    over the inputs x_k, y what the chip answers as it is now: aged, with new read noise for
    every input, through its converters. A gain that is not 1 counts as an error. The standard
    error is that of a ratio of means over independent inputs.

    Parameters
    ----------
    matrix : programmed; the reads count as those of `mvm` do.
    x : (n, n_in) inputs, n >= 2. For standard normal weights and inputs e is the MVM error
        of Rasch et al., Nat. Commun. 14, 5282 (2023), doi 10.1038/s41467-023-40770-4.

    Raises InputError for inputs that the matrix cannot multiply, fewer than two, or such that
    all products are zero.

    Examples
    --------
    >>> from aimc_sim import ChipSpec, map_matrix
    >>> a = map_matrix(np.eye(3), ChipSpec.preset("ideal")).program()
    >>> mvm_error(a, np.arange(6.0).reshape(2, 3)).value
    0.0
    """
    noise, signal = _magnitudes(matrix, x, "measure the MVM error")
    return _ratio(noise, signal)


def effective_bits(matrix: AnalogMatrix, x: ArrayLike) -> Estimate:
    """Return the effective number of bits of a programmed matrix' products.

        SNDR = 10 log10(sum |y*|^2 / sum |y - y*|^2) = 6.02 b + 1.76 dB

    over all inputs and outputs: b is the resolution of the ideal converter that does as much
    harm to a sine at its full scale (IEEE Std 1241-2010, doi 10.1109/IEEESTD.2011.5692956). Noise
    and distortion are everything that the product differs by, wrong gain included. b is negative
    where the error exceeds 0.8 of the signal and infinite where there is none.

    matrix, x : programmed, and inputs (n, n_in), as of `mvm_error`; errors raised and standard
    error too.

    Examples
    --------
    >>> from aimc_sim import ChipSpec, map_matrix
    >>> a = map_matrix(np.eye(3), ChipSpec.preset("ideal")).program()
    >>> effective_bits(a, np.arange(6.0).reshape(2, 3)).value
    inf
    """
    noise, signal = _magnitudes(matrix, x, "find the effective number of bits")
    power = _ratio(noise**2, signal**2)
    if power.value == 0.0:
        return Estimate(math.inf, 0.0)
    sndr_db = -10 * math.log10(power.value)
    error_db = 10 / math.log(10) * power.standard_error / power.value
    return Estimate((sndr_db - _DB_OF_SINE) / _DB_PER_BIT, error_db / _DB_PER_BIT)


def _magnitudes(
    matrix: AnalogMatrix, x: ArrayLike, asked: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return ||y - y*|| and ||y*|| of every input, both (n,)."""
    if not isinstance(matrix, AnalogMatrix):
        raise InputError(
            asked, f"this is a {type(matrix).__name__}, not a programmed matrix",
            "pass what map_matrix(w, spec).program(seed) returns",
        )
    x = np.atleast_2d(np.asarray(x))
    if x.ndim == 2 and len(x) < 2:
        raise InputError(
            asked, f"there are {len(x)} input(s)", "give at least two: a spread needs them"
        )
    y = matrix.mvm(x)
    ideal = x @ matrix.mapped.w
    signal = np.linalg.norm(ideal, axis=1)
    if not signal.any():
        raise InputError(
            asked, "all products are zero: there is no signal to compare with",
            "give inputs that the matrix does not send to zero",
        )
    return np.linalg.norm(y - ideal, axis=1), signal


def _ratio(above: np.ndarray, below: np.ndarray) -> Estimate:
    """Return mean(above)/mean(below) with its standard error to first order, both (n,)."""
    value = above.mean() / below.mean()
    left = above - value * below
    return Estimate(
        float(value), float(left.std(ddof=1) / math.sqrt(len(left)) / below.mean())
    )
