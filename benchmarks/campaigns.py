"""Campaigns: tasks handed to a Dask cluster beside the same tasks in local processes."""

from __future__ import annotations

import logging
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.table import Benchmark, Row
from benchmarks.timing import Timing

if TYPE_CHECKING:
    from aimc_sim.sweep import Campaign

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "examples" / "models" / "s4d-digits.pt"
N_CHIPS, LIMIT = 48, 120
DASK_WORKERS, PROCESSES = 4, 2
ROUNDS = 3
MOST_OF_LIMIT = 1.1  # the goal: lose less than a tenth


def _campaign(folder: Path, n_chips: int) -> Campaign:
    from ssm import read_campaign

    path = folder / "sweep.toml"
    text = f'model = "{MODEL.as_posix()}"\nat = "1h"\nchips = {n_chips}\nlimit = {LIMIT}\n'
    path.write_text(text, "utf-8")
    return read_campaign(path)


def _measure(benchmark: Benchmark, timing: Timing) -> Row:
    per = "task"
    if find_spec("distributed") is None or find_spec("joblib") is None:
        note = "not measured: pip install 'aimc-sim[cluster]'"
        return Row(benchmark.name, benchmark.what, per, DASK_WORKERS, note=note)
    import dask
    from distributed import LocalCluster

    n_chips = 2 if timing.quick else N_CHIPS
    rounds = 1 if timing.quick else ROUNDS
    seconds = np.empty((2, rounds))
    with (
        # its sampling of every worker's stack takes more than the rest of Dask
        dask.config.set({"distributed.worker.profile.enabled": False}),
        tempfile.TemporaryDirectory() as name,
        LocalCluster(
            n_workers=DASK_WORKERS, threads_per_worker=1, dashboard_address=None,
            silence_logs=logging.CRITICAL,
        ) as cluster,
    ):
        campaign = _campaign(Path(name), n_chips)
        address = cluster.scheduler_address
        _steady(campaign, Path(name) / "warm.nc", cluster=address)  # workers import and compile
        for k in range(rounds):
            for i, where in enumerate(({"cluster": address}, {"processes": PROCESSES})):
                seconds[i, k] = _steady(campaign, Path(name) / f"{i}-{k}.nc", **where)
    ours, limit = seconds
    return Row(
        benchmark.name, benchmark.what, per, DASK_WORKERS, ours=ours, limit=limit,
        limit_of=f"joblib's loky, {PROCESSES} processes",
        goal_s=MOST_OF_LIMIT * float(np.median(limit)),
        note="counted once all workers are busy: what they take to start and to read the "
        "model is not in it",
    )


def _steady(campaign: Campaign, path: Path, **where: str | int) -> float:
    """Return seconds a task, counted from the outcome after which every worker had one."""
    from aimc_sim.sweep import run

    ended: list[float] = []
    run(campaign, path, on_progress=lambda _: ended.append(time.perf_counter()), **where)  # type: ignore[arg-type]
    first = min(2 * DASK_WORKERS, len(ended) // 2)
    return (ended[-1] - ended[first - 1]) / (len(ended) - first)


BENCHMARKS = (
    Benchmark(
        "sweep-dask-4-workers", "a chip of s4d-digits programmed and scored, as a task of a sweep",
        _measure,
    ),
)
