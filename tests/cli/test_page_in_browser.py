"""The page of a run in a real Chromium: silent, offline, accessible, whole on paper.

Skipped where there is no browser, no playwright or no axe-core.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe_package = pytest.importorskip("axe_playwright_python", reason="axe-core is not installed")

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run",
]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDTHS = (390, 768, 1280, 1920)
PAPER_MM = (180, 267)  # A4 within margins of 15 mm
PX_PER_MM = 96 / 25.4


@pytest.fixture(scope="module")
def page_file(files, tmp_path_factory):
    """The page of a run of three chips with everything on it."""
    from typer.testing import CliRunner

    from aimc_sim.cli.main import app

    out = tmp_path_factory.mktemp("page") / "out"
    arguments = ["run", files / "tiny.pt", "--data", files / "data.npz", "--chips", 3, "--at",
                 "0s,1h", "--ablate", "--out", out, "--quiet"]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return out / "report.html"


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium of this machine."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=found, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def opened(browser, page_file, request):
    """The page at a width and in a colour scheme, with what it said and asked for."""
    width, scheme = getattr(request, "param", (1280, "light"))
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
    )
    page = context.new_page()
    page.said, page.asked = [], []
    page.on("console", lambda message: page.said.append(message.text))
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.on("request", lambda asked: page.asked.append(asked.url))
    page.goto(page_file.as_uri())
    yield page
    context.close()


def every(*choices):
    return pytest.mark.parametrize("opened", choices, indirect=True, ids=str)


@pytest.mark.compiled
@every(*((width, scheme) for width in WIDTHS for scheme in ("light", "dark")))
def test_a_page_is_silent_asks_for_nothing_else_and_fits_the_screen(opened, page_file):
    assert opened.said == []
    others = [url for url in opened.asked if not url.startswith("data:")]
    assert others == [page_file.as_uri()]
    assert opened.evaluate("document.scrollingElement.scrollWidth - innerWidth") <= 0


SHOWN = "e => e.checkVisibility() && e.getBoundingClientRect().width > 0"


@pytest.mark.compiled
@every(*((width, "light") for width in WIDTHS))
def test_nothing_is_cut_and_nothing_must_be_scrolled_sideways(opened):
    opened.evaluate("document.querySelectorAll('details').forEach(e => { e.open = true })")
    found = opened.evaluate(
        "[...document.querySelectorAll('main *, header *')].filter(e => !e.closest('svg *'))"
        f".filter({SHOWN}).filter(e => e.getBoundingClientRect().left >= 0 && "
        "(e.getBoundingClientRect().right > innerWidth + 0.5 || "
        "(e.matches('.wide, pre') && e.scrollWidth > e.clientWidth))).map(e => e.outerHTML)"
    )
    # a line of code may be longer than any screen
    assert [html[:200] for html in found if not html.startswith("<pre")] == []


@pytest.mark.compiled
@every(*((width, "light") for width in WIDTHS))
def test_letters_of_plots_are_as_large_as_small_print_or_larger(opened):
    sizes = opened.evaluate(
        f"[...document.querySelectorAll('svg')].filter({SHOWN}).flatMap(svg => "
        "[...svg.querySelectorAll('text')].map(t => [parseFloat(getComputedStyle(t).fontSize) * "
        "svg.getBoundingClientRect().width / svg.viewBox.baseVal.width, t.textContent]))"
    )
    assert len(sizes) > 100
    assert min(sizes)[0] >= 9.0, min(sizes)
    assert max(sizes)[0] <= 24.0, max(sizes)


@pytest.mark.compiled
@every(*((width, "light") for width in WIDTHS))
def test_every_plot_is_shown_once_at_any_width(opened):
    shown = opened.evaluate(
        f"[...document.querySelectorAll('figure')].map(f => [...f.querySelectorAll('svg')]"
        f".filter({SHOWN}).map(e => e.getAttribute('aria-label')))"
    )
    assert len(shown) > 6
    for labels in shown:
        assert labels and len(labels) == len(set(labels))


@pytest.mark.compiled
@every((390, "light"))
def test_on_a_telephone_every_cell_of_a_table_of_many_columns_has_its_head(opened):
    table = opened.get_by_role("table", name="Chips over time")
    heads = table.get_by_role("columnheader").all_inner_texts()
    assert len(heads) == 5
    rows = table.get_by_role("row").all()[1:]
    assert len(rows) == 4
    for row in rows:
        said = row.locator("td").evaluate_all(
            "cells => cells.map(e => getComputedStyle(e, '::before').content)"
        )
        assert [text.strip('"') for text in said] == heads


@pytest.mark.compiled
@every((1920, "light"))
def test_a_wide_screen_is_used_and_lines_stay_readable(opened):
    edges = opened.evaluate(
        "[...document.querySelectorAll('main svg, main table, nav')].filter("
        f"{SHOWN}).map(e => [e.getBoundingClientRect().left, e.getBoundingClientRect().right])"
    )
    assert min(left for left, _ in edges) < 0.1 * 1920
    assert max(right for _, right in edges) > 0.85 * 1920
    letter = 8  # of 16 px text, on average
    lines = opened.evaluate(
        f"[...document.querySelectorAll('main p, main li, figcaption')].filter({SHOWN})"
        ".map(e => e.getBoundingClientRect().width)"
    )
    assert max(lines) / letter < 115
    opened.evaluate("document.querySelector('#cite').scrollIntoView()")
    box = opened.locator("nav").bounding_box()
    assert 0 <= box["y"] < 100  # the contents stay in sight


@pytest.mark.compiled
@every((390, "dark"), (1280, "light"))
def test_axe_finds_no_violation(opened):
    (script,) = Path(axe_package.__file__).parent.rglob("axe.min.js")
    opened.evaluate(script.read_text("utf-8"))
    # all rules of WCAG and best practices, also inside of what is folded away
    opened.evaluate("document.querySelectorAll('details').forEach(e => { e.open = true })")
    found = opened.evaluate("axe.run(document)")
    assert [(rule["id"], rule["nodes"][0]["html"]) for rule in found["violations"]] == []
    assert len(found["passes"]) > 20  # it did look


@pytest.mark.compiled
def test_a_theme_can_be_chosen_and_dark_is_dark(opened):
    def ground():
        colour = opened.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(int(part) for part in re.findall(r"\d+", colour)[:3]) / 3

    assert ground() > 200
    opened.get_by_label("Colours").select_option("dark")
    assert ground() < 60
    opened.get_by_label("Colours").select_option("")
    assert ground() > 200


@pytest.mark.compiled
def test_a_figure_opens_and_closes_by_the_keyboard_alone(opened):
    button = opened.locator("#budget-plot button")
    before = opened.locator("#budget-plot svg").first.bounding_box()["width"]
    button.focus()
    opened.keyboard.press("Enter")
    assert button.get_attribute("aria-expanded") == "true"
    assert opened.locator("#budget-plot svg").first.bounding_box()["width"] > before
    opened.keyboard.press("Escape")
    assert button.get_attribute("aria-expanded") == "false"
    assert opened.evaluate("document.activeElement.textContent") == "Enlarge"


@pytest.mark.compiled
def test_everything_that_can_be_used_is_reached_by_the_tab_key(opened):
    wanted = opened.evaluate(
        "document.querySelectorAll('a, button:not([hidden]), select, summary').length"
    )
    seen = set()
    for _ in range(3 * wanted):
        opened.keyboard.press("Tab")
        seen.add(
            opened.evaluate(
                "[...document.querySelectorAll('a, button:not([hidden]), select, summary')]"
                ".indexOf(document.activeElement)"
            )
        )
    assert seen - {-1} == set(range(wanted))


@pytest.mark.compiled
@every((200, "light"))
def test_what_is_too_wide_even_so_scrolls_by_itself_and_has_a_stop_for_keys(opened):
    boxes = opened.evaluate(
        "[...document.querySelectorAll('.wide')].map(e => "
        "[e.scrollWidth > e.clientWidth, e.tabIndex])"
    )
    assert any(scrolls for scrolls, _ in boxes)
    assert all((index == 0) == scrolls for scrolls, index in boxes)


@pytest.mark.compiled
def test_points_and_cells_say_their_figures_at_the_pointer(opened):
    said = opened.locator("#accuracy-plot svg title").all_text_contents()
    assert any(re.fullmatch(r"1 h: [\d.]+ %, 95 % interval .*", text) for text in said)
    cells = opened.locator("#placement-plot svg title").all_text_contents()
    assert any(text.startswith("encoder on tile ") for text in cells)
    cells = opened.locator("#budget-plot svg title").all_text_contents()
    assert any(text.startswith("layer 0 A, programming alone, at the logits") for text in cells)


@pytest.mark.compiled
@every(*((1280, scheme) for scheme in ("light", "dark")))
def test_on_paper_no_figure_is_cut_and_ink_is_dark(opened, tmp_path):
    """A figure that fits a page and avoids breaks is not cut; the PDF shows that it is not."""
    opened.emulate_media(media="print")
    width, height = (round(side * PX_PER_MM) for side in PAPER_MM)
    opened.set_viewport_size({"width": width, "height": height})
    boxes = opened.evaluate(
        "[...document.querySelectorAll('figure')].map(e => [e.id, e.getBoundingClientRect().width, "
        "e.getBoundingClientRect().height, getComputedStyle(e).breakInside])"
    )
    assert len(boxes) > 6
    for name, wide, tall, inside in boxes:
        assert inside == "avoid" and tall < height and wide <= width, name
    hidden = opened.evaluate(
        "[...document.querySelectorAll('nav, button, select')].every(e => "
        "getComputedStyle(e).display === 'none')"
    )
    assert hidden
    ink = opened.evaluate("getComputedStyle(document.querySelector('h1')).color")
    assert all(int(part) < 60 for part in re.findall(r"\d+", ink))

    pypdf = pytest.importorskip("pypdf", reason="pypdf is not installed")
    opened.pdf(path=str(tmp_path / "page.pdf"), prefer_css_page_size=True, print_background=True)
    sheets = [
        re.sub(r"\s+", "", sheet.extract_text())
        for sheet in pypdf.PdfReader(tmp_path / "page.pdf").pages
    ]
    # the label of every plot's axis and the words under it are on one sheet
    together = {
        "timesinceprogramming": "Meanoverchipswith", "classanswered": "Allchips1hafter",
        "energyofasequence[": "Asequenceonthechip", "area[mm2]": "Theareaoflogicisnot",
        "stateinunitsoftheinput": "choosewith--sample",
    }
    for label, caption in together.items():
        with_caption = [k for k, sheet in enumerate(sheets) if caption in sheet]
        assert len(with_caption) == 1, caption
        label = label.replace("stateinunits", "state,inunits")
        assert any(label in sheets[k] for k in with_caption), label
