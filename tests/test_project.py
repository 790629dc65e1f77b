"""What the project promises as a whole: texts that run, presets with sources, lazy imports."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import aimc_sim as aimc

ROOT = Path(__file__).parent.parent
MARKDOWN = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docs/how-to/*.md")])


def blocks(language: str) -> list[str]:
    """Return the README's fenced blocks of a language."""
    text = (ROOT / "README.md").read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def run_python(code: str) -> str:
    """Run code in a new interpreter at the project's root and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_chip_file_of_the_readme_is_read(tmp_path):
    path = tmp_path / "my-chip.toml"
    path.write_text(blocks("toml")[0], "utf-8")
    spec = aimc.load_chip(path)
    assert spec.device.g_max_s == pytest.approx(50e-6)
    assert spec.adc.bits == 6
    assert spec.device.read_noise.spectrum == "white"


def test_the_example_of_a_chip_file_is_read_and_its_map_of_faults_fits(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "chip-files.md").read_text("utf-8").split("## An example")[1]
    (chip,) = re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    Path("example.toml").write_text(chip, "utf-8")
    exec(code, {})  # writes faults.npz
    spec = aimc.load_chip("example.toml").replace(faults={"map": "faults.npz"})
    matrix = aimc.map_matrix(np.ones((100, 60)), spec).program(seed=0)
    faults = matrix.chip.written.faults
    # one cell in a hundred of 100 x 60 pairs of two digits
    assert (faults == 2).mean() == pytest.approx(0.01, abs=5 * (0.01 / faults.size) ** 0.5)


def test_the_page_of_chip_files_lists_every_constant_and_node_of_costs(tmp_path):
    from aimc_sim.circuits import NODE_FACTORS
    from aimc_sim.costs import constants

    page = (ROOT / "docs" / "chip-files.md").read_text("utf-8")
    section = page.split("## `[costs]`")[1].split("## `[device]`")[0]
    rows = re.findall(r"^\| (`.*?) \|.*$", section, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named == set(aimc.CostSpec.model_fields)
    (nodes,) = re.findall(r"^\| `node_nm` .*: ([\d, ]+ or \d+) \|$", section, re.MULTILINE)
    assert [float(text) for text in re.findall(r"\d+", nodes)] == list(NODE_FACTORS)
    (chip,) = re.findall(r"^```toml\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    (tmp_path / "own-adc.toml").write_text(chip, "utf-8")
    adc_j = constants(aimc.load_chip(tmp_path / "own-adc.toml"))["adc_j"]
    assert adc_j == (0.3e-12, "J", "the chip")


@pytest.mark.parametrize("name", aimc.presets())
def test_every_preset_names_its_source_or_says_that_it_is_none(name):
    device = aimc.ChipSpec.preset(name).device
    assert device.doi or device.cite or any("not a device" in line for line in device.caveats)
    assert all(re.fullmatch(r"10\.\d{4,}/\S+", doi) for doi in device.doi)
    assert device.description


@pytest.mark.parametrize("package", ["aimc_sim", "ssm"])
def test_importing_a_package_loads_nothing_heavy(package):
    heavy = ["torch", "numba", "numpy", "scipy", "pydantic", "matplotlib", "rich"]
    code = f"import sys, {package}; print([name for name in {heavy} if name in sys.modules])"
    assert run_python(code).strip() == "[]"


@pytest.mark.parametrize("package", ["aimc_sim", "ssm"])
def test_every_public_name_can_be_reached(package):
    code = f"import {package} as p; print([n for n in p.__all__ if getattr(p, n) is None])"
    assert run_python(code).strip() == "[]"


def test_functions_stay_functions_where_a_module_has_their_name():
    code = (
        "import aimc_sim, ssm, ssm.deploy, ssm.quantize, ssm.train; aimc_sim.presets();"
        "print([f for f in (aimc_sim.presets, ssm.deploy, ssm.quantize, ssm.train)"
        " if not hasattr(f, '__code__')])"
    )
    assert run_python(code).strip() == "[]"


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: path.name)
def test_links_of_the_texts_lead_somewhere(path):
    text = path.read_text("utf-8")
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    files = [link for link in links if not link.startswith(("http://", "https://"))]
    # pages that the build makes are held to their links in test_docs_build.py
    made = [ROOT / "docs" / name for name in ("notebooks", "project", "reference")]
    found = [(link, (path.parent / link).resolve()) for link in files]
    lost = [link for link, file in found if not (file.exists() or set(made) & set(file.parents))]
    assert lost == []


def test_architecture_names_every_module_and_no_other():
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    tree = text.split("```")[1]
    said = set(re.findall(r"\b\w+\.py\b", tree))
    packages = ("aimc_sim", "ssm", "calibration", "examples", "docs")
    there = {path.name for name in packages for path in (ROOT / name).rglob("*.py")}
    assert there - said == {"__init__.py"}
    assert said - there == set()


def test_version_is_the_same_wherever_it_is_said():
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert f"version: {aimc.__version__}\n" in citation
    assert f"## {aimc.__version__}" in changelog


def test_every_dependency_has_its_reason():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    reasons = (ROOT / "CONTRIBUTING.md").read_text("utf-8").split("## Dependencies")[1]
    names = [re.split(r"[<>=]", entry)[0] for entry in project["dependencies"]]
    assert [name for name in names if name not in reasons] == []


@pytest.mark.compiled
def test_the_readme_shows_what_the_demo_prints(capsys):
    """The same lines; accuracies within 1.5 points, since float32 rounds as the processor does."""
    from typer.testing import CliRunner

    from aimc_sim.cli.main import app

    text = (ROOT / "README.md").read_text("utf-8")
    shown = text.split("<!-- demo:begin -->")[1].split("```text\n")[1].split("\n```")[0]
    model = ROOT / "examples" / "models" / "s4d-digits.pt"
    printed = CliRunner().invoke(app, ["run", str(model), "--quiet"]).stdout
    numbers = re.compile(r"[0-9]+(?:\.[0-9]+)?")
    pairs = list(zip(shown.splitlines(), printed.rstrip().splitlines(), strict=False))
    for old, new in pairs[:-3]:
        assert numbers.sub("#", old).split() == numbers.sub("#", new).split()
        if " % " in old and "chip" in old:
            accuracies = [float(numbers.findall(line.replace("0 s", "").replace("1 h", "")
                          .replace("1 d", ""))[0]) for line in (old, new)]
            assert accuracies[0] == pytest.approx(accuracies[1], abs=1.5)
