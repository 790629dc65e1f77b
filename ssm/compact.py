"""Models whose numbers fit into fewer bits, for small files and small memories."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ssm.complexity import STEP_DIGITS
from ssm.model import LAYER_ARRAYS, LAYER_STEPS, MODEL_ARRAYS, MODEL_STEPS, Layer, Model

_MODEL_WEIGHTS = ("encoder_weight", "decoder_weight")
_LAYER_WEIGHTS = ("readout", "skip", "mix_weight")
_INSIDE = np.float32(1.0 - 2.0**-23)  # the largest |dA| that a rounded pole may have


def in_single_precision(model: Model) -> Model:
    """Return the model with dB folded into C and every number rounded to float32.

    C' = C dB, dB' = 1 where there is a mode: only their product matters. A rounded pole moves by
    6e-8 of itself and stays inside the unit circle. `ssm.save` then writes four bytes a number,
    and one where all are 1. Logits move by about 1e-6 of their largest. Arrays of integers and
    scales stay as they are: files hold them smaller still.
    """
    free = [name for name in MODEL_ARRAYS | MODEL_STEPS if name not in model.grids]
    changes = {name: _rounded(getattr(model, name)) for name in free}
    return model.replace(layers=tuple(map(_layer, model.layers)), sha256="", **changes)


def in_half_precision(model: Model) -> Model:
    """Return `in_single_precision` with the weights rounded further, to float16.

    Those are the encoder's, the decoder's, C, D and the mixing's: 11 bits each, half an ulp of a
    12-bit converter; poles, biases, norms and learned steps keep float32. `ssm.save` then writes
    two bytes a weight. Logits move by about 1e-4 of their largest.
    """
    small = in_single_precision(model)
    layers = tuple(
        dataclasses.replace(layer, **_halved(layer, _LAYER_WEIGHTS)) for layer in small.layers
    )
    return small.replace(layers=layers, **_halved(small, _MODEL_WEIGHTS))


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


def _short(step: np.ndarray) -> np.ndarray:
    mantissa, exponent = np.frexp(step)
    digits = 2.0**STEP_DIGITS
    return np.asarray(np.ldexp(np.rint(mantissa * digits) / digits, exponent))


def _layer(layer: Layer) -> Layer:
    free = [name for name in LAYER_ARRAYS | LAYER_STEPS if name not in layer.grids]
    arrays = {name: getattr(layer, name) for name in free}
    if {"readout", "drive"} <= set(free):
        there = (layer.mode_weight > 0).astype(layer.drive.dtype)
        arrays |= {"readout": layer.readout * layer.drive, "drive": there}
    if "pole" in arrays:
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


def _halved(part: Model | Layer, names: tuple[str, ...]) -> dict[str, Any]:
    """Return the named weights in 11 bits, those on a grid left out."""
    return {name: _half(getattr(part, name)) for name in names if name not in part.grids}


def _half(array: np.ndarray) -> np.ndarray:
    if np.iscomplexobj(array):
        return np.asarray(_half(array.real) + 1j * _half(array.imag))
    return np.asarray(array.astype(np.float16).astype(array.dtype))
