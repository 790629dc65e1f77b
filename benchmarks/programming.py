"""Programming a tile and letting it drift."""

from __future__ import annotations

from itertools import count

from benchmarks import peer
from benchmarks.normals import N_NORMALS, draw_normals
from benchmarks.products import SIZE, example_matrix
from benchmarks.table import Benchmark, Row
from benchmarks.timing import Call, Timing

GOAL_S = 2e-3
WAIT_S = 3600.0
# one normal for the programming error and one for the drift exponent of both cells of a pair
_N_NORMALS = 2 * 2 * SIZE * SIZE


def _measure(benchmark: Benchmark, timing: Timing) -> Row:
    import aimc_sim as aimc

    w = example_matrix()
    mapped = aimc.map_matrix(w, aimc.ChipSpec.preset("pcm-nandakumar2019"))
    seeds = count()

    def program() -> None:
        mapped.program(next(seeds)).wait(WAIT_S).chip.aged()

    calls: list[Call] = [program, draw_normals()]
    theirs = peer.programming(w, WAIT_S)
    if theirs is not None:
        calls.append(theirs.call)
    seconds = timing.alternate(*calls)
    return Row(
        benchmark.name, benchmark.what, "tile", 1,
        ours=seconds[0],
        limit=seconds[1] * _N_NORMALS / N_NORMALS,
        limit_of="two normals a cell",
        peer=None if theirs is None else seconds[-1],
        peer_of="" if theirs is None else theirs.name,
        goal_s=GOAL_S,
    )


BENCHMARKS = (
    Benchmark("programming", "256 x 256 pairs, one-shot, then 1 h of drift, PCM", _measure),
)
