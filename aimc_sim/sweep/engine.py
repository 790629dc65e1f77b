"""The run of a campaign: what is missing is computed, what came of it kept, all of it returned."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aimc_sim.errors import UsageError
from aimc_sim.sweep import dataset
from aimc_sim.sweep.campaign import Campaign
from aimc_sim.sweep.journal import Journal
from aimc_sim.sweep.plan import Plan
from aimc_sim.sweep.workers import Cluster, InProcess, LocalProcesses

if TYPE_CHECKING:
    import xarray


@dataclass(frozen=True)
class Progress:
    """How far a sweep is.

    done : tasks that have ended, in this run or an earlier one. left : tasks to go, at most.
    failed : of those done. left_s : time that those left take at the mean pace of this run.
    """

    done: int
    left: int
    failed: int
    left_s: float


def run(
    campaign: Campaign,
    results: str | Path,
    *,
    processes: int | None = None,
    cluster: str | None = None,
    until: float | None = None,
    retry: bool = False,
    force: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> xarray.Dataset:
    """Return what the tasks of a campaign found, with a dimension for every axis.

    Every outcome is on disk, in the journal beside `results`, before the next one counts: a run
    that was killed goes on where it was, and computes nothing again. Which process computes a
    task, where, and in what order does not show in the results.

    Parameters
    ----------
    results : the NetCDF file that is written at the end; FILE.nc has its journal in FILE.journal.
    processes : of this machine; None: one for every core it may use; 1: this process.
    cluster : address of a Dask scheduler, whose workers run the tasks instead. They read the
        same files under the same paths.
    until : stop repeating (axes with `repeats`) where the half-width of the 95 % interval of the
        mean of the first output is no larger than this, after five repetitions at the least.
        Positions that were not needed are NaN.
    retry : run tasks again that failed before.
    force : a file of results without a journal may be replaced.
    on_progress : called after every task.

    Outputs of tasks that failed are NaN; `failed` is 1 there and `error` says why.

    Raises UsageError for wrong arguments, a cluster that is not there or a full disk (what was
    computed is kept), InputError for a journal of another sweep.

    Examples
    --------
    >>> import tempfile
    >>> campaign = Campaign.grid(
    ...     "aimc_sim.sweep.example:throw", {"sides": [2, 6], "draw": range(8)},
    ...     outputs={"points": "1"}, repeats=["draw"],
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     found = run(campaign, f"{folder}/dice.nc", processes=1)
    >>> found.points.dims, float(found.points.sel(sides=2).max())
    (('sides', 'draw'), 2.0)
    """
    _check(processes, cluster, until)
    results = Path(results)
    journal_path = results.with_suffix(".journal")
    _check_results(results, journal_path, force)
    outputs = tuple(campaign.outputs)
    with Journal(journal_path, campaign) as journal:
        plan = Plan(campaign, journal.outcomes, until, retry)
        if plan.left:
            pace = _Pace(plan, on_progress)
            if cluster is not None:
                workers: Cluster | InProcess | LocalProcesses = Cluster(cluster, outputs)
            elif (processes := processes or _cores()) == 1:
                workers = InProcess(outputs)
            else:
                workers = LocalProcesses(processes, outputs)
            with workers:
                for outcome in workers.run(plan.tasks()):
                    journal.add([outcome])
                    plan.take(outcome)
                    pace.tell()
        found = dataset.make(campaign, plan.chosen(), until)
        dataset.write(found, results)
    return found


class _Pace:
    """Counts what this run has done and tells whoever listens."""

    def __init__(self, plan: Plan, on_progress: Callable[[Progress], None] | None) -> None:
        self._plan, self._on_progress = plan, on_progress
        self._begun, self._n = time.monotonic(), 0

    def tell(self) -> None:
        if self._on_progress is None:
            return
        self._n += 1
        plan, each = self._plan, (time.monotonic() - self._begun) / self._n
        self._on_progress(Progress(plan.done, plan.left, plan.failed, plan.left * each))


def _cores() -> int:
    from joblib import cpu_count

    return int(cpu_count())


def _check(processes: int | None, cluster: str | None, until: float | None) -> None:
    dataset.check_installed()
    if processes is not None and cluster is not None:
        raise UsageError(
            f"run a sweep in {processes} processes and on a cluster", "it is one or the other",
            "leave out one of the two",
        )
    if processes is not None and processes < 1:
        raise UsageError(
            f"run a sweep in {processes} processes", "that is none", "ask for at least one"
        )
    if until is not None and not (until > 0 and math.isfinite(until)):
        raise UsageError(
            f"stop at an interval of {until}", "no interval is that narrow",
            "give a half-width above zero, such as 0.001",
        )


def _check_results(results: Path, journal: Path, force: bool) -> None:
    asked = f"write results to {results}"
    if results.suffix != ".nc":
        raise UsageError(asked, "results are NetCDF", "give a name that ends in .nc")
    if not results.parent.is_dir():
        raise UsageError(asked, f"there is no folder {results.parent}", "make it first")
    if results.is_dir():
        raise UsageError(asked, "that is a folder", "give the name of a file")
    if results.exists() and not journal.exists() and not force:
        raise UsageError(
            asked, f"the file exists, without its journal {journal.name}",
            "choose another file or allow to replace it (--force)",
        )
