"""What a chip of another simulator became here, and every setting that did not come along."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from aimc_sim.specs import ChipSpec

Fate = Literal["dropped", "changed", "defect", "training"]
_MEANING = {
    "dropped": "no counterpart",
    "changed": "taken as something else",
    "defect": "a defect of the peer",
    "training": "acts in training alone",
}
_LONGEST = 60  # characters of a value in a remark


@dataclass(frozen=True)
class Remark:
    """One setting that has no exact counterpart on the other side.

    setting : its path there, such as "forward.ir_drop". value : as text.
    fate : "dropped" (no counterpart: it has no effect), "changed" (the nearest that there is),
        "defect" (the peer does something else than it says), "training" (no effect on inference).
    why : what is different, in words.
    """

    setting: str
    value: str
    fate: Fate
    why: str

    def __str__(self) -> str:
        return f"{self.setting} = {self.value}: {_MEANING[self.fate]}; {self.why}"


@dataclass(frozen=True)
class Imported:
    """A chip of another simulator as a spec: `chip`, and `remarks` on what is different."""

    chip: ChipSpec
    remarks: tuple[Remark, ...] = ()

    def __str__(self) -> str:
        return listed(f"chip '{self.chip.name}'", self.remarks)

    def of_fate(self, fate: Fate) -> tuple[Remark, ...]:
        """Return the remarks of one fate."""
        return tuple(remark for remark in self.remarks if remark.fate == fate)


Value = TypeVar("Value")


@dataclass(frozen=True)
class Exported(Generic[Value]):
    """An object of another simulator, `value`, and `remarks` on what it cannot say."""

    value: Value
    remarks: tuple[Remark, ...] = ()

    def __str__(self) -> str:
        return listed(type(self.value).__name__, self.remarks)


@dataclass
class Notes:
    """Remarks as they come up, each once."""

    found: dict[tuple[str, str], Remark] = field(default_factory=dict)

    def add(self, setting: str, value: Any, fate: Fate, why: str) -> None:
        """Take down that a setting with this value has no exact counterpart."""
        text = f"{value:.6g}" if isinstance(value, float) else " ".join(str(value).split())
        if len(text) > _LONGEST:
            text = text[: _LONGEST - 3] + "..."
        self.found[setting, fate] = Remark(setting, text, fate, why)

    def rest(self, of: Mapping[str, Any], handled: Iterable[str], prefix: str, why: str) -> None:
        """Take down what nobody asked for: values of a mapping under names not in `handled`."""
        known = set(handled)
        for name, value in of.items():
            if name not in known:
                self.add(f"{prefix}{name}", value, "dropped", why)

    def all(self) -> tuple[Remark, ...]:
        """Return the remarks in the order in which they came up."""
        return tuple(self.found.values())

    def say(self, what: str) -> tuple[Remark, ...]:
        """Return the remarks; a warning names those that were dropped."""
        lost = [remark for remark in self.all() if remark.fate == "dropped"]
        if lost:
            warnings.warn(
                f"{what}: {_count(lost, 'setting')} without a counterpart and without effect: "
                + "; ".join(f"{remark.setting} = {remark.value}" for remark in lost),
                stacklevel=3,
            )
        return self.all()


def listed(what: str, remarks: tuple[Remark, ...]) -> str:
    """Return remarks as text, one a line."""
    head = f"{what}, {_count(remarks, 'remark')}" + (":" if remarks else "")
    return "\n".join([head, *(f"  {remark}" for remark in remarks)])


def _count(things: Sequence[Remark], word: str) -> str:
    return f"{len(things) or 'no'} {word}" + ("" if len(things) == 1 else "s")
