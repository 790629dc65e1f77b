"""How the read noise of a card divides, in a run, into what lasts, what moves and what is new."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from aimc_sim.cards import TelegraphSpec
from aimc_sim.kernels.moving import LASTING, MOVING, WHITE
from aimc_sim.specs import ChipSpec

MOST_BANDS = 10  # whatever the length of a run, so that a stream and a sequence are the same
BAND_RATIO = 4
_FORGOTTEN = 1e-3  # correlation over a step below which telegraph noise is white


@dataclass(frozen=True)
class NoiseSplit:
    """Factors of a cell's noise sigma (`Chip.noise_s`) at a moment.

    slow : of the part that lasts for a sequence. fast : of the part new at each step.
    bands : of the parts that are drawn anew after spectrum_from_steps 4^k steps on average.
    """

    slow: float
    fast: float
    bands: tuple[float, ...] = ()

    @property
    def moving(self) -> float:
        """Factor of all bands together."""
        return math.sqrt(sum(band**2 for band in self.bands))

    @property
    def lasting(self) -> float:
        """Factor of all that lasts for a few reads: slow noise and bands."""
        return math.hypot(self.slow, self.moving)


def gathered(exponent: float, shortest_s: float, longest_s: float) -> float:
    """Return the variance of noise with S(f) = 1/f (1 Hz/f)^(a - 1) between two frequencies.

    The frequencies are 1/longest_s and 1/shortest_s; for a = 1 it is ln(longest/shortest).
    0 where the band is empty.
    """
    if longest_s <= shortest_s:
        return 0.0
    power = exponent - 1
    if power == 0:
        return math.log(longest_s / shortest_s)
    return (longest_s**power - shortest_s**power) / power


def noise_split(spec: ChipSpec, seconds: float) -> NoiseSplit:
    """Return how the read noise at `seconds` after programming divides in a run.

    1/f noise gathered up to t has variance Q^2 g^2 L, L = ln((t + t_read)/(2 t_read)).
    "split" : octaves with periods up to one step, L_fast = ln((t_step + t_read)/(2 t_read)), are
    new at each step, the rest lasts for the sequence. "spectrum" : a band of correlation time T
    stands for the periods pi T .. 4 pi T; what is faster than the first band is new at each
    step, what is slower than the last one lasts. White noise is always new.
    """
    device = spec.device
    noise = device.read_noise
    if noise is None:
        return NoiseSplit(0.0, 0.0)
    if noise.spectrum == "white":
        frozen = spec.noise_in_time == "frozen"
        return NoiseSplit(float(frozen), float(not frozen))
    t = seconds + (device.drift.t0_s if device.drift is not None else 0.0)
    shortest, longest = 2 * noise.t_read_s, t + noise.t_read_s
    total = gathered(noise.exponent, shortest, longest)
    if spec.noise_in_time == "spectrum":
        period = math.pi * spec.spectrum_from_steps * spec.step_period_s
        fast = min(gathered(noise.exponent, shortest, period), total)
        bands = _bands(noise.exponent, period, shortest, longest)
        return NoiseSplit(math.sqrt(max(total - fast - sum(bands), 0.0)), math.sqrt(fast),
                          tuple(math.sqrt(band) for band in bands))
    step = gathered(noise.exponent, shortest, spec.step_period_s + noise.t_read_s)
    fast = {"split": min(step, total), "white": total, "frozen": 0.0}[spec.noise_in_time]
    return NoiseSplit(math.sqrt(total - fast), math.sqrt(fast))


def _bands(exponent: float, period_s: float, shortest_s: float, longest_s: float) -> list[float]:
    """Return the variances of the bands from a period on.

    Lorentzians of correlation times T with variance c T^(a - 1) dln T add up to 1/f^a for
    c = (2 pi)^(a - 1) sin(pi a/2); the periods 2 pi T of a band reach from half to twice its own.
    """
    share = math.sin(math.pi * exponent / 2)
    bands: list[float] = []
    while len(bands) < MOST_BANDS and BAND_RATIO * period_s <= longest_s:
        start = max(period_s, shortest_s)
        bands.append(share * gathered(exponent, start, BAND_RATIO * period_s))
        period_s *= BAND_RATIO
    return bands


def spectrum(spec: ChipSpec, seconds: float, frequency_hz: np.ndarray) -> np.ndarray:
    """Return the one-sided power spectral density [1/Hz] of 1/f noise in a run, for sigma = 1.

    That of the values at the steps, for frequencies up to 1/(2 step_period_s): a band that is
    drawn anew with probability p = 1/T in a step has autocorrelation (1 - p)^|n|, so
        S = 2 dt v p (2 - p)/(1 + (1 - p)^2 - 2 (1 - p) cos(2 pi f dt)),
    and white noise 2 dt v. What lasts for a sequence has none at f > 0.
    """
    split, dt = noise_split(spec, seconds), spec.step_period_s
    cosine = np.cos(2 * np.pi * np.asarray(frequency_hz, float) * dt)
    total = np.full(cosine.shape, split.fast**2)
    for k, band in enumerate(split.bands):
        p = 1 / (spec.spectrum_from_steps * BAND_RATIO**k)
        total += band**2 * p * (2 - p) / (1 + (1 - p) ** 2 - 2 * (1 - p) * cosine)
    return 2 * dt * total


def refresh_pace(spec: ChipSpec) -> float:
    """Return 1/ln(1 - 1/T_0), which turns ln of a uniform number into steps to a refresh."""
    steps = spec.spectrum_from_steps
    return 1 / math.log1p(-1 / steps) if steps > 1 else -0.0


def telegraph_kinds(spec: ChipSpec, correlation_s: np.ndarray) -> np.ndarray:
    """Return how telegraph noise of a correlation time [s] enters a run: LASTING, WHITE, MOVING.

    correlation_s : 1/(1/tau_high + 1/tau_low) of every cell.
    """
    if spec.noise_in_time == "spectrum":
        kept = np.exp(-spec.step_period_s / correlation_s) >= _FORGOTTEN
        return np.where(kept, MOVING, WHITE).astype(np.int8)
    # the correlation time from which a level lasts for a sequence
    least_s = {"split": spec.step_period_s, "frozen": 0.0, "white": math.inf}[spec.noise_in_time]
    return np.where(correlation_s > least_s, LASTING, WHITE).astype(np.int8)


@dataclass(frozen=True)
class Jumps:
    """What the cells with telegraph noise of one replica are, all (n,).

    amplitude : distance of the levels in units of the card's curve. share : of time in the upper
    level. correlation_s : 1/(1/tau_high + 1/tau_low).
    """

    cell: np.ndarray
    amplitude: np.ndarray
    share: np.ndarray
    correlation_s: np.ndarray


def draw_jumps(part: TelegraphSpec, normals: list[np.ndarray]) -> Jumps:
    """Return the cells that have telegraph noise, with their own levels and dwell times.

    normals : four of every cell (n_cells,): whether it has it, amplitude, the two dwell times.
    """
    from scipy.special import ndtri

    cell = np.flatnonzero(normals[0] < ndtri(part.fraction))
    own = [z[cell].astype(float) for z in normals[1:]]
    high = part.tau_high_s * np.exp(part.tau_spread * own[1])
    low = part.tau_low_s * np.exp(part.tau_spread * own[2])
    return Jumps(
        cell, np.exp(part.amplitude_spread * own[0]), high / (high + low), 1 / (1 / high + 1 / low)
    )


def leaving_pace(spec: ChipSpec, jumps: Jumps) -> np.ndarray:
    """Return 1/ln(1 - q), (n, 2), q the chance to be in the other level one step later.

    Of the chain of two levels seen at the steps: q = p (1 - e) from the lower level and
    (1 - p) (1 - e) from the upper, e = exp(-dt/correlation time).
    """
    changed = -np.expm1(-spec.step_period_s / jumps.correlation_s)
    q = np.stack([jumps.share * changed, (1 - jumps.share) * changed], axis=1)
    with np.errstate(divide="ignore"):
        return np.asarray(1 / np.log1p(-q))
