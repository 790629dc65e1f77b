"""A small model and data for the command line, and a way to call it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

# foreign checkpoints and small models are made by helpers of the front-end's tests
sys.path.insert(0, str(Path(__file__).parents[1] / "ssm"))


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with tiny.pt (one feature, three classes) and data.npz (20 labelled sequences)."""
    from small_models import random_model

    from ssm.checkpoint import save

    folder = tmp_path_factory.mktemp("files")
    model = random_model(seed=3, n_heads=4, n_modes=3, longest=0.98)
    save(model, folder / "tiny.pt")
    x = np.random.default_rng(1).random((20, 12, 1)).astype(np.float32)
    y = model.logits(x).argmax(axis=1)
    y[:2] = (y[:2] + 1) % 3  # so that 90 % is right
    np.savez(folder / "data.npz", x=x, y=y)
    np.savez(folder / "unlabelled.npz", x=x)
    return folder


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Call `aimc-sim` in an empty folder; the result has exit_code, stdout and stderr."""
    from aimc_sim.cli.main import app

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def call(*arguments: object, code: int = 0) -> Any:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    return call


@pytest.fixture
def run_json(cli: Callable[..., Any], files: Path) -> Callable[..., dict[str, Any]]:
    """Run the tiny model on its data, and return the JSON of stdout."""

    def call(*arguments: object) -> dict[str, Any]:
        result = cli(
            "run", files / "tiny.pt", "--data", files / "data.npz", "--json", "-", *arguments
        )
        record: dict[str, Any] = json.loads(result.stdout)
        return record

    return call
