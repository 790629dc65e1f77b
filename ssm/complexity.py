"""How large a model is: parameters, bits, multiply-accumulates and what it takes of a chip."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ssm.places import has_column, has_rows, kinds
from ssm.ranges import register_bits

if TYPE_CHECKING:
    from ssm.deploy import Deployment
    from ssm.model import Layer, Model

FLOAT_BITS = 32
WEIGHT_BITS = 8  # of weights in digital logic where the model names no width
_SCALE_BITS = 16  # of a scale or range, beside integer weights


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

    memory_bits : weights and biases, registers of all states, and 16 bits for every scale of
    integer weights (one a column of a matrix, one a head of B and C, two pairs a head of A).
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
    biases = sum(layer.mix_bias.size for layer in model.layers)
    if model.norm != "none":
        biases += sum(layer.norm_scale.size + layer.norm_shift.size for layer in model.layers)
    biases += model.encoder_bias.size + model.decoder_bias.size
    n_scales = sum(n for name, n in _scale_counts(model).items() if bits[name] < FLOAT_BITS)
    weights = sum(n * bits[name] for name, n in counts.items())
    return {
        "parameters": model.n_parameters,
        "states": model.n_states,
        "weight_bits": weights + biases * FLOAT_BITS,
        "state_bits": model.n_states * bits["state"],
        "scale_bits": n_scales * _SCALE_BITS,
        "memory_bits": (
            weights + biases * FLOAT_BITS + model.n_states * bits["state"]
            + n_scales * _SCALE_BITS
        ),
        "macs_per_step": sum(macs.values()),
        "bops_per_step": sum(n * bits[name] * bits[beside[name]] for name, n in macs.items()),
        "macs_at_end": counts["dec"],
        "bops_at_end": counts["dec"] * bits["dec"] * bits["act"],
    }


def _widths(model: Model) -> dict[str, int]:
    names = ("a", "b", "c", "d", "mix", "enc", "dec", "state", "act")
    given = model.precision or {}
    return {name: given.get(name, FLOAT_BITS) for name in names}


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
    model = d.model
    held = register_bits(d.spec, model)
    given = model.precision or {}
    counts = weight_counts(model)
    digital = {
        "a": {"digital": model.n_states}.get(d.form, d.n_modes if d.decay == "digital" else 0),
        "c": counts["c"] + counts["d"] if "readout" in d.digital else 0,
        "mix": counts["mix"] if "mixing" in d.digital else 0,
        "enc": counts["enc"] if "encoder" in d.digital else 0,
        "dec": counts["dec"] if "decoder" in d.digital else 0,
    }
    return {
        "state": float(model.n_states * (held if isinstance(held, int) else FLOAT_BITS)),
        "digital weights": float(
            sum(n * given.get(name, WEIGHT_BITS) for name, n in digital.items())
        ),
        "scales": float(_SCALE_BITS * d.outputs[d.network.analog].sum()),
    }
