"""Simulator of analog in-memory computing chips: devices, tiles, converters, wires, clock.

>>> import aimc_sim as aimc
>>> "pcm-nandakumar2019" in aimc.presets()
True
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from aimc_sim.cards import DeviceSpec
    from aimc_sim.chip import Chip
    from aimc_sim.citations import cite
    from aimc_sim.devices import predict
    from aimc_sim.diagnostics import Estimate, effective_bits, mvm_error
    from aimc_sim.errors import AimcError, CapacityError, InputError, UsageError
    from aimc_sim.matrix import AnalogMatrix, MappedMatrix, load_matrix, map_matrix
    from aimc_sim.specs import (
        AdcSpec,
        ChipSpec,
        DacSpec,
        FaultSpec,
        TileSpec,
        WireSpec,
        WriteSpec,
        load_chip,
        presets,
    )

_HOMES = {
    "aimc_sim.cards": ("DeviceSpec",),
    "aimc_sim.chip": ("Chip",),
    "aimc_sim.citations": ("cite",),
    "aimc_sim.devices": ("predict",),
    "aimc_sim.diagnostics": ("Estimate", "effective_bits", "mvm_error"),
    "aimc_sim.errors": ("AimcError", "CapacityError", "InputError", "UsageError"),
    "aimc_sim.matrix": ("AnalogMatrix", "MappedMatrix", "load_matrix", "map_matrix"),
    "aimc_sim.specs": (
        "AdcSpec", "ChipSpec", "DacSpec", "FaultSpec", "TileSpec", "WireSpec", "WriteSpec",
        "load_chip", "presets",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AdcSpec",
    "AimcError",
    "AnalogMatrix",
    "CapacityError",
    "Chip",
    "ChipSpec",
    "DacSpec",
    "DeviceSpec",
    "Estimate",
    "FaultSpec",
    "InputError",
    "MappedMatrix",
    "TileSpec",
    "UsageError",
    "WireSpec",
    "WriteSpec",
    "cite",
    "effective_bits",
    "load_chip",
    "load_matrix",
    "map_matrix",
    "mvm_error",
    "predict",
    "presets",
]


class _Package(ModuleType):
    """The package itself: importing aimc_sim.presets leaves aimc_sim.presets the function."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (isinstance(value, ModuleType) and name in _HOME_OF):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    # numba and pydantic take most of a second to import: only what is asked for is loaded
    if name not in _HOME_OF:
        raise AttributeError(f"module 'aimc_sim' has no attribute '{name}'")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
