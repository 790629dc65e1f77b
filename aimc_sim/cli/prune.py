"""`aimc-sim prune`: a model with fewer states or heads, and what that changes and frees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aimc_sim.cli.options import (
    FORMS,
    Chip,
    Decay,
    Device,
    Disc,
    Form,
    Json,
    ModelFile,
    Norm,
    Pool,
    Seed,
    at_least,
    check_front_end,
    choose,
    choose_chip,
    command_line,
    load_models,
    one_line_warnings,
)
from aimc_sim.cli.outputs import Outputs
from aimc_sim.cli.train import SCORED, OutModel, Replace, _check_out, _load, _show
from aimc_sim.errors import UsageError

if TYPE_CHECKING:
    from aimc_sim.cli.data import RunData
    from ssm.model import Model

METHODS = "magnitude|hinf|last|aire|balanced"
Method = Annotated[
    str,
    typer.Option(
        metavar=METHODS,
        help="balanced: every head becomes a smaller system with nearly its impulse response, best "
        "without training; the others leave out the modes that score lowest.",
    ),
]
Scope = Annotated[
    str | None,
    typer.Option(
        metavar="head|layer|global",
        help="Within what states compete (default: head; of last and aire global).",
    ),
]
Keep = Annotated[
    float | None,
    typer.Option(
        help="Share of the real states that stay, at most: of those before any pruning, counted in "
        "the heads that stay (default: 0.5; with --heads alone 1, all of them).",
    ),
]
Heads = Annotated[
    float,
    typer.Option(
        help="Share of the heads of every layer that stay (scope global: of all), of those before "
        "any pruning."
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(
        "--steps", metavar="N",
        help="The horizon, with --method balanced: length of the sequences, beyond which errors "
        "hardly count (default: all steps count alike).",
    ),
]
Tune = Annotated[
    int, typer.Option("--tune", metavar="EPOCHS", help="Train the pruned model further.")
]
Data = Annotated[
    str | None,
    typer.Option(
        metavar="TASK|DATA.npz",
        help="What accuracy is measured on, and what --tune trains on (default: the model's task; "
        "without --tune only where its data are there without a download).",
    ),
]


def prune(
    context: typer.Context,
    model: ModelFile,
    out: OutModel,
    keep: Keep = None,
    method: Method = "balanced",
    scope: Scope = None,
    heads: Heads = 1.0,
    steps: Steps = None,
    tune: Tune = 0,
    data: Data = None,
    lr: Annotated[float, typer.Option(help="With --tune: peak learning rate.")] = 2e-3,
    seed: Seed = 0,
    norm: Norm = None,
    disc: Disc = None,
    pool: Pool = None,
    chip: Chip = None,
    device: Device = None,
    form: Form = "leapfrog",
    decay: Decay = "tile",
    force: Replace = False,
    json: Json = None,
) -> None:
    """Leave out states or heads of a model; say what changes, and what it frees on the chip."""
    choose("--form", form, FORMS)
    choose("--decay", decay, ("tile", "digital"))
    at_least("--tune", tune, 0)
    outputs = Outputs(json=json)
    outputs.check([model])
    check_front_end()
    _check_out(out, model, force)
    with one_line_warnings():
        spec = choose_chip(chip, device)
        trained, _ = load_models(model, norm, disc, pool, None)
        from ssm.prune import prune as prune_model
        from ssm.prune import share_of_states
        from ssm.pruning_report import report_pruning

        task = data or trained.task
        if tune and task is None:
            raise UsageError(
                f"train the pruned {model} further", "the file names no task",
                "say on what: --data TASK or --data FILE.npz",
            )
        examples = _load(str(task)) if tune else None
        test = find_test(trained, task if tune else data)
        pruned = prune_model(trained, keep, method=method, scope=scope, heads=heads, n_steps=steps)
        found = report_pruning(
            trained, pruned, spec, form=form, decay=decay, n_steps=steps, method=method
        )
        models = {"before": trained, "pruned": pruned}
        if examples is not None:
            models["tuned"] = pruned = _tuned(pruned, examples, tune, lr, seed)
        accuracy = None if test is None else measure_accuracy(models, test)
        if accuracy is not None and isinstance(examples, tuple):  # a file has no test part
            accuracy["data"] += ", which it was trained on"
    from ssm.checkpoint import save

    save(pruned.replace(name=out.stem), out)
    from rich.text import Text

    from aimc_sim import __version__, report

    record = {
        "schema": "aimc-sim.prune/1", "version": __version__, "command": command_line(context),
        "model": trained.name, "method": method, "keep": share_of_states(keep, heads),
        "heads_kept": heads, "tuned_epochs": tune, "accuracy": accuracy, **found.record(),
    }
    size = f"{out}: {pruned.n_parameters} parameters"
    lines = f"{found.text(str(out))}\n{accuracy_text(accuracy)}\n{size}"
    outputs.show(Text(lines), report.to_json(record))


def find_test(model: Model, data: str | None) -> RunData | None:
    """Return labelled sequences to score a model on; None where there are none at hand.

    data : a file or task; None: the model's own task, where its data need no download.
    """
    from aimc_sim.cli.data import choose_data
    from ssm.tasks import is_at_hand, task_names

    if data is None and (model.task not in task_names() or not is_at_hand(str(model.task))):
        return None
    found = choose_data(model, data, None)
    return None if found.y is None else found


def measure_accuracy(models: Mapping[str, Model], test: RunData) -> dict[str, Any]:
    """Return the share of right answers of every model in float, and on what it was measured."""
    x, y = test.x[:SCORED], test.y[:SCORED] if test.y is not None else None
    shares = {
        name: float((model.logits(x).argmax(axis=1) == y).mean()) for name, model in models.items()
    }
    return {"before": None, "pruned": None, "tuned": None, **shares, "n_samples": len(x),
            "data": test.name}


def accuracy_text(accuracy: Mapping[str, Any] | None) -> str:
    """Return the line on accuracies of a pruning."""
    if accuracy is None:
        return (
            "accuracy not measured: no labelled data of the model's task are at hand (give --data "
            "TASK or --data FILE.npz)"
        )
    said = f"accuracy in float {100 * accuracy['before']:.2f} % -> {100 * accuracy['pruned']:.2f} %"
    if accuracy["tuned"] is not None:
        said += f", {100 * accuracy['tuned']:.2f} % after training further"
    return f"{said}, of {accuracy['n_samples']} sequences of {accuracy['data']}"


def _tuned(model: Model, examples: Any, epochs: int, lr: float, seed: int) -> Model:
    """Return the model trained further in float, its poles of the kinds that they are."""
    from ssm.tune import fine_tune

    return fine_tune(model, examples, epochs=epochs, lr=lr, seed=seed, on_epoch=_show)
