"""Size against accuracy: S4D models of many widths, states and bits, and which of them to pick.

    python examples/19_size_front.py train --out DIR [--task smnist] [--data FILE] [--device cuda]
        [--shapes 2x64x64 2x32x16 ...] [--precisions W8A8 W4A6-A8x8 ...] [--quick]
    python examples/19_size_front.py report DIR [--picture front.png]

A shape is layers x heads x states. Every shape is trained in float, then once for every precision
with the state rounded at each step; W4A6-A8x8 has 4-bit weights, 6-bit activations, 8 bits of A
and of the state. `train` appends a line to DIR/front.jsonl for every model as it ends and skips
what is there already; several may write to one folder. `report` prints accuracy beside
parameters, memory and bit operations, marks the designs that no other beats in accuracy and in
cost (the Pareto set), and says which is the smallest within a point of the largest float model.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from ssm import fine_tune, load, load_task, save, start_models
from ssm.complexity import measure
from ssm.quantize import Precision
from ssm.tasks import Task
from ssm.tune import TunedEpoch

SHAPES = ("2x64x64", "2x48x32", "2x32x32", "2x32x16", "2x24x16", "1x64x32", "1x32x32")
PRECISIONS = {
    "W8A8": Precision(a=8, c=8, d=8, mix=8, enc=8, dec=8, state=8, act=8),
    "W4A6-A8x8": Precision(a=8, c=4, d=4, mix=4, enc=4, dec=4, state=8, act=6),
    "W3A5-A7x7": Precision(a=7, c=3, d=3, mix=3, enc=4, dec=4, state=7, act=5),
}
LOSS = 0.01  # of accuracy that a design may cost


def few(task: Task) -> Task:
    """Return a task of a few sequences."""
    return Task(
        task.name, task.x_train[:256], task.y_train[:256], task.x_test[:128], task.y_test[:128],
        task.n_classes, task.source,
    )


class Log:
    """Prints every epoch and keeps the last test accuracy."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.accuracy = np.zeros(0)

    def __call__(self, epoch: TunedEpoch) -> None:
        """Print one epoch."""
        assert epoch.validation is not None
        self.accuracy = epoch.validation
        shown = " ".join(f"{100 * share:6.2f}" for share in self.accuracy)
        print(
            f"{self.name:24} epoch {epoch.number:2d}/{epoch.n_epochs}  test {shown} %  "
            f"{epoch.wall_s:.0f} s",
            flush=True,
        )


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """Return the models of a folder that are done."""
    file = folder / "front.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def train(options: argparse.Namespace) -> None:
    """Train every shape in float and at every precision that is not there yet."""
    options.out.mkdir(parents=True, exist_ok=True)
    task = load_task(options.task, options.data)
    task = few(task) if options.quick else task
    seeds = range(options.seeds)
    common = {
        "device": options.device, "validate": (task.x_test, task.y_test),
        "batch_size": options.batch,
    }
    for shape in options.shapes:
        n_layers, n_heads, n_states = map(int, shape.split("x"))
        done = {row["precision"] for row in read_rows(options.out) if row["shape"] == shape}
        wanted = [name for name in options.precisions if name not in done]
        if "float" in done and not wanted:
            continue

        def keep(models: list[Any], precision: str, log: Log, shape: str = shape) -> None:
            file = f"s4d-{task.name}-{shape}-{precision.lower()}.pt"
            save(models[0].replace(name=file.removesuffix(".pt")), options.out / file)
            row = {
                "task": task.name, "shape": shape, "precision": precision, "file": file,
                "test": log.accuracy.tolist(), "n_test": len(task.x_test),
            }
            with (options.out / "front.jsonl").open("a") as lines:
                lines.write(json.dumps(row) + "\n")

        log = Log(f"{shape} float")
        models = fine_tune(
            start_models(
                seeds, d_input=task.x_train.shape[-1], n_classes=task.n_classes, n_heads=n_heads,
                n_states=n_states, n_layers=n_layers, norm="post", task=task.name,
            ),
            task, epochs=options.epochs, lr=options.lr, kernel_lr=2e-3, on_epoch=log, **common,
        )
        if "float" not in done:
            keep(models, "float", log)
        for name in wanted:
            log = Log(f"{shape} {name}")
            tuned = fine_tune(
                models, task, precision=PRECISIONS[name], epochs=options.rounded_epochs, lr=3e-3,
                kernel_lr=7e-4, ramp=0.2, on_epoch=log, **common,
            )
            keep(tuned, name, log)


def pareto(rows: list[dict[str, Any]], cost: str) -> set[int]:
    """Return which rows no other beats: none is as accurate for less of `cost`."""
    return {
        i
        for i, row in enumerate(rows)
        if not any(
            other["mean"] >= row["mean"] and other[cost] <= row[cost]
            and (other["mean"], other[cost]) != (row["mean"], row[cost])
            for other in rows
        )
    }


def measured(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of a folder with mean accuracy and what every model costs."""
    rows = []
    for row in read_rows(folder):
        shares = np.array(row["test"])
        spread = shares.std(ddof=1) if len(shares) > 1 else math.nan
        rows.append(
            row | measure(load(folder / row["file"]))
            | {"mean": float(shares.mean()), "spread": float(spread)}
        )
    return rows


def report(options: argparse.Namespace) -> None:
    """Print the front, and draw it where asked."""
    rows = measured(options.folder)
    if not rows:
        raise SystemExit(f"no models in {options.folder}: run `train --out {options.folder}` first")
    for task in dict.fromkeys(row["task"] for row in rows):
        own = [row for row in rows if row["task"] == task]
        show(own)
    if options.picture is not None:
        draw(rows, options.picture)


def show(rows: list[dict[str, Any]]) -> None:
    """Print the front of one task."""
    base = max((row for row in rows if row["precision"] == "float"), key=lambda row: row["memory_bits"])
    best = {cost: pareto(rows, cost) for cost in ("memory_bits", "bops_per_step")}
    print(
        f"\n{rows[0]['task']}: {len(rows[0]['test'])} seeds, {rows[0]['n_test']} test sequences; "
        "* no other model is as accurate for less\n"
        f"{'shape':10}{'precision':12}{'test %':>16}{'parameters':>12}{'memory kbit':>14}"
        f"{'kBOP a step':>14}{'memory':>10}{'BOPs':>10}"
    )
    for i, row in sorted(enumerate(rows), key=lambda item: -item[1]["bops_per_step"]):
        score = f"{100 * row['mean']:.2f} +- {100 * row['spread']:.2f}"
        marks = ["*" if i in best[cost] else " " for cost in best]
        print(
            f"{row['shape']:10}{row['precision']:12}{score:>16}{row['parameters']:>12,}"
            f"{row['memory_bits'] / 1e3:>12.1f} {marks[0]}{row['bops_per_step'] / 1e3:>12.1f} "
            f"{marks[1]}{base['memory_bits'] / row['memory_bits']:>8.1f} x"
            f"{base['bops_per_step'] / row['bops_per_step']:>8.0f} x"
        )
    near = [row for row in rows if row["mean"] >= base["mean"] - LOSS]
    pick = min(near, key=lambda row: row["bops_per_step"])
    print(
        f"within {100 * LOSS:.0f} point of {base['shape']} float: {pick['shape']} "
        f"{pick['precision']}, {base['bops_per_step'] / pick['bops_per_step']:.0f} x fewer bit "
        f"operations, {base['memory_bits'] / pick['memory_bits']:.0f} x less memory, "
        f"{100 * (pick['mean'] - base['mean']):+.2f} points"
    )


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw accuracy against memory and against bit operations, a row of axes for every task."""
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys(row["task"] for row in rows))
    figure = Figure(figsize=(9, 3.6 * len(tasks)), layout="constrained")
    grid = figure.subplots(len(tasks), 2, squeeze=False, sharey="row")
    names = list(dict.fromkeys(row["precision"] for row in rows))
    for axes, task in zip(grid, tasks, strict=True):
        own = [row for row in rows if row["task"] == task]
        for ax, cost, label in (
            (axes[0], "memory_bits", "memory [bit]"),
            (axes[1], "bops_per_step", "bit operations a step"),
        ):
            for name, marker in zip(names, "osD^v<>", strict=False):
                points = [row for row in own if row["precision"] == name]
                ax.errorbar(
                    [row[cost] for row in points], [100 * row["mean"] for row in points],
                    [100 * row["spread"] for row in points], fmt=marker, capsize=2, label=name,
                )
            front = sorted((own[i] for i in pareto(own, cost)), key=lambda row: row[cost])
            ax.step(
                [row[cost] for row in front], [100 * row["mean"] for row in front],
                where="post", color="0.5", linewidth=1, zorder=0, label="Pareto set",
            )
            ax.set_xscale("log")
            ax.set_xlabel(label)
        axes[0].set_ylabel(f"{task}: test accuracy [%]")
    grid[0][0].legend(fontsize="small")
    figure.savefig(path, dpi=150)


def main() -> None:
    """Train models, or report those that are there."""
    parser = argparse.ArgumentParser(description="size against accuracy")
    commands = parser.add_subparsers(required=True)
    first = commands.add_parser("train", help="train models into a folder")
    first.set_defaults(call=train)
    first.add_argument("--out", type=Path, required=True, help="folder of models and results")
    first.add_argument("--task", default="smnist")
    first.add_argument("--data", help="file or folder of the task's data (default: AIMC_DATA)")
    first.add_argument("--device", help="torch device (default: the GPU where there is one)")
    first.add_argument("--shapes", nargs="+", default=SHAPES)
    first.add_argument("--precisions", nargs="+", default=tuple(PRECISIONS), choices=PRECISIONS)
    first.add_argument("--seeds", type=int, default=3)
    first.add_argument("--epochs", type=int, default=14, help="in float")
    first.add_argument("--rounded-epochs", type=int, default=7)
    first.add_argument("--batch", type=int, default=64)
    first.add_argument("--lr", type=float, default=1e-2, help="in float")
    first.add_argument("--quick", action="store_true", help="a smoke run on few sequences")
    second = commands.add_parser("report", help="print the front of a folder")
    second.set_defaults(call=report)
    second.add_argument("folder", type=Path)
    second.add_argument("--picture", type=Path)
    options = parser.parse_args()
    options.call(options)


if __name__ == "__main__":
    main()
