"""Spoken digits of two classes with ternary weights, and what stuck cells make of them.

    python examples/14_imssa.py [--data DIR] [--classes A B] [--chips N] [--quick]

The setting of IMSSA (doi:10.48550/arXiv.2412.20215): A and C of one head in one 64 x 64 array,
near-ternary weights, spoken digits of two classes. They report 95.06 % in software and 81.69 %
on their chip, and lay the loss on stuck cells. Here the clips are of the Free Spoken Digit
Dataset, whose two classes are easier; so compare what is lost, not what is left.

One layer of 8 heads with 30 states. dB is folded into C, so B needs no cells; the input is a
row of the array. C and D of a head, mixing, encoder and decoder are ternary, with the threshold
0.7 mean |w| of Li et al. (doi:10.48550/arXiv.1605.04711): once rounded, once trained so.
A is analog: each form's own cells. Only heads are on arrays; encoder, mixing and decoder are in
logic. Cells are exact but for those that stick, half of them at g_min and half at g_max;
converters have 8 bits. "idle off": cells of the array without a weight are not formed. "idle at
g_min": they are, all rows are driven, and one that sticks at g_max couples two modes. Under a
minute on a free core.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

import ssm
from aimc_sim.specs import ChipSpec
from ssm.quantize import Precision
from ssm.schemes import Scheme
from ssm.tasks import Task
from ssm.trainable import Trainable

TERNARY, SCHEME = Precision(c=2, d=2, mix=2, enc=2, dec=2), Scheme(method="ternary")
ROWS = (
    ("direct", "g_min"), ("direct", "off"), ("delta", "off"), ("leapfrog", "g_min"),
    ("leapfrog", "off"),
)
RATES = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1)
IN_LOGIC = ("encoder", "mixing", "decoder")
PAPER = "IMSSA, other data: 95.06 % in software, 81.69 % on the chip"


def two_classes(task: Task, classes: tuple[int, int], every: int) -> Task:
    """Return the clips of two classes, numbered 0 and 1; of those for training one of `every`."""
    a, b = classes
    train, test = (np.flatnonzero((y == a) | (y == b)) for y in (task.y_train, task.y_test))
    train = train[::every]
    return Task(
        task.name, task.x_train[train], (task.y_train[train] == b).astype(np.int64),
        task.x_test[test], (task.y_test[test] == b).astype(np.int64), 2, task.source,
    )


def chip_with_stuck_cells(rate: float, idle: str) -> ChipSpec:
    """Return a chip with 64 x 64 arrays of one head each and a share of stuck cells."""
    settings = {"dac.bits": 8, "adc.bits": 8, "layout": "head", "tile.rows": 64, "tile.cols": 64}
    spec = ChipSpec.preset("ideal").replace(**settings, **{"tile.idle": idle})
    if rate == 0.0:
        return spec
    return spec.replace(faults={"stuck_low": rate / 2, "stuck_high": rate / 2})


def share(model: ssm.Model, task: Task) -> float:
    """Return the test accuracy in float, in %."""
    return float(100 * (model.logits(task.x_test).argmax(axis=1) == task.y_test).mean())


def main() -> None:
    """Train, print accuracy against the rate of stuck cells."""
    parser = argparse.ArgumentParser(description="stuck cells under two ternary spoken digits")
    parser.add_argument("--data", help="fsdd.npz or a folder with it (default: AIMC_DATA)")
    parser.add_argument("--classes", type=int, nargs=2, default=[3, 8])
    parser.add_argument("--chips", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=40, help="in float")
    parser.add_argument("--ternary-epochs", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="a smoke run: few clips and chips")
    options = parser.parse_args()

    torch.set_num_threads(1)  # the bits of the result depend on the number of threads
    first, second = options.classes
    task = two_classes(
        ssm.load_task("fsdd", options.data), (first, second), 10 if options.quick else 1
    )
    epochs, tuned, chips = (
        (1, 1, 2) if options.quick else (options.epochs, options.ternary_epochs, options.chips)
    )
    exact = ssm.train(
        task, n_heads=8, n_states=30, n_layers=1, epochs=epochs, lr=2e-2, batch_size=32,
        dt_min=5e-3, dt_max=0.2, dropout=0.1, weight_noise=0.05, seed=0,
    ).replace(name="imssa", task=None)
    rounded = Trainable([exact], TERNARY, scheme=SCHEME).to_models()[0]
    model = ssm.fine_tune(
        exact, task, precision=TERNARY, scheme=SCHEME, epochs=tuned, lr=5e-3, batch_size=32,
        device="cpu",
    )
    print(
        f"digits {first} and {second}, {len(task.y_test)} test clips; {model.n_parameters} "
        f"parameters\nin software: float {share(exact, task):.2f} %, rounded to ternary "
        f"{share(rounded, task):.2f} %, trained ternary {share(model, task):.2f} %\n{PAPER}\n"
    )
    print(f"accuracy in %, mean and lowest of {chips} chips (share of modes outside the unit "
          "circle)")
    print(f"{'stuck cells':26}{''.join(f'{100 * rate:g} %'.rjust(19) for rate in RATES)}")
    for form, idle in ROWS:
        cells = []
        for rate in RATES:
            deployed = ssm.deploy(
                model, chip_with_stuck_cells(rate, idle), form, calibrate=task.calibration(),
                digital=IN_LOGIC,
            )
            programmed = deployed.program(seed=0, chips=chips)
            scores = 100 * programmed.infer(task.x_test).accuracy(task.y_test)
            outside = 100 * programmed.unstable_modes().mean() / deployed.network.sign.size
            found = f"{scores.mean():.1f} {scores.min():.1f} ({outside:.0f} %)"
            cells.append(found.rjust(19))
        idle_words = "idle at g_min" if idle == "g_min" else "idle off"
        print(f"{f'{form}, {idle_words}':26}{''.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
