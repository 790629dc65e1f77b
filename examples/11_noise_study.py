"""Accuracy against conductance noise at few bits: as trained, rounded after, in, and for the chip.

    python examples/11_noise_study.py [--data mnist.npz] [--bits 2,3,4,8] [--seeds 3] [--quick]
    python examples/11_noise_study.py --task digits --epochs 40 --rounded-epochs 15

One S4D layer of 16 heads on images of 14 x 14 pixels of MNIST, one pixel a step; weights at some
bits, A and the state at 8, A in digital logic. Every cell errs by a share of the range when it is
written. Prints the share of test images that sampled chips classify rightly: of a model trained
in float ("float" on unrounded weights, "ptq" rounded afterwards), with rounding ("qat"), and with
rounding and fresh errors of 10 % in every batch ("noisy").
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

from aimc_sim import ChipSpec
from ssm import Model, deploy, fine_tune, load_task, quantize, start_models
from ssm.quantize import Precision
from ssm.tasks import Task

ERRORS = (0.0, 0.05, 0.1, 0.2, 0.3)  # of the conductance range
TRAINED_FOR = 0.1


def chip(error: float) -> ChipSpec:
    """Return a chip whose cells err by a share of their range, with 8-bit converters."""
    spec = ChipSpec.preset("ideal")
    sigma = {"of": "r", "unit_s": spec.device.g_max_s, "polynomial": [error]}
    card = spec.device.model_dump() | {"name": f"error {error:g}", "programming": {"sigma": sigma}}
    return spec.replace(device=type(spec.device)(**card), **{"dac.bits": 8, "adc.bits": 8})


def precision(bits: int) -> Precision:
    """Return weights of some bits beside A, states and activations of 8."""
    return Precision(a=8, c=bits, d=bits, mix=bits, enc=bits, dec=bits, state=8, act=8)


def scores(models: Sequence[Model], task: Task, chips: int, limit: int) -> list[str]:
    """Return mean and spread of the accuracy over seeds and chips, for every error, in words."""
    cells = []
    for error in ERRORS:
        shares = [
            deploy(model, chip(error), "digital", calibrate=task.x_train[:64])
            .program(seed, chips).infer(task.x_test[:limit]).accuracy(task.y_test[:limit])
            for seed, model in enumerate(models)
        ]
        cells.append(f"{100 * np.mean(shares):6.2f} +- {100 * np.std(shares):5.2f}")
    return cells


def main() -> None:
    """Train the seeds side by side and print a row for every bit-width and kind of training."""
    parser = argparse.ArgumentParser(description="accuracy against conductance noise")
    parser.add_argument("--data", help="mnist.npz or a folder with it (default: AIMC_DATA)")
    parser.add_argument("--task", default="smnist-14x14", help="digits needs no data")
    parser.add_argument("--device", help="torch device (default: the GPU where there is one)")
    parser.add_argument("--bits", default="2,3,4,8", help="of the weights")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=6, help="in float")
    parser.add_argument("--rounded-epochs", type=int, default=4)
    parser.add_argument("--batch", type=int, default=64, help="sequences a training step")
    parser.add_argument("--chips", type=int, default=5, help="sampled for every seed")
    parser.add_argument("--limit", type=int, default=1000, help="test images a chip scores")
    parser.add_argument("--quick", action="store_true", help="a smoke run on few images")
    options = parser.parse_args()
    task = load_task(options.task, options.data)
    seeds, chips, limit = options.seeds, options.chips, options.limit
    epochs = (options.epochs, options.rounded_epochs)
    if options.quick:
        few = (task.x_train[:256], task.y_train[:256], task.x_test[:64], task.y_test[:64])
        task = Task(task.name, *few, task.n_classes, task.source)
        seeds, chips, limit, epochs = 1, 2, 64, (1, 1)
    start = start_models(
        list(range(seeds)), d_input=task.x_train.shape[2], n_classes=10, n_heads=16, n_states=32,
        n_layers=1, norm="none", task=task.name,
    )
    common = {"device": options.device, "batch_size": options.batch}
    trained = fine_tune(start, task, epochs=epochs[0], lr=1e-2, kernel_lr=1e-3, **common)
    print(f"{'bits':>4} {'trained':8}" + "".join(f"{f'{100 * e:g} %':^17}" for e in ERRORS))

    def show(bits: str, kind: str, models: Sequence[Model]) -> None:
        print(f"{bits:>4} {kind:8}" + "  ".join(scores(models, task, chips, limit)), flush=True)

    show("32", "float", trained)
    for bits in map(int, options.bits.split(",")):
        asked = precision(bits)
        tuned = {"precision": asked, "epochs": epochs[1], "lr": 4e-3, "kernel_lr": 5e-4, **common}
        show(str(bits), "ptq", [quantize(model, asked) for model in trained])
        show(str(bits), "qat", fine_tune(trained, task, **tuned))
        noisy = fine_tune(
            trained, task, chip=chip(TRAINED_FOR), at_s=0.0, form="digital", ramp=0.2, **tuned
        )
        show(str(bits), "noisy", noisy)


if __name__ == "__main__":
    main()
