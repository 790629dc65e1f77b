"""The page that `run --out` leaves: whole in itself, complete, and honest about what it lacks."""

from __future__ import annotations

import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

SECTIONS = (
    "accuracy", "confusion", "budget", "placement", "conductances", "states", "costs", "scope",
    "cite", "reproduce",
)
VOID = {"meta", "link", "br", "img", "input", "hr"}
LOADING = ("src", "srcset", "poster", "data", "action", "xlink:href")


class Page(HTMLParser):
    """Elements, ids, headings and texts of a page; unbalanced tags are an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.elements: list[tuple[str, dict]] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.elements.append((tag, found))
        if "id" in found:
            self.ids.append(found["id"])
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def of(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


@pytest.fixture(scope="module")
def pages(files, tmp_path_factory):
    """Folder name -> page of a run, and its record: labelled, unlabelled, ideal."""
    from typer.testing import CliRunner

    from aimc_sim.cli.main import app

    root = tmp_path_factory.mktemp("pages")
    runs = {
        "labelled": ("data.npz", "--chips", 3, "--at", "0s,1h", "--sample", 4),
        "unlabelled": ("unlabelled.npz", "--at", "1h", "--budget", "--ablate"),
        "ideal": ("data.npz", "--chip", "ideal", "--form", "digital", "--at", "0s"),
    }
    found = {}
    for name, (data, *options) in runs.items():
        arguments = ["run", files / "tiny.pt", "--data", files / data, *options, "--out",
                     root / name, "--quiet"]
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.output
        folder = root / name
        found[name] = (
            (folder / "report.html").read_text("utf-8"),
            json.loads((folder / "report.json").read_text("utf-8")),
        )
    return found


@pytest.mark.compiled
@pytest.mark.parametrize("name", ["labelled", "unlabelled", "ideal"])
def test_a_page_is_well_formed_complete_and_needs_nothing_else(pages, name):
    text, record = pages[name]
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    assert set(SECTIONS) <= set(page.ids)
    links = [attrs["href"] for attrs in page.of("a")]
    assert all(link.startswith("#") and link[1:] in page.ids for link in links)
    assert "://" not in text
    loaded = [
        attrs[name] for _, attrs in page.elements for name in LOADING
        if name in attrs and not attrs[name].startswith("data:")
    ]
    assert loaded == []
    assert page.of("link") == [] and "@import" not in text
    assert len(text.encode()) < 3_000_000
    assert page.of("html") == [{"lang": "en"}]
    assert [tag for tag, _ in page.elements].count("h1") == 1
    assert all(attrs["role"] == "img" and attrs["aria-label"] for attrs in page.of("svg"))
    assert record["command"] in page.text
    for name, version in record["versions"].items():
        assert f"{name} {version}" in page.text
    for digest in record["hashes"].values():
        assert digest is None or digest in text
    for reference in record["cite"]:
        assert reference in page.text


@pytest.mark.compiled
def test_the_verdict_and_the_plots_say_what_the_record_says(pages):
    text, record = pages["labelled"]
    page, scores = Page(text), record["accuracy"]
    last = scores["chip"][-1]
    assert f"{100 * last['mean']:.1f} % right 1 h after programming on 3 chips" in page.text
    assert record["costs"]["verdict"]["text"] in page.text
    labels = [attrs["aria-label"] for attrs in page.of("svg")]
    (accuracy,) = [label for label in labels if label.startswith("Accuracy of the chips")]
    assert f"{100 * scores['chip'][0]['mean']:.1f} % at 0 s" in accuracy
    (confusion,) = [label for label in labels if label.startswith("Confusion matrix of 3 classes")]
    right = round(3 * 20 * last["mean"])  # three chips, twenty sequences
    assert f"{right} of 60 answers are right" in confusion
    assert "States of sequence 4 step by step" in text
    assert all(float(share) >= 0 for share in record["costs"]["in_logic_j"].values())
    for name, kinds in record["costs"]["in_logic_breakdown_j"].items():
        assert sum(kinds.values()) == pytest.approx(record["costs"]["in_logic_j"][name])


@pytest.mark.compiled
def test_a_run_without_labels_has_a_page_without_accuracy_that_says_so(pages):
    text, record = pages["unlabelled"]
    page = Page(text)
    assert "No labels, so no accuracy" in page.text
    assert "The data have no labels" in page.text
    labels = [attrs["aria-label"] for attrs in page.of("svg")]
    assert not any("Accuracy" in label or "Confusion" in label for label in labels)
    assert "accuracy-plot" not in page.ids and "confusion-plot" not in page.ids
    assert "Each non-ideality switched off alone" in page.text
    assert any(row["layer"] for row in record["budget"])
    assert "puts the figures into report.json" not in page.text  # they are there


@pytest.mark.compiled
@pytest.mark.parametrize("name", ["labelled", "ideal"])
def test_the_size_of_the_model_is_shown_whether_its_costs_are_known_or_not(pages, name):
    text, record = pages[name]
    size, page = record["complexity"], Page(text)
    for row in (
        f"parameters {size['parameters']}", f"memory {size['memory_bits'] / 1000:.4g} kbit",
        f"multiply-accumulates of a step {size['macs_per_step']}",
        f"bit operations of a step {size['bops_per_step'] / 1000:.4g} thousand",
    ):
        assert row in " ".join(page.text.split())


@pytest.mark.compiled
def test_a_chip_without_costs_or_causes_says_why_they_are_missing(pages):
    page = Page(pages["ideal"][0])
    assert "no verdict on A" in page.text
    assert "An ideal converter has no energy" in page.text
    assert "energy-plot" not in page.ids
    assert "Not there: budget" in page.text
    assert "everything of a real device" in page.text


@pytest.mark.compiled
def test_the_budget_of_the_page_is_a_small_sample_and_says_so(pages):
    text, record = pages["labelled"]
    assert "budget" not in record
    assert "A small sample: --budget runs more" in Page(text).text
    assert "budget-plot" in Page(text).ids


@pytest.mark.compiled
def test_of_many_tiles_a_sample_is_shown_and_less_of_it_where_the_page_would_grow_too_large(
    files, monkeypatch
):
    from aimc_sim.cli.costs import add_run_costs
    from aimc_sim.cli.data import choose_data
    from aimc_sim.cli.run import make_record
    from aimc_sim.pages import cells
    from aimc_sim.pages.exhibits import Exhibits
    from aimc_sim.pages.run import run_page
    from aimc_sim.specs import ChipSpec
    from ssm.checkpoint import load
    from ssm.evaluate import evaluate

    # what counts here is which tiles are drawn, not how
    monkeypatch.setattr(cells, "draw", lambda drawing: '<svg width="9pt" height="9pt"></svg>')
    model = load(files / "tiny.pt")
    spec = ChipSpec.preset("cmo-hfox").replace(
        **{"tile.rows": 8, "tile.cols": 8, "short_tile.cols": 8}
    )
    used = choose_data(model, str(files / "data.npz"), None)
    found = evaluate(model, spec, used.x, used.y, calibrate=used.calibrate)
    record = make_record(found, model, used, 0, "aimc-sim run")
    add_run_costs(record, found, used.x, 0)
    shown = Exhibits(found.deployment.program(seed=0).chip)
    n = found.deployment.layout.n_tiles
    assert n > 6

    def maps(page):
        return sum(name[13:].isdigit() for name in Page(page).ids if name[:13] == "conductances-")

    whole = run_page(record, shown)
    assert f"A sample of 6 of {n} tiles, so that the page stays small" in whole
    assert maps(whole) == 6 and "Only the first" not in whole
    less = run_page(record, shown, most_bytes=len(whole.encode()) - 1)
    assert f"A sample of 3 of {n} tiles" in less and maps(less) == 3
    least = run_page(record, shown, most_bytes=1)
    assert f"A sample of 1 of {n} tiles" in least and "Only the first 4 are drawn" in least


@pytest.mark.compiled
@pytest.mark.parametrize(
    ("options", "found"),
    [
        (("--sample", 20, "--out", "new"), "the run scores sequences 0 to 19"),
        (("--sample", 5, "--limit", 5, "--out", "new"), "sequences 0 to 4"),
        (("--sample", -1, "--out", "new"), "sequences 0 to 19"),
        (("--sample", 1), "there is no --out"),
        (("--out", "taken"), "the folder exists"),
        (("--out", "taken/file"), "that is not a folder"),
        (("--out", "nowhere/new"), "there is no folder nowhere"),
    ],
)
def test_what_cannot_be_shown_or_written_is_refused_before_the_run(
    cli, files, tmp_path, options, found
):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("mine", "utf-8")
    result = cli("run", files / "tiny.pt", "--data", files / "data.npz", *options, code=2)
    assert found in result.stderr
    assert all(part in result.stderr for part in ("asked:", "found:", "to do:"))
    assert {path.name for path in tmp_path.iterdir()} == {"taken"}
    assert (tmp_path / "taken" / "file").read_text("utf-8") == "mine"


@pytest.mark.compiled
@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_to_is_an_error_in_three_parts(cli, files, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    result = cli("run", files / "tiny.pt", "--data", files / "data.npz", "--out", "locked/new",
                 code=2)
    assert "is not writable" in result.stderr and "to do:" in result.stderr


@pytest.mark.compiled
def test_a_write_that_fails_leaves_no_half_report(cli, files, tmp_path, monkeypatch):
    def fail(self, *_: object, **__: object) -> int:
        if self.name == "report.html":
            raise OSError(28, "No space left on device")
        return write_text(self, *_, **__)

    write_text = Path.write_text
    monkeypatch.setattr(Path, "write_text", fail)
    result = cli("run", files / "tiny.pt", "--data", files / "data.npz", "--limit", 2, "--at", "0s",
                 "--out", "new", code=2)
    assert "No space left" in result.stderr and "check the disk" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.compiled
def test_names_with_signs_of_html_and_formulas_are_shown_as_they_are(cli, files, tmp_path):
    from ssm.checkpoint import load, save

    name = '<b>$_$ & "x"'
    save(load(files / "tiny.pt").replace(name=name), tmp_path / "odd.pt")
    cli("run", "odd.pt", "--data", files / "data.npz", "--limit", 3, "--at", "0s", "--out", "out")
    text = Path("out/report.html").read_text("utf-8")
    page = Page(text)
    assert page.text.count(f"{name} on pcm-nandakumar2019") == 2  # title and heading
    assert f"{name}, form leapfrog" in page.text  # of the plot
    assert page.of("b") == []


@pytest.mark.compiled
def test_the_code_of_the_text_on_reports_runs(monkeypatch, capsys):
    root = Path(__file__).parents[2]
    (code,) = re.findall(
        r"^```python\n(.*?)^```", (root / "docs" / "report.md").read_text("utf-8"), re.M | re.S
    )
    monkeypatch.chdir(root)
    exec(code, {})
    assert capsys.readouterr().out.startswith("tile 1: error\n")


@pytest.mark.compiled
def test_answers_that_are_not_finite_are_warned_of_at_the_top(pages):
    from aimc_sim.pages.run import _verdict

    _, record = pages["labelled"]
    assert "not finite: see" not in _verdict(record)
    assert "not finite: see" in _verdict({**record, "diverged": 3})
    lost = [{**row, "relative_rms": None} for row in record["logit_error"]]
    silent = {
        **record, "logit_error": lost, "accuracy": {**record["accuracy"], "float": None}
    }
    assert "have no finite answer" in _verdict(silent)


def test_tiles_are_chosen_one_of_every_array_first():
    from aimc_sim.chip import Chip
    from aimc_sim.mapping import Request, place
    from aimc_sim.pages.cells import chosen_tiles
    from aimc_sim.specs import ChipSpec

    spec = ChipSpec.preset("ideal").replace(**{"tile.rows": 4, "tile.cols": 8})
    layout = place([Request("a", 1, 4, 4), Request("b", 1, 40, 4), Request("c", 1, 4, 4)], spec)
    chip = Chip(spec, layout, np.full(layout.n_cells, spec.device.g_min_s))
    first = {name: min(p.tile for p in layout.rectangles if p.array == name) for name in "abc"}
    assert set(first.values()) <= set(chosen_tiles(chip, 6))
    assert len(chosen_tiles(chip, 6)) == 6
    assert chosen_tiles(chip, 99) == list(range(layout.n_tiles))
