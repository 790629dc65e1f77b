"""Quantisation after training: a model whose weights lie on grids, and the bits that it asks for.

Symmetric uniform grids with one scale per column (matrices) or head (B, C); A on a log-polar
grid per head, whose poles cannot leave the unit circle.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from aimc_sim.errors import UsageError, nearest
from ssm.kinds import with_stand_ins, without_stand_ins
from ssm.model import Layer, Model

_LEAST, _MOST = 2, 16


@dataclass(frozen=True)
class Precision:
    """Bits of every quantity; None leaves it as it is.

    a : poles, phase and ln of decay each. b, c : input and output weights of the modes. d : skip.
    mix, enc, dec : mixing, encoder, decoder. state : register between steps. act : activations,
    what the DACs see.
    """

    a: int | None = None
    b: int | None = None
    c: int | None = None
    d: int | None = None
    mix: int | None = None
    enc: int | None = None
    dec: int | None = None
    state: int | None = None
    act: int | None = None

    def __post_init__(self) -> None:
        for name, bits in self.given().items():
            if not isinstance(bits, int) or not _LEAST <= bits <= _MOST:
                raise UsageError(
                    f"quantise {name} to {bits} bits", "a symmetric grid of that size has no use",
                    f"give a whole number from {_LEAST} to {_MOST}",
                )

    def given(self) -> dict[str, int]:
        """Return the quantities that have a bit-width."""
        return {name: bits for name, bits in dataclasses.asdict(self).items() if bits is not None}

    @classmethod
    def parse(cls, text: str) -> Precision:
        """Return the precision that text such as ``a=8,b=4,state=8`` describes.

        Raises UsageError for text that names no quantity, an unknown one, or one twice.

        Examples
        --------
        >>> Precision.parse("a=8, mix=4").given()
        {'a': 8, 'mix': 4}
        """
        names = [field.name for field in dataclasses.fields(cls)]
        values: dict[str, int] = {}
        for item in filter(None, (part.strip() for part in text.split(","))):
            name, _, bits = (piece.strip() for piece in item.partition("="))
            if name not in names:
                guess = nearest(name, names)
                hint = f"did you mean '{guess}'? " if guess else ""
                raise UsageError(
                    f"read precision '{item}'", f"there is no quantity '{name}'",
                    f"{hint}known are {', '.join(names)}",
                )
            if not bits.isdigit():
                raise UsageError(
                    f"read precision '{item}'", "it has no whole number of bits",
                    f"write for example {name}=8",
                )
            if name in values:
                raise UsageError(
                    f"read precision '{text}'", f"it gives '{name}' twice",
                    "give each quantity once",
                )
            values[name] = int(bits)
        if not values:
            raise UsageError(
                f"read precision '{text}'", "it names no quantity",
                f"write for example a=8,state=8; known are {', '.join(names)}",
            )
        return cls(**values)


def quantize(model: Model, precision: Precision) -> Model:
    """Return the model with its weights rounded to `precision`, which it then carries.

    Round to nearest after training, largest magnitude at the end of the grid.

    Examples
    --------
    >>> Precision(a=1)
    Traceback (most recent call last):
        ...
    aimc_sim.errors.UsageError: Quantise a to 1 bits. A symmetric grid of that size has no use. \
Give a whole number from 2 to 16.
    """
    layers = tuple(_quantize_layer(layer, precision) for layer in model.layers)
    # learned steps are of the bits that they were learned for
    learned = None if precision.act is not None else model.act_step
    carried = {**(model.precision or {}), **precision.given()}
    return model.replace(
        layers=layers,
        encoder_weight=round_symmetric(model.encoder_weight, precision.enc, axis=0),
        decoder_weight=round_symmetric(model.decoder_weight, precision.dec, axis=0),
        precision=carried or None,
        act_step=learned,
    )


def _quantize_layer(layer: Layer, precision: Precision) -> Layer:
    return dataclasses.replace(
        layer,
        pole=_round_own_poles(layer, precision.a),
        drive=_round_complex(layer.drive, precision.b),
        readout=_round_complex(layer.readout, precision.c),
        skip=round_symmetric(layer.skip, precision.d, axis=0),
        mix_weight=round_symmetric(layer.mix_weight, precision.mix, axis=0),
        state_step=None if precision.state is not None else layer.state_step,
        act_step=None if precision.act is not None else layer.act_step,
    )


def _round_own_poles(layer: Layer, bits: int | None) -> np.ndarray:
    """Return a layer's poles on the grid of those that are there, real ones still real."""
    if bits is None:
        return layer.pole
    rounded = round_poles(with_stand_ins(layer.pole, layer.mode_weight), bits)
    return without_stand_ins(rounded, layer.pole, layer.mode_weight)


def round_symmetric(w: np.ndarray, bits: int | None, axis: int) -> np.ndarray:
    """Return w rounded to 2^bits - 1 levels, the largest magnitude along `axis` at the end."""
    if bits is None:
        return w
    limit = 2 ** (bits - 1) - 1
    step = np.abs(w).max(axis=axis, keepdims=True) / limit
    step = np.where(step > 0, step, 1.0)
    return np.asarray(np.rint(w / step) * step)


def _round_complex(w: np.ndarray, bits: int | None) -> np.ndarray:
    if bits is None:
        return w
    parts = round_symmetric(np.concatenate([w.real, w.imag], axis=1), bits, axis=1)
    half = w.shape[1]
    return np.asarray(parts[:, :half] + 1j * parts[:, half:])


def round_poles(pole: np.ndarray, bits: int | None) -> np.ndarray:
    """Return poles (H, M) on a log-polar grid: per head 2^bits levels of phase and of ln ln 1/|a|.

    The magnitude stays below 1 for every code. Poles at zero keep their magnitude.
    """
    if bits is None:
        return pole
    tiny = np.finfo(float).tiny
    rate = -np.log(np.clip(np.abs(pole), tiny, 1 - 1e-15))
    rate = np.exp(_round_range(np.log(rate), bits))
    phase = _round_range(np.angle(pole), bits)
    return np.where(np.abs(pole) > tiny, np.exp(-rate + 1j * phase), 0.0)


def _round_range(x: np.ndarray, bits: int) -> np.ndarray:
    """Return x (H, M) on 2^bits levels between each head's smallest and largest value."""
    low, high = x.min(axis=1, keepdims=True), x.max(axis=1, keepdims=True)
    step = np.where(high > low, (high - low) / (2**bits - 1), 1.0)
    return np.asarray(low + np.rint((x - low) / step) * step)
