"""Sequential MNIST with everything on tiles, A too: a model in float and one for each chip.

    python examples/09_memristor_smnist.py [--data mnist.npz] [--out DIR] [--device cuda] [--quick]

Two S4D layers of 64 heads and 64 states, 784 pixels one a step. After training in float, a copy
for every chip is trained on with fresh errors of that chip's cells in every batch (leapfrog
form), as they are one day after programming. The full run needs a GPU. Accuracy on the simulated
chip, with converters and read noise at every step, is what `aimc-sim run` then shows; --chips N
does it here.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from aimc_sim import ChipSpec
from ssm import Model, deploy, fine_tune, load_task, save, start_models
from ssm.quantize import Precision
from ssm.tasks import Task
from ssm.tune import TunedEpoch

DAY_S = 86_400.0
CHIPS = {
    "cmo-hfox": ChipSpec.preset("cmo-hfox"),
    "reram-wan2022": ChipSpec.preset("reram-wan2022"),
    "reram-wan2022-4": ChipSpec.preset("reram-wan2022").replace(cells_per_weight=4),
    "pcm-hermes2023-2dev": ChipSpec.preset("pcm-hermes2023-2dev").replace(compensation="global"),
}
ROUNDED = Precision(a=8, c=4, d=4, mix=4, enc=4, dec=4, state=8, act=6)


def few(task: Task) -> Task:
    """Return a task of a few digits."""
    return Task(
        task.name, task.x_train[:256], task.y_train[:256], task.x_test[:128], task.y_test[:128],
        task.n_classes, task.source,
    )


def printer(name: str) -> object:
    """Return a function that prints an epoch."""

    def show(epoch: TunedEpoch) -> None:
        clean = np.full(len(epoch.loss), np.nan) if epoch.validation is None else epoch.validation
        noisy = " ".join(f"{100 * share:6.2f}" for share in epoch.accuracy)
        shown = " ".join(f"{100 * share:6.2f}" for share in clean)
        print(
            f"{name:8} epoch {epoch.number:2d}/{epoch.n_epochs}  loss {np.mean(epoch.loss):.4f}  "
            f"training {noisy} %  test without errors {shown} %  skipped {epoch.skipped.sum()}  "
            f"{epoch.wall_s:.0f} s",
            flush=True,
        )

    return show


def on_chips(model: Model, spec: ChipSpec, task: Task, chips: int, decay: str, limit: int) -> str:
    """Return mean and range of the accuracy of sampled chips after a day, in words."""
    deployment = deploy(model, spec, "leapfrog", decay=decay, calibrate=task.x_train[:64])
    run = deployment.program(0, chips).wait(DAY_S).infer(task.x_test[:limit])
    shares = 100 * run.accuracy(task.y_test[:limit])
    return f"{shares.mean():.2f} % ({shares.min():.2f} .. {shares.max():.2f})"


def main() -> None:
    """Train in float, train on for each chip, save, and score on sampled chips where asked."""
    parser = argparse.ArgumentParser(description="sequential MNIST on memristors alone")
    parser.add_argument("--data", help="mnist.npz or a folder with it (default: AIMC_DATA)")
    parser.add_argument("--out", type=Path, help="folder for the models")
    parser.add_argument("--device", help="torch device (default: the GPU where there is one)")
    parser.add_argument("--epochs", type=int, default=14, help="in float")
    parser.add_argument("--noisy-epochs", type=int, default=9)
    parser.add_argument("--decay", choices=("tile", "digital"), default="tile")
    parser.add_argument("--chips", type=int, default=0, help="sampled chips to score (default: 0)")
    parser.add_argument("--limit", type=int, default=10_000, help="test sequences a chip scores")
    parser.add_argument("--quick", action="store_true", help="a smoke run on few small digits")
    options = parser.parse_args()
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
    task = load_task("smnist-14x14" if options.quick else "smnist", options.data)
    task = few(task) if options.quick else task
    n_heads = 8 if options.quick else 64
    float_epochs, epochs = (1, 1) if options.quick else (options.epochs, options.noisy_epochs)
    common = {"device": options.device, "validate": (task.x_test, task.y_test)}
    start = start_models(
        [0], d_input=1, n_classes=10, n_heads=n_heads, n_states=n_heads, n_layers=2, norm="post",
        task=task.name,
    )
    models = fine_tune(
        start, task, epochs=float_epochs, lr=1e-2, kernel_lr=1e-3, on_epoch=printer("float"),
        **common,
    )
    rounded = fine_tune(
        models, task, precision=ROUNDED, epochs=epochs, lr=2e-3, kernel_lr=5e-4,
        on_epoch=printer("rounded"), **common,
    )
    names = list(CHIPS)
    tuned = fine_tune(
        [models[0]] * len(names), task, chip=[CHIPS[name] for name in names], at_s=DAY_S,
        decay=options.decay, epochs=epochs, lr=3e-3, kernel_lr=1e-3, ramp=0.1,
        on_epoch=printer("noisy"), **common,
    )
    named = {"float": models[0], "w4a6-a8x8": rounded[0], **dict(zip(names, tuned, strict=True))}
    for name, model in named.items():
        if options.out is not None:
            full = f"s4d-smnist-{name}"
            save(model.replace(name=full), options.out / f"{full}.pt")
    if options.chips:
        print(f"\n{'chip':22}{'float model':28}trained for it")
        for name, model in zip(names, tuned, strict=True):
            scores = [
                on_chips(each, CHIPS[name], task, options.chips, options.decay, options.limit)
                for each in (models[0], model)
            ]
            print(f"{name:22}{scores[0]:28}{scores[1]}", flush=True)


if __name__ == "__main__":
    main()
