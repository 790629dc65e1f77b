"""All code in the pages runs, every command that they name exists, and links lead somewhere.

Blocks of a page run in order in one folder that has examples/ in it. Before a block a comment may
say what a reader does not see:

    <!-- file: NAME -->        the block is the content of this file
    <!-- fails: exit code N --> the command ends so, and its next block of text is what it says
    <!-- not run: REASON -->   only the options of its commands are checked

Long commands are cut short here (`SHORTER`), in nothing but their size.
"""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import shlex
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from aimc_sim.cli.main import app

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    path
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/models/*.md")]
    if not {"build", "project", "notebooks"} & set(path.relative_to(ROOT).parts)
    and path.name != "commands.md"
)
NAMES = [str(path.relative_to(ROOT)) for path in PAGES]
_BLOCK = re.compile(
    r"(?:^<!-- (?P<key>file|fails|not run): (?P<value>[^\n]*?) -->\n)?"
    r"^```(?P<language>\w*)\n(?P<text>.*?)^```",
    re.MULTILINE | re.DOTALL,
)
# what makes a command short: of its name or script, options to set
SHORTER = {
    "run": {"--limit": "12"},
    "train": {"--epochs": "1", "--batch": "512"},
    "00_state_spaces.py": {"--epochs": "1"},
}
# of files that a script writes, what is kept: every deployment calibrates on all of it
FEWER = {"mine/train.npz": 128}
# a sweep of two tasks in the place of 96
SMALL_SWEEP = """
schema_version = "aimc-sim.campaign/1"
model = "model.pt"
chip = "pcm-nandakumar2019"
at = ["1d"]
chips = 1
limit = 12
[grid]
"adc.bits" = [4, 8]
"""
SHELL = {
    "cd", "dask", "export", "lint-imports", "mypy", "pip", "pre-commit", "pytest", "python", "ruff",
    "sphinx-build",
}


@dataclass(frozen=True)
class Block:
    language: str
    text: str
    key: str | None
    value: str | None


def blocks_of(path: Path) -> list[Block]:
    text = path.read_text("utf-8")
    return [
        Block(found["language"], found["text"], found["key"], found["value"])
        for found in _BLOCK.finditer(text)
    ]


def commands_of(text: str) -> list[list[str]]:
    """Return the simple commands of shell text, without what pipes and redirections do."""
    text = re.sub(r"\\\n", " ", text)
    found = []
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        for part in re.split(r"&&|;", re.split(r"\s#\s", line)[0]):
            words = shlex.split(part)
            while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
                words = words[1:]
            if words:
                found.append(words)
    return found


def inline_commands(path: Path) -> list[list[str]]:
    """Return the commands that stand in running text, between backticks."""
    text = _BLOCK.sub("", path.read_text("utf-8"))
    found = re.findall(r"`((?:[A-Z_]+=\S+ )?(?:aimc-sim|python) [^`\n]+)`", text)
    return [words for line in found for words in commands_of(line)]


def check_options(words: list[str]) -> None:
    """Raise where a command of aimc-sim, or an option of it, does not exist."""
    from typer.main import get_command

    group = get_command(app)
    if words[0].startswith("-"):
        known = {"--version", "--help", "-h", "--install-completion", "--show-completion"}
        assert words[0] in known, words
        return
    assert words[0] in group.commands, f"no command {words[0]!r} in {' '.join(words)}"
    command = group.commands[words[0]]
    known = {name for parameter in command.params for name in parameter.opts} | {"--help", "-h"}
    unknown = [word for word in words if word.startswith("-") and not word[1:2].isdigit()
               and word not in {"-", *known}]
    assert unknown == [], f"{unknown} in aimc-sim {' '.join(words)}"


def shortened(name: str, words: list[str]) -> list[str]:
    words = list(words)
    for option, value in SHORTER.get(name, {}).items():
        if option in words:
            at = words.index(option)
            del words[at : at + 2]
        words += [option, value]
    for option, most in (("--chips", 2), ("--tune", 1)):
        if option in words:
            at = words.index(option) + 1
            words[at] = str(min(most, int(words[at])))
    return words


def run_shell(text: str, fails: int = 0) -> str:
    """Run the commands of a block and return what they print; what is not ours is left out."""
    from typer.testing import CliRunner

    printed = ""
    for words in commands_of(text):
        name, *rest = words
        if name == "aimc-sim":
            check_options(rest)
            if rest[:1] == ["sweep"]:
                check_campaign(Path(rest[1]))
                continue
            result = CliRunner().invoke(app, shortened(rest[0], rest) if rest else [])
            assert result.exit_code == fails, f"{words}: {result.output}"
            printed += result.output
        elif name == "python" and rest[0].startswith("examples/"):
            printed += run_script(ROOT / rest[0], shortened(Path(rest[0]).name, rest[1:]))
        else:
            assert name in SHELL or name.startswith("."), f"unknown command {words}"
            if name == "pip":
                check_extras(rest)
    return printed


def check_campaign(path: Path) -> None:
    """Read the file of a sweep, where it is one of ours; tests/cli runs sweeps."""
    import ssm

    if path.exists():
        assert ssm.read_campaign(path).tasks


def run_script(path: Path, options: list[str]) -> str:
    old, sys.argv = sys.argv, [path.name, *options]
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            runpy.run_path(str(path), run_name="__main__")
    finally:
        sys.argv = old
    for name, n in FEWER.items():
        if Path(name).exists():
            arrays = dict(np.load(name))
            np.savez(name, **{key: value[:n] for key, value in arrays.items()})
    return out.getvalue()


def check_extras(words: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = re.findall(r"(?:\.|aimc-sim)\[([\w,]+)\]", " ".join(words))
    assert {name for text in extras for name in text.split(",")} <= set(
        project["optional-dependencies"]
    )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "model.pt").symlink_to(ROOT / "examples" / "models" / "s4d-digits.pt")
    (tmp_path / "small.toml").write_text(SMALL_SWEEP, "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def is_code(block: Block) -> bool:
    return block.key != "not run" and block.language in {"python", "sh", "toml"}


RUNNING = [path for path in PAGES if any(is_code(block) for block in blocks_of(path))]


@pytest.mark.compiled
@pytest.mark.parametrize("page", RUNNING, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_code_of_a_page_runs_in_order(page, folder):
    names: dict[str, object] = {}
    blocks = blocks_of(page)
    for block, after in zip(blocks, [*blocks[1:], None], strict=True):
        if not is_code(block):
            continue
        if block.key == "file":
            (folder / block.value).write_text(block.text, "utf-8")
        if block.language == "toml":
            check_toml(block.text, folder)
        elif block.language == "python":
            code = block.text.replace("examples/17_sweep.toml", "small.toml")
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(code, str(page), "exec"), names)
        else:
            exit_code = int(block.value.split()[-1]) if block.key == "fails" else 0
            printed = run_shell(block.text, exit_code)
            if exit_code:
                assert after is not None and after.language == "text"
                assert printed.split() == after.text.split()


def check_toml(text: str, folder: Path) -> None:
    """Load a chip or a campaign; anything else must at least be TOML."""
    import aimc_sim as aimc
    import ssm

    schema = tomllib.loads(text).get("schema_version", "")
    path = folder / "block.toml"
    path.write_text(text, "utf-8")
    if schema.startswith("aimc-sim.chip/"):
        assert aimc.load_chip(path).name
    elif schema.startswith("aimc-sim.campaign/"):
        assert ssm.read_campaign(path).tasks


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_that_a_page_names_exist_with_their_options(page):
    lines = inline_commands(page)
    for block in blocks_of(page):
        if block.language == "sh":
            lines += commands_of(block.text)
    for words in lines:
        if words[0] == "aimc-sim" and len(words) > 1:
            check_options([re.sub(r"^\[|\]$", "", word) for word in words[1:]])
        elif words[:1] == ["python"] and words[1].startswith("examples/"):
            assert (ROOT / words[1]).is_file(), words
            source = (ROOT / words[1]).read_text("utf-8")
            wrong = [w for w in words[2:] if w.startswith("--") and f'"{w}"' not in source]
            assert wrong == [], words


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_blocks_that_do_not_run_say_why(page):
    for block in blocks_of(page):
        if block.key == "not run":
            assert len(block.value.split()) >= 3


def test_every_example_script_can_be_repeated_from_the_page_of_reproduction():
    text = (ROOT / "docs" / "reproduction.md").read_text("utf-8")
    scripts = [*(ROOT / "examples").glob("*.py"), *(ROOT / "examples").glob("*.toml")]
    missing = [path.name for path in scripts if path.name not in text]
    assert missing == ["00_state_spaces.py"]  # of the tutorial
