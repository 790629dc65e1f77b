"""Arrays whose lines resist: solving them, and what they cost afterwards."""

from __future__ import annotations

import numpy as np

from benchmarks.models import random_model
from benchmarks.products import SEED, SIZE, example_matrix
from benchmarks.table import Benchmark, Row
from benchmarks.timing import Timing

OHM = 1.0
GOAL_SOLVE_S = 1.0
GOAL_PRODUCT = 1.1  # of a product without wires
GOAL_STEPS = 1e-3  # of solving the array at every product
N_STEPS, QUICK_STEPS = 1000, 20


def _network(size: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(1e-6, 1e-4, (size, size))


def _measure_solve(benchmark: Benchmark, timing: Timing) -> Row:
    """Time the map of one array; its limit is the products that its elimination is made of."""
    from aimc_sim import wires

    size = 32 if timing.quick else SIZE
    g_s = _network(size)
    a, out = np.eye(size), np.empty((size, size))
    seconds = timing.alternate(
        lambda: wires.effective_conductance(g_s, r_wl_ohm=OHM, r_bl_ohm=OHM),
        lambda: np.matmul(a, a, out=out),
    )
    return Row(
        benchmark.name, benchmark.what, "array", 1,
        ours=seconds[0],
        limit=size * seconds[1],
        limit_of=f"{size} products of {size} x {size} matrices, float64",
        goal_s=GOAL_SOLVE_S,
    )


def _measure_product(benchmark: Benchmark, timing: Timing) -> Row:
    """Time a product with wires; its limit is the same product without."""
    import aimc_sim as aimc

    spec = aimc.ChipSpec.preset("reram-wan2022")
    lines = aimc.WireSpec(r_wl_ohm=OHM, r_bl_ohm=OHM)
    x = np.random.default_rng(1).standard_normal((1, SIZE), np.float32)
    wired, bare = (
        aimc.map_matrix(example_matrix(), spec.replace(wires=each)).program(SEED)
        for each in (lines, None)
    )
    for matrix in (wired, bare):
        matrix.mvm(x)  # solves the array
    seconds = timing.alternate(lambda: wired.mvm(x), lambda: bare.mvm(x))
    return Row(
        benchmark.name, benchmark.what, "vector", 1,
        ours=seconds[0],
        limit=seconds[1],
        limit_of="the same without wires",
        goal_s=GOAL_PRODUCT * float(np.median(seconds[1])),
    )


def _measure_steps(benchmark: Benchmark, timing: Timing) -> Row:
    """Time recurrent steps with wires; the rival solves a 64 x 64 array at every product."""
    import aimc_sim as aimc
    import ssm
    from aimc_sim import wires

    spec = aimc.ChipSpec.preset("reram-wan2022").replace(
        **{"tile.rows": 64, "tile.cols": 64},
        wires=aimc.WireSpec(r_wl_ohm=OHM, r_bl_ohm=OHM),
    )
    n_steps = QUICK_STEPS if timing.quick else N_STEPS
    x = np.random.default_rng(3).random((1, n_steps, 1), np.float32)
    # one head of 32 modes: A on short tiles, C and the mixing matrix within 64 x 64
    chip = ssm.deploy(random_model(1, 64), spec, calibrate=x[:, :20]).program(SEED)
    chip.infer(x)  # solves the arrays
    g_s = _network(64)
    seconds = timing.alternate(
        lambda: chip.infer(x),
        lambda: wires.effective_conductance(g_s, r_wl_ohm=OHM, r_bl_ohm=OHM),
    )
    per_step = seconds[0] / n_steps
    return Row(
        benchmark.name, benchmark.what, "step", 1,
        ours=per_step,
        peer=seconds[1],
        peer_of="solving 64 x 64 cells once",
        goal_s=GOAL_STEPS * float(np.median(seconds[1])),
    )


BENCHMARKS = (
    Benchmark("wires-solve-256", "effective conductances of 256 x 256 cells", _measure_solve),
    Benchmark("wires-product", "256 x 256 with wires, read noise, 8 bit", _measure_product),
    Benchmark("wires-recurrence", "1000 steps on 64 x 64 tiles with wires", _measure_steps),
)
