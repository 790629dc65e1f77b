"""Rows of figures, as a table for people and as JSON for programs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from rich.console import Console

    from benchmarks.timing import Timing

SCHEMA = "aimc-sim.benchmarks/1"
_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"))
_TABLE_WIDTH = 140  # where stdout is no terminal


@dataclass(frozen=True, eq=False)
class Row:
    """One figure. Durations are seconds per `per`; arrays hold one value a round.

    ours, limit, peer : (rounds,), measured in turns; limit and peer None where there is none.
    limit_of, peer_of : what they are, in words. goal_s : what ours must not exceed.
    goal_gain : how many times as long the peer must take. note : what the reader should know; a
    row that could not run has a note and no figures.
    """

    name: str
    what: str
    per: str
    threads: int
    ours: np.ndarray | None = None
    limit: np.ndarray | None = None
    limit_of: str = ""
    peer: np.ndarray | None = None
    peer_of: str = ""
    goal_s: float | None = None
    goal_gain: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Median over rounds of ours / limit: both were slow or fast in the same rounds."""
        return _ratio(self.ours, self.limit)

    @property
    def gain(self) -> float | None:
        """Median over rounds of peer / ours."""
        return _ratio(self.peer, self.ours)

    @property
    def met(self) -> bool | None:
        """Whether the median reaches the goal; None without goal or figure."""
        if self.ours is None or self.goal_s is None:
            return None
        return bool(np.median(self.ours) <= self.goal_s)

    @property
    def gain_met(self) -> bool | None:
        """Whether the peer takes as many times as long as asked; None without goal or peer."""
        if self.gain is None or self.goal_gain is None:
            return None
        return self.gain >= self.goal_gain

    @property
    def reachable(self) -> bool | None:
        """Whether the limit of this machine lies below the goal; None without both."""
        if self.limit is None or self.goal_s is None:
            return None
        return bool(np.median(self.limit) <= self.goal_s)

    def record(self) -> dict[str, Any]:
        """Return the row as plain values; what does not exist is null."""
        low, high = (None, None) if self.ours is None else np.quantile(self.ours, (0.25, 0.75))
        return {
            "name": self.name,
            "what": self.what,
            "per": self.per,
            "threads": self.threads,
            "ours_s": _median(self.ours),
            "ours_low_s": None if low is None else float(low),
            "ours_high_s": None if high is None else float(high),
            "rounds": 0 if self.ours is None else len(self.ours),
            "limit_s": _median(self.limit),
            "limit_of": self.limit_of,
            "ratio_to_limit": self.ratio,
            "peer_s": _median(self.peer),
            "peer_of": self.peer_of,
            "ratio_to_peer": _ratio(self.ours, self.peer),
            "goal_s": self.goal_s,
            "goal_gain": self.goal_gain,
            "met": self.met,
            "gain_met": self.gain_met,
            "reachable": self.reachable,
            "note": self.note,
        }


@dataclass(frozen=True)
class Benchmark:
    """A row that can be measured: its name, what it is, and the function that makes it."""

    name: str
    what: str
    measure: Callable[[Benchmark, Timing], Row] = field(repr=False)
    cold: bool = False  # takes minutes: only on request


def _median(values: np.ndarray | None) -> float | None:
    return None if values is None else float(np.median(values))


def _ratio(ours: np.ndarray | None, other: np.ndarray | None) -> float | None:
    if ours is None or other is None:
        return None
    return float(np.median(ours / other))


def _unit(seconds: float) -> tuple[float, str]:
    return next((unit for unit in _UNITS if seconds >= unit[0]), _UNITS[-1])


def _number(seconds: float | None, scale: float) -> str:
    if seconds is None:
        return "-"
    value = seconds / scale
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _cells(row: Row) -> list[str]:
    ours = _median(row.ours)
    scale, unit = _unit(ours if ours is not None else row.goal_s or 1.0)
    ratio = row.ratio
    verdict = {True: "[green]yes[/]", False: "[red]no[/]", None: "-"}[row.met]
    if row.reachable is False:
        verdict += "\nlimit > goal"
    lines = [f"[bold]{row.name}[/]", row.what]
    if row.limit is not None:
        lines.append(f"[dim]limit: {row.limit_of}[/]")
    if row.peer is not None:
        lines.append(f"[dim]peer: {row.peer_of}[/]")
    return [
        "\n".join(lines),
        str(row.threads),
        f"{unit} / {row.per}",
        f"[bold]{_number(ours, scale)}[/]",
        _number(_median(row.limit), scale),
        "-" if ratio is None else f"{ratio:.2f}",
        _number(_median(row.peer), scale),
        _gain_cell(row),
        _number(row.goal_s, scale),
        verdict,
    ]


def _gain_cell(row: Row) -> str:
    """Return peer / ours, and the goal where there is one."""
    text = "-" if row.gain is None else f"{row.gain:.1f}"
    if row.goal_gain is None:
        return text
    verdict = {True: "\n[green]yes[/]", False: "\n[red]no[/]", None: ""}[row.gain_met]
    return f"{text}\ngoal {row.goal_gain:g}{verdict}"


def print_rows(rows: list[Row], machine: dict[str, Any], *, quick: bool) -> None:
    """Print machine, table and notes to stdout."""
    from rich.table import Table

    console = open_console()
    console.print(machine_text(machine), highlight=False)
    if quick:
        console.print("[yellow]Smoke run: these figures mean nothing.[/]")
    table = Table(show_lines=True)
    table.add_column("benchmark")
    table.add_column("threads", justify="right")
    table.add_column("unit", no_wrap=True)
    for title in ("ours", "limit", "ours/limit", "peer", "peer/ours", "goal", "met"):
        table.add_column(title, justify="right")
    for row in rows:
        table.add_row(*_cells(row))
    console.print(table)
    for row in rows:
        if row.note:
            console.print(f"{row.name}: {row.note}", highlight=False)


def machine_text(machine: dict[str, Any]) -> str:
    """Return what the figures were measured on, in three lines."""
    load = machine["load_average"]
    return (
        f"{machine['date']}, {machine['cpu']}, {machine['cores']} core(s), "
        f"{' '.join(machine['vectors']) or 'vector sets unknown'}, {machine['system']}, "
        f"load average {'unknown' if load is None else f'{load:.1f}'}, "
        f"copy {machine['copy_gb_per_s']} GB/s\n"
        f"BLAS {machine['blas']}; Python {machine['python']}, numpy {machine['numpy']}, "
        f"numba {machine['numba']}, aimc-sim {machine['aimc_sim']}; "
        f"BLAS and OpenMP pinned to one thread\n{machine['clock']}; peer: {machine['peer']}"
    )


def open_console() -> Console:
    """Return where tables go: as wide as the terminal, or as a page."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=_TABLE_WIDTH)


def write_json(
    path: Path, rows: list[Row], machine: dict[str, Any], warnings: list[str], *, quick: bool
) -> None:
    """Write everything to `path`, whole or not at all."""
    data = {
        "schema": SCHEMA,
        "quick": quick,
        "machine": machine,
        "warnings": warnings,
        "rows": [row.record() for row in rows],
    }
    text = json.dumps(data, indent=2, allow_nan=False) + "\n"
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, "utf-8")
    os.replace(partial, path)
