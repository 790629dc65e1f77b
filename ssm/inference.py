"""The recurrent run on a programmed chip: `infer` for whole sequences, `step` for streams."""

from __future__ import annotations

import math
import time
from collections.abc import Collection
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aimc_sim.chip import Chip
from aimc_sim.errors import CapacityError, InputError, UsageError
from aimc_sim.kernels import threads
from aimc_sim.kernels.moving import Telegraph, copy_moving
from aimc_sim.noise import noise_split, refresh_pace
from aimc_sim.randomness import Purpose, clock_word
from ssm.correction import Corrections, correct, reads_of_correction
from ssm.costs import cost_inference, drawn_conductances
from ssm.deploy import LARGEST
from ssm.engine import choose_engine
from ssm.forms import leapfrog_group_matrix
from ssm.kernels import sequence
from ssm.kernels.network import A_PRODUCT, C_PRODUCT, MIX_PRODUCT, PER_LAYER, Weights
from ssm.kernels.weights import Address, Cells, Correction, read_weights, sequence_weights
from ssm.ranges import buffer_sizes, empty_record
from ssm.wiring import draw_peripheries

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from aimc_sim.costs import Costs
    from aimc_sim.writing import Written
    from ssm.deploy import Deployment


@dataclass(frozen=True, eq=False)
class Run:
    """What the chip answered.

    logits : (n, n_classes) for one chip, (chips, n, n_classes) for several, float32.
    states : (chips, n, time, 2, K) where asked for, else None: both real states of every mode.
    layers : (chips, n, time, L + 1, H) where asked for, else None: the signal after the encoder
        and after every layer.
    counts : events of the whole run: steps, conversions, products of A; the calibration reads
        that the compensation took at this moment and the columns that it had to leave alone.
    wall_s : duration of the simulation.
    deployment : what ran.
    saturation : conversions of every part on tiles that clipped, and all of them.
    g_s : (n_cells,) conductances by which cells draw current, mean over chips.
    engine : "cpu" or "cuda", which ran it.
    """

    logits: NDArray[np.float32]
    states: NDArray[np.float32] | None
    counts: dict[str, int]
    wall_s: float
    deployment: Deployment | None = None
    layers: NDArray[np.float32] | None = None
    saturation: dict[str, tuple[int, int]] = field(default_factory=dict)
    g_s: NDArray[np.floating] | None = field(default=None, repr=False)
    engine: str = "cpu"

    @cached_property
    def costs(self) -> Costs:
        """Energy and latency of the run, its sequences one after the other on every chip.

        Conductances are those of the run, drives those of the error-free model on the calibration
        signal. Raises InputError where the chip's costs cannot be known.
        """
        from ssm.drives import measured_drives

        d, n = self.deployment, int(np.prod(self.logits.shape[:-1]))
        if d is None:
            raise UsageError("find the costs of a run", "it has no deployment", "run `infer`")
        n_steps = self.counts["steps"] // n
        found = cost_inference(d, n_steps, drives=measured_drives(d), g_s=self.g_s)
        return found.costs.times(n)

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.logits.shape))
        return f"run of {shape} logits, {self.diverged} diverged, in {self.wall_s:.2g} s"

    @property
    def diverged(self) -> int:
        """Number of (chip, sample) pairs whose logits are not finite."""
        finite = np.asarray(np.isfinite(self.logits).all(axis=-1))
        return int(finite.size - finite.sum())

    def accuracy(self, y: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the share of right answers of every chip, (chips,); not finite is wrong.

        y : (n,) classes of the sequences, from 0.
        """
        logits = self.logits if self.logits.ndim == 3 else self.logits[None]
        finite = np.asarray(np.isfinite(logits).all(axis=-1))
        right = (np.where(finite[..., None], logits, 0).argmax(axis=-1) == y) & finite
        return np.asarray(right.mean(axis=-1))


@dataclass(eq=False)
class StreamState:
    """State between two calls of `step`: n streams, each with its own states and read noise.

    states : (n, 2, K) of all layers. pooled : (n, H) sum over the steps so far. step : their
        number.
    weights : what the cells stand for in every stream, moving noise included.
    """

    states: NDArray[np.float32] = field(repr=False)  # (n, 2, K)
    pooled: NDArray[np.float32] = field(repr=False)  # (n, H)
    step: int
    weights: list[Weights] = field(repr=False)


class ProgrammedModel:
    """A deployment on one or more sampled chips: `wait`, `infer`, `step`.

    Everything is a function of the seed and of what is read when; reads change nothing.

    deployment : what is on them. seed, chips, first_chip : so many chips of that seed, from number
    first_chip on. written : what writing left in the cells, (chips, n_cells), to restore a saved
    chip or to try another writing; None writes them.
    """

    def __init__(
        self, deployment: Deployment, seed: int = 0, chips: int = 1, first_chip: int = 0,
        written: Written | None = None,
    ) -> None:
        # a cell: programmed, aged, noise quality, and float64 values on the way there; behind
        # resistive lines what terminals see of it, now and at programming, and its transfer
        each = 24 + (44 if deployment.spec.wires is not None else 0)
        check_memory(
            f"program {chips} chips of {deployment.layout.n_cells} cells",
            chips * deployment.layout.n_cells * each + deployment.weights.plus.size * 64,
            "program fewer chips at once and run them in turns (first_chip)",
        )
        self.deployment = deployment
        self.chip = Chip(
            deployment.spec, deployment.layout, deployment.target_s, seed, chips, first_chip,
            written,
        )
        self.peripheries = draw_peripheries(deployment, self.chip)
        self._corrected: tuple[int, Corrections] | None = None

    def __repr__(self) -> str:
        d = self.deployment
        return f"{d.model.name or 'model'} on {d.spec.name}, form {d.form}; {self.chip}"

    @property
    def chips(self) -> int:
        """Number of sampled chips."""
        return self.chip.n_replicas

    @property
    def time_s(self) -> float:
        """Seconds since programming."""
        return self.chip.time_s

    def wait(self, seconds: float | str, temperature_k: float | None = None) -> ProgrammedModel:
        """Let time pass, seconds or text such as "1h" (see `Chip.wait`); return the model.

        temperature_k : meanwhile [K]; None: that of the chip.
        """
        self.chip.wait(seconds, temperature_k)
        return self

    def infer(
        self, x: NDArray[np.floating], *, first_sample: int = 0, return_states: bool = False,
        return_layers: bool = False, engine: str = "cpu",
    ) -> Run:
        """Run whole sequences from zero states on every chip.

        Parameters
        ----------
        x : (n, time, d_input), finite.
        first_sample : number of the first sequence, the address of its read noise; a batch
            split into pieces with this set draws the same noise as the whole.
        return_states, return_layers : also what `Run.states` and `Run.layers` hold.
        engine : "cpu"; "cuda", an NVIDIA GPU; or "auto", a GPU where there is one. What a GPU
            cannot do runs on the CPU, with one line that says why (`ssm.engine`).

        Raises InputError for data that the model cannot read, UsageError for an unknown engine.
        """
        x = self._checked(x)
        d = self.deployment
        started = time.perf_counter()
        n_states = d.network.sign.size
        length = x.shape[1] if return_states else 0
        traced = (x.shape[1] if return_layers else 0, d.model.n_layers + 1, d.network.n_heads)
        numbers = length * 2 * n_states + math.prod(traced) + d.model.n_classes
        check_memory(
            f"run {len(x)} sequences on {self.chips} chips", self.chips * len(x) * 4 * numbers,
            "run fewer sequences at once (first_sample)",
        )
        logits = np.zeros((self.chips, len(x), d.model.n_classes), np.float32)
        traces = np.zeros((self.chips, len(x), length, 2, n_states), np.float32)
        layers = np.zeros((self.chips, len(x), *traced), np.float32)
        clipped = np.zeros((self.chips, len(x), d.network.analog.size), np.int64)
        aged = self.chip.aged()
        ran = choose_engine(engine, d, traced=return_states or return_layers)
        if ran == "cuda":
            from ssm.gpu.run import run_batch

            run_batch(
                x, first_sample, self.chip.draws, self._cells(), aged, self._corrections(),
                self.peripheries, d.network, d.converters, self._source(), logits, clipped,
            )
        else:
            sequence.run_batch(
                x, first_sample, self.chip.draws, self._cells(), self._telegraphs(),
                aged, self._corrections(), self.peripheries, d.network, d.converters,
                empty_record(d.network, False), self._source(), *buffer_sizes(d.network), logits,
                traces, clipped, layers,
            )
        wall_s = time.perf_counter() - started
        logits = logits[0] if self.chips == 1 else logits
        counts = self._counts(len(x), x.shape[1])
        saturation = saturation_of(d, clipped.sum(axis=(0, 1)), self.chips * len(x), x.shape[1])
        return Run(
            logits, traces if return_states else None, counts, wall_s, d,
            layers if return_layers else None, saturation,
            drawn_conductances(self.chip, aged), ran,
        )

    def only(self, products: Collection[int]) -> ProgrammedModel:
        """Return the same chip with these products on it and all others exact, in digital logic.

        products : numbers as in `ssm.kernels.network`. Cells, clock and what compensation found
        are shared; the state registers stay as wide as they are.
        """
        d, chosen = self.deployment, np.array(sorted(products), np.int64)
        here = np.isin(d.weights.product, chosen)
        analog = d.network.analog & np.isin(np.arange(d.network.analog.size), chosen)
        weights = replace(
            d.weights, plus=np.where(here, d.weights.plus, -1),
            minus=np.where(here, d.weights.minus, -1),
        )
        alone = copy(self)
        alone._corrected = (self.chip.clock_ns, self.corrections)
        alone.deployment = replace(d, weights=weights, network=d.network._replace(analog=analog))
        return alone

    def step(
        self, u: NDArray[np.floating], state: StreamState | None = None, *, first_sample: int = 0
    ) -> tuple[NDArray[np.float32], StreamState]:
        """Run one time step of n streams on the first chip.

        Parameters
        ----------
        u : (n, d_input) or (d_input,), the inputs of this step.
        state : what the last call returned; None starts new streams.
        first_sample : number of the first stream, part of the address of its draws.

        Returns
        -------
        y : (n, n_classes), the logits after this step (those of `infer` on the inputs so far).
        state : to pass to the next call; the one passed in stays as it was.

        Raises InputError for inputs of another width, or as many as there are no streams of.
        """
        u = self._checked(np.atleast_2d(u)[:, None, :])[:, 0]
        d = self.deployment
        if state is None:
            state = self._start(len(u), first_sample)
        if len(state.states) != len(u):
            raise InputError(
                f"step {len(u)} streams", f"the state is of {len(state.states)} streams",
                "pass as many inputs as there are streams",
            )
        weights = [
            w._replace(w=w.w.copy(), moving=copy_moving(w.moving)) if w.moving.on else w
            for w in state.weights
        ]
        new = StreamState(state.states.copy(), state.pooled.copy(), state.step + 1, weights)
        y = np.zeros((len(u), d.model.n_classes), np.float32)
        silent = empty_record(d.network, False)
        work = sequence.make_work(d.network, d.model.n_classes, *buffer_sizes(d.network))
        for i in range(len(u)):
            sequence.step_one(
                u[i], state.step, first_sample + i, clock_word(self.chip.clock_ns), d.network,
                weights[i], d.converters, silent, new.states[i].reshape(-1), new.pooled[i],
                y[i], work,
            )
        return y, new

    def unstable_modes(self) -> NDArray[np.int64]:
        """Return how many modes lie outside the unit circle on every chip, (chips,).

        From the cells as they are now, before read noise; digital A counts none.
        """
        d = self.deployment
        result = np.zeros(self.chips, np.int64)
        if d.form == "digital":
            return result
        corrections = self._corrections()
        for replica in range(self.chips):
            w = self._static_weights(replica, corrections[replica].gain)
            for layer in range(d.model.n_layers):
                result[replica] += _count_unstable(d, w, layer)
        return result

    def restore(self, corrections: Corrections) -> None:
        """Take the corrections of this moment as found before, instead of reading again."""
        self._corrected = (self.chip.clock_ns, corrections)

    def save(self, path: str | Path) -> None:
        """Write the programmed chips, all that `ssm.load_chip` needs, to `path` (.npz)."""
        from ssm.storage import save_chip

        save_chip(self, path)

    def _start(self, n: int, first_sample: int) -> StreamState:
        d = self.deployment
        cells, source, g = self._cells(), self._source(), self.chip.aged()
        correction, telegraph = self._corrections()[0], self._telegraphs()[0]
        weights = [
            sequence_weights(
                0, first_sample + i, self.chip.draws, cells, telegraph, g[0], correction,
                self.peripheries[0], d.network, d.converters, source,
            )
            for i in range(n)
        ]
        shape = (n, 2, d.network.sign.size)
        return StreamState(
            np.zeros(shape, np.float32), np.zeros((n, d.network.n_heads), np.float32), 0, weights
        )

    def _static_weights(self, replica: int, gain: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return what the cells stand for now, without read noise: (n_weights,)."""
        cells = self._cells()
        w = np.empty(cells.exact.size, np.float32)
        g = self.chip.clipped(self.chip.aged()[replica], replica)
        seen = self.chip.seen(g, np.zeros_like(g), replica)
        read_weights(cells, *seen, gain, w, np.empty_like(w))
        return w

    def _checked(self, x: NDArray[np.floating]) -> NDArray[np.float32]:
        x = np.asarray(x)
        width = self.deployment.model.d_input
        if x.ndim != 3 or x.shape[2] != width or x.shape[0] == 0 or x.shape[1] == 0:
            raise InputError(
                f"run data of shape {x.shape}", f"the model reads {width} feature(s) a step",
                f"give an array (n, time, {width}) that is not empty",
            )
        if x.dtype.kind not in "fiub" or not (np.abs(x) <= LARGEST).all():
            raise InputError("run data", "some are NaN, infinite or no real numbers", "clean them")
        return np.ascontiguousarray(x, np.float32)

    def _cells(self) -> Cells:
        chip, weights = self.chip, self.deployment.weights
        split = noise_split(chip.spec, chip.time_s)
        floor, ceiling = chip.limits_s
        return Cells(
            *chip.noise_s(), np.float32(split.slow), np.float32(split.fast),
            np.array(split.bands, np.float32), refresh_pace(chip.spec), floor, ceiling,
            chip.unconnected, np.float32(chip.spec.device.g_min_s), weights.plus, weights.minus,
            weights.scale, weights.exact, *self._owners(), *self._lines(),
        )

    def _lines(self) -> list[NDArray[np.float32]]:
        """Return shift, slope and extra variance of all cells (see `wired.Transfer`).

        Each (chips, n_cells), and (chips, 0) where no line resists.
        """
        if not self.chip.is_wired:
            return [np.zeros((self.chips, 0), np.float32)] * 3
        each = [self.chip.transfer(replica) for replica in range(self.chips)]
        return [
            np.stack([getattr(found, name) for found in each])
            for name in ("shift", "slope", "extra")
        ]

    def _owners(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the weight that each cell belongs to (-1: none), and its change per siemens.

        Both (n_cells,), and (0,) where no cell has telegraph noise.
        """
        n_cells = self.chip.n_cells if self.chip.spec.device.telegraph is not None else 0
        owner, turn = np.full(n_cells, -1, np.int64), np.zeros(n_cells, np.float32)
        weights = self.deployment.weights
        if n_cells:
            for cells, sign in ((weights.plus, 1), (weights.minus, -1)):
                piece, weight = np.nonzero((cells >= 0) & (weights.scale > 0))
                index = cells[piece, weight]
                owner[index], turn[index] = weight, sign * weights.scale[piece, weight]
        return owner, turn

    def _telegraphs(self) -> list[Telegraph]:
        """Return the cells with telegraph noise of every chip, those of a weight side by side."""
        owner, _ = self._owners()
        result = []
        for replica in range(self.chips):
            telegraph = self.chip.telegraph(replica)
            if telegraph.cell.size:
                weight = owner[telegraph.cell]
                order = np.argsort(weight, kind="stable")[(weight < 0).sum() :]
                telegraph = Telegraph(*(values[order] for values in telegraph))
            result.append(telegraph)
        return result

    def _source(self) -> Address:
        chip = self.chip
        return Address(
            *chip.seed_words, chip.first_replica, clock_word(chip.clock_ns),
            int(Purpose.READ_SLOW), int(Purpose.READ), int(Purpose.BAND), int(Purpose.REFRESH),
            int(Purpose.SWITCH),
        )

    def _corrections(self) -> list[Correction]:
        """Return what the digital side does about drift now, one for each chip."""
        return self.corrections.each

    @property
    def corrections(self) -> Corrections:
        """What the digital side does about drift and offsets at this moment, found once."""
        now = self.chip.clock_ns
        if self._corrected is None or self._corrected[0] != now:
            self._corrected = (now, correct(
                self.deployment, self.chip, self._cells(), self.peripheries
            ))
        return self._corrected[1]

    def _counts(self, n: int, n_steps: int) -> dict[str, int]:
        events = self.deployment.conversions()
        runs = self.chips * n
        return {
            "steps": runs * n_steps,
            "adc_conversions": runs * (events["per_step"] * n_steps + events["at_end"]),
            "state_products": runs * n_steps * events["state_products"],
            "calibration_reads": self.chips * reads_of_correction(self.deployment),
            "uncorrected_columns": int(self.corrections.left_alone.sum()),
        }


def saturation_of(
    d: Deployment, clipped: NDArray[np.int64], n_runs: int, n_steps: int
) -> dict[str, tuple[int, int]]:
    """Return clipped and all conversions of every part on tiles: encoder, A, C, mixing of a layer,
    decoder.

    clipped : (n_products,) of n_runs runs of n_steps steps.
    """
    each = np.diff(d.converters.adc_first) * d.network.analog * d.converters.planes * n_runs
    each[:-1] *= n_steps
    parts = {"encoder": [0]}
    for layer in range(d.model.n_layers):
        first = 1 + layer * PER_LAYER
        for name, products in (
            ("A", range(A_PRODUCT, C_PRODUCT)), ("C", [C_PRODUCT]), ("mixing", [MIX_PRODUCT])
        ):
            parts[f"layer {layer} {name}"] = [first + k for k in products]
    parts["decoder"] = [each.size - 1]
    return {
        name: (int(clipped[own].sum()), int(each[own].sum()))
        for name, own in parts.items() if each[own].sum()
    }


def _count_unstable(d: Deployment, w: NDArray[np.float32], layer: int) -> int:
    """Return the modes outside the unit circle of a layer with weights w as they are.

    Modes of a group share rows with idle cells in between, so a group's 2 g eigenvalues count.
    """
    first = 1 + layer * PER_LAYER + A_PRODUCT
    n_modes = int(np.diff(d.network.mode_first)[layer])
    group = d.network.group_a
    at = d.network.weight_first
    planes = []
    for k in range(4):
        cells = w[at[first + k] : at[first + k + 1]].astype(float)
        planes.append(cells.reshape(-1, group, group).transpose(0, 2, 1))  # y = plane @ x
    low = d.network.mode_first[layer]
    own = slice(low, low + n_modes)
    n_groups = -(-n_modes // group)
    absent = np.arange(n_groups * group).reshape(n_groups, group) >= n_modes
    if d.form == "leapfrog":
        if d.decay == "digital":
            decay = np.zeros(n_groups * group)
            decay[:n_modes] = d.network.decay[own]
            planes[2] = planes[3] = decay.reshape(n_groups, group)[:, :, None] * np.eye(group)
        sign = np.ones(n_groups * group)
        sign[:n_modes] = d.network.sign[own]
        matrices = leapfrog_group_matrix(*planes)
        matrices *= np.tile(sign.reshape(n_groups, group), 2)[:, :, None]
    else:
        matrices = np.block([[planes[0], planes[1]], [planes[2], planes[3]]])
        if d.form == "delta":
            matrices = matrices + np.eye(2 * group)
    matrices[np.tile(absent, 2)] = 0.0  # no mode lives in the last places of the last group
    outside = (np.abs(np.linalg.eigvals(matrices)) >= 1.0).sum(axis=-1)
    return int(((outside + 1) // 2).sum())


def set_threads(n: int) -> None:
    """Let the compiled kernels use n threads. UsageError outside 1 .. cores."""
    most = threads.most_threads()
    if not 1 <= n <= most:
        raise UsageError(f"use {n} threads", f"this process may use 1 to {most}", "choose fewer")
    threads.set_threads(n)


def _free_bytes() -> int | None:
    """Return the memory that a new allocation may take, None where the system does not say."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return None


def check_memory(asked: str, need: int, do: str) -> None:
    """Refuse, before anything is allocated, what needs more memory than there is."""
    free = _free_bytes()
    if free is not None and need > free:
        raise CapacityError(
            asked, f"that takes {need / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free", do
        )
