"""Notebooks carry their outputs, are small, and run from top to bottom."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


@pytest.fixture(scope="module")
def nbformat():
    return pytest.importorskip("nbformat", reason="notebooks are read by nbformat: '.[docs]'")


def test_there_are_three_and_they_are_small_together():
    assert len(NOTEBOOKS) >= 3
    assert sum(path.stat().st_size for path in NOTEBOOKS) < 300_000


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_committed_executed_and_without_errors(path, nbformat):
    cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    kinds = {output.output_type for cell in cells for output in cell.outputs}
    assert "error" not in kinds and "display_data" in kinds
    texts = "".join(str(output.get("text", "")) for cell in cells for output in cell.outputs)
    assert str(Path.home()) not in texts and "Warning" not in texts


@pytest.mark.compiled
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_runs_and_prints_as_many_lines(path, nbformat, tmp_path, monkeypatch):
    client = pytest.importorskip("nbclient", reason="notebooks are run by nbclient: '.[docs]'")
    pytest.importorskip("ipykernel", reason="notebooks need a kernel: '.[docs]'")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *sys.path]))
    shutil.copytree(ROOT / "examples" / "models", tmp_path / "models")
    found = nbformat.read(path, 4)
    resources = {"metadata": {"path": str(tmp_path)}}
    client.NotebookClient(found, timeout=300, resources=resources).execute()

    def lines(notebook):
        # of every cell: a busy kernel sends its lines in one piece or in several
        return [
            sum(
                len(output.text.splitlines()) for output in cell.outputs
                if output.output_type == "stream" and output.name == "stdout"
            )
            for cell in notebook.cells if cell.cell_type == "code"
        ]

    assert lines(found) == lines(nbformat.read(path, 4))
