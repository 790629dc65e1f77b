"""Programming a tile, in one shot and in a closed loop, and letting it drift."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import peer
from benchmarks.normals import N_NORMALS, draw_normals
from benchmarks.products import SIZE, example_matrix
from benchmarks.table import Benchmark, Row
from benchmarks.timing import Call, Timing

if TYPE_CHECKING:
    from aimc_sim.specs import ChipSpec

GOAL_S = 2e-3
VERIFY_GOAL_S = 50e-3
WAIT_S = 3600.0
_N_CELLS = SIZE * SIZE
# one normal for the programming error and one for the drift exponent of every cell
_NORMALS_PER_CELL = 2


def write_verify_chip() -> ChipSpec:
    """Return a chip whose cells take ten pulses of write-verify in the mean.

    No published device: pulses that saturate and scatter, reads with noise, round numbers.
    """
    import aimc_sim as aimc

    def curve(*polynomial: float) -> dict[str, Any]:
        return {"of": "g_us", "unit_s": 1e-6, "polynomial": polynomial}

    pulses = {
        "set_mean": curve(2.2, -0.03), "set_sigma": curve(0.9),
        "reset_mean": curve(-0.6, -0.03), "reset_sigma": curve(0.9),
        "device_spread": 0.2,
        "set_v": 1.5, "reset_v": -1.7, "width_s": 1e-6, "v_read_v": 0.2, "t_read_s": 1e-6,
    }
    device = {
        "name": "pulsed", "g_min_s": 1e-6, "g_max_s": 25e-6, "pulses": pulses,
        "read_noise": {"sigma": {"power": [0.0015, -0.65], "high": 0.05}},
    }
    write = {"tolerance_s": 0.5e-6, "max_pulses": 100}
    return aimc.ChipSpec.model_validate({"name": "pulsed", "device": device, "write": write})


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
        limit=seconds[1] * 2 * _N_CELLS * _NORMALS_PER_CELL / N_NORMALS,
        limit_of="two normals a cell",
        peer=None if theirs is None else seconds[-1],
        peer_of="" if theirs is None else theirs.name,
        goal_s=GOAL_S,
    )


def _chip_call(spec: ChipSpec, wait_s: float) -> Any:
    """Return a call that writes the cells of one tile, lets them age, and returns the chip."""
    from aimc_sim.chip import Chip
    from aimc_sim.mapping import Request, place

    layout = place([Request("cells", 1, SIZE, SIZE, pair=False)], spec)
    low, high = spec.device.g_min_s, spec.device.g_max_s
    target = np.random.default_rng(0).uniform(low, high, _N_CELLS).astype(np.float32)
    seeds = count()

    def program() -> Chip:
        chip = Chip(spec, layout, target, next(seeds))
        chip.wait(wait_s)
        chip.aged()
        return chip

    return program


def _measure_one_shot(benchmark: Benchmark, timing: Timing) -> Row:
    import aimc_sim as aimc

    program = _chip_call(aimc.ChipSpec.preset("pcm-nandakumar2019"), WAIT_S)
    seconds = timing.alternate(program, draw_normals())
    return Row(
        benchmark.name, benchmark.what, "tile", 1,
        ours=seconds[0],
        limit=seconds[1] * _N_CELLS * _NORMALS_PER_CELL / N_NORMALS,
        limit_of="two normals a cell",
        goal_s=GOAL_S,
    )


def _measure_write_verify(benchmark: Benchmark, timing: Timing) -> Row:
    program = _chip_call(write_verify_chip(), 0.0)
    log = program().written.log()
    seconds = timing.alternate(program, draw_normals())
    return Row(
        benchmark.name, benchmark.what, "tile", 1,
        ours=seconds[0],
        limit=seconds[1] * _N_CELLS * (2 * log.pulses_mean + 1) / N_NORMALS,
        limit_of="a normal a pulse, one a verify read",
        goal_s=VERIFY_GOAL_S,
        note=f"{log.pulses_mean:.1f} pulses a cell, at most {log.pulses_most}; "
        f"{log.failed} cells failed",
    )


BENCHMARKS = (
    Benchmark("programming", "256 x 256 pairs, one-shot, then 1 h of drift, PCM", _measure),
    Benchmark(
        "programming-one-shot", "256 x 256 cells, then 1 h of drift, PCM", _measure_one_shot
    ),
    Benchmark(
        "programming-write-verify", "256 x 256 cells, pulse and read until near enough",
        _measure_write_verify,
    ),
)
