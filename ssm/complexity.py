"""How large a model is: parameters, bits, multiply-accumulates and what it takes of a chip."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ssm.ranges import register_bits

if TYPE_CHECKING:
    from ssm.deploy import Deployment
    from ssm.model import Model

FLOAT_BITS = 32
WEIGHT_BITS = 8  # of weights in digital logic where the model names no width
_SCALE_BITS = 16  # of a scale or range, beside integer weights


def weight_counts(model: Model) -> dict[str, int]:
    """Return the number of real weights of each quantity of a `Precision`, without biases.

    a : two for a mode with its conjugate, one for a real pole; b, c alike (dB is folded into C
    where a model is deployed, and counted here as trained).
    """
    modes = [layer.mode_weight for layer in model.layers]
    real_modes = int(sum(weight.sum() for weight in modes))
    return {
        "a": real_modes, "b": real_modes, "c": real_modes,
        "d": sum(layer.skip.size for layer in model.layers),
        "mix": sum(layer.mix_weight.size for layer in model.layers),
        "enc": model.encoder_weight.size,
        "dec": model.decoder_weight.size,
    }


def macs_per_step(model: Model) -> dict[str, int]:
    """Return real multiply-accumulates of a step by quantity; the decoder's come once a sequence.

    A complex product x <- dA x takes four, of a real pole one; C two (Re) or one; B is folded
    into C, so the input takes an addition alone.
    """
    modes = np.concatenate([layer.mode_weight.ravel() for layer in model.layers])
    counts = weight_counts(model)
    return {
        "a": int(np.where(modes == 2, 4, 1).sum()), "c": int(modes.sum()), "d": counts["d"],
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
    heads, layers = model.n_heads, model.n_layers
    return {
        "a": 4 * heads * layers,  # ends of the range of angle and of ln decay
        "b": heads * layers, "c": heads * layers, "d": layers,
        "mix": sum(layer.mix_weight.shape[1] for layer in model.layers),
        "enc": heads, "dec": model.n_classes,
    }


def stored_bits(d: Deployment) -> dict[str, float]:
    """Return the digital memory of a deployment in bits: states, weights in logic, scales.

    Scales : one of 16 bits for every output that a column's ADC range turns into a number.
    """
    network, model = d.network, d.model
    held = register_bits(d.spec, model)
    given = model.precision or {}
    sizes = np.diff(network.weight_first)
    names = ["enc", *["a", "a", "a", "a", "c", "mix"] * model.n_layers, "dec"]
    digital = sum(
        float(size) * given.get(name, WEIGHT_BITS)
        for size, name, analog in zip(sizes, names, network.analog, strict=True) if not analog
    )
    n_modes = int(network.sign.size)
    if d.form == "digital":
        digital += 2.0 * n_modes * given.get("a", WEIGHT_BITS)
    elif d.decay == "digital":
        digital += 1.0 * n_modes * given.get("a", WEIGHT_BITS)
    return {
        "state": 2.0 * n_modes * (held if isinstance(held, int) else FLOAT_BITS),
        "digital weights": digital,
        "scales": float(_SCALE_BITS * np.diff(d.converters.adc_first)[network.analog].sum()),
    }
