"""Measured data to device models: `read_table` reads, a `fit_<kind>` fits, a Fit makes a card.

>>> import calibration
>>> sorted(calibration.KINDS)
['converter', 'drift', 'programming', 'pulse', 'read-noise', 'relaxation']
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

PROJECT = "aimc-sim"  # the name is a common word: the command line checks whose it is

_HOMES = {
    "calibration.converter": ("fit_converter",),
    "calibration.drift": ("fit_drift",),
    "calibration.fit": ("Checked", "Fit", "Panel", "Parameter", "Source"),
    "calibration.plotting": ("plot_fit", "plot_residuals"),
    "calibration.programming": ("fit_programming",),
    "calibration.pulse": ("fit_pulse",),
    "calibration.read_noise": ("fit_read_noise",),
    "calibration.relaxation": ("fit_relaxation",),
    "calibration.synthetic": ("synthetic",),
    "calibration.tables": ("KINDS", "Table", "read_table"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


class _Package(ModuleType):
    """The package itself: importing calibration.synthetic leaves that name the function."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (isinstance(value, ModuleType) and name in _HOME_OF):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    # numba and pydantic take most of a second to import: only what is asked for is loaded
    if name not in _HOME_OF:
        raise AttributeError(f"module 'calibration' has no attribute '{name}'")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME_OF])
