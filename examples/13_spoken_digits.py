"""Train a small S4D on spoken digits: in float, rounded after training, and trained rounded.

    python examples/13_spoken_digits.py [--data DIR] [--out DIR] [--chips N] [--quick]

Free Spoken Digit Dataset, 64 steps of 32 log-mel bands, its own split of 2,700 and 300
recordings; speakers occur in both parts. One layer of 32 heads with 16 states. The float model
and the one trained rounded are saved; both then run on sampled chips. One thread, so that the
result is the same bits every time; some minutes. --quick shows on few clips that all runs.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

import ssm
from aimc_sim.specs import ChipSpec
from ssm.quantize import Precision
from ssm.tasks import Task
from ssm.train import Epoch
from ssm.tune import TunedEpoch

MODELS = Path(__file__).parent / "models"
NAME = "s4d-fsdd"
PRECISION = Precision(a=6, c=3, d=3, mix=3, enc=3, dec=3, state=5, act=4)
BITS = "W3A4-A6x5"  # weights, activations, A and state
CHIP, DAY_S = "reram-wan2022", 86_400.0


def few(task: Task) -> Task:
    """Return a task of a few clips."""
    return Task(
        task.name, task.x_train[::27], task.y_train[::27], task.x_test[::10], task.y_test[::10],
        task.n_classes, task.source,
    )


def show(epoch: Epoch | TunedEpoch) -> None:
    """Print every tenth epoch in float, and every epoch trained rounded."""
    if isinstance(epoch, TunedEpoch):
        assert epoch.validation is not None
        print(
            f"rounded epoch {epoch.number:2d}/{epoch.n_epochs}  "
            f"test {100 * epoch.validation[0]:.2f} %  {epoch.wall_s:.0f} s", flush=True,
        )
    elif epoch.number % 10 == 0 or epoch.number == epoch.n_epochs:
        print(
            f"float epoch {epoch.number:2d}/{epoch.n_epochs}  loss {epoch.loss:.3f}  "
            f"{epoch.wall_s:.0f} s", flush=True,
        )


def on_chips(model: ssm.Model, task: Task, chips: int) -> np.ndarray:
    """Return the test accuracy of sampled chips a day after programming, A in logic."""
    spec = ChipSpec.preset(CHIP)
    deployed = ssm.deploy(model, spec, "digital", calibrate=task.calibration())
    programmed = deployed.program(seed=0, chips=chips).wait(DAY_S)
    return programmed.infer(task.x_test).accuracy(task.y_test)


def main() -> None:
    """Train, print the table, save."""
    parser = argparse.ArgumentParser(description="spoken digits in float and rounded")
    parser.add_argument("--data", help="fsdd.npz or a folder with it (default: AIMC_DATA)")
    parser.add_argument("--out", type=Path, default=MODELS, help="folder for the models")
    parser.add_argument("--epochs", type=int, default=40, help="in float")
    parser.add_argument("--rounded-epochs", type=int, default=8)
    parser.add_argument("--chips", type=int, default=8)
    parser.add_argument("--quick", action="store_true", help="a smoke run on few clips")
    options = parser.parse_args()

    torch.set_num_threads(1)  # the bits of the result depend on the number of threads
    options.out.mkdir(parents=True, exist_ok=True)
    task = ssm.load_task("fsdd", options.data)
    task = few(task) if options.quick else task
    epochs, rounded = (1, 1) if options.quick else (options.epochs, options.rounded_epochs)
    chips = 2 if options.quick else options.chips
    start = time.perf_counter()
    exact = ssm.train(
        task, n_heads=32, n_states=16, n_layers=1, epochs=epochs, lr=2e-2, batch_size=32,
        dt_min=5e-3, dt_max=0.2, dropout=0.1, weight_noise=0.05, label_smoothing=0.05, seed=0,
        on_epoch=show,
    ).replace(name=NAME)
    shares: list[float] = []

    def keep(epoch: TunedEpoch) -> None:
        assert epoch.validation is not None
        shares.append(float(epoch.validation[0]))
        show(epoch)

    tuned = ssm.fine_tune(
        exact, task, precision=PRECISION, epochs=rounded, lr=5e-3, batch_size=64, device="cpu",
        validate=(task.x_test, task.y_test), on_epoch=keep,
    ).replace(name=f"{NAME}-{BITS.lower()}")
    share = (exact.logits(task.x_test).argmax(axis=1) == task.y_test).mean()
    minutes = (time.perf_counter() - start) / 60

    print(
        f"\n{exact.n_parameters} parameters, {exact.n_states} states, trained in {minutes:.1f} "
        f"min\ntest accuracy in % of {len(task.y_test)} clips; on {chips} chips of {CHIP} after a "
        "day, A in logic"
    )
    print(f"{'':36}{'error-free':>12}{'on chips':>16}")
    rows = [("float", share, exact), (f"rounded after training, {BITS}", shares[0], None),
            (f"trained rounded, {BITS}", shares[-1], tuned)]
    for label, clean, model in rows:
        found = "-"
        if model is not None:
            scores = 100 * on_chips(model, task, chips)
            found = f"{scores.mean():.1f} +- {scores.std():.1f}"
            path = options.out / f"{model.name}.safetensors"
            ssm.save(model, path)
        print(f"{label:36}{100 * clean:12.2f}{found:>16}")


if __name__ == "__main__":
    main()
