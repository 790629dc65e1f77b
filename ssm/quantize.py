"""Quantisation after training: a model whose weights lie on grids, and the bits that it asks for.

`Precision` says how many bits, `ssm.schemes.Scheme` how: unless told otherwise symmetric uniform
grids with one scale per column (matrices) or head (B, C), and A on a log-polar grid per head.
No grid of A has a code outside the unit circle.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from aimc_sim.errors import UsageError, nearest
from ssm.grids import Grid, round_complex, round_poles, round_weights
from ssm.kinds import with_stand_ins, without_modes, without_stand_ins
from ssm.model import Layer, Model
from ssm.poles import BOUNDED
from ssm.schemes import WEIGHTS, Scheme

_LEAST, _MOST = 2, 16


@dataclass(frozen=True)
class Precision:
    """Bits of every quantity; None leaves it as it is.

    a : poles, both numbers of each (`Scheme.form_of_a`). b, c : input and output weights of the
    modes. d : skip. mix, enc, dec : mixing, encoder, decoder. state : register between steps.
    act : activations, what the DACs see. decay : magnitude or decay of A where it has other bits
    than the angle, from 1.
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
    decay: int | None = None

    def __post_init__(self) -> None:
        for name, bits in self.given().items():
            least = 1 if name == "decay" else _LEAST
            if not isinstance(bits, int) or not least <= bits <= _MOST:
                found = "a symmetric grid of that size has no use"
                if isinstance(bits, int) and bits > _MOST:
                    found = f"codes are kept in {_MOST} bits at most"
                raise UsageError(
                    f"quantise {name} to {bits} bits", found,
                    f"give a whole number from {least} to {_MOST}",
                )
        if self.decay is not None and self.a is None:
            raise UsageError(
                f"quantise the decay of A to {self.decay} bits", "A itself has none",
                "give a as well, for example a=6,decay=3",
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


def check_bits(precision: Precision, scheme: Scheme) -> None:
    """Raise UsageError where a scheme cannot be had at the bits of `precision`."""
    bits = precision.given()
    for name in WEIGHTS:
        if scheme.of(name).method == "ternary" and bits.get(name, 2) != 2:
            raise UsageError(
                f"make {name} ternary at {bits[name]} bits", "three levels are 2 bits",
                f"write {name}=2, or choose another method for {name}",
            )
    if precision.decay is not None and scheme.form_of_a not in BOUNDED:
        raise UsageError(
            f"quantise the decay of A to {precision.decay} bits",
            f"the form '{scheme.form_of_a}' has no decay of its own",
            f"leave decay out, or choose one of {', '.join(BOUNDED)}",
        )


def quantize(model: Model, precision: Precision, scheme: Scheme | None = None) -> Model:
    """Return the model with its weights rounded to `precision`, which it then carries.

    Round to nearest after training, on the grids of `scheme`. The model keeps integers and
    scales (`Layer.grids`, `Model.grids`), and files of it hold those in the place of values.

    Raises UsageError for bits or methods that mean nothing; learned steps are for training.

    Examples
    --------
    >>> Precision(a=1)
    Traceback (most recent call last):
        ...
    aimc_sim.errors.UsageError: Quantise a to 1 bits. A symmetric grid of that size has no use. \
Give a whole number from 2 to 16.
    """
    scheme = scheme or Scheme()
    check_bits(precision, scheme)
    learned = [name for name in WEIGHTS if scheme.of(name).method == "lsq"]
    if learned:
        raise UsageError(
            f"round {', '.join(learned)} with method 'lsq'", "its steps are learned in training",
            "train with it (fine_tune, aimc-sim train --method lsq), or choose another method",
        )
    grids = {}
    for name, bits, array in (("enc", precision.enc, "encoder_weight"),
                              ("dec", precision.dec, "decoder_weight")):
        if bits is not None:
            grids[array] = _round_matrix(getattr(model, array), bits, scheme, name)
    carried = {**(model.precision or {}), **precision.given()}
    return model.replace(
        layers=tuple(_quantize_layer(layer, precision, scheme) for layer in model.layers),
        **{name: grid.values() for name, grid in grids.items()},
        grids={**model.grids, **grids},
        precision=carried or None,
        # learned steps are of the bits that they were learned for
        act_step=None if precision.act is not None else model.act_step,
    )


def _quantize_layer(layer: Layer, precision: Precision, scheme: Scheme) -> Layer:
    grids, poles = {}, {}
    if precision.a is not None:
        # a grid that has no code for a real pole or an empty place is dropped by the layer
        grids["pole"], poles["pole"], _ = _round_own_poles(
            layer, precision.a, scheme, precision.decay
        )
    for name, bits, array in (("b", precision.b, "drive"), ("c", precision.c, "readout")):
        if bits is not None:
            grids[array] = round_complex(getattr(layer, array), bits, scheme.of(name))
    if precision.d is not None:
        grids["skip"] = round_weights(layer.skip, precision.d, scheme.of("d"), axis=0)
    if precision.mix is not None:
        grids["mix_weight"] = _round_matrix(layer.mix_weight, precision.mix, scheme, "mix")
    return dataclasses.replace(
        layer,
        **{name: grid.values() for name, grid in grids.items()} | poles,
        grids={**layer.grids, **grids},
        state_step=None if precision.state is not None else layer.state_step,
        act_step=None if precision.act is not None else layer.act_step,
    )


def _round_matrix(w: np.ndarray, bits: int, scheme: Scheme, name: str) -> Grid:
    choice = scheme.of(name)
    return round_weights(w, bits, choice, axis=(0, 1) if choice.per == "tensor" else 0)


def _round_own_poles(
    layer: Layer, bits: int, scheme: Scheme, decay_bits: int | None
) -> tuple[Grid, np.ndarray, int]:
    """Return the grid of the poles that are there, the poles on it, and how many lay outside.

    Real poles are real there and places without a mode zero, whether or not the grid has a code
    for that (`ssm.kinds`).
    """
    form, weight = scheme.form_of_a, layer.mode_weight
    shown = with_stand_ins(layer.pole, weight, form)
    grid, outside = round_poles(
        shown, bits, form, scheme.of("a"), decay_bits, counted=weight > 0
    )
    grid = without_modes(grid, weight)
    return grid, without_stand_ins(grid.values(), layer.pole, weight, form), outside


def outside(model: Model, precision: Precision, scheme: Scheme) -> int:
    """Return how many modes A's nearest codes would put on or outside the unit circle."""
    if precision.a is None:
        return 0
    return sum(
        _round_own_poles(layer, precision.a, scheme, precision.decay)[2]
        for layer in model.layers
    )
