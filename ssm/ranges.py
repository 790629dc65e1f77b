"""Ranges of DACs, ADCs and state registers, from the signals of a calibration run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from aimc_sim.converters import converter_limit
from aimc_sim.kernels.moving import NO_TELEGRAPH
from aimc_sim.kernels.threads import one_thread
from aimc_sim.randomness import Purpose
from aimc_sim.specs import ChipSpec
from ssm.forms import power_of_two_above
from ssm.kernels.network import (
    A_PRODUCT,
    C_PRODUCT,
    FORM_CODES,
    MIX_PRODUCT,
    PER_LAYER,
    Converters,
    Network,
    Record,
)
from ssm.model import Model

if TYPE_CHECKING:
    from numpy.typing import NDArray

_REGISTER_HEADROOM = 2.0  # a state on the chip may exceed its calibration value by this
_PROBE_SHAPE = (16, 256)  # sequences, steps
_SAMPLES = 64


def default_signal(model: Model) -> tuple[NDArray[np.float32], str]:
    """Return calibration signals (n, time, d_input) and a line that says what they are."""
    from ssm import tasks

    if model.task in tasks.task_names():
        x = tasks.load_task(model.task).x_train[:_SAMPLES]
        return np.asarray(x, np.float32), f"{len(x)} training sequences of task '{model.task}'"
    generator = np.random.Generator(np.random.Philox(int(Purpose.PROBE)))
    probe = generator.random((*_PROBE_SHAPE, model.d_input), np.float32)
    return probe, "a fixed probe signal, uniform in [0, 1)"


def converted_planes(network: Network) -> tuple[int, ...]:
    """Return which of A's four planes have ADCs: two planes of a pair form share a column."""
    if network.form == FORM_CODES["leapfrog"]:
        return (0, 1) if network.digital_decay else (0, 1, 2, 3)
    return () if network.form == FORM_CODES["digital"] else (0, 2)


def output_counts(network: Network) -> np.ndarray:
    """Return the number of ADC outputs of every product, row parts one after the other."""
    n_products = network.analog.size
    counts = np.zeros(n_products, np.int64)
    n_heads = network.n_heads
    n_mix, n_classes = network.mix_bias.shape[1], network.decoder_bias.size
    counts[0] = n_heads * _n_parts(network.n_in, network.part_rows[0])
    for layer in range(network.mode_first.size - 1):
        first = 1 + layer * PER_LAYER
        n_modes = network.mode_first[layer + 1] - network.mode_first[layer]
        for plane in converted_planes(network):
            counts[first + A_PRODUCT + plane] = n_modes
        span = network.group_c * (2 * n_modes // n_heads + 1)
        counts[first + C_PRODUCT] = n_heads * _n_parts(
            span, network.part_rows[first + C_PRODUCT]
        )
        counts[first + MIX_PRODUCT] = n_mix * _n_parts(
            n_heads, network.part_rows[first + MIX_PRODUCT]
        )
    counts[-1] = n_classes * _n_parts(n_heads, network.part_rows[-1])
    return counts


def _n_parts(n_rows: int, part_rows: int) -> int:
    return int(-(-n_rows // part_rows))


def buffer_sizes(network: Network) -> tuple[int, int]:
    """Return the widths of a product's buffers and of its normals."""
    n_modes = int(np.diff(network.mode_first).max())
    width = max(n_modes, network.n_heads, network.mix_bias.shape[1], network.decoder_bias.size)
    return width, int(output_counts(network).max())


def empty_record(network: Network, on: bool) -> Record:
    """Return a record of zeros, or empty arrays where nothing is to be recorded."""
    n_layers, n_heads = network.mix_bias.shape[0], network.n_heads
    size = int(on)
    f = np.float32
    return Record(
        on,
        np.zeros(network.n_in * size, f),
        np.zeros(2 * network.sign.size * size, f),
        np.zeros((n_layers, n_heads * size), f),
        np.zeros((n_layers, n_heads * size), f),
        np.zeros(n_heads * size, f),
        np.zeros(int(output_counts(network).sum()) * size, f),
    )


def ideal_converters(network: Network) -> Converters:
    """Return converters that pass every signal unchanged."""
    n_layers, n_heads = network.mix_bias.shape[0], network.n_heads
    counts = output_counts(network)
    f = np.float32
    ones = np.ones
    return Converters(
        f(0), f(0), f(0), f(0), ones(network.n_in, f), ones(2 * network.sign.size, f),
        ones(2 * network.sign.size, f), ones(2 * network.sign.size, f),
        ones((n_layers, n_heads), f), ones((n_layers, n_heads), f), ones(n_heads, f),
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), ones(int(counts.sum()), f),
        ones(int(counts.sum()), f),
    )


def record(network: Network, w: np.ndarray, signal: np.ndarray, n_classes: int) -> Record:
    """Return the largest signals that the error-free model shows on `signal` (n, time, n_in).

    The same compiled kernel as every run, with exact weights and on one thread, since all
    sequences share the record.
    """
    from ssm.kernels import sequence

    seen = empty_record(network, True)
    # every product passes through its converters here, so that all are recorded
    every = network._replace(analog=np.ones(network.analog.size, bool))
    cells, draws, source = sequence.no_cells(w)
    logits = np.zeros((1, len(signal), n_classes), np.float32)
    traces = np.zeros((1, len(signal), 0, 2, network.sign.size), np.float32)
    with one_thread():
        sequence.run_batch(
            signal, 0, draws, cells, [NO_TELEGRAPH], np.zeros((1, 1), np.float32),
            [sequence.no_correction(w)], every, ideal_converters(network), seen, source,
            *buffer_sizes(network), logits, traces,
        )
    return seen


def converters(network: Network, seen: Record, model: Model, spec: ChipSpec) -> Converters:
    """Return converters whose ranges cover the recorded signals.

    States, skip inputs and the outputs of A get ranges and steps that are powers of two, shifts
    in logic: the range 2^k has 2^(bits - 1) steps a side, and the last one is clipped. Matrices
    have one input range, and one output range a column.
    """
    f = np.float32
    asked = model.precision or {}
    dac, adc = converter_limit(spec.dac.bits), converter_limit(spec.adc.bits)
    if "act" in asked:  # activations are what the DACs see
        act = converter_limit(asked["act"])
        dac = min(dac, act) if dac else act
    register = converter_limit(register_bits(spec, model))
    counts = output_counts(network)
    first = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    output_steps = _positive(seen.outputs.astype(float)) * spec.adc.headroom / (adc or 1)
    for layer in range(network.mode_first.size - 1):
        begin = 1 + layer * PER_LAYER + A_PRODUCT
        a = slice(first[begin], first[begin + 4])
        output_steps[a] = _shift_steps(seen.outputs[a], spec.adc.headroom, adc)
    states = _shift_steps(seen.states, spec.dac.headroom, dac)
    input_scale = f(spec.dac.headroom / (dac or 1))
    return Converters(
        dac_limit=dac,
        adc_limit=adc,
        adc_noise=f(spec.adc.noise_lsb),
        state_limit=register,
        input_step=_shared(seen.inputs) * input_scale,
        state_step=states,
        state_inverse=1 / states,
        register_step=_shift_steps(seen.states, _REGISTER_HEADROOM, register),
        skip_step=_shift_steps(seen.skips, spec.dac.headroom, dac),
        mix_step=np.stack([_shared(row) for row in seen.mixes]) * input_scale,
        decode_step=_shared(seen.decodes) * input_scale,
        adc_first=first,
        adc_step=output_steps.astype(f),
        adc_inverse=(1 / output_steps).astype(f),
    )


def register_bits(spec: ChipSpec, model: Model) -> int | str:
    """Return the width of the state registers: the chip's, or the model's where that is less."""
    widths = (spec.state_bits, (model.precision or {}).get("state", "ideal"))
    return min((bits for bits in widths if isinstance(bits, int)), default="ideal")


def _shift_steps(
    largest: NDArray[np.floating], headroom: float, limit: np.float32
) -> NDArray[np.float32]:
    """Return power-of-two steps (float32) of converters whose range covers headroom * largest."""
    full = power_of_two_above(_positive(largest.astype(float)) * headroom, least=-60)
    return (full / ((float(limit) + 1) if limit > 1 else 1.0)).astype(np.float32)


def _positive(x: np.ndarray) -> np.ndarray:
    """Return x with zeros (signals that never moved) replaced by the smallest that did."""
    least = x[x > 0].min(initial=1.0)
    return np.where(x > 0, x, least)


def _shared(x: np.ndarray) -> np.ndarray:
    """Return one full-scale value for all inputs of a matrix, (n,) float32."""
    largest = float(x.max(initial=0.0)) or 1.0
    return np.full(x.shape, largest, np.float32)
