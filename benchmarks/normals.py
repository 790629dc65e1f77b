"""Standard normals per second."""

from __future__ import annotations

import numpy as np

from benchmarks.table import Benchmark, Row
from benchmarks.timing import Call, Timing

N_NORMALS = 1 << 16
GOAL_S = 1.2e-9


def draw_normals() -> Call:
    """Return a call that makes N_NORMALS normals on one thread."""
    from aimc_sim.kernels.philox import fill_normals

    out = np.empty(N_NORMALS, np.float32)
    key = (np.uint64(1), np.uint64(2))
    counter = (np.uint64(3), np.uint64(4), np.uint64(5))
    return lambda: fill_normals(out, 0, N_NORMALS, *key, *counter)


def _measure(benchmark: Benchmark, timing: Timing) -> Row:
    from benchmarks.kernels import fill_words

    words = np.empty(N_NORMALS // 2, np.uint64)
    key = (np.uint64(1), np.uint64(2))
    generator = np.random.default_rng(0)
    theirs = np.empty(N_NORMALS, np.float32)
    seconds = timing.alternate(
        draw_normals(),
        lambda: fill_words(words, *key),
        lambda: generator.standard_normal(dtype=np.float32, out=theirs),
    )
    ours, limit, peer = seconds / N_NORMALS
    return Row(
        benchmark.name, benchmark.what, "normal", 1,
        ours=ours,
        limit=limit,
        limit_of="Philox words alone",
        peer=peer,
        peer_of="numpy",
        goal_s=GOAL_S,
    )


BENCHMARKS = (Benchmark("normals", "Philox4x32-10 and Box-Muller, float32", _measure),)
