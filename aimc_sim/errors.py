"""Errors that a user can act on: what was asked, what was found, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def _sentence(text: str) -> str:
    text = text.strip()
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "?", "!")) else text + "."


class AimcError(Exception):
    """A mistake of the caller or of his files, said in three parts.

    Parameters
    ----------
    asked : what was asked ("run model.pt on chip 'pcm'").
    found : what was found instead ("no preset has that name").
    do : what to do next ("choose one of: ideal, pcm-nandakumar2019").

    Attributes
    ----------
    exit_code : what the command line returns: 1 a defect of this program, 2 wrong usage,
        3 unreadable or wrong input, 4 does not fit the chip or the memory.
    """

    exit_code = 3

    def __init__(self, asked: str, found: str, do: str) -> None:
        self.asked, self.found, self.do = asked, found, do
        super().__init__(" ".join(_sentence(part) for part in (asked, found, do)))

    def __reduce__(self) -> tuple[type[AimcError], tuple[str, str, str]]:
        return type(self), (self.asked, self.found, self.do)


class UsageError(AimcError):
    """The call or its options make no sense (exit code 2)."""

    exit_code = 2


class InputError(AimcError):
    """A file is missing, unreadable or says something impossible (exit code 3)."""

    exit_code = 3


class CapacityError(AimcError):
    """The model does not fit the chip, or the run does not fit the memory (exit code 4)."""

    exit_code = 4


class DefectError(AimcError):
    """Something failed that should not: a defect of this program (exit code 1)."""

    exit_code = 1


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate most like `word`, or None where none is near."""
    matches = difflib.get_close_matches(word, list(candidates), n=1, cutoff=0.5)
    return matches[0] if matches else None
