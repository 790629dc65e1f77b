"""Figures of `benchmarks.scale_check` as tables of a Markdown page, between its markers."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RATES = {
    "call_s": "any run",
    "weight_s": "a weight read from its cells",
    "lasting_s": "the noise of a weight that lasts for a sequence",
    "layer_s": "a layer at a step, however small",
    "mode_s": "states of a mode at a step",
    "conversion_s": "a conversion",
    "normal_s": "a normal of read noise",
    "product_s": "a multiply-accumulate of C or mixing",
    "byte_s": "a byte from memory",
    "cell_s": "a cell programmed and aged, once a chip",
    "cache_b": "the last cache of the processor",
}
SIZES = {
    "weight_b": "a weight while a model is laid out",
    "cell_b": "a cell of a chip that runs",
    "task_b": "a task of a sweep and its outcome in memory",
    "line_b": "the line of a task in the journal",
}
PLAN = {
    "two_threads_s": "two threads", "cluster_s": "1,000 threads", "h100_s": "one H100",
    "h100s_s": "100 H100s", "process_b": "a process holds", "outcomes_b": "the sweep holds",
    "journal_b": "its journal", "logits_b": "all logits",
}
NEAR = 0.2  # a prediction is good within this share


def text(value: float, unit: str) -> str:
    """Return seconds ("s") or bytes ("B") as a person writes them, to three digits."""
    scales = {
        "s": ((3.156e7, "y"), (86400, "d"), (3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms"),
              (1e-6, "us"), (1e-9, "ns")),
        "B": ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1, "B")),
    }[unit]
    scale, name = next((found for found in scales if value >= found[0]), scales[-1])
    number = value / scale
    return f"{number:,.0f} {name}" if number >= 100 else f"{number:.3g} {name}"


def figures(data: Mapping[str, Any]) -> str:
    """Return the machine, the constants and all points of a record as Markdown."""
    machine, points = data["machine"], data["points"]
    load = machine["load_average"]
    checks = [point for point in points if not point["fitted"]]
    good = sum(abs(point["predicted"] / point["measured"] - 1) <= NEAR for point in checks)
    sizes = {**data["rates"], **data["sizes"]}
    return "\n\n".join(
        [
            f"{machine['date']}, {machine['cpu']}, {machine['cores']} cores, "
            f"{' '.join(machine['vectors'])}; numpy {machine['numpy']}, numba {machine['numba']}; "
            f"{machine['clock']}; load average {'unknown' if load is None else f'{load:.1f}'}.",
            _table(
                ["constant", "of", "value"],
                [[f"`{key}`", what, text(sizes[key], "s" if key.endswith("_s") else "B")]
                 for key, what in {**RATES, **SIZES}.items()],
            ),
            _table(
                ["run", "used to fit", "predicted", "measured", "ratio"],
                [[point["what"], "yes" if point["fitted"] else "",
                  text(point["predicted"], point["unit"]), text(point["measured"], point["unit"]),
                  f"{point['predicted'] / point['measured']:.2f}"] for point in points],
            ),
            f"{good} of {len(checks)} predictions within 20 % of what was measured.",
        ]
    )


def campaigns(data: Mapping[str, Any]) -> str:
    """Return what campaigns take as a Markdown table."""
    return _table(
        ["campaign", *PLAN.values()],
        [[name, *(text(found[key], "s" if key.endswith("_s") else "B") for key in PLAN)]
         for name, found in data["campaigns"].items()],
    )


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_page(path: Path, data: Mapping[str, Any]) -> None:
    """Put the figures between the markers of a page, whole or not at all."""
    page = path.read_text("utf-8")
    for name, found in (("figures", figures(data)), ("campaigns", campaigns(data))):
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        page = re.sub(
            f"{begin}.*?{end}", lambda _, new=f"{begin}\n{found}\n{end}": new, page,  # type: ignore[misc]
            flags=re.DOTALL,
        )
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(page, "utf-8")
    os.replace(partial, path)
