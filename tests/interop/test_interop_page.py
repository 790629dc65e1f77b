"""All code of docs/interop.md runs, in order, in one folder."""

from __future__ import annotations

import importlib.util
import re
import warnings
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "interop.md"
BLOCK = re.compile(r"(?:^<!-- ([^\n]*) -->\n)?^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCKS = BLOCK.findall(PAGE.read_text("utf-8"))
HAS_PEER = importlib.util.find_spec("aihwkit") is not None


def run(monkeypatch, folder, *, with_peer):
    monkeypatch.chdir(folder)
    names: dict[str, object] = {}
    ran = 0
    for comment, language, text in BLOCKS:
        if language == "python" and (with_peer or "aihwkit" not in comment):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                exec(compile(text, str(PAGE), "exec"), names)
            ran += 1
    return ran


@pytest.mark.compiled
def test_code_that_needs_no_peer_runs(monkeypatch, tmp_path, capsys):
    assert run(monkeypatch, tmp_path, with_peer=False) == 3
    printed = capsys.readouterr().out
    assert "86400 s after writing" in printed and "16 10.0" in printed
    assert (tmp_path / "layers.pt").exists()


@pytest.mark.compiled
@pytest.mark.skipif(not HAS_PEER, reason="aihwkit is not installed (pip install '.[aihwkit]')")
def test_code_with_the_peer_runs_and_both_agree(monkeypatch, tmp_path, capsys):
    assert run(monkeypatch, tmp_path, with_peer=True) == 6
    printed = capsys.readouterr().out
    assert "1.6 times as noisy" in printed and "levels = 16: no counterpart" in printed
    assert printed.count(" sigma\n") == 3 and "DIFFERENT" not in printed
    assert (tmp_path / "wan.toml").exists()


def test_the_page_shows_what_the_example_prints():
    # the figures are those of the run that the changelog names; the form is held here
    (shown,) = [text for _, language, text in BLOCKS if language == "text"]
    lines = shown.splitlines()
    assert len(lines) == 5
    assert all(re.fullmatch(r"(float|chip, [a-z ,]+?) {2,}\d+\.\d( \+- \d\.\d)? %", line)
               for line in lines[1:])
