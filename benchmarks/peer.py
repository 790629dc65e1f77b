"""The same work in aihwkit, where it is installed and works.

aihwkit (doi 10.1109/AICAS51828.2021.9458494) computes on a tile in C++ or in torch. Its C++
tiles import but fail against some versions of torch, so a tile is built and used before
anything is timed.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np

from benchmarks.timing import Call

_RESOLUTION = 1 / 254  # 8 bits, symmetric: 255 codes from -1 to 1
# the C++ tile is the faster one where it works
_KINDS = (("C++", "InferenceRPUConfig"), ("torch", "TorchInferenceRPUConfig"))
_READ_NOISE = 0.01  # of the largest weight


@dataclass(frozen=True)
class Peer:
    """A call to time, and what to write beside the figure."""

    name: str
    call: Call


@cache
def _working_kind() -> tuple[str, type] | None:
    """Return name and configuration class of the fastest tile that works here, or None."""
    try:
        import torch

        linear = import_module("aihwkit.nn").AnalogLinear
        configs = import_module("aihwkit.simulator.configs")
    except Exception:  # a half-working install of a peer must not end our benchmarks
        return None
    x = torch.ones(3, 2)
    for name, config_name in _KINDS:
        try:
            config = getattr(configs, config_name)
            layer = linear(2, 2, bias=False, rpu_config=config()).eval()
            works = layer(x).shape == (3, 2)
        except Exception:
            works = False
        if works:
            return name, config
    return None


def describe() -> str:
    """Return which peer is compared with, or why none is."""
    kind = _working_kind()
    if kind is None:
        return "none, aihwkit is not installed or none of its tiles works here"
    from importlib.metadata import version

    return f"aihwkit {version('aihwkit')}, {kind[0]} tile, one thread"


def _layer(w: np.ndarray, config: type, *, noise: bool) -> Any:
    import torch

    parameters = import_module("aihwkit.simulator.parameters")
    rpu = config()
    rpu.forward = parameters.IOParameters(inp_res=_RESOLUTION, out_res=_RESOLUTION, out_noise=0.0)
    if noise:
        rpu.forward.w_noise = _READ_NOISE
        rpu.forward.w_noise_type = parameters.enums.WeightNoiseType.ADDITIVE_CONSTANT
    layer = import_module("aihwkit.nn").AnalogLinear(*w.shape, bias=False, rpu_config=rpu)
    layer.set_weights(torch.from_numpy(np.ascontiguousarray(w.T)))
    return layer.eval()


def product(w: np.ndarray, x: np.ndarray, *, noise: bool) -> Peer | None:
    """Return x (batch, n_in) @ w (n_in, n_out) with 8-bit converters, and noise, or None."""
    kind = _working_kind()
    if kind is None:
        return None
    import torch

    name, config = kind
    inputs = torch.from_numpy(x)
    try:
        layer = _layer(w, config, noise=noise)
        if noise:
            layer.program_analog_weights()
        with torch.no_grad():
            if noise and torch.equal(layer(inputs), layer(inputs)):
                return None  # the torch tile ignores read noise of the weights
    except Exception:
        return None

    def multiply() -> None:
        torch.set_num_threads(1)  # compiled kernels share OpenMP with torch and reset this
        with torch.no_grad():
            layer(inputs)

    return Peer(f"aihwkit {name}", multiply)


def recurrence(n_heads: int, n_states: int) -> Peer | None:
    """Return one step of an S4D layer, A of every head a tile of 2 x 2 blocks, or None.

    Tiles as its users would build them: for every head A (n_states x n_states) and C, then the
    mixing of all heads, all with 8-bit converters, and read noise where the tile has it. A in
    this direct form diverges in long runs, which changes no duration here: one step is timed.
    """
    kind = _working_kind()
    if kind is None:
        return None
    import torch

    name, config = kind
    rng = np.random.default_rng(0)
    noise = name == "C++"
    try:
        angle = rng.uniform(0, np.pi, (n_heads, n_states // 2))
        blocks = 0.99 * np.stack(
            [np.stack([np.cos(angle), -np.sin(angle)], -1),
             np.stack([np.sin(angle), np.cos(angle)], -1)], -2
        )
        a, c = [], []
        for head in range(n_heads):
            w = np.zeros((n_states, n_states), np.float32)
            for k, block in enumerate(blocks[head]):
                w[2 * k : 2 * k + 2, 2 * k : 2 * k + 2] = block
            a.append(_layer(w, config, noise=noise))
            readout = rng.standard_normal((n_states, 1)).astype(np.float32)
            c.append(_layer(readout, config, noise=noise))
        mix = _layer(
            rng.standard_normal((n_heads, 2 * n_heads)).astype(np.float32), config, noise=noise
        )
        states = [torch.rand(1, n_states) for _ in range(n_heads)]
    except Exception:
        return None

    def step() -> None:
        torch.set_num_threads(1)
        with torch.no_grad():
            y = [c[head](a[head](states[head])) for head in range(n_heads)]
            mix(torch.cat(y, dim=1))

    try:
        step()
    except Exception:
        return None
    return Peer(f"aihwkit {name}", step)


def programming(w: np.ndarray, wait_s: float) -> Peer | None:
    """Return programming w with PCM noise and drifting it for wait_s, or None."""
    kind = _working_kind()
    if kind is None:
        return None
    import torch

    name, config = kind
    try:
        layer = _layer(w, config, noise=False)

        def program() -> None:
            torch.set_num_threads(1)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                layer.program_analog_weights()
                layer.drift_analog_weights(wait_s)

        program()
    except Exception:
        return None
    return Peer(f"aihwkit {name}", program)
