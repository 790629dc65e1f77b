"""Torch modules of an S4D classifier in convolution mode, for training.

The layer is S4D of Gu et al., "On the Parameterization and Initialization of Diagonal
State Space Models", NeurIPS 2022, doi:10.48550/arXiv.2206.11893, with B = 1 folded into C.
`ssm.model.Model` runs the same network as a recurrence.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from aimc_sim.errors import UsageError

NORMS = ("pre", "post", "none")


def perturb(weight: Tensor, noise: float, dim: int) -> Tensor:
    """Return `weight` + noise * max|weight| * N(0, 1), the maximum taken along `dim`.

    A Gaussian error proportional to the scale of a column is what programming analog cells
    leaves; the gradient passes as if there were none. noise = 0 returns `weight` itself.
    """
    if noise == 0.0:
        return weight
    scale = weight.detach().abs().amax(dim=dim, keepdim=True)
    return weight + noise * scale * torch.randn_like(weight)


class S4D(nn.Module):
    """The linear part of an S4D layer: one diagonal state space per head.

    A = -exp(log_a_real) + i a_imag, dA = exp(dt A), dB = (dA - 1)/A (zero-order hold, B = 1);
    kernel K_l = 2 Re(sum_m C_m dB_m dA_m^l), output y = K * u + D u.

    Parameters
    ----------
    n_heads : H, independent state spaces.
    n_modes : M, complex modes per head, each standing for itself and its conjugate.
    dt_min, dt_max : bounds of the time steps drawn at the start, log-uniform.

    Start: A_m = -1/2 + i pi m (S4D-Lin), C complex normal, D normal.
    """

    def __init__(self, n_heads: int, n_modes: int, dt_min: float, dt_max: float) -> None:
        super().__init__()
        spread = math.log(dt_max) - math.log(dt_min)
        self.log_dt = nn.Parameter(torch.rand(n_heads) * spread + math.log(dt_min))
        self.log_a_real = nn.Parameter(torch.full((n_heads, n_modes), math.log(0.5)))
        self.a_imag = nn.Parameter(math.pi * torch.arange(float(n_modes)).repeat(n_heads, 1))
        self.readout = nn.Parameter(torch.randn(n_heads, n_modes, 2) * math.sqrt(0.5))
        self.skip = nn.Parameter(torch.randn(n_heads))

    def kernel_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of A and dt, which want a slower learning rate."""
        return [self.log_dt, self.log_a_real, self.a_imag]

    def discretise(self, noise: float = 0.0) -> tuple[Tensor, Tensor]:
        """Return log dA = dt A and dB = (dA - 1)/A, both (H, M) complex.

        noise : relative error of each decay rate and each frequency, a fraction.
        """
        decay = torch.exp(self.log_a_real)
        frequency: Tensor = self.a_imag
        if noise > 0.0:
            decay = decay * torch.exp(noise * torch.randn_like(decay))
            frequency = frequency * (1.0 + noise * torch.randn_like(frequency))
        a = torch.complex(-decay, frequency)
        log_pole = torch.exp(self.log_dt)[:, None] * a
        return log_pole, (torch.exp(log_pole) - 1.0) / a

    def kernel(self, n_steps: int, noise: float = 0.0) -> Tensor:
        """Return the impulse response K, (H, n_steps), without the skip D."""
        log_pole, drive = self.discretise(noise)
        readout = torch.view_as_complex(perturb(self.readout, noise, dim=1).contiguous())
        steps = torch.arange(n_steps, device=log_pole.device, dtype=self.log_dt.dtype)
        powers = torch.exp(log_pole[:, :, None] * steps)
        return 2.0 * torch.einsum("hm,hml->hl", readout * drive, powers).real

    def forward(self, u: Tensor, noise: float = 0.0) -> Tensor:
        """Return y (batch, time, H) for input u (batch, time, H), by FFT."""
        n_steps = u.shape[1]
        kernel = self.kernel(n_steps, noise)
        spectrum = torch.fft.rfft(u, n=2 * n_steps, dim=1)
        response = torch.fft.rfft(kernel, n=2 * n_steps, dim=1).transpose(0, 1)
        y = torch.fft.irfft(spectrum * response, n=2 * n_steps, dim=1)[:, :n_steps]
        return y + u * self.skip


class Linear(nn.Module):
    """y = x @ (w + error) + b with w (n_in, n_out) and an error per column while training."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        bound = 1.0 / math.sqrt(n_in)
        self.weight = nn.Parameter(torch.empty(n_in, n_out).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(n_out).uniform_(-bound, bound))

    def forward(self, x: Tensor, noise: float = 0.0) -> Tensor:
        """Return y (..., n_out) for x (..., n_in)."""
        return x @ perturb(self.weight, noise, dim=0) + self.bias


class Block(nn.Module):
    """One layer: S4D, exact GELU, mixing H -> 2H, gated linear unit, residual, LayerNorm.

    post: h <- norm(h + glu(gelu(s4d(h)) @ W + b)); pre: the norm comes before s4d instead;
    none: no norm. Dropout drops whole heads of a sequence, the same at every step.
    """

    def __init__(
        self, n_heads: int, n_modes: int, *, norm: str, dropout: float, dt_min: float, dt_max: float
    ) -> None:
        super().__init__()
        self.norm_position = norm
        self.s4d = S4D(n_heads, n_modes, dt_min, dt_max)
        self.mix = Linear(n_heads, 2 * n_heads)
        self.norm = nn.Identity() if norm == "none" else nn.LayerNorm(n_heads, eps=1e-5)
        self.dropout = nn.Dropout1d(dropout)

    def forward(self, h: Tensor, noise: float = 0.0) -> Tensor:
        """Return the layer's output (batch, time, H) for h (batch, time, H)."""
        u = self.norm(h) if self.norm_position == "pre" else h
        y = functional.gelu(self.s4d(u, noise))
        y = self.dropout(y.transpose(1, 2)).transpose(1, 2)
        h = h + functional.glu(self.mix(y, noise), dim=-1)
        return self.norm(h) if self.norm_position == "post" else h


class Classifier(nn.Module):
    """Encoder, S4D layers, mean over time, decoder.

    Parameters
    ----------
    d_input, n_classes : features per step and classes.
    n_heads : H, heads per layer.
    n_states : real states per head, two per complex mode: even.
    n_layers : number of layers.
    norm : "pre", "post" or "none".
    dropout : share of heads dropped in training, in [0, 1).
    weight_noise : relative error drawn anew for all weights in each training pass.
    dt_min, dt_max : bounds of the time steps at the start.

    Errors: UsageError where a number or the norm is out of range.
    """

    def __init__(
        self,
        d_input: int,
        n_classes: int,
        *,
        n_heads: int,
        n_states: int,
        n_layers: int,
        norm: str = "post",
        dropout: float = 0.0,
        weight_noise: float = 0.0,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
    ) -> None:
        super().__init__()
        sizes = {"d_input": d_input, "n_classes": n_classes, "n_heads": n_heads}
        for name, size in (sizes | {"n_layers": n_layers, "n_states": n_states}).items():
            if size < 1:
                raise UsageError(f"{name} = {size} was asked for", "it is below 1", "pass >= 1")
        if n_states % 2:
            raise UsageError(
                f"n_states = {n_states} real states per head were asked for",
                "a complex mode is two real states, so the number must be even",
                f"pass n_states={n_states + 1}",
            )
        if norm not in NORMS:
            raise UsageError(
                f"norm = {norm!r} was asked for",
                "no norm position has that name",
                f"choose one of: {', '.join(NORMS)}",
            )
        _check_fraction("dropout", dropout)
        _check_fraction("weight_noise", weight_noise)
        if not 0.0 < dt_min <= dt_max < math.inf:
            raise UsageError(
                f"time steps between dt_min = {dt_min} and dt_max = {dt_max} were asked for",
                "the bounds are not positive and in order",
                "pass 0 < dt_min <= dt_max",
            )
        self.norm_position = norm
        self.weight_noise = weight_noise
        self.encoder = Linear(d_input, n_heads)
        self.blocks = nn.ModuleList(
            Block(n_heads, n_states // 2, norm=norm, dropout=dropout, dt_min=dt_min, dt_max=dt_max)
            for _ in range(n_layers)
        )
        self.decoder = Linear(n_heads, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (batch, n_classes) for x (batch, time, d_input)."""
        noise = self.weight_noise if self.training else 0.0
        h = self.encoder(x, noise)
        for block in self.blocks:
            h = block(h, noise)
        return self.decoder(h.mean(dim=1), noise)


def _check_fraction(name: str, value: float) -> None:
    if not 0.0 <= value < 1.0:
        raise UsageError(
            f"{name} = {value} was asked for",
            "it is a fraction, at least 0 and below 1",
            f"pass {name}=0 to do without",
        )
