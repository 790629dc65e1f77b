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

SCHEMA = "aimc-sim.scale/1"
ROUNDS = 7
CLUSTER_THREADS, GPUS = 1000, 100  # as scale_page.PLAN names them
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
    from benchmarks.scale_h100 import h100_rates

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


def _print(data: dict[str, Any]) -> None:
    from rich.table import Table

    from benchmarks.scale_page import NEAR, PLAN, RATES, SIZES, text
    from benchmarks.table import machine_text, open_console

    console = open_console()
    console.print(machine_text(data["machine"]), highlight=False)
    table = Table("constant", "of", "value")
    constants = {**data["rates"], **data["sizes"]}
    for name, what in {**RATES, **SIZES}.items():
        table.add_row(name, what, text(constants[name], "s" if name.endswith("_s") else "B"))
    console.print(table)
    table = Table("run", "used to fit", "predicted", "measured", "ratio")
    checks = []
    for point in data["points"]:
        ratio, unit = point["predicted"] / point["measured"], point["unit"]
        if not point["fitted"]:
            checks.append(abs(ratio - 1) <= NEAR)
        table.add_row(
            point["what"], "yes" if point["fitted"] else "", text(point["predicted"], unit),
            text(point["measured"], unit), f"{ratio:.2f}",
        )
    console.print(table)
    console.print(f"{sum(checks)} of {len(checks)} predictions within 20 % of what was measured")
    table = Table("campaign", *PLAN.values())
    for name, found in data["campaigns"].items():
        table.add_row(
            name, *(text(found[key], "s" if key.endswith("_s") else "B") for key in PLAN)
        )
    console.print(table)


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
    parser.add_argument(
        "--page", type=Path, metavar="FILE", help="also write the tables of docs/scaling.md there"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write the JSON; return 1 where a prediction is off by more than 20 %."""
    options = _arguments(argv)
    from benchmarks import peer
    from benchmarks.scale_model import Work
    from benchmarks.scale_page import write_page
    from benchmarks.scale_points import measure_all
    from benchmarks.timing import Timing

    warnings = warn_of_settings()
    for text in warnings:
        sys.stderr.write(f"warning: {text}\n")
    timing = Timing(rounds=options.rounds, cpu_time=options.cpu_time)
    machine = {**describe(), "clock": timing.describe(), "peer": peer.describe()}
    rates, sizes, points = measure_all(timing)
    works = {name: Work(**shape) for name, shape in CAMPAIGNS.items()}
    data = {
        "schema": SCHEMA, "machine": machine, "warnings": warnings, "rates": asdict(rates),
        "sizes": asdict(sizes), "points": [asdict(point) for point in points],
        "campaigns": {name: plan(work, rates, sizes) for name, work in works.items()},
    }
    _print(data)
    if options.page is not None:
        write_page(options.page, data)
    if options.json is not None:
        partial = options.json.with_name(f"{options.json.name}.partial")
        partial.write_text(json.dumps(data, indent=2, allow_nan=False) + "\n", "utf-8")
        os.replace(partial, options.json)
    return int(not all(point.good for point in points if not point.fitted))


if __name__ == "__main__":
    pin_threads()  # nothing above imports numpy
    sys.exit(main())
