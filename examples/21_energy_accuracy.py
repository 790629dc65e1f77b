"""Energy of an inference against accuracy: several chips and forms of A, beside digital logic.

    python examples/21_energy_accuracy.py [--models DIR] [--data mnist.npz] [--limit 200]
        [--chips 3] [--node 45] [--picture FILE.png] [--quick]

Sequential MNIST, 784 steps, on the models that 09_memristor_smnist.py trains: one for each chip,
one in float, one rounded; and 19_size_front.py's small one. Every chip is read a day after
programming with A on tiles (leapfrog) and with A in logic; drives of the rows are measured on
calibration signals, conductances are the sampled cells'. In logic: the float model in fp32, the
same in int8 (16-bit states), and rounded models with every part in logic. Energies are given at
the node of each chip's source and, to compare, all at one node; what no other design beats there
in accuracy and energy is marked. A chip's converters are those of the regression over published
ADCs, which is pessimistic beside single designs (docs/costs.md). --quick takes the demo model.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from aimc_sim import ChipSpec, load_chip
from ssm import Model, Precision, deploy, load, load_task, quantize
from ssm.baseline import cost_digital, judge
from ssm.costs import Inference, cost_inference, drawn_conductances
from ssm.deploy import Deployment
from ssm.drives import measured_drives
from ssm.fronts import pareto
from ssm.inference import ProgrammedModel
from ssm.tasks import Task

MODELS = Path(__file__).parent / "models"
DAY_S = 86_400.0
LOGIC = ("encoder", "readout", "mixing", "decoder")
INT8 = Precision(a=8, c=8, d=8, mix=8, enc=8, dec=8, state=16, act=8)
ROUNDED = ("s4d-smnist-w4a6-a8x8", "s4d-smnist-2x24x16-w4a8-a8x10")
# each as its model is trained for
CHIPS = {
    name: load_chip(Path(__file__).parent / "chips" / f"{name}.toml")
    for name in ("cmo-hfox", "reram-wan2022", "reram-wan2022-4", "pcm-hermes2023-2dev")
}


def find_models(options: argparse.Namespace) -> dict[str, Model]:
    """Return the models by name; the demo model alone with --quick."""
    if options.quick:
        return {"float": load(MODELS / "s4d-digits.pt")}
    found = {"float": load(options.models / "s4d-smnist-float.safetensors")}
    for name in (*(f"s4d-smnist-{chip}" for chip in CHIPS), *ROUNDED):
        file = options.models / f"{name}.safetensors"
        if file.exists():
            found[name.removeprefix("s4d-smnist-")] = load(file)
        else:
            print(f"{file.name} is not there")
    return found


def spent(
    d: Deployment, n_steps: int, programmed: ProgrammedModel | None = None
) -> Inference:
    """Return the costs of a sequence, with drives of the calibration signal."""
    g_s = None if programmed is None else drawn_conductances(
        programmed.chip, programmed.chip.aged()
    )
    return cost_inference(d, n_steps, drives=measured_drives(d), g_s=g_s)


def at_node(spec: ChipSpec, node_nm: float) -> ChipSpec:
    """Return a chip at another node."""
    return spec.replace(**{"costs.node_nm": node_nm})


def on_chip(
    name: str, spec: ChipSpec, form: str, model: Model, task: Task, options: argparse.Namespace
) -> tuple[dict[str, Any], str]:
    """Return the row of a model on sampled chips, and the verdict on A."""
    d = deploy(model, spec, form, calibrate=task.x_train[:64])
    programmed = d.program(0, options.chips).wait(DAY_S)
    shares = programmed.infer(task.x_test).accuracy(task.y_test)
    n_steps = task.x_test.shape[1]
    own = spent(d, n_steps, programmed)
    same = deploy(
        model, at_node(spec, options.node), form, calibrate=task.x_train[:64]
    )
    return {
        "name": name, "kind": "A on tiles" if form == "leapfrog" else "A in logic",
        "accuracy": float(shares.mean()), "spread": float(shares.std(ddof=1)),
        "own_nm": spec.costs.node_nm, "own_j": own.costs.energy_j,
        "same_j": spent(same, n_steps, programmed).costs.energy_j, "latency_s": own.costs.latency_s,
    }, f"{name}: {judge(d, own, n_steps)}"


def in_logic(
    models: dict[str, Model], task: Task, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Return the rows of models with every part in logic, at the common node."""
    spec, n_steps = at_node(CHIPS["cmo-hfox"], options.node), task.x_test.shape[1]
    exact = models["float"]
    twin = deploy(exact, spec, "digital", calibrate=task.x_train[:64])
    rows = [
        ("float, fp32", float((exact.logits(task.x_test).argmax(1) == task.y_test).mean()),
         cost_digital(twin, n_steps, "fp32").energy_j),
        ("float, int8", rounded_score(quantize(exact, INT8), task),
         cost_digital(twin, n_steps, "int8").energy_j),
    ]
    for name in models:
        if name == "float" or name in CHIPS:
            continue
        # error-free where no cell is used; the costs are the bits' of the model
        d = deploy(models[name], spec, "digital", calibrate=task.x_train[:64], digital=LOGIC)
        rows.append((name, rounded_score(models[name], task), spent(d, n_steps).costs.energy_j))
    return [
        {"name": name, "kind": "all in logic", "accuracy": share, "spread": None, "own_nm": None,
         "own_j": None, "same_j": joule, "latency_s": None}
        for name, share, joule in rows
    ]


def rounded_score(model: Model, task: Task) -> float:
    """Return the test accuracy of a model as rounded, without errors of cells."""
    d = deploy(model, ChipSpec.preset("ideal"), "digital", calibrate=task.x_train[:64])
    return float(d.program().infer(task.x_test).accuracy(task.y_test)[0])


def show(rows: list[dict[str, Any]], task: Task, options: argparse.Namespace) -> None:
    """Print the table, the Pareto set marked."""
    share = max(row["accuracy"] for row in rows)
    error = 100 * np.sqrt(share * (1 - share) / len(task.y_test))
    print(
        f"{task.name}: {len(task.y_test)} test sequences (standard error {error:.1f} points at "
        f"{100 * share:.1f} %), {options.chips} chips after a day; *: no other design is as "
        f"accurate for less at {options.node:g} nm"
    )
    print(f"{'design':30}{'':14}{'accuracy, %':>15}{'uJ at its node':>20}"
          f"{f'uJ at {options.node:g} nm':>14}{'ms':>8}")
    best = pareto([row["accuracy"] for row in rows], [row["same_j"] for row in rows])
    for row, on in zip(rows, best, strict=True):
        score = f"{100 * row['accuracy']:.2f}"
        score += "" if row["spread"] is None else f" +- {100 * row['spread']:.2f}"
        own = "-" if row["own_j"] is None else f"{1e6 * row['own_j']:.2f} ({row['own_nm']:g} nm)"
        late = "-" if row["latency_s"] is None else f"{1e3 * row['latency_s']:.1f}"
        print(f"{row['name']:30}{row['kind']:14}{score:>15}{own:>20}"
              f"{1e6 * row['same_j']:>12.2f} {' *'[int(on)]}{late:>8}")


def draw(rows: list[dict[str, Any]], options: argparse.Namespace, path: Path) -> None:
    """Draw accuracy against energy at the common node."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    ax = figure.subplots()
    colours = {name: f"C{k}" for k, name in enumerate(CHIPS)}
    logic = [row["name"] for row in rows if row["kind"] == "all in logic"]
    markers = {"A on tiles": "o", "A in logic": "s", **dict(zip(logic, "D^vP", strict=False))}
    for row in rows:
        label = f"{row['name']}, {row['kind']}"
        ax.errorbar(
            1e6 * row["same_j"], 100 * row["accuracy"], 100 * (row["spread"] or 0), capsize=2,
            fmt=markers.get(row["kind"], markers.get(row["name"], "x")), label=label,
            color=colours.get(row["name"], "0.3"),
            fillstyle="none" if row["kind"] == "all in logic" else "full",
        )
    best = pareto([row["accuracy"] for row in rows], [row["same_j"] for row in rows])
    front = sorted(
        (row for row, on in zip(rows, best, strict=True) if on), key=lambda row: row["same_j"]
    )
    ax.step(
        [1e6 * row["same_j"] for row in front], [100 * row["accuracy"] for row in front],
        where="post", color="0.5", linewidth=1, zorder=0, label="Pareto set",
    )
    ax.set_xscale("log")
    ax.set_xlabel(f"energy of an inference at {options.node:g} nm [uJ]")
    ax.set_ylabel("test accuracy [%]")
    figure.legend(fontsize="x-small", loc="outside right upper")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Score every design, print the table, draw the picture."""
    parser = argparse.ArgumentParser(description="energy against accuracy")
    parser.add_argument("--models", type=Path, default=MODELS, help="folder of trained models")
    parser.add_argument("--data", help="mnist.npz or a folder with it (default: AIMC_DATA)")
    parser.add_argument("--limit", type=int, default=200, help="of the test sequences")
    parser.add_argument("--chips", type=int, default=3)
    parser.add_argument("--node", type=float, default=45.0, help="of the comparison [nm]")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--quick", action="store_true", help="the demo model")
    options = parser.parse_args()
    models = find_models(options)
    task = load_task("digits" if options.quick else "smnist", options.data)
    task = Task(
        task.name, task.x_train[:64], task.y_train[:64], task.x_test[: options.limit],
        task.y_test[: options.limit], task.n_classes, task.source,
    )
    rows, verdicts = [], []
    for name, spec in CHIPS.items():
        model = models.get(name, models["float"])
        for form in ("leapfrog", "digital"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of modes that noise may upset: measured here
                row, verdict = on_chip(name, spec, form, model, task, options)
            rows.append(row)
            print(f"{name}, {row['kind']}: {100 * row['accuracy']:.2f} %", file=sys.stderr)
            if form == "leapfrog":
                verdicts.append(verdict)
    rows += in_logic(models, task, options)
    show(rows, task, options)
    print("\n".join(verdicts))
    if options.picture is not None:
        draw(rows, options, options.picture)


if __name__ == "__main__":
    main()
