"""Foreign checkpoints with random weights, and an independent reference that runs them.

The reference takes the other road than ssm.model: the kernel of every head as a Vandermonde
product, convolution by FFT, torch in float64. Formulas: Gu et al., S4D
(doi:10.48550/arXiv.2206.11893) and github.com/state-spaces/s4.
"""

from __future__ import annotations

import math

import torch

State = dict[str, torch.Tensor]


def s4d_state(
    seed: int = 0, *, n_heads: int = 6, n_modes: int = 4, n_layers: int = 2, d_input: int = 3,
    n_classes: int = 5,
) -> State:
    """Return the state dict of example.py's S4Model with standalone S4D layers, in float32."""
    generator = torch.Generator().manual_seed(seed)
    state = _ends(generator, n_heads, d_input, n_classes)
    for index in range(n_layers):
        layer = f"s4_layers.{index}."
        state[layer + "D"] = _normal(generator, n_heads)
        state[layer + "kernel.C"] = _normal(generator, n_heads, n_modes, 2)
        state[layer + "kernel.log_dt"] = _log_dt(generator, n_heads)
        state[layer + "kernel.log_A_real"] = -0.7 + 0.3 * _normal(generator, n_heads, n_modes)
        state[layer + "kernel.A_imag"] = _frequencies(generator, n_heads, n_modes)
        state[layer + "output_linear.0.weight"] = 0.4 * _normal(generator, 2 * n_heads, n_heads, 1)
        state[layer + "output_linear.0.bias"] = 0.1 * _normal(generator, 2 * n_heads)
        _add_norm(state, generator, index, n_heads)
    return state


def s4block_state(
    seed: int = 0, *, n_heads: int = 6, n_modes: int = 4, n_layers: int = 2, d_input: int = 3,
    n_classes: int = 5, n_ssm: int = 2, norms: bool = True,
) -> State:
    """Return the state dict of S4Model with S4Block(mode='diag', n_ssm=n_ssm) layers."""
    generator = torch.Generator().manual_seed(seed)
    state = _ends(generator, n_heads, d_input, n_classes)
    for index in range(n_layers):
        layer = f"s4_layers.{index}."
        kernel = layer + "layer.kernel."
        state[layer + "layer.D"] = _normal(generator, 1, n_heads)
        state[kernel + "inv_dt"] = _log_dt(generator, n_heads, 1)
        state[kernel + "A_real"] = -0.7 + 0.3 * _normal(generator, n_ssm, n_modes)
        state[kernel + "A_imag"] = _frequencies(generator, n_ssm, n_modes)
        state[kernel + "B"] = _normal(generator, 1, n_ssm, n_modes, 2)
        state[kernel + "C"] = _normal(generator, 1, n_heads, n_modes, 2)
        state[layer + "output_linear.0.weight"] = 0.4 * _normal(generator, 2 * n_heads, n_heads)
        state[layer + "output_linear.0.bias"] = 0.1 * _normal(generator, 2 * n_heads)
        if norms:
            _add_norm(state, generator, index, n_heads)
    return state


def with_batch_norm(state: State, seed: int = 1) -> State:
    """Return the state dict as a model with BatchNorm1d instead of LayerNorm has it."""
    generator = torch.Generator().manual_seed(seed)
    state = dict(state)
    for index in range(len([key for key in state if key.endswith("kernel.C")])):
        n_heads = len(state[f"norms.{index}.weight"])
        state[f"norms.{index}.running_mean"] = _normal(generator, n_heads)
        state[f"norms.{index}.running_var"] = 0.5 + _normal(generator, n_heads) ** 2
        state[f"norms.{index}.num_batches_tracked"] = torch.tensor(7)
    return state


def reference_logits(state: State, x: torch.Tensor, *, norm: str, disc: str, pool: str
                     ) -> torch.Tensor:
    """Return (n, n_classes) in float64 of the original classes' forward in evaluation mode."""
    state = {key: value.double() for key, value in state.items()}
    h = x.double() @ state["encoder.weight"].T + state["encoder.bias"]
    for index in range(len([key for key in state if key.endswith("kernel.C")])):
        y = _block(state, f"s4_layers.{index}.", _norm(state, index, h) if norm == "pre" else h,
                   disc)
        h = h + y
        if norm == "post":
            h = _norm(state, index, h)
    pooled = h.mean(1) if pool == "mean" else h[:, -1]
    return pooled @ state["decoder.weight"].T + state["decoder.bias"]


def _normal(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=generator)


def _log_dt(generator: torch.Generator, *shape: int) -> torch.Tensor:
    uniform = torch.rand(*shape, generator=generator)
    return uniform * (math.log(0.1) - math.log(0.001)) + math.log(0.001)


def _frequencies(generator: torch.Generator, n_rows: int, n_modes: int) -> torch.Tensor:
    return math.pi * torch.arange(n_modes) + 0.1 * _normal(generator, n_rows, n_modes)


def _ends(generator: torch.Generator, n_heads: int, d_input: int, n_classes: int) -> State:
    return {
        "encoder.weight": _normal(generator, n_heads, d_input),
        "encoder.bias": _normal(generator, n_heads),
        "decoder.weight": _normal(generator, n_classes, n_heads),
        "decoder.bias": _normal(generator, n_classes),
    }


def _add_norm(state: State, generator: torch.Generator, index: int, n_heads: int) -> None:
    state[f"norms.{index}.weight"] = 1 + 0.2 * _normal(generator, n_heads)
    state[f"norms.{index}.bias"] = 0.2 * _normal(generator, n_heads)


def _norm(state: State, index: int, h: torch.Tensor) -> torch.Tensor:
    weight, bias = state[f"norms.{index}.weight"], state[f"norms.{index}.bias"]
    if f"norms.{index}.running_var" in state:
        mean, var = state[f"norms.{index}.running_mean"], state[f"norms.{index}.running_var"]
        h = torch.nn.functional.batch_norm(h.transpose(1, 2), mean, var, weight, bias)
        return h.transpose(1, 2)
    return torch.nn.functional.layer_norm(h, weight.shape, weight, bias)


def _kernel(state: State, layer: str, disc: str, n_steps: int) -> torch.Tensor:
    """Return (H, n_steps): K_l = 2 Re(sum_m C B dA^l) with the gain of the rule folded in."""
    if layer + "kernel.log_dt" in state:
        c = torch.view_as_complex(state[layer + "kernel.C"])
        a = torch.complex(-state[layer + "kernel.log_A_real"].exp(), state[layer + "kernel.A_imag"])
        dt = state[layer + "kernel.log_dt"].exp()[:, None]
    else:
        kernel = layer + "layer.kernel."
        c = torch.view_as_complex(state[kernel + "C"])[0]
        rows = torch.arange(len(c)) % len(state[kernel + "A_real"])
        a = torch.complex(-state[kernel + "A_real"].exp(), -state[kernel + "A_imag"])[rows]
        c = c * torch.view_as_complex(state[kernel + "B"])[0][rows]
        dt = state[kernel + "inv_dt"].exp()
    if disc == "zoh":
        power, c = a * dt, c * ((a * dt).exp() - 1) / a
    else:
        power, c = ((1 + a * dt / 2) / (1 - a * dt / 2)).log(), c * dt / (1 - a * dt / 2)
    vandermonde = (power[:, :, None] * torch.arange(n_steps)).exp()
    return 2 * torch.einsum("hm,hml->hl", c, vandermonde).real


def _block(state: State, layer: str, h: torch.Tensor, disc: str) -> torch.Tensor:
    u = h.transpose(1, 2)
    n_steps = u.shape[-1]
    kernel_f = torch.fft.rfft(_kernel(state, layer, disc, n_steps), n=2 * n_steps)
    y = torch.fft.irfft(torch.fft.rfft(u, n=2 * n_steps) * kernel_f, n=2 * n_steps)[..., :n_steps]
    skip = state[layer + "D"] if layer + "D" in state else state[layer + "layer.D"][0]
    y = torch.nn.functional.gelu(y + skip[:, None] * u).transpose(1, 2)
    weight = state[layer + "output_linear.0.weight"]
    mixed = y @ weight.reshape(len(weight), -1).T + state[layer + "output_linear.0.bias"]
    return torch.nn.functional.glu(mixed, dim=-1)
