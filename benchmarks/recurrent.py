"""One S4D layer, step by step, with everything on tiles."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from benchmarks import peer
from benchmarks.models import random_model
from benchmarks.normals import N_NORMALS, draw_normals
from benchmarks.table import Benchmark, Row
from benchmarks.timing import Timing, available_threads, threads

if TYPE_CHECKING:
    from ssm import ProgrammedModel

N_HEADS, N_STATES = 64, 64
N_STEPS, QUICK_STEPS = 1000, 20
BATCH, BATCH_ROUNDS = 64, 3
SEED = 7
WAIT_S = 3600.0
GOAL_S = 20e-6
GOAL_MOVING_S = 30e-6
WITH_PEER = "layer-reram-four"
GOAL_GAIN = 300.0
# end of the name, preset, form, decay, what it does
_CASES = (
    ("pcm-four", "pcm-nandakumar2019", "leapfrog", "tile", "four products a mode"),
    ("pcm-two", "pcm-nandakumar2019", "leapfrog", "digital", "two products a mode"),
    ("pcm-digital", "pcm-nandakumar2019", "digital", "tile", "A in logic"),
    ("reram-four", "reram-wan2022", "leapfrog", "tile", "four products a mode"),
    ("cmo-four", "cmo-hfox", "leapfrog", "tile", "four products a mode"),
)


def program(preset: str, form: str, decay: str, noise_in_time: str = "split") -> ProgrammedModel:
    """Return a random layer on a chip of that preset, an hour after programming."""
    import aimc_sim as aimc
    import ssm

    calibrate = np.random.default_rng(2).random((2, 100, 1), np.float32)
    with warnings.catch_warnings():
        # a mode near its noise limit is a finding about the device, not about the speed
        warnings.simplefilter("ignore", UserWarning)
        deployment = ssm.deploy(
            random_model(N_HEADS, N_STATES),
            aimc.ChipSpec.preset(preset).replace(noise_in_time=noise_in_time), form, decay=decay,
            calibrate=calibrate,
        )
    return deployment.program(SEED).wait(WAIT_S)


def _signal(n: int, timing: Timing) -> np.ndarray:
    n_steps = QUICK_STEPS if timing.quick else N_STEPS
    return np.random.default_rng(3).random((n, n_steps, 1), np.float32)


def normals_per_step(chip: ProgrammedModel) -> int:
    """Return conversions per step where the cells have noise that is new at each, else 0."""
    from aimc_sim.noise import noise_split

    spec = chip.deployment.spec
    if noise_split(spec, chip.time_s).fast == 0:
        return 0
    counts = chip.infer(np.zeros((1, 2, 1), np.float32)).counts
    last = chip.deployment.model.n_classes  # the decoder converts once a sequence
    return (counts["adc_conversions"] - last) // 2


def bare_products() -> Callable[[], object]:
    """Return a call of the products that BLAS could make of C and mixing of a layer in one step.

    C is a row of 65 weights for every head: as many multiplications as one 65 x 64 product.
    """
    rng = np.random.default_rng(4)
    states = rng.standard_normal((1, N_STATES + 1), np.float32)
    c = rng.standard_normal((N_STATES + 1, N_HEADS), np.float32)
    heads = rng.standard_normal((1, N_HEADS), np.float32)
    mix = rng.standard_normal((N_HEADS, 2 * N_HEADS), np.float32)
    y, mixed = np.empty((1, N_HEADS), np.float32), np.empty((1, 2 * N_HEADS), np.float32)

    def multiply() -> None:
        np.matmul(states, c, out=y)
        np.matmul(heads, mix, out=mixed)

    return multiply


def _measure_step(
    benchmark: Benchmark, timing: Timing, *, preset: str, form: str, decay: str
) -> Row:
    chip = program(preset, form, decay)
    x = _signal(1, timing)
    run = chip.infer(x)
    n_normals = normals_per_step(chip)
    # the same work in a peer stands beside one row
    other = peer.recurrence(N_HEADS, N_STATES) if benchmark.name == WITH_PEER else None
    calls = [lambda: chip.infer(x), bare_products(), draw_normals()]
    seconds = timing.alternate(*calls, *([] if other is None else [other.call]))
    return Row(
        benchmark.name, benchmark.what, "step", 1,
        ours=seconds[0] / x.shape[1],
        limit=seconds[1] + seconds[2] * n_normals / N_NORMALS,
        limit_of=f"{n_normals} normals, products of C and mixing",
        peer=None if other is None else seconds[3],
        peer_of="" if other is None else other.name,
        goal_s=GOAL_S,
        goal_gain=GOAL_GAIN if benchmark.name == WITH_PEER else None,
        note="the run diverged: its figure is of no use" if run.diverged else "",
    )


def _measure_moving(benchmark: Benchmark, timing: Timing) -> Row:
    """Time one step of noise with a spectrum; its limit is a step of white noise."""
    moving, white = (
        program("pcm-nandakumar2019", "leapfrog", "tile", kind) for kind in ("spectrum", "split")
    )
    x = _signal(1, timing)
    seconds = timing.alternate(lambda: moving.infer(x), lambda: white.infer(x)) / x.shape[1]
    return Row(
        benchmark.name, benchmark.what, "step", 1,
        ours=seconds[0],
        limit=seconds[1],
        limit_of="a step whose new noise is white",
        goal_s=GOAL_MOVING_S,
    )


def _measure_batch(benchmark: Benchmark, timing: Timing) -> Row:
    if available_threads() < 2:
        return Row(
            benchmark.name, benchmark.what, "step", 2,
            note="left out: this process may use one thread (NUMBA_NUM_THREADS)",
        )
    chip = program("pcm-nandakumar2019", "leapfrog", "tile")
    x = _signal(4 if timing.quick else BATCH, timing)

    def run(n_threads: int) -> None:
        with threads(n_threads):
            chip.infer(x)

    seconds = timing.for_long_calls(BATCH_ROUNDS).alternate(lambda: run(2), lambda: run(1))
    per_step = seconds / (x.shape[0] * x.shape[1])
    return Row(
        benchmark.name, benchmark.what, "step", 2,
        ours=per_step[0],
        limit=per_step[1] / 2,
        limit_of="half of the time of one thread",
        goal_s=GOAL_S,
    )


def _benchmark(name: str, preset: str, form: str, decay: str, what: str) -> Benchmark:
    return Benchmark(
        f"layer-{name}", f"S4D H = N = 64, batch 1, {preset}, {form}, {what}",
        partial(_measure_step, preset=preset, form=form, decay=decay),
    )


BENCHMARKS = (
    *(_benchmark(*case) for case in _CASES),
    Benchmark(
        "layer-pcm-spectrum", "S4D H = N = 64, batch 1, 1/f noise as a process in time",
        _measure_moving,
    ),
    Benchmark(
        "layer-batch-64-two-threads", "S4D H = N = 64, batch 64 on two threads, a sequence's step",
        _measure_batch,
    ),
)
