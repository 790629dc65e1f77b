"""All sequences on all replicas through the kernels of this folder, in batches that fit the GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import triton
from torch import Tensor

from aimc_sim.kernels.mvm import read_streams
from ssm.gpu.layers import add_layer, multiply, normalise, pool, read_heads
from ssm.gpu.states import advance_states
from ssm.gpu.weights import read_weights
from ssm.kernels.network import A_PRODUCT, C_PRODUCT, MIX_PRODUCT, PER_LAYER
from ssm.wiring import first_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from aimc_sim.kernels.cells import Draws
    from aimc_sim.kernels.converters import Periphery
    from ssm.kernels.network import Converters, Network
    from ssm.kernels.weights import Address, Cells, Correction

_SHARE = 0.6  # of the memory that is free
_STEPS = 32  # time steps of a program of dense products
_DEPTH = 16  # rows that a program multiplies at once: from 32 on registers spill
_GROUPS, _WARPS = 2, 1  # of 64 modes in a program: a tenth faster than eight on four warps
_LANES = 256  # modes of a program where heads fill no groups
_CELLS = 256  # weights of a program


def run_batch(
    x: NDArray[np.float32],
    first_sample: int,
    draws: Draws,
    cells: Cells,
    g: NDArray[np.float32],
    corrections: Sequence[Correction],
    peripheries: Sequence[Periphery],
    network: Network,
    converters: Converters,
    source: Address,
    logits: NDArray[np.float32],
    clipped: NDArray[np.int64],
    device: str = "cuda",
) -> None:
    """Fill logits (replica, n, n_classes) and add to clipped (replica, n, n_products).

    Arguments as in `ssm.kernels.sequence.run_batch`. clipped holds the count of all products of A
    of a layer at the first of them.
    """
    engine = _Engine(
        draws, cells, g, corrections, peripheries, network, converters, source, device
    )
    n_replicas, n, n_classes = logits.shape
    inputs = torch.from_numpy(x).to(device)
    n_runs = n_replicas * n
    together = engine.runs_at_once(x.shape[1], n_runs)
    flat, counts = logits.reshape(n_runs, -1), clipped.reshape(n_runs, -1)
    for begin in range(0, n_runs, together):
        run = np.arange(begin, min(begin + together, n_runs))
        replica, sample = np.divmod(run, n)
        table = engine.table(replica, first_sample + sample)
        here = inputs[torch.from_numpy(sample).to(device)]
        found, outside = engine.infer(here, table)
        flat[begin : begin + run.size] = found.cpu().numpy()
        counts[begin : begin + run.size] += outside.cpu().numpy()


class _Engine:
    """Constants of a network and its cells on the GPU, and the order of the kernels."""

    def __init__(
        self, draws: Draws, cells: Cells, g: NDArray[np.float32],
        corrections: Sequence[Correction], peripheries: Sequence[Periphery], network: Network,
        converters: Converters, source: Address, device: str,
    ) -> None:
        self.device, self.network, self.converters = device, network, converters
        self.cells, self.moment = cells, int(source.moment)
        self.n_replicas, self.n_cells = g.shape
        self.n_weights, self.n_products = cells.exact.size, network.analog.size
        self.lasting = bool(cells.slow > 0)  # weights are a sequence's own
        white = cells.fast > 0 and cells.noise_s.any()
        self.white = bool(white or cells.white_s.any() or cells.extra.any())
        self.adc_noise = float(converters.adc_noise) if converters.adc_limit > 0 else 0.0
        offsets = [correction.offset for correction in corrections]
        self.has_offset = bool(offsets[0].size)
        self.n_outputs = int(converters.adc_first[-1])
        none = np.zeros(1, np.float32)
        self.offset = self._put(np.stack(offsets) if self.has_offset else none)
        numbers = [source.first_replica + k for k in range(self.n_replicas)]
        self.keys = self._streams(source, source.read_purpose, numbers, self.n_products)
        self.adc_step = self._put(converters.adc_step)
        self.adc_inverse = self._put(converters.adc_inverse)
        self._put_cells(draws, g, corrections, source, numbers)
        self._put_layers()
        self._put_errors(peripheries)
        if not self.lasting:
            table = self.table(np.arange(self.n_replicas), np.zeros(self.n_replicas, np.int64))
            self.own = self._read(table)

    def _put(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def _put_words(self, words: NDArray[Any]) -> Tensor:
        return self._put(np.asarray(words).astype(np.uint32).view(np.int32))

    def _streams(
        self, source: Address, purpose: int, numbers: Sequence[int], n_places: int
    ) -> Tensor:
        """Return the keys of streams, (replicas, places, 2) int32."""
        places = np.arange(n_places)
        each = [read_streams(source.seed0, source.seed1, purpose, k, places) for k in numbers]
        return self._put_words(np.stack(each))

    def _put_cells(
        self, draws: Draws, g: NDArray[np.float32], corrections: Sequence[Correction],
        source: Address, numbers: Sequence[int],
    ) -> None:
        cells, f, none = self.cells, np.float32, np.zeros(1, np.float32)
        lane, block = np.divmod(draws.index, max(draws.counter.size, 1))
        slow = self.lasting
        tile = draws.tile[block] if slow else np.zeros(1, np.int32)
        self.n_tiles = int(tile.max(initial=0)) + 1
        self.tile_keys = self._streams(source, source.slow_purpose, numbers, self.n_tiles)
        self.where = (
            self._put_words(draws.counter[block] if slow else none.astype(np.uint64)),
            self._put(lane.astype(np.int32)), self._put(tile.astype(np.int32)),
        )
        self.map = (
            self._put(cells.plus.astype(np.int32)), self._put(cells.minus.astype(np.int32)),
            self._put(cells.scale), self._put(cells.exact),
            self._put(np.stack([correction.gain for correction in corrections])),
        )
        self.wired, self.silent = cells.shift.shape[1] > 0, cells.unconnected.shape[1] > 0
        self.of_cells = (
            self._put(g.astype(f)), self._put(cells.noise_s), self._put(cells.white_s),
            *(self._put(lines if self.wired else none) for lines in (
                cells.shift, cells.slope, cells.extra)),
            self._put(~cells.unconnected if self.silent else np.ones(1, bool)).to(torch.int32),
        )

    def _put_layers(self) -> None:
        """Put the constants of every layer's modes, (18, n_layer) float32 as `_load_lane` reads."""
        network, c, one = self.network, self.converters, np.float32(1)
        self.constants = []
        for layer in range(network.mode_first.size - 1):
            first, last = network.mode_first[layer], network.mode_first[layer + 1]
            n = int(last - first)
            rows = np.ones((18, n), np.float32)
            own = slice(first, last)
            rows[0:2] = c.state_step.reshape(2, -1)[:, own]
            rows[2:4] = c.state_inverse.reshape(2, -1)[:, own]
            rows[4:6] = c.register_step.reshape(2, -1)[:, own]
            rows[6:8] = one / rows[4:6]
            a = 1 + layer * PER_LAYER + A_PRODUCT
            begin, end = c.adc_first[a], c.adc_first[a + 4]
            count = int(end - begin) // n  # conversions of a mode
            rows[8 : 8 + count] = c.adc_step[begin:end].reshape(-1, n)
            rows[12 : 12 + count] = c.adc_inverse[begin:end].reshape(-1, n)
            if network.form == 0:
                rows[16:18] = network.pole[:, own]
            else:
                rows[16] = network.sign[own]
                rows[17] = (one - network.decay[own]) * network.sign[own]
            self.constants.append(self._put(rows))
        self.input_step, self.decode_step = self._put(c.input_step), self._put(c.decode_step)
        self.skip_step, self.mix_step = self._put(c.skip_step), self._put(c.mix_step)
        self.norm_scale = self._put(network.norm_scale)
        self.norm_shift = self._put(network.norm_shift)
        self.encoder_bias = self._put(network.encoder_bias)
        self.decoder_bias, self.mix_bias = (
            self._put(network.decoder_bias), self._put(network.mix_bias)
        )

    def _put_errors(self, peripheries: Sequence[Periphery]) -> None:
        """Put gains, offsets and tables of the converters, and find the rows of every part."""
        p, none = peripheries[0], np.zeros(1, np.float32)
        self.first_rows = first_rows(self.converters)[:-1]
        self.real = {
            "DAC_REAL": p.dac_on, "DAC_INL": p.dac_table.size > 0, "ADC_REAL": p.adc_on,
            "ADC_INL": p.adc_table.size > 0, "ADC_BITS": p.adc_weights.shape[1],
        }
        names = ("dac_gain", "dac_offset", "adc_gain", "adc_offset", "adc_weights")
        self.dac_gain, self.dac_offset, self.adc_gain, self.adc_offset, self.adc_weights = (
            self._put(np.stack([getattr(each, name) for each in peripheries]))
            if getattr(p, name).size else self._put(none) for name in names
        )
        self.n_rows, self.n_adcs = p.dac_gain.size, p.adc_weights.shape[0]
        self.adc_of = self._put(p.adc_of.astype(np.int32) if p.adc_on else np.zeros(1, np.int32))
        self.dac_table, self.adc_table = (
            self._put(table if table.size else none) for table in (p.dac_table, p.adc_table)
        )
        self.own_limit = float(p.dac_limit)

    def _errors(self, product: int, row: int, dac_limit: np.float32) -> tuple[Any, ...]:
        """Return what the kernels take of the converters' errors, for a product and its first row.

        dac_limit : largest code of the rows' DACs in use.
        """
        first = int(self.converters.adc_first[product])
        dacs = (self.dac_gain, self.dac_offset)
        adcs = (self.adc_gain, self.adc_offset)
        if self.real["DAC_REAL"]:
            dacs = (self.dac_gain.reshape(-1)[row:], self.dac_offset.reshape(-1)[row:])
        adc_of = self.adc_of
        if self.real["ADC_REAL"]:
            adcs = (self.adc_gain.reshape(-1)[first:], self.adc_offset.reshape(-1)[first:])
            adc_of = self.adc_of[first:]
        own = float(dac_limit) / self.own_limit if self.own_limit > 0 else 1.0
        return (
            *dacs, self.dac_table, *adcs, self.adc_table, adc_of, self.adc_weights,
            len(self.dac_table), own, len(self.adc_table), self.n_rows, self.n_adcs,
        )

    def table(self, replica: NDArray[np.int64], sample: NDArray[np.int64]) -> Tensor:
        """Return the row of weights, replica, sample and moment of every run, (n, 4) int32."""
        row = np.arange(replica.size) if self.lasting else replica
        moment = np.full(replica.size, self.moment)
        return self._put_words(np.stack([row, replica, sample & 0xFFFFFFFF, moment], axis=1))

    def runs_at_once(self, n_steps: int, n_runs: int) -> int:
        """Return how many runs the memory holds at once."""
        network = self.network
        n_mix = network.mix_bias.shape[1]
        each = 4 * n_steps * (network.n_in + 4 * network.n_heads + n_mix)
        each += 8 * self.n_weights if self.lasting else 0
        if self.device == "cpu":
            return n_runs
        free = torch.cuda.mem_get_info(self.device)[0]  # and what torch keeps for the next call
        free += torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        most = max(1, int(free * _SHARE) // each)
        parts = -(-n_runs // most)
        return -(-n_runs // parts)

    def _read(self, table: Tensor) -> tuple[Tensor, Tensor]:
        """Return weights and variances of the rows of a table, (rows, n_weights) each."""
        cells = self.cells
        w, v = (self._empty(len(table), self.n_weights) for _ in range(2))
        grid = (len(table), -(-self.n_weights // _CELLS))
        read_weights[grid](
            w, v, table, *self.map, *self.of_cells, *self.where, self.tile_keys, self.n_weights,
            self.n_cells, self.n_tiles, float(cells.slow), float(cells.fast),
            float(cells.floor_s), float(cells.ceiling_s), float(cells.g_min_s),
            PIECES=cells.plus.shape[0], SLOW=self.lasting, WIRED=self.wired, SILENT=self.silent,
            SIZE=_CELLS,
        )
        return w, v

    def _empty(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float32, device=self.device)

    def infer(self, x: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (runs, n_classes) and clipped conversions (runs, n_products) int32."""
        network = self.network
        n_runs, n_steps, _ = x.shape
        w, v = self._read(table) if self.lasting else self.own
        self.shared = (table, self.keys, w, v)
        clipped = torch.zeros((n_runs, self.n_products), dtype=torch.int32, device=self.device)
        h = self._empty(n_runs, n_steps, network.n_heads)
        inputs, states, skips, mixes, decodes = (int(row) for row in self.first_rows)
        self._multiply(0, inputs, x, h, clipped, self.input_step, self.encoder_bias)
        u = self._empty(*h.shape) if network.norm == 1 else h
        y, s = self._empty(*h.shape), self._empty(*h.shape)
        mixed = self._empty(n_runs, n_steps, network.mix_bias.shape[1])
        for layer in range(len(self.constants)):
            if network.norm == 1:
                self._normalise(layer, h, u)
            before = layer * network.n_heads
            self._advance(layer, states, u, y, s, clipped)
            self._read_heads(layer, skips + before, y, s, u, clipped)
            mix = 1 + layer * PER_LAYER + MIX_PRODUCT
            self._multiply(
                mix, mixes + before, y, mixed, clipped, self.mix_step[layer], self.mix_bias[layer]
            )
            self._add(mixed, h)
            if network.norm == 2:
                self._normalise(layer, h, h)
        pooled = self._empty(n_runs, 1, network.n_heads)
        columns = min(128, triton.next_power_of_2(network.n_heads))
        pool[(n_runs, -(-network.n_heads // columns))](
            h, pooled, n_steps, network.n_heads, LAST=bool(network.pool_last), COLUMNS=columns
        )
        logits = self._empty(n_runs, 1, network.decoder_bias.size)
        self._multiply(
            self.n_products - 1, decodes, pooled, logits, clipped, self.decode_step,
            self.decoder_bias, n_steps,
        )
        return logits[:, 0], clipped

    def _flags(self, product: int) -> dict[str, bool]:
        """Return what happens at a product's converters."""
        analog = bool(self.network.analog[product])
        return {
            "NOISY": analog and (self.white or self.adc_noise > 0),
            "ADC": analog and bool(self.converters.adc_limit > 0),
            "OFFSET": analog and self.has_offset,
        }

    def _outputs(self, product: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return steps and inverse steps of the ADCs and offsets, from a product's first on."""
        first = int(self.converters.adc_first[product])
        offset = self.offset.reshape(-1)[first:] if self.has_offset else self.offset
        return self.adc_step[first:], self.adc_inverse[first:], offset

    def _multiply(
        self, product: int, row: int, x: Tensor, y: Tensor, clipped: Tensor, x_step: Tensor,
        bias: Tensor, first_step: int = 0,
    ) -> None:
        """y (runs, T, n_out) = x (runs, T, n_in) through a dense product, with its bias.

        row : its first, among the rows of the deployment.
        """
        n_runs, n_steps, n_in = x.shape
        n_out, c = y.shape[2], self.converters
        rows = min(int(self.network.part_rows[product]), n_in)
        steps = max(16, min(_STEPS, triton.next_power_of_2(n_steps)))
        columns = max(16, min(64, triton.next_power_of_2(n_out)))
        analog = bool(self.network.analog[product])
        multiply[(n_runs, -(-n_steps // steps), -(-n_out // columns))](
            x, y, clipped, *self.shared, x_step, bias, *self._outputs(product),
            *self._errors(product, row, c.dac_limit), int(self.network.weight_first[product]),
            self.n_weights, self.n_outputs, self.n_products, product, n_steps, first_step, n_in,
            n_out, rows, -(-n_in // rows), float(c.dac_limit), float(c.adc_limit), self.adc_noise,
            DAC=analog and bool(c.dac_limit > 0), **self._flags(product), STEPS=steps, DEPTH=_DEPTH,
            COLUMNS=columns, **self.real,
        )

    def _advance(
        self, layer: int, row: int, u: Tensor, y: Tensor, s: Tensor, clipped: Tensor
    ) -> None:
        network, c = self.network, self.converters
        a = 1 + layer * PER_LAYER + A_PRODUCT
        n_heads = network.n_heads
        n_modes = int(network.mode_first[layer + 1] - network.mode_first[layer]) // n_heads
        grouped = n_modes in (16, 32, 64)
        modes = triton.next_power_of_2(n_modes)
        heads = (64 * _GROUPS if grouped else max(_LANES, modes)) // modes
        flags = self._flags(a)
        c_analog = bool(network.analog[a + C_PRODUCT])
        advance_states[(u.shape[0], -(-n_heads // heads))](
            u, y, s, clipped, *self.shared, self.constants[layer], self._outputs(a)[2],
            *self._errors(a, row + int(network.mode_first[layer]), c.state_dac_limit),
            int(network.mode_first[-1]), int(network.weight_first[a]),
            int(network.weight_first[a + C_PRODUCT]), self.n_weights, self.n_outputs,
            self.n_products, a, u.shape[1], n_heads, n_modes, float(c.state_dac_limit),
            float(c.adc_limit), self.adc_noise, float(c.state_limit), FORM=int(network.form),
            DIGITAL_DECAY=bool(network.form == 3 and network.digital_decay), NOISY=flags["NOISY"],
            ADC_NOISE=self.adc_noise > 0, A_DAC=bool(network.analog[a] and c.state_dac_limit > 0),
            A_ADC=flags["ADC"], OFFSET=flags["OFFSET"],
            C_DAC=c_analog and bool(c.state_dac_limit > 0),
            C_NOISY=self._flags(a + C_PRODUCT)["NOISY"], REGISTER=bool(c.state_limit > 0),
            LANES=4 if grouped else 1, HEADS=heads, MODES=modes, num_warps=_WARPS if grouped else 4,
            **self.real,
        )

    def _read_heads(
        self, layer: int, row: int, y: Tensor, s: Tensor, u: Tensor, clipped: Tensor
    ) -> None:
        network, c = self.network, self.converters
        product = 1 + layer * PER_LAYER + C_PRODUCT
        n_heads = network.n_heads
        n_modes = int(network.mode_first[layer + 1] - network.mode_first[layer]) // n_heads
        columns = min(64, triton.next_power_of_2(n_heads))
        grid = (u.shape[0], -(-u.shape[1] // _STEPS), -(-n_heads // columns))
        read_heads[grid](
            y, s, u, clipped, *self.shared, self.skip_step[layer], *self._outputs(product),
            *self._errors(product, row, c.dac_limit), int(network.weight_first[product]),
            self.n_weights, self.n_outputs, self.n_products, product, u.shape[1], n_heads, n_modes,
            float(c.dac_limit), float(c.adc_limit), self.adc_noise,
            DAC=bool(network.analog[product] and c.dac_limit > 0), **self._flags(product),
            STEPS=_STEPS, COLUMNS=columns, **self.real,
        )

    def _add(self, mixed: Tensor, h: Tensor) -> None:
        n_rows, n_heads = h.shape[0] * h.shape[1], h.shape[2]
        columns = min(64, triton.next_power_of_2(n_heads))
        add_layer[(-(-n_rows // _STEPS), -(-n_heads // columns))](
            mixed, h, n_rows, n_heads, mixed.shape[2], GLU=self.network.glu, ROWS=_STEPS,
            COLUMNS=columns,
        )

    def _normalise(self, layer: int, x: Tensor, out: Tensor) -> None:
        n_rows, n_heads = x.shape[0] * x.shape[1], x.shape[2]
        columns = triton.next_power_of_2(n_heads)
        rows = max(1, 2048 // columns)
        normalise[(-(-n_rows // rows),)](
            x, self.norm_scale[layer], self.norm_shift[layer], out, n_rows, n_heads,
            float(self.network.norm_epsilon), AFFINE=bool(self.network.affine_norm), ROWS=rows,
            COLUMNS=columns,
        )
