"""What a deployed model costs: energy, latency and area on the chip, beside its digital twin.

Events of one step are counted part by part, priced by `aimc_sim.costs`, and repeated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from aimc_sim.arrays import CellArray
from aimc_sim.costs import (
    Constant,
    Costs,
    Events,
    constants,
    leak_w,
    outputs_per_adc,
    price,
    tile_area_m2,
)
from aimc_sim.errors import UsageError
from aimc_sim.lines import (
    accesses,
    driven_lines,
    line_conductances,
    line_lengths,
    outputs,
)
from ssm.complexity import WEIGHT_BITS, stored_bits
from ssm.drives import Drives, access_rows, even_drives
from ssm.kernels.network import A_PRODUCT, C_PRODUCT, MIX_PRODUCT, PER_LAYER, Network
from ssm.places import has_column, has_rows, kinds
from ssm.ranges import register_bits
from ssm.wiring import first_rows, wire

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from aimc_sim.chip import Chip
    from ssm.deploy import Deployment

_FLOAT_BITS = 32
_PRODUCTS = {"A": A_PRODUCT, "C": C_PRODUCT, "mixing": MIX_PRODUCT}


@dataclass(frozen=True, eq=False)
class Inference:
    """Costs of one sequence on one chip.

    costs : energy part by part, and latency. step_s : time between two steps. area_m2 : by kind.
    constants : every constant used, with its source. drives : what the rows' drives come from;
    assumed : from no signal.
    """

    costs: Costs
    step_s: float
    area_m2: Mapping[str, float]
    constants: Mapping[str, Constant]
    drives: str
    assumed: bool = False


def cost_inference(
    d: Deployment, n_steps: int, *, drives: Drives | None = None,
    g_s: NDArray[np.floating] | None = None,
) -> Inference:
    """Return what one sequence of n_steps costs.

    drives : of every row, None: spread evenly over the range (`ssm.drives`). g_s : (n_cells,)
    conductances [S], None: the targets.

    Raises InputError where the chip's costs cannot be known (`aimc_sim.costs.constants`).
    """
    if n_steps < 1:
        raise UsageError(f"find the costs of {n_steps} steps", "a sequence has at least one",
                         "give a positive number")
    counter = _Counter(d, drives or even_drives(d), d.target_s if g_s is None else g_s)
    stages = counter.stages()
    once = [*counter.decoder()]
    last_s = counter.part_s("decoder")
    through_s = sum(stages)
    step_s = through_s
    if d.spec.costs.pipeline:
        step_s = max([*stages, counter.busiest_tile_s()])
    latency_s = through_s + (n_steps - 1) * step_s + last_s
    events = [each.times(n_steps) for each in counter.steps()]
    leaks = [each.times(latency_s) for each in counter.leaks()]
    found = price([*events, *once, *leaks], counter.used, latency_s)
    used = counter.drives
    return Inference(found, step_s, counter.area_m2(), counter.used, used.source, used.assumed)


def drawn_conductances(chip: Chip, aged_s: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the conductance by which every cell draws current now, mean over chips, (n_cells,).

    aged_s : (n_replicas, n_cells) of the cells themselves [S]. Behind wires that which the ends
    of its lines see: what reaches the columns, without what flows into rows at rest.
    """
    if chip.is_wired:
        aged_s = np.stack([chip.wired(k).near(aged_s[k]) for k in range(chip.n_replicas)])
    return np.asarray(aged_s.mean(axis=0))


def cost_idle(d: Deployment, seconds: float) -> Costs:
    """Return what the chip draws while nothing runs: leakage alone."""
    counter = _Counter(d, even_drives(d), d.target_s)
    leaks = [each.times(seconds) for each in counter.leaks()]
    return price(leaks, counter.used, seconds)


class _Counter:
    """Events of a step of a deployment: what happens in every part."""

    def __init__(self, d: Deployment, drives: Drives, g_s: NDArray[np.floating]) -> None:
        self.d, self.drives = d, drives
        bits = stored_bits(d)
        self.used = constants(
            d.spec, state_bytes=bits["state"] / 8, weight_bytes=bits["digital weights"] / 8
        )
        precision = d.model.precision or {}
        held = register_bits(d.spec, d.model)
        self.state_bits = held if isinstance(held, int) else _FLOAT_BITS
        self.weight_bits = {name: precision.get(name, WEIGHT_BITS) for name in
                            ("a", "c", "mix", "enc", "dec")}
        self.logic = d.spec.costs.logic_bits
        self.dac, self.adc = int(d.spec.dac.bits), int(d.spec.adc.bits)
        self.planes = d.converters.planes  # drives of every product
        self.arrays = {array.request.name: array for array in d.layout.arrays}
        self.line_g_s = line_conductances(d.layout, d.spec, g_s)
        self.length = line_lengths(d.layout, d.spec)
        self.outputs = d.outputs
        wiring = wire(d.network, d.converters)
        # row and column of every weight that has a cell, -1 where it has none
        there = d.weights.plus[0] >= 0
        self.row = np.where(there, wiring.row, -1)
        self.column = np.where(there, wiring.column, -1)
        self.row_of_cell = np.full(d.layout.n_cells, -1)
        self.row_of_cell[d.weights.plus[0][there]] = wiring.row[there]
        self.first_rows = first_rows(d.converters)
        self.n_heads = d.network.n_heads
        self._tiles = {name: self._use_of_tiles(array) for name, array in self.arrays.items()}
        self._busy = {name: self._busy_s(array) for name, array in self.arrays.items()}

    def _use_of_tiles(self, array: CellArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return accesses of every tile and the outputs of the widest, both (n_tiles,)."""
        d = self.d
        # the arrays of a head are diagonal: all its rows are driven at once
        together = d.spec.layout == "head" and array.request.name.endswith((" A", " C"))
        return (
            accesses(d.layout, d.spec, array, together=together),
            outputs(d.layout, array, together=together),
        )

    def _drive(self, array: CellArray, drawn: NDArray[np.float64]) -> dict[str, float]:
        """Return the energy in cells and lines of one access [J].

        drawn : share of full scale of every row of the network, as `ssm.wiring` counts them.
        """
        rows, lines = driven_lines(self.d.layout, self.d.spec, array)
        planes = int(self.planes[_product_of(array.request.name)])
        cells = array.by_piece(array.cell_index())[0, 0]
        row = self.row_of_cell[cells].max(axis=-1).ravel()[rows]
        share = np.where(row >= 0, drawn[row], 0.0)
        v, t = self.used["read_v"].value, self.used["read_s"].value
        per_cell = self.used["line_f_per_m"].value * self.used["line_pitch_m"].value
        # a pulse of any width charges its line to the full voltage
        charged = share > 0 if self.d.spec.dac.mode == "pulse_width" else share
        return {
            "cell_reads_j": planes * v**2 * t * float(share @ self.line_g_s[lines]),
            "line_charging_j": planes * v**2 * per_cell * float(charged @ self.length[lines]),
        }

    def _busy_s(self, array: CellArray) -> NDArray[np.float64]:
        """Return how long every tile is busy with an array in a step [s], (n_tiles,).

        While one access is converted the next is read; what a state's product needs of the one
        before it waits for its conversion.
        """
        read_s = self.used["read_s"].value
        result = np.zeros(self.d.layout.n_tiles)
        shared = outputs_per_adc(self.d.spec, len(array.tile))
        planes = int(self.planes[_product_of(array.request.name)])
        for tile, (n, width) in enumerate(zip(*self._tiles[array.request.name], strict=True)):
            if n:
                convert_s = min(shared, int(width)) / self.used["adc_hz"].value
                slow, fast = max(read_s, convert_s), min(read_s, convert_s)
                result[tile] = planes * (int(n) * slow + fast)
        return result * self._times(array)

    def _times(self, array: CellArray) -> int:
        """Return how often an array is used in a step: of A by the accesses to its rows."""
        if not array.request.name.endswith(" A"):
            return 1
        each = access_rows(self.d.form, self.d.decay)
        return sum(any(row < array.request.n_in for row in rows) for rows in each)

    def _arrays_of(self, name: str) -> list[CellArray]:
        """Return the arrays that hold a part; of a pruned model one for each size of block."""
        where = _layer_and_part(name)
        return [array for own, array in self.arrays.items() if _layer_and_part(own) == where]

    def stages(self) -> list[float]:
        """Return the durations of encoder, and A, C and mixing of every layer [s]."""
        names = ["encoder"]
        for layer in range(self.d.model.n_layers):
            names += [f"layer {layer} {part}" for part in ("A", "C", "mixing")]
        return [self.part_s(name) for name in names]

    def part_s(self, name: str) -> float:
        """Return how long a part takes for one step, its tiles at the same time [s]."""
        each = [self._busy[array.request.name] for array in self._arrays_of(name)]
        return float(np.sum(each, axis=0).max()) if each else 0.0

    def busiest_tile_s(self) -> float:
        """Return how long the tile with most accesses is busy in a step [s]."""
        each = [busy for name, busy in self._busy.items() if name != "decoder"]
        return float(np.sum(each, axis=0).max()) if each else 0.0

    def _adcs(self) -> Iterator[tuple[str, int]]:
        """Yield kind and number of ADCs of every tile: what its widest access needs.

        Columns that are read one after the other reach them through a multiplexer.
        """
        for tile, kind in enumerate(self.d.layout.tile_kinds):
            widths = {name: int(widths[tile]) for name, (_, widths) in self._tiles.items()}
            yield kind, max(
                -(-n // outputs_per_adc(self.d.spec, len(self.arrays[name].tile)))
                for name, n in widths.items()
            )

    def leaks(self) -> Iterator[Events]:
        """Yield the leakage of every part in one second [J].

        That of a tile is shared by its arrays as they share its cells in use.
        """
        tile_w = np.array([leak_w(self.used, n_adcs) for _, n_adcs in self._adcs()])
        cells = {
            name: np.bincount(array.tile[array.carries_weight()], minlength=tile_w.size)
            for name, array in self.arrays.items()
        }
        per_cell_w = tile_w / sum(cells.values())
        for name, own in cells.items():
            yield Events(*_layer_and_part(name), {"leakage_j": float(own @ per_cell_w)})
        yield Events("", "chip", {"leakage_j": self.used["leak_w"].value})

    def area_m2(self) -> dict[str, float]:
        """Return the chip's area by kind [m^2]: converters, cells, memories; without logic."""
        total = {"ADC": 0.0, "DAC": 0.0, "cells": 0.0}
        for kind, n_adcs in self._adcs():
            own = tile_area_m2(self.d.spec, self.used, kind, n_adcs)
            total = {key: total[key] + own[key] for key in total}
        bits = stored_bits(self.d)
        total["memory"] = sum(bits.values()) * self.used["memory_area_m2_per_bit"].value
        return total

    # what happens in a step

    def steps(self) -> Iterator[Events]:
        """Yield the events of one step of every part but the decoder."""
        inputs, _, _, mixes, _, _ = self.first_rows
        yield from self._matrix(
            "encoder", 0, (self.d.network.n_in, self.n_heads), "enc",
            self._rows((inputs, self.drives.inputs)),
        )
        for layer, own in enumerate(self.d.model.layers):
            first = 1 + layer * PER_LAYER
            yield from self._state(layer, first + A_PRODUCT)
            yield from self._readout(layer, first + C_PRODUCT)
            yield from self._matrix(
                f"layer {layer} mixing", first + MIX_PRODUCT,
                (int(has_rows(own).sum()), own.mix_weight.shape[1]), "mix",
                self._rows((mixes + layer * self.n_heads, self.drives.mixes[layer])),
            )
            yield from self._activation(layer)
        if not self.d.network.pool_last:
            yield Events("", "decoder", {"add_bits": float(self.n_heads * self.logic)})

    def decoder(self) -> Iterator[Events]:
        """Yield the events of the decoder, once a sequence."""
        yield from self._matrix(
            "decoder", len(self.outputs) - 1, (self.n_heads, self.d.model.n_classes), "dec",
            self._rows((self.first_rows[-2], self.drives.decodes)),
        )

    def _rows(self, *parts: tuple[int, NDArray[np.float64]]) -> NDArray[np.float64]:
        """Return values of all rows of the network, zeros but for those from given rows on."""
        values = np.zeros(self.first_rows[-1])
        for first, own in parts:
            values[first : first + own.size] = own
        return values

    def _state_rows(self, layer: int, drawn: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return values (2, K) of both real states of a layer as those of the network's rows."""
        real = int(self.first_rows[1] + self.d.network.mode_first[layer])
        return self._rows((real, drawn[0]), (real + self.d.network.sign.size, drawn[1]))

    def _used(
        self, of: NDArray[np.int64], product: int, n_products: int = 1
    ) -> NDArray[np.int64]:
        """Return the rows, or columns, that cells of some products lie on."""
        first = self.d.network.weight_first
        found = np.unique(of[first[product] : first[product + n_products]])
        return found[found >= 0]

    def _matrix(
        self, name: str, product: int, shape: tuple[int, int], key: str,
        drawn: NDArray[np.float64],
    ) -> Iterator[Events]:
        """Yield the events of a dense product, of that shape in logic, and its bias."""
        n_in, n_out = shape
        where = _layer_and_part(name)
        yield Events(*where, {"add_bits": float(n_out * self.logic)})
        if not self.d.network.analog[product]:
            yield Events(*where, self._multiply_add(n_in * n_out, self.weight_bits[key], self.dac))
            return
        yield Events(*where, self._convert(product))
        yield Events(*where, self._gather(product, n_out))
        for array in self._arrays_of(name):
            yield Events(*where, self._drive(array, drawn))

    def _readout(self, layer: int, product: int) -> Iterator[Events]:
        """Yield the events of C, which also carries D."""
        name = f"layer {layer} C"
        where = _layer_and_part(name)
        if not self.d.network.analog[product]:
            own = self.d.model.layers[layer]
            n = int(own.mode_weight.sum() + has_column(own).sum())
            yield Events(*where, self._multiply_add(n, self.weight_bits["c"], self.state_bits))
            return
        n_rows = self._used(self.row, product).size
        # a state's range is a power of two: its code is a shift of the register
        yield Events(*where, {"shift_bits": float(n_rows * self.state_bits)})
        yield Events(*where, self._convert(product))
        first = int(self.d.converters.adc_first[product])
        columns = (self._used(self.column, product) - first) % self.n_heads
        yield Events(*where, self._gather(product, np.unique(columns).size))
        skips = int(self.first_rows[2]) + layer * self.n_heads
        drawn = self._state_rows(layer, self.drives.states[layer])
        drawn += self._rows((skips, self.drives.skips[layer]))
        for array in self._arrays_of(name):
            yield Events(*where, self._drive(array, drawn))

    def _state(self, layer: int, product: int) -> Iterator[Events]:
        """Yield the events of A: products, and what logic does to the states."""
        pairs, alone = kinds(self.d.model.layers[layer])
        state, states = float(self.state_bits), 2 * pairs + alone
        name = f"layer {layer} A"
        where = _layer_and_part(name)
        # both real states of a pair are read and written; the input is added to one of them
        yield Events(
            *where, {"state_bits": 2 * states * state, "add_bits": (pairs + alone) * state}
        )
        if self.d.form == "digital":
            events = rotate_in_logic(pairs, alone, self.weight_bits["a"], self.state_bits)
            yield Events(*where, events)
            return
        rows_of = access_rows(self.d.form, self.d.decay)
        rows = self._used(self.row, product, C_PRODUCT - A_PRODUCT)
        second = int((rows >= self.first_rows[1] + self.d.network.sign.size).sum())
        driven = sum((rows.size - second, second)[row] for each in rows_of for row in each)
        converted = int(sum(self.outputs[product + k] for k in range(4)))
        # ranges are powers of two: shifts before the DAC and behind the ADC
        shifts = (driven + converted) * state
        added = 0 if self.d.form == "direct" else converted
        yield Events(*where, {"shift_bits": shifts, "add_bits": added * state})
        if self.d.form == "leapfrog" and self.d.decay == "digital":
            a_bits = self.weight_bits["a"]
            yield Events(
                *where,
                {
                    "multiply_bits2": states * state * a_bits,
                    "weight_bits": float((pairs + alone) * a_bits),
                },
            )
        yield Events(*where, self._events_of(product, driven, converted))
        for k in range(len(rows_of)):
            drawn = self._state_rows(layer, self.drives.accesses[layer][:, k])
            for array in self._arrays_of(name):
                yield Events(*where, self._drive(array, drawn))

    def _activation(self, layer: int) -> Iterator[Events]:
        """Yield GELU, gate, residual and norm."""
        heads, bits = self.n_heads, self.logic
        multiplies, adds = activation_operations(self.d.network)
        yield Events(
            f"layer {layer}", "activation and norm",
            {
                "multiply_bits2": float(heads * multiplies * bits**2),
                "add_bits": float(heads * adds * bits),
            },
        )

    def _convert(self, product: int) -> dict[str, float]:
        n_driven = self._used(self.row, product).size
        return self._events_of(product, n_driven, int(self.outputs[product]))

    def _events_of(self, product: int, driven: int, converted: int) -> dict[str, float]:
        """Return DAC and ADC events, and the traffic of codes in the buffers beside them."""
        planes = int(self.planes[product])
        return {
            "drives": float(planes * driven),
            "conversions": float(planes * converted),
            # bit-serial planes are shifted and added before they are stored
            "add_bits": float((planes - 1) * converted * (self.adc + planes)),
            "buffer_bits": float(driven * self.dac + converted * self.adc),
        }

    def _gather(self, product: int, n_out: int) -> dict[str, float]:
        """Return the sum of row parts and the scale of every column."""
        parts = int(self.outputs[product]) - n_out
        return {
            "add_bits": float(parts * self.logic),
            "multiply_bits2": float(n_out * self.adc * self.logic),
        }

    def _multiply_add(self, n: int, weight_bits: int, input_bits: int) -> dict[str, float]:
        """Return n multiply-accumulates in logic, weights from memory."""
        return {
            "multiply_bits2": float(n * weight_bits * input_bits),
            "add_bits": float(n * (weight_bits + input_bits)),
            "weight_bits": float(n * weight_bits),
        }


def rotate_in_logic(pairs: int, alone: int, a_bits: int, state_bits: int) -> dict[str, float]:
    """Return the events of complex products dA x of pairs, and real ones, poles from memory."""
    return {
        "multiply_bits2": float((4 * pairs + alone) * state_bits * a_bits),
        "add_bits": float(2 * pairs * state_bits),
        "weight_bits": float((2 * pairs + alone) * a_bits),
    }


def state_in_logic(pairs: int, alone: int, a_bits: int, state_bits: int) -> dict[str, float]:
    """Return the events of x <- dA x + u in logic: the product, the input, the registers."""
    events = rotate_in_logic(pairs, alone, a_bits, state_bits)
    events["add_bits"] += float((pairs + alone) * state_bits)
    return {**events, "state_bits": float(2 * (2 * pairs + alone) * state_bits)}


def activation_operations(network: Network) -> tuple[int, int]:
    """Return multiplications and additions a head of GELU, gate, residual and norm.

    GELU as x min(max(0, x + 2), 1) and the sigmoid as such a ramp, as hardware has them.
    """
    multiplies, adds = 1, 2 + 1
    if network.glu:
        multiplies, adds = multiplies + 2, adds + 2
    if network.norm:
        square = not network.affine_norm  # mean, difference, square, its mean; then the scale
        multiplies, adds = multiplies + 1 + 2 * square, adds + 1 + 3 * square
    return multiplies, adds


def _product_of(name: str) -> int:
    """Return the product of an array's name, the first of the four of A."""
    if name in ("encoder", "decoder"):
        return 0 if name == "encoder" else -1
    layer, part = _layer_and_part(name)
    return 1 + int(layer.removeprefix("layer ")) * PER_LAYER + _PRODUCTS[part]


def _layer_and_part(name: str) -> tuple[str, str]:
    """Return the layer ("" for encoder and decoder) and the part of an array's name.

    Arrays of pruned models say in between which blocks they hold, such as "layer 0 pairs A".
    """
    if not name.startswith("layer "):
        return "", name
    words = name.split(" ")
    return " ".join(words[:2]), words[-1]
