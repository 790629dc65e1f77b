"""`aimc-sim sweep`: a model on many chips, in every combination that a file asks for."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aimc_sim.cli.options import (
    Force,
    Json,
    Quiet,
    at_least,
    check_front_end,
    choose,
    command_line,
    one_line_warnings,
)
from aimc_sim.cli.outputs import Outputs, write_whole
from aimc_sim.cli.run import note_compilation
from aimc_sim.errors import InputError, UsageError

if TYPE_CHECKING:
    import xarray
    from rich.console import Group

    from aimc_sim.sweep import Campaign, Progress

SweepFile = Annotated[
    Path, typer.Argument(metavar="FILE.toml", help="What is swept (docs/sweeps.md).")
]
OutFile = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="FILE.nc",
        help="Results; FILE.journal beside it keeps them task by task (default: the name of the "
        "sweep file, in this folder).",
    ),
]
Processes = Annotated[
    int | None, typer.Option(help="Processes of this machine (default: one for every core).")
]
ClusterAddress = Annotated[
    str | None,
    typer.Option("--cluster", metavar="tcp://HOST:PORT", help="Run on this Dask cluster instead."),
]
Until = Annotated[
    str | None,
    typer.Option(
        metavar="0.1%",
        help="Stop repeating where the 95 % interval of the mean is no wider to either side.",
    ),
]
Retry = Annotated[bool, typer.Option("--retry", help="Run tasks again that failed before.")]
Plot = Annotated[
    Path | None, typer.Option(metavar="FILE.png", help="Also draw accuracy over what is swept.")
]
Against = Annotated[
    str | None, typer.Option(metavar="NAME", help="With --plot: the horizontal axis.")
]


def sweep(
    context: typer.Context,
    file: SweepFile,
    out: OutFile = None,
    processes: Processes = None,
    cluster: ClusterAddress = None,
    until: Until = None,
    retry: Retry = False,
    plot: Plot = None,
    against: Against = None,
    force: Force = False,
    json: Json = None,
    quiet: Quiet = False,
) -> None:
    """Run every combination that a file asks for; killed, it goes on where it was."""
    begun = time.perf_counter()
    at_least("--processes", processes, 1)
    narrow = None if until is None else half_width(until)
    if against is not None and plot is None:
        raise UsageError("use --against", "there is no --plot", "add one or drop --against")
    results = out or Path(f"{file.stem}.nc")
    # results of the same sweep are known by their journal; --force is of the other files
    others = any(name is not None for name in (plot, json))
    outputs = Outputs(json, {"--plot": plot}, None, force and others)
    outputs.check([file])
    with one_line_warnings() as warned, SweepBar(quiet) as bar:
        check_front_end()
        from aimc_sim.sweep import run
        from aimc_sim.sweep.dataset import check_installed
        from ssm.campaign import read_campaign

        check_installed()
        campaign = read_campaign(file)
        if narrow is not None:
            check_until(campaign)
        over = None if plot is None else horizontal_axis(campaign, against)
        if cluster is None:
            compile_once(campaign, quiet)
        found = run(
            campaign, results, processes=processes, cluster=cluster, until=narrow, retry=retry,
            force=force, on_progress=bar.update,
        )
        if plot is not None and over is not None:
            draw(found, campaign, over, plot)
    record = make_record(found, campaign, results, command_line(context))
    record["notes"] += warned
    record["wall_s"] = time.perf_counter() - begun
    from aimc_sim import report

    outputs.show(sweep_report(record, notes=not quiet), report.to_json(record))
    if record["failed"] == record["ended"]:
        raise InputError(
            f"run the sweep {file}", f"all its tasks failed: {record['errors'][0]['error']}",
            "mend the cause and start again with --retry",
        )


def half_width(text: str) -> float:
    """Return the half-width that `--until` asks for, as a share: 0.1% is 0.001."""
    number = text.strip().removesuffix("%")
    try:
        value = float(number) / (100 if text.strip().endswith("%") else 1)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise UsageError(
            f"use --until {text}", "it is no share between 0 and 1",
            "write the half-width of the interval of the accuracy, such as 0.1%",
        )
    return value


def check_until(campaign: Campaign) -> None:
    """Refuse to wait for an interval of what is not repeated."""
    from aimc_sim.sweep.plan import LEAST

    n = 1
    for axis in campaign.axes:
        n *= len(axis.values) if axis.repeats else 1
    if n < LEAST:
        raise UsageError(
            "use --until", f"the sweep repeats {n} times", f"give at least {LEAST} chips or seeds"
        )


def compile_once(campaign: Campaign, quiet: bool) -> None:
    """Run one task here where the kernels have no machine code yet.

    Otherwise every process would compile them at the same time, each for itself.
    """
    from aimc_sim.sweep.tasks import attempt
    from ssm.kernels import are_compiled

    if not are_compiled():
        note_compilation(quiet)
        attempt(campaign.tasks[0], tuple(campaign.outputs))


def horizontal_axis(campaign: Campaign, against: str | None) -> str:
    """Return what --plot draws over: --against, or the first axis with several values.

    Raises UsageError for a name that the sweep lacks, or where nothing is swept.
    """
    axes = [axis for axis in campaign.axes if not axis.repeats]
    known = [name for axis in axes for name in (axis.name, *axis.along)]
    if against is not None:
        return choose("--against", against, known)
    for axis in axes:
        if len(axis.values) > 1:
            return next(iter(axis.along), axis.name)
    raise UsageError(
        "use --plot", "every quantity of the sweep has one value",
        "sweep something, or leave --plot out",
    )


class SweepBar:
    """A bar on stderr, only on a terminal: tasks done, tasks failed, time left."""

    def __init__(self, quiet: bool) -> None:
        self._shown = not quiet and sys.stderr.isatty()
        self._bar: Any = None

    def __enter__(self) -> SweepBar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, at: Progress) -> None:
        """Show how far the sweep is."""
        if not self._shown:
            return
        from aimc_sim.units import format_time

        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("tasks"), BarColumn(), MofNCompleteColumn(),
                TextColumn("{task.description}"),
                console=Console(file=sys.stderr), transient=True,
            )
            self._bar.add_task("")
            self._bar.start()
        failed = f", {at.failed} failed" if at.failed else ""
        text = f"{format_time(at.left_s)} left{failed}"
        self._bar.update(0, completed=at.done, total=at.done + at.left, description=text)


def make_record(
    found: xarray.Dataset, campaign: Campaign, results: Path, command: str
) -> dict[str, Any]:
    """Return the `aimc-sim.sweep-report/1` record of a sweep."""
    from aimc_sim import __version__
    from aimc_sim.sweep.dataset import summarise

    repeats = [axis.name for axis in campaign.axes if axis.repeats]
    first, *others = campaign.outputs
    rows = summarise(found, first, repeats)
    failed = int(found["failed"].sum())
    errors: dict[str, int] = {}
    if failed:
        for text in found["error"].values.ravel():
            if text:
                errors[text] = errors.get(text, 0) + 1
    return {
        "schema": "aimc-sim.sweep-report/1",
        "version": __version__,
        "command": command,
        "sweep": campaign.name,
        "results": str(results),
        "dimensions": {axis.name: list(axis.values) for axis in campaign.axes},
        "repeats": repeats,
        "output": first,
        "tasks": len(campaign.tasks),
        "ended": sum(row["n"] + row["failed"] for row in rows),
        "failed": failed,
        "errors": [{"error": text, "tasks": n} for text, n in errors.items()],
        "rows": rows,
        "verdicts": verdicts(rows, summarise(found, "energy_j", repeats), first, campaign),
        "facts": dict(found.attrs),
        "notes": [],
    }


def verdicts(
    rows: list[dict[str, Any]], energies: list[dict[str, Any]], output: str, campaign: Campaign
) -> list[str]:
    """Return lines on A on tiles against A in logic.

    Where both were swept, what each analog form gives and takes beside digital A with all else
    alike, as it was measured. Else what A costs in the first combination, without a simulation.

    rows, energies : of `summarise`, of the output and of `energy_j`.
    """
    measured = [
        (row["at"].get("form"), _alike(row["at"]), row["mean"], energy["mean"])
        for row, energy in zip(rows, energies, strict=True) if row["mean"] is not None
    ]
    digital = {alike: pair for form, alike, *pair in measured if form == "digital"}
    lines = []
    for form in dict.fromkeys(form for form, *_ in measured if form not in (None, "digital")):
        pairs = [
            ((value, joule), digital[alike]) for own, alike, value, joule in measured
            if own == form and alike in digital
        ]
        if pairs:
            lines.append(_compared(form, pairs, output))
    if lines:
        return lines
    from aimc_sim.errors import AimcError
    from ssm.scoring import judge_task

    task = campaign.tasks[0]
    try:
        return [f"first combination: {judge_task({**task.what, **task.where})}"]
    except AimcError as error:
        return [f"no verdict on A: {error.found}"]


def _alike(at: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Return what a combination has beside its form."""
    return tuple((name, value) for name, value in at.items() if name not in ("form", "point"))


def _compared(form: str, pairs: list[tuple[Any, Any]], output: str) -> str:
    n = len(pairs)
    said = f"A on tiles ({form}) against digital A, all else alike"
    said += f", in {n} combinations: " if n > 1 else ": "
    if output == "accuracy":
        points = [100 * (own[0] - other[0]) for own, other in pairs]
        said += f"accuracy {_span(points, '+.2f')} points"
    else:
        said += f"{output.replace('_', ' ')} {_span([a[0] / b[0] for a, b in pairs], '.2g')} times"
    if any(joule is None for pair in pairs for _, joule in pair):
        return f"{said}; energy is not known"
    return f"{said}, energy of a sequence {_span([a[1] / b[1] for a, b in pairs], '.2g')} times"


def _span(values: list[float], form: str) -> str:
    low, high = f"{min(values):{form}}", f"{max(values):{form}}"
    return low if low == high else f"{low} to {high}"


def sweep_report(record: dict[str, Any], *, notes: bool) -> Group:
    """Return what a person reads of a sweep: a line for every combination."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from aimc_sim.units import format_time

    rows = record["rows"]
    varied = [
        name for name in rows[0]["at"]
        if len({row["at"][name] for row in rows}) > 1 and name != "point"
    ]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for name in varied or ["sweep"]:
        table.add_column("at" if name == "at_s" else name, overflow="fold")
    for name in (record["output"].replace("_", " "), "+- chips", "95 % of mean", "n", "failed"):
        table.add_column(name, justify="right", no_wrap=True)
    percent = record["output"] in ("accuracy", "logit_error")
    for row in rows:
        names = [
            format_time(row["at"][name]) if name == "at_s" else str(row["at"][name])
            for name in varied
        ] or [record["sweep"]]
        bounds = "-" if row["low"] is None else (
            f"{_number(row['low'], percent)} .. {_number(row['high'], percent)}"
        )
        table.add_row(
            *names, _number(row["mean"], percent) + (" %" if percent and row["n"] else ""),
            _number(row["std"], percent), bounds, str(row["n"]), str(row["failed"] or "-"),
        )
    n = record["tasks"]
    title = Text(f"{record['sweep']}", style="bold").append(
        f"\n{n} task{'' if n == 1 else 's'}, {record['ended']} counted; results in "
        f"{record['results']}\n", style="not bold",
    )
    lines = [f"took {record['wall_s']:.2g} s", *record["verdicts"]]
    lines += [f"failed: {row['tasks']} x {row['error']}" for row in record["errors"][:3]]
    if record["errors"]:
        lines.append("--retry runs failed tasks again")
    if notes:
        lines += [f"note: {note}" for note in record["notes"]]
    return Group(title, table, Text("\n" + "\n".join(lines)))


def _number(value: float | None, percent: bool) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.2f}" if percent else f"{value:.4g}"


def draw(found: xarray.Dataset, campaign: Campaign, over: str, path: Path) -> None:
    """Write the picture of a sweep: its first output, over `over`."""
    from aimc_sim.sweep_plots import plot_sweep

    repeats = [axis.name for axis in campaign.axes if axis.repeats]
    ax = plot_sweep(found, next(iter(campaign.outputs)), against=over, repeats=repeats)
    figure: Any = ax.figure
    write_whole(path, lambda aside: figure.savefig(aside, dpi=150))
