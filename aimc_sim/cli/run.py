"""`aimc-sim run`: what a chip does to a trained model."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aimc_sim.cli.costs import add_run_costs
from aimc_sim.cli.data import RunData, choose_data
from aimc_sim.cli.options import (
    FORMS,
    Chip,
    Decay,
    Device,
    Disc,
    Force,
    Form,
    Json,
    ModelFile,
    Norm,
    Out,
    Pool,
    PrecisionText,
    Quiet,
    Seed,
    at_least,
    check_front_end,
    choose,
    choose_chip,
    command_line,
    device_notes,
    load_models,
    model_facts,
    one_line_warnings,
    quantities,
)
from aimc_sim.cli.outputs import Outputs, ProgressBar, Writer, as_text, write_whole
from aimc_sim.cli.page import check_sample, make_exhibits, versions
from aimc_sim.cli.variations import add_layer_budget, variation_rows

if TYPE_CHECKING:
    from aimc_sim.pages.exhibits import Exhibits
    from aimc_sim.specs import ChipSpec
    from ssm.evaluate import Evaluation
    from ssm.inference import ProgrammedModel
    from ssm.model import Model

ENGINES = ("cpu", "cuda", "auto")


Data = Annotated[
    str | None,
    typer.Option(
        metavar="FILE.npz|TASK",
        help="Sequences x (n, time, features) and labels y (n,), or a task (default: the "
        "model's own).",
    ),
]
Calibrate = Annotated[
    Path | None,
    typer.Option(metavar="FILE.npz", help="Sequences that set the converters' ranges."),
]
At = Annotated[str, typer.Option(metavar="0s,1h,1d", help="Times since programming.")]
Chips = Annotated[int, typer.Option(help="Number of sampled chips.")]
Limit = Annotated[int | None, typer.Option(help="Score the first N sequences only.")]
Threads = Annotated[int | None, typer.Option(help="Threads of the compiled kernels.")]
Engine = Annotated[
    str,
    typer.Option(
        metavar="|".join(ENGINES),
        help="Where the chips run: auto takes an NVIDIA GPU where there is one.",
    ),
]
Ablate = Annotated[bool, typer.Option("--ablate", help="Also switch each non-ideality off alone.")]
Budget = Annotated[
    bool,
    typer.Option(
        "--budget",
        help="Also switch each non-ideality on alone, and each in one layer alone (64 sequences).",
    ),
]
SaveChip = Annotated[
    Path | None, typer.Option(metavar="FILE.npz", help="Save the chips as just programmed.")
]
Logits = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.npz",
        help="Write logits: float (n, classes), chip (times, chips, n, classes).",
    ),
]
Sample = Annotated[
    int | None,
    typer.Option(metavar="N", help="Sequence whose states the report of --out shows (default: 0)."),
]


def run(
    context: typer.Context,
    model: ModelFile,
    chip: Chip = None,
    device: Device = None,
    data: Data = None,
    calibrate: Calibrate = None,
    norm: Norm = None,
    disc: Disc = None,
    pool: Pool = None,
    form: Form = "leapfrog",
    decay: Decay = "tile",
    precision: PrecisionText = None,
    at: At = "0s,1h,1d",
    chips: Chips = 1,
    seed: Seed = 0,
    limit: Limit = None,
    threads: Threads = None,
    engine: Engine = "auto",
    ablate: Ablate = False,
    budget: Budget = False,
    save_chip: SaveChip = None,
    out: Out = None,
    force: Force = False,
    json: Json = None,
    logits: Logits = None,
    sample: Sample = None,
    quiet: Quiet = False,
) -> None:
    """Score a trained model on simulated chips over time."""
    begun = time.perf_counter()
    times_s = quantities("--at", at, "time")
    choose("--form", form, FORMS)
    choose("--decay", decay, ("tile", "digital"))
    choose("--engine", engine, ENGINES)
    for option, value in (("--chips", chips), ("--limit", limit), ("--threads", threads)):
        at_least(option, value, 1)
    outputs = Outputs(json, {"--logits": logits, "--save-chip": save_chip}, out, force)
    outputs.check([path for path in (model, calibrate) if path is not None])
    with one_line_warnings() as warned, ProgressBar(quiet) as bar:
        check_front_end()
        spec = choose_chip(chip, device)
        check_run(spec, times_s, seed, threads)
        trained, deployed = load_models(model, norm, disc, pool, precision)
        used = choose_data(trained, data, calibrate)
        shown = check_sample(sample, min(limit or len(used.x), len(used.x)), out is not None)
        from ssm.evaluate import evaluate, vary

        note_compilation(quiet)
        found = evaluate(
            trained,
            spec,
            used.x,
            used.y,
            form=form,
            decay=decay,
            chips=chips,
            seed=seed,
            times_s=times_s,
            calibrate=used.calibrate,
            calibration=used.calibration,
            limit=limit,
            on_chip=deployed,
            on_progress=bar.update,
            engine=engine,
        )
        record = make_record(found, trained, used, seed, command_line(context))
        add_run_costs(record, found, used.x, seed)
        if ablate:
            off = vary(found, used.x, seed=seed, on_progress=bar.update, engine=engine)
            record["ablation"] = variation_rows(found, off, "off")
        if budget:
            on = vary(
                found, used.x, seed=seed, alone=True, on_progress=bar.update, engine=engine
            )
            record["budget"] = variation_rows(found, on, "on")
            add_layer_budget(record, found, used.x, bar)
        exhibits = None
        if out is not None:
            exhibits = make_exhibits(
                found, trained, used.x, seed=seed, sample=shown, has_budget=budget,
                on_progress=bar.update,
            )
        # here, so that what writing warns of is said once and as one line
        saved = None if save_chip is None else found.deployment.program(seed=seed, chips=chips)
    record["notes"] += warned
    record["wall_s"] = time.perf_counter() - begun
    write_results(outputs, record, found, saved, exhibits, quiet=quiet)


def note_compilation(quiet: bool) -> None:
    """Say on stderr why the very first run takes longer."""
    from ssm.kernels import are_compiled

    if not quiet and not are_compiled():
        typer.echo("compiling kernels for this machine, once: about a minute", err=True)


def check_run(spec: Any, times_s: tuple[float, ...], seed: int, threads: int | None) -> None:
    """Refuse, before anything is read, times, a seed or threads that cannot be."""
    from aimc_sim.aging import check_moment
    from aimc_sim.randomness import seed_words

    seed_words(seed)
    for moment in times_s:
        check_moment(spec, moment)
    if threads is not None:
        from ssm.inference import set_threads

        set_threads(threads)


def make_record(
    found: Evaluation, model: Model, used: RunData, seed: int, command: str
) -> dict[str, Any]:
    """Return the `aimc-sim.run/1` record of a run."""
    from aimc_sim import __version__
    from aimc_sim.citations import cite
    from ssm.evaluate import relative_rms
    from ssm.ranges import register_bits

    deployment, spec = found.deployment, found.deployment.spec
    chips, n = found.chip_logits.shape[1:3]
    diverged, references = found.diverged, cite(found)
    notes = [
        *used.notes,
        f"converter ranges from {used.calibration}",
        *([spec.device.zero_time] if 0.0 in found.times_s and spec.device.doi else []),
        *device_notes(spec),
        *(f"to cite: {reference}" for reference in references),
    ]
    return {
        "schema": "aimc-sim.run/1",
        "version": __version__,
        "versions": versions(),
        "command": command,
        "hashes": {
            "model": model.sha256 or None,
            "data": used.sha256,
            "chip": hashlib.sha256(spec.to_toml().encode()).hexdigest(),
            **_fault_map_hash(spec),
        },
        "model": model.name,
        "chip": spec.name,
        "form": deployment.form,
        "decay": deployment.decay,
        "seed": seed,
        "n_chips": chips,
        "n_samples": n,
        "n_steps": used.x.shape[1],
        "data": used.name,
        "calibration": used.calibration,
        "model_facts": model_facts(deployment.model),
        **score_rows(found),
        "logit_error": [
            {"at_s": at_s, "relative_rms": error, "diverged": lost}
            for at_s, error, lost in zip(found.times_s, found.logit_error(), diverged, strict=True)
        ],
        "quantized_error": relative_rms(found.quantized_logits, found.float_logits),
        "diverged": int(diverged.sum()),
        "n_modes": deployment.n_modes,
        "unstable_modes": [
            {"at_s": at_s, "mean": counts.mean(), "max": counts.max()}
            for at_s, counts in zip(found.times_s, found.unstable_modes, strict=True)
        ],
        "state_bits": register_bits(spec, deployment.model),
        "noise_in_time": spec.noise_in_time,
        "temperature_k": spec.temperature_k,
        "compensation": spec.compensation,
        "calibration_reads": found.calibration_reads,
        "engine": found.engine,
        "tiles": deployment.layout.n_tiles,
        "devices": deployment.layout.n_used(),
        "faults": found.cells.fault_record(),
        "writing": found.cells.writing_record(),
        "saturation": [
            {"part": part, "clipped": clipped, "conversions": conversions}
            for part, (clipped, conversions) in found.saturation.items()
        ],
        "utilisation": deployment.layout.utilisation(spec),
        "energy_j_per_inference": None,
        "latency_s_per_inference": None,
        "area_m2": None,
        "energy_breakdown_j": None,
        "costs": None,
        "wall_s": found.wall_s,
        "cite": references,
        "notes": notes,
    }


def _fault_map_hash(spec: ChipSpec) -> dict[str, str]:
    """Return the hash of the chip's fault map, which is a file of its own; {} where it has none."""
    if spec.faults is None or spec.faults.map is None:
        return {}
    return {"fault_map": hashlib.sha256(Path(spec.faults.map).read_bytes()).hexdigest()}


def score_rows(found: Evaluation) -> dict[str, Any]:
    """Return accuracies and their 95 % bounds; null where there are no labels."""
    import numpy as np

    from ssm.evaluate import accuracy_bounds

    chips, n = found.chip_logits.shape[1:3]
    scores = found.chip_accuracy()
    rows = []
    for k, at_s in enumerate(found.times_s):
        row: dict[str, Any] = dict.fromkeys(("mean", "std", "low", "high", "per_chip"))
        if scores is not None:
            low, high = accuracy_bounds(scores[k], n)
            std = scores[k].std(ddof=1) if chips > 1 else None
            row = {
                "mean": scores[k].mean(),
                "std": std,
                "low": low,
                "high": high,
                "per_chip": scores[k],
            }
        rows.append({"at_s": at_s, **row})
    digital = {"float": found.float_accuracy(), "quantized": found.quantized_accuracy()}
    bounds = {
        name: None if share is None else accuracy_bounds(np.array([share]), n)
        for name, share in digital.items()
    }
    return {"accuracy": {**digital, "chip": rows}, "bounds": bounds}


def write_results(
    outputs: Outputs, record: dict[str, Any], found: Evaluation, saved: ProgrammedModel | None,
    exhibits: Exhibits | None, *, quiet: bool,
) -> None:
    """Write files and show the table; nothing appears half-written.

    saved : the chips of --save-chip, as just programmed. exhibits : of the page, with --out.
    """
    from aimc_sim import report

    text = report.to_json(record)
    files = outputs.files or {}
    if (path := files.get("--logits")) is not None:
        write_whole(path, lambda aside: write_logits(found, aside))
    if (path := files.get("--save-chip")) is not None and saved is not None:
        saved.save(path)
    spec, layout = found.deployment.spec, found.deployment.layout
    writers: dict[str, Writer] = {
        "report.json": lambda path: path.write_text(text, "utf-8"),
        "table.txt": lambda path: path.write_text(as_text(report.run_report(record)), "utf-8"),
        "chip.toml": lambda path: path.write_text(spec.to_toml(), "utf-8"),
        "placement.png": lambda path: save_placement(layout, spec, path),
    }
    if record["accuracy"]["float"] is not None:
        for ending in ("png", "svg"):
            writers[f"accuracy.{ending}"] = lambda path: save_accuracy(record, path)
    if any(row["layer"] is not None for row in record.get("budget", ())):
        writers["budget.png"] = lambda path: save_budget(record, path)
    if exhibits is not None:
        from aimc_sim.pages.run import run_page

        page = run_page(record, exhibits)
        writers["report.html"] = lambda path: path.write_text(page, "utf-8")
    outputs.write_folder(writers)
    outputs.show(report.run_report(record, notes=not quiet), text)


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
