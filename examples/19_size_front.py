"""Size against accuracy: S4D models of many widths, states and bits, and which of them to pick.

    python examples/19_size_front.py train --out DIR [--task smnist] [--data FILE] [--device cuda]
        [--designs 2x64x64 2x24x16/W4A8-A8x8 2x24x16@0.5/W4A8-A8x8 ...] [--quick]
    python examples/19_size_front.py score --out DIR MODEL ... [--short] [--data FILE]
    python examples/19_size_front.py collect DIR ... --rows docs/fronts.jsonl
    python examples/19_size_front.py report ROWS ... [--picture front.png]

A design is layers x heads x states: trained in float, and, behind a slash, then with the state
rounded at each step; W4A8-A6x7 has 4-bit weights, 8-bit activations, 6 bits of A and 7 of the
state. @0.5 keeps half of the states by balanced truncation in between. `train` appends a line to
DIR/front.jsonl for every design as it ends and goes on from the models there; `score` does so for
files of models, with --short after biases went into 16 bits and steps of states into 8.
`collect` adds what every model takes: parameters, memory, bit operations, cells and tiles.
`report` reads those lines and needs no models: it marks the designs that no other beats in
accuracy and cost (the Pareto set), and picks the smallest within a point of the largest float
model. docs/fronts.jsonl holds the lines behind docs/fronts.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from aimc_sim.specs import ChipSpec
from ssm import Model, deploy, fine_tune, load, load_task, prune, save, start_models, train
from ssm.compact import in_short_formats, in_single_precision
from ssm.fronts import named_precision, pareto, size_of
from ssm.tasks import Task
from ssm.tune import TunedEpoch

CHIP = "reram-wan2022"  # whose cells and tiles are counted, A on tiles too (leapfrog)
COSTS = ("memory_bits", "bops_per_step")
COUNTS = {"parameters": 11, "macs_per_step": 11, "cells": 9, "tiles": 7}  # and their columns
LOSS = 0.01  # of accuracy that a design may cost
# where the name of a point may stand: beside it, then further away with a line to it
PLACES = [
    (distance, dx, dy, ha, va)
    for distance in (1, 2.5, 4, 6, 9)
    for dx, dy, ha, va in (
        (7, 2, "left", "bottom"), (7, -2, "left", "top"), (-7, 2, "right", "bottom"),
        (-7, -2, "right", "top"), (0, 8, "center", "bottom"), (0, -8, "center", "top"),
    )
]
NEXT_TO_ROUND = {"lr": 3e-3, "kernel_lr": 7e-4, "ramp": 0.2}


class Design(NamedTuple):
    """One design: how large, how much of it stays, how many bits."""

    layers: int
    heads: int
    states: int
    keep: float
    bits: str

    @classmethod
    def parse(cls, text: str) -> Design:
        """Return the design of text such as 2x24x16@0.5/W4A8-A8x8."""
        size, _, bits = text.partition("/")
        shape, _, keep = size.partition("@")
        layers, heads, states = map(int, shape.split("x"))
        return cls(layers, heads, states, float(keep or 1), bits or "float")

    @property
    def shape(self) -> str:
        """Layers x heads x states before pruning."""
        return f"{self.layers}x{self.heads}x{self.states}"

    def file(self, task: str, seed: int) -> str:
        """Return the file of the model of one seed."""
        kept = "" if self.keep == 1 else f"-keep{self.keep:g}"
        return f"s4d-{task}-{self.shape}{kept}-{self.bits.lower()}-{seed}.safetensors"


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
            f"{self.name:28} epoch {epoch.number:2d}/{epoch.n_epochs}  training "
            f"{100 * np.mean(epoch.accuracy):6.2f}  test {shown} %  {epoch.wall_s:.0f} s",
            flush=True,
        )


def few(task: Task) -> Task:
    """Return a task of a few sequences."""
    return Task(
        task.name, task.x_train[:96], task.y_train[:96], task.x_test[:64], task.y_test[:64],
        task.n_classes, task.source,
    )


def find_task(options: argparse.Namespace) -> Task:
    """Return the task, or a little of it."""
    task = load_task(options.task, options.data)
    return few(task) if options.quick else task


def read_rows(files: Sequence[Path]) -> list[dict[str, Any]]:
    """Return the rows of files of lines."""
    lines = [line for file in files if file.exists() for line in file.read_text().splitlines()]
    return [json.loads(line) for line in lines]


def write_row(
    out: Path, task: Task, design: Design, file: str, test: Sequence[float], source: str
) -> None:
    """Append the row of a design; file : the model of the first seed, seen from the folder."""
    row = {
        "task": task.name, "shape": design.shape, "keep": design.keep, "precision": design.bits,
        "test": [round(float(share), 6) for share in test], "n_test": len(task.y_test),
        "source": source, "file": file,
    }
    with (out / "front.jsonl").open("a") as lines:
        lines.write(json.dumps(row) + "\n")


def collect(options: argparse.Namespace) -> None:
    """Write the rows of folders with the size of every model, in the place of its file."""
    rows = []
    for folder in options.folders:
        for row in read_rows([folder / "front.jsonl"]):
            model = in_single_precision(load(folder / row.pop("file")))
            size = size_of(model, ChipSpec.preset(CHIP))
            rows.append({**row, "norm": model.norm, **size, "chip": CHIP})
            print(f"{rows[-1]['task']} {name_of(rows[-1])} {rows[-1]['precision']}", flush=True)
    options.rows.write_text("".join(json.dumps(row) + "\n" for row in rows))


def run_training(options: argparse.Namespace) -> None:
    """Train every design that has no row yet."""
    options.out.mkdir(parents=True, exist_ok=True)
    task = find_task(options)
    for text in options.designs:
        design = Design.parse(text)
        done = {
            Design.parse(f"{row['shape']}@{row['keep']}/{row['precision']}")
            for row in read_rows([options.out / "front.jsonl"]) if row["task"] == task.name
        }
        exact = design._replace(keep=1.0, bits="float")
        if exact not in done:
            keep_models(options, task, exact, *train_exactly(options, task, exact))
        if design not in done and design != exact:
            files = [exact.file(task.name, seed) for seed in range(options.seeds)]
            models = [load(options.out / file) for file in files]
            keep_models(options, task, design, *train_rounded(options, task, design, models))


def train_exactly(
    options: argparse.Namespace, task: Task, design: Design
) -> tuple[list[Model], list[float], str]:
    """Return float models of all seeds, their test accuracy, and how they were trained."""
    sizes = {"n_heads": design.heads, "n_states": design.states, "n_layers": design.layers}
    if task.name == "fsdd":  # few sequences: regularised, as in 13_spoken_digits.py
        models = [
            train(
                task, **sizes, epochs=options.epochs, lr=2e-2, batch_size=32, dt_min=5e-3,
                dt_max=0.2, dropout=0.1, weight_noise=0.05, label_smoothing=0.05, seed=seed,
            )
            for seed in range(options.seeds)
        ]
        test = [exact_score(model, task) for model in models]
        return models, test, f"{options.epochs} epochs"
    log = Log(f"{design.shape} float")
    start = start_models(
        range(options.seeds), d_input=task.x_train.shape[-1], n_classes=task.n_classes, **sizes,
        norm="post", task=task.name,
    )
    models = fine_tune(
        [standardised(model, task) for model in start], task, epochs=options.epochs,
        batch_size=options.batch, lr=options.lr, kernel_lr=options.lr / 5, on_epoch=log,
        device=options.device, validate=(task.x_test, task.y_test),
    )
    words = f"{options.epochs} epochs of batches of {options.batch}, lr {options.lr:g}"
    return models, log.accuracy.tolist(), words


def exact_score(model: Model, task: Task) -> float:
    """Return the share of test sequences that a model in float gets right."""
    return float((model.logits(task.x_test).argmax(axis=1) == task.y_test).mean())


def standardised(model: Model, task: Task) -> Model:
    """Return an untrained model whose encoder first brings features to mean 0 and variance 1."""
    features = task.x_train.reshape(-1, task.x_train.shape[-1]).astype(float)
    spread = features.std(axis=0)
    weight = model.encoder_weight / np.where(spread > 0, spread, 1.0)[:, np.newaxis]
    bias = model.encoder_bias - features.mean(axis=0) @ weight
    return model.replace(encoder_weight=weight, encoder_bias=bias)


def train_rounded(
    options: argparse.Namespace, task: Task, design: Design, models: Sequence[Model]
) -> tuple[list[Model], list[float], str]:
    """Return models pruned and rounded as a design says, their test accuracy, and how."""
    groups = [list(models)]
    if design.keep < 1:  # heads keep different numbers of modes: no common shape
        n_steps = task.x_train.shape[1]
        groups = [[prune(model, design.keep, n_steps=n_steps)] for model in models]
    tuned: list[Model] = []
    test: list[float] = []
    for group in groups:
        log = Log(f"{design.shape}@{design.keep:g} {design.bits}")
        tuned += fine_tune(
            group, task, epochs=options.rounded_epochs, batch_size=options.batch,
            device=options.device,
            precision=None if design.bits == "float" else named_precision(design.bits),
            validate=(task.x_test, task.y_test), on_epoch=log, **NEXT_TO_ROUND,
        )
        test += log.accuracy.tolist()
    return tuned, test, f"{options.rounded_epochs} epochs of batches of {options.batch}"


def keep_models(
    options: argparse.Namespace, task: Task, design: Design, models: Sequence[Model],
    test: Sequence[float], how: str,
) -> None:
    """Save the models of all seeds and append the row."""
    for seed, model in enumerate(models):
        file = design.file(task.name, seed)
        named = in_single_precision(model).replace(name=file.removesuffix(".safetensors"))
        save(named, options.out / file)
    words = f"trained by this script, seeds 0 to {len(models) - 1}, {how}"
    write_row(options.out, task, design, design.file(task.name, 0), test, words)


def run_scoring(options: argparse.Namespace) -> None:
    """Append a row for files of models: the error-free network, rounded as each asks.

    Files of one design are its seeds. With --short biases take 16 bits and steps of states 8.
    """
    options.out.mkdir(parents=True, exist_ok=True)
    task = find_task(options)
    groups: dict[Design, list[tuple[str, float]]] = {}
    sources: dict[Design, list[str]] = {}
    for file in options.models:
        model = load(file)
        n_states = 2 * model.layers[0].pole.shape[1]
        design = Design(model.n_layers, model.n_heads, n_states, 1.0, named_bits(model))
        kept = str(file.resolve())
        if options.short:
            model, kept = in_short_formats(model), file.name
            save(model, options.out / kept)
        ideal = deploy(model, ChipSpec.preset("ideal"), "digital", calibrate=task.calibration())
        share = float(ideal.program().infer(task.x_test).accuracy(task.y_test)[0])
        groups.setdefault(design, []).append((kept, share))
        sources.setdefault(design, []).append(file.name)
        print(f"{file.name}: {100 * share:.2f} %", flush=True)
    for design, scored in groups.items():
        write_row(
            options.out, task, design, scored[0][0], [share for _, share in scored],
            f"{', '.join(sources[design])} on the error-free chip"
            + (", biases and steps of states short" if options.short else ""),
        )


def named_bits(model: Model) -> str:
    """Return the name of a model's precision."""
    bits = model.precision
    return f"W{bits['mix']}A{bits['act']}-A{bits['a']}x{bits['state']}" if bits else "float"


def report(options: argparse.Namespace) -> None:
    """Print the front of every task, and draw it where asked."""
    rows = read_rows(options.rows)
    if not rows:
        raise SystemExit("no rows: run `train --out DIR` first, or give docs/fronts.jsonl")
    for row in rows:
        row["mean"] = float(np.mean(row["test"]))
        row["spread"] = float(np.std(row["test"], ddof=1)) if len(row["test"]) > 1 else None
    for task in dict.fromkeys(row["task"] for row in rows):
        show([row for row in rows if row["task"] == task])
    if options.picture is not None:
        draw(rows, options.picture)


def name_of(row: dict[str, Any]) -> str:
    """Return the size of a row in words."""
    return row["shape"] + ("" if row["keep"] == 1 else f", {100 * row['keep']:g} %")


def show(rows: list[dict[str, Any]]) -> None:
    """Print the front of one task."""
    exact = [row for row in rows if row["precision"] == "float"]
    base = max(exact or rows, key=lambda row: row["memory_bits"])
    best = {
        cost: pareto([r["mean"] for r in rows], [r[cost] for r in rows])
        for cost in (*COSTS, *COUNTS)
    }
    wide = 1 + max(len(name_of(row)) for row in rows)
    print(
        f"\n{rows[0]['task']}: {rows[0]['n_test']:,} test sequences; x: less than "
        f"{base['shape']} in float; *: no other design is as accurate for less\n"
        f"{'design':{wide}}{'precision':11}{'test %':>14} seeds{'memory, kbit':>17}"
        f"{'kBOP a step':>19}{'parameters':>11}{'MACs a step':>12}{'cells':>8}{'tiles':>7}"
    )
    for i in sorted(range(len(rows)), key=lambda i: -rows[i]["memory_bits"]):
        row = rows[i]
        score = f"{100 * row['mean']:.2f}"
        score += "" if row["spread"] is None else f" +- {100 * row['spread']:.2f}"
        marks = {cost: " *"[int(on[i])] for cost, on in best.items()}
        costs = [
            f"{row[cost] / 1e3:.1f} ({base[cost] / row[cost]:.0f} x){marks[cost]}"
            for cost in COSTS
        ]
        counts = [
            f"{row[cost]}{marks[cost]}".rjust(width) for cost, width in COUNTS.items()
        ]
        print(
            f"{name_of(row):{wide}}{row['precision']:11}{score:>14}{len(row['test']):>6}"
            f"{costs[0]:>17}{costs[1]:>19}{''.join(counts)}".rstrip()
        )
    near = [row for row in rows if row["mean"] >= base["mean"] - LOSS]
    pick = min(near, key=lambda row: row["memory_bits"])
    print(
        f"smallest within {100 * LOSS:.0f} point of {base['shape']} float: {name_of(pick)} "
        f"{pick['precision']}, {base['memory_bits'] / pick['memory_bits']:.1f} x less memory, "
        f"{base['bops_per_step'] / pick['bops_per_step']:.0f} x fewer bit operations, "
        f"{100 * (pick['mean'] - base['mean']):+.2f} points"
    )


def wrong(row: dict[str, Any]) -> float:
    """Return the test error of a row in %."""
    return 100 * (1 - float(row["mean"]))


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw errors against memory and against bit operations, a row of axes for every task."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    tasks = list(dict.fromkeys(row["task"] for row in rows))
    figure = Figure(figsize=(12, 5.2 * len(tasks)), dpi=110, layout="constrained")
    grid = figure.subplots(len(tasks), 2, squeeze=False, sharey="row")
    kinds = {"float": "o", "W8": "s", "W4": "D", "W3": "^", "W2": "v"}
    for axes, task in zip(grid, tasks, strict=True):
        own = [row for row in rows if row["task"] == task]
        for ax, cost, label in zip(
            axes, COSTS, ("memory [bit]", "bit operations a step"), strict=True
        ):
            for k, (kind, marker) in enumerate(kinds.items()):
                points = [row for row in own if row["precision"].split("A")[0] == kind]
                words = "float" if kind == "float" else f"{kind[1:]}-bit weights"
                if points:
                    ax.errorbar(
                        [row[cost] for row in points], [wrong(row) for row in points],
                        [100 * (row["spread"] or 0) for row in points], fmt=marker, capsize=2,
                        color=f"C{k}", label=words,
                    )
            mask = pareto([row["mean"] for row in own], [row[cost] for row in own])
            front = sorted(
                (row for row, on in zip(own, mask, strict=True) if on), key=lambda row: row[cost]
            )
            ax.step(
                [row[cost] for row in front], [wrong(row) for row in front],
                where="post", color="0.5", linewidth=1, zorder=0, label="Pareto set",
            )
            base = max(own, key=lambda row: row["memory_bits"])
            ax.axhline(
                wrong(base) + 100 * LOSS, color="0.7", linestyle=":", linewidth=1,
                label=f"{100 * LOSS:.0f} point more error than {base['shape']} in float",
            )
            ax.set_xscale("log")
            ax.set_yscale("log")
            for axis in (ax.xaxis, ax.yaxis):
                axis.set_minor_formatter(NullFormatter())
            ax.set_yticks([0.5, 1, 2, 5, 10], ["0.5", "1", "2", "5", "10"])
            ax.margins(x=0.18, y=0.12)
            ax.set_xlabel(label)
        axes[0].set_ylabel(f"{task}: test error [%]")
        handles, words = axes[1].get_legend_handles_labels()
        axes[1].legend(handles, words, fontsize="small", loc="upper right")
    # names are placed where the layout leaves room, which must then stay as it is
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes, task in zip(grid, tasks, strict=True):
        for ax, cost in zip(axes, COSTS, strict=True):
            name_points(ax, [row for row in rows if row["task"] == task], cost)
    figure.savefig(path)


def name_points(ax: Any, rows: list[dict[str, Any]], cost: str) -> None:
    """Write shape and precision beside every point, where they cover no point and no other name."""
    from matplotlib.transforms import Bbox

    taken = [] if ax.get_legend() is None else [ax.get_legend().get_window_extent()]
    for row in rows:
        spread = 100 * (row["spread"] or 0)
        ends = [(row[cost], wrong(row) - spread), (row[cost], wrong(row) + spread)]
        (x, low), (_, high) = ax.transData.transform(ends)
        taken.append(Bbox.from_extents(x - 5, low - 5, x + 5, high + 5))
    frame = ax.get_window_extent()
    for row in sorted(rows, key=lambda row: -row[cost]):
        point = (row[cost], wrong(row))
        for distance, dx, dy, ha, va in PLACES:
            place = (distance * dx, distance * dy)
            name = ax.annotate(
                f"{name_of(row)} {row['precision']}", point, place, textcoords="offset points",
                fontsize=7, ha=ha, va=va,
            )
            box = name.get_window_extent()
            is_inside = all(frame.contains(*end) for end in ((box.x0, box.y0), (box.x1, box.y1)))
            if is_inside and not any(box.overlaps(other) for other in taken):
                break
            name.remove()
        else:  # no room: better across another name than nameless
            ax.add_artist(name)
        taken.append(box)
        if distance > 1:
            line = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 4}
            ax.annotate("", point, place, textcoords="offset points", arrowprops=line)


def main() -> None:
    """Train or score models, or report what was measured."""
    parser = argparse.ArgumentParser(description="size against accuracy")
    commands = parser.add_subparsers(required=True)
    first = commands.add_parser("train", help="train designs into a folder")
    first.set_defaults(call=run_training)
    first.add_argument("--designs", nargs="+", default=["2x24x16/W4A8-A8x8", "2x24x16/W4A8-A8x10"])
    first.add_argument("--device", help="torch device (default: the GPU where there is one)")
    first.add_argument("--seeds", type=int, default=3)
    first.add_argument("--epochs", type=int, default=18, help="in float")
    first.add_argument("--rounded-epochs", type=int, default=8)
    first.add_argument("--batch", type=int, default=256)
    first.add_argument("--lr", type=float, default=1.5e-2, help="in float")
    second = commands.add_parser("score", help="score files of models")
    second.set_defaults(call=run_scoring)
    second.add_argument("models", type=Path, nargs="+")
    second.add_argument("--short", action="store_true", help="16-bit biases, 8-bit steps of states")
    for each in (first, second):
        each.add_argument("--out", type=Path, required=True, help="folder of models and rows")
        each.add_argument("--task", default="smnist")
        each.add_argument("--data", help="file or folder of the task's data (default: AIMC_DATA)")
        each.add_argument("--quick", action="store_true", help="a smoke run on few sequences")
    last = commands.add_parser("collect", help="add the size of every model")
    last.set_defaults(call=collect)
    last.add_argument("folders", type=Path, nargs="+", help="of models and front.jsonl")
    last.add_argument("--rows", type=Path, required=True, help="file to write")
    third = commands.add_parser("report", help="print and draw the front of rows")
    third.set_defaults(call=report)
    third.add_argument("rows", type=Path, nargs="+", help="files of lines, as collect writes them")
    third.add_argument("--picture", type=Path)
    options = parser.parse_args()
    options.call(options)


if __name__ == "__main__":
    main()
