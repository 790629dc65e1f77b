"""Modes of A as 2 x 2 systems of two real states, as tensors: what training steps through."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def matrix_of(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """Return the matrices [[a, b], [c, d]], (..., 2, 2)."""
    rows = [torch.stack([a, b], dim=-1), torch.stack([c, d], dim=-1)]
    return torch.stack(rows, dim=-2)


def folded(phase: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return which angles lie below zero, which beyond a right angle, and theta in 0 .. pi/2."""
    phase = torch.remainder(phase + math.pi, 2 * math.pi) - math.pi
    size = phase.abs()
    behind = size > math.pi / 2
    return phase < 0, behind, torch.where(behind, math.pi - size, size)


def leapfrog_cells(rate: Tensor, behind: Tensor, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return e = 2 sin(theta/2), d = 1 - |dA| and the sign of the leapfrog form (`ssm.forms`).

    rate : ln 1/|dA|. behind, theta : of `folded`.
    """
    sign = 1.0 - 2.0 * behind.to(theta.dtype)
    return 2 * torch.sin(theta / 2), -torch.expm1(-rate), sign


def seen_states(u: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest magnitude of every state, (runs, H, M, 2), and its mean square at every
    step, (T, runs, H, M, 2), for inputs (B, T, runs, H) and matrices (runs, H, M, 2, 2).

    x_k = matrix x_(k-1) + (u_k, 0) without rounding, as in `ssm.recurrence`.
    """
    x = torch.zeros((u.shape[0], *matrix.shape[:-1]), dtype=u.dtype, device=u.device)
    most, squares = torch.zeros_like(x[0]), []
    for t in range(u.shape[1]):
        x = torch.einsum("rhmij,brhmj->brhmi", matrix, x)
        x[..., 0] += u[:, t, :, :, None]
        most = torch.maximum(most, x.abs().amax(dim=0))
        squares.append(x.square().mean(dim=0))
    return most, torch.stack(squares)
