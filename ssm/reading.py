"""Errors that are new at every access of the array, for training: read noise and converters.

What `ssm.disturbance` draws once for a batch lasts for a sequence; this is the rest: read noise
that is new at every step, rounding by DACs, ADCs and state registers, and thermal noise of ADCs.
All are Gaussian here, with the variances that the simulator's errors have.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from aimc_sim.converters import converter_limit
from aimc_sim.specs import ChipSpec
from ssm.disturbance import look_up, power_of_two_above, tall, weight_tables

_LEAST_EXPONENT = -16  # of the power-of-two scale of a single cell (`ssm.forms`)
_ROUNDING = 1.0 / 12.0  # variance of rounding to whole steps
_REGISTER_HEADROOM = 2.0  # of state registers (`ssm.ranges`)
_LEAST = 2.0**-60


class Reading(nn.Module):
    """Variances of what an access of one chip per run adds.

    Parameters
    ----------
    chips : one for every run. at_s : time since programming.
    """

    pair: Tensor
    single: Tensor
    adc: Tensor
    dac: Tensor
    register: Tensor
    adc_noise: Tensor

    def __init__(self, chips: Sequence[ChipSpec], at_s: float) -> None:
        super().__init__()
        pairs, singles = (
            np.array([table[2] for table in weight_tables(chips, at_s, pair=pair)])
            for pair in (True, False)
        )
        limits = {
            "adc": [converter_limit(chip.adc.bits) for chip in chips],
            "dac": [converter_limit(chip.dac.bits) for chip in chips],
            "register": [converter_limit(chip.state_bits) for chip in chips],
            "adc_noise": [chip.adc.noise_lsb for chip in chips],
        }
        for name, values in {"pair": pairs, "single": singles, **limits}.items():
            tensor = torch.as_tensor(np.array(values), dtype=torch.float32)
            self.register_buffer(name, tensor, persistent=False)

    def pairs(self, w: Tensor, scale: Tensor) -> Tensor:
        """Return the variance of weights w (runs, ...) on pairs of cells; scale: the largest."""
        sigma = look_up(self.pair, (w / scale).abs())
        return scale**2 * (sigma**2 + tall(self.pair[:, 0], w) ** 2)

    def singles(self, w: Tensor) -> Tensor:
        """Return the variance of every weight w >= 0 on single cells of the next power of two."""
        scale = power_of_two_above(w, _LEAST_EXPONENT)
        return (scale * look_up(self.single, w / scale)) ** 2

    def conversion(self, largest: Tensor, runs: int = 0, *, shift: bool = False) -> Tensor:
        """Return the variance of conversions whose range covers `largest`, of axis `runs`.

        shift : ranges are powers of two, as those of A.
        """
        size = torch.movedim(largest, runs, 0)
        step = _step(size, tall(self.adc, size), shift)
        noise = tall(self.adc_noise, size) ** 2
        return torch.movedim(step**2 * (_ROUNDING + noise), 0, runs)

    def drive(self, largest: Tensor, *, shift: bool = False) -> Tensor:
        """Return the variance of inputs (runs, ...) rounded by DACs that reach to `largest`."""
        return _ROUNDING * _step(largest, tall(self.dac, largest), shift) ** 2

    def held(self, largest: Tensor) -> Tensor:
        """Return the variance of states (runs, ...) rounded by registers that hold them."""
        full = _REGISTER_HEADROOM * largest
        return _ROUNDING * _step(full, tall(self.register, full), True) ** 2


def read_product(
    x: Tensor, y: Tensor, clean: Tensor, variance: Tensor, reading: Reading, rounded: bool
) -> Tensor:
    """Return y (B, T, runs, n_out) = x w with the errors of one access for every step.

    x (B, T, runs, n_in); clean, variance : (runs, n_in, n_out) of the weights; rounded : whether x
    already is what its DACs pass.
    """
    with torch.no_grad():
        power = torch.einsum("btri,rio->btro", x.square(), variance)
        power += reading.conversion(y.abs().amax(dim=(0, 1)))
        if not rounded:
            step = reading.drive(x.abs().amax(dim=(0, 1, 3)))
            power += step[:, None] * clean.square().sum(dim=1)
        error = power.sqrt_() * torch.randn_like(y)
    return y + error


class StateErrors:
    """Errors of states as they show in the heads' outputs: y = c x, x <- M x + L n.

    Drawn as Gaussian noise with the spectrum of that response, scaled at every step to the
    variance that the errors up to it make.

    Parameters
    ----------
    matrix M (runs, H, M, 2, 2), readout c (runs, H, M, 2), enter L (runs, H, M, 2, k), and
    variance of n at every step, (T, runs, H, M, k).
    """

    def __init__(self, matrix: Tensor, readout: Tensor, enter: Tensor, variance: Tensor) -> None:
        self.sigma = _variances(matrix, readout, enter, variance).sqrt()
        self.spectrum = response_spectrum(
            matrix, readout, enter, variance.mean(dim=0), len(variance)
        )

    def draw(self, n: int) -> Tensor:
        """Return errors of n sequences, (n, T, runs, H)."""
        n_steps, n_runs, n_heads = self.sigma.shape
        white = torch.randn((n, 2 * n_steps, n_runs, n_heads), device=self.sigma.device)
        power = self.spectrum.movedim(-1, 0)
        # of a periodic noise: the mean over all frequencies, of which inner ones count twice
        whole = (2 * power.sum(dim=0) - power[0] - power[-1]) / (2 * n_steps)
        shape = (power / torch.where(whole > 0, whole, torch.ones_like(whole))).sqrt()
        found = torch.fft.irfft(torch.fft.rfft(white, dim=1) * shape, n=2 * n_steps, dim=1)
        return found[:, :n_steps] * self.sigma


def _variances(matrix: Tensor, readout: Tensor, enter: Tensor, variance: Tensor) -> Tensor:
    """Return the variance of y at every step, (T, runs, H): P <- M P M' + L v L'."""
    spread = torch.zeros_like(matrix)
    found = []
    for now in variance:
        spread = matrix @ spread @ matrix.mT + (enter * now[..., None, :]) @ enter.mT
        found.append(((readout[..., None, :] @ spread)[..., 0, :] * readout).sum(dim=(-1, -2)))
    return torch.stack(found)


def response_spectrum(
    matrix: Tensor, readout: Tensor, enter: Tensor, variance: Tensor, n_steps: int
) -> Tensor:
    """Return the power spectrum of y = c x, x <- M x + L n, for white n: (runs, H, T + 1).

    Shapes as of `StateErrors`, variance (runs, H, M, k). S = sum over modes and inputs of
    v |c (1 - M z)^-1 L|^2 with z = r exp(-i w); r < 1 only where a mode remembers more steps than
    a sequence has: |dA| then counts as exp(-2/T).
    """
    angle = torch.linspace(0.0, torch.pi, n_steps + 1, device=matrix.device)
    turn = torch.polar(torch.ones_like(angle), -angle)
    longest = float(np.exp(-2.0 / n_steps))
    total = torch.zeros((*matrix.shape[:2], n_steps + 1), device=matrix.device)
    for mode in range(matrix.shape[2]):
        (a, b), (c, d) = ([each[..., None] for each in row.unbind(-1)]
                          for row in matrix[:, :, mode].unbind(-2))
        size = torch.linalg.det(matrix[:, :, mode])[..., None].abs().sqrt()  # of the poles
        z = longest / size.clamp(min=longest) * turn
        c0, c1 = (each[..., None] for each in readout[:, :, mode].unbind(-1))
        below = 1 - (a + d) * z + (a * d - b * c) * z * z
        first, second = (c0 * (1 - d * z) + c1 * c * z), (c0 * b * z + c1 * (1 - a * z))
        for k in range(enter.shape[-1]):
            to_p, to_q = (each[..., None] for each in enter[:, :, mode, :, k].unbind(-1))
            gain = ((first * to_p + second * to_q) / below).abs()
            total += variance[:, :, mode, k, None] * gain**2
    return total


def _step(largest: Tensor, limit: Tensor, shift: bool) -> Tensor:
    """Return the step of converters with codes up to `limit` over `largest`; 0 of ideal ones."""
    if shift:
        full = power_of_two_above(largest.clamp(min=_LEAST), -60)
        codes = torch.where(limit > 1, limit + 1, limit)
    else:
        full, codes = largest, limit
    return torch.where(limit > 0, full / codes.clamp(min=1.0), torch.zeros_like(full))
