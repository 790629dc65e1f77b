"""Measured points of the model of scale: some fit its rates and sizes, others check them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import scale_h100
from benchmarks.scale_h100 import h100_rates
from benchmarks.scale_memory import (
    SEED,
    WAIT_S,
    deploy,
    measure,
    of_matrix,
    of_run,
    of_tasks,
    signal,
)
from benchmarks.scale_model import Rates, Sizes, Work, fit_rates, matrix_b
from benchmarks.scale_page import NEAR
from benchmarks.timing import Timing, available_threads, threads

ROUNDS = 7
CACHE_B = 8e6  # of the processor, where the system does not say



def _quiet(work: Work) -> Work:
    """Return a run on cells whose noise lasts for a sequence, none of it new at a step."""
    return replace(work, noisy=False, lasting=True)


# runs that the rates are fitted to
FITTED = {
    "64 heads of 64 states": Work(steps=500),
    "the same, no noise": _quiet(Work(steps=500)),
    "the same, A in logic, no noise": _quiet(Work(steps=1000, form="digital")),
    "one step": Work(steps=1),
    "one step of 64 sequences, no noise": _quiet(Work(steps=1, batch=64)),
    "one step, 512 heads of 4, A in logic": Work(512, 4, steps=1, form="digital"),
    "2 heads of 2, A in logic, no noise": _quiet(Work(2, 2, steps=5000, form="digital")),
    "16 heads of 16, A in logic": Work(16, 16, steps=2000, form="digital"),
    "64 heads of 128, A in logic, no noise": _quiet(Work(64, 128, steps=1000, form="digital")),
    "128 heads of 4, no noise": _quiet(Work(128, 4, steps=1000)),
    "256 heads of 4, A in logic": Work(256, 4, steps=1000, form="digital"),
    "1024 heads of 4, A in logic": Work(1024, 4, steps=100, form="digital"),
    "2048 heads of 4, A in logic": Work(2048, 4, steps=50, form="digital"),
}
# runs that are predicted: other sizes, batches, chips, layers, steps and weights
PREDICTED = {
    "steps: 2000": Work(steps=2000),
    "batch: 8": Work(batch=8),
    "batch: 8, noise that lasts too": Work(batch=8, lasting=True),
    "chips: 8": Work(chips=8),
    "heads: 16": Work(16, steps=1000),
    "heads: 128": Work(128),
    "states: 16": Work(states=16, steps=1000),
    "states: 128, no noise": _quiet(Work(states=128)),
    "layers: 2, 784 steps": Work(layers=2, steps=784),
    "256 heads of 16, A in logic": Work(256, 16, steps=500, form="digital"),
    "0.6 million weights": Work(512, 64, steps=200),
    "0.6 million weights, no noise": _quiet(Work(512, 64, steps=200)),
    "8.4 million weights": Work(2048, 2, steps=50),
    "17 million weights, A in logic": Work(2048, 2, layers=2, steps=50, form="digital"),
}
PROGRAMMED = Work(chips=4)
PROGRAMMED_TOO = Work(128, 64, chips=2)
THREADS = Work(batch=16)
TASKS, MORE_TASKS, SWEEPS = 300, 1200, 3

LAID_OUT = Work(128, 64)
LAID_OUT_TOO = Work(512, 16)
LARGE = Work(2048, 2, form="digital")
CHIPS = Work(64, 64, chips=256, steps=2)
CHIPS_TOO = Work(128, 64, chips=96, steps=2)
SEQUENCES = Work(2, 4, batch=200_000, steps=2, form="digital")
MATRICES = ((256, 256, 16_384), (256, 256, 32_768), (128, 512, 16_384), (512, 128, 16_384))
STATED = (256, 256, 1024)
TASK_COUNTS = (20_000, 50_000)


@dataclass(frozen=True)
class Point:
    """A figure that was predicted and measured; fitted ones made the model."""

    what: str
    unit: str
    fitted: bool
    predicted: float
    measured: float

    @property
    def ratio(self) -> float:
        """Predicted over measured."""
        return self.predicted / self.measured

    @property
    def good(self) -> bool:
        """Whether the prediction is within `NEAR`."""
        return abs(self.ratio - 1) <= NEAR


def _runs(works: Sequence[Work]) -> list[Callable[[], object]]:
    """Return calls that run the sequences of every work on programmed chips."""
    return [
        partial(deploy(work).program(SEED, work.chips).wait(WAIT_S).infer, signal(work))
        for work in works
    ]


def _programming(work: Work) -> Callable[[], object]:
    deployment = deploy(work)

    def program() -> None:
        deployment.program(SEED, work.chips).wait(WAIT_S).chip.aged()

    return program


def measure_time(timing: Timing) -> tuple[Rates, list[Point]]:
    """Return the rates of this machine and what they predict; all calls take turns."""
    works = [*FITTED.values(), *PREDICTED.values()]
    calls = [*_runs(works), _programming(PROGRAMMED), _programming(PROGRAMMED_TOO)]
    seconds = np.median(timing.alternate(*calls), axis=1)
    cell_s = float(seconds[-2]) / (PROGRAMMED.chips * PROGRAMMED.cells)
    n = len(FITTED)
    rates = fit_rates(works[:n], seconds[:n], _cache_b(), cell_s)
    names = [*FITTED, *PREDICTED]
    points = [
        Point(name, "s", k < n, rates.run_s(work), float(seconds[k]))
        for k, (name, work) in enumerate(zip(names, works, strict=True))
    ]
    points += [
        Point(f"program {work.chips} chips of {work.cells} cells", "s", k == 0,
              rates.program_s(work), float(seconds[len(works) + k]))
        for k, work in enumerate((PROGRAMMED, PROGRAMMED_TOO))
    ]
    points += [
        Point(f"H100: {what}", "s", fitted, h100_rates().run_s(work), found)
        for fitted, rows in ((True, scale_h100.FITTED), (False, scale_h100.PREDICTED))
        for what, (work, found) in rows.items()
    ]
    return rates, points


def _cache_b() -> float:
    """Return the size of the third cache of this processor in bytes."""
    try:
        text = Path("/sys/devices/system/cpu/cpu0/cache/index3/size").read_text()
        return float(text.strip().removesuffix("K")) * 1024
    except (OSError, ValueError):
        return CACHE_B


def measure_threads(timing: Timing) -> list[Point]:
    """Return the passed time of a batch on two threads, predicted from one; [] without two."""
    if available_threads() < 2:
        return []
    (run,) = _runs([THREADS])

    def on(n: int) -> None:
        with threads(n):
            run()

    one, two = np.median(
        timing.for_long_calls(ROUNDS).alternate(lambda: on(1), lambda: on(2)), axis=1
    )
    return [Point("batch: 16 on two threads", "s", False, float(one) / 2, float(two))]


def measure_tasks() -> tuple[float, float, list[Point]]:
    """Return seconds and bytes in the journal of a task that computes nothing, and a check."""
    _sweep(2)  # imports
    found = [(*_sweep(TASKS), *_sweep(MORE_TASKS)) for _ in range(SWEEPS)]
    few_s, few_b, more_s, more_b = np.median(np.array(found, float), axis=0).tolist()
    each_s, line_b = few_s / TASKS, few_b / TASKS
    return each_s, line_b, [
        Point(f"sweep of {MORE_TASKS} empty tasks", "s", False, each_s * MORE_TASKS, more_s),
        Point(f"journal of {MORE_TASKS} tasks", "B", False, line_b * MORE_TASKS, more_b),
    ]


def _sweep(n: int) -> tuple[float, int]:
    """Return the duration of a sweep of n empty tasks in this process and the journal's bytes."""
    from aimc_sim.sweep import Campaign, run
    from ssm.scoring import OUTPUTS

    campaign = Campaign.grid("benchmarks.scale_points:no_task", {"draw": range(n)}, outputs=OUTPUTS)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "n.nc"
        started = time.perf_counter()
        run(campaign, path, processes=1)
        return time.perf_counter() - started, path.with_suffix(".journal").stat().st_size


def no_task(task: dict[str, float]) -> dict[str, float]:
    """Return what the task of a model returns, made up."""
    from ssm.scoring import OUTPUTS

    return dict.fromkeys(OUTPUTS, task["draw"] / 7)


def measure_memory() -> tuple[Sizes, list[Point]]:
    """Return sizes and what they predict; every case runs in a process of its own."""
    weight_b = measure(of_run(LAID_OUT, until="deploy")) / LAID_OUT.weights
    laid_out = weight_b * CHIPS.weights
    cell_b = (measure(of_run(CHIPS)) - laid_out) / (CHIPS.chips * CHIPS.cells)
    task_b = measure(of_tasks(TASK_COUNTS[0])) / TASK_COUNTS[0]
    sizes = Sizes(weight_b, cell_b, task_b)
    works = {
        "lay out": (LAID_OUT_TOO, "deploy"), "lay out 8.4 million weights,": (LARGE, "deploy"),
        "program and run": (CHIPS_TOO, "run"),
        "run": (SEQUENCES, "run"),
    }
    points = [
        Point(
            f"{name} {_shape(work)}", "B", False,
            sizes.deployment_b(work)
            + (sizes.chips_b(work) if until != "deploy" else 0.0)
            + (sizes.run_b(work) if until == "run" else 0.0),
            measure(of_run(work, until=until)),
        )
        for name, (work, until) in works.items()
    ]
    points += [
        Point(f"matrix {n_in} x {n_out}, batch {batch}", "B", False,
              matrix_b(n_in, n_out, batch), measure(of_matrix(n_in, n_out, batch)))
        for n_in, n_out, batch in (*MATRICES, STATED)
    ]
    points.append(
        Point(f"{TASK_COUNTS[1]} tasks and outcomes", "B", False, task_b * TASK_COUNTS[1],
              measure(of_tasks(TASK_COUNTS[1])))
    )
    return sizes, points


def _shape(work: Work) -> str:
    return f"{work.heads} x {work.states}, {work.chips} chips x {work.batch}"


def measure_all(timing: Timing) -> tuple[Rates, Sizes, list[Point]]:
    """Return rates and sizes of this machine, and all points."""
    with threads(1):  # sequences would share what there are
        rates, points = measure_time(timing)
    points += measure_threads(timing)
    _, line_b, more = measure_tasks()
    sizes, held = measure_memory()
    return rates, replace(sizes, line_b=line_b), [*points, *more, *held]
