"""A model onto a chip: which matrix sits on which tile, in which analog form, at which scale."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from aimc_sim.errors import InputError, UsageError, nearest
from aimc_sim.mapping import Layout, Request, pieces_of, place, target_conductances
from aimc_sim.noise import noise_split
from aimc_sim.predistortion import predistort
from aimc_sim.specs import ChipSpec, check_chip
from ssm import places, ranges
from ssm.forms import StateForm, state_form
from ssm.kernels.network import (
    C_PRODUCT,
    FORM_CODES,
    NORM_CODES,
    PER_LAYER,
    Converters,
    Network,
)
from ssm.model import Model
from ssm.parts import (
    PARTS,
    Part,
    group_blocks,
    group_of,
    in_head_arrays,
    list_parts,
    requests_of,
    scales_of,
)
from ssm.wiring import wire

if TYPE_CHECKING:
    from ssm.inference import ProgrammedModel

LARGEST = np.finfo(np.float32).max  # the chip runs in float32


@dataclass(frozen=True, eq=False)
class WeightMap:
    """How the kernel's weights are read from cells; exact, product (n_weights,), the others
    (n_pieces, n_weights): a weight is the sum of its pieces, cells or pairs of cells."""

    plus: np.ndarray
    minus: np.ndarray
    scale: np.ndarray
    exact: np.ndarray
    product: np.ndarray


@dataclass(frozen=True, eq=False)
class Deployment:
    """A model laid out on a chip; `print` shows placements, tiles and utilisation.

    model, spec, form, decay, digital : as given to `deploy`.
    layout : where every cell lies. target_s : (n_cells,) conductances asked for [S].
    weights : how a weight is read back from its cells. network, converters : what the compiled
        recurrence sees of it.
    calibration, signal : which signal set the converters' ranges, in words and as
        (n, time, d_input) float32.
    compensated : sets of cells (n_set,) that share one drift correction, and the products each
        serves.
    """

    model: Model
    spec: ChipSpec
    form: str
    decay: str
    digital: tuple[str, ...]
    calibration: str
    signal: np.ndarray
    layout: Layout
    target_s: np.ndarray
    weights: WeightMap
    network: Network
    converters: Converters
    compensated: tuple[tuple[np.ndarray, tuple[int, ...]], ...]

    def __str__(self) -> str:
        spec = self.spec
        lines = [
            f"{self.model.name or 'model'} on {spec.name}: form {self.form}, decay {self.decay}, "
            f"{self.layout.n_tiles} tiles, {self.layout.n_used()} cells in use, utilisation "
            f"{100 * self.layout.utilisation(spec):.1f} %",
            f"converter ranges from {self.calibration}",
        ]
        lines += [
            f"  {name:18} {request.n_blocks} x ({request.n_in} x {request.n_out}) on tiles {tiles}"
            for name, request, tiles in self.placements()
        ]
        if self.digital:
            lines.append(f"  in digital logic: {', '.join(self.digital)}")
        return "\n".join(lines)

    __repr__ = __str__

    def placements(self) -> list[tuple[str, Request, str]]:
        """Return name, request and tile numbers of every array on tiles."""
        rows = []
        for array in self.layout.arrays:
            tiles = np.unique(array.tile)
            text = f"{tiles[0]}" if len(tiles) == 1 else f"{tiles[0]}..{tiles[-1]}"
            rows.append((array.request.name, array.request, text))
        return rows

    def blocks_per_head(self) -> dict[str, int]:
        """Return how many neighbouring blocks belong to a head, of every array that has heads."""
        requests = [array.request for array in self.layout.arrays]
        n_heads = self.model.n_heads
        return {r.name: r.n_blocks // n_heads for r in requests if places.has_heads(r.name)}

    @property
    def n_modes(self) -> int:
        """Modes of all layers and heads: pairs of poles, and real poles that stand alone."""
        return int(sum((layer.mode_weight > 0).sum() for layer in self.model.layers))

    @property
    def products_per_mode(self) -> int:
        """Products with cells, or pairs of cells, of A that are converted, per pair and step.

        A real pole has one, and none in leapfrog form with digital decay.
        """
        if self.form == "leapfrog":
            return 2 if self.decay == "digital" else 4
        return 0 if self.form == "digital" else 2

    def conversions(self) -> dict[str, int]:
        """Return events of one sequence on one chip: ADC conversions and products of A's cells.

        per_step : conversions of every step. at_end : those of the decoder, once a sequence.
        state_products : products of A per step.
        """
        outputs, analog = self.outputs, self.network.analog
        conversions = outputs * self.converters.planes * analog
        a = np.arange(1, analog.size - 1).reshape(-1, PER_LAYER)[:, :C_PRODUCT]
        return {
            "per_step": int(conversions[:-1].sum()),
            "at_end": int(conversions[-1]),
            "state_products": int(outputs[a].sum()),
        }

    @cached_property
    def outputs(self) -> np.ndarray:
        """Conversions of every product in a step, (n_products,): of columns that have cells."""
        first = self.converters.adc_first
        if places.is_even(self.model):
            return np.diff(first)
        column = wire(self.network, self.converters).column
        there = np.unique(column[(column >= 0) & (self.weights.plus[0] >= 0)])
        return np.bincount(np.searchsorted(first, there, "right") - 1, minlength=first.size - 1)

    def program(self, seed: int = 0, chips: int = 1, first_chip: int = 0) -> ProgrammedModel:
        """Return `chips` sampled chips, programmed (replicas first_chip .. of that seed)."""
        from ssm.inference import ProgrammedModel

        return ProgrammedModel(self, seed=seed, chips=chips, first_chip=first_chip)


def deploy(
    model: Model,
    spec: ChipSpec,
    form: str = "leapfrog",
    *,
    decay: str = "tile",
    calibrate: np.ndarray | None = None,
    digital: Iterable[str] = (),
    calibration: str | None = None,
) -> Deployment:
    """Return `model` laid out on a chip of kind `spec`.

    Parameters
    ----------
    form : how A is realised: "leapfrog", "delta", "direct" or "digital".
    decay : leapfrog only: "tile" (d on cells, four products a mode) or "digital" (two).
    calibrate : (n, time, d_input) signals that set converter ranges. None: training data of
        the model's task where it names one that comes with the package, else a fixed probe.
    calibration : what `calibrate` is, in words, for reports.
    digital : parts kept in digital logic, of "encoder", "readout", "mixing", "decoder".

    Raises UsageError for an unknown form or part, CapacityError where a block does not fit,
    InputError for calibration data of the wrong width.
    """
    check_chip(spec, "deploy a model")
    digital = tuple(digital)
    for part in digital:
        if part not in PARTS:
            guess = nearest(part, PARTS)
            raise UsageError(
                f"keep '{part}' digital", "the model has no such part",
                (f"did you mean '{guess}'? " if guess else "") + f"parts are {', '.join(PARTS)}",
            )
    if decay not in ("tile", "digital"):
        raise UsageError(f"use decay '{decay}'", "it is unknown", "choose tile or digital")
    forms = [
        state_form(layer, form, digital_decay=decay == "digital") for layer in model.layers
    ]
    if calibrate is None:
        calibrate, calibration = ranges.default_signal(model)
    else:
        calibration = calibration or f"{len(calibrate)} given sequences"
    signal = _check_signal(model, calibrate)
    parts = list_parts(model, forms, form, decay, digital)
    if spec.layout == "head":
        parts = in_head_arrays(parts, form, spec)
    tiles = places.on_tiles(parts, model, spec)
    layout = place(requests_of(tiles, spec), spec)
    cells = [group_blocks(part.weights, group_of(part, spec)) for part in parts]
    network = build_network(model, forms, form, decay, parts, cells, spec)
    network = network._replace(
        part_rows=places.summed_at_once(parts, model, spec, network.part_rows)
    )
    exact = _exact_weights(parts, cells)
    record, largest = ranges.record(network, exact, signal, model, spec)
    converters = ranges.converters(network, record, model, spec, largest)
    parts = [_with_row_range(part, converters, network) for part in parts]
    tiles = places.on_tiles(parts, model, spec)
    target, weights = _map_weights(tiles, exact, network, layout, spec)
    wiring = wire(network, converters)
    converters = ranges.with_fixed_range(
        network, converters, weights, wiring.column, wiring.row, wiring.dac_step,
        wiring.row_limit, spec,
    )
    if form == "leapfrog":
        _warn_of_white_noise(forms, target, tiles, layout, spec)
    return Deployment(
        model, spec, form, decay if form == "leapfrog" else "tile", digital, calibration, signal,
        layout, target, weights, network, converters, _compensated(tiles, layout, form),
    )


def _check_signal(model: Model, signal: np.ndarray) -> np.ndarray:
    signal = np.asarray(signal)
    if signal.ndim != 3 or signal.shape[2] != model.d_input or signal.size == 0:
        raise InputError(
            f"calibrate with data of shape {signal.shape}",
            f"the model reads {model.d_input} feature(s) a step",
            f"give an array (n, time, {model.d_input})",
        )
    if signal.dtype.kind not in "fiub" or not (np.abs(signal) <= LARGEST).all():
        raise InputError(
            "calibrate converters", "the data have NaN, infinite or too large values",
            "give finite real numbers",
        )
    return np.ascontiguousarray(signal, np.float32)


def _exact_weights(parts: list[Part], exact: list[np.ndarray]) -> np.ndarray:
    """Return all weights in kernel order, float32: what error-free cells would stand for."""
    chunks = [
        (product, chunk)
        for part, cells in zip(parts, exact, strict=True)
        for product, chunk in zip(part.products, part.in_kernel_order(cells), strict=True)
    ]
    chunks.sort(key=lambda item: item[0])
    return np.concatenate([chunk for _, chunk in chunks]).astype(np.float32)


def build_network(
    model: Model, forms: list[StateForm], form: str, decay: str, parts: list[Part],
    exact: list[np.ndarray], spec: ChipSpec,
) -> Network:
    """Return the constants of the recurrent kernel."""
    n_products = 2 + model.n_layers * PER_LAYER
    sizes = np.zeros(n_products, np.int64)
    analog = np.zeros(n_products, bool)
    part_rows = np.full(n_products, 1 << 30, np.int64)
    for part, cells in zip(parts, exact, strict=True):
        for product, chunk in zip(part.products, part.in_kernel_order(cells), strict=True):
            sizes[product] = chunk.size
            analog[product] = part.analog
            if part.analog and not part.planes:
                part_rows[product] = min(cells.shape[1], spec.tile.rows)
    groups = {"A" if part.planes else part.name: group_of(part, spec) for part in parts}
    f = np.float32
    modes = [0, *np.cumsum([layer.pole.size for layer in model.layers])]
    return Network(
        form=FORM_CODES[form],
        digital_decay=decay == "digital",
        norm=NORM_CODES[model.norm],
        affine_norm=model.norm_kind == "affine",
        norm_epsilon=f(model.norm_epsilon),
        glu=model.gate == "glu",
        pool_last=model.pool == "last",
        n_heads=model.n_heads,
        mode_first=np.array(modes, np.int64),
        sign=np.concatenate([a.sign for a in forms]).astype(f),
        pole=np.ascontiguousarray(np.concatenate([a.pole for a in forms], axis=1), f),
        decay=np.concatenate([a.decay for a in forms]).astype(f),
        norm_scale=np.stack([layer.norm_scale for layer in model.layers]).astype(f),
        norm_shift=np.stack([layer.norm_shift for layer in model.layers]).astype(f),
        mix_bias=np.stack([layer.mix_bias for layer in model.layers]).astype(f),
        encoder_bias=model.encoder_bias.astype(f),
        decoder_bias=model.decoder_bias.astype(f),
        n_in=model.d_input,
        group_a=groups.get("A", 1),
        group_c=groups["layer 0 C"],
        part_rows=part_rows,
        weight_first=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        analog=analog,
    )


def _with_row_range(part: Part, converters: Converters, network: Network) -> Part:
    """Return C with the full-scale input of its rows: cells then carry weight times range.

    A DAC maps the range of its own state to full voltage, so a cell's conductance stands for
    the weight times that range, and the column's largest such product fills the cell.
    """
    if not part.name.endswith(" C"):
        return part
    layer = (part.products[0] - 1) // PER_LAYER
    first, last = network.mode_first[layer], network.mode_first[layer + 1]
    n_heads = network.n_heads
    full, state_full = (
        float(limit) + 1 if limit > 1 else 1.0  # steps of a range (see ranges.converters)
        for limit in (converters.dac_limit, converters.state_dac_limit)
    )
    states = converters.state_step.reshape(2, -1)[:, first:last].astype(float)
    states = states.reshape(2, n_heads, -1)
    skips = converters.skip_step[layer][:, None].astype(float) * full
    rows = np.concatenate([states[0] * state_full, states[1] * state_full, skips], axis=1)
    return replace(part, row_range=rows[:, :, None])


def _map_weights(
    tiles: list[Part], exact: np.ndarray, network: Network, layout: Layout, spec: ChipSpec
) -> tuple[np.ndarray, WeightMap]:
    """Return targets (n_cells,) [S] and how the kernel's weights are read back from cells.

    exact : (n_weights,) all weights; those of no part in `tiles` have no cell.
    """
    most = max((pieces_of(spec, part.pair).count for part in tiles), default=1)
    targets = np.empty(layout.n_cells)
    first = network.weight_first
    product_of = np.repeat(np.arange(first.size - 1), np.diff(first))
    shape = (most, exact.size)
    weights = WeightMap(
        np.full(shape, -1), np.full(shape, -1), np.zeros(shape, np.float32), exact, product_of
    )
    for part, array in zip(tiles, layout.arrays, strict=True):
        group = group_of(part, spec)
        w = group_blocks(part.weights, group)
        scale, pieces = scales_of(part, group, spec), pieces_of(spec, part.pair)
        wanted = target_conductances(w, scale, spec.device, pair=part.pair, pieces=pieces)
        target, reach = predistort(spec, wanted, pair=part.pair)
        targets[array.first : array.first + array.n_cells] = target.ravel()
        index = array.by_piece(array.cell_index())
        plus, minus = index[:, 0], index[:, 1] if part.pair else np.full(index[:, 0].shape, -1)
        shared = pieces.shares[:, None, None, None] * scale / reach
        # a weight of fewer pieces than others gets cells of its first one with no share
        more = [(0, most - pieces.count), (0, 0), (0, 0), (0, 0)]
        plus, minus = (np.pad(each, more, mode="edge") for each in (plus, minus))
        shared = np.pad(shared, more)
        planes = [_pieces_in_kernel_order(part, each) for each in (plus, minus, shared)]
        for product, values in zip(part.products, zip(*planes, strict=True), strict=True):
            own = np.arange(first[product], first[product + 1])
            at = own if part.places is None else own[part.places]
            weights.plus[:, at], weights.minus[:, at], weights.scale[:, at] = values
    return targets, weights


def _pieces_in_kernel_order(part: Part, stack: np.ndarray) -> list[np.ndarray]:
    """Return arrays of a weight's pieces (n_pieces, ...) as flat products, (n_pieces, n) each."""
    return [
        np.stack(pieces)
        for pieces in zip(*(part.in_kernel_order(each) for each in stack), strict=True)
    ]


def _compensated(
    tiles: list[Part], layout: Layout, form: str
) -> tuple[tuple[np.ndarray, tuple[int, ...]], ...]:
    """Return sets of cells that share one drift correction: A's e and d apart, else a matrix."""
    result: dict[int, tuple[list[np.ndarray], tuple[int, ...]]] = {}

    def add(cells: np.ndarray, products: tuple[int, ...]) -> None:
        # arrays of a product, as a pruned model has them, are corrected as one
        key = next((k for k, (_, own) in result.items() if set(own) & set(products)), len(result))
        before, own = result.get(key, ([], products))
        result[key] = ([*before, cells.ravel()], max(own, products, key=len))

    for part, array in zip(tiles, layout.arrays, strict=True):
        index = array.cell_index()
        if part.planes and form == "leapfrog":
            planes = [plane.ravel() for plane in _pieces_in_kernel_order(part, index)]
            for k in range(0, len(planes), 2):
                add(np.concatenate(planes[k : k + 2]), tuple(part.products[k : k + 2]))
        else:
            add(index, part.products)
    return tuple((np.concatenate(cells), products) for cells, products in result.values())


def _warn_of_white_noise(
    forms: list[StateForm], target_s: np.ndarray, tiles: list[Part], layout: Layout,
    spec: ChipSpec,
) -> None:
    """Warn of modes whose white read noise makes the variance of the state grow without bound.

    A white relative error s of every access is parametric noise; the leapfrog form is stable in
    mean square for s < sqrt(d / 2) / tan(theta / 2).
    """
    device = spec.device
    if device.read_noise is None:
        return
    factor = noise_split(spec, 3600.0).fast  # what is new at a step hardly depends on the time
    # those with cells of e, of which a real pole has none
    arrays = [
        (part, array) for part, array in zip(tiles, layout.arrays, strict=True)
        if len(part.planes) > 1
    ]
    shares = pieces_of(spec, pair=False).shares[:, None]
    n_loud, n_modes = 0, 0
    for part, array in arrays:
        form = forms[(part.products[0] - 1) // PER_LAYER]
        cells = array.by_piece(target_s[array.first : array.first + array.n_cells])[:, 0]
        modes = slice(None) if part.places is None else part.places
        pole, decay = form.pole[:, modes], form.decay[modes]
        n = decay.size
        own = np.arange(n)
        place_in_group = own % array.group
        row, col = array.request.n_in * place_in_group, array.request.n_out * place_in_group
        g = cells[:, own // array.group, row, col]  # the cells of e
        sigma = device.read_noise.sigma.evaluate(g, device.g_max_s) * factor
        if device.read_noise.white is not None:
            sigma = np.hypot(sigma, device.read_noise.white.evaluate(g, device.g_max_s))
        # relative to the weight, which is g - g_min
        sigma = sigma * (g if device.read_noise.relative else 1.0)
        sigma = np.sqrt(((shares * sigma) ** 2).sum(axis=0))
        sigma = sigma / np.maximum((shares * (g - device.g_min_s)).sum(axis=0), 1e-30)
        half = 0.5 * np.arctan2(np.abs(pole[1]), np.abs(pole[0]))
        n_loud += int((sigma * np.tan(half) > np.sqrt(decay / 2)).sum())
        n_modes += n
    if n_loud:
        warnings.warn(
            f"white read noise of '{device.name}' is above the mean-square stability limit of "
            f"{n_loud} of {n_modes} modes: their states may grow in long sequences",
            stacklevel=3,
        )
