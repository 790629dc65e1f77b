"""`aimc-sim map`: where a model lies on a chip; nothing is simulated."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aimc_sim.cli.costs import add_map_costs, costs_of_step
from aimc_sim.cli.options import (
    FORMS,
    Chip,
    Decay,
    Device,
    Disc,
    Force,
    Form,
    Json,
    ModelFile,
    Norm,
    Out,
    Pool,
    PrecisionText,
    Quiet,
    check_front_end,
    choose,
    choose_chip,
    command_line,
    device_notes,
    load_models,
    model_facts,
    one_line_warnings,
)
from aimc_sim.cli.outputs import Outputs, as_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from aimc_sim.specs import ChipSpec
    from ssm.deploy import Deployment
    from ssm.model import Model

    Signal = tuple[NDArray[np.floating], str]

_CHIPS, _SAMPLES = 4, 16  # that the error of a layout is measured on
_OF_A_LAYOUT = ("tiles", "devices", "utilisation", "logit_error", "energy_j", "step_s")
Compare = Annotated[
    bool,
    typer.Option(
        "--compare",
        help="Also the layouts packed and head beside each other, with their errors of logits.",
    ),
]


Calibrate = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.npz",
        help="Sequences on which drives of the rows are measured (default: of the model's task, "
        "where its data are there; else drives are assumed).",
    ),
]


def map_model(
    context: typer.Context,
    model: ModelFile,
    chip: Chip = None,
    device: Device = None,
    calibrate: Calibrate = None,
    norm: Norm = None,
    disc: Disc = None,
    pool: Pool = None,
    form: Form = "leapfrog",
    decay: Decay = "tile",
    precision: PrecisionText = None,
    compare: Compare = False,
    out: Out = None,
    force: Force = False,
    json: Json = None,
    quiet: Quiet = False,
) -> None:
    """Show tiles, cells and conversions that a model takes."""
    choose("--form", form, FORMS)
    choose("--decay", decay, ("tile", "digital"))
    outputs = Outputs(json=json, out=out, force=force)
    outputs.check([path for path in (model, calibrate) if path is not None])
    with one_line_warnings() as warned:
        check_front_end()
        spec = choose_chip(chip, device)
        model_as_trained, deployed = load_models(model, norm, disc, pool, precision)
        import numpy as np

        from ssm.deploy import deploy

        signal = choose_signal(model_as_trained, calibrate)
        # converter ranges have no say in the placement: without data one step is signal enough
        one_step = np.ones((1, 1, deployed.d_input), np.float32)
        deployment = deploy(
            deployed, spec, form, decay=decay, calibrate=one_step if signal is None else signal[0]
        )
        record = make_record(deployment, command_line(context))
        add_map_costs(record, deployment, measured=signal is not None)
        if compare:
            record["layouts"], refusals = compare_layouts(
                model_as_trained, deployed, spec, form, decay, signal
            )
            record["notes"] += refusals
    record["notes"] += warned
    from aimc_sim import report
    from aimc_sim.cli.results import save_axes, save_placement
    from aimc_sim.tile_plots import count_pages, draw_tiles

    pages = draw_tiles(deployment.layout, spec, deployment.blocks_per_head())
    n_pages = count_pages(deployment.layout, spec)

    text = report.to_json(record)
    outputs.write_folder(
        {
            "report.json": lambda path: path.write_text(text, "utf-8"),
            "table.txt": lambda path: path.write_text(as_text(report.map_report(record)), "utf-8"),
            "placement.csv": lambda path: write_placement(deployment, path),
            "chip.toml": lambda path: path.write_text(spec.to_toml(), "utf-8"),
        },
        ("placement.png", "tiles-*.png"),
    )
    outputs.show(report.map_report(record, notes=not quiet), text)
    outputs.draw(
        {
            "placement.png": lambda path: save_placement(deployment.layout, spec, path),
            **{
                f"tiles-{k + 1:0{len(str(n_pages))}}.png": lambda path: save_axes(
                    next(pages).axes[0], path
                )
                for k in range(n_pages)
            },
        }
    )


def choose_signal(model: Model, calibrate: Path | None) -> Signal | None:
    """Return the sequences that drives are measured on and a line on them; None: no data at hand.

    calibrate : a file of them; None: those of the model's task.
    """
    if calibrate is None:
        from ssm.ranges import task_signal

        return task_signal(model)
    from aimc_sim.cli.data import read_npz

    x, _ = read_npz(calibrate, model, asked="calibrate with")
    return x, f"{len(x)} sequences of {calibrate.name}"


def write_placement(deployment: Deployment, path: Path) -> None:
    """Write where every rectangle of cells lies, as CSV; `head` is empty where there is none."""
    import csv

    layout, per_head = deployment.layout, deployment.blocks_per_head()
    names = ("array", "block", "head", "kind", "tile", "row", "col", "rows", "cols", "used")
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(names)
        for piece in layout.rectangles:
            n, group = per_head.get(piece.array), layout.array(piece.array).group
            head = "" if n is None else piece.block * group // n
            table.writerow(
                [
                    piece.array, piece.block, head, layout.tile_kinds[piece.tile], piece.tile,
                    piece.row, piece.col, piece.rows, piece.cols, piece.used,
                ]
            )


def compare_layouts(
    trained: Model, deployed: Model, spec: ChipSpec, form: str, decay: str,
    known: Signal | None,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return a row for each layout, and why one is refused; "head" also with idle cells at g_min.

    `logit_error` is the relative rms error of the logits right after programming, over 4 chips
    and up to 16 calibration sequences; `energy_j` and `step_s` are those of one step. known : the
    sequences that set ranges and drives; None: a probe signal, and drives are assumed.
    """
    from aimc_sim.errors import AimcError
    from ssm.evaluate import evaluate
    from ssm.ranges import default_signal

    signal, what = known or default_signal(trained)
    rows: list[dict[str, Any]] = []
    refusals = [f"errors of layouts: {_CHIPS} chips at 0 s, {min(len(signal), _SAMPLES)} of {what}"]
    kinds = dict.fromkeys(
        [("packed", spec.tile.idle), ("head", spec.tile.idle), ("head", "g_min")]
    )
    for name, idle in kinds:
        row: dict[str, Any] = {"layout": name, "idle": idle}
        try:
            found = evaluate(
                trained, spec.replace(layout=name, **{"tile.idle": idle}), signal, form=form,
                decay=decay, chips=_CHIPS, limit=_SAMPLES, on_chip=deployed, calibrate=signal,
            )
        except AimcError as error:
            refusals.append(f"layout {name}, idle cells {idle}: {error}")
            row |= dict.fromkeys(_OF_A_LAYOUT)
        else:
            layout = found.deployment.layout
            values = (
                layout.n_tiles, layout.n_used(), layout.utilisation(spec),
                found.logit_error()[0],
                *costs_of_step(found.deployment, measured=known is not None),
            )
            row |= dict(zip(_OF_A_LAYOUT, values, strict=True))
        rows.append(row)
    return rows, refusals


def make_record(deployment: Deployment, command: str) -> dict[str, Any]:
    """Return the `aimc-sim.map/1` record of a deployment."""
    from aimc_sim import __version__
    from aimc_sim.mapping import KINDS, pieces_of, tile_of

    layout, spec = deployment.layout, deployment.spec
    kinds = [
        {
            "kind": kind,
            "tiles": layout.tile_kinds.count(kind),
            "rows": tile_of(spec, kind).rows,
            "cols": tile_of(spec, kind).cols,
        }
        for kind in KINDS
        if kind in layout.tile_kinds
    ]
    used: dict[str, int] = {}
    for piece in layout.rectangles:
        used[piece.array] = used.get(piece.array, 0) + piece.used
    arrays = [
        {
            "name": name,
            "blocks": request.n_blocks,
            "n_in": request.n_in,
            "n_out": request.n_out,
            "pair": request.pair,
            "pieces": pieces_of(spec, request.pair).count,
            "cells": used[name],
            "tiles": tiles,
        }
        for name, request, tiles in deployment.placements()
    ]
    logic = [*(["A"] if deployment.form == "digital" else []), *deployment.digital]
    return {
        "schema": "aimc-sim.map/1",
        "version": __version__,
        "command": command,
        "model": deployment.model.name,
        "chip": spec.name,
        "layout": spec.layout,
        "form": deployment.form,
        "decay": deployment.decay,
        "model_facts": model_facts(deployment.model),
        "arrays": arrays,
        "tile_kinds": kinds,
        "tiles": layout.n_tiles,
        "devices": layout.n_used(),
        "utilisation": layout.utilisation(spec),
        "conversions": deployment.conversions(),
        "energy_j_per_step": None,
        "area_m2": None,
        "energy_breakdown_j": None,
        "costs": None,
        "notes": [
            *([f"in digital logic: {', '.join(logic)}"] if logic else []),
            *device_notes(spec),
        ],
    }
