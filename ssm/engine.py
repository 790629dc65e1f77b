"""Which engine runs the sequences: compiled code on the CPU, or kernels on an NVIDIA GPU.

Both draw the same random words and take the same float32 steps; sums over rows and heads are
ordered differently, so that a conversion on a rounding edge may fall to the other side.
"""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from aimc_sim.errors import UsageError
from ssm.kernels.network import A_PRODUCT, C_PRODUCT, PER_LAYER

if TYPE_CHECKING:
    from ssm.deploy import Deployment

ENGINES = ("cpu", "cuda", "auto")
_LEAST_CAPABILITY = (8, 0)  # minima and maxima that keep NaN


def choose_engine(asked: str, d: Deployment, *, traced: bool = False) -> str:
    """Return "cpu" or "cuda", and warn in one line where a GPU was meant and the CPU runs.

    Parameters
    ----------
    asked : "cpu"; "cuda"; or "auto": the GPU where there is one.
    traced : states or signals of every step are asked for.

    Raises UsageError for another engine.
    """
    if asked not in ENGINES:
        raise UsageError(
            f"run on engine '{asked}'", "it is unknown", f"choose one of {', '.join(ENGINES)}"
        )
    if asked == "cpu":
        return "cpu"
    reason = missing_gpu()
    if reason is not None and asked == "auto":
        return "cpu"  # nobody meant a GPU
    reason = reason or not_covered(d, traced=traced)
    if reason is None:
        return "cuda"
    warnings.warn(f"the CPU runs this instead of a GPU: {reason}", stacklevel=3)
    return "cpu"


def missing_gpu() -> str | None:
    """Return why no GPU can run anything here, or None."""
    if find_spec("triton") is None:
        return "triton is not installed, which comes with torch where it is built for CUDA"
    import torch

    if not torch.cuda.is_available():
        return "torch finds no NVIDIA GPU"
    if torch.cuda.get_device_capability() < _LEAST_CAPABILITY:
        return "the GPU is older than compute capability 8.0"
    return None


def not_covered(d: Deployment, *, traced: bool = False) -> str | None:
    """Return what of a deployment the GPU's kernels do not do, or None."""
    network, spec = d.network, d.spec
    a = np.arange(1, network.analog.size - 1).reshape(-1, PER_LAYER)[:, A_PRODUCT:C_PRODUCT]
    c = a[:, 0] + C_PRODUCT - A_PRODUCT
    rows_of_c = 2 * np.diff(network.mode_first) // network.n_heads + 1
    in_use = network.analog[a] | (np.diff(network.weight_first)[a] == 0)
    noise = spec.device.read_noise
    if traced:
        return "states or signals of every step are asked for"
    if network.group_a > 1 or network.group_c > 1:
        return "idle cells share rows and columns with those in use"
    if (rows_of_c > network.part_rows[c]).any():
        return "columns of C are longer than a tile"
    if (in_use.any(axis=1) != in_use.all(axis=1)).any():
        return "a part of A is on tiles and a part in logic"
    if (d.converters.planes > 1).any():
        return "inputs go to the rows bit by bit"
    if spec.noise_in_time == "spectrum" and noise is not None and noise.spectrum != "white":
        return "read noise moves with the steps (noise_in_time = 'spectrum')"
    if spec.device.telegraph is not None:
        return "cells have telegraph noise"
    if spec.dac.noise_lsb > 0 and spec.dac.bits != "ideal":
        return "drives are noisy"
    return None
