"""Models whose numbers fit into float32, for small files."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ssm.model import LAYER_ARRAYS, LAYER_STEPS, MODEL_ARRAYS, MODEL_STEPS, Layer, Model

_INSIDE = np.float32(1.0 - 2.0**-23)  # the largest |dA| that a rounded pole may have


def in_single_precision(model: Model) -> Model:
    """Return the model with dB folded into C and every number rounded to float32.

    C' = C dB, dB' = 1 where there is a mode: only their product matters. A rounded pole moves by
    6e-8 of itself and stays inside the unit circle. `ssm.save` then writes four bytes a number,
    and one where all are 1. Logits move by about 1e-6 of their largest.
    """
    changes = {name: _rounded(getattr(model, name)) for name in MODEL_ARRAYS | MODEL_STEPS}
    return model.replace(layers=tuple(map(_layer, model.layers)), sha256="", **changes)


def _layer(layer: Layer) -> Layer:
    arrays = {name: getattr(layer, name) for name in LAYER_ARRAYS | LAYER_STEPS}
    arrays["readout"] = layer.readout * layer.drive
    arrays["drive"] = (layer.mode_weight > 0).astype(layer.drive.dtype)
    arrays["pole"] = _inside(layer.pole)
    changes: dict[str, Any] = {name: _rounded(array) for name, array in arrays.items()}
    return dataclasses.replace(layer, **changes)


def _inside(pole: np.ndarray) -> np.ndarray:
    size = np.abs(pole)
    return np.where(size > _INSIDE, pole / np.maximum(size, 1.0) * _INSIDE, pole)


def _rounded(array: np.ndarray | None) -> np.ndarray | None:
    if array is None:
        return None
    narrow = np.complex64 if np.iscomplexobj(array) else np.float32
    return np.asarray(array.astype(narrow).astype(array.dtype))
