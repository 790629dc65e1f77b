"""What a run leaves: its record, table and chip first, then its pictures and its page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aimc_sim.cli.outputs import Outputs, Writer, as_text, write_whole
from aimc_sim.cli.page import make_exhibits

if TYPE_CHECKING:
    import numpy as np

    from ssm.evaluate import Evaluation, Progress
    from ssm.inference import ProgrammedModel
    from ssm.model import Model

_DRAWN = ("report.html", "placement.png", "accuracy.png", "accuracy.svg", "budget.png")


@dataclass(frozen=True, eq=False)
class Shown:
    """What the page of a run is made from, beside the run itself.

    model : as trained. x : sequences. sample : whose states are shown. has_budget : the record
    has one of layers already.
    """

    model: Model
    x: np.ndarray
    sample: int
    has_budget: bool
    on_progress: Progress | None = None


def write_results(
    outputs: Outputs, record: dict[str, Any], found: Evaluation, saved: ProgrammedModel | None,
    *, quiet: bool,
) -> None:
    """Write what the run has found and show the table; nothing appears half-written.

    saved : the chips of --save-chip, as just programmed.
    """
    from aimc_sim import report

    text, spec = report.to_json(record), found.deployment.spec
    outputs.write_folder(
        {
            "report.json": lambda path: path.write_text(text, "utf-8"),
            "table.txt": lambda path: path.write_text(as_text(report.run_report(record)), "utf-8"),
            "chip.toml": lambda path: path.write_text(spec.to_toml(), "utf-8"),
        },
        _DRAWN,
    )
    files = outputs.files or {}
    if (path := files.get("--logits")) is not None:
        write_whole(path, lambda aside: write_logits(found, aside))
    if (path := files.get("--save-chip")) is not None and saved is not None:
        saved.save(path)
    outputs.show(report.run_report(record, notes=not quiet), text)


def draw_results(
    outputs: Outputs, record: dict[str, Any], found: Evaluation, shown: Shown
) -> None:
    """Draw the pictures and the page of --out, when all else is written."""
    spec, layout = found.deployment.spec, found.deployment.layout
    writers: dict[str, Writer] = {
        "placement.png": lambda path: save_placement(layout, spec, path),
    }
    if record["accuracy"]["float"] is not None:
        for ending in ("png", "svg"):
            writers[f"accuracy.{ending}"] = lambda path: save_accuracy(record, path)
    if any(row["layer"] is not None for row in record.get("budget", ())):
        writers["budget.png"] = lambda path: save_budget(record, path)
    writers["report.html"] = lambda path: save_page(record, found, shown, path)
    outputs.draw(writers)


def save_page(record: dict[str, Any], found: Evaluation, shown: Shown, path: Path) -> None:
    """Write the page of a run."""
    from aimc_sim.pages.run import run_page

    exhibits = make_exhibits(
        found, shown.model, shown.x, seed=record["seed"], sample=shown.sample,
        has_budget=shown.has_budget, on_progress=shown.on_progress,
    )
    path.write_text(run_page(record, exhibits), "utf-8")


def write_logits(found: Evaluation, path: Path) -> None:
    """Write logits as .npz."""
    import numpy as np

    with path.open("wb") as stream:
        np.savez(stream, float=found.float_logits, chip=found.chip_logits)


def save_accuracy(record: dict[str, Any], path: Path) -> None:
    """Write the picture of accuracy over time."""
    from aimc_sim.plotting import plot_accuracy_over_time

    save_axes(plot_accuracy_over_time(record), path)


def save_budget(record: dict[str, Any], path: Path) -> None:
    """Write the picture of what every layer does alone."""
    from aimc_sim.plotting import plot_budget

    save_axes(plot_budget(record), path)


def save_placement(layout: Any, spec: Any, path: Path) -> None:
    """Write the picture of what lies where on the tiles."""
    from aimc_sim.plotting import plot_placement

    save_axes(plot_placement(layout, spec), path)


def save_axes(ax: Any, path: Path) -> None:
    """Write a figure; the same data give the same file."""
    if path.suffix == ".svg":
        from aimc_sim.plotting import to_svg

        path.write_text(to_svg(lambda: ax), "utf-8")
    else:
        ax.figure.savefig(path, dpi=150)
