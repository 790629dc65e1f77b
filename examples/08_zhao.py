"""Quantised S4D on sequential MNIST: float, rounded after training, and trained rounded.

    python examples/08_zhao.py [--data mnist.npz] [--out DIR] [--device cuda] [--quick]

One S4D layer of 16 or 64 heads with 64 states, no norm, 784 pixels one a step; five seeds side
by side. Beside each mean stands that of Zhao et al., doi:10.48550/arXiv.2506.12480. The full
run needs a GPU; --quick shows on a CPU, with few digits at 14 x 14 pixels, that all runs. With
--out the model of the first seed of every row is saved.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from ssm import Model, fine_tune, load_task, save, start_models
from ssm.compact import in_single_precision
from ssm.quantize import Precision
from ssm.tasks import Task
from ssm.tune import TunedEpoch

N_STATES = 64
HEADS = (64, 16)
PRECISIONS = {
    "W4A6-A8x8": Precision(a=8, c=4, d=4, mix=4, enc=4, dec=4, state=8, act=6),
    "W4A6-A6x6": Precision(a=6, c=4, d=4, mix=4, enc=4, dec=4, state=6, act=6),
}
# test accuracy in %: mean and standard deviation of five seeds; no rounding after training to A6x6
PAPER = {
    (64, "float"): "98.79 +- 0.12", (16, "float"): "97.20 +- 0.25",
    (64, "PTQ W4A6-A8x8"): "39.46 +- 15", (16, "PTQ W4A6-A8x8"): "29.36 +- 14.6",
    (64, "QAT W4A6-A8x8"): "95.99 +- 0.56", (16, "QAT W4A6-A8x8"): "88.39 +- 1.40",
    (64, "QAT W4A6-A6x6"): "84.21 +- 2.5", (16, "QAT W4A6-A6x6"): "57.04 +- 3.1",
}


def few(task: Task) -> Task:
    """Return a task of a few digits."""
    return Task(
        task.name, task.x_train[:512], task.y_train[:512], task.x_test[:256], task.y_test[:256],
        task.n_classes, task.source,
    )


class Log:
    """Prints every epoch and keeps the test accuracy before and after training, in %."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.start = self.end = np.zeros(0)

    def __call__(self, epoch: TunedEpoch) -> None:
        """Print one epoch."""
        assert epoch.validation is not None
        self.end = 100 * epoch.validation
        if epoch.number == 0:
            self.start = self.end
        shown = " ".join(f"{share:6.2f}" for share in self.end)
        print(
            f"{self.name:20} epoch {epoch.number:2d}/{epoch.n_epochs}  loss "
            f"{np.mean(epoch.loss):.4f}  test {shown} %  {epoch.wall_s:.0f} s",
            flush=True,
        )


def describe(shares: np.ndarray) -> str:
    """Return mean and standard deviation over seeds."""
    spread = f" +- {shares.std(ddof=1):.2f}" if len(shares) > 1 else ""
    return f"{shares.mean():.2f}{spread}"


def keep(models: list[Model], out: Path | None, name: str) -> None:
    """Save the model of the first seed."""
    if out is not None:
        save(in_single_precision(models[0]).replace(name=name), out / f"{name}.safetensors")


def main() -> None:
    """Train, print the table beside the paper's."""
    parser = argparse.ArgumentParser(description="quantised S4D beside Zhao et al.")
    parser.add_argument("--data", help="mnist.npz or a folder with it (default: AIMC_DATA)")
    parser.add_argument("--out", type=Path, help="folder for the models")
    parser.add_argument("--device", help="torch device (default: the GPU where there is one)")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=14, help="in float")
    parser.add_argument("--rounded-epochs", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="a smoke run on few small digits")
    options = parser.parse_args()
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
    task = load_task("smnist-14x14" if options.quick else "smnist", options.data)
    task = few(task) if options.quick else task
    seeds = range(2 if options.quick else options.seeds)
    float_epochs, epochs = (1, 1) if options.quick else (options.epochs, options.rounded_epochs)
    common = {"device": options.device, "validate": (task.x_test, task.y_test)}
    rows: list[tuple[int, str, np.ndarray]] = []
    for n_heads in HEADS[1:] if options.quick else HEADS:
        start = start_models(
            seeds, d_input=1, n_classes=10, n_heads=n_heads, n_states=N_STATES, n_layers=1,
            norm="none", task=task.name,
        )
        log = Log(f"S4D-{n_heads} float")
        lr = 1e-2 if n_heads == 64 else 1.5e-2
        models = fine_tune(
            start, task, epochs=float_epochs, lr=lr, kernel_lr=2e-3, on_epoch=log, **common
        )
        rows.append((n_heads, "float", log.end))
        keep(models, options.out, f"s4d-{n_heads}-float")
        for name, precision in PRECISIONS.items():
            log = Log(f"S4D-{n_heads} {name}")
            tuned = fine_tune(
                models, task, precision=precision, epochs=epochs, lr=2e-3, kernel_lr=5e-4,
                on_epoch=log, **common,
            )
            rows += [(n_heads, f"PTQ {name}", log.start), (n_heads, f"QAT {name}", log.end)]
            keep(tuned, options.out, f"s4d-{n_heads}-{name.lower()}")
    print(f"\n{'model':10}{'':16}{'test %':>16}{'Zhao et al.':>18}")
    for n_heads, name, shares in rows:
        paper = PAPER.get((n_heads, name), "-")
        print(f"S4D-{n_heads:<6}{name:16}{describe(shares):>16}{paper:>18}")


if __name__ == "__main__":
    main()
