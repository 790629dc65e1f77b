"""The exact recurrence with a rounded state as a differentiable torch operation.

What the chip's digital state register does, step by step: compiled on the CPU, one fused kernel
on an NVIDIA GPU, and a plain torch loop that both are checked against.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


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
        drive = torch.nn.functional.pad(u[:, t, :, None, None], (0, 1)).expand_as(x)
        x = torch.einsum("hmij,bhmj->bhmi", matrix, x) + drive
        if limit > 0:
            code = torch.clamp(x / step, -limit, limit)
            x = (code + (torch.round(code) - code).detach()) * step
        y.append((readout * x).sum((-1, -2)))
    return torch.stack(y, dim=1)


def _limit(bits: int | None, step: Tensor | None, like: Tensor) -> tuple[float, Tensor]:
    if step is None or bits is None:
        return 0.0, torch.ones_like(like)
    return float(max(2 ** (bits - 1) - 1, 1)), step


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
            y, *kept = _forward_on_cpu(u, planes, limit)
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


def _forward_on_cpu(u: Tensor, planes: list[Tensor], limit: float) -> tuple[Tensor, Tensor, Tensor]:
    from ssm.kernels import training

    y = torch.empty_like(u)
    kept = [torch.empty((*u.shape, planes[0].shape[1]), dtype=u.dtype) for _ in range(2)]
    arrays = [x.detach().numpy() for x in (u, *planes)]
    training.recur_forward(
        *arrays, arrays[0].dtype.type(limit), y.numpy(), *(x.numpy() for x in kept)
    )
    return y, kept[0], kept[1]


def _backward_on_cpu(
    u: Tensor, planes: list[Tensor], limit: float, kept: tuple[Tensor, Tensor], grad_y: Tensor
) -> tuple[Tensor, Tensor]:
    from ssm.kernels import training

    grad_u = torch.empty_like(u)
    grads = torch.empty((8, u.shape[0], u.shape[2], planes[0].shape[1]), dtype=u.dtype)
    arrays = [x.detach().numpy() for x in (u, *planes)]
    given = [x.detach().numpy() for x in (*kept, grad_y)]
    training.recur_backward(
        *arrays, arrays[0].dtype.type(limit), *given, grad_u.numpy(), grads.numpy()
    )
    return grad_u, grads.sum(dim=1)
