"""How many bits A and the state need: rounding after training and training rounded, by form of A.

    python examples/10_bits_of_a.py [a] [grid] [state] [train] [--model M] [--data D] [--quick]

a : A alone rounded after training, in every form. grid : bits of A times bits of the state
beside S4D-64 of Zhao et al., doi:10.48550/arXiv.2506.12480, weights at 4 bits and activations at
6. state : ranges of the state from percentiles. train : a small model trained rounded in every
form of A. All four unless some are named.

A comparison needs a model of pixel MNIST such as examples/08_zhao.py makes, and the data (D:
mnist.npz or its folder); --quick shows on the demo model of the 8 x 8 digits that all runs.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

import ssm
from ssm import Model, Precision, fine_tune, load_task, quantize, start_models
from ssm.observe import set_steps
from ssm.poles import FORMS_OF_A
from ssm.quantize import outside
from ssm.schemes import Scheme
from ssm.tasks import Task
from ssm.trainable import Trainable
from ssm.tune import score

A_BITS = (8, 7, 6, 5, 4)
GRID_A, GRID_STATE = (16, 8, 7, 6), (6, 7, 8, 16)
TRAIN_BITS = (5, 4, 3)
PERCENTILES = (100.0, 99.99, 99.9, 99.0)
WEIGHTS = {"c": 4, "d": 4, "mix": 4, "enc": 4, "dec": 4, "act": 6}
# test accuracy in %; of A alone a 4-layer model of 16 heads
PAPER_A = {
    "cartesian": {8: 97.0, 7: 94.8, 6: 63.3, 5: 9.9},
    "log-polar": {8: 98.3, 7: 97.4, 6: 92.3, 5: 69.0},
}
PAPER_GRID = {
    16: (13.6, 33.2, 65.6, 86.0), 8: (13.8, 27.9, 39.5, 50.9),
    7: (13.1, 15.4, 16.6, 21.8), 6: (14.0, 13.9, 15.9, 17.3),
}
_AT_ONCE = 4  # models side by side
_CALIBRATION = 64


def accuracy(
    models: list[Model], task: Task, n: int, precision: Precision, own_steps: bool = False
) -> np.ndarray:
    """Return the accuracy in % of models of one shape on n test sequences, (models,).

    own_steps : the registers have the steps that the models carry.
    """
    x = torch.as_tensor(np.asarray(task.x_test[:n], np.float32))
    y = torch.as_tensor(np.asarray(task.y_test[:n], np.int64))
    first = torch.as_tensor(np.asarray(task.x_train[:_CALIBRATION], np.float32))
    found = []
    for k in range(0, len(models), _AT_ONCE):
        module = Trainable(models[k : k + _AT_ONCE], precision)
        if precision.given():
            module.calibrate(first)
        if own_steps:
            take_steps(module, models[k : k + _AT_ONCE])
        found.append(score(module, x, y))
    return 100 * np.concatenate(found)


def take_steps(module: Trainable, models: list[Model]) -> None:
    """Give the registers of a module the steps that its models carry."""
    for k, layer in enumerate(module.layers):
        steps = np.stack([model.layers[k].state_step for model in models])
        layer.state_step.set_range(
            torch.as_tensor(steps * (2 ** (layer.state_step.bits - 1) - 1), dtype=torch.float32)
        )


def table_of_a(model: Model, task: Task, n: int, bits: tuple[int, ...]) -> None:
    """Print the accuracy with A alone rounded."""
    plain = accuracy([model], task, n, Precision())[0]
    print(f"\nA alone rounded after training, test accuracy in % (float {plain:.1f}); in brackets "
          "the share of modes\nwhose nearest code lies outside the unit circle; published in [ ]")
    print(f"{'form':10}" + "".join(f"{f'{b} bits':>24}" for b in bits))
    n_modes = sum(layer.pole.size for layer in model.layers)
    for form in FORMS_OF_A:
        scheme = Scheme(form_of_a=form)
        each = [Precision(a=b) for b in bits]
        shares = accuracy([quantize(model, p, scheme) for p in each], task, n, Precision())
        row = ""
        for b, p, share in zip(bits, each, shares, strict=True):
            out = f"({100 * outside(model, p, scheme) / n_modes:.1f} %)"
            paper = f"[{PAPER_A[form][b]}]" if b in PAPER_A.get(form, {}) else ""
            row += f"{share:8.1f} {out:>8}{paper:>7}"
        print(f"{form:10}{row}", flush=True)


def table_of_bits(
    model: Model, task: Task, n: int, a_bits: tuple[int, ...], form: str
) -> None:
    """Print the accuracy for bits of A times bits of the state."""
    print(f"\nrounded after training, {form} A, W4A6; columns: bits of the state; in [ ] "
          "S4D-64 as published")
    print("A bits    " + "".join(f"{bits:>18}" for bits in GRID_STATE))
    rounded = [quantize(model, Precision(a=b), Scheme(form_of_a=form)) for b in a_bits]
    columns = [
        accuracy(rounded, task, n, Precision(**WEIGHTS, state=bits)) for bits in GRID_STATE
    ]
    for b, row in zip(a_bits, np.transpose(columns), strict=True):
        pairs = zip(row, PAPER_GRID[b], strict=True)
        print(f"{b:<10}" + "".join(f"{s:11.1f} {f'[{p}]':>6}" for s, p in pairs), flush=True)


def table_of_states(model: Model, task: Task, n: int, state_bits: tuple[int, ...]) -> None:
    """Print the accuracy for bits of the state and the percentile that ends its range."""
    x = task.x_train[:_CALIBRATION]
    print("\nrounded after training, log-polar A, W4A6-A8; columns: percentile of a state's "
          "magnitude that ends its range\nstate bits" + "".join(f"{p:>10}" for p in PERCENTILES))
    rounded = quantize(model, Precision(a=8))
    for bits in state_bits:
        models = [
            set_steps(rounded, x, Precision(state=bits), method="percentile", percentile=p)
            for p in PERCENTILES
        ]
        row = accuracy(models, task, n, Precision(**WEIGHTS, state=bits), own_steps=True)
        print(f"{bits:<10}" + "".join(f"{share:10.1f}" for share in row), flush=True)


def table_of_training(
    task: Task, n: int, bits: tuple[int, ...], seeds: int, epochs: tuple[int, int]
) -> None:
    """Print the accuracy of a small model before and after training with A rounded."""
    start = start_models(
        range(seeds), d_input=task.x_train.shape[2], n_classes=task.n_classes, n_heads=8,
        n_states=32, n_layers=1, norm="none", task=task.name,
    )
    models = fine_tune(start, task, epochs=epochs[0], lr=1.5e-2, kernel_lr=4e-3, device="cpu")
    plain = accuracy(models, task, n, Precision())
    print(f"\n{task.name}, {len(task.x_train)} sequences, 8 heads of 32 states, {seeds} seeds: "
          f"float {plain.mean():.2f} +- {plain.std(ddof=1):.2f} %;\nA alone rounded, before "
          f"training -> after {epochs[1]} epochs, mean +- spread over seeds")
    print(f"{'form':10}" + "".join(f"{f'{b} bits':>26}" for b in bits))
    for form in FORMS_OF_A:
        scheme, row = Scheme(form_of_a=form), ""
        for b in bits:
            p = Precision(a=b)
            before = accuracy([quantize(m, p, scheme) for m in models], task, n, Precision())
            tuned = fine_tune(
                models, task, precision=p, scheme=scheme, epochs=epochs[1], lr=4e-3,
                kernel_lr=1e-3, device="cpu",
            )
            after = accuracy(tuned, task, n, Precision())
            row += f"{before.mean():9.1f} -> {after.mean():5.2f} +- {after.std(ddof=1):4.2f}"
        print(f"{form:10}{row}", flush=True)


def few(task: Task, n_train: int, n_test: int) -> Task:
    """Return a task of a part of its sequences."""
    return Task(
        task.name, task.x_train[:n_train], task.y_train[:n_train], task.x_test[:n_test],
        task.y_test[:n_test], task.n_classes, task.source,
    )


def main() -> None:
    """Print the tables that were asked for."""
    parser = argparse.ArgumentParser(description="bits of A and of the state")
    parser.add_argument("tables", nargs="*", help="a, grid, state, train (default: all)")
    parser.add_argument("--model", default="examples/models/s4d-digits.pt")
    parser.add_argument("--data", help="mnist.npz or a folder with it (default: AIMC_DATA)")
    parser.add_argument("--limit", type=int, default=2600, help="test sequences")
    parser.add_argument("--form", default="log-polar", choices=FORMS_OF_A, help="of A in the grid")
    parser.add_argument("--quick", action="store_true", help="a smoke run on few small digits")
    options = parser.parse_args()
    tables, started = options.tables or ["a", "grid", "state", "train"], time.perf_counter()
    model = ssm.load(options.model)
    task = load_task(str(model.task), options.data)
    n = min(50 if options.quick else options.limit, len(task.x_test))
    print(f"{model.name} on {n} test sequences of {task.name}: standard error at most "
          f"{50 / n**0.5:.2f} points")
    if "a" in tables:
        table_of_a(model, task, n, (8, 5) if options.quick else A_BITS)
    if "grid" in tables:
        table_of_bits(model, task, n, (8,) if options.quick else GRID_A, options.form)
    if "state" in tables:
        table_of_states(model, task, n, (6,) if options.quick else GRID_STATE[:3])
    if "train" in tables:
        small = few(task, 300, 100) if options.quick else few(
            load_task("smnist-14x14", options.data), 20_000, 10_000
        )
        table_of_training(
            small, len(small.x_test), (4,) if options.quick else TRAIN_BITS,
            2 if options.quick else 3, (1, 1) if options.quick else (6, 2),
        )
    print(f"\n{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
