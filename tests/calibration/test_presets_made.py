"""Presets that were fitted to measured data are what their commands make of these data."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import aimc_sim
from aimc_sim.cli.main import app
from aimc_sim.specs import ChipSpec

pytestmark = pytest.mark.compiled

FOLDER = Path(aimc_sim.__file__).parent / "presets"
PARTS = ("programming", "relaxation", "read_noise", "telegraph")


def commands(name: str) -> list[list[str]]:
    lines = (FOLDER / f"{name}.toml").read_text("utf-8").splitlines()
    return [shlex.split(line[2:])[1:] for line in lines if line.startswith("# aimc-sim calibrate")]


def flat(value: object) -> list[object]:
    """Return the leaves of a record, in order."""
    if isinstance(value, dict):
        return [leaf for key in sorted(value) for leaf in (key, *flat(value[key]))]
    if isinstance(value, (list, tuple)):
        return [leaf for item in value for leaf in flat(item)]
    return [value]


@pytest.mark.parametrize("name", ["rram-levy-b", "rram-readc"])
def test_the_commands_of_a_preset_make_it_again(
    name: str, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("rram-relaxation", "readc"):
        (tmp_path / folder).symlink_to(shared / "data" / "devices" / folder)
    monkeypatch.chdir(tmp_path)
    assert commands(name)
    for command in commands(name):
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
    made = ChipSpec.from_toml(f"{name}.toml").device
    kept = ChipSpec.preset(name).device
    assert (made.g_min_s, made.g_max_s) == pytest.approx((kept.g_min_s, kept.g_max_s))
    for part in PARTS:
        assert (getattr(made, part) is None) == (getattr(kept, part) is None)
        if getattr(kept, part) is None:
            continue
        ours, theirs = (flat(getattr(card, part).model_dump()) for card in (made, kept))
        numbers = [isinstance(leaf, float) for leaf in theirs]
        assert [x for x, n in zip(ours, numbers, strict=True) if not n] == [
            x for x, n in zip(theirs, numbers, strict=True) if not n]
        # other machines round otherwise on the way to a maximum, far below a standard error
        np.testing.assert_allclose(
            [x for x, n in zip(ours, numbers, strict=True) if n],
            [x for x, n in zip(theirs, numbers, strict=True) if n], rtol=1e-3, atol=1e-6,
        )
    for line in kept.provenance:
        assert "sha256" in line and "aimc-sim calibrate" in line
