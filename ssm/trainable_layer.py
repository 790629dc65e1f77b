"""One S4D layer of several models, trained side by side as the chip will run it.

Parameters have a leading axis of runs. Everything is differentiable: weights and A on their
grids, the recurrence with its rounded state, errors of C's and A's cells, and what is new at
every access. `ssm.trainable` puts layers together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ssm.disturbance import power_of_two_above
from ssm.grids import LEAST_SHARE, Grid
from ssm.kinds import stand_in_heads, stand_in_places, without_modes, without_stand_ins
from ssm.model import Layer
from ssm.onchips import OnChips
from ssm.poles import BOUNDED
from ssm.quantize import Precision
from ssm.reading import Reading, StateErrors
from ssm.recurrence import recur
from ssm.rounding import (
    largest_code,
    learn_step,
    learned_step,
    quantize_weights,
    round_poles_through,
    round_range,
    step_for,
    weight_grid,
)
from ssm.schemes import Scheme
from ssm.stacking import stack_of, to_array, to_complex, to_pairs, to_tensor
from ssm.systems import folded, leapfrog_cells, matrix_of, seen_states

_FASTEST_DECAY = 1e-30  # |dA| of a pole at zero: its ln is to be finite
_WIDEST_E, _WIDEST_D = 1.9, 0.999  # e1 e2 < 4 and d < 1 keep the leapfrog form stable
_LEAST_RANGE = 2.0**-40  # of a row whose input never moved


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
        stack = stack_of(layers)
        pole = stack("pole")
        rate = -np.log(np.maximum(np.abs(pole), _FASTEST_DECAY))
        gain = stack("mode_weight") * stack("drive")
        self.register_buffer("rate_start", to_tensor(rate))
        self.register_buffer("gain", to_pairs(gain))
        # as trained: ln of the decay relative to the start, and phase in units of its start
        self.log_rate = nn.Parameter(torch.zeros(rate.shape))
        self.frequency = nn.Parameter(to_tensor(np.angle(pole) / (2 * rate)))
        self.readout = nn.Parameter(to_pairs(stack("readout")))
        self.skip = nn.Parameter(to_tensor(stack("skip")))
        self.mix_weight = nn.Parameter(to_tensor(stack("mix_weight")))
        self.mix_bias = nn.Parameter(to_tensor(stack("mix_bias")))
        self.norm_scale = nn.Parameter(to_tensor(stack("norm_scale")))
        self.norm_shift = nn.Parameter(to_tensor(stack("norm_shift")))
        self._keep_kinds(stack("mode_weight"), pole)
        # full-scale inputs of C's rows: a cell stands for a weight times that
        self.register_buffer("state_range", torch.ones((*pole.shape, 2)))
        self.errors_of_states: StateErrors | None = None  # known once signals have been seen
        self.register_buffer("skip_range", torch.ones(pole.shape[:2]))
        runs = pole.shape[0]
        self.state_step = step_for((*pole.shape, 2), precision.state)
        self.skip_step = step_for((runs, 1), precision.act)
        self.mix_step = step_for((runs, 1), precision.act)
        # learned steps of weights, for the method "lsq"
        self.weight_steps = nn.ModuleDict()
        for name in ("c", "d", "mix"):
            learn_step(
                self.weight_steps, name, *self._weight(name), getattr(precision, name),
                scheme.of(name),
            )

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
            learned_step(self.weight_steps, name),
        )

    def _grid(self, name: str, run: int) -> Grid:
        """Return the integers of c, d or mix of one run."""
        w, dims = self._weight(name)
        return weight_grid(
            w, getattr(self.precision, name), dims, self.scheme.of(name),
            learned_step(self.weight_steps, name), run, "cartesian" if name == "c" else "real",
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
            matrix = matrix_of(re, -im, im, re)
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
        below, behind, theta = folded(phase)
        im = torch.where(below, -im, im)
        im = torch.where(behind, -im, im)
        e, d, sign = leapfrog_cells(rate, behind, theta)
        cells = [e, e, d, d]
        disturbance = self.chips.disturbance
        if noisy and disturbance is not None:
            widest = [_WIDEST_E, _WIDEST_E, _WIDEST_D, _WIDEST_D]
            for k, there in enumerate(self._cells_of_a()):
                found = disturbance.singles(cells[k]).clamp(max=widest[k])
                cells[k] = torch.where(there, found, cells[k])
        e1, e2, d1, d2 = cells
        k1, k2 = sign * (1 - d1), sign * (1 - d2)
        matrix = matrix_of(k1, -k1 * e1, k2 * e2, k2 * (1 - e1 * e2))
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
            e, d, sign = leapfrog_cells(rate, *folded(phase)[1:])
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
            self.state_step.set_range(seen_states(u, self.system(False)[0])[0])
        if self.skip_step is not None:
            self.skip_step.set_range(largest_of(u))
        self.set_row_ranges(u)

    @torch.no_grad()
    def calibrate_mixing(self, y: Tensor) -> None:
        """Set the range of the mixing's inputs from the heads' outputs y (B, T, runs, H)."""
        if self.mix_step is not None:
            self.mix_step.set_range(largest_of(functional.gelu(y)))

    @torch.no_grad()
    def set_row_ranges(self, u: Tensor) -> None:
        """Set the full-scale inputs of C's rows, as deployment would from inputs u."""
        if self.chips.disturbance is None:
            return
        largest, squares = seen_states(u, self.system(False)[0])
        if self.state_step is not None:
            range_of_states = self.state_step() * (largest_code(self.state_step.bits) + 1)
        else:
            # a state that never moves (q of a mode at angle 0) does on cells that err: its row
            # would then carry cells' errors over no range at all
            floor = LEAST_SHARE * largest.amax(dim=(1, 2, 3), keepdim=True)
            range_of_states = _next_power(torch.maximum(largest, floor))
        self.state_range.copy_(range_of_states)
        self.skip_range.copy_(_next_power(u.abs().amax(dim=(0, 1))))
        self._set_read_errors(u, squares, largest)

    def to_layer(self, run: int) -> Layer:
        """Return the layer of one run with its weights on their grids and its learned steps."""
        rate, phase = (to_array(part[run]) for part in self.own_poles())
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
            "readout": np.where(there, to_complex(self.readout[run]), 0.0),
            "skip": to_array(self.skip[run]), "mix_weight": to_array(self.mix_weight[run]),
        } | {name: grid.values() for name, grid in grids.items()} | {"pole": pole}
        steps = [self.skip_step, self.mix_step]
        act = [float(step()[run]) for step in steps if step is not None]
        return replace(
            start,
            **arrays,
            drive=drive,
            mix_bias=to_array(self.mix_bias[run]),
            norm_scale=to_array(self.norm_scale[run]),
            norm_shift=to_array(self.norm_shift[run]),
            state_step=None if self.state_step is None else to_array(self.state_step()[run]),
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


def _one_or_all(mode_weight: np.ndarray) -> np.ndarray:
    """Return the weight of modes (H, M, 1), or one number where all are equal."""
    first = mode_weight.flat[0]
    return np.asarray(first) if (mode_weight == first).all() else mode_weight[..., None]


def largest_of(x: Tensor) -> Tensor:
    """Return the largest |x| (B, T, runs, H) of every run, (runs, 1)."""
    return x.abs().amax(dim=(0, 1, 3))[:, None]


def _next_power(x: Tensor) -> Tensor:
    return power_of_two_above(x.clamp(min=_LEAST_RANGE), -60)


def _positive(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, torch.ones_like(x))


def _poles(rate: np.ndarray, phase: np.ndarray, mode_weight: np.ndarray) -> np.ndarray:
    """Return dA, real where it stands alone and zero where there is no mode."""
    pole = np.exp(-rate + 1j * phase)
    return np.where(mode_weight == 2, pole, np.where(mode_weight == 1, pole.real, 0.0))
