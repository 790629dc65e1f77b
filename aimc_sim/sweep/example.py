"""A task function that shows what one looks like: a throw of a die."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any


def throw(task: Mapping[str, Any]) -> dict[str, float]:
    """Return the points of a die of `sides` sides, the same for the same `draw`."""
    digest = hashlib.sha256(f"{task['sides']} {task['draw']}".encode()).digest()
    return {"points": float(int.from_bytes(digest[:8]) % task["sides"] + 1)}
