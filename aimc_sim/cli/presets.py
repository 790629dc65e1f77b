"""`aimc-sim presets`: the published chips that come with the package."""

from __future__ import annotations

from typing import Any

import typer

from aimc_sim.cli.options import Json, command_line
from aimc_sim.cli.outputs import Outputs


def presets(context: typer.Context, json: Json = None) -> None:
    """List the published chips that come with the package."""
    outputs = Outputs(json=json)
    outputs.check()
    from aimc_sim import __version__, report
    from aimc_sim.citations import device_references
    from aimc_sim.specs import ChipSpec
    from aimc_sim.specs import presets as preset_names

    rows: list[dict[str, Any]] = []
    for name in preset_names():
        device = ChipSpec.preset(name).device
        rows.append(
            {
                "name": name,
                "device": device.name,
                "g_min_s": device.g_min_s,
                "g_max_s": device.g_max_s,
                "doi": list(device.doi),
                "cite": device_references(device),
                "description": device.description,
            }
        )
    record = {
        "schema": "aimc-sim.presets/1",
        "version": __version__,
        "command": command_line(context),
        "presets": rows,
    }
    outputs.show(report.presets_report(record), report.to_json(record))
