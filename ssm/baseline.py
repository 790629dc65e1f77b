"""A deployed model beside its digital twin: all in logic, and A alone in logic."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from aimc_sim.cost_report import with_prefix
from aimc_sim.costs import Costs, Events, constants, price
from aimc_sim.errors import AimcError
from ssm.complexity import WEIGHT_BITS, bits_in_logic, stored_bits, weight_counts
from ssm.costs import Inference, activation_operations, cost_inference, state_in_logic
from ssm.drives import measured_drives
from ssm.places import has_column, has_rows, kinds
from ssm.ranges import register_bits

if TYPE_CHECKING:
    from ssm.deploy import Deployment

Number = Literal["fp32", "int8"]
_SUM_BITS = 32  # of the accumulators of integer products
_STATE_BITS = {"fp32": 32, "int8": 16}  # 8 bits do not hold a state


@dataclass(frozen=True)
class Verdict:
    """Energy of A a step, as it was deployed or would be on tiles, and in digital logic [J].

    analog_j : None where A does not fit the chip; then `refusal` says why. form : of A on tiles.
    assumed : its drives are from no signal, but spread evenly over their ranges.
    """

    analog_j: float | None
    digital_j: float
    form: str
    a_bits: int
    state_bits: int
    refusal: str = ""
    assumed: bool = False

    def __str__(self) -> str:
        digital = (
            f"digital A ({self.a_bits}-bit poles, {self.state_bits}-bit states) costs "
            f"{with_prefix(self.digital_j, 'J')} a step"
        )
        if self.analog_j is None:
            return f"A does not go onto tiles ({self.refusal}); {digital}"
        first, second = self.analog_j, self.digital_j
        winner, low, high = (
            ("A on tiles", first, second) if first < second else ("digital A", second, first)
        )
        ratio = high / low if low else math.inf
        # two digits, without an exponent
        times = f"{ratio:.2g}" if ratio < 99.5 else f"{ratio:.0f}"
        assumed = "; drives of the rows of A are assumed, not measured" if self.assumed else ""
        return (
            f"A on tiles ({self.form}) costs {with_prefix(first, 'J')} a step, {digital}: "
            f"{winner} is {times} times cheaper{assumed}"
        )


def judge(d: Deployment, found: Inference, n_steps: int) -> Verdict:
    """Return what A costs a step on tiles and in logic, leakage while it runs included.

    found : costs of a sequence of n_steps. Of a deployment with A in logic, A on tiles is that of
    its `counterpart`, with drives measured where those of `found` are. Poles in logic lie in one
    memory with whatever other weights are in logic.
    """
    held = register_bits(d.spec, d.model)
    state_bits = held if isinstance(held, int) else 32
    a_bits = (d.model.precision or {}).get("a", WEIGHT_BITS)
    pairs, alone = np.sum([kinds(layer) for layer in d.model.layers], axis=0).tolist()
    logic = Events("", "A", state_in_logic(pairs, alone, a_bits, state_bits))
    used = constants(
        d.spec, state_bytes=stored_bits(d)["state"] / 8,
        weight_bytes=bits_in_logic(d, poles=True) / 8,
    )
    digital_j = price([logic], used).energy_j
    form = d.form
    if d.form != "digital":
        analog_j = found.costs.by("part")["A"] / n_steps
        if d.form == "leapfrog":
            form += f", decay {'on tiles' if d.decay == 'tile' else 'digital'}"
        return Verdict(analog_j, digital_j, form, a_bits, state_bits, assumed=found.assumed)
    form = "leapfrog, decay on tiles"
    try:
        other = counterpart(d)
        drives = None if found.assumed else measured_drives(other)
        analog_j = cost_inference(other, n_steps, drives=drives).costs.by("part")["A"] / n_steps
    except AimcError as error:
        return Verdict(None, digital_j, form, a_bits, state_bits, error.found)
    return Verdict(analog_j, digital_j, form, a_bits, state_bits, assumed=found.assumed)


def counterpart(d: Deployment) -> Deployment:
    """Return the same model on the same chip with A in logic, or if it is there, on tiles.

    On tiles in leapfrog form, its decay too. Errors: those of `ssm.deploy`.
    """
    from ssm.deploy import deploy

    # what it warns of belongs to a chip that nobody asked for
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return deploy(
            d.model, d.spec, "leapfrog" if d.form == "digital" else "digital",
            calibrate=d.signal, digital=d.digital,
        )


def cost_digital(d: Deployment, n_steps: int, number: Number) -> Costs:
    """Return the energy of a sequence of n_steps with the whole model in digital logic.

    At the chip's node, weights in one static memory read at every use, batch 1. "fp32": all in
    32-bit floating point. "int8": weights and activations of 8 bits, states of 16, accumulators
    of 32. Without leakage, control and movement of data beyond memories; latency is not known.
    """
    bits = 32 if number == "fp32" else 8
    counts = weight_counts(d.model)
    n_weights = sum(counts.values()) - counts["b"]  # dB is folded into C
    used = constants(
        d.spec, state_bytes=d.model.n_states * _STATE_BITS[number] / 8,
        weight_bytes=n_weights * bits / 8,
    )
    steps = [each.times(n_steps) for each in _steps(d, number)]
    heads, classes = d.network.n_heads, d.network.decoder_bias.size
    return price([*steps, *_matrix("", "decoder", heads, classes, number)], used)


def _steps(d: Deployment, number: Number) -> Iterator[Events]:
    network = d.network
    heads, n_mix = network.n_heads, network.mix_bias.shape[1]
    yield from _matrix("", "encoder", network.n_in, heads, number)
    for k, own in enumerate(d.model.layers):
        layer, (pairs, alone) = f"layer {k}", kinds(own)
        yield Events(layer, "A", _rotate(pairs, alone, number))
        rows = 2 * pairs + alone + int(has_column(own).sum())
        yield Events(layer, "C", _products(rows, number, _STATE_BITS[number]))
        yield from _matrix(layer, "mixing", int(has_rows(own).sum()), n_mix, number)
        multiplies, adds = activation_operations(network)
        yield Events(
            layer, "activation and norm",
            _operations(heads * multiplies, heads * adds, number, 8),
        )
    if not network.pool_last:
        yield Events("", "decoder", _operations(0, heads, number, 8))


def _matrix(layer: str, part: str, n_in: int, n_out: int, number: Number) -> Iterator[Events]:
    bits = 32 if number == "fp32" else 8
    yield Events(layer, part, _products(n_in * n_out, number, bits))
    yield Events(layer, part, {"buffer_bits": float((n_in + n_out) * bits)})


def _rotate(pairs: int, alone: int, number: Number) -> dict[str, float]:
    """Return x <- dA x + u: 4 multiplications, 2 + 1 additions, both real states moved.

    Of a real pole one multiplication and one addition, and its one state.
    """
    bits = 32 if number == "fp32" else 8
    states = 2 * pairs + alone
    return {
        **_operations(4 * pairs + alone, 3 * pairs + alone, number, _STATE_BITS[number]),
        "weight_bits": float(states * bits),
        "state_bits": 2.0 * states * _STATE_BITS[number],
    }


def _products(n: int, number: Number, input_bits: int) -> dict[str, float]:
    bits = 32 if number == "fp32" else 8
    return {**_operations(n, n, number, input_bits), "weight_bits": float(n * bits)}


def _operations(
    multiplies: int, adds: int, number: Number, input_bits: int
) -> dict[str, float]:
    if number == "fp32":
        return {"float_multiplies": float(multiplies), "float_adds": float(adds)}
    return {
        "multiply_bits2": float(multiplies * 8 * input_bits), "add_bits": float(adds * _SUM_BITS)
    }


def digital_twins(d: Deployment, n_steps: int) -> dict[Number, Costs]:
    """Return the costs of a sequence in logic by number format, see `cost_digital`."""
    numbers: tuple[Number, ...] = ("fp32", "int8")
    return {number: cost_digital(d, n_steps, number) for number in numbers}
