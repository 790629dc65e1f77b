"""The pages build without a warning, every link within them leads somewhere, nothing is fetched."""

from __future__ import annotations

import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parent.parent


class Page(HTMLParser):
    """Targets, anchors, and what a browser would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids |= {found[key] for key in ("id", "name") if found.get(key)}
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        if tag in {"script", "img", "iframe", "source"} and found.get("src"):
            self.loads.append(found["src"])
        if tag == "link" and found.get("rel") in {"stylesheet", "preload", "icon"}:
            self.loads.append(found["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Return the folder of the built pages, and what the build said."""
    for name in ("sphinx", "myst_nb", "furo"):
        pytest.importorskip(name, reason=f"{name} builds the pages: pip install '.[docs]'")
    folder = tmp_path_factory.mktemp("docs")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d",
         str(folder / "trees"), str(ROOT / "docs"), str(folder / "html")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True, text=True, check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "html"


@pytest.fixture(scope="module")
def pages(site):
    return {path: Page(path.read_text("utf-8")) for path in site.rglob("*.html")}


def test_links_within_the_pages_lead_to_pages_and_anchors_that_exist(site, pages):
    broken = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file():
                broken.append(f"{path.relative_to(site)}: {link}")
            elif parts.fragment and target.suffix == ".html":
                known = pages[target].ids if target in pages else Page(target.read_text()).ids
                if unquote(parts.fragment) not in known:
                    broken.append(f"{path.relative_to(site)}: {link}")
    assert broken == []
    assert sum(len(page.links) for page in pages.values()) > 1000


def test_a_page_loads_nothing_from_another_host(site, pages):
    outside = [
        (str(path.relative_to(site)), load)
        for path, page in pages.items()
        for load in page.loads
        if urlsplit(load).netloc
    ]
    assert outside == []
    styles = "".join(path.read_text("utf-8") for path in site.rglob("*.css"))
    assert "@import url(http" not in styles and "url(http" not in styles


def test_equations_are_drawn_by_the_browser_itself(site):
    text = (site / "theory.html").read_text("utf-8")
    assert text.count("<math") > 15
    assert "\\frac" not in text and "$$" not in text


def test_every_public_name_and_command_has_its_place_in_the_reference(site):
    import aimc_sim
    import calibration
    import ssm

    for package, names in (
        (aimc_sim, set(aimc_sim.__all__) - {"sweep", "wires"}), (ssm, set(ssm.__all__)),
        (calibration, set(calibration._HOME_OF)),
    ):
        text = (site / "reference" / f"{package.__name__}.html").read_text("utf-8")
        assert [name for name in sorted(names) if f".{name}\"" not in text] == []
    commands = (site / "reference" / "commands.html").read_text("utf-8")
    from typer.main import get_command

    from aimc_sim.cli.main import app

    group = get_command(app)
    for name, command in group.commands.items():
        assert f'id="aimc-sim-{name}"' in commands
        options = [option for parameter in command.params for option in parameter.opts]
        assert [o for o in options if o.startswith("-") and o not in commands] == []
