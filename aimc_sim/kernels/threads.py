"""How many threads the compiled kernels use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numba


def most_threads() -> int:
    """Return the number of threads that this process may use."""
    return int(numba.config.NUMBA_NUM_THREADS)


def set_threads(n: int) -> None:
    """Let the kernels use n threads, 1 .. most_threads()."""
    numba.set_num_threads(n)


@contextmanager
def one_thread() -> Iterator[None]:
    """Run kernels on one thread inside this block, for those that share an output."""
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        yield
    finally:
        numba.set_num_threads(before)
