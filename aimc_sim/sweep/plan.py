"""Which tasks of a campaign still run, and when enough positions of an axis have been seen."""

from __future__ import annotations

import math
from collections.abc import Iterator

from aimc_sim.sweep.campaign import Campaign
from aimc_sim.sweep.tasks import Outcome, Task

LEAST = 5  # repetitions before an interval is believed: of fewer, the spread is hardly known
_QUANTILE = 0.975  # two-sided 95 %


class Interval:
    """Mean of values that come one by one, and the half-width of its 95 % interval.

    half-width = t s / sqrt(k): s the standard deviation of k values, t Student's quantile with
    k - 1 degrees of freedom.
    """

    def __init__(self) -> None:
        self.k, self.mean, self._squares = 0, 0.0, 0.0

    def add(self, value: float) -> None:
        """Take one more value (Welford's update)."""
        self.k += 1
        step = value - self.mean
        self.mean += step / self.k
        self._squares += step * (value - self.mean)

    @property
    def half_width(self) -> float:
        """Infinite for fewer than two values."""
        if self.k < 2:
            return math.inf
        from scipy.special import stdtrit

        spread = math.sqrt(self._squares / (self.k - 1) / self.k)
        return float(stdtrit(self.k - 1, _QUANTILE)) * spread


class Group:
    """Tasks that differ in their draws alone, in the order of the axes that repeat.

    It has enough at the first k for which the interval of the first k values, whichever ended
    first, is narrow enough; so a result depends neither on who runs the tasks nor on when. Later
    ones may have run meanwhile: they do not count.
    """

    def __init__(self, places: list[int], tasks: list[Task], until: float | None) -> None:
        self.places, self.tasks, self.until = places, tasks, until
        self.seen = 0  # of the tasks, in order
        self.enough = False
        self._interval = Interval()

    def look(self, outcomes: dict[str, Outcome], output: str) -> None:
        """Go on to the next task that has not ended, or to where there are enough."""
        while self.until is not None and not self.enough and self.seen < len(self.tasks):
            outcome = outcomes.get(self.tasks[self.seen].name)
            if outcome is None:
                return
            self.seen += 1
            value = None if outcome.values is None else outcome.values[output]
            if value is None or not math.isfinite(value):
                continue  # a failed task says nothing of the mean
            self._interval.add(value)
            self.enough = self._interval.k >= LEAST and self._interval.half_width <= self.until

    @property
    def counted(self) -> int:
        """How many of the tasks, in order, make the result."""
        return self.seen if self.enough else len(self.tasks)


class Plan:
    """Tasks in the order of the axes, less those that are done or not needed.

    retry : tasks that failed run again.
    """

    def __init__(
        self, campaign: Campaign, outcomes: dict[str, Outcome], until: float | None, retry: bool
    ) -> None:
        self.campaign = campaign
        self.outcomes = {
            name: outcome for name, outcome in outcomes.items()
            if outcome.error is None or not retry
        }
        self._output = next(iter(campaign.outputs))
        self.groups = _make_groups(campaign, until)
        self._of: dict[str, list[Group]] = {}
        for group in self.groups:
            for task in group.tasks:
                self._of.setdefault(task.name, []).append(group)
        known = self._of.keys() & self.outcomes.keys()
        self._missing = self._of.keys() - known
        self.done = len(known)  # in this run or an earlier one
        self.failed = sum(self.outcomes[name].error is not None for name in known)
        for group in self.groups:
            self._look(group)

    def tasks(self) -> Iterator[Task]:
        """Yield the tasks that are to run; whether one still is, is seen when it is asked for."""
        handed = set(self.outcomes)
        for group in self.groups:
            for task in group.tasks:
                if group.enough:
                    break
                if task.name not in handed:
                    handed.add(task.name)
                    yield task

    def take(self, outcome: Outcome) -> None:
        """Note what came of a task."""
        self.outcomes[outcome.task] = outcome
        self.done += 1
        self.failed += outcome.error is not None
        self._missing.discard(outcome.task)
        for group in self._of[outcome.task]:
            self._look(group)

    def _look(self, group: Group) -> None:
        had_enough = group.enough
        group.look(self.outcomes, self._output)
        if group.enough and not had_enough:
            for task in group.tasks:
                if all(other.enough for other in self._of[task.name]):
                    self._missing.discard(task.name)

    @property
    def left(self) -> int:
        """Tasks that are still to end, unless a group has enough before."""
        return len(self._missing)

    def chosen(self) -> dict[int, Outcome]:
        """Return the outcomes that make the result, by position in the campaign's order."""
        return {
            place: self.outcomes[task.name]
            for group in self.groups
            for place, task in list(zip(group.places, group.tasks, strict=True))[: group.counted]
            if task.name in self.outcomes
        }


def _make_groups(campaign: Campaign, until: float | None) -> list[Group]:
    """Return positions that differ along repeating axes alone, group by group."""
    members: dict[tuple[int, ...], list[int]] = {}
    for place in range(len(campaign.tasks)):
        rest, key = place, []
        for axis in reversed(campaign.axes):
            rest, position = divmod(rest, len(axis.values))
            if not axis.repeats:
                key.append(position)
        members.setdefault(tuple(reversed(key)), []).append(place)
    return [
        Group(places, [campaign.tasks[place] for place in places], until)
        for places in members.values()
    ]
