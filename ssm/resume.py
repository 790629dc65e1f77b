"""Files from which a training that was stopped goes on as if it had not been."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from aimc_sim.errors import InputError, UsageError

SCHEMA = "aimc-sim.training/1"


def write_state(path: Path, belongs_to: str, state: Mapping[str, Any]) -> None:
    """Write the state of a training to `path`, whole or not at all.

    belongs_to : hash of models, data and settings. state : tensors, numbers and their containers.

    Raises UsageError where the system refuses.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        torch.save({"schema": SCHEMA, "belongs_to": belongs_to, **state}, aside)
        os.replace(aside, path)
    except (OSError, RuntimeError) as error:
        raise UsageError(
            f"keep the state of the training in {path}", f"the system refuses ({error})",
            "choose a place that can be written",
        ) from error
    finally:
        aside.unlink(missing_ok=True)


def read_state(path: Path, belongs_to: str, device: torch.device) -> dict[str, Any] | None:
    """Return the state that `write_state` left, None where there is no such file.

    Raises InputError for another file, and for one of another training.
    """
    asked = f"go on with the training in {path}"
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # a damaged file fails in many ways
        raise InputError(
            asked, "it is damaged or holds no training", "name another file, or a new one"
        ) from error
    if not isinstance(state, dict) or state.get("schema") != SCHEMA:
        raise InputError(asked, f"it is no {SCHEMA}", "name another file, or a new one")
    if state["belongs_to"] != belongs_to:
        raise InputError(
            asked, "it belongs to a training of other models, data or settings",
            "use the same ones, or name another file",
        )
    return state
