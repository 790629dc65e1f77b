"""Durations that can be compared: calls in turns (A B A B), medians of several rounds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

Call = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """How long to measure.

    rounds : measurements of every call. least_s : duration of one of them, which a fast call
    reaches by being repeated. cpu_time : count the time that this process had the processor
    (of all its threads) instead of the time that passed. quick : smoke run, its figures mean
    nothing.
    """

    rounds: int = 9
    least_s: float = 0.02
    cpu_time: bool = False
    quick: bool = False

    @classmethod
    def smoke(cls) -> Timing:
        """Return the shortest measurement that still runs every line."""
        return cls(rounds=1, least_s=1e-4, quick=True)

    def describe(self) -> str:
        """Return which clock was read, in words."""
        if self.cpu_time:
            return "medians of CPU time (rows of two threads and of commands: passed time)"
        return "medians of passed time"

    def for_long_calls(self, rounds: int) -> Timing:
        """Return one that calls once a round and counts passed time: threads and processes."""
        return Timing(1 if self.quick else rounds, least_s=0.0, quick=self.quick)

    def alternate(self, *calls: Call) -> np.ndarray:
        """Return seconds of one call, (n_calls, rounds): in every round each call has its turn.

        What slows the machine down for a while then slows all of them. Each call runs once
        before the clock starts, so that nothing is compiled or paged in on the way.
        """
        numbers = [self._repeats(call) for call in calls]
        seconds = np.empty((len(calls), self.rounds))
        for k in range(self.rounds):
            for i, (call, number) in enumerate(zip(calls, numbers, strict=True)):
                seconds[i, k] = self._clock(call, number)
        return seconds

    def _repeats(self, call: Call) -> int:
        call()
        number = 1
        if self.least_s <= 0:
            return number
        while (duration := number * self._clock(call, number)) < self.least_s:
            number = max(2 * number, int(number * self.least_s / max(duration, 1e-9)))
        return number

    def _clock(self, call: Call, number: int) -> float:
        """Return the mean duration [s] of `number` calls in a row."""
        clock = time.process_time if self.cpu_time else time.perf_counter
        started = clock()
        for _ in range(number):
            call()
        return (clock() - started) / number


@contextmanager
def threads(n: int) -> Iterator[None]:
    """Let compiled kernels use n threads inside the block."""
    import numba

    before = numba.get_num_threads()
    numba.set_num_threads(n)
    try:
        yield
    finally:
        numba.set_num_threads(before)


def available_threads() -> int:
    """Return how many threads compiled kernels may use in this process."""
    import numba

    return int(numba.config.NUMBA_NUM_THREADS)
