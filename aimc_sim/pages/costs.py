"""Energy, area and time of a run as a section of its page, beside the same model in logic."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from aimc_sim.cost_report import with_prefix
from aimc_sim.pages.exhibits import NARROW, Record, Section, draw
from aimc_sim.pages.html import beside, details, figure, table, text
from aimc_sim.plotting import plot_area, plot_energy


def cost_section(record: Record) -> Section:
    """Return name, title and inside of the section on costs of an `aimc-sim.run/1` record."""
    name, title = "costs", "Energy, area and time"
    costs = record.get("costs")
    if costs is None:
        why = next((note for note in record["notes"] if note.startswith("no costs")), "not known")
        return name, title, f"<p>{text(why)}</p>{_size(record)}"
    parts = [f"<p>{text(costs['verdict']['text'])}.</p>", beside(*_plots(record)), _totals(record)]
    breakdown = record["energy_breakdown_j"]
    for field, head in (("part", "part of the model"), ("layer", "layer")):
        parts.append(details(f"Energy by {head}", _shares(breakdown[field], head)))
    constants = [
        (row["name"], f"{row['value']:.4g} {row['unit']}".strip(), row["source"])
        for row in costs["constants"]
    ]
    parts.append(
        details(
            "Every constant and its source",
            table(("constant", "value", "source"), constants, prose=True),
        )
    )
    parts.append(_size(record))
    return name, title, "".join(parts)


def _size(record: Record) -> str:
    """Return how large the model is at its precision."""
    found = record["complexity"]
    rows = [
        ("parameters", str(found["parameters"])),
        *((what, f"{found[key] / 1000:.4g} kbit") for what, key in (
            ("memory", "memory_bits"), ("of it weights", "weight_bits"),
            ("states", "state_bits"), ("scales", "scale_bits"),
        )),
        ("multiply-accumulates of a step", str(found["macs_per_step"])),
        ("bit operations of a step", f"{found['bops_per_step'] / 1000:.4g} thousand"),
        ("multiply-accumulates at the end", str(found["macs_at_end"])),
    ]
    return details("Size of the model at its precision", table(("", "of the model"), rows))


def _plots(record: Record) -> list[str]:
    costs = record["costs"]
    kinds = record["energy_breakdown_j"]["kind"]
    most = max(kinds, key=lambda kind: kinds[kind])
    twins = ", ".join(
        f"{name} {with_prefix(joule, 'J')}" for name, joule in costs["in_logic_j"].items()
    )
    drawing = partial(plot_energy, record)
    energy = figure(
        draw(drawing), "energy-plot",
        f"Energy of a {costs['of']}: chip {with_prefix(sum(kinds.values()), 'J')}, most of it "
        f"{most}; the same model in logic {twins}.",
        f"A {costs['of']} on the chip by kind of event, beside the same model in digital logic at "
        f"the same node ({costs['node_nm']:g} nm, weights in static memory, batch 1).",
        narrow=draw(drawing, (NARROW, 2.6 + 0.42 * len(costs["in_logic_j"]))),
    )
    areas = ", ".join(f"{name} {1e6 * area:.3g} mm2" for name, area in costs["area_m2"].items())
    drawing = partial(plot_area, record)
    area = figure(
        draw(drawing), "area-plot", f"Area of the chip by kind: {areas}.",
        "The area of logic is not modelled, neither the chip's nor that of the digital model.",
        narrow=draw(drawing, (NARROW, 2.4)),
    )
    return [energy, area]


def _totals(record: Record) -> str:
    costs = record["costs"]
    rows = [
        ("energy of a sequence", with_prefix(record["energy_j_per_inference"], "J")),
        ("energy of a step", with_prefix(costs["energy_j_per_step"], "J")),
        *((f"the same in logic, {name}, a sequence", with_prefix(joule, "J"))
          for name, joule in costs["in_logic_j"].items()),
        ("time of a sequence", with_prefix(record["latency_s_per_inference"], "s")),
        ("time of a step", with_prefix(costs["step_s"], "s")),
        ("area", f"{1e6 * record['area_m2']:.3g} mm2"),
    ]
    if costs.get("writing_j") is not None:
        rows.append(("writing the chip once", with_prefix(costs["writing_j"], "J")))
    return table(("", "of one chip"), rows)


def _shares(parts: Mapping[str, float], head: str) -> str:
    total = sum(parts.values())
    rows = [
        (name or "encoder and decoder", with_prefix(joule, "J"), f"{100 * joule / total:.1f} %")
        for name, joule in sorted(parts.items(), key=lambda item: -item[1])
    ]
    return table((head, "energy", "share"), rows)
