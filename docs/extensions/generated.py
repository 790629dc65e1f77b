"""Pages made from the code: public names, and what every command of `aimc-sim` takes.

Written into docs/reference/ and docs/notebooks/ before Sphinx looks for pages; git ignores them.
"""

from __future__ import annotations

import importlib
import inspect
import re
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

DOCS = Path(__file__).parent.parent
# modules whose functions are public beside what the packages export
MODULES = {
    "aimc_sim": (
        "aimc_sim.sweep", "aimc_sim.wires", "aimc_sim.costs", "aimc_sim.plotting",
        "aimc_sim.tile_plots", "aimc_sim.sweep_plots", "aimc_sim.interop.aihwkit",
        "aimc_sim.interop.crosssim",
    ),
    "ssm": (
        "ssm.observe", "ssm.compact", "ssm.costs", "ssm.complexity", "ssm.evaluate", "ssm.engine",
        "ssm.fronts",
    ),
    "calibration": (),
}
# where the text of a public constant stands
DATA = {"calibration.KINDS": "calibration.layouts"}
TITLES = {
    "aimc_sim": "aimc_sim: chips and matrices",
    "ssm": "ssm: models on chips",
    "calibration": "calibration: measurements to devices",
}


def public_names(module: ModuleType) -> list[str]:
    """Return what a package exports, or the functions and classes that a module defines."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    if hasattr(module, "_HOME_OF"):
        return sorted(module._HOME_OF)
    return [
        name
        for name, thing in vars(module).items()
        if not name.startswith("_")
        and (inspect.isfunction(thing) or inspect.isclass(thing))
        and thing.__module__ == module.__name__
    ]


def _entry(module: ModuleType, name: str) -> list[str]:
    thing = getattr(module, name)
    where = f"{module.__name__}::{name}"
    if isinstance(thing, ModuleType):
        return []
    if inspect.isclass(thing):
        members = [
            key
            for key, value in vars(thing).items()
            if not key.startswith("_") and inspect.getdoc(value)
            and (inspect.isfunction(value) or isinstance(value, (property, classmethod)))
        ]
        lines = [f".. autoclass:: {where}"]
        if members:
            lines += [f"   :members: {', '.join(members)}"]
        return [*lines, ""]
    if callable(thing):
        return [f".. autofunction:: {where}", ""]
    home = DATA.get(f"{module.__name__}.{name}", module.__name__)
    return [f".. autodata:: {home}::{name}", "   :no-value:", ""]


def reference_page(package: str) -> str:
    """Return the page of a package: every public name with its docstring."""
    module = importlib.import_module(package)
    title = TITLES[package]
    lines = [title, "=" * len(title), "", f".. automodule:: {package}", "   :no-members:", ""]
    for name in public_names(module):
        lines += _entry(module, name)
    for other in MODULES[package]:
        lines += [other, "-" * len(other), "", f".. automodule:: {other}", "   :no-members:", ""]
        inner = importlib.import_module(other)
        for name in public_names(inner):
            lines += _entry(inner, name)
    return "\n".join(lines) + "\n"


def commands_page() -> str:
    """Return the help of every command, as typer prints it for documents."""
    from typer.cli import get_docs_for_click
    from typer.main import get_command

    from aimc_sim.cli.main import app

    command = get_command(app)
    context = command.make_context("aimc-sim", ["presets"], resilient_parsing=True)
    text = get_docs_for_click(obj=command, ctx=context, name="aimc-sim")
    text = re.sub(r"^# .*\n", "# Commands\n", text, count=1)
    # the first steps are for the terminal; summaries are cut there and stand whole here
    text = re.sub(r"\x08.*?(?=\n\*\*Commands)", "", text, count=1, flags=re.DOTALL)
    for name, each in command.commands.items():
        summary = (each.help or "").strip().split("\n\n")[0].replace("\n", " ")
        text = re.sub(rf"^\* `{name}`: .*$", f"* [`{name}`](#aimc-sim-{name}): {summary}", text,
                      count=1, flags=re.MULTILINE)
    return text.replace("```console\n$ ", "```sh\n")


def project_page(path: Path) -> str:
    """Return a page of the project's root with its links as they are from docs/project/."""
    text = path.read_text("utf-8")
    text = re.sub(r"\]\(docs/([^)]+)\)", r"](../\1)", text)
    text = re.sub(r"\]\(examples/(\w+\.ipynb)\)", r"](../notebooks/\1)", text)
    text = re.sub(r"\]\((ARCHITECTURE|CONTRIBUTING|CHANGELOG|README)\.md",
                  lambda match: f"]({match[1].lower()}.md", text)
    return re.sub(r"\[([^]]+)\]\((LICENSE|CITATION\.cff)\)", r"\1 (file \2)", text)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    if not path.exists() or path.read_text("utf-8") != text:
        path.write_text(text, "utf-8")


def write_pages(app: Any = None) -> None:
    """Write all of it; a page that has not changed keeps its date."""
    for package in TITLES:
        _write(DOCS / "reference" / f"{package}.rst", reference_page(package))
    _write(DOCS / "reference" / "commands.md", commands_page())
    for name in ("README", "ARCHITECTURE", "CONTRIBUTING", "CHANGELOG"):
        text = project_page(DOCS.parent / f"{name}.md")
        _write(DOCS / "project" / f"{name.lower()}.md", text)
    folder = DOCS / "notebooks"
    folder.mkdir(exist_ok=True)
    for path in (DOCS.parent / "examples").glob("*.ipynb"):
        shutil.copyfile(path, folder / path.name)


def setup(app: Any) -> dict[str, bool]:
    """Write the pages before Sphinx looks for its sources."""
    app.connect("config-inited", lambda app, config: write_pages())
    return {"parallel_read_safe": True, "parallel_write_safe": True}
