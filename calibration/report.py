"""A fit as a record for programs, and as a page for people that holds its own pictures."""

from __future__ import annotations

import dataclasses
import html
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from aimc_sim.fields import Spec

if TYPE_CHECKING:
    from aimc_sim.cards import DeviceSpec
    from calibration.fit import Fit

SCHEMA = "aimc-sim.calibrate/1"
# colours of the pictures -> variables of the page, so that one picture is light and dark
_INK, _PAPER = "#0b0c0d", "#fdfdfc"
_VARIABLES = {
    _INK: "var(--ink)", _PAPER: "var(--paper)", "#0072b2": "var(--points)",
    "#d55e00": "var(--curve)", "#56b4e9": "var(--band)",
}
_STYLE = """
:root{color-scheme:light dark;--ink:#1c1e21;--soft:#5b6067;--paper:#fff;--line:#d9dce0;
--points:#0072b2;--curve:#d55e00;--band:#56b4e9;--bad:#b3261e}
@media(prefers-color-scheme:dark){:root{--ink:#e6e8ea;--soft:#a2a8af;--paper:#16181b;
--line:#3a3f45;--points:#5cb3e6;--curve:#f29a4a;--band:#2c6f97;--bad:#ff8a80}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1rem;max-width:64rem;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,sans-serif}
h1{font-size:1.5rem;line-height:1.25;margin:.5rem 0}h2{font-size:1.1rem;margin:2rem 0 .5rem}
p{margin:.4rem 0}.soft{color:var(--soft)}.bad{color:var(--bad);font-weight:600}
.wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .9rem .25rem 0;text-align:right;border-bottom:1px solid var(--line);
white-space:nowrap}th:first-child,td:first-child{text-align:left}th{font-weight:600}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,24rem),1fr));gap:1rem}
figure{margin:0}svg{width:100%;height:auto;display:block}
code,pre{font:13px/1.45 ui-monospace,monospace;overflow-wrap:anywhere}
pre{overflow-x:auto;white-space:pre;overflow-wrap:normal}summary{cursor:pointer}
"""


def make_record(fit: Fit, *, command: str, device: DeviceSpec | None = None) -> dict[str, Any]:
    """Return the `aimc-sim.calibrate/1` record of a fit: plain numbers, texts and lists."""
    from aimc_sim import __version__

    return {
        "schema": SCHEMA,
        "version": __version__,
        "command": command,
        "kind": fit.kind,
        "model": fit.model,
        "n": fit.n,
        "converged": fit.converged,
        "parameters": {name: dataclasses.asdict(item) for name, item in fit.parameters.items()},
        "correlation": fit.correlation.tolist(),
        "goodness": dict(fit.goodness),
        "alternatives": dict(fit.alternatives),
        "heldout": [
            {**dataclasses.asdict(item), "deviation": item.deviation} for item in fit.heldout
        ],
        "dropped": dict(fit.dropped),
        "g_range_s": fit.g_range_s,
        "time_range_s": fit.time_range_s,
        "source": None if fit.source is None else dataclasses.asdict(fit.source),
        "part": {
            name: value.model_dump(exclude_defaults=True) if isinstance(value, Spec) else value
            for name, value in fit.part.items()
        },
        "device": None if device is None else device.name,
        "notes": list(fit.notes),
    }


def to_html(fit: Fit, *, card: str | None = None) -> str:
    """Return a page that says what was fitted and shows it: no other file, no script.

    card : TOML of the device that the fit made, shown at the end.
    """
    title = f"{fit.kind}: {fit.model}"
    parts = [f"<h1>{_text(title)}</h1>", *_head(fit)]
    parts += ["<h2>Pictures</h2>", '<div class="plots">']
    parts += [f"<figure>{svg}</figure>" for svg in _inline_pictures(fit)]
    parts += ["</div>", "<h2>Values</h2>", _values(fit)]
    if fit.heldout:
        parts += [
            "<h2>Held-out check</h2>",
            '<p class="soft">Predicted by a fit of one part of the data, found in the rest; the '
            "deviation is in units of its own standard error.</p>",
            _table(
                ("", "predicted", "found", "error", "deviation"),
                [
                    (item.what, _number(item.predicted, item.unit), _number(item.found, item.unit),
                     _number(item.error), f"{item.deviation:+.1f}")
                    for item in fit.heldout
                ],
            ),
        ]
    parts += ["<h2>Goodness of fit</h2>", _goodness(fit)]
    if fit.notes:
        parts += ["<h2>Notes</h2>", *(f"<p>{_text(note)}</p>" for note in fit.notes)]
    parts.append(f"<details><summary>Report as text</summary><pre>{_text(fit.report())}</pre>"
                 "</details>")
    if card is not None:
        parts.append(f"<details><summary>Device card</summary><pre>{_text(card)}</pre></details>")
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<title>{_text(title)}</title>\n<style>{_STYLE}</style></head>\n<body>\n{body}\n"
        "</body></html>\n"
    )


def _head(fit: Fit) -> list[str]:
    facts = [f"{fit.n:,} points"]
    facts += [f"{count:,} left out ({why})" for why, count in fit.dropped.items()]
    if fit.g_range_s is not None:
        facts.append("{:.4g} to {:.4g} uS".format(*(1e6 * g for g in fit.g_range_s)))
    if fit.time_range_s is not None:
        facts.append("{:.4g} to {:.4g} s".format(*fit.time_range_s))
    lines = [f"<p>{_text('; '.join(facts))}</p>"]
    if not fit.converged:
        lines.insert(0, '<p class="bad">The fit did not converge: its values are no device\'s.</p>')
    if fit.source is not None:
        said = f"{fit.source.path}, sha256 {fit.source.sha256}, {fit.source.date}"
        lines.append(f'<p class="soft"><code>{_text(said)}</code></p>')
        if fit.source.command:
            lines.append(f'<p class="soft"><code>{_text(fit.source.command)}</code></p>')
    return lines


def _values(fit: Fit) -> str:
    rows = [
        (name, _number(item.value), _number(item.stderr), item.unit or "1",
         f"{100 * abs(item.stderr / item.value):.2g} %" if item.value else "")
        for name, item in fit.parameters.items()
    ]
    return _table(("", "value", "standard error", "unit", "relative"), rows)


def _goodness(fit: Fit) -> str:
    rows = [(name.replace("_", " "), _number(value)) for name, value in fit.goodness.items()]
    own = fit.goodness.get("aic", math.nan)
    rows += [
        (f"aic of {name}", f"{_number(aic)} ({aic - own:+.4g})")
        for name, aic in fit.alternatives.items()
    ]
    return _table(("", "value"), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{_text(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "".join(line(row, "td") for row in rows)
    table = f"<table><thead>{line(head, 'th')}</thead><tbody>{body}</tbody></table>"
    return f'<div class="wide">{table}</div>'


def _number(value: float, unit: str = "") -> str:
    return f"{value:.5g} {unit}".strip()


def _text(text: str) -> str:
    return html.escape(text)


def _inline_pictures(fit: Fit) -> list[str]:
    """Return every picture as SVG that takes its colours from the page."""
    from calibration.plotting import draw_svg

    drawn = draw_svg(fit, ink=_INK, paper=_PAPER)
    return [_at_home(svg, f"p{number}-") for number, svg in enumerate(drawn)]


def _at_home(svg: str, prefix: str) -> str:
    """Return an SVG fit to stand beside others in a page: ids of its own, the page's colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = re.sub(r'(href="|url\()#', rf"\1#{prefix}", svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    for colour, variable in _VARIABLES.items():
        svg = re.sub(colour, variable, svg, flags=re.IGNORECASE)
    return svg
