"""`aimc-sim map`: where a model lies on a chip; nothing is simulated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

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
    from ssm.deploy import Deployment


def map_model(
    context: typer.Context,
    model: ModelFile,
    chip: Chip = None,
    device: Device = None,
    norm: Norm = None,
    disc: Disc = None,
    pool: Pool = None,
    form: Form = "leapfrog",
    decay: Decay = "tile",
    precision: PrecisionText = None,
    out: Out = None,
    force: Force = False,
    json: Json = None,
    quiet: Quiet = False,
) -> None:
    """Show tiles, cells and conversions that a model takes."""
    choose("--form", form, FORMS)
    choose("--decay", decay, ("tile", "digital"))
    outputs = Outputs(json=json, out=out, force=force)
    outputs.check([model])
    with one_line_warnings() as warned:
        check_front_end()
        spec = choose_chip(chip, device)
        _, deployed = load_models(model, norm, disc, pool, precision)
        import numpy as np

        from ssm.deploy import deploy

        # converter ranges have no say in the placement: one step is signal enough
        one_step = np.ones((1, 1, deployed.d_input), np.float32)
        deployment = deploy(deployed, spec, form, decay=decay, calibrate=one_step)
    record = make_record(deployment, command_line(context))
    record["notes"] += warned
    from aimc_sim import report
    from aimc_sim.cli.run import save_placement

    text = report.to_json(record)
    outputs.write_folder(
        {
            "report.json": lambda path: path.write_text(text, "utf-8"),
            "table.txt": lambda path: path.write_text(as_text(report.map_report(record)), "utf-8"),
            "placement.png": lambda path: save_placement(deployment.layout, spec, path),
            "chip.toml": lambda path: path.write_text(spec.to_toml(), "utf-8"),
        }
    )
    outputs.show(report.map_report(record, notes=not quiet), text)


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
            "pieces": pieces_of(spec).count,
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
        "form": deployment.form,
        "decay": deployment.decay,
        "model_facts": model_facts(deployment.model),
        "arrays": arrays,
        "tile_kinds": kinds,
        "tiles": layout.n_tiles,
        "devices": layout.n_used(),
        "utilisation": layout.utilisation(spec),
        "conversions": deployment.conversions(),
        "notes": [
            *([f"in digital logic: {', '.join(logic)}"] if logic else []),
            *device_notes(spec),
        ],
    }
