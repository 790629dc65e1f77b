"""One 256 x 256 matrix on one tile: converters, cell errors, read noise."""

from __future__ import annotations

from functools import partial

import numpy as np

from benchmarks import peer
from benchmarks.normals import N_NORMALS, draw_normals
from benchmarks.table import Benchmark, Row
from benchmarks.timing import Call, Timing

SIZE = 256
SEED = 7
HOUR_S = 3600.0
GOAL_SERIAL_S = 12e-6
GOAL_TILED_S = 150e-6
GOAL_MOVING_S = 24e-6  # three steps of white noise
# seconds per vector by (noise, batch): four times faster than any peer, near the bare product
GOALS_S = {(False, 1): 6e-6, (False, 64): 1.9e-6, (True, 1): 8e-6, (True, 64): 3e-6}


def example_matrix() -> np.ndarray:
    """Return w (256, 256) float32, standard normal over 16."""
    w = np.random.default_rng(0).standard_normal((SIZE, SIZE), np.float32)
    return w / np.float32(np.sqrt(SIZE))


def _measure(benchmark: Benchmark, timing: Timing, *, noise: bool, batch: int) -> Row:
    import aimc_sim as aimc

    if noise:
        spec = aimc.ChipSpec.preset("reram-wan2022")
    else:
        spec = aimc.ChipSpec.preset("ideal").replace(**{"dac.bits": 8, "adc.bits": 8})
    w = example_matrix()
    x = np.random.default_rng(1).standard_normal((batch, SIZE), np.float32)
    y = np.empty_like(x)
    matrix = aimc.map_matrix(w, spec).program(SEED)
    calls: list[Call] = [lambda: matrix.mvm(x), lambda: np.matmul(x, w, out=y)]
    if noise:
        calls.append(draw_normals())
    theirs = peer.product(w, x, noise=noise)
    if theirs is not None:
        calls.append(theirs.call)
    seconds = timing.alternate(*calls)
    ours, limit = seconds[0] / batch, seconds[1] / batch
    if noise:
        limit = 2 * limit + seconds[2] * SIZE / N_NORMALS
    return Row(
        benchmark.name, benchmark.what, "vector", 1,
        ours=ours,
        limit=limit,
        limit_of="two bare products, 256 normals" if noise else "bare product",
        peer=None if theirs is None else seconds[-1] / batch,
        peer_of="" if theirs is None else theirs.name,
        goal_s=GOALS_S[noise, batch],
    )


def _benchmark(noise: bool, batch: int) -> Benchmark:
    kind = "noise" if noise else "converters"
    what = "8-bit converters" if not noise else "programming error, white read noise, 8 bit"
    return Benchmark(
        f"product-{kind}-batch-{batch}", f"256 x 256, {what}",
        partial(_measure, noise=noise, batch=batch),
    )


def _measure_moving(benchmark: Benchmark, timing: Timing) -> Row:
    """Time one step of noise with a spectrum; its limit is a step of white noise."""
    import aimc_sim as aimc

    spec = aimc.ChipSpec.preset("pcm-nandakumar2019")
    x = np.random.default_rng(1).standard_normal((1, SIZE), np.float32)
    moving, white = (
        aimc.map_matrix(example_matrix(), spec.replace(noise_in_time=kind))
        .program(SEED).wait(HOUR_S)
        for kind in ("spectrum", "split")
    )
    seconds = timing.alternate(lambda: moving.mvm(x), lambda: white.mvm(x))
    return Row(
        benchmark.name, benchmark.what, "vector", 1,
        ours=seconds[0],
        limit=seconds[1],
        limit_of="a step whose new noise is white",
        goal_s=GOAL_MOVING_S,
    )


def _measure_serial(benchmark: Benchmark, timing: Timing) -> Row:
    """Time bit-serial inputs; the limit is a bare product for every bit of the magnitude."""
    import aimc_sim as aimc

    spec = aimc.ChipSpec.preset("ideal").replace(
        **{"dac.bits": 8, "adc.bits": 8, "dac.mode": "bit_serial"}
    )
    w = example_matrix()
    x = np.random.default_rng(1).standard_normal((64, SIZE), np.float32)
    planes = np.concatenate([x] * 7)
    y = np.empty_like(planes)
    matrix = aimc.map_matrix(w, spec).program(SEED)
    seconds = timing.alternate(lambda: matrix.mvm(x), lambda: np.matmul(planes, w, out=y))
    return Row(
        benchmark.name, benchmark.what, "vector", 1,
        ours=seconds[0] / 64,
        limit=seconds[1] / 64,
        limit_of="seven bare products",
        goal_s=GOAL_SERIAL_S,
    )


def _measure_tiled(benchmark: Benchmark, timing: Timing) -> Row:
    """Time a matrix on many tiles whose parts are converted and added."""
    import aimc_sim as aimc

    # pairs of cells on neighbouring bit lines: 512 of them carry 256 columns
    spec = aimc.ChipSpec.preset("reram-wan2022").replace(**{"tile.cols": 512})
    w = np.random.default_rng(0).standard_normal((1024, 1024), np.float32) / np.float32(32)
    x = np.random.default_rng(1).standard_normal((1, 1024), np.float32)
    y = np.empty_like(x)
    matrix = aimc.map_matrix(w, spec).program(SEED)
    seconds = timing.alternate(lambda: matrix.mvm(x), lambda: np.matmul(x, w, out=y))
    return Row(
        benchmark.name, benchmark.what, "vector", 1,
        ours=seconds[0],
        limit=2 * seconds[1],
        limit_of="two bare products",
        goal_s=GOAL_TILED_S,
    )


BENCHMARKS = (
    Benchmark(
        "product-bit-serial-batch-64", "256 x 256, 8 bit, an ADC conversion for every bit",
        _measure_serial,
    ),
    Benchmark(
        "product-16-tiles-batch-1", "1024 x 1024 on 16 tiles, read noise, 8 bit",
        _measure_tiled,
    ),
    *(_benchmark(noise, batch) for noise in (False, True) for batch in (1, 64)),
    Benchmark(
        "product-spectrum-batch-1", "256 x 256, 1/f noise as a process in time, 8 bit",
        _measure_moving,
    ),
)
