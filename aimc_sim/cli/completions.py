"""What the Tab key offers for the values of options; nothing heavy is imported for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

Offer = Callable[[str], list[str]]  # from what is typed so far to what may follow


def offer(*words: str) -> Offer:
    """Return what offers the words that begin as typed."""

    def matching(incomplete: str) -> list[str]:
        return [word for word in words if word.startswith(incomplete)]

    return matching


def offer_presets(incomplete: str) -> list[str]:
    """Return the presets that begin as typed; where none does, shells offer files."""
    folder = Path(__file__).parents[1] / "presets"
    return offer(*sorted(path.stem for path in folder.glob("*.toml")))(incomplete)
