"""One task of a campaign: its name, and the attempt at it in whatever process runs it."""

from __future__ import annotations

import hashlib
import json
import math
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from typing import Any

from aimc_sim import __version__
from aimc_sim.errors import CapacityError, InputError, UsageError

_NAME_LENGTH = 32  # hexadecimal digits: 128 bits
_TRACE_LINES = 12  # of a traceback that are kept
_OURS = {kind.__name__ for kind in (CapacityError, InputError, UsageError)}  # they say it all


@dataclass(frozen=True, eq=False)
class Task:
    """A call of the campaign's function.

    function : "module:name". It is called with one mapping, `what` and `where` together, and
        returns a number (or None) for every output of the campaign.
    what : everything that changes the result, as JSON values: numbers, texts, hashes of files.
    where : what the function needs beside that and what changes no result, such as the paths of
        the files whose hashes `what` holds.
    """

    function: str
    what: Mapping[str, Any]
    where: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def name(self) -> str:
        """A hash of the function, of what it is called with, and of the package's version."""
        content = {"function": self.function, "version": __version__, "what": dict(self.what)}
        text = json.dumps(content, sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:_NAME_LENGTH]


@dataclass(frozen=True)
class Outcome:
    """What came of a task: values by output, or the error that ended it.

    error : {"type", "message", "trace"}, None where the task ended well.
    """

    task: str
    values: Mapping[str, float | None] | None
    error: Mapping[str, str] | None
    wall_s: float

    def record(self) -> dict[str, Any]:
        """Return the outcome as plain values; numbers that JSON lacks become text."""
        values = self.values
        return {
            "task": self.task,
            "values": None if values is None else {k: _to_json(v) for k, v in values.items()},
            "error": None if self.error is None else dict(self.error),
            "wall_s": self.wall_s,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Outcome:
        """Return the outcome that `record` made."""
        values = record["values"]
        if values is not None:
            values = {key: None if v is None else float(v) for key, v in values.items()}
        return cls(record["task"], values, record["error"], record["wall_s"])


def _to_json(value: float | None) -> float | str | None:
    return value if value is None or math.isfinite(value) else str(value)


def find_function(path: str) -> Callable[[dict[str, Any]], Mapping[str, Any]]:
    """Return the function that "module:name" names.

    Raises UsageError where there is none.
    """
    module, _, name = path.partition(":")
    try:
        found: Callable[[dict[str, Any]], Mapping[str, Any]] = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(
            f"call the task function '{path}'", f"it cannot be imported ({error})",
            'name it "module:function", in a module that every worker can import',
        ) from None
    return found


def attempt(task: Task, outputs: tuple[str, ...], version: str = __version__) -> Outcome:
    """Return what came of a task; whatever goes wrong in it becomes the outcome's error.

    This is what workers run. outputs : names that the function must return, no more and no less.
    version : of the package that named the task, which must be the worker's.
    """
    begun = time.perf_counter()
    values, failed = None, None
    try:
        if version != __version__:
            raise UsageError(
                f"run a task of aimc-sim {version}", f"this worker has aimc-sim {__version__}",
                "install the same version on every worker",
            )
        values = _check_values(find_function(task.function)({**task.what, **task.where}), outputs)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a task that calls exit() is a failed task, not our end
        failed = describe_error(error)
    return Outcome(task.name, values, failed, time.perf_counter() - begun)


def describe_error(error: BaseException) -> dict[str, str]:
    """Return type, message and the end of the traceback of an error, as text."""
    trace = "".join(traceback.format_exception(error)).splitlines()[-_TRACE_LINES:]
    return {"type": type(error).__name__, "message": str(error), "trace": "\n".join(trace)}


def _check_values(found: Any, outputs: tuple[str, ...]) -> dict[str, float | None]:
    if not isinstance(found, Mapping) or set(found) != set(outputs):
        what = f"it returned {', '.join(map(str, found))}" if isinstance(found, Mapping) else (
            f"it returned a {type(found).__name__}"
        )
        raise UsageError(
            "keep what a task found", what,
            f"return a mapping with a number or None for each of {', '.join(outputs)}",
        )
    return {name: None if found[name] is None else float(found[name]) for name in outputs}


def failure_text(error: Mapping[str, str]) -> str:
    """Return an error of an outcome as one line."""
    kind = error["type"]
    text = " ".join(error["message"].split())
    if not text:
        return kind
    return text if kind in _OURS else f"{kind}: {text}"
