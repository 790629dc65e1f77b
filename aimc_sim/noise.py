"""How the read noise of a card divides, in a run, into what lasts and what is new at a step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from aimc_sim.specs import ChipSpec


@dataclass(frozen=True)
class NoiseSplit:
    """Factors of a cell's noise sigma (`Chip.noise_s`) at a moment.

    slow : of the part that lasts for a sequence. fast : of the part new at each step.
    """

    slow: float
    fast: float


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
    """Return how the read noise at `seconds` after programming divides into slow and fast.

    1/f noise gathered up to t has variance Q^2 g^2 L, L = ln((t + t_read)/(2 t_read)). Octaves
    with periods up to one step, L_fast = ln((t_step + t_read)/(2 t_read)), are new at each step,
    the rest lasts for the sequence. White noise is always new.
    """
    device = spec.device
    noise = device.read_noise
    if noise is None:
        return NoiseSplit(0.0, 0.0)
    if noise.spectrum == "white":
        frozen = spec.noise_in_time == "frozen"
        return NoiseSplit(float(frozen), float(not frozen))
    t = seconds + (device.drift.t0_s if device.drift is not None else 0.0)
    shortest = 2 * noise.t_read_s
    total = gathered(noise.exponent, shortest, t + noise.t_read_s)
    step = gathered(noise.exponent, shortest, spec.step_period_s + noise.t_read_s)
    fast = {"split": min(step, total), "white": total, "frozen": 0.0}[spec.noise_in_time]
    return NoiseSplit(math.sqrt(total - fast), math.sqrt(fast))
