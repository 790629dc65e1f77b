"""How the time of a run grows with batch, chips, heads, states, steps and threads.

Every row is timed in turns with one base case; its limit is the base's time a conversion, times
the conversions of the row, shared by its threads. A ratio of 1 is a run that costs no more than
its conversions.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.models import random_model
from benchmarks.normals import N_NORMALS, draw_normals
from benchmarks.recurrent import bare_products, normals_per_step
from benchmarks.table import Benchmark, Row
from benchmarks.timing import Call, Timing, available_threads, threads

SEED, WAIT_S = 7, 3600.0
ROUNDS = 3
PRESET = "reram-wan2022"
MODELS = Path(__file__).parents[1] / "examples" / "models"
N_TEST, TEST_STEPS, TIMED = 10_000, 784, 16
REPEATED = 1000  # calls of the limit
GOAL_TEST_S = 150.0


@dataclass(frozen=True)
class Case:
    """What is run: a layer of some heads of some real states, how often and how long."""

    batch: int = 1
    chips: int = 1
    heads: int = 64
    states: int = 64
    steps: int = 200
    threads: int = 1


BASE = Case()
_CASES = (
    ("batch-8", replace(BASE, batch=8)),
    ("chips-8", replace(BASE, chips=8)),
    ("heads-16", replace(BASE, heads=16)),
    ("heads-128", replace(BASE, heads=128)),
    ("states-16", replace(BASE, states=16)),
    ("states-128", replace(BASE, states=128)),
    ("steps-50", replace(BASE, steps=50)),
    ("steps-2000", replace(BASE, steps=2000)),
    ("threads-2", replace(BASE, batch=8, threads=2)),
)


class _Run:
    """A programmed chip and the sequences that a case runs on it."""

    def __init__(self, case: Case, quick: bool) -> None:
        import aimc_sim as aimc
        import ssm

        self.case = replace(case, steps=5) if quick else case
        rng = np.random.default_rng(3)
        with warnings.catch_warnings():
            # a mode near its noise limit is a finding about the device, not about the speed
            warnings.simplefilter("ignore", UserWarning)
            deployment = ssm.deploy(
                random_model(case.heads, case.states), aimc.ChipSpec.preset(PRESET),
                calibrate=rng.random((2, 50, 1), np.float32),
            )
        self.chip = deployment.program(SEED, case.chips).wait(WAIT_S)
        self.x = rng.random((case.batch, self.case.steps, 1), np.float32)
        counts = self.chip.infer(self.x).counts
        self.conversions = counts["adc_conversions"]

    def __call__(self) -> None:
        with threads(self.case.threads):
            self.chip.infer(self.x)


def _measure(benchmark: Benchmark, timing: Timing, *, case: Case) -> Row:
    if case.threads > available_threads():
        note = f"left out: this process may use {available_threads()} thread(s)"
        return Row(benchmark.name, benchmark.what, "conversion", case.threads, note=note)
    run, base = _Run(case, timing.quick), _Run(BASE, timing.quick)
    clock = timing if case.threads == 1 else timing.for_long_calls(ROUNDS)
    seconds = clock.alternate(run, base)
    return Row(
        benchmark.name, benchmark.what, "conversion", case.threads,
        ours=seconds[0] / run.conversions,
        limit=seconds[1] / base.conversions / case.threads,
        limit_of="a conversion of the base: batch 1, 64 heads of 64 states, 200 steps",
    )


def _measure_test_set(
    benchmark: Benchmark, timing: Timing, *, model: str, preset: str
) -> Row:
    """Time some sequences as long as sequential MNIST's on two threads, scaled to its test set."""
    import aimc_sim as aimc
    import ssm

    if available_threads() < 2:
        return Row(benchmark.name, benchmark.what, "test set", 2,
                   note="left out: this process may use one thread")
    n_steps = 5 if timing.quick else TEST_STEPS
    x = np.random.default_rng(3).random((TIMED, n_steps, 1), np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        deployment = ssm.deploy(
            ssm.load(MODELS / model), aimc.ChipSpec.preset(preset), calibrate=x[:4]
        )
    chip = deployment.program(SEED).wait(WAIT_S)

    def run() -> None:
        with threads(2):
            chip.infer(x)

    long = timing.for_long_calls(ROUNDS)
    repeats = 1 if timing.quick else REPEATED
    draw, multiply = _repeated(draw_normals(), repeats), _repeated(bare_products(), repeats)
    seconds = long.alternate(run, draw, multiply)
    n_normals, n_layers = normals_per_step(chip), chip.deployment.model.n_layers
    limit = (seconds[1] * n_normals / N_NORMALS + seconds[2] * n_layers) / repeats
    n_all = N_TEST * TEST_STEPS
    return Row(
        benchmark.name, benchmark.what, "test set", 2,
        ours=seconds[0] * (n_all / (TIMED * n_steps)),
        limit=limit * n_all / 2,
        limit_of=f"{n_normals} normals a step, products of C and mixing of {n_layers} layers, "
        "half of one thread's time",
        goal_s=GOAL_TEST_S,
        note=f"from {TIMED} sequences",
    )


def _repeated(call: Call, n: int) -> Call:
    """Return n calls in a row, for a duration that can be measured at one go."""

    def repeat() -> None:
        for _ in range(n):
            call()

    return repeat


def _what(case: Case) -> str:
    parts = [
        f"{getattr(case, name)} {name}" for name in vars(case)
        if getattr(case, name) != getattr(BASE, name)
    ]
    return f"S4D layer, all on tiles, {PRESET}: {', '.join(parts)}"


BENCHMARKS = (
    *(
        Benchmark(f"scaling-{name}", _what(case), partial(_measure, case=case))
        for name, case in _CASES
    ),
    *(
        Benchmark(
            f"smnist-test-set-{name}",
            f"10,000 sequences of 784 steps, two layers H = N = 64, all on tiles, {preset}",
            partial(_measure_test_set, model=model, preset=preset),
        )
        for name, model, preset in (
            ("cmo", "s4d-smnist-cmo-hfox.safetensors", "cmo-hfox"),
            ("reram", "s4d-smnist-reram-wan2022.safetensors", "reram-wan2022"),
        )
    ),
)
