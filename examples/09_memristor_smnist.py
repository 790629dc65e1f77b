"""Sequential MNIST with everything on tiles, A too: a model in float and one for each chip.

    python examples/09_memristor_smnist.py [--data mnist.npz] [--out DIR] [--device cuda] [--quick]
    python examples/09_memristor_smnist.py --models DIR --chips 10 [--limit 1000] [--only cmo-hfox]

Two S4D layers of 64 heads and 64 states, 784 pixels one a step. After training in float, a copy
for every chip is trained on with fresh errors of that chip's cells in every batch (leapfrog
form), as they are one day after programming. The full run needs a GPU. The chips are those of
chips/: cells are written to targets for that day, so that no chip is read for calibration or
trained by itself; e and d of A, which are never negative, take the two cells of a pair, and
parallel cells of the resistive card are filled one after the other. --chips N scores N sampled
chips on the simulator, with 8-bit converters and read noise at every step: the float model and
the one trained for that chip, in leapfrog form with the decay on tiles and in logic, with A in
direct form and with A in logic. Energy is that of an inference, with the drives of the
calibration signal.
--checkpoints keeps every stage's last epoch; --start skips the stages before the chips'.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aimc_sim import ChipSpec, load_chip
from aimc_sim.mapping import pieces_of
from ssm import Model, deploy, fine_tune, load, load_task, save, start_models
from ssm.compact import in_half_precision
from ssm.costs import cost_inference
from ssm.drives import measured_drives
from ssm.engine import ENGINES
from ssm.quantize import Precision
from ssm.tasks import Task
from ssm.tune import TunedEpoch

DAY_S = 86_400.0
# each as its model is trained for, and read a day after programming
CHIPS = {
    name: load_chip(Path(__file__).parent / "chips" / f"{name}.toml")
    for name in ("cmo-hfox", "reram-wan2022", "reram-wan2022-4", "pcm-hermes2023-2dev")
}
ROUNDED = Precision(a=8, c=4, d=4, mix=4, enc=4, dec=4, state=8, act=6)
WAYS = (("leapfrog", "tile"), ("leapfrog", "digital"), ("digital", "tile"), ("direct", "tile"))


def few(task: Task) -> Task:
    """Return a task of a few digits."""
    return Task(
        task.name, task.x_train[:256], task.y_train[:256], task.x_test[:128], task.y_test[:128],
        task.n_classes, task.source,
    )


def printer(name: str) -> Callable[[TunedEpoch], None]:
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


def train(options: argparse.Namespace, task: Task, names: Sequence[str]) -> dict[str, Model]:
    """Return the model in float, rounded, and for every chip, saved where `out` says."""
    n_heads = 8 if options.quick else 64
    float_epochs, epochs = (1, 1) if options.quick else (options.epochs, options.noisy_epochs)
    folder = options.checkpoints

    def common(stage: str) -> dict[str, Any]:
        return {
            "device": options.device, "validate": (task.x_test, task.y_test),
            "on_epoch": printer(stage),
            "checkpoint": None if folder is None else folder / f"smnist-{stage}.state",
        }

    found = {}
    if options.start is None:
        start = start_models(
            [options.seed], d_input=1, n_classes=10, n_heads=n_heads, n_states=n_heads,
            n_layers=2, norm="post", task=task.name,
        )
        models = fine_tune(
            start, task, epochs=float_epochs, lr=1e-2, kernel_lr=1e-3, **common("float")
        )
        rounded = fine_tune(
            models, task, precision=ROUNDED, epochs=epochs, lr=2e-3, kernel_lr=5e-4,
            **common("rounded"),
        )
        found = {"float": models[0], "w4a6-a8x8": rounded[0]}
    else:
        models = [load(options.start)]
    tuned = fine_tune(
        [models[0]] * len(names), task, chip=[CHIPS[name] for name in names], at_s=DAY_S,
        decay=options.decay, read_errors=options.read_errors, epochs=epochs,
        lr=options.noisy_lr, kernel_lr=1e-3, ramp=0.1, **common("noisy"),
    )
    found |= dict(zip(names, tuned, strict=True))
    found = {
        name: in_half_precision(model).replace(name=f"s4d-smnist-{name}")
        for name, model in found.items()
    }
    if options.out is not None:
        for model in found.values():
            save(model, options.out / f"{model.name}.safetensors")
    return {"float": models[0], **found}


@dataclass(frozen=True)
class Score:
    """What one setting reaches and costs."""

    shares: np.ndarray  # (chips,) accuracy after a day
    microjoule: float  # an inference, whole chip
    text: str

    @classmethod
    def of(
        cls, model: Model, spec: ChipSpec, way: tuple[str, str], task: Task,
        options: argparse.Namespace,
    ) -> Score:
        """Score sampled chips after a day."""
        form, decay = way
        limit = options.limit
        deployment = deploy(model, spec, form, decay=decay, calibrate=task.x_train[:64])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the direct form diverges
            chips = deployment.program(0, options.chips).wait(DAY_S)
            run = chips.infer(task.x_test[:limit], engine=options.engine)
        shares = run.accuracy(task.y_test[:limit])
        energy = 1e6 * cost_inference(
            deployment, task.x_test.shape[1], drives=measured_drives(deployment), g_s=run.g_s
        ).costs.energy_j
        pair, single = 2 * pieces_of(spec).count, pieces_of(spec, pair=False).count
        cells = {"digital": str(pair), "direct": str(pair)}.get(form, f"{pair}, e d {single}")
        spread = 100 * shares.std(ddof=1) if len(shares) > 1 else 0.0
        text = (
            f"{100 * shares.mean():6.2f} +- {spread:4.2f} "
            f"({100 * shares.min():.2f} .. {100 * shares.max():.2f})"
        )
        reads = run.counts["calibration_reads"]
        cost = f"{deployment.products_per_mode:8d}  {cells:>9}  {reads:5d}  {energy:9.2f}"
        return cls(shares, energy, f"{text:32} {cost}")


def verdict(scores: dict[tuple[str, str], Score]) -> str:
    """Return in words whether A on tiles is worth it: accuracy and energy beside A in logic."""
    logic = scores["digital", "tile"]
    on_tiles = [scores[way] for way in WAYS if way[0] == "leapfrog"]
    best = max(on_tiles, key=lambda score: float(score.shares.mean()))
    points = 100 * float(best.shares.mean() - logic.shares.mean())
    ratio = best.microjoule / logic.microjoule
    worth = points > -0.1 and ratio < 1.0
    return (
        f"A on tiles {'is' if worth else 'is not'} worth it here: {ratio:.2f} x the energy of A in "
        f"logic, {points:+.2f} points"
    )


def main() -> None:
    """Train in float, train on for each chip, save, and score on sampled chips where asked."""
    parser = argparse.ArgumentParser(description="sequential MNIST on memristors alone")
    parser.add_argument("--data", help="mnist.npz or a folder with it (default: AIMC_DATA)")
    parser.add_argument("--out", type=Path, help="folder for the models")
    parser.add_argument("--models", type=Path, help="folder of trained models: only score them")
    parser.add_argument("--start", type=Path, help="a model in float to train on from")
    parser.add_argument("--checkpoints", type=Path, help="folder to go on from after a stop")
    parser.add_argument("--device", help="torch device (default: the GPU where there is one)")
    parser.add_argument("--epochs", type=int, default=14, help="in float")
    parser.add_argument("--noisy-epochs", type=int, default=9)
    parser.add_argument("--noisy-lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=1, help="of the first weights")
    parser.add_argument("--decay", choices=("tile", "digital"), default="tile", help="in training")
    parser.add_argument(
        "--read-errors", action="store_true", help="train also for what is new at every read"
    )
    parser.add_argument("--only", nargs="+", choices=CHIPS, default=list(CHIPS), help="chips")
    parser.add_argument("--chips", type=int, default=0, help="sampled chips to score (default: 0)")
    parser.add_argument("--limit", type=int, default=10_000, help="test sequences a chip scores")
    parser.add_argument("--engine", choices=ENGINES, default="auto", help="where chips are scored")
    parser.add_argument("--quick", action="store_true", help="a smoke run on few small digits")
    options = parser.parse_args()
    for folder in (options.out, options.checkpoints):
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
    task = load_task("smnist-14x14" if options.quick else "smnist", options.data)
    task = few(task) if options.quick else task
    if options.models is None:
        found = train(options, task, options.only)
    else:
        files = {name: options.models / f"s4d-smnist-{name}.safetensors" for name in CHIPS}
        files = {name: path for name, path in files.items() if path.exists()}
        found = {"float": load(options.models / "s4d-smnist-float.safetensors")}
        found |= {name: load(path) for name, path in files.items()}
    if not options.chips:
        return
    columns = f"{'chip':20} {'model':8} {'form of A':10} {'decay':8} {'accuracy after a day, %':32}"
    print(f"\n{columns} products  cells/weight  reads  uJ/image")
    for name in options.only:
        for kind, model in (("float", found["float"]), ("trained", found.get(name))):
            scores = {}
            for way in WAYS if model is not None else ():
                scores[way] = Score.of(model, CHIPS[name], way, task, options)
                decay = way[1] if way[0] == "leapfrog" else "-"
                print(f"{name:20} {kind:8} {way[0]:10} {decay:8} {scores[way].text}", flush=True)
            if scores:
                print(f"{name:20} {kind:8} {verdict(scores)}", flush=True)


if __name__ == "__main__":
    main()
