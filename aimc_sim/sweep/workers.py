"""Who runs the tasks: this process, processes of this machine, or a Dask cluster.

All take tasks one at a time from an iterator, a few ahead of what is done, so that a sweep can
stop early, and hand back outcomes as they come. Outcomes do not depend on who made them.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Self

from aimc_sim import __version__
from aimc_sim.errors import UsageError
from aimc_sim.sweep.tasks import Outcome, Task, attempt

AHEAD = 2  # tasks handed out for every worker: one runs while the next waits beside it
CONNECT_S = 10.0  # for a cluster to answer
_LOOK_S = 1.0  # between two looks at how many workers a cluster has
# compiled kernels and BLAS of a worker keep to one thread: the workers fill the cores
ONE_THREAD = {
    f"{library}_NUM_THREADS": "1" for library in ("NUMBA", "OMP", "OPENBLAS", "MKL", "BLIS")
}


def died(task: Task) -> Outcome:
    """Return the outcome of a task whose process ended under it, alone as well as among others."""
    message = "the process that ran it died, and again when it was tried anew (out of memory?)"
    return Outcome(task.name, None, {"type": "WorkerDied", "message": message, "trace": ""}, 0.0)


class InProcess:
    """Runs one task after the other in this process."""

    def __init__(self, outputs: tuple[str, ...]) -> None:
        self.outputs = outputs

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """Yield what came of every task."""
        for task in tasks:
            yield attempt(task, self.outputs)


class LocalProcesses:
    """Runs tasks in processes of this machine, which joblib's loky keeps.

    A process that dies takes the pool with it, and nobody can say which of the tasks under way
    it was: these run again one at a time, and one that ends its process again has failed.
    """

    def __init__(self, processes: int, outputs: tuple[str, ...]) -> None:
        self.processes, self.outputs = processes, outputs
        self._pool: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """Yield what came of every task, as they end."""
        from concurrent.futures import FIRST_COMPLETED, wait

        rest = iter(tasks)
        under_way: dict[Any, Task] = {}
        suspects: list[Task] = []
        while True:
            while not suspects and len(under_way) < AHEAD * self.processes:
                task = next(rest, None)
                if task is None:
                    break
                self._hand_out(task, under_way, suspects)
            if not under_way and not suspects:
                return
            done = wait(under_way, return_when=FIRST_COMPLETED).done if under_way else ()
            for future in done:
                task = under_way.pop(future)
                outcome = _result(future)
                if outcome is None:
                    suspects.append(task)
                else:
                    yield outcome
            if suspects and not under_way:
                yield from self._one_by_one(suspects)
                suspects = []

    def _hand_out(self, task: Task, under_way: dict[Any, Task], suspects: list[Task]) -> None:
        try:
            future = self._start(self.processes).submit(attempt, task, self.outputs)
        except _broken():
            suspects.append(task)
        else:
            under_way[future] = task

    def _one_by_one(self, tasks: list[Task]) -> Iterator[Outcome]:
        self._stop()
        for task in tasks:
            outcome = _result(self._start(1).submit(attempt, task, self.outputs))
            if outcome is None:
                self._stop()
            yield outcome or died(task)
        self._stop()

    def _start(self, processes: int) -> Any:
        if self._pool is None:
            from joblib.externals.loky import ProcessPoolExecutor

            self._pool = ProcessPoolExecutor(
                processes, env=ONE_THREAD, initializer=_end_with, initargs=(os.getpid(),)
            )
        return self._pool

    def _stop(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, kill_workers=True)
            self._pool = None


def _broken() -> tuple[type[Exception], ...]:
    from joblib.externals.loky.process_executor import BrokenProcessPool, ShutdownExecutorError

    return BrokenProcessPool, ShutdownExecutorError


def _result(future: Any) -> Outcome | None:
    """Return what came of a task; None where its process died."""
    try:
        outcome: Outcome = future.result()
    except _broken():
        return None
    return outcome


def _end_with(parent: int) -> None:
    """Have this worker end when the run that started it is gone, killed as it may be.

    An interrupt from the keyboard reaches the whole group of processes; the run alone answers
    it, and ends its workers.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    if hasattr(os, "getppid") and os.name == "posix":
        threading.Thread(target=watch, daemon=True).start()


class Cluster:
    """Runs tasks on the workers of a Dask cluster.

    Raises UsageError where the scheduler does not answer, has no workers, or where one of them
    has not this version of the package.
    """

    def __init__(self, address: str, outputs: tuple[str, ...]) -> None:
        self.address, self.outputs = address, outputs
        self._asked = f"use the cluster {address}"
        self._client = self._connect()
        try:
            self._check_workers()
        except BaseException:
            self._client.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """Yield what came of every task, as they end.

        A task whose worker died is tried again by the scheduler, as often as it is set to
        (`distributed.scheduler.allowed-failures`), and has failed after that.

        Raises UsageError where the scheduler goes away.
        """
        try:
            yield from self._run(tasks)
        except (OSError, TimeoutError) as error:  # of the connection; tasks keep theirs
            raise self._lost(error) from None

    def _run(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        from distributed import as_completed

        rest = iter(tasks)
        under_way: dict[Any, Task] = {}
        coming = as_completed(loop=self._client.loop)
        room, looked = self._room(), time.monotonic()
        while True:
            if time.monotonic() - looked > _LOOK_S:
                room, looked = self._room(), time.monotonic()
            for _ in range(room - len(under_way)):
                task = next(rest, None)
                if task is None:
                    break
                future = self._client.submit(
                    attempt, task, self.outputs, __version__, pure=False, retries=0
                )
                under_way[future] = task
                coming.add(future)
            if not under_way:
                return
            future = next(coming)
            yield self._outcome(future, under_way.pop(future))

    def _room(self) -> int:
        """Return how many tasks may be under way: workers come and go."""
        return max(AHEAD * sum(self._client.nthreads().values()), 1)

    def _outcome(self, future: Any, task: Task) -> Outcome:
        from distributed.scheduler import KilledWorker

        if future.status == "finished":
            outcome: Outcome = future.result()
            return outcome
        error = future.exception() if future.status == "error" else None
        if isinstance(error, KilledWorker):
            return died(task)
        raise self._lost(error)

    def _lost(self, error: BaseException | None) -> UsageError:
        return UsageError(
            f"run a task on the cluster {self.address}",
            f"it was lost ({error or 'the scheduler has gone'})",
            "see to the cluster and start again: what is there is not computed again",
        )

    def _connect(self) -> Any:
        try:
            from distributed import Client
            from distributed.comm.addressing import resolve_address
        except ImportError as error:
            raise UsageError(
                self._asked, f"dask.distributed is not there ({error})",
                "install it with pip install 'aimc-sim[cluster]'",
            ) from None
        try:
            resolve_address(self.address)  # a client of no address does not end for 20 s
            return Client(self.address, timeout=CONNECT_S, set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            text = " ".join(str(error).split())[:120]
            raise UsageError(
                self._asked, f"no scheduler answers there ({text or type(error).__name__})",
                "check the address that `dask scheduler` printed, or leave --cluster out for "
                "processes of this machine",
            ) from None

    def _check_workers(self) -> None:
        try:
            self._client.wait_for_workers(1, timeout=CONNECT_S)
        except TimeoutError:
            raise UsageError(
                self._asked, "it has no workers", f"start some: dask worker {self.address}"
            ) from None
        try:
            versions = self._client.run(worker_version)
        except Exception as error:  # whatever a worker raises that cannot import us
            raise UsageError(
                self._asked, f"its workers cannot run aimc-sim ({error})",
                f"install aimc-sim {__version__} on every worker",
            ) from None
        others = {where: found for where, found in versions.items() if found != __version__}
        if others:
            where, found = next(iter(others.items()))
            raise UsageError(
                self._asked, f"the worker {where} has aimc-sim {found}, here is {__version__}",
                "install the same version on every worker",
            )


def worker_version() -> str:
    """Return the version of the package where this is called."""
    return __version__
