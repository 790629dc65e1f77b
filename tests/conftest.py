"""Fixtures for all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# the same examples at every run: a red test is a change of the code, never of the dice
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.load_profile("fixed")

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of reference data outside the repository; skips where it is not there."""
    folder = Path(os.environ.get("AIMC_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"reference data not found at {folder} (set AIMC_SHARED)")
    return folder


@pytest.fixture(scope="session")
def digits_model() -> Path:
    """The committed demo model."""
    return ROOT / "examples" / "models" / "s4d-digits.pt"
