"""Several S4D classifiers of one shape, trained side by side as the chip will run them.

A `Trainable` starts from models, holds their parameters with a leading axis of runs (seeds or
chips that differ), and computes what the deployed network computes: rounded weights and
activations, the recurrence with its rounded state step by step, and fresh errors of the cells in
every batch. All of it is differentiable, rounding with straight-through gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ssm.disturbance import power_of_two_above
from ssm.grids import Grid
from ssm.kinds import stand_in_heads, stand_in_places, without_modes, without_stand_ins
from ssm.model import Layer, Model
from ssm.onchips import OnChips
from ssm.poles import BOUNDED
from ssm.quantize import Precision
from ssm.reading import Reading, StateErrors
from ssm.recurrence import recur
from ssm.rounding import (
    Step,
    largest_code,
    quantize_weights,
    round_poles_through,
    round_range,
    weight_grid,
)
from ssm.schemes import Scheme

_FASTEST_DECAY = 1e-30  # |dA| of a pole at zero: its ln is to be finite
_WIDEST_E, _WIDEST_D = 1.9, 0.999  # e1 e2 < 4 and d < 1 keep the leapfrog form stable
_LEAST_RANGE = 2.0**-40  # of a row whose input never moved
_LEAST_SHARE = 2.0**-12  # of a state's range in the largest of its layer


class TrainableLayer(nn.Module):
    """Parameters of one S4D layer of all runs, and its response."""

    rate_start: Tensor
    gain: Tensor
    state_range: Tensor
    errors_of_c: Tensor
    read_weights: Tensor
    chips: OnChips
    skip_range: Tensor
    pair: Tensor
    alone: Tensor
    negative: Tensor
    rate_place: Tensor
    phase_place: Tensor
    head_place: Tensor

    def __init__(
        self, layers: Sequence[Layer], precision: Precision, chips: OnChips, form: str,
        decay: str, scheme: Scheme,
    ) -> None:
        super().__init__()
        self.start, self.precision, self.scheme = tuple(layers), precision, scheme
        self.chips, self.leapfrog, self.digital_decay = (
            chips, form == "leapfrog", decay == "digital",
        )
        stack = _stack(layers)
        pole = stack("pole")
        rate = -np.log(np.maximum(np.abs(pole), _FASTEST_DECAY))
        gain = stack("mode_weight") * stack("drive")
        self.register_buffer("rate_start", _tensor(rate))
        self.register_buffer("gain", _pairs(gain))
        # as trained: ln of the decay relative to the start, and phase in units of its start
        self.log_rate = nn.Parameter(torch.zeros(rate.shape))
        self.frequency = nn.Parameter(_tensor(np.angle(pole) / (2 * rate)))
        self.readout = nn.Parameter(_pairs(stack("readout")))
        self.skip = nn.Parameter(_tensor(stack("skip")))
        self.mix_weight = nn.Parameter(_tensor(stack("mix_weight")))
        self.mix_bias = nn.Parameter(_tensor(stack("mix_bias")))
        self.norm_scale = nn.Parameter(_tensor(stack("norm_scale")))
        self.norm_shift = nn.Parameter(_tensor(stack("norm_shift")))
        self._keep_kinds(stack("mode_weight"), pole)
        # full-scale inputs of C's rows: a cell stands for a weight times that
        self.register_buffer("state_range", torch.ones((*pole.shape, 2)))
        self.errors_of_states: StateErrors | None = None  # known once signals have been seen
        self.register_buffer("skip_range", torch.ones(pole.shape[:2]))
        runs = pole.shape[0]
        self.state_step = _step((*pole.shape, 2), precision.state)
        self.skip_step = _step((runs, 1), precision.act)
        self.mix_step = _step((runs, 1), precision.act)
        # learned steps of weights, for the method "lsq"
        self.weight_steps = nn.ModuleDict()
        for name in ("c", "d", "mix"):
            _learn_step(self.weight_steps, name, *self._weight(name), precision, scheme)

    def _keep_kinds(self, weight: np.ndarray, pole: np.ndarray) -> None:
        """Remember which modes are pairs, real poles and none, (runs, H, M), and keep them so."""
        self.register_buffer("pair", torch.as_tensor(weight == 2), persistent=False)
        self.register_buffer("alone", torch.as_tensor(weight == 1), persistent=False)
        self.register_buffer("negative", torch.as_tensor(pole.real < 0), persistent=False)
        rate_place, phase_place = stand_in_places(weight, self.scheme.form_of_a)
        self.register_buffer("rate_place", torch.as_tensor(rate_place), persistent=False)
        self.register_buffer("phase_place", torch.as_tensor(phase_place), persistent=False)
        heads = torch.as_tensor(stand_in_heads(weight))
        self.register_buffer("head_place", heads, persistent=False)
        # rounding leaves real poles gradients that are not quite zero, which AdamW would enlarge
        self.frequency.register_hook(lambda grad: grad * self.pair)
        self.readout.register_hook(
            lambda grad: torch.stack([grad[..., 0], grad[..., 1] * self.pair], dim=-1)
        )

    def kernel_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of A, which want a slower learning rate."""
        return [self.log_rate, self.frequency]

    def poles(self) -> tuple[Tensor, Tensor]:
        """Return decay ln 1/|dA| and phase of dA, (runs, H, M), on their grids."""
        log_rate, phase = self._shown()
        bits, form = self.precision.a, self.scheme.form_of_a
        choice = self.scheme.of("a")
        if bits is None or (form == "log-polar" and choice.per == "channel"):
            decay_bits = self.precision.decay or bits
            return torch.exp(round_range(log_rate, decay_bits)), round_range(phase, bits)
        return round_poles_through(
            torch.exp(log_rate), phase, bits, self.precision.decay, form, choice
        )[:2]

    def _shown(self) -> tuple[Tensor, Tensor]:
        """Return ln of the decay and phase before rounding, (runs, H, M), with stand-ins.

        Grids span the modes that are there: others stand in for those that are not.
        """
        log_rate = torch.log(self.rate_start) + self.log_rate
        phase = 2 * self.rate_start * self.frequency
        shown = log_rate.gather(-1, self.rate_place), phase.gather(-1, self.phase_place)
        heads = self.head_place[..., None].expand(log_rate.shape)
        return shown[0].gather(-2, heads), shown[1].gather(-2, heads)

    def _weight(self, name: str) -> tuple[Tensor, tuple[int, ...]]:
        """Return c, d or mix before rounding, and the axes that share a range."""
        per = self.scheme.of(name).per
        if name == "c":
            a, b = self.readout.unbind(-1)
            c, d = self.gain.unbind(-1)
            gain = torch.stack([a * c - b * d, a * d + b * c], dim=-1)
            return gain, {"tensor": (-3, -2, -1), "channel": (-1, -2), "mode": (-1,)}[per]
        if name == "d":
            return self.skip, (-1,)
        return self.mix_weight, (1, 2) if per == "tensor" else (1,)

    def _rounded(self, name: str) -> Tensor:
        """Return c, d or mix on its grid."""
        w, dims = self._weight(name)
        return quantize_weights(
            w, getattr(self.precision, name), dims, self.scheme.of(name),
            _learned(self.weight_steps, name),
        )

    def _grid(self, name: str, run: int) -> Grid:
        """Return the integers of c, d or mix of one run."""
        w, dims = self._weight(name)
        return weight_grid(
            w, getattr(self.precision, name), dims, self.scheme.of(name),
            _learned(self.weight_steps, name), run, "cartesian" if name == "c" else "real",
        )

    def own_poles(self) -> tuple[Tensor, Tensor]:
        """Return what `poles` does, real poles at phase 0 or pi and of no mode at dA = 0."""
        rate, phase = self.poles()
        flat = torch.where(self.negative, math.pi, 0.0).to(phase.dtype)
        none = ~(self.pair | self.alone)
        rate = torch.where(none, -math.log(_FASTEST_DECAY), rate)
        # a code of the Cartesian plane may lie on the other side of zero
        turned = self.pair if self.scheme.form_of_a in BOUNDED else self.pair | self.alone
        return rate, torch.where(turned, phase, flat)

    def gains(self) -> Tensor:
        """Return the folded readout G = mode_weight dB C, (runs, H, M, 2), on its grid."""
        return self._rounded("c")

    def skips(self) -> Tensor:
        """Return D, (runs, H), on its grid."""
        return self._rounded("d")

    def mixing(self) -> Tensor:
        """Return the mixing weights, (runs, H, K), on their grid."""
        return self._rounded("mix")

    def system(self, noisy: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Return step matrices (runs, H, M, 2, 2), readout (runs, H, M, 2) and skip (runs, H)."""
        rate, phase = self.own_poles()
        gain, skip = self.gains(), self.skips()
        if self.leapfrog:
            matrix, readout = self._leapfrog(rate, phase, gain, noisy)
        else:
            size = torch.exp(-rate)
            re, im = size * torch.cos(phase), size * torch.sin(phase)
            matrix = _matrix(re, -im, im, re)
            readout = torch.stack([gain[..., 0], -gain[..., 1]], dim=-1)
        disturbance = self.chips.of("readout")
        if noisy and disturbance is not None:
            column, rows, largest = self._column(readout, skip)
            found = disturbance.pairs(column, largest) / rows
            column = torch.where(self._cells_of_c(skip), found, column / rows)
            readout, skip = column[..., :-1].unflatten(-1, readout.shape[-2:]), column[..., -1]
        return matrix, readout, skip

    def _column(self, readout: Tensor, skip: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what C's cells stand for, the full-scale inputs of its rows, both
        (runs, H, 2 M + 1), and the largest of each column, (runs, H, 1)."""
        rows = torch.cat([self.state_range.flatten(-2), self.skip_range[..., None]], dim=-1)
        column = torch.cat([readout.flatten(-2), skip[..., None]], dim=-1) * rows
        return column, rows, _positive(column.detach().abs().amax(dim=-1, keepdim=True))

    def _cells_of_c(self, skip: Tensor) -> Tensor:
        """Return which weights of C's columns have cells, (runs, H, 2 M + 1)."""
        states = torch.stack([self.pair | self.alone, self.pair], dim=-1).flatten(-2)
        last = (self.pair | self.alone).any(dim=-1) | (skip != 0)
        return torch.cat([states, last[..., None]], dim=-1)

    def _leapfrog(
        self, rate: Tensor, phase: Tensor, gain: Tensor, noisy: bool
    ) -> tuple[Tensor, Tensor]:
        """Return matrix and readout of the sequential leapfrog form (`ssm.forms`)."""
        re, im = gain.unbind(-1)
        below, behind, theta = _folded(phase)
        im = torch.where(below, -im, im)
        im = torch.where(behind, -im, im)
        e, d, sign = _cells_of(rate, behind, theta)
        cells = [e, e, d, d]
        disturbance = self.chips.disturbance
        if noisy and disturbance is not None:
            widest = [_WIDEST_E, _WIDEST_E, _WIDEST_D, _WIDEST_D]
            for k, there in enumerate(self._cells_of_a()):
                found = disturbance.singles(cells[k]).clamp(max=widest[k])
                cells[k] = torch.where(there, found, cells[k])
        e1, e2, d1, d2 = cells
        k1, k2 = sign * (1 - d1), sign * (1 - d2)
        matrix = _matrix(k1, -k1 * e1, k2 * e2, k2 * (1 - e1 * e2))
        c1 = -(im * torch.cos(theta / 2) + re * torch.sin(theta / 2))
        return matrix, torch.stack([re, c1], dim=-1)

    def _cells_of_a(self) -> list[Tensor]:
        """Return where e1, e2 (and d1, d2) have cells, each (runs, H, M) (`ssm.places`)."""
        decay = [] if self.digital_decay else [self.pair | self.alone, self.pair]
        return [self.pair, self.pair, *decay]

    def respond(self, u: Tensor, noisy: bool) -> Tensor:
        """Return the heads' outputs (B, T, runs, H) for their inputs u of that shape."""
        matrix, readout, skip = self.system(noisy)
        step = None if self.state_step is None else self.state_step().flatten(0, 1)
        bits = None if self.state_step is None else self.state_step.bits
        y = recur(u.flatten(2), matrix.flatten(0, 1), readout.flatten(0, 1), step, bits)
        driven = u if self.skip_step is None else self.skip_step.quantize(u)
        y = y.unflatten(2, u.shape[2:]) + driven * skip
        return y + self._read_errors(u, y) if noisy else y

    @torch.no_grad()
    def _read_errors(self, u: Tensor, y: Tensor) -> Tensor:
        """Return what is new at every access of A and C, as it shows in y (B, T, runs, H)."""
        reading = self.chips.reading
        if reading is None or self.errors_of_states is None:
            return torch.zeros_like(y)
        error = self.errors_of_states.draw(len(y))
        if self.chips.of("readout") is not None:
            skip = self.read_weights[..., -1] * u.square()
            power = self.errors_of_c + skip + reading.conversion(y.abs().amax(dim=(0, 1)))
            error += power.sqrt() * torch.randn_like(y)
        return error

    def _set_read_errors(self, u: Tensor, squares: Tensor, largest: Tensor) -> None:
        """Find what `_read_errors` draws, for states of mean squares (T, runs, H, M, 2) and
        of the largest magnitude (runs, H, M, 2)."""
        reading = self.chips.reading
        if reading is None:
            return
        matrix, readout, skip = self.system(False)
        enter, variance = self._state_errors(reading, squares, largest)
        self.errors_of_states = StateErrors(matrix, readout, enter, variance)
        column, rows, most = self._column(readout, skip)
        self.read_weights = reading.pairs(column, most) / rows**2 * self._cells_of_c(skip)
        steps = (column / rows) ** 2 * reading.drive(rows, shift=True)
        if self.state_step is not None:  # states and inputs already are what DACs pass
            steps = torch.zeros_like(steps)
        of_states = (squares.flatten(-2) * self.read_weights[..., :-1]).sum(dim=-1)
        self.errors_of_c = of_states + steps.sum(dim=-1)

    def _state_errors(
        self, reading: Reading, squares: Tensor, largest: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return how errors of a step enter the states, (runs, H, M, 2, k), and their variances
        (T, runs, H, M, k): of the registers that hold the states, and of the products of A."""
        ones, zeros = torch.ones_like(self.rate_start), torch.zeros_like(self.rate_start)
        enter = [(ones, zeros), (zeros, ones)]
        variance = []
        for k, there in enumerate((self.pair | self.alone, self.pair)):
            held = reading.held(largest[..., k]) if self.state_step is None else zeros
            variance.append(torch.where(there, held, zeros).expand(squares.shape[:-1]))
        if self.leapfrog and self.chips.disturbance is not None:
            rate, phase = self.own_poles()
            e, d, sign = _cells_of(rate, *_folded(phase)[1:])
            keep = sign * (1 - d)
            ways = [(-keep, -keep * e), (zeros, keep), (-sign, zeros), (zeros, -sign)]
            cells, rows = [e, e, d, d], [1, 0, 0, 1]  # what they are, and the state they see
            for k, there in enumerate(self._cells_of_a()):
                cell, size = cells[k], largest[..., rows[k]]
                fixed = cell**2 * reading.drive(self.state_range[..., rows[k]], shift=True)
                fixed = fixed + reading.conversion(cell * size, shift=True)
                own = reading.singles(cell) * squares[..., rows[k]] + fixed
                enter.append(ways[k])
                variance.append(torch.where(there, own, torch.zeros_like(own)))
        inputs = torch.stack([torch.stack(pair, dim=-1) for pair in enter], dim=-1)
        return inputs, torch.stack(variance, dim=-1)

    def mix(self, y: Tensor, noisy: bool) -> Tensor:
        """Return GELU, mixing and gate of the heads' outputs, (B, T, runs, H)."""
        y = functional.gelu(y)
        if self.mix_step is not None:
            y = self.mix_step.quantize(y)
        mixed = self.chips.product(
            "mixing", y, self.mixing(), noisy, rounded=self.mix_step is not None
        )
        mixed = mixed + self.mix_bias
        return functional.glu(mixed, dim=-1) if mixed.shape[-1] > y.shape[-1] else mixed

    @torch.no_grad()
    def calibrate(self, u: Tensor) -> None:
        """Set the ranges of states and inputs from the heads' inputs u (B, T, runs, H)."""
        if self.state_step is not None:
            self.state_step.set_range(_seen_states(u, self.system(False)[0])[0])
        if self.skip_step is not None:
            self.skip_step.set_range(_largest(u))
        self.set_row_ranges(u)

    @torch.no_grad()
    def calibrate_mixing(self, y: Tensor) -> None:
        """Set the range of the mixing's inputs from the heads' outputs y (B, T, runs, H)."""
        if self.mix_step is not None:
            self.mix_step.set_range(_largest(functional.gelu(y)))

    @torch.no_grad()
    def set_row_ranges(self, u: Tensor) -> None:
        """Set the full-scale inputs of C's rows, as deployment would from inputs u."""
        if self.chips.disturbance is None:
            return
        largest, squares = _seen_states(u, self.system(False)[0])
        if self.state_step is not None:
            range_of_states = self.state_step() * (largest_code(self.state_step.bits) + 1)
        else:
            # a state that never moves (q of a mode at angle 0) does on cells that err: its row
            # would then carry cells' errors over no range at all
            floor = _LEAST_SHARE * largest.amax(dim=(1, 2, 3), keepdim=True)
            range_of_states = _next_power(torch.maximum(largest, floor))
        self.state_range.copy_(range_of_states)
        self.skip_range.copy_(_next_power(u.abs().amax(dim=(0, 1))))
        self._set_read_errors(u, squares, largest)

    def to_layer(self, run: int) -> Layer:
        """Return the layer of one run with its weights on their grids and its learned steps."""
        rate, phase = (_array(part[run]) for part in self.own_poles())
        start = self.start[run]
        grids: dict[str, Grid] = {}
        weight, there = start.mode_weight, start.mode_weight > 0
        drive, pole = start.drive, _poles(rate, phase, weight)
        if self.precision.a is not None:
            # the layer drops a grid that has no code for a real pole or an empty place
            grids["pole"] = without_modes(self._pole_grid(run), weight)
            pole = without_stand_ins(
                grids["pole"].values(), start.pole, weight, self.scheme.form_of_a
            )
        if self.precision.c is not None:
            # what is rounded is the folded gain: dB becomes 1, the weight of modes 1
            folded = self._grid("c", run)
            drive = there.astype(complex)
            scale = folded.scale / _one_or_all(np.where(there, weight, weight.max(initial=1.0)))
            grids["readout"] = replace(folded, scale=scale)
        if self.precision.d is not None:
            grids["skip"] = self._grid("d", run)
        if self.precision.mix is not None:
            grids["mix_weight"] = self._grid("mix", run)
        arrays = {
            "readout": np.where(there, _complex(self.readout[run]), 0.0),
            "skip": _array(self.skip[run]), "mix_weight": _array(self.mix_weight[run]),
        } | {name: grid.values() for name, grid in grids.items()} | {"pole": pole}
        steps = [self.skip_step, self.mix_step]
        act = [float(step()[run]) for step in steps if step is not None]
        return replace(
            start,
            **arrays,
            drive=drive,
            mix_bias=_array(self.mix_bias[run]),
            norm_scale=_array(self.norm_scale[run]),
            norm_shift=_array(self.norm_shift[run]),
            state_step=None if self.state_step is None else _array(self.state_step()[run]),
            act_step=np.array(act) if act else None,
            grids=grids,
        )

    def _pole_grid(self, run: int) -> Grid:
        """Return the integers of A of one run."""
        bits = self.precision.a
        assert bits is not None
        log_rate, phase = (each[run : run + 1] for each in self._shown())
        *_, (grid,) = round_poles_through(
            torch.exp(log_rate), phase, bits, self.precision.decay, self.scheme.form_of_a,
            self.scheme.of("a"),
        )
        return grid


class Trainable(nn.Module):
    """Models of one shape as one module; `forward` gives logits (B, runs, classes).

    Parameters
    ----------
    models : one a run. precision : bits of every quantity. chips : errors of each run's chip,
    drawn anew in every pass while training. form : of A, "digital" or "leapfrog". decay :
    leapfrog: "tile" or "digital". scheme : how weights are rounded.
    """

    chips: OnChips

    def __init__(
        self, models: Sequence[Model], precision: Precision | None = None,
        chips: OnChips | None = None, form: str = "digital", decay: str = "tile",
        scheme: Scheme | None = None,
    ) -> None:
        super().__init__()
        self.start, self.precision = tuple(models), precision or Precision()
        self.scheme = scheme or Scheme()
        self.chips = chips or OnChips()
        first = models[0]
        self.norm, self.pool, self.layer_norm = first.norm, first.pool, first.norm_kind == "layer"
        self.norm_epsilon = first.norm_epsilon
        stack = _stack(models)
        self.encoder_weight = nn.Parameter(_tensor(stack("encoder_weight")))
        self.encoder_bias = nn.Parameter(_tensor(stack("encoder_bias")))
        self.decoder_weight = nn.Parameter(_tensor(stack("decoder_weight")))
        self.decoder_bias = nn.Parameter(_tensor(stack("decoder_bias")))
        self.layers = [
            TrainableLayer(
                [model.layers[k] for model in models], self.precision, self.chips, form, decay,
                self.scheme,
            )
            for k in range(first.n_layers)
        ]
        for k, layer in enumerate(self.layers):
            self.add_module(f"layer_{k}", layer)
        self.input_step = _step((len(models), 1), self.precision.act)
        self.decode_step = _step((len(models), 1), self.precision.act)
        self.weight_steps = nn.ModuleDict()
        for name in ("enc", "dec"):
            _learn_step(self.weight_steps, name, *self._weight(name), self.precision, self.scheme)

    def set_precision(self, precision: Precision) -> None:
        """Change the bits of what is rounded; ranges stay."""
        self.precision = precision
        for layer in self.layers:
            layer.precision = precision
            if layer.state_step is not None and precision.state is not None:
                layer.state_step.bits = precision.state
        for step in self._act_steps():
            step.bits = precision.act or step.bits
        parts: list[Trainable | TrainableLayer] = [self, *self.layers]
        for part in parts:
            for name, learned in part.weight_steps.items():
                assert isinstance(learned, Step)
                learned.bits = getattr(precision, name) or learned.bits

    def kernel_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of A of all layers."""
        return [p for layer in self.layers for p in layer.kernel_parameters()]

    def step_parameters(self) -> list[nn.Parameter]:
        """Return the learned ranges of all quantisers."""
        return [part.log_range for part in self.modules() if isinstance(part, Step)]

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, runs, classes) for x (B, T, d_input)."""
        h = self._pooled(x)
        if self.decode_step is not None:
            h = self.decode_step.quantize(h)
        logits = self._dense("decoder", h[:, None], self.decode_step is not None)
        return logits[:, 0] + self.decoder_bias

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        """Set the ranges of all quantisers from what the network shows on x (n, T, d_input)."""
        if self.input_step is not None:
            self.input_step.set_range(x.abs().amax().expand_as(self.input_step.log_range))
        with self._undisturbed():
            # what a quantiser sees depends on those before it alone, so one pass is enough
            pooled = self._pooled(x, TrainableLayer.calibrate, TrainableLayer.calibrate_mixing)
        if self.decode_step is not None:
            self.decode_step.set_range(_largest(pooled[:, None]))

    @torch.no_grad()
    def set_row_ranges(self, x: Tensor) -> None:
        """Set the full-scale inputs of C's rows to what the network as it is shows on x."""
        if self.chips.disturbance is not None:
            with self._undisturbed():
                self._pooled(x, TrainableLayer.set_row_ranges)

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        was = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(was)

    def _pooled(
        self, x: Tensor, see_inputs: Watch | None = None, see_outputs: Watch | None = None
    ) -> Tensor:
        """Return the last layer's output, pooled over time (B, runs, H).

        see_inputs, see_outputs : called with every layer and its heads' inputs or outputs.
        """
        x = x[:, :, None, :]
        if self.input_step is not None:
            x = self.input_step.quantize(x)
        x = x.expand(-1, -1, len(self.encoder_weight), -1)
        h = self._dense("encoder", x, self.input_step is not None) + self.encoder_bias
        for layer in self.layers:
            u = self._normalise(layer, h) if self.norm == "pre" else h
            if see_inputs is not None:
                see_inputs(layer, u)
            y = layer.respond(u, self.training)
            if see_outputs is not None:
                see_outputs(layer, y)
            h = h + layer.mix(y, self.training)
            h = self._normalise(layer, h) if self.norm == "post" else h
        return h.mean(dim=1) if self.pool == "mean" else h[:, -1]

    def _dense(self, name: str, x: Tensor, rounded: bool) -> Tensor:
        """Return x (B, T, runs, n_in) through the encoder or decoder."""
        short = name[:3]
        w, dims = self._weight(short)
        weight = quantize_weights(
            w, getattr(self.precision, short), dims, self.scheme.of(short),
            _learned(self.weight_steps, short),
        )
        return self.chips.product(name, x, weight, self.training, rounded=rounded)

    def _weight(self, name: str) -> tuple[Tensor, tuple[int, ...]]:
        """Return enc or dec before rounding, and the axes that share a range."""
        w = self.encoder_weight if name == "enc" else self.decoder_weight
        return w, (1, 2) if self.scheme.of(name).per == "tensor" else (1,)

    def _normalise(self, layer: TrainableLayer, h: Tensor) -> Tensor:
        if self.layer_norm:
            h = functional.layer_norm(h, h.shape[-1:], eps=self.norm_epsilon)
        return h * layer.norm_scale + layer.norm_shift

    def _act_steps(self) -> list[Step]:
        steps = [self.input_step, self.decode_step]
        steps += [step for layer in self.layers for step in (layer.skip_step, layer.mix_step)]
        return [step for step in steps if step is not None]

    @torch.no_grad()
    def to_models(self) -> list[Model]:
        """Return the model of every run: weights on their grids, precision, learned steps."""
        result = []
        for run, start in enumerate(self.start):
            p = self.precision
            act = [float(s()[run]) for s in (self.input_step, self.decode_step) if s is not None]
            carried = {**(start.precision or {}), **p.given()}
            arrays = {"encoder_weight": self.encoder_weight, "decoder_weight": self.decoder_weight}
            grids = {}
            for name, array in (("enc", "encoder_weight"), ("dec", "decoder_weight")):
                bits = getattr(p, name)
                if bits is not None:
                    w, dims = self._weight(name)
                    grids[array] = weight_grid(
                        w, bits, dims, self.scheme.of(name), _learned(self.weight_steps, name), run
                    )
            weights = {name: _array(w[run]) for name, w in arrays.items()}
            result.append(
                start.replace(
                    **weights | {name: grid.values() for name, grid in grids.items()},
                    grids=grids,
                    encoder_bias=_array(self.encoder_bias[run]),
                    layers=tuple(layer.to_layer(run) for layer in self.layers),
                    decoder_bias=_array(self.decoder_bias[run]),
                    precision=carried or None,
                    act_step=np.array(act) if act else None,
                    sha256="",
                )
            )
        return result


Watch = Callable[[TrainableLayer, Tensor], None]


def _step(shape: tuple[int, ...], bits: int | None) -> Step | None:
    return None if bits is None else Step(shape, bits)


def _learn_step(
    steps: nn.ModuleDict, name: str, w: Tensor, dims: tuple[int, ...], precision: Precision,
    scheme: Scheme,
) -> None:
    """Add the learned step of a weight where the scheme asks for one, at 2 mean |w|/sqrt(L)."""
    bits, choice = getattr(precision, name), scheme.of(name)
    if bits is None or choice.method != "lsq":
        return
    size = w.detach().abs().mean(dims, keepdim=True)
    step = Step(tuple(size.shape), bits)
    step.set_range(2 * size * largest_code(bits) ** 0.5)
    steps[name] = step


def _learned(steps: nn.ModuleDict, name: str) -> Tensor | None:
    """Return the learned step of a weight, or None."""
    return steps[name]() if name in steps else None


def _one_or_all(mode_weight: np.ndarray) -> np.ndarray:
    """Return the weight of modes (H, M, 1), or one number where all are equal."""
    first = mode_weight.flat[0]
    return np.asarray(first) if (mode_weight == first).all() else mode_weight[..., None]


def _folded(phase: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return which angles lie below zero, which beyond a right angle, and theta in 0 .. pi/2."""
    phase = torch.remainder(phase + math.pi, 2 * math.pi) - math.pi
    size = phase.abs()
    behind = size > math.pi / 2
    return phase < 0, behind, torch.where(behind, math.pi - size, size)


def _cells_of(rate: Tensor, behind: Tensor, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return e, d and the sign of the leapfrog form (`ssm.forms`) without errors."""
    sign = 1.0 - 2.0 * behind.to(theta.dtype)
    return 2 * torch.sin(theta / 2), -torch.expm1(-rate), sign


def _matrix(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    rows = [torch.stack([a, b], dim=-1), torch.stack([c, d], dim=-1)]
    return torch.stack(rows, dim=-2)


def _largest(x: Tensor) -> Tensor:
    """Return the largest |x| (B, T, runs, H) of every run, (runs, 1)."""
    return x.abs().amax(dim=(0, 1, 3))[:, None]


def _seen_states(u: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest magnitude of every state, (runs, H, M, 2), and its mean square at every
    step, (T, runs, H, M, 2), for inputs (B, T, runs, H)."""
    x = torch.zeros((u.shape[0], *matrix.shape[:-1]), dtype=u.dtype, device=u.device)
    most, squares = torch.zeros_like(x[0]), []
    for t in range(u.shape[1]):
        x = torch.einsum("rhmij,brhmj->brhmi", matrix, x)
        x[..., 0] += u[:, t, :, :, None]
        most = torch.maximum(most, x.abs().amax(dim=0))
        squares.append(x.square().mean(dim=0))
    return most, torch.stack(squares)


def _next_power(x: Tensor) -> Tensor:
    return power_of_two_above(x.clamp(min=_LEAST_RANGE), -60)


def _positive(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, torch.ones_like(x))


def _tensor(x: np.ndarray) -> Tensor:
    return torch.as_tensor(np.ascontiguousarray(x)).to(torch.float32)


def _pairs(x: np.ndarray) -> Tensor:
    return torch.view_as_real(torch.as_tensor(x)).to(torch.float32)


def _array(x: Tensor) -> np.ndarray:
    return x.detach().cpu().double().numpy().copy()


def _complex(x: Tensor) -> np.ndarray:
    parts = _array(x)
    return np.asarray(parts[..., 0] + 1j * parts[..., 1])


def _poles(rate: np.ndarray, phase: np.ndarray, mode_weight: np.ndarray) -> np.ndarray:
    """Return dA, real where it stands alone and zero where there is no mode."""
    pole = np.exp(-rate + 1j * phase)
    return np.where(mode_weight == 2, pole, np.where(mode_weight == 1, pole.real, 0.0))


def _stack(parts: Sequence[object]) -> Callable[[str], np.ndarray]:
    return lambda name: np.stack([getattr(part, name) for part in parts])
