"""Pages: safe texts, colours that can be read, plots that stand beside each other."""

from __future__ import annotations

import re

import pytest

from aimc_sim.pages import html
from aimc_sim.plotting import COLOURS, plot_confusion, to_svg
from aimc_sim.scope import NEVER, scope
from aimc_sim.specs import ChipSpec


def luminance(colour):
    """Of WCAG 2.2, of #rgb or #rrggbb."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[k : k + 2], 16) / 255 for k in (0, 2, 4)]
    parts = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def contrast(first, second):
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [html._LIGHT, html._DARK], ids=["light", "dark"])
def test_texts_and_lines_stand_out_from_their_ground(theme):
    """WCAG 2.2: 4.5 for text, 3 for what carries meaning; axe cannot judge text in SVG."""
    colours = dict(re.findall(r"--(\w+):(#\w+)", theme))
    for ground in ("paper", "card"):
        for name in ("ink", "soft", "link", "bad"):
            assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)
    for line in ("ink", "blue", "red", "green"):
        assert contrast(colours[line], colours["paper"]) >= 3, line


def test_every_colour_of_a_plot_becomes_one_of_the_page():
    known = {colour.lower() for colour in html._VARIABLES}
    assert {colour.lower() for colour in COLOURS} <= known


def test_plots_beside_each_other_share_no_name_and_load_nothing():
    svg = to_svg(lambda: plot_confusion([[3, 1, 0], [0, 4, 0]]), ink=html.INK, paper=html.PAPER)
    page = html.document(
        "two", html.figure(svg, "one", "a < b", "c & d") + html.figure(svg, "two", "e", narrow=svg)
    )
    names = re.findall(r'\bid="([^"]+)"', page)
    assert len(names) == len(set(names))
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', page)) <= set(names)
    assert 'aria-label="a &lt; b"' in page and "c &amp; d" in page
    assert "://" not in page and "xmlns" not in page
    drawn = page.split("</style>", 1)[1].lower()
    assert html.INK not in drawn and "var(--ink)" in drawn


def test_tables_name_rows_and_columns_and_escape_what_they_hold():
    found = html.table(("", "<i>"), [("a", "1"), ("b", "<2>")], "of & all")
    assert '<th scope="col">&lt;i&gt;</th>' in found and '<th scope="row">b</th>' in found
    assert "<td></td>" in found and "&lt;2&gt;" in found
    assert "<caption>of &amp; all</caption>" in found


def test_a_table_too_wide_for_a_telephone_says_in_every_cell_what_it_is():
    found = html.table(("", *(f"column{k}" for k in range(8))), [("a", *"12345678")])
    assert 'data-head="column0">1</td>' in found and 'data-head="column7">8</td>' in found
    assert found.count('role="cell"') == 9  # with the empty corner
    few = html.table(("", "x", "y"), [("a", "1", "2")])
    assert "data-head" not in few and 'role="cell"' not in few
    words = html.table(("name", "value", "source"), [("a", "1", "Somebody et al.")], prose=True)
    assert 'data-head="source"' in words


def test_what_is_never_modelled_is_told_by_the_list_of_limits_too():
    from pathlib import Path

    text = (Path(__file__).parents[2] / "docs" / "not-modelled.md").read_text("utf-8")
    text = re.sub(r"\s+", " ", re.sub(r"\*\*| \(\[\w+\]\([^)]*\)\)", "", text))
    assert [line for line in NEVER if line not in text] == []


def test_a_chip_lists_what_it_has_and_what_its_file_leaves_out():
    plain = scope(ChipSpec.preset("pcm-nandakumar2019"))
    assert any("drift" in line for line in plain.modelled)
    assert any("wires" in line for line in plain.absent)
    wired = scope(
        ChipSpec.preset("pcm-nandakumar2019").replace(
            wires={"r_wl_ohm": 1.0, "r_bl_ohm": 1.0}, faults={"stuck_low": 0.01},
            **{"adc.gain_sigma": 0.01, "dac.noise_lsb": 0.3},
        )
    )
    assert any("resistance of word and bit lines" in line for line in wired.modelled)
    assert any("stuck cells" in line for line in wired.modelled)
    assert not any("wires" in line or "faults" in line for line in wired.absent)
    assert "ADCs: 8 bits, mismatch" in wired.modelled
    assert "DACs: 8 bits, amplitude, noise of 0.3 steps" in wired.modelled
    assert any("drift of every cell" in line for line in plain.modelled)
    assert scope(ChipSpec.preset("ideal")).absent[0].startswith("everything of a real device")
