"""Who types `aimc-sim` alone, or presses Tab, is shown the way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aimc_sim.cli.main import app

ROOT = Path(__file__).parent.parent.parent


def complete(words: str) -> list[str]:
    """Return what bash would offer for the last of the words typed."""
    at = words.count(" ")
    env = {
        **os.environ, "PYTHONPATH": str(ROOT), "_AIMC_SIM_COMPLETE": "complete_bash",
        "COMP_WORDS": words, "COMP_CWORD": str(at),
    }
    done = subprocess.run(
        [sys.executable, "-c", "from aimc_sim.cli.main import main; main()"],
        env=env, capture_output=True, text=True, check=False,
    )
    return done.stdout.split()


def test_without_arguments_the_first_steps_are_shown():
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 2
    assert "aimc-sim run MODEL" in result.output
    assert "examples/models/s4d-digits.pt" in result.output
    assert (ROOT / "examples" / "models" / "s4d-digits.pt").is_file()


@pytest.mark.parametrize("command", ["run", "map", "device", "calibrate", "train", "sweep"])
def test_a_command_without_what_it_needs_names_it(command):
    result = CliRunner().invoke(app, [command])
    assert result.exit_code == 2
    assert "Missing argument" in result.output
    assert f"Try 'aimc-sim {command} -h' for help." in result.output


def test_commands_and_options_are_completed():
    assert complete("aimc-sim pr") == ["presets", "prune"]
    assert complete("aimc-sim run --ch") == ["--chip", "--chips"]


def test_values_that_are_known_are_completed_and_files_are_left_to_the_shell():
    assert complete("aimc-sim run --chip pcm-h") == ["pcm-hermes2023-1dev", "pcm-hermes2023-2dev"]
    assert complete("aimc-sim calibrate re") == ["relaxation", "read-noise"]
    assert complete("aimc-sim run --chip ./my") == []


def test_completion_can_be_installed():
    result = CliRunner().invoke(app, ["--show-completion", "bash"], prog_name="aimc-sim")
    assert result.exit_code == 0
    assert "_AIMC_SIM_COMPLETE=complete_bash" in result.output
