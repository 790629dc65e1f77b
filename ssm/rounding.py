"""Rounding with gradients: the quantisers that training sees, as torch operations."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ssm.grids import LEAST_SHARE, TERNARY_THRESHOLD, Grid, as_codes, round_bounded, round_poles
from ssm.poles import LARGEST
from ssm.schemes import Choice


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


def find_codes(
    w: Tensor, bits: int, dim: int | tuple[int, ...], choice: Choice, step: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return codes, scale and zero of weights: those of `ssm.grids.round_weights`.

    dim : axes that share a range. step : a learned one, for the method "lsq".
    """
    dims = (dim,) if isinstance(dim, int) else dim
    size = w.abs()
    if choice.method == "ternary":
        codes = torch.sign(w) * (size > TERNARY_THRESHOLD * size.mean(dims, keepdim=True))
        beyond = codes.abs().sum(dims, keepdim=True).clamp(min=1.0)
        scale = _positive((size * codes.abs()).sum(dims, keepdim=True) / beyond)
        return codes, scale, torch.zeros_like(scale)
    if choice.sides == "asymmetric":
        share = choice.percentile / 100 if choice.method == "percentile" else 1.0
        low = _quantile(w, 1 - share, dims).clamp(max=0.0)
        high = _quantile(w, share, dims).clamp(min=0.0)
        last = 2**bits - 1
        scale = _positive((high - low) / last)
        zero = torch.clamp(torch.round(-low / scale), 0, last)
        return torch.clamp(torch.round(w / scale) + zero, 0, last), scale, zero
    limit = largest_code(bits)
    if step is None and choice.per == "mode":
        most = size.amax(dims, keepdim=True)
        step = _positive(torch.exp2(torch.ceil(torch.log2(most))) / (limit + 1))
    elif step is None:
        share = choice.percentile / 100 if choice.method == "percentile" else 1.0
        step = _positive(_quantile(size, share, dims) / limit)
    return torch.clamp(torch.round(w / step), -limit, limit), step, torch.zeros_like(step)


def quantize_weights(
    w: Tensor, bits: int | None, dim: int | tuple[int, ...], choice: Choice | None = None,
    step: Tensor | None = None,
) -> Tensor:
    """Return w on its grid, by default a symmetric one with the largest magnitude at its end.

    The gradient passes the rounding as if it were not there, and stops where a range from a
    percentile or a learned step clips; ternary weights pass all of it.
    """
    choice = choice or Choice()
    if bits is None:
        return w
    if step is not None:
        return fake_quantize(w, step, bits)
    with torch.no_grad():
        codes, scale, zero = find_codes(w, bits, dim, choice)
        on_grid = (codes - zero) * scale
    if choice.method == "ternary":
        return w + (on_grid - w).detach()
    if choice.method == "min-max" and choice.sides == "symmetric" and choice.per != "mode":
        return fake_quantize(w, scale, bits)
    clipped = (on_grid - w).abs() > 0.5001 * scale
    return torch.where(clipped, on_grid, w + (on_grid - w).detach())


def weight_grid(
    w: Tensor, bits: int, dim: int | tuple[int, ...], choice: Choice, step: Tensor | None,
    run: int, form: str = "real",
) -> Grid:
    """Return the integers and scales of one run (first axis) of weights."""
    with torch.no_grad():
        parts = find_codes(w, bits, dim, choice, step)
    codes, scale, zero = (
        part.expand(len(w), *part.shape[1:])[run].cpu().double().numpy() for part in parts
    )
    return Grid(as_codes(codes), scale, zero, form)


def round_poles_through(
    rate: Tensor, phase: Tensor, bits: int, decay_bits: int | None, form: str, choice: Choice
) -> tuple[Tensor, Tensor, list[Grid]]:
    """Return ln 1/|dA| and angle of poles (runs, H, M) on their grids, and the grids.

    Found in float64 on the CPU by what rounds after training; gradients of ln rate and angle
    pass as if there were no rounding.
    """
    with torch.no_grad():
        sizes, angles = (x.detach().cpu().double().numpy() for x in (rate, phase))
        grids = [
            _pole_grid(size, angle, bits, decay_bits, form, choice)
            for size, angle in zip(sizes, angles, strict=True)
        ]
        on_grid = np.stack([grid.values() for grid in grids])
        slow = -np.log(np.maximum(np.abs(on_grid), 1e-30))
        # the angle nearest to the unrounded one: it may lie beyond +-pi
        turned = angles + np.angle(on_grid * np.exp(-1j * angles))
        turned = np.where(on_grid == 0, angles, turned)
        slow, turned = (torch.as_tensor(x).to(rate) for x in (slow, turned))
    log_rate = torch.log(rate)
    kept = torch.exp(log_rate + (torch.log(slow) - log_rate).detach())
    return kept, phase + (turned - phase).detach(), grids


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
        least = float(largest.amax()) * LEAST_SHARE
        self.log_range.copy_(torch.log(torch.clamp(largest, min=least if least > 0 else 1.0)))

    def forward(self) -> Tensor:
        """Return the steps."""
        return torch.exp(self.log_range) / largest_code(self.bits)

    def quantize(self, x: Tensor) -> Tensor:
        """Return x on the grid as it is."""
        return fake_quantize(x, self(), self.bits)


def step_for(shape: tuple[int, ...], bits: int | None) -> Step | None:
    """Return learned steps of that shape, None where nothing is rounded."""
    return None if bits is None else Step(shape, bits)


def learn_step(
    steps: nn.ModuleDict, name: str, w: Tensor, dims: tuple[int, ...], bits: int | None,
    choice: Choice,
) -> None:
    """Add the learned step of a weight where its method asks for one, at 2 mean |w|/sqrt(L)."""
    if bits is None or choice.method != "lsq":
        return
    size = w.detach().abs().mean(dims, keepdim=True)
    step = Step(tuple(size.shape), bits)
    step.set_range(2 * size * largest_code(bits) ** 0.5)
    steps[name] = step


def learned_step(steps: nn.ModuleDict, name: str) -> Tensor | None:
    """Return the learned step of a weight, or None."""
    return steps[name]() if name in steps else None


def _pole_grid(
    rate: np.ndarray, phase: np.ndarray, bits: int, decay_bits: int | None, form: str,
    choice: Choice,
) -> Grid:
    """Return the grid of poles (H, M) given by ln 1/|dA| and angle, none beyond LARGEST."""
    rate = np.maximum(rate, -np.log(LARGEST))
    if form in ("polar", "log-polar"):
        second = np.log(rate) if form == "log-polar" else np.exp(-rate)
        return round_bounded(
            np.stack([phase, second], axis=-1), None, bits, form, choice, decay_bits
        )
    return round_poles(np.exp(-rate + 1j * phase), bits, form, choice, decay_bits)[0]


def _quantile(x: Tensor, share: float, dims: tuple[int, ...]) -> Tensor:
    """Return the quantile over some axes, which stay with length 1."""
    if share in (0.0, 1.0):
        return x.amax(dims, keepdim=True) if share else x.amin(dims, keepdim=True)
    dims = tuple(sorted(d % x.dim() for d in dims))
    kept = [d for d in range(x.dim()) if d not in dims]
    flat = x.permute(*kept, *dims).flatten(len(kept))
    return torch.quantile(flat, share, dim=-1).reshape(
        [1 if d in dims else x.shape[d] for d in range(x.dim())]
    )


def _positive(scale: Tensor) -> Tensor:
    return torch.where(scale > 0, scale, torch.ones_like(scale))
