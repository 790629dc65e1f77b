"""Energy, latency and area of a chip from counted events; every constant with its source.

    energy = sum over events of count x energy of one event + leakage power x duration

Events are counted by who knows what happens (`ssm.costs` for a deployed network); this module
prices them. >>> from aimc_sim import costs
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from aimc_sim import circuits
from aimc_sim.arrays import KINDS, tile_of
from aimc_sim.circuits import adc_area_m2, adc_energy_j, check_adc, node_factor
from aimc_sim.cost_spec import SMALLEST_MEMORY_BYTES, published_values
from aimc_sim.errors import InputError, UsageError, nearest
from aimc_sim.specs import ChipSpec

__all__ = [
    "KIND_OF", "Constant", "Costs", "Entry", "Events", "adc_area_m2", "adc_energy_j",
    "constants", "leak_w", "node_factor", "outputs_per_adc", "price", "tile_area_m2",
]

_ANDRULIS = "regression of Andrulis et al. 2024, doi:10.48550/arXiv.2404.06553"
_HOROWITZ = "Horowitz 2014, doi:10.1109/ISSCC.2014.6757323"
_STILLMAKER = "Stillmaker and Baas 2017, doi:10.1016/j.vlsi.2017.02.002"
_ISAAC = "Shafiee et al. 2016 (ISAAC), doi:10.1109/ISCA.2016.12"
_TIMELY = "Li et al. 2020 (TIMELY), doi:10.48550/arXiv.2005.01206"
_NO_FIGURE = "no published figure; an assumption"
_GIVEN = "the chip"

#: event -> what it belongs to in a breakdown
KIND_OF: dict[str, str] = {
    "conversions": "ADC", "drives": "DAC", "cell_reads_j": "cells", "line_charging_j": "lines",
    "add_bits": "logic", "multiply_bits2": "logic", "shift_bits": "logic", "float_adds": "logic",
    "float_multiplies": "logic", "buffer_bits": "buffers", "state_bits": "states",
    "weight_bits": "weights", "leakage_j": "leakage",
}


class Constant(NamedTuple):
    """A constant as it was used: its value, unit and source ("the chip", where that sets it)."""

    value: float
    unit: str
    source: str


@dataclass(frozen=True)
class Events:
    """Counted events of one part of a chip.

    layer, part : whose they are ("layer 0", "A"). counts : number by name, of `KIND_OF`;
    conversions and drives, bits of adders, multipliers (products of two widths), shifters and
    memories, and energies in joule where they depend on each cell (`..._j`).

    Raises UsageError for an event that has no price, or a count that is negative.
    """

    layer: str
    part: str
    counts: Mapping[str, float]

    def __post_init__(self) -> None:
        for name, count in self.counts.items():
            if name not in KIND_OF:
                guess = nearest(name, KIND_OF)
                hint = f"did you mean '{guess}'? " if guess else ""
                raise UsageError(
                    f"price '{name}' of {self.layer} {self.part}".strip(),
                    "there is no such event", f"{hint}known are {', '.join(KIND_OF)}",
                )
            if not 0 <= count < math.inf:
                raise UsageError(
                    f"price {count:g} {name} of {self.layer} {self.part}".strip(),
                    "a count is neither negative nor infinite", "count anew",
                )

    def times(self, n: float) -> Events:
        """Return the events of n repetitions."""
        return Events(self.layer, self.part, {key: n * each for key, each in self.counts.items()})


class Entry(NamedTuple):
    """Energy of one kind of event in one part of a chip [J]."""

    layer: str
    part: str
    kind: str
    energy_j: float


@dataclass(frozen=True)
class Costs:
    """Energy, part by part, and duration of a run.

    entries : every part and kind once. latency_s : from the first input to the last output.
    """

    entries: tuple[Entry, ...]
    latency_s: float = 0.0

    @property
    def energy_j(self) -> float:
        """Sum of all entries [J], rounded once."""
        return math.fsum(entry.energy_j for entry in self.entries)

    def by(self, *names: str) -> dict[str, float]:
        """Return energies [J] summed over all but the named fields, of "layer", "part", "kind".

        Examples
        --------
        >>> costs = Costs((Entry("", "encoder", "ADC", 1.0), Entry("", "decoder", "ADC", 2.0)))
        >>> costs.by("kind")
        {'ADC': 3.0}
        """
        groups: dict[str, list[float]] = {}
        for entry in self.entries:
            key = " ".join(filter(None, (getattr(entry, name) for name in names)))
            groups.setdefault(key, []).append(entry.energy_j)
        return {key: math.fsum(values) for key, values in groups.items()}

    def times(self, n: float) -> Costs:
        """Return the costs of n runs, one after the other."""
        entries = tuple(entry._replace(energy_j=n * entry.energy_j) for entry in self.entries)
        return Costs(entries, n * self.latency_s)


def constants(
    spec: ChipSpec, *, state_bytes: float = 0.0, weight_bytes: float = 0.0
) -> dict[str, Constant]:
    """Return every constant that the costs of a chip use, with its source.

    state_bytes, weight_bytes : size of the memories of states and of digital weights, on which
    the energy of an access depends.

    Raises InputError for a node outside the table, an ADC of fewer than 4 effective bits without
    a given energy and area, or converters without a number of bits.
    """
    given, adc, dac = spec.costs, spec.adc.bits, spec.dac.bits
    node, hz = given.node_nm, given.adc_hz or spec.adc.columns_per_adc / given.read_s
    beyond = "" if node in circuits.NODE_FACTORS else f" (EXTRAPOLATED to {node:g} nm by C V^2)"
    scaled = f"{_HOROWITZ}, scaled to {node:g} nm: {_STILLMAKER}{beyond}"
    enob = given.adc_enob if given.adc_enob is not None else adc
    if isinstance(enob, str) or isinstance(dac, str):
        raise InputError(
            f"find the costs of chip '{spec.name}'", "an ideal converter has no energy",
            "give adc and dac a number of bits",
        )
    if given.adc_j is None or given.adc_area_m2 is None:
        check_adc(enob, hz, node)
    mode = spec.dac.mode
    driver = f"{_TIMELY if mode == 'pulse_width' else _ISAAC}, scaled to {node:g} nm{beyond}"
    if mode == "amplitude":
        driver += f"; {dac} drivers of 1 bit for a {dac}-bit one: an assumption"
    pitch_nm = None if spec.wires is None else spec.wires.pitch_nm
    values = published_values(
        given, adc_bits=enob, columns_per_adc=spec.adc.columns_per_adc, dac_bits=dac,
        dac_mode=mode, pitch_nm=pitch_nm, state_bytes=state_bytes, weight_bytes=weight_bytes,
    )
    used: dict[str, Constant] = {
        "node_nm": Constant(node, "nm", "that of Horowitz' figures, where a chip names none"),
        "read_v": Constant(given.read_v, "V", _ISAAC),
        "read_s": Constant(given.read_s, "s", _ISAAC),
        "adc_hz": Constant(hz, "1/s", "all bit lines of an ADC within read_s"),
        "adc_leak": Constant(given.adc_leak, "", _ANDRULIS),
        "line_f_per_m": Constant(given.line_f_per_m, "F/m", "0.2 fF/um, typical of CMOS wires"),
        "logic_bits": Constant(given.logic_bits, "bit", _NO_FIGURE),
        "leak_w": Constant(given.leak_w, "W", _NO_FIGURE),
    }
    if given.adc_j is None or given.adc_area_m2 is None:
        used["adc_enob"] = Constant(enob, "bit", "the ADC's bits, as if it had no errors")

    def put(name: str, unit: str, source: str) -> None:
        own = getattr(given, name)
        used[name] = Constant(values[name] if own is None else own, unit, source)

    put("adc_j", "J", _ANDRULIS)
    put("adc_area_m2", "m^2", _ANDRULIS)
    put("dac_j", "J", driver)
    put("dac_area_m2", "m^2", driver)
    put(
        "line_pitch_m", "m",
        "twice the node's narrowest wire" if pitch_nm is None else "the chip's wires",
    )
    for name in ("add_j_per_bit", "multiply_j_per_bit2", "float_add_j", "float_multiply_j"):
        put(name, "J", scaled)
    put("shift_j_per_bit", "J", f"an adder of its width: {_NO_FIGURE}")
    sizes = {"buffer": 0.0, "state": state_bytes, "weight": weight_bytes}
    for name, size in sizes.items():
        kilobytes = max(size, SMALLEST_MEMORY_BYTES) / 1024
        put(f"{name}_j_per_bit", "J", f"SRAM of {kilobytes:.4g} KB, {scaled}")
    put(
        "memory_area_m2_per_bit", "m^2",
        "Mistry et al. 2007, doi:10.1109/IEDM.2007.4418914, times the node's square",
    )
    usual = type(given)()
    for name in used:
        if name in given.model_fields_set and getattr(given, name) != getattr(usual, name):
            used[name] = used[name]._replace(source=_GIVEN)
    return used


def _prices(used: Mapping[str, Constant]) -> dict[str, float]:
    """Return the energy of one of each event [J]."""
    return {
        "conversions": used["adc_j"].value * (1 - used["adc_leak"].value),
        "drives": used["dac_j"].value,
        "add_bits": used["add_j_per_bit"].value,
        "multiply_bits2": used["multiply_j_per_bit2"].value,
        "shift_bits": used["shift_j_per_bit"].value,
        "float_adds": used["float_add_j"].value,
        "float_multiplies": used["float_multiply_j"].value,
        "buffer_bits": used["buffer_j_per_bit"].value,
        "state_bits": used["state_j_per_bit"].value,
        "weight_bits": used["weight_j_per_bit"].value,
    }


def price(
    events: Iterable[Events], used: Mapping[str, Constant], latency_s: float = 0.0
) -> Costs:
    """Return the costs of counted events; used : from `constants`.

    Equal layer, part and kind are added up. Leakage is an event (`leakage_j`), of whoever knows
    the tiles.
    """
    prices = _prices(used)
    sums: dict[tuple[str, str, str], list[float]] = {}
    for each in events:
        for name, count in each.counts.items():
            key = (each.layer, each.part, KIND_OF[name])
            sums.setdefault(key, []).append(count * prices.get(name, 1.0))
    entries = (Entry(*key, math.fsum(values)) for key, values in sums.items())
    return Costs(tuple(entry for entry in entries if entry.energy_j), latency_s)


def outputs_per_adc(spec: ChipSpec, lines_per_output: int) -> int:
    """Return how many outputs of so many bit lines each share an ADC: a pair takes two lines."""
    return max(1, spec.adc.columns_per_adc // lines_per_output)


def leak_w(used: Mapping[str, Constant], n_adcs: int) -> float:
    """Return what ADCs draw all the time [W]: adc_leak adc_j adc_hz each."""
    return n_adcs * used["adc_leak"].value * used["adc_j"].value * used["adc_hz"].value


def tile_area_m2(
    spec: ChipSpec, used: Mapping[str, Constant], kind: str, n_adcs: int
) -> dict[str, float]:
    """Return the area of a tile of a kind [m^2]: its ADCs, one DAC a row, its cells."""
    if kind not in KINDS:
        raise UsageError(f"find the area of a '{kind}'", "there is no such kind of tile",
                         f"choose one of {', '.join(KINDS)}")
    tile = tile_of(spec, kind)
    return {
        "ADC": n_adcs * used["adc_area_m2"].value,
        "DAC": tile.rows * used["dac_area_m2"].value,
        "cells": tile.rows * tile.cols * used["line_pitch_m"].value ** 2,
    }
