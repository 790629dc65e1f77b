"""Models whose numbers fit into float32, for small files, or into fewer bits, for memory."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ssm.complexity import STEP_DIGITS
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


def in_short_formats(model: Model) -> Model:
    """Return the model with biases in 16 bits and learned steps of states in 8 bits.

    Biases and the norms' scales and shifts are rounded to float16, steps to 4 significant bits
    (the first is always 1, so that 3 are kept, and 5 of an exponent): each moves by 1/16 of
    itself at most. Weights stay on their grids. `ssm.complexity.measure` then counts so many.
    """
    return model.replace(
        layers=tuple(
            dataclasses.replace(
                layer,
                mix_bias=_half(layer.mix_bias), norm_scale=_half(layer.norm_scale),
                norm_shift=_half(layer.norm_shift),
                state_step=None if layer.state_step is None else _short(layer.state_step),
            )
            for layer in model.layers
        ),
        encoder_bias=_half(model.encoder_bias), decoder_bias=_half(model.decoder_bias), sha256="",
    )


def _half(array: np.ndarray) -> np.ndarray:
    return np.asarray(array.astype(np.float16).astype(array.dtype))


def _short(step: np.ndarray) -> np.ndarray:
    mantissa, exponent = np.frexp(step)
    digits = 2.0**STEP_DIGITS
    return np.asarray(np.ldexp(np.rint(mantissa * digits) / digits, exponent))


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
