"""A campaign: the axes that it runs over, and a task for every combination of their values."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from aimc_sim.errors import UsageError
from aimc_sim.sweep.tasks import Task

Value = float | int | str | bool


@dataclass(frozen=True)
class Axis:
    """A dimension of a campaign.

    values : one for every position, numbers or texts. unit : in SI, "1" where there is none.
    repeats : positions differ in their draws alone (chips, seeds), so that a mean over them and
        its confidence interval mean something.
    along : further quantities that go with the positions: name -> (values, unit).
    """

    name: str
    values: tuple[Value, ...]
    unit: str = "1"
    repeats: bool = False
    along: Mapping[str, tuple[tuple[Value, ...], str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        asked = f"sweep {self.name}"
        if not self.values:
            raise UsageError(asked, "it has no values", "give at least one")
        if len(set(self.values)) < len(self.values):
            twice = next(v for k, v in enumerate(self.values) if v in self.values[:k])
            raise UsageError(asked, f"it has {twice!r} twice", "give every value once")


@dataclass(frozen=True, eq=False)
class Campaign:
    """Tasks over the combinations of axes, the last axis fastest.

    name : what a person calls it. axes : the dimensions of the results. tasks : one for every
    combination, in that order; tasks that compute the same may appear more than once and run
    once. outputs : name -> unit of what a task returns; the first is what `until` looks at.
    facts : what holds for all tasks, for the attributes of the results.
    """

    name: str
    axes: tuple[Axis, ...]
    tasks: tuple[Task, ...]
    outputs: Mapping[str, str]
    facts: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        asked = f"run the sweep '{self.name}'"
        names = [name for axis in self.axes for name in (axis.name, *axis.along)]
        names += self.outputs
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise UsageError(asked, f"it has two quantities '{twice}'", "give each its own name")
        if not self.outputs:
            raise UsageError(asked, "its tasks return nothing", "name at least one output")
        if not self.tasks:
            raise UsageError(asked, "it has no tasks", "give every axis at least one value")
        if math.prod(self.shape) != len(self.tasks):
            raise UsageError(
                asked, f"it has {len(self.tasks)} tasks for {math.prod(self.shape)} combinations",
                "give one task for every combination, the last axis fastest",
            )

    def __repr__(self) -> str:
        axes = ", ".join(f"{axis.name} {len(axis.values)}" for axis in self.axes)
        return f"sweep '{self.name}' of {len(self.tasks)} tasks ({axes or 'no axes'})"

    @property
    def shape(self) -> tuple[int, ...]:
        """Positions of every axis."""
        return tuple(len(axis.values) for axis in self.axes)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the names of all tasks in their order."""
        return hashlib.sha256(" ".join(task.name for task in self.tasks).encode()).hexdigest()[:32]

    @classmethod
    def grid(
        cls,
        function: str,
        axes: Mapping[str, Sequence[Value]],
        *,
        outputs: Mapping[str, str],
        fixed: Mapping[str, Any] | None = None,
        repeats: Collection[str] = (),
        units: Mapping[str, str] | None = None,
        name: str = "sweep",
    ) -> Campaign:
        """Return the campaign of all combinations of values, each given to a function by name.

        Parameters
        ----------
        function : "module:name", called with one mapping: fixed, and a value of every axis.
        axes : name -> values; a call gets one of each under that name.
        outputs : what the function returns: name -> unit.
        fixed : the same for all tasks. repeats : axes that differ in their draws alone.
        units : of axes.

        Raises UsageError for an empty grid, a value given twice, or an unknown axis.

        Examples
        --------
        >>> two = Campaign.grid("m:f", {"x": [1, 2], "draw": [0, 1, 2]}, outputs={"y": "1"})
        >>> two.shape, [dict(task.what) for task in two.tasks[:2]]
        ((2, 3), [{'x': 1, 'draw': 0}, {'x': 1, 'draw': 1}])
        """
        unknown = {*repeats, *(units or {})} - set(axes)
        if unknown:
            raise UsageError(
                f"sweep over {', '.join(axes) or 'nothing'}",
                f"'{min(unknown)}' is none of these", "name axes of the grid",
            )
        made = tuple(
            Axis(key, tuple(values), (units or {}).get(key, "1"), key in repeats)
            for key, values in axes.items()
        )
        tasks = tuple(
            Task(function, {**(fixed or {}), **dict(zip(axes, point, strict=True))})
            for point in itertools.product(*axes.values())
        )
        return cls(name, made, tasks, outputs)
