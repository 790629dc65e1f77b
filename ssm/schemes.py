"""Scheme: how each kind of weight becomes integers, beside the bits that `Precision` gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from aimc_sim.errors import UsageError, nearest
from ssm.poles import BOUNDED, check_form_of_a

WEIGHTS = ("a", "b", "c", "d", "mix", "enc", "dec")
METHODS = ("min-max", "percentile", "ternary", "lsq")
PER = ("tensor", "channel", "mode")
SIDES = ("symmetric", "asymmetric")


class Choice(NamedTuple):
    """How one array is rounded: a method, what shares a range, the sides of the grid."""

    method: str = "min-max"
    per: str = "channel"
    sides: str = "symmetric"
    percentile: float = 99.9


@dataclass(frozen=True)
class Scheme:
    """How weights become integers.

    Every choice is a word for all weights that can have it, or words by weight, such as
    ``{"c": "ternary", "mix": "ternary"}`` or the text ``c=ternary,mix=ternary``.

    Parameters
    ----------
    form_of_a : coordinates in which A is rounded, of `ssm.poles.FORMS_OF_A`.
    method : "min-max" (the largest weight ends the grid), "percentile", "ternary" (-s, 0, s:
        Li et al., doi:10.48550/arXiv.1605.04711; bits are 2) or "lsq" (learned steps: Esser et
        al., doi:10.48550/arXiv.1902.08153; in training alone). A knows "min-max".
    per : what shares a range: "tensor", "channel" (a column of a matrix, a head of A, B, C) or
        "mode" (A, B, C: a power of two for each, a shift in logic). D has one range.
    sides : "symmetric" about 0, or "asymmetric" with a zero of its own (of A in Cartesian and
        delta form).
    percentile : of |w| that ends the grid, for that method.

    Raises UsageError for words that are unknown or mean nothing for a weight.

    Examples
    --------
    >>> Scheme(method="c=ternary,mix=ternary").of("c").method
    'ternary'
    >>> Scheme(method={"a": "ternary"})
    Traceback (most recent call last):
        ...
    aimc_sim.errors.UsageError: Use method 'ternary' for a. It has no meaning there. \
Choose one of min-max.
    """

    form_of_a: str = "log-polar"
    method: str | Mapping[str, str] = "min-max"
    per: str | Mapping[str, str] = "channel"
    sides: str | Mapping[str, str] = "symmetric"
    percentile: float = 99.9
    _choices: Mapping[str, Choice] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )

    def __post_init__(self) -> None:
        check_form_of_a(self.form_of_a)
        if not 50.0 < self.percentile <= 100.0:
            raise UsageError(
                f"use percentile {self.percentile}", "most weights would be clipped",
                "give more than 50 and at most 100",
            )
        method = self._by_weight("method", METHODS, "min-max")
        per = self._by_weight("per", PER, "channel")
        sides = self._by_weight("sides", SIDES, "symmetric")
        choices = {
            name: Choice(method[name], per[name], sides[name], self.percentile) for name in WEIGHTS
        }
        for name, choice in choices.items():
            if choice.sides == "asymmetric" and choice.method in ("ternary", "lsq"):
                raise UsageError(
                    f"use method '{choice.method}' with an asymmetric grid for {name}",
                    "its steps are those of a symmetric grid", "choose symmetric, or min-max",
                )
            if choice.per == "mode" and (choice.method != "min-max"
                                         or choice.sides == "asymmetric"):
                raise UsageError(
                    f"use a power of two for each mode of {name} with {choice.method}, "
                    f"{choice.sides}", "that scale is found from the largest weight",
                    "choose min-max and symmetric, or a range per channel",
                )
        object.__setattr__(self, "_choices", choices)

    def of(self, name: str) -> Choice:
        """Return how the weight `name` of WEIGHTS is rounded."""
        return self._choices[name]

    def _by_weight(self, option: str, known: tuple[str, ...], default: str) -> dict[str, str]:
        """Return the word of every weight."""
        given = getattr(self, option)
        if isinstance(given, str) and "=" in given:
            given = _read_words(option, given)
        if isinstance(given, str):
            _check_word(option, given, known)
            return {
                name: given if given in self._allowed(option, name) else default
                for name in WEIGHTS
            } | ({"d": "tensor"} if option == "per" else {})
        words = dict.fromkeys(WEIGHTS, default) | ({"d": "tensor"} if option == "per" else {})
        for name, word in given.items():
            if name not in WEIGHTS:
                guess = nearest(name, WEIGHTS)
                raise UsageError(
                    f"use {option} '{word}' for {name}", f"there is no weight '{name}'",
                    (f"did you mean '{guess}'? " if guess else "")
                    + f"known are {', '.join(WEIGHTS)}",
                )
            _check_word(option, word, known)
            allowed = self._allowed(option, name)
            if word not in allowed:
                raise UsageError(
                    f"use {option} '{word}' for {name}", "it has no meaning there",
                    f"choose one of {', '.join(allowed)}",
                )
            words[name] = word
        return words

    def _allowed(self, option: str, name: str) -> tuple[str, ...]:
        """Return the words that mean something for a weight."""
        if option == "method":
            return ("min-max",) if name == "a" else METHODS
        if option == "sides":
            return SIDES if name != "a" or self.form_of_a not in BOUNDED else ("symmetric",)
        if name == "d":
            return ("tensor",)
        if name in ("mix", "enc", "dec") or (
            name == "a" and self.form_of_a in ("polar", "log-polar")
        ):
            return ("tensor", "channel")
        return PER


def _read_words(option: str, text: str) -> dict[str, str]:
    """Return the mapping that text such as ``c=ternary,mix=lsq`` stands for."""
    words: dict[str, str] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, _, word = (piece.strip() for piece in item.partition("="))
        if name in words or not word:
            raise UsageError(
                f"read {option} '{text}'",
                f"it gives '{name}' {'twice' if name in words else 'no word'}",
                "write each weight once, for example c=ternary,mix=ternary",
            )
        words[name] = word
    return words


def _check_word(option: str, word: str, known: tuple[str, ...]) -> None:
    if word not in known:
        guess = nearest(word, known)
        raise UsageError(
            f"use {option} '{word}'", f"there is no such {option}",
            (f"did you mean '{guess}'? " if guess else "") + f"choose one of {', '.join(known)}",
        )
