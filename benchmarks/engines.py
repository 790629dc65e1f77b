"""All sequences of a test set on one chip: the CPU's engine beside the GPU's."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.models import random_model
from benchmarks.table import Benchmark, Row
from benchmarks.timing import Timing, available_threads, threads

if TYPE_CHECKING:
    from ssm import ProgrammedModel

N_SEQUENCES, N_STEPS = 10_000, 784
QUICK_SEQUENCES, QUICK_STEPS = 4, 16
OF_CPU = 16  # sequences that the CPU runs, its time being proportional to them
ROUNDS = 3
GOAL_S = 5.0


def _program() -> ProgrammedModel:
    import aimc_sim as aimc
    import ssm

    model = random_model()
    model = replace(model, layers=(model.layers[0], random_model(seed=1).layers[0]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # modes near their noise limit
        deployment = ssm.deploy(
            model, aimc.ChipSpec.preset("pcm-hermes2023-2dev"),
            calibrate=np.random.default_rng(2).random((2, 100, 1), np.float32),
        )
    return deployment.program(7).wait(3600.0)


def compare(found: np.ndarray, expected: np.ndarray) -> str:
    """Return in words how near logits (n, classes) of two engines are to each other."""
    same = 100 * float((found == expected).mean())
    rms = float(np.sqrt(((found - expected) ** 2).mean() / expected.var()))
    shift = float((found - expected).mean() / expected.std())
    return (
        f"logits of {len(found)} sequences on both engines: {same:.0f} % the same bits; the "
        f"difference has an rms of {rms:.1e} and a mean of {shift:.0e} of the logits' spread"
    )


def _measure(benchmark: Benchmark, timing: Timing) -> Row:
    from ssm.engine import missing_gpu

    reason = missing_gpu()
    if reason is not None:
        return Row(
            benchmark.name, benchmark.what, "chip", 1, goal_s=GOAL_S, note=f"left out: {reason}"
        )
    n, n_steps = (
        (QUICK_SEQUENCES, QUICK_STEPS) if timing.quick else (N_SEQUENCES, N_STEPS)
    )
    chip = _program()
    x = np.random.default_rng(3).random((n, n_steps, 1), np.float32)
    few = x[:OF_CPU]
    n_threads = min(2, available_threads())
    with threads(n_threads):
        seconds = timing.for_long_calls(ROUNDS).alternate(
            lambda: chip.infer(x, engine="cuda"), lambda: chip.infer(few)
        )
        found = chip.infer(few, engine="cuda")
        note = compare(found.logits, chip.infer(few).logits)
    return Row(
        benchmark.name, benchmark.what, "chip", n_threads,
        ours=seconds[0],
        peer=seconds[1] * (n / len(few)),
        peer_of=f"the CPU, from {len(few)} sequences",
        goal_s=GOAL_S,
        note=note,
    )


BENCHMARKS = (
    Benchmark(
        "engine-cuda",
        f"two S4D layers H = N = 64, leapfrog, four products, {N_SEQUENCES} x {N_STEPS} on a GPU",
        _measure,
    ),
)
