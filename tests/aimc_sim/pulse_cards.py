"""Cards with a pulse response, for tests."""

from __future__ import annotations

import numpy as np

from aimc_sim.chip import Chip
from aimc_sim.mapping import Request, place
from aimc_sim.specs import ChipSpec


def microsiemens(*polynomial, **more):
    """A curve of the conductance in microsiemens."""
    return {"of": "g_us", "unit_s": 1e-6, "polynomial": list(polynomial), **more}


def write_spec(*, step_us=1.0, tolerance_us=0.5, most=100, start="g_min", **pulses):
    """A chip whose pulses are stairs: every one the same, until a test says otherwise."""
    return ChipSpec.model_validate(
        {
            "name": "stairs",
            "tile": {"rows": 64, "cols": 64},
            "device": {
                "name": "stairs", "g_min_s": 1e-6, "g_max_s": 50e-6,
                "pulses": {
                    "set_mean": microsiemens(step_us), "set_sigma": microsiemens(0.0),
                    "reset_mean": microsiemens(-step_us), "reset_sigma": microsiemens(0.0),
                    "set_v": 1.5, "reset_v": -2.0, "width_s": 1e-6,
                    "v_read_v": 0.2, "t_read_s": 5e-6,
                    **pulses,
                },
            },
            "write": {"tolerance_s": tolerance_us * 1e-6, "max_pulses": most, "start": start},
        }
    )


def write_chip(spec, target_s, **options):
    """A chip of single cells asked for these conductances."""
    target = np.asarray(target_s, float)
    n = target.size
    rows = next(rows for rows in (64, 8, 2, 1) if n % rows == 0)
    layout = place([Request("cells", 1, rows, n // rows, pair=False)], spec)
    return Chip(spec, layout, target, **options)
