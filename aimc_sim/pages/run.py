"""The page of a run: what a chip does to a model, in one file that needs no other."""

from __future__ import annotations

from collections.abc import Sequence

from aimc_sim.pages.cells import conductances_section, placement_section, states_section
from aimc_sim.pages.costs import cost_section
from aimc_sim.pages.exhibits import Exhibits, Record, Section, counted
from aimc_sim.pages.html import beside, details, document, section, table, text
from aimc_sim.pages.scores import accuracy_section, budget_section, confusion_section
from aimc_sim.scope import scope
from aimc_sim.units import format_time

MOST_BYTES = 3_000_000
# tiles of the placement and of the conductances: fewer where the page would grow too large
_TILES_SHOWN = ((64, 6), (16, 3), (4, 1))


def run_page(record: Record, shown: Exhibits, *, most_bytes: int = MOST_BYTES) -> str:
    """Return the page of an `aimc-sim.run/1` record.

    Of a chip of many tiles, maps of conductances are of a sample and the placement of the first
    ones, as many as fit; the page says how many of how many.
    """
    before = [
        accuracy_section(record), confusion_section(record, shown), budget_section(record, shown)
    ]
    after = [
        states_section(record, shown), cost_section(record), _scope(shown), _cite(record),
        _reproduce(record, shown),
    ]
    for placed, mapped in _TILES_SHOWN:
        tiles = [placement_section(shown, placed), conductances_section(shown, mapped)]
        page = _assemble(record, [*before, *tiles, *after])
        if len(page.encode()) < most_bytes:
            break
    return page


def _assemble(record: Record, sections: Sequence[Section]) -> str:
    contents = [(name, title) for name, title, _ in sections]
    body = [_verdict(record), *(section(name, title, inside) for name, title, inside in sections)]
    return document(f"{record['model']} on {record['chip']}", "\n".join(body), contents)


def verdict(record: Record) -> str:
    """Return in a sentence or two what the chip does to the model, and what A costs."""
    last, error = record["accuracy"]["chip"][-1], record["logit_error"][-1]["relative_rms"]
    when, scores = format_time(last["at_s"]), record["accuracy"]
    chips = counted(record["n_chips"], "chip")
    if scores["float"] is None:
        off = "have no finite answer" if error is None else f"are off by {100 * error:.3g} %"
        said = (
            f"No labels, so no accuracy: {when} after programming the logits of {chips} {off} (rms "
            "against the model as trained)."
        )
    else:
        points = 100 * (last["mean"] - scores["float"])
        away = f"{abs(points):.1f} points {'below' if points < 0 else 'above'}"
        if abs(points) < 0.05:
            away = "as many as"
        said = (
            f"{100 * last['mean']:.1f} % right {when} after programming on {chips} (95 %: "
            f"{100 * last['low']:.1f} .. {100 * last['high']:.1f}), {away} the model as trained "
            f"({100 * scores['float']:.1f} %)."
        )
    costs = record.get("costs")
    return said if costs is None else f"{said} {costs['verdict']['text']}."


def _verdict(record: Record) -> str:
    unstable = max(row["max"] for row in record["unstable_modes"])
    facts = [
        ("sequences", f"{record['n_samples']} of {record['n_steps']} steps, {record['data']}"),
        ("form of A", _form(record)),
        ("chips", f"{record['n_chips']}, seed {record['seed']}"),
        ("tiles", f"{record['tiles']}, {100 * record['utilisation']:.1f} % of their cells in use"),
        ("modes outside the unit circle", f"{unstable} of {record['n_modes']}"),
        ("answers that were not finite", str(record["diverged"])),
    ]
    warned = ""
    if record["diverged"] or unstable:
        warned = (
            '<p class="bad">Some modes grow or some answers are not finite: see the tables '
            "below.</p>"
        )
    said = f'<p class="lead">{text(verdict(record))}</p>{warned}'
    return beside(said, table(("", "of this run"), facts, prose=True))


def _form(record: Record) -> str:
    if record["form"] != "leapfrog":
        return str(record["form"])
    return "leapfrog, decay " + ("on tiles" if record["decay"] == "tile" else "digital")


def _scope(shown: Exhibits) -> Section:
    found = scope(shown.chip.spec)
    lists = [
        ("Modelled on this chip", found.modelled), ("Not on this chip", found.absent),
        ("Said by the device's card", found.said), ("Not modelled by this version", found.never),
    ]
    inside = beside(
        *(
            f"<h3>{title}</h3><ul>{''.join(f'<li>{text(line)}</li>' for line in lines)}</ul>"
            for title, lines in lists if lines
        )
    )
    whole = '<p class="soft">The whole list is docs/not-modelled.md of the project.</p>'
    return "scope", "What is modelled, and what is not", inside + whole


def _cite(record: Record) -> Section:
    lines = "".join(f"<li>{text(reference)}</li>" for reference in record["cite"])
    own = "<p>And this simulator: CITATION.cff of the project.</p>"
    return "cite", "What to cite", (f"<ul>{lines}</ul>" if lines else "") + own


def _reproduce(record: Record, shown: Exhibits) -> Section:
    rows = [
        ("seed", str(record["seed"])), ("converter ranges from", record["calibration"]),
        *((name, version) for name, version in record["versions"].items()),
        *((f"sha256 of {name}", value) for name, value in record["hashes"].items() if value),
        ("took", f"{record['wall_s']:.1f} s"),
    ]
    notes = [note for note in record["notes"] if not note.startswith("to cite")]
    inside = (
        f"<pre tabindex=\"0\">{text(record['command'])}</pre>"
        "<p>The same command with the same versions gives the same numbers, for any number of "
        "threads.</p>" + table(("", "of this run"), rows, prose=True)
    )
    if notes:
        inside += "<h3>Notes</h3><ul>" + "".join(f"<li>{text(note)}</li>" for note in notes)
        inside += "</ul>"
    toml = shown.chip.spec.to_toml()
    inside += details("The chip as a file", f'<pre tabindex="0">{text(toml)}</pre>')
    return "reproduce", "Run it again", inside
