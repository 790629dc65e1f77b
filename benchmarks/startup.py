"""What a user waits for: the command line in new processes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from aimc_sim.errors import InputError
from benchmarks.table import Benchmark, Row
from benchmarks.timing import Timing, available_threads

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "examples" / "models" / "s4d-digits.pt"
HELP_GOAL_S, RUN_GOAL_S = 0.5, 5.0
ROUNDS = 3
_COMMAND = "from aimc_sim.cli.main import main; main()"


def _python(*arguments: str, **environment: str) -> None:
    """Run a new interpreter; InputError with its last line where it fails."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": path, **environment},
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(
            f"time `python {' '.join(arguments)}`",
            f"it ended with exit code {done.returncode} ({last})",
            "run it by hand from the root of the repository",
        )


def _command(*arguments: str, **environment: str) -> None:
    _python("-c", _COMMAND, *arguments, **environment)


def _alternate(timing: Timing, *calls: Callable[[], None]) -> np.ndarray:
    return timing.for_long_calls(ROUNDS).alternate(*calls)


def _measure_help(benchmark: Benchmark, timing: Timing) -> Row:
    ours, limit = _alternate(
        timing, lambda: _command("--help"), lambda: _python("-c", "import typer")
    )
    return Row(
        benchmark.name, benchmark.what, "call", 1,
        ours=ours, limit=limit, limit_of="python and typer", goal_s=HELP_GOAL_S,
    )


def _measure_run(benchmark: Benchmark, timing: Timing) -> Row:
    ours, limit = _alternate(
        timing,
        lambda: _command("run", str(MODEL)),
        lambda: _python("-c", "import numba, pydantic, typer"),
    )
    return Row(
        benchmark.name, benchmark.what, "call", available_threads(),
        ours=ours, limit=limit, limit_of="imports of numba, pydantic, typer", goal_s=RUN_GOAL_S,
    )


def _measure_cold(benchmark: Benchmark, timing: Timing) -> Row:
    arguments = ("run", str(MODEL), "--limit", "1")
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        _command(*arguments, NUMBA_CACHE_DIR=folder)
        seconds = time.perf_counter() - started
    return Row(
        benchmark.name, benchmark.what, "call", available_threads(), ours=np.array([seconds]),
        note="measured once: the kernels compile anew in an empty cache folder",
    )


BENCHMARKS = (
    Benchmark("startup-help", "aimc-sim --help", _measure_help),
    Benchmark("startup-run", "second aimc-sim run examples/models/s4d-digits.pt", _measure_run),
    Benchmark("startup-cold", "first run, kernels compile", _measure_cold, cold=True),
)
