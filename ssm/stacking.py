"""Arrays of several models as tensors with a leading axis of runs, and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor


def stack_of(parts: Sequence[object]) -> Callable[[str], np.ndarray]:
    """Return a function that stacks the arrays of one name of all parts, (runs, ...)."""
    return lambda name: np.stack([getattr(part, name) for part in parts])


def to_tensor(x: np.ndarray) -> Tensor:
    """Return real numbers in float32."""
    return torch.as_tensor(np.ascontiguousarray(x)).to(torch.float32)


def to_pairs(x: np.ndarray) -> Tensor:
    """Return complex numbers as pairs (..., 2) in float32."""
    return torch.view_as_real(torch.as_tensor(x)).to(torch.float32)


def to_array(x: Tensor) -> np.ndarray:
    """Return a copy in float64."""
    return x.detach().cpu().double().numpy().copy()


def to_complex(x: Tensor) -> np.ndarray:
    """Return the complex numbers of pairs (..., 2)."""
    parts = to_array(x)
    return np.asarray(parts[..., 0] + 1j * parts[..., 1])
