"""A fit as a record for programs, and as a page for people that holds its own pictures."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from aimc_sim.fields import Spec
from aimc_sim.pages.html import INK, PAPER, details, document, figure, section, table, text
from calibration.fit import LARGEST_RELATIVE

if TYPE_CHECKING:
    from aimc_sim.cards import DeviceSpec
    from calibration.fit import Fit

SCHEMA = "aimc-sim.calibrate/1"


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
    """Return a page that says what was fitted and shows it, and needs no other file.

    card : TOML of the device that the fit made, shown at the end.
    """
    parts = [
        ("fit", "Fit", "".join(_head(fit))), ("pictures", "Pictures", _pictures(fit)),
        ("values", "Values", _values(fit)),
    ]
    if fit.heldout:
        parts.append(
            (
                "heldout", "Held-out check",
                '<p class="soft">Predicted by a fit of one part of the data, found in the rest; '
                "the deviation is in units of its own standard error.</p>"
                + table(
                    ("", "predicted", "found", "error", "deviation"),
                    [
                        (
                            item.what, _number(item.predicted, item.unit),
                            _number(item.found, item.unit), _number(item.error),
                            f"{item.deviation:+.1f}",
                        )
                        for item in fit.heldout
                    ],
                ),
            )
        )
    parts.append(("goodness", "Goodness of fit", _goodness(fit)))
    if fit.notes:
        parts.append(("notes", "Notes", "".join(f"<p>{text(note)}</p>" for note in fit.notes)))
    files = details("Report as text", f"<pre>{text(fit.report())}</pre>")
    if card is not None:
        files += details("Device card", f"<pre>{text(card)}</pre>")
    parts.append(("files", "As text", files))
    body = "\n".join(section(*part) for part in parts)
    contents = [(name, title) for name, title, _ in parts]
    return document(f"{fit.kind}: {fit.model}", body, contents)


def _head(fit: Fit) -> list[str]:
    facts = [f"{fit.n:,} points"]
    facts += [f"{count:,} left out ({why})" for why, count in fit.dropped.items()]
    if fit.g_range_s is not None:
        facts.append("{:.4g} to {:.4g} uS".format(*(1e6 * g for g in fit.g_range_s)))
    if fit.time_range_s is not None:
        facts.append("{:.4g} to {:.4g} s".format(*fit.time_range_s))
    lines = [f'<p class="lead">{text("; ".join(facts))}</p>']
    if not fit.converged:
        lines.insert(0, '<p class="bad">The fit did not converge: its values are no device\'s.</p>')
    if fit.source is not None:
        said = f"{fit.source.path}, sha256 {fit.source.sha256}, {fit.source.date}"
        lines.append(f'<p class="soft"><code>{text(said)}</code></p>')
        if fit.source.command:
            lines.append(f'<p class="soft"><code>{text(fit.source.command)}</code></p>')
    return lines


def _values(fit: Fit) -> str:
    rows = [
        (name, _number(item.value), _number(item.stderr), item.unit or "1",
         f"{100 * item.relative:.2g} %" if item.relative < LARGEST_RELATIVE else "")
        for name, item in fit.parameters.items()
    ]
    return table(("", "value", "standard error", "unit", "relative"), rows)


def _goodness(fit: Fit) -> str:
    rows = [(name.replace("_", " "), _number(value)) for name, value in fit.goodness.items()]
    own = fit.goodness.get("aic", math.nan)
    rows += [
        (f"aic of {name}", f"{_number(aic)} ({aic - own:+.4g})")
        for name, aic in fit.alternatives.items()
    ]
    return table(("", "value"), rows)


def _number(value: float, unit: str = "") -> str:
    return f"{value:.5g} {unit}".strip()


def _pictures(fit: Fit) -> str:
    """Return every picture as a figure that takes its colours from the page."""
    from calibration.plotting import draw_svg

    drawn = draw_svg(fit, ink=INK, paper=PAPER)
    said = [f"{panel.title}: {panel.y_label} against {panel.x_label}" for panel in fit.panels]
    said.append(f"standardised residuals against {fit.x_label}")
    figures = [
        figure(svg, name, alt) for (name, svg), alt in zip(drawn.items(), said, strict=True)
    ]
    return f'<div class="plots">{"".join(figures)}</div>'
