"""Every public name says what comes back, what goes in, in which shape, and what it refuses."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs" / "extensions"))

from docstrings import documented, restructured  # noqa: E402
from generated import MODULES, public_names  # noqa: E402

PACKAGES = ("aimc_sim", "ssm", "calibration", "aimc_sim.sweep")
ERRORS = ("UsageError", "InputError", "CapacityError", "DivergedError")
# the same wherever they stand
KNOWN = {"self", "cls", "schema_version"}
_SIGN = r"(?<![\w.]){}(?!\w)"


def public(packages) -> dict[str, object]:
    """Return public functions, classes and methods by their full name."""
    found: dict[str, object] = {}
    for name in packages:
        module = importlib.import_module(name)
        for key in public_names(module):
            thing = getattr(module, key)
            if isinstance(thing, ModuleType) or not callable(thing):
                continue
            found[f"{name}.{key}"] = thing
            if inspect.isclass(thing):
                for method, value in vars(thing).items():
                    value = getattr(value, "__func__", getattr(value, "fget", value))
                    if inspect.isfunction(value) and not method.startswith("_"):
                        found[f"{name}.{key}.{method}"] = value
    return found


NAMES = public(PACKAGES)
MORE = public([module for modules in MODULES.values() for module in modules])


def parameters_of(thing) -> dict[str, str]:
    """Return the parameters that a caller gives, with what their annotation says."""
    if inspect.isclass(thing) and issubclass(thing, Exception) and "__init__" not in vars(thing):
        return {}
    if hasattr(thing, "model_fields"):
        return {name: "" for name in thing.model_fields if name not in KNOWN}
    return {
        name: str(parameter.annotation)
        for name, parameter in inspect.signature(thing).parameters.items()
        if name not in KNOWN and not name.startswith("_")
    }


def text_of(name: str) -> str:
    return inspect.getdoc(NAMES.get(name, MORE.get(name))) or ""


@pytest.mark.parametrize("name", sorted({**NAMES, **MORE}))
def test_every_public_name_begins_with_a_sentence_of_one_line(name):
    first = text_of(name).split("\n\n")[0]
    assert first, "no docstring"
    assert "\n" not in first and first.endswith((".", "?", ":")), first


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_parameter_is_explained(name):
    text = text_of(name)
    said = documented(text)
    missing = [
        parameter
        for parameter in parameters_of(NAMES[name])
        if parameter not in said and not re.search(_SIGN.format(re.escape(parameter)), text)
    ]
    assert missing == []


@pytest.mark.parametrize("name", sorted(NAMES))
def test_arrays_that_go_in_have_a_shape(name):
    text = text_of(name)
    missing = [
        parameter
        for parameter, annotation in parameters_of(NAMES[name]).items()
        if re.search(r"ndarray|ArrayLike|NDArray|Real\b|Complex\b", annotation)
        and not re.search(_SIGN.format(parameter) + r"[^.]*?\([\w, +]*\)", text.replace("\n", " "))
    ]
    assert missing == []


def raised(thing) -> set[str]:
    """Return the errors that stand in `raise` statements of a function or a class' own body."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(thing)))
    except (OSError, TypeError):
        return set()
    return {
        node.exc.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)
        and isinstance(node.exc.func, ast.Name) and node.exc.func.id in ERRORS
    }


FUNCTIONS = sorted(name for name, thing in NAMES.items() if not inspect.isclass(thing))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_errors_that_a_function_raises_are_named(name):
    owner = text_of(name.rsplit(".", 1)[0])  # what a class says holds for its methods
    assert [error for error in raised(NAMES[name]) if error not in text_of(name) + owner] == []


@pytest.mark.parametrize("path", [path for name in ("aimc_sim", "ssm", "calibration")
                                  for path in sorted((ROOT / name).rglob("*.py"))],
                         ids=lambda path: str(path.relative_to(ROOT)))
def test_dois_of_docstrings_are_whole(path):
    for doi in re.findall(r"doi[:. ]\s?(10\S*)", path.read_text("utf-8")):
        assert re.match(r"10\.\d{4,}/[^\s\"'`]+", doi), doi


def test_names_are_found_in_the_ways_that_docstrings_give_them():
    text = """Return a thing.

    Parameters
    ----------
    first, second : (n,) numbers.
    third (n, m) : [S]. fourth : said within the line,
        over two lines. fifth, *sixth : both.

    seventh : outside of the list.
    """
    ordinals = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh")
    assert documented(text) == set(ordinals)


def test_physics_in_a_docstring_is_not_taken_for_markup():
    lines = restructured("Return |x|.\n\n    y_(k-1) = a * |x_k|\n\nOf `x_` and w* with x_(k-1).")
    text = "\n".join(lines)
    assert r"Return \|x\|." in text
    assert "::\n\n    y_(k-1) = a * |x_k|" in text
    assert r"Of ``x_`` and w\* with x\_(k-1)." in text
