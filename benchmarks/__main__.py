"""The command `python -m benchmarks`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.machine import describe, pin_threads, warn_of_settings

if TYPE_CHECKING:
    from benchmarks.table import Benchmark


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Speed of aimc-sim beside the limit of the machine, a peer and a goal.",
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME",
        help="only rows whose name contains one of these texts (default: all)",
    )
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    parser.add_argument("--quick", action="store_true", help="smoke run: one short round a row")
    parser.add_argument("--cold", action="store_true", help="also time compilation (minutes)")
    parser.add_argument(
        "--cpu-time", action="store_true",
        help="count CPU time in rows of one thread, for a machine that others use as well",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    return parser.parse_args(argv)


def list_benchmarks() -> list[Benchmark]:
    """Return all benchmarks, in the order of the table."""
    from benchmarks import (
        campaigns,
        engines,
        normals,
        products,
        programming,
        recurrent,
        scaling,
        startup,
        training,
        wires,
    )

    modules = (
        normals, products, programming, recurrent, scaling, engines, training, startup, wires,
        campaigns,
    )
    return [benchmark for module in modules for benchmark in module.BENCHMARKS]


def choose(names: Sequence[str], *, cold: bool) -> list[Benchmark]:
    """Return the benchmarks whose name contains one of `names` (all where there are none).

    Raises UsageError for a text that no name contains.
    """
    from aimc_sim.errors import UsageError, nearest

    everything = list_benchmarks()
    known = [benchmark.name for benchmark in everything]
    for name in names:
        if not any(name in other for other in known):
            guess = nearest(name, known)
            hint = f"did you mean '{guess}'? " if guess else ""
            raise UsageError(
                f"measure '{name}'", "no benchmark has that in its name",
                f"{hint}python -m benchmarks --list prints all names",
            )
    return [
        benchmark
        for benchmark in everything
        if (cold or not benchmark.cold)
        and (not names or any(name in benchmark.name for name in names))
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the JSON; return the exit code."""
    options = _arguments(argv)
    from aimc_sim.errors import AimcError

    try:
        chosen = choose(options.names, cold=options.cold)
        if options.list:
            sys.stdout.writelines(f"{b.name:45} {b.what}\n" for b in chosen)
            return 0
        _run(chosen, options)
    except AimcError as error:
        text = f"error\n  asked: {error.asked}\n  found: {error.found}\n  to do: {error.do}\n"
        sys.stderr.write(text)
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: no file is left half-written\n")
        return 130
    return 0


def _run(chosen: list[Benchmark], options: argparse.Namespace) -> None:
    from benchmarks import peer
    from benchmarks.table import print_rows, write_json
    from benchmarks.timing import Timing, threads

    warnings = warn_of_settings()
    for text in warnings:
        sys.stderr.write(f"warning: {text}\n")
    timing = Timing.smoke() if options.quick else Timing(cpu_time=options.cpu_time)
    machine = {**describe(), "clock": timing.describe(), "peer": peer.describe()}
    rows = []
    for number, benchmark in enumerate(chosen, start=1):
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\033[K{number}/{len(chosen)} {benchmark.name}")
            sys.stderr.flush()
        with threads(1):
            rows.append(benchmark.measure(benchmark, timing))
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K")
    print_rows(rows, machine, quick=options.quick)
    if options.json is not None:
        write_json(options.json, rows, machine, warnings, quick=options.quick)


if __name__ == "__main__":
    pin_threads()  # nothing above imports numpy
    sys.exit(main())
