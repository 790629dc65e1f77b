"""State-space models for analog chips: load, quantise, deploy, run step by step.

>>> import ssm
>>> callable(ssm.load)
True
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssm.campaign import read_campaign
    from ssm.checkpoint import load, save
    from ssm.chip_layer import ChipLayer, on_chip
    from ssm.deploy import Deployment, deploy
    from ssm.inference import ProgrammedModel, Run, StreamState, set_threads
    from ssm.model import Layer, Model
    from ssm.prune import prune
    from ssm.pruning_report import PruningReport, report_pruning
    from ssm.quantize import Precision, quantize
    from ssm.schemes import Scheme
    from ssm.storage import load_chip
    from ssm.tasks import Task, load_task
    from ssm.train import start_models, train
    from ssm.tune import fine_tune

PROJECT = "aimc-sim"  # by which the command line knows this package from another named ssm

_HOME_OF = {
    "read_campaign": "campaign",
    "load": "checkpoint", "save": "checkpoint",
    "ChipLayer": "chip_layer", "on_chip": "chip_layer",
    "Deployment": "deploy", "deploy": "deploy",
    "ProgrammedModel": "inference", "Run": "inference", "StreamState": "inference",
    "set_threads": "inference",
    "Layer": "model", "Model": "model",
    "prune": "prune",
    "PruningReport": "pruning_report", "report_pruning": "pruning_report",
    "Precision": "quantize", "quantize": "quantize",
    "Scheme": "schemes",
    "load_chip": "storage",
    "Task": "tasks", "load_task": "tasks",
    "start_models": "train", "train": "train",
    "fine_tune": "tune",
}

__all__ = [
    "ChipLayer",
    "Deployment",
    "Layer",
    "Model",
    "Precision",
    "ProgrammedModel",
    "PruningReport",
    "Run",
    "Scheme",
    "StreamState",
    "Task",
    "deploy",
    "fine_tune",
    "load",
    "load_chip",
    "load_task",
    "on_chip",
    "prune",
    "quantize",
    "read_campaign",
    "report_pruning",
    "save",
    "set_threads",
    "start_models",
    "train",
]


class _Package(ModuleType):
    """The package itself: importing the module ssm.deploy leaves ssm.deploy the function."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (isinstance(value, ModuleType) and name in _HOME_OF):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    # torch and numba are slow to import: only the module that is asked for is loaded
    if name not in _HOME_OF:
        raise AttributeError(f"module 'ssm' has no attribute '{name}'")
    value = getattr(import_module(f"ssm.{_HOME_OF[name]}"), name)
    globals()[name] = value  # ssm.train is the function, not the module of that name
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
