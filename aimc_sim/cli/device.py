"""`aimc-sim device`: what a device model predicts."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aimc_sim.cli.completions import offer_presets
from aimc_sim.cli.options import (
    Force,
    Json,
    Out,
    Quiet,
    Seed,
    at_least,
    command_line,
    one_line_warnings,
    quantities,
)
from aimc_sim.cli.outputs import Outputs, as_text

if TYPE_CHECKING:
    from aimc_sim.cards import DeviceSpec
    from aimc_sim.devices import Prediction


def device(
    context: typer.Context,
    card: Annotated[
        str,
        typer.Argument(
            metavar="NAME|FILE.toml", help="Preset or file.", autocompletion=offer_presets
        ),
    ],
    targets: Annotated[
        str | None,
        typer.Option(
            metavar="5uS,10uS", help="Conductances to program (default: six over the range)."
        ),
    ] = None,
    at: Annotated[str, typer.Option(metavar="0s,1h", help="Times since programming.")] = "0s,1h,1d",
    cells: Annotated[int, typer.Option(help="Simulated cells of every target.")] = 10_000,
    seed: Seed = 0,
    json: Json = None,
    out: Out = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Show a device model: its formulas, what its cells do over time, its source and its limits."""
    times_s = quantities("--at", at, "time")
    targets_s = None if targets is None else quantities("--targets", targets, "conductance")
    at_least("--cells", cells, 2)
    outputs = Outputs(json=json, out=out, force=force)
    outputs.check()
    from aimc_sim import report
    from aimc_sim.devices import card_curves, default_targets, predict
    from aimc_sim.specs import load_chip

    with one_line_warnings() as warned:
        spec = load_chip(card)
        model = spec.device
        targets_s = targets_s or default_targets(model)
        rows = predict(model, targets_s, times_s, cells, seed)
    record = make_record(model, rows, cells, seed, command_line(context))
    record["curves"] = card_curves(model, targets_s, times_s)
    record["notes"] += warned
    text = report.to_json(record)
    table = report.device_report(record, notes=not quiet)
    outputs.write_folder(
        {
            "report.json": lambda path: path.write_text(text, "utf-8"),
            "table.txt": lambda path: path.write_text(
                as_text(report.device_report(record)), "utf-8"
            ),
        },
        ("device.png",),
    )
    outputs.show(table, text)
    outputs.draw({"device.png": lambda path: save_plot(model, rows, path)})


def make_record(
    model: DeviceSpec, rows: list[Prediction], cells: int, seed: int, command: str
) -> dict[str, Any]:
    """Return the `aimc-sim.device/1` record of a prediction."""
    from aimc_sim import __version__
    from aimc_sim.citations import device_references
    from aimc_sim.devices import lacking_parts, measured_ranges, telegraph_facts

    lacks, references = lacking_parts(model), device_references(model)
    return {
        "schema": "aimc-sim.device/1",
        "version": __version__,
        "command": command,
        "device": model.name,
        "description": model.description,
        "doi": list(model.doi),
        "cite": references,
        "n_cells": cells,
        "seed": seed,
        "g_min_s": model.g_min_s,
        "g_max_s": model.g_max_s,
        "g_range_s": model.g_range_s,
        "outside_g_range": model.outside_g_range,
        "time_range_s": model.time_range_s,
        "outside_time_range": model.outside_time_range,
        "zero_time": model.zero_time,
        "lacks": lacks,
        "caveats": list(model.caveats),
        "not_modelled": list(model.not_modelled),
        "rows": [dataclasses.asdict(row) for row in rows],
        "notes": [
            *(f"to cite: {reference}" for reference in references),
            *measured_ranges(model),
            model.zero_time,
            *telegraph_facts(model),
            *lacks,
            *model.caveats,
            *([f"not modelled: {', '.join(model.not_modelled)}"] if model.not_modelled else []),
        ],
    }


def save_plot(model: DeviceSpec, rows: list[Prediction], path: Path) -> None:
    """Write the picture of a card: its predictions and its curves."""
    from aimc_sim.cli.results import save_axes
    from aimc_sim.plotting import draw_card

    save_axes(draw_card(model, rows).axes[0], path)
