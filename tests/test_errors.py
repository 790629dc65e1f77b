"""Every message to a user has three parts, and the last one says what to do."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from aimc_sim import errors

ROOT = Path(__file__).parent.parent
FILES = sorted(
    path for name in ("aimc_sim", "ssm", "calibration") for path in (ROOT / name).rglob("*.py")
)


def subclasses(base: type) -> set[str]:
    return {base.__name__} | {n for child in base.__subclasses__() for n in subclasses(child)}


def calls() -> list[tuple[str, ast.Call]]:
    """Return every place where an error of ours is made."""
    import ssm.train  # noqa: F401  # defines an error of its own

    names = subclasses(errors.AimcError)
    found = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                if name in names:
                    found.append((f"{path.relative_to(ROOT)}:{node.lineno}", node))
    return found


def text_of(node: ast.expr) -> str | None:
    """Return what is known of a text without running it: names in it stand as words."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(
            value.value if isinstance(value, ast.Constant) else "something" for value in node.values
        )
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        parts = [text_of(node.left), text_of(node.right)]
        return None if None in parts else "".join(part or "" for part in parts)
    return None


CALLS = calls()


def test_there_are_errors_to_look_at():
    assert len(CALLS) > 200


@pytest.mark.parametrize(("place", "call"), CALLS, ids=[place for place, _ in CALLS])
def test_an_error_says_what_was_asked_found_and_what_to_do(place, call):
    if any(isinstance(argument, ast.Starred) for argument in call.args):
        return  # the three parts of another error
    assert len(call.args) + len(call.keywords) >= 3
    texts = [text_of(argument) for argument in call.args[:3]]
    assert all(text is None or text.strip() for text in texts)
    if texts[2] is not None:
        assert len(texts[2]) > 4 and not texts[2].rstrip().endswith(("?", ":"))
    if None not in texts:
        assert len(set(texts)) == 3


def test_nothing_is_raised_that_a_user_would_see_as_a_traceback():
    """ValueError is for validators of specs alone, whose words become an InputError."""
    bare = {"RuntimeError", "Exception", "OSError", "SystemExit"}
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)
        and getattr(node.exc.func, "id", "") in bare
    ]
    assert found == []
