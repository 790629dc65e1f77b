"""What drift does to the demo model, and what each compensation saves of it.

    python examples/03_drift.py [--chip NAME] [--chips N] [--limit N] [--form FORM]

Phase-change cells lose conductance as a power of time. "global" divides each matrix by its mean
gain (two reads), "column" and "affine" fit every column from patterns (100 reads a row part).
"""

import argparse

import aimc_sim as aimc
import ssm
from aimc_sim.units import format_time
from ssm.evaluate import evaluate

COMPENSATIONS = ("none", "global", "column", "affine")
TIMES_S = (0.0, 60.0, 3600.0, 6 * 3600.0, 86400.0, 30 * 86400.0)


def main() -> None:
    """Print one line a compensation."""
    parser = argparse.ArgumentParser(description="compare compensations of drift")
    parser.add_argument("--model", default="examples/models/s4d-digits.pt")
    parser.add_argument("--chip", default="pcm-nandakumar2019")
    parser.add_argument("--chips", type=int, default=8)
    parser.add_argument("--limit", type=int, default=None)
    parser.add_argument("--form", default="leapfrog")
    options = parser.parse_args()

    model = ssm.load(options.model)
    task = ssm.load_task(model.task)
    chip = aimc.ChipSpec.preset(options.chip)
    print(f"{options.chips} chips of {options.chip}: accuracy in %, mean +- spread over chips")
    times = "".join(f"{format_time(at):>13}" for at in TIMES_S)
    print(f"{'compensation':12}{times}   reads")
    for compensation in COMPENSATIONS:
        found = evaluate(
            model, chip.replace(compensation=compensation), task.x_test, task.y_test,
            form=options.form, chips=options.chips, times_s=TIMES_S, limit=options.limit,
        )
        cells = [f"{row.mean():5.1f} +- {row.std():4.1f}" for row in 100 * found.chip_accuracy()]
        print(f"{compensation:12}" + "".join(f"{cell:>13}" for cell in cells)
              + f"{found.calibration_reads:8}")


if __name__ == "__main__":
    main()
