"""Peak memory of one run in a process of its own: `python -m benchmarks.scale_memory CASE`.

The peak is that of the address space of this process, after what imports and compiled code take
has been counted once; memory that a parent had shows in `getrusage` and not here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.scale_model import Work

ROOT = Path(__file__).resolve().parent.parent
# by noise that is new at every step, and noise that lasts for a sequence
PRESETS = {
    (True, False): "reram-wan2022", (True, True): "pcm-nandakumar2019", (False, True): "cmo-hfox",
}
SEED, WAIT_S = 7, 3600.0
SMALL = Work(heads=8, states=8, steps=2)


def measure(case: Mapping[str, Any]) -> float:
    """Return by how many bytes a case grows a new process, at its peak."""
    command = [sys.executable, "-m", "benchmarks.scale_memory", json.dumps(dict(case))]
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": paths}, capture_output=True,
        text=True, check=True,
    )
    return float(done.stdout.split()[-1])


def of_run(work: Work, *, until: str = "run") -> dict[str, Any]:
    """Return the case of a run, or of its first part, "deploy"."""
    return {"kind": "run", "until": until, **asdict(work)}


def of_matrix(n_in: int, n_out: int, batch: int) -> dict[str, Any]:
    """Return the case of a batch through one noisy matrix."""
    return {"kind": "matrix", "n_in": n_in, "n_out": n_out, "batch": batch}


def of_tasks(n: int) -> dict[str, Any]:
    """Return the case of a sweep of so many tasks."""
    return {"kind": "tasks", "n": n}


def status_b(key: str) -> float:
    """Return a figure of this process in bytes: "VmRSS" now, "VmHWM" at its peak.

    Where the system has no /proc, the peak that `getrusage` knows stands for both.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return float(peak) * (1 if sys.platform == "darwin" else 1024)
    return next(float(line.split()[1]) for line in lines if line.startswith(key)) * 1024


def deploy(work: Work) -> Any:
    """Return a random model of this shape laid out on a chip."""
    import aimc_sim as aimc
    import ssm
    from benchmarks.models import random_model

    rng = np.random.default_rng(3)
    model = random_model(work.heads, work.states)
    model = replace(model, layers=model.layers * work.layers)
    with warnings.catch_warnings():
        # a mode near its noise limit is a finding about the device, not about its size
        warnings.simplefilter("ignore", UserWarning)
        return ssm.deploy(
            model, aimc.ChipSpec.preset(PRESETS[work.noisy, work.lasting]), work.form,
            calibrate=rng.random((2, 50, work.n_in), np.float32),
        )


def signal(work: Work) -> np.ndarray:
    """Return inputs (batch, steps, n_in) float32."""
    return np.random.default_rng(3).random((work.batch, work.steps, work.n_in), np.float32)


def _run(work: Work, until: str) -> None:
    deployment = deploy(work)
    if until == "run":
        deployment.program(SEED, work.chips).wait(WAIT_S).infer(signal(work))


def _multiply(n_in: int, n_out: int, batch: int) -> Callable[[], object]:
    import aimc_sim as aimc

    rng = np.random.default_rng(3)
    w = rng.standard_normal((n_in, n_out))
    spec = aimc.ChipSpec.preset(PRESETS[True, False])
    matrix = aimc.map_matrix(w, spec).program(SEED).wait(WAIT_S)
    matrix.mvm(rng.standard_normal((32, n_in), np.float32))
    x = rng.standard_normal((batch, n_in), np.float32)
    return lambda: matrix.mvm(x)


def _sweep(n: int) -> None:
    """Hold what a sweep of so many tasks holds at its end, with outcomes as a model's task has."""
    from aimc_sim.sweep import Campaign
    from aimc_sim.sweep.plan import Plan
    from aimc_sim.sweep.tasks import Outcome
    from ssm.scoring import OUTPUTS

    campaign = Campaign.grid(
        "aimc_sim.sweep.example:throw", {"draw": range(n)}, outputs=OUTPUTS, repeats=["draw"],
        fixed={f"setting {k}": k for k in range(14)},
    )
    plan = Plan(campaign, {}, None, False)
    for number, task in enumerate(campaign.tasks):
        values = {name: float(number) for name in OUTPUTS}
        plan.take(Outcome(task.name, values, None, 0.1))
    plan.chosen()


def main(argv: list[str]) -> int:
    """Print the growth of the case in bytes."""
    case = json.loads(argv[0])
    kind = case.pop("kind")
    call: Callable[[], object]
    if kind == "run":
        until = case.pop("until")
        work = Work(**case)
        _run(SMALL, "run")  # imports, compiled code
        call = lambda: _run(work, until)  # noqa: E731 - one of three
    elif kind == "matrix":
        call = _multiply(**case)
    else:
        _sweep(1)
        call = lambda: _sweep(case["n"])  # noqa: E731
    before = status_b("VmRSS")
    call()
    sys.stdout.write(f"{status_b('VmHWM') - before:.0f}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
