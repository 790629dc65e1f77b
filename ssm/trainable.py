"""Several S4D classifiers of one shape, trained side by side as the chip will run them.

A `Trainable` starts from models, holds their parameters with a leading axis of runs (seeds,
precisions or chips that differ), and computes what the deployed network computes: rounded
weights and activations, the recurrence with its rounded state step by step, and fresh errors of
the cells in every batch. All of it is differentiable, rounding with straight-through gradients.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ssm.model import Layer, Model
from ssm.quantize import Precision
from ssm.recurrence import recur

_FLOAT = torch.float32


def fake_quantize(x: Tensor, step: Tensor, bits: int) -> Tensor:
    """Return x on the grid of `step`, clipped at 2^(bits - 1) - 1 steps.

    The gradient of x passes the rounding and stops at the clip; that of the step is of learned
    step size quantisation (Esser et al., doi:10.48550/arXiv.1902.08153).
    """
    limit = float(max(2 ** (bits - 1) - 1, 1))
    code = torch.clamp(x / step, -limit, limit)
    return (code + (torch.round(code) - code).detach()) * step


def quantize_weights(w: Tensor, bits: int | None, dim: int | tuple[int, ...]) -> Tensor:
    """Return w on a symmetric grid whose end is the largest magnitude along `dim`."""
    if bits is None:
        return w
    limit = max(2 ** (bits - 1) - 1, 1)
    step = w.detach().abs().amax(dim=dim, keepdim=True) / limit
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
    """Learned steps of a quantiser, positive by construction: exp of what is trained."""

    def __init__(self, shape: tuple[int, ...], bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.log = nn.Parameter(torch.zeros(shape))

    def set_range(self, largest: Tensor) -> None:
        """Let the grid end at `largest`, but nowhere below 2^-12 of the largest of all."""
        largest = largest.detach()
        least = largest.amax() * 2.0**-12
        largest = torch.clamp(largest, min=float(least) if float(least) > 0 else 1.0)
        with torch.no_grad():
            self.log.copy_(torch.log(largest / max(2 ** (self.bits - 1) - 1, 1)))

    def forward(self) -> Tensor:
        """Return the steps."""
        return torch.exp(self.log)


class TrainableLayer(nn.Module):
    """Parameters of one S4D layer of all runs, and its response."""

    def __init__(self, layers: Sequence[Layer], precision: Precision) -> None:
        super().__init__()
        self.precision = precision
        stack = _stack(layers)
        pole = stack("pole")
        rate = -np.log(np.abs(pole))
        gain = stack("mode_weight") * stack("drive")
        self.register_buffer("rate_start", _tensor(rate))
        self.register_buffer("gain", torch.view_as_real(torch.as_tensor(gain)).to(_FLOAT))
        # as trained: ln of the decay relative to the start, and phase in units of its start
        self.log_rate = nn.Parameter(torch.zeros(rate.shape))
        self.frequency = nn.Parameter(_tensor(np.angle(pole) / (2 * rate)))
        self.readout = nn.Parameter(
            torch.view_as_real(torch.as_tensor(stack("readout"))).to(_FLOAT)
        )
        self.skip = nn.Parameter(_tensor(stack("skip")))
        self.mix_weight = nn.Parameter(_tensor(stack("mix_weight")))
        self.mix_bias = nn.Parameter(_tensor(stack("mix_bias")))
        self.norm_scale = nn.Parameter(_tensor(stack("norm_scale")))
        self.norm_shift = nn.Parameter(_tensor(stack("norm_shift")))
        runs = pole.shape[0]
        if precision.state is not None:
            self.state_step = Step((*pole.shape, 2), precision.state)
        if precision.act is not None:
            self.skip_step = Step((runs, 1), precision.act)
            self.mix_step = Step((runs, 1), precision.act)

    def kernel_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of A, which want a slower learning rate."""
        return [self.log_rate, self.frequency]

    def poles(self) -> tuple[Tensor, Tensor]:
        """Return decay ln 1/|dA| and phase of dA, (runs, H, M), on their grids."""
        log_rate = torch.log(self.rate_start) + self.log_rate
        phase = 2 * self.rate_start * self.frequency
        bits = self.precision.a
        return torch.exp(round_range(log_rate, bits)), round_range(phase, bits)

    def gains(self) -> Tensor:
        """Return the folded readout G = mode_weight dB C, (runs, H, M, 2), on its grid."""
        a, b = self.readout.unbind(-1)
        c, d = self.gain.unbind(-1)
        return quantize_weights(
            torch.stack([a * c - b * d, a * d + b * c], dim=-1), self.precision.c, dim=(-1, -2)
        )

    def system(self) -> tuple[Tensor, Tensor]:
        """Return the 2 x 2 step matrices (runs, H, M, 2, 2) and readout (runs, H, M, 2)."""
        rate, phase = self.poles()
        size = torch.exp(-rate)
        re, im = size * torch.cos(phase), size * torch.sin(phase)
        rows = [torch.stack([re, -im], dim=-1), torch.stack([im, re], dim=-1)]
        gain = self.gains()
        return torch.stack(rows, dim=-2), torch.stack([gain[..., 0], -gain[..., 1]], dim=-1)

    def respond(self, u: Tensor) -> Tensor:
        """Return the heads' outputs (B, T, runs, H) for their inputs u of that shape."""
        matrix, readout = self.system()
        bits = self.precision.state
        step = None if bits is None else self.state_step().flatten(0, 1)
        y = recur(u.flatten(2), matrix.flatten(0, 1), readout.flatten(0, 1), step, bits)
        driven = u
        if self.precision.act is not None:
            driven = fake_quantize(u, self.skip_step(), self.precision.act)
        skip = quantize_weights(self.skip, self.precision.d, dim=-1)
        return y.unflatten(2, u.shape[2:]) + driven * skip

    def mix(self, y: Tensor) -> Tensor:
        """Return GELU, mixing and gate of the heads' outputs, (B, T, runs, H)."""
        y = functional.gelu(y)
        if self.precision.act is not None:
            y = fake_quantize(y, self.mix_step(), self.precision.act)
        weight = quantize_weights(self.mix_weight, self.precision.mix, dim=1)
        return functional.glu(torch.einsum("btrh,rhk->btrk", y, weight) + self.mix_bias, dim=-1)


class Trainable(nn.Module):
    """Models of one shape as one module; `forward` gives logits (B, runs, classes)."""

    def __init__(self, models: Sequence[Model], precision: Precision | None = None) -> None:
        super().__init__()
        precision = precision or Precision()
        self.start, self.precision = tuple(models), precision
        self.norm, self.pool = models[0].norm, models[0].pool
        self.norm_epsilon = models[0].norm_epsilon
        stack = _stack(models)
        self.encoder_weight = nn.Parameter(_tensor(stack("encoder_weight")))
        self.encoder_bias = nn.Parameter(_tensor(stack("encoder_bias")))
        self.decoder_weight = nn.Parameter(_tensor(stack("decoder_weight")))
        self.decoder_bias = nn.Parameter(_tensor(stack("decoder_bias")))
        self.layers = nn.ModuleList(
            TrainableLayer([model.layers[k] for model in models], precision)
            for k in range(models[0].n_layers)
        )
        if precision.act is not None:
            self.input_step = Step((len(models), 1), precision.act)
            self.decode_step = Step((len(models), 1), precision.act)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, runs, classes) for x (B, T, d_input)."""
        p = self.precision
        x = x[:, :, None, :]
        if p.act is not None:
            x = fake_quantize(x, self.input_step(), p.act)
        weight = quantize_weights(self.encoder_weight, p.enc, dim=1)
        x = x.expand(-1, -1, weight.shape[0], -1)
        h = torch.einsum("btri,rih->btrh", x, weight) + self.encoder_bias
        for layer in self.layers:
            assert isinstance(layer, TrainableLayer)
            u = self._normalise(layer, h) if self.norm == "pre" else h
            h = h + layer.mix(layer.respond(u))
            h = self._normalise(layer, h) if self.norm == "post" else h
        h = h.mean(dim=1) if self.pool == "mean" else h[:, -1]
        if p.act is not None:
            h = fake_quantize(h, self.decode_step(), p.act)
        weight = quantize_weights(self.decoder_weight, p.dec, dim=1)
        return torch.einsum("brh,rhc->brc", h, weight) + self.decoder_bias

    def _normalise(self, layer: TrainableLayer, h: Tensor) -> Tensor:
        h = functional.layer_norm(h, h.shape[-1:], eps=self.norm_epsilon)
        return h * layer.norm_scale + layer.norm_shift

    @torch.no_grad()
    def calibrate(self, x: Tensor, share: float = 1.0) -> None:
        """Set the ranges of all learned quantisers from what the unrounded network shows on x.

        share : quantile of the magnitudes that a grid covers; 1 for the largest.
        """
        p = self.precision
        if p.act is not None:
            self.input_step.set_range(x.abs().amax().expand_as(self.input_step.log))
        x = x[:, :, None, :].expand(-1, -1, self.encoder_weight.shape[0], -1)
        h = torch.einsum("btri,rih->btrh", x, self.encoder_weight) + self.encoder_bias
        for layer in self.layers:
            assert isinstance(layer, TrainableLayer)
            u = self._normalise(layer, h) if self.norm == "pre" else h
            matrix, readout = layer.system()
            if p.state is not None:
                layer.state_step.set_range(_largest_states(u, matrix))
            y = recur(u.flatten(2), matrix.flatten(0, 1), readout.flatten(0, 1))
            y = y.unflatten(2, u.shape[2:]) + u * layer.skip
            if p.act is not None:
                layer.skip_step.set_range(_largest(u, share))
                layer.mix_step.set_range(_largest(functional.gelu(y), share))
            mixed = torch.einsum("btrh,rhk->btrk", functional.gelu(y), layer.mix_weight)
            h = h + functional.glu(mixed + layer.mix_bias, dim=-1)
            h = self._normalise(layer, h) if self.norm == "post" else h
        if p.act is not None:
            pooled = h.mean(dim=1) if self.pool == "mean" else h[:, -1]
            self.decode_step.set_range(_largest(pooled[:, None], share))

    def kernel_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of A of all layers."""
        return [p for layer in self.layers for p in layer.kernel_parameters()]  # type: ignore[operator]


def _largest(x: Tensor, share: float) -> Tensor:
    """Return the `share` quantile of |x| (B, T, runs, H) of every run, (runs, 1)."""
    flat = x.abs().transpose(0, 2).flatten(1)
    if share >= 1.0:
        return flat.amax(dim=1, keepdim=True)
    k = max(1, math.ceil(share * flat.shape[1]))
    return flat.kthvalue(k, dim=1, keepdim=True).values


def _largest_states(u: Tensor, matrix: Tensor) -> Tensor:
    """Return the largest magnitude of every state, (runs, H, M, 2), for inputs (B, T, runs, H)."""
    x = torch.zeros((u.shape[0], *matrix.shape[:-1]), dtype=u.dtype, device=u.device)
    most = torch.zeros_like(x[0])
    for t in range(u.shape[1]):
        x = torch.einsum("rhmij,brhmj->brhmi", matrix, x)
        x[..., 0] += u[:, t, :, :, None]
        most = torch.maximum(most, x.abs().amax(dim=0))
    return most


def _tensor(x: np.ndarray) -> Tensor:
    return torch.as_tensor(np.ascontiguousarray(x)).to(_FLOAT)


class _Stack:
    def __init__(self, parts: Sequence[object]) -> None:
        self.parts = parts

    def __call__(self, name: str) -> np.ndarray:
        return np.stack([getattr(part, name) for part in self.parts])


def _stack(parts: Sequence[object]) -> _Stack:
    return _Stack(parts)
