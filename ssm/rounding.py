"""Rounding with gradients: the quantisers that training sees, as torch operations."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_LEAST_SHARE = 2.0**-12  # of the largest range: a signal that never moved needs some range


def largest_code(bits: int) -> float:
    """Return the last code of a symmetric grid, 2^(bits - 1) - 1."""
    return float(max(2 ** (bits - 1) - 1, 1))


def fake_quantize(x: Tensor, step: Tensor, bits: int) -> Tensor:
    """Return x on the grid of `step`, clipped at 2^(bits - 1) - 1 steps.

    The gradient of x passes the rounding and stops at the clip; that of the step is of learned
    step size quantisation (Esser et al., doi:10.48550/arXiv.1902.08153).
    """
    limit = largest_code(bits)
    code = torch.clamp(x / step, -limit, limit)
    return (code + (torch.round(code) - code).detach()) * step


def quantize_weights(w: Tensor, bits: int | None, dim: int | tuple[int, ...]) -> Tensor:
    """Return w on a symmetric grid whose end is the largest magnitude along `dim`."""
    if bits is None:
        return w
    step = w.detach().abs().amax(dim=dim, keepdim=True) / largest_code(bits)
    return fake_quantize(w, torch.where(step > 0, step, torch.ones_like(step)), bits)


def round_range(x: Tensor, bits: int | None) -> Tensor:
    """Return x (..., M) on 2^bits levels from the smallest to the largest along the last axis."""
    if bits is None:
        return x
    low = x.detach().amin(dim=-1, keepdim=True)
    step = (x.detach().amax(dim=-1, keepdim=True) - low) / (2**bits - 1)
    step = torch.where(step > 0, step, torch.ones_like(step))
    code = (x - low) / step
    return low + (code + (torch.round(code) - code).detach()) * step


class Step(nn.Module):
    """Learned steps of a quantiser: the ln of its range is trained, so that steps stay positive.

    A range outlives a change of its bits, which schedules make.
    """

    def __init__(self, shape: tuple[int, ...], bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.log_range = nn.Parameter(torch.zeros(shape))

    @torch.no_grad()
    def set_range(self, largest: Tensor) -> None:
        """Let the grid end at `largest`, but nowhere below 2^-12 of the largest of all."""
        least = float(largest.amax()) * _LEAST_SHARE
        self.log_range.copy_(torch.log(torch.clamp(largest, min=least if least > 0 else 1.0)))

    def forward(self) -> Tensor:
        """Return the steps."""
        return torch.exp(self.log_range) / largest_code(self.bits)

    def quantize(self, x: Tensor) -> Tensor:
        """Return x on the grid as it is."""
        return fake_quantize(x, self(), self.bits)
