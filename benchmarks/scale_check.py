"""The command `python -m benchmarks.scale_check`: the model of scale against measured runs.

It fits rates and sizes to some runs, predicts others of other shapes, measures them too, and says
what large campaigns would take.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.machine import describe, pin_threads, warn_of_settings

if TYPE_CHECKING:
    from benchmarks.scale_model import Rates, Sizes, Work
    from benchmarks.scale_points import Point

SCHEMA = "aimc-sim.scale/1"
ROUNDS = 7
CLUSTER_THREADS, GPUS = 1000, 100
# rows of the table of campaigns: shapes of `Work`
CAMPAIGNS: dict[str, dict[str, Any]] = {
    "two layers H = N = 64, 100 chips x 10^4 x 784": {
        "layers": 2, "chips": 100, "batch": 10_000, "steps": 784,
    },
    "one layer H = N = 64, 10^6 chips x 10^4 x 10^4": {
        "chips": 1_000_000, "batch": 10_000, "steps": 10_000,
    },
    "10^8 weights, 1 chip x 100 x 784": {
        "heads": 2048, "layers": 12, "batch": 100, "steps": 784,
    },
    "10^8 weights, 10^6 chips x 10^4 x 10^4": {
        "heads": 2048, "layers": 12, "chips": 1_000_000, "batch": 10_000, "steps": 10_000,
    },
}


def plan(work: Work, rates: Rates, sizes: Sizes) -> dict[str, float]:
    """Return what a campaign takes: seconds on several machines, bytes, and limits in multiples.

    One process holds one chip at a time; a sweep keeps one line and one outcome of every chip.
    """
    from benchmarks.scale_points import h100_rates

    one = rates.run_s(work) + rates.program_s(work)
    gpu = h100_rates().run_s(work)
    return {
        "two_threads_s": one / 2,
        "cluster_s": one / CLUSTER_THREADS,
        "h100_s": gpu,
        "h100s_s": gpu / GPUS,
        "process_b": sizes.deployment_b(work) + sizes.chips_b(work, 1),
        "logits_b": sizes.logits_b(work),
        "outcomes_b": sizes.task_b * work.chips,
        "journal_b": sizes.line_b * work.chips,
    }


def _text_b(size: float) -> str:
    """Return bytes as a person writes them."""
    for factor, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size:.3g} B"


def _text(value: float, unit: str) -> str:
    from aimc_sim.units import format_time

    return format_time(value) if unit == "s" else _text_b(value)


def _print(
    rates: Rates, sizes: Sizes, points: Sequence[Point], works: dict[str, Work],
    machine: dict[str, Any],
) -> None:
    from rich.table import Table

    from benchmarks.table import machine_text, open_console

    console = open_console()
    console.print(machine_text(machine), highlight=False)
    table = Table("rate", "of", "value")
    for name, value in asdict(rates).items():
        unit, scale = ("ns", 1e9) if name.endswith("_s") else ("MB", 1e-6)
        table.add_row(name, _RATES[name], f"{value * scale:.3g} {unit}")
    for name, value in asdict(sizes).items():
        table.add_row(name, _SIZES[name], f"{value:.4g} B")
    console.print(table)
    table = Table("point", "used to fit", "predicted", "measured", "ratio")
    for point in points:
        table.add_row(
            point.what, "yes" if point.fitted else "no", _text(point.predicted, point.unit),
            _text(point.measured, point.unit), f"{point.ratio:.2f}",
        )
    console.print(table)
    checks = [point for point in points if not point.fitted]
    good = sum(point.good for point in checks)
    console.print(f"{good} of {len(checks)} predictions within 20 % of what was measured")
    table = Table(
        "campaign", "two threads", f"{CLUSTER_THREADS} threads", "one H100", f"{GPUS} H100s",
        "a process holds", "sweep holds", "its journal", "all logits",
    )
    for name, work in works.items():
        found = plan(work, rates, sizes)
        table.add_row(
            name,
            *(_text(found[key], "s") for key in ("two_threads_s", "cluster_s", "h100_s",
                                                 "h100s_s")),
            *(_text_b(found[key]) for key in ("process_b", "outcomes_b", "journal_b", "logits_b")),
        )
    console.print(table)


_RATES = {
    "call_s": "any run",
    "weight_s": "a weight read from its cells",
    "lasting_s": "the noise of a weight that lasts for a sequence",
    "layer_s": "a layer at a step, however small",
    "mode_s": "states of a mode at a step",
    "conversion_s": "a conversion",
    "normal_s": "a normal of read noise",
    "product_s": "a multiply-accumulate of C or mixing",
    "byte_s": "a byte from memory",
    "cell_s": "a cell programmed and aged, once a chip",
    "cache_b": "the last cache of the processor",
}
_SIZES = {
    "weight_b": "a weight while a model is laid out",
    "cell_b": "a cell of a chip that runs",
    "task_b": "a task of a sweep and its outcome in memory",
    "line_b": "the line of a task in the journal",
}


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale_check",
        description="Time and memory of large campaigns, from a model that is fitted and checked "
        "here.",
    )
    parser.add_argument(
        "--cpu-time", action="store_true",
        help="count CPU time of runs on one thread, for a machine that others use as well",
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="measurements of each point")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write the JSON; return 1 where a prediction is off by more than 20 %."""
    options = _arguments(argv)
    from benchmarks import peer
    from benchmarks.scale_model import Work
    from benchmarks.scale_points import measure_all
    from benchmarks.timing import Timing

    warnings = warn_of_settings()
    for text in warnings:
        sys.stderr.write(f"warning: {text}\n")
    timing = Timing(rounds=options.rounds, cpu_time=options.cpu_time)
    machine = {**describe(), "clock": timing.describe(), "peer": peer.describe()}
    rates, sizes, points = measure_all(timing)
    works = {name: Work(**shape) for name, shape in CAMPAIGNS.items()}
    _print(rates, sizes, points, works, machine)
    if options.json is not None:
        data = {
            "schema": SCHEMA, "machine": machine, "warnings": warnings, "rates": asdict(rates),
            "sizes": asdict(sizes), "points": [asdict(point) for point in points],
            "campaigns": {name: plan(work, rates, sizes) for name, work in works.items()},
        }
        partial = options.json.with_name(f"{options.json.name}.partial")
        partial.write_text(json.dumps(data, indent=2, allow_nan=False) + "\n", "utf-8")
        os.replace(partial, options.json)
    return int(not all(point.good for point in points if not point.fitted))


if __name__ == "__main__":
    pin_threads()  # nothing above imports numpy
    sys.exit(main())
