"""What a person reads of costs: energy, time and area, the digital twin, the verdict, constants."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

Record = Mapping[str, Any]
_PREFIXES = (("", 1.0), ("m", 1e-3), ("u", 1e-6), ("n", 1e-9), ("p", 1e-12), ("f", 1e-15))
_IDENTIFIER = re.compile(r",? doi:[^\s,]+")
_LEAST_SHARE = 0.005  # of the energy: smaller parts round to nothing


def with_prefix(value: float, unit: str) -> str:
    """Return a number with the SI prefix that suits it.

    Examples
    --------
    >>> with_prefix(3.21e-7, "J"), with_prefix(0.0, "s")
    ('321 nJ', '0 s')
    """
    for prefix, factor in _PREFIXES:
        if abs(value) >= 0.9995 * factor:
            return f"{value / factor:.3g} {prefix}{unit}"
    return "0 " + unit if value == 0 else f"{value:.3g} {unit}"


def cost_text(record: Record) -> str:
    """Return lines on energy, time, area and A; "" where the costs are not known.

    record : of `aimc-sim.run/1` (a sequence) or `aimc-sim.map/1` (a step).
    """
    costs = record.get("costs")
    if costs is None:
        return ""
    breakdown = record["energy_breakdown_j"]
    lines = [_totals(record), "energy in " + _shares(breakdown["kind"])]
    lines.append("energy of " + _shares(breakdown["part"]))
    if len(breakdown["layer"]) > 1:
        lines.append("energy of " + _shares(breakdown["layer"]))
    if "in_logic_j" in costs:
        twins = ", ".join(
            f"{name} {with_prefix(joule, 'J')}" for name, joule in costs["in_logic_j"].items()
        )
        lines.append(f"the same model in logic: {twins} a {costs['of']}")
    lines.append(costs["verdict"]["text"])
    return "\n".join(lines)


def _totals(record: Record) -> str:
    costs = record["costs"]
    per_step = with_prefix(costs["energy_j_per_step"], "J")
    energy = f"energy {per_step} a step"
    if costs["of"] == "sequence":
        energy = f"energy {with_prefix(record['energy_j_per_inference'], 'J')} a sequence"
        energy += f", {per_step} a step; {with_prefix(record['latency_s_per_inference'], 's')}"
        energy += " a sequence"
    area_mm2 = 1e6 * record["area_m2"]
    return (
        f"{energy}; {with_prefix(costs['step_s'], 's')} a step; area {area_mm2:.3g} mm2 at "
        f"{costs['node_nm']:g} nm"
    )


def _shares(parts: Mapping[str, float]) -> str:
    total = sum(parts.values())
    ordered = sorted(parts.items(), key=lambda item: -item[1])
    return ", ".join(
        f"{name or 'encoder and decoder'} {100 * joule / total:.0f} %"
        for name, joule in ordered if joule >= _LEAST_SHARE * total
    )


def complexity_text(record: Record) -> str:
    """Return lines on the size of the model at its precision."""
    found = record["complexity"]
    return (
        f"parameters {found['parameters']}; memory {found['memory_bits'] / 1000:.4g} kbit "
        f"(weights {found['weight_bits'] / 1000:.4g}, states {found['state_bits'] / 1000:.4g}, "
        f"scales {found['scale_bits'] / 1000:.4g})\n"
        f"multiply-accumulates {found['macs_per_step']} a step, "
        f"{found['bops_per_step'] / 1000:.4g} thousand bit operations; "
        f"{found['macs_at_end']} at the end"
    )


def constants_table(record: Record) -> list[Table | Text]:
    """Return the table of constants that the costs used, each with its source, without DOIs."""
    costs = record.get("costs")
    if costs is None:
        return []
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    table.add_column("constant", no_wrap=True)
    table.add_column("value", no_wrap=True, justify="right")
    table.add_column("source")
    for row in costs["constants"]:
        value = f"{row['value']:.4g} {row['unit']}".rstrip()
        table.add_row(row["name"], value, _IDENTIFIER.sub("", row["source"]))
    return [Text(""), table]
