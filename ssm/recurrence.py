"""The exact recurrence with a rounded state as a differentiable torch operation.

What the chip's digital state register does, step by step: compiled on the CPU, one fused kernel
on an NVIDIA GPU, and a plain torch loop that both are checked against.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ssm.rounding import largest_code

_MOST_STATES = 1 << 23  # of a pass that keeps none: 32 MB in float32


def recur(
    u: Tensor, matrix: Tensor, readout: Tensor, step: Tensor | None = None, bits: int | None = None
) -> Tensor:
    """Return the heads' outputs y (B, T, H) of 2 x 2 systems with a rounded state.

    x_k = Q(matrix x_(k-1) + (u_k, 0)), y_k = sum over modes of readout . x_k, from x = 0, x the
    two real states of a mode. Q(v) = s round(clip(v/s, -L, L)), L = 2^(bits - 1) - 1. Every form
    of A is such a system: a complex pole a is [[Re a, -Im a], [Im a, Re a]] read by
    (Re G, -Im G), the leapfrog block its own matrix (`ssm.forms`). The input weight is 1, dB
    being folded into the readout.

    Gradients pass the rounding as if it were not there and stop where a state is clipped; the
    step learns as in learned step size quantisation (Esser et al.,
    doi:10.48550/arXiv.1902.08153).

    Parameters
    ----------
    u : (B, T, H). matrix : (H, M, 2, 2). readout : (H, M, 2). step : (H, M, 2), positive, or
        None for a state that is not rounded. bits : of the state, with `step`.

    Float32 on a GPU; float32 or float64 on the CPU.
    """
    limit, step = _limit(bits, step, readout)
    y: Tensor = _Recurrence.apply(u, matrix, readout, step, limit)
    return y


def recur_slowly(
    u: Tensor, matrix: Tensor, readout: Tensor, step: Tensor | None = None, bits: int | None = None
) -> Tensor:
    """Return what `recur` returns, by a plain torch loop over the steps: the oracle."""
    limit, step = _limit(bits, step, readout)
    x = torch.zeros((u.shape[0], *readout.shape), dtype=u.dtype, device=u.device)
    y = []
    for t in range(u.shape[1]):
        drive = functional.pad(u[:, t, :, None, None], (0, 1)).expand_as(x)
        x = torch.einsum("hmij,bhmj->bhmi", matrix, x) + drive
        if limit > 0:
            code = torch.clamp(x / step, -limit, limit)
            x = (code + (torch.round(code) - code).detach()) * step
        y.append((readout * x).sum((-1, -2)))
    return torch.stack(y, dim=1)


def _limit(bits: int | None, step: Tensor | None, like: Tensor) -> tuple[float, Tensor]:
    if step is None or bits is None:
        return 0.0, torch.ones_like(like)
    return largest_code(bits), step


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, u: Tensor, matrix: Tensor, readout: Tensor, step: Tensor, limit: float
    ) -> Tensor:
        parts = (matrix.flatten(-2), readout, step)
        planes = [plane.contiguous() for part in parts for plane in part.unbind(-1)]
        u = u.contiguous()
        keep = any(ctx.needs_input_grad)
        if u.is_cuda:
            from ssm import cuda

            y, *kept = cuda.forward(u, planes, limit, keep)
        else:
            y, *kept = _forward_on_cpu(u, planes, limit, keep)
        ctx.limit = limit
        if keep:
            ctx.save_for_backward(u, *planes, *kept)
        return y

    @staticmethod
    def backward(ctx: Any, *grads_out: Tensor) -> tuple[Tensor | None, ...]:
        u, *planes = ctx.saved_tensors
        planes, kept = planes[:8], (planes[8], planes[9])
        grad_y = grads_out[0].contiguous()
        if u.is_cuda:
            from ssm import cuda

            grad_u, grads = cuda.backward(u, planes, ctx.limit, kept, grad_y)
        else:
            grad_u, grads = _backward_on_cpu(u, planes, ctx.limit, kept, grad_y)
        grads = grads.movedim(0, -1)
        matrix = grads[..., :4].unflatten(-1, (2, 2))
        return grad_u, matrix, grads[..., 4:6], grads[..., 6:] if ctx.limit > 0 else None, None


def _forward_on_cpu(
    u: Tensor, planes: list[Tensor], limit: float, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return y, the states and the constants, the latter two as `ssm.kernels.training` has them.

    Without `keep` the states are left out, and their memory serves some sequences at a time.
    """
    from ssm.kernels import training

    n_modes = planes[0].shape[1]
    n_groups = -(-n_modes // training.LANES)
    constants = torch.stack([*planes, 1 / planes[6], 1 / planes[7]], dim=1).detach()
    constants = functional.pad(constants, (0, n_groups * training.LANES - n_modes))
    constants = constants.unflatten(2, (n_groups, training.LANES)).transpose(1, 2).contiguous()
    signal, y = u.detach().numpy(), torch.empty_like(u)
    n_batch, n_steps, n_heads = u.shape
    kind = signal.dtype.type
    one = n_heads * n_groups * (n_steps + 1) * 2 * training.LANES
    at_once = n_batch if keep else min(n_batch, max(1, _MOST_STATES // one))
    # numpy asks the system for large pages, torch does not: 5 x faster to touch for the first time
    kept = np.empty(at_once * one, kind)
    for begin in range(0, n_batch, at_once):
        rows = slice(begin, begin + at_once)
        training.recur_forward(
            signal[rows], constants.numpy(), kind(limit), kind(_magic(kind)), y.numpy()[rows], kept
        )
    return y, torch.from_numpy(kept if keep else kept[:0]), constants


def _magic(kind: type) -> float:
    """Return 1.5 * 2^23 for float32 and 1.5 * 2^52 for float64: added and taken off, it rounds."""
    return 1.5 * 2.0 ** (23 if kind is np.float32 else 52)


def _backward_on_cpu(
    u: Tensor, planes: list[Tensor], limit: float, kept: tuple[Tensor, Tensor], grad_y: Tensor
) -> tuple[Tensor, Tensor]:
    from ssm.kernels import training

    states, constants = kept
    grad_u = torch.empty_like(u)
    n_batch, _, n_heads = u.shape
    grads = torch.empty((n_batch, *constants.shape), dtype=u.dtype)
    signal = u.detach().numpy()
    training.recur_backward(
        signal, constants.numpy(), signal.dtype.type(limit or np.inf),
        states.numpy(), grad_y.numpy(), grad_u.numpy(), grads.numpy(),
    )
    planewise = grads.sum(dim=0)[:, :, :8].transpose(1, 2).flatten(2)
    return grad_u, planewise[:, :, : planes[0].shape[1]].transpose(0, 1)
