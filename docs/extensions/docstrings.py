"""The project's docstrings as reStructuredText.

They are written to be read in the code: paragraphs with bare physics (`|x|`, `x_(k-1)`), equations
as indented lines, sections underlined with dashes, and lists of `name, name : what it is`. Here
text is kept from being taken for markup, equations become literal blocks and names become fields.
Functions of text alone, so that tests use them too.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

_WORD = r"\*{0,2}[A-Za-z_]\w*(?: \([^()]*\))?"
NAMES = re.compile(rf"^({_WORD}(?:, {_WORD})*) : (\S.*)$")
_FURTHER = re.compile(rf"(?<=[.;]) ({_WORD}(?:, {_WORD})*) : (?=\S)")
_ARRAY = re.compile(
    r"~?numpy\.ndarray\[tuple\[~?typing\.Any, \.\.\.\], ~?numpy\.dtype\[~?numpy\.(\w+)\]\]"
)
_LITERAL = re.compile(r"(``.*?``|`[^`]+`)", re.DOTALL)
_LIST = re.compile(r"^(?:- |\d+\. )")


def escape(text: str) -> str:
    """Return text whose signs mean nothing to reStructuredText; what stands in backticks stays."""
    parts = _LITERAL.split(text)
    for k, part in enumerate(parts):
        if k % 2:
            before = "\\ " if re.search(r"[\w)]$", parts[k - 1]) else ""
            after = "\\ " if re.match(r"\w", parts[k + 1]) else ""
            parts[k] = f"{before}``{part.strip('`')}``{after}"
        else:
            plain = re.sub(r"([\\*|])", r"\\\1", part)
            parts[k] = re.sub(r"_(?!\w)", r"\\_", plain)
    return "".join(parts)


def paragraphs(lines: list[str]) -> list[list[str]]:
    """Return runs of lines without a blank one between them."""
    found: list[list[str]] = [[]]
    for line in lines:
        if line.strip():
            found[-1].append(line.rstrip())
        elif found[-1]:
            found.append([])
    return [lines for lines in found if lines]


def definitions(lines: list[str]) -> tuple[list[str], list[tuple[str, str]], list[str]]:
    """Return lines before the first `name : what`, every name with its text, lines after them."""
    before: list[str] = []
    found: list[tuple[str, str]] = []
    for k, line in enumerate(lines):
        match = NAMES.match(line)
        if match:
            found.append((match[1], match[2]))
        elif found and (line.startswith(" ") or line[:1].islower()):
            found[-1] = (found[-1][0], f"{found[-1][1]} {line.strip()}")
        elif found:
            return before, _split(found), lines[k:]
        else:
            before.append(line)
    return before, _split(found), []


def _split(found: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return names with their texts, those that stand within a text of another one apart."""
    out: list[tuple[str, str]] = []
    for names, text in found:
        first, *rest = _FURTHER.split(text)
        out += [(names, first), *zip(rest[::2], rest[1::2], strict=True)]
    return out


def documented(text: str) -> set[str]:
    """Return the names that a docstring explains, as `name : what it is`."""
    found: set[str] = set()
    for lines in paragraphs(inspect.cleandoc(text).splitlines()):
        flat = [line for line in lines if line.strip("-")]
        while flat:
            before, names, flat = definitions(flat)
            found |= {
                re.sub(r" \(.*\)|\*", "", name)
                for several, _ in names
                for name in re.split(r", (?![^(]*\))", several)
            }
            if not names:
                break
    return found


def restructured(docstring: str) -> list[str]:
    """Return a docstring as lines of reStructuredText."""
    out: list[str] = []
    section = ""
    for lines in paragraphs(inspect.cleandoc(docstring).splitlines()):
        if len(lines) > 1 and re.fullmatch(r"-{3,}", lines[1]):
            section = lines[0]
            if section != "Parameters":
                out += [f".. rubric:: {section}", ""]
            lines = lines[2:]
            if not lines:
                continue
        if lines[0].startswith(">>>"):
            out += [*lines, ""]
            continue
        if all(line.startswith("    ") for line in lines):
            out += ["::", "", *lines, ""]
            continue
        while lines:
            before, found, lines = definitions(lines)
            out += _plain(before)
            for names, what in found:
                marked = f"**{escape(names)}**"
                out += [f"- {marked} – {escape(what)}"]
            out += [""]
    return out


def _plain(lines: list[str]) -> list[str]:
    """Return a paragraph; lines further in than its first are equations, kept as they stand."""
    out: list[str] = []
    literal = False
    listed = bool(lines) and _LIST.match(lines[0]) is not None
    for line in lines:
        inside = line.startswith("    ") and not listed
        if inside != literal:
            out += ["", "::", ""] if inside else [""]
            literal = inside
        out += [line if inside or _LIST.match(line) else escape(line)]
    return [*out, ""]


def _process(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    lines[:] = restructured("\n".join(lines))


def _shorten(app: Any, what: str, name: str, thing: Any, options: Any, signature: str | None,
             returns: str | None) -> tuple[str, str | None] | None:
    if what == "class" and hasattr(thing, "model_fields"):
        return "(**fields)", None  # every field with its bounds would fill a page
    if signature and "numpy.ndarray[" in signature:
        return _ARRAY.sub(r"ndarray[\1]", signature), returns
    return None


def setup(app: Any) -> dict[str, bool]:
    """Let autodoc pass docstrings through here."""
    app.connect("autodoc-process-docstring", _process)
    app.connect("autodoc-process-signature", _shorten)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
