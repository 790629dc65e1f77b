"""How large a model is: parameters, bits, multiply-accumulates and what it takes of a chip."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ssm.places import has_column, has_rows, kinds
from ssm.ranges import register_bits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ssm.deploy import Deployment
    from ssm.model import Layer, Model

FLOAT_BITS = 32
WEIGHT_BITS = 8  # of weights in digital logic where the model names no width
_SHORT_BITS = 16  # of biases that float16 holds
_SCALE_BITS = 16  # of a scale or range, beside integer weights
_SHIFT_BITS = 5  # of a power of two
STEP_DIGITS = 4  # significant bits of short steps; the first is always 1
_STEP_BITS = _SHIFT_BITS + STEP_DIGITS - 1


def weight_counts(model: Model) -> dict[str, int]:
    """Return the number of real weights of each quantity of a `Precision`, without biases.

    a : two for a mode with its conjugate, one for a real pole; c alike, and b of layers whose dB
    is not 1 everywhere, as it is once it has been folded into C. A place without a mode counts
    nowhere, a head without modes and skip not in d, one without output not in mix.
    """
    return {
        "a": model.n_states, "c": model.n_states,
        "b": int(sum(layer.mode_weight.sum() for layer in model.layers if not _is_folded(layer))),
        "d": sum(int(has_column(layer).sum()) for layer in model.layers),
        "mix": sum(int(has_rows(layer).sum()) * layer.mix_weight.shape[1]
                   for layer in model.layers),
        "enc": model.encoder_weight.size,
        "dec": model.decoder_weight.size,
    }


def _is_folded(layer: Layer) -> bool:
    """Return whether dB is 1 wherever there is a mode: then it needs no bits."""
    return bool((layer.drive == (layer.mode_weight > 0)).all())


def macs_per_step(model: Model) -> dict[str, int]:
    """Return real multiply-accumulates of a step by quantity; the decoder's come once a sequence.

    A complex product x <- dA x takes four, of a real pole one; C two (Re) or one; B is folded
    into C, so the input takes an addition alone.
    """
    pairs, alone = np.sum([kinds(layer) for layer in model.layers], axis=0)
    counts = weight_counts(model)
    return {
        "a": 4 * int(pairs) + int(alone), "c": counts["c"], "d": counts["d"],
        "mix": counts["mix"], "enc": counts["enc"],
    }


def measure(model: Model) -> dict[str, int]:
    """Return parameters, memory and operations of a model at its precision (32 bits: none given).

    memory_bits : weights and biases (in 16 bits where they fit into float16 exactly), registers
    of all states, and scales: 16 bits each of integer weights (one a column of a matrix, one a
    head of B and C, two pairs a head of A) and of learned steps of activations; one for every
    rounded state, 16 bits where its learned step is any number, 8 where all of them have 4
    significant bits and 32 octaves at most, 5 where they are powers of two, as the chip's are.
    bops_per_step : multiply-accumulates times both widths in bits; activations beside matrices
    and D, the state beside A and C. macs_at_end, bops_at_end : the decoder's.

    Examples
    --------
    >>> from ssm.model import Layer, Model
    >>> one = np.ones((1, 1))
    >>> layer = Layer(pole=0.5 * one, drive=one, readout=one, mode_weight=one, skip=one[0],
    ...     mix_weight=one, mix_bias=one[0], norm_scale=one[0], norm_shift=one[0])
    >>> model = Model(one, 0 * one[0], (layer,), one, 0 * one[0], norm="none",
    ...     disc="zoh", pool="last", gate="none")
    >>> measure(model)["macs_per_step"], measure(model)["bops_per_step"]
    (5, 5120)
    """
    bits = _widths(model)
    counts, macs = weight_counts(model), macs_per_step(model)
    beside = {name: "state" if name in ("a", "c") else "act" for name in macs}
    n_scales = sum(n for name, n in _scale_counts(model).items() if bits[name] < FLOAT_BITS)
    scales = n_scales * _SCALE_BITS + _step_bits(model, bits["state"])
    weights = sum(n * bits[name] for name, n in counts.items()) + _bias_bits(model)
    states = model.n_states * bits["state"]
    return {
        "parameters": model.n_parameters,
        "states": model.n_states,
        "weight_bits": weights,
        "state_bits": states,
        "scale_bits": scales,
        "memory_bits": weights + states + scales,
        "macs_per_step": sum(macs.values()),
        "bops_per_step": sum(n * bits[name] * bits[beside[name]] for name, n in macs.items()),
        "macs_at_end": counts["dec"],
        "bops_at_end": counts["dec"] * bits["dec"] * bits["act"],
    }


def _widths(model: Model) -> dict[str, int]:
    names = ("a", "b", "c", "d", "mix", "enc", "dec", "state", "act")
    given = model.precision or {}
    return {name: given.get(name, FLOAT_BITS) for name in names}


def _bias_bits(model: Model) -> int:
    """Return the bits of biases and of the norms' scales and shifts."""
    arrays = [model.encoder_bias, model.decoder_bias, *(layer.mix_bias for layer in model.layers)]
    if model.norm != "none":
        arrays += [part for layer in model.layers for part in (layer.norm_scale, layer.norm_shift)]
    return sum(
        each.size * (_SHORT_BITS if (each == each.astype(np.float16)).all() else FLOAT_BITS)
        for each in arrays
    )


def _step_bits(model: Model, state_bits: int) -> int:
    """Return the bits of the steps of rounded states and of learned steps of activations."""
    learned = [model.act_step, *(layer.act_step for layer in model.layers)]
    acts = _SCALE_BITS * sum(step.size for step in learned if step is not None)
    if state_bits >= FLOAT_BITS:
        return acts
    steps = [
        layer.state_step[layer.mode_weight > 0].ravel()
        for layer in model.layers if layer.state_step is not None
    ]
    each = step_width(np.concatenate(steps)) if steps else _SHIFT_BITS
    return acts + model.n_states * each


def step_width(step: NDArray[np.float64]) -> int:
    """Return the bits in which positive steps are held exactly, each one by itself: 5, 8 or 16.

    Examples
    --------
    >>> [step_width(np.array(steps)) for steps in ([0.5, 4.0], [0.5, 1.125], [0.5, 1.1])]
    [5, 8, 16]
    """
    mantissa, exponent = np.frexp(step)  # the mantissa in [0.5, 1)
    if np.ptp(exponent) >= 2**_SHIFT_BITS:
        return _SCALE_BITS
    if (mantissa == 0.5).all():
        return _SHIFT_BITS
    significant = mantissa * 2**STEP_DIGITS
    return _STEP_BITS if (significant == np.rint(significant)).all() else _SCALE_BITS


def _scale_counts(model: Model) -> dict[str, int]:
    """Return the scales of every quantity: what turns its integers into weights."""
    in_use = [int((layer.mode_weight > 0).any(axis=1).sum()) for layer in model.layers]
    unfolded = [not _is_folded(layer) for layer in model.layers]
    return {
        "a": 4 * sum(in_use),  # ends of the range of angle and of ln decay
        "b": sum(np.array(in_use)[unfolded].tolist()), "c": sum(in_use), "d": model.n_layers,
        "mix": sum(layer.mix_weight.shape[1] for layer in model.layers),
        "enc": model.n_heads, "dec": model.n_classes,
    }


def stored_bits(d: Deployment) -> dict[str, float]:
    """Return the digital memory of a deployment in bits: states, weights in logic, scales.

    Scales : one of 16 bits for every output that a column's ADC range turns into a number.
    """
    held = register_bits(d.spec, d.model)
    return {
        "state": float(d.model.n_states * (held if isinstance(held, int) else FLOAT_BITS)),
        "digital weights": bits_in_logic(d),
        "scales": float(_SCALE_BITS * d.outputs[d.network.analog].sum()),
    }


def bits_in_logic(d: Deployment, *, poles: bool = False) -> float:
    """Return the bits of a deployment's weights in logic; poles : and of A, where it is on tiles.

    Of A in leapfrog form with digital decay one number a mode, else its poles or nothing.
    """
    counts, given = weight_counts(d.model), d.model.precision or {}
    of_a = d.n_modes if d.decay == "digital" else 0
    digital = {
        "a": counts["a"] if poles or d.form == "digital" else of_a,
        "c": counts["c"] + counts["d"] if "readout" in d.digital else 0,
        "mix": counts["mix"] if "mixing" in d.digital else 0,
        "enc": counts["enc"] if "encoder" in d.digital else 0,
        "dec": counts["dec"] if "decoder" in d.digital else 0,
    }
    return float(sum(n * given.get(name, WEIGHT_BITS) for name, n in digital.items()))
