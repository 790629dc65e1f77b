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
    reaches by being repeated. quick : smoke run, its figures mean nothing.
    """

    rounds: int = 9
    least_s: float = 0.02
    quick: bool = False

    @classmethod
    def smoke(cls) -> Timing:
        """Return the shortest measurement that still runs every line."""
        return cls(rounds=1, least_s=1e-4, quick=True)

    def alternate(self, *calls: Call, rounds: int | None = None) -> np.ndarray:
        """Return seconds of one call, (n_calls, rounds): in every round each call has its turn.

        What slows the machine down for a while then slows all of them. Each call runs once
        before the clock starts, so that nothing is compiled or paged in on the way.
        """
        numbers = [self._repeats(call) for call in calls]
        n_rounds = 1 if self.quick else rounds or self.rounds
        seconds = np.empty((len(calls), n_rounds))
        for k in range(n_rounds):
            for i, (call, number) in enumerate(zip(calls, numbers, strict=True)):
                seconds[i, k] = _clock(call, number)
        return seconds

    def _repeats(self, call: Call) -> int:
        call()
        number = 1
        if self.least_s <= 0:
            return number
        while (duration := number * _clock(call, number)) < self.least_s:
            number = max(2 * number, int(number * self.least_s / max(duration, 1e-9)))
        return number


def _clock(call: Call, number: int) -> float:
    """Return the mean duration [s] of `number` calls in a row."""
    started = time.perf_counter()
    for _ in range(number):
        call()
    return (time.perf_counter() - started) / number


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
