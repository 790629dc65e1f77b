"""`aimc-sim prune`: a model with fewer states or heads, and what that changes and frees."""

from __future__ import annotations

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
from aimc_sim.cli.train import OutModel, Replace, _check_out, _load, _show, _test
from aimc_sim.errors import UsageError

if TYPE_CHECKING:
    from ssm.model import Model

METHODS = "magnitude|hinf|last|aire|balanced"
Steps = Annotated[
    int | None,
    typer.Option(
        "--steps", metavar="N",
        help="Balanced: length of the sequences; errors after it hardly count (default: all do).",
    ),
]
Tune = Annotated[
    int, typer.Option("--tune", metavar="EPOCHS", help="Train the pruned model further.")
]
Data = Annotated[
    str | None,
    typer.Option(
        metavar="TASK|DATA.npz", help="With --tune: what to train on (default: the model's task)."
    ),
]


def prune(
    context: typer.Context,
    model: ModelFile,
    out: OutModel,
    keep: Annotated[float, typer.Option(help="Share of the real states that stay.")] = 0.5,
    method: Annotated[str, typer.Option(metavar=METHODS, help="What is left out.")] = "balanced",
    scope: Annotated[
        str | None,
        typer.Option(metavar="head|layer|global", help="Within what states compete."),
    ] = None,
    heads: Annotated[float, typer.Option(help="Share of the heads that stay.")] = 1.0,
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
    if data is not None and not tune:
        raise UsageError(f"prune with --data {data}", "there is no --tune", "add --tune 3, say")
    with one_line_warnings():
        spec = choose_chip(chip, device)
        trained, _ = load_models(model, norm, disc, pool, None)
        from ssm.prune import prune as prune_model
        from ssm.pruning_report import report_pruning

        task = data or trained.task
        if tune and task is None:
            raise UsageError(
                f"train the pruned {model} further", "the file names no task",
                "say on what: --data TASK or --data FILE.npz",
            )
        examples = _load(str(task)) if tune else None
        pruned = prune_model(trained, keep, method=method, scope=scope, heads=heads, n_steps=steps)
        found = report_pruning(trained, pruned, spec, form=form, decay=decay, n_steps=steps)
        tested = ""
        if examples is not None:
            pruned = _tuned(pruned, examples, tune, lr, seed)
            tested = _test(pruned, examples)
    from ssm.checkpoint import save

    save(pruned.replace(name=out.stem), out)
    from rich.text import Text

    from aimc_sim import __version__, report

    record = {
        "schema": "aimc-sim.prune/1", "version": __version__, "command": command_line(context),
        "model": trained.name, "method": method, "keep": keep, "heads_kept": heads,
        "tuned_epochs": tune, **found.record(),
    }
    outputs.show(Text(f"{found}\n{out}: {pruned.n_parameters} parameters{tested}"),
                 report.to_json(record))


def _tuned(model: Model, examples: Any, epochs: int, lr: float, seed: int) -> Model:
    """Return the model trained further in float, its poles of the kinds that they are."""
    from ssm.tune import fine_tune

    return fine_tune(model, examples, epochs=epochs, lr=lr, seed=seed, on_epoch=_show)
