"""`aimc-sim train` and `aimc-sim quantize`: models in float, rounded, or for a chip."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aimc_sim.cli.options import (
    ModelFile,
    PrecisionText,
    Seed,
    at_least,
    check_front_end,
    one_line_warnings,
)
from aimc_sim.errors import UsageError

_CALIBRATION = 64  # sequences that set the ranges of signals

if TYPE_CHECKING:
    from ssm.model import Model
    from ssm.tasks import Task

SCORED = 1000  # test sequences of a task on which models are scored

Data = Annotated[
    str,
    typer.Argument(
        metavar="TASK|DATA.npz",
        help="A task (digits, smnist, smnist-rows, smnist-14x14, fashion-mnist, fsdd) or a file "
        "with x (n, time, features) and labels y (n,).",
    ),
]
OutModel = Annotated[
    Path, typer.Option("--out", metavar="MODEL", help="Where the model goes: .pt or .safetensors.")
]
From = Annotated[
    Path | None,
    typer.Option("--from", metavar="MODEL", help="Train this model further instead of a new one."),
]
Bits = Annotated[
    str | None,
    typer.Option(
        "--precision", metavar="a=8,...", help="With --from: round to these bits while training."
    ),
]
ChipName = Annotated[
    str | None,
    typer.Option(
        "--chip", metavar="NAME|FILE.toml",
        help="With --from: fresh errors of this chip's cells in every batch.",
    ),
]
At = Annotated[
    str | None,
    typer.Option(metavar="1d", help="With --chip: time since programming (default: 1d)."),
]
Form = Annotated[
    str | None,
    typer.Option(
        metavar="leapfrog|digital", help="With --chip: A on cells too (default), or in logic."
    ),
]
Decay = Annotated[
    str | None,
    typer.Option(
        metavar="tile|digital",
        help="With --chip: the leapfrog form's decay on tiles (default) or in logic.",
    ),
]
InLogic = Annotated[
    str | None,
    typer.Option(
        "--digital", metavar="PART,...",
        help="With --chip: parts without errors, of encoder readout mixing decoder.",
    ),
]
Ramp = Annotated[
    float,
    typer.Option(
        help="With --from: share of the training over which errors grow and bits fall to theirs."
    ),
]
FormOfA = Annotated[
    str,
    typer.Option(
        metavar="log-polar|polar|cartesian|delta|leapfrog",
        help="With --precision: the two numbers of a pole that are rounded.",
    ),
]
Method = Annotated[
    str,
    typer.Option(
        metavar="WORD|c=WORD,...",
        help="With --precision: min-max, percentile, ternary, or in training lsq (learned "
        "steps); one for all weights or each for some of b c d mix enc dec.",
    ),
]
Per = Annotated[
    str,
    typer.Option(
        metavar="WORD|c=WORD,...",
        help="With --precision: what shares a range: tensor, channel, or mode (a power of two).",
    ),
]
Sides = Annotated[
    str,
    typer.Option(
        metavar="WORD|c=WORD,...", help="With --precision: symmetric or asymmetric grids."
    ),
]
Percentile = Annotated[
    float, typer.Option(help="Of |w| that ends a grid, for --method percentile.")
]
Calibrate = Annotated[
    str | None,
    typer.Option(
        metavar="TASK|DATA.npz",
        help="Keep steps for the bits of state and act, from signals on these data "
        "(default: ranges are found at run).",
    ),
]
Signals = Annotated[
    str,
    typer.Option(
        metavar="min-max|percentile", help="With --calibrate: what ends the range of a signal."
    ),
]
SignalPercentile = Annotated[
    float, typer.Option(help="Of a signal's magnitude, for --signals percentile.")
]
Checkpoint = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Keep the state after every epoch; go on from there if it exists."
    ),
]
Replace = Annotated[bool, typer.Option("--force", help="Replace the model if the file exists.")]


def train(
    data: Data,
    out: OutModel,
    from_model: From = None,
    precision: Bits = None,
    chip: ChipName = None,
    at: At = None,
    form: Form = None,
    decay: Decay = None,
    digital: InLogic = None,
    ramp: Ramp = 0.0,
    form_of_a: FormOfA = "log-polar",
    method: Method = "min-max",
    per: Per = "channel",
    sides: Sides = "symmetric",
    percentile: Percentile = 99.9,
    heads: Annotated[int | None, typer.Option(help="Heads of a layer (default: 64).")] = None,
    states: Annotated[
        int | None, typer.Option(help="Real states of a head, an even number (default: 64).")
    ] = None,
    layers: Annotated[int | None, typer.Option(help="Layers (default: 2).")] = None,
    norm: Annotated[
        str | None,
        typer.Option(metavar="pre|post|none", help="Where norms stand (default: post)."),
    ] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the data.")] = 20,
    lr: Annotated[
        float | None, typer.Option(help="Peak learning rate (default: 0.01; with --from 0.002).")
    ] = None,
    batch: Annotated[int, typer.Option(help="Sequences of a step.")] = 64,
    seed: Seed = 0,
    device: Annotated[
        str | None, typer.Option(help="cpu or cuda (default: the GPU where there is one).")
    ] = None,
    checkpoint: Checkpoint = None,
    force: Replace = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No line for each epoch.")] = False,
) -> None:
    """Train a model in float; or, with --from, further: rounded, or for the cells of a chip."""
    for option, value in (("--epochs", epochs), ("--batch", batch)):
        at_least(option, value, 1)
    check_front_end()
    if from_model is None and (precision or chip or form):
        raise UsageError(
            "train with --precision, --chip or --form", "there is no --from",
            "train in float first, then pass --from MODEL",
        )
    shape = {"--heads": heads, "--states": states, "--layers": layers, "--norm": norm}
    given = [option for option, value in shape.items() if value is not None]
    if from_model is not None and given:
        raise UsageError(
            f"train {from_model} further with {', '.join(given)}", "its shape is as it is",
            f"leave out {', '.join(given)}, or --from for a new model",
        )
    for option, text in (("--at", at), ("--decay", decay), ("--digital", digital)):
        if text is not None and chip is None:
            raise UsageError(
                f"train with {option} {text}", "there is no --chip", f"add one, or drop {option}"
            )
    if ramp and from_model is None:
        raise UsageError(
            f"train with --ramp {ramp:g}", "there is no --from", "add it, or drop --ramp"
        )
    from ssm.schemes import Scheme

    scheme = Scheme(form_of_a, method, per, sides, percentile)
    if precision is None and scheme != Scheme():
        raise UsageError(
            "choose how weights are rounded", "there is no --precision",
            "say to how many bits, for example --precision a=8,c=4",
        )
    _check_out(out, from_model, force)
    _check_checkpoint(checkpoint, out, from_model)
    task = _load(data)
    from ssm.checkpoint import save
    from ssm.train import default_device

    common: dict[str, Any] = {
        "epochs": epochs, "batch_size": batch, "seed": seed, "device": device or default_device(),
        "checkpoint": checkpoint, "on_epoch": None if quiet else _show,
    }
    if from_model is None:
        from ssm.train import train as train_in_float

        def make() -> Model:
            return train_in_float(
                task, n_heads=_or(heads, 64), n_states=_or(states, 64), n_layers=_or(layers, 2),
                norm=_or(norm, "post"), lr=_or(lr, 1e-2), **common,
            )
    else:
        start, lr = from_model, _or(lr, 2e-3)
        common |= {
            "scheme": scheme, "form": form, "decay": decay or "tile", "ramp": ramp,
            "digital": [] if digital is None else [part.strip() for part in digital.split(",")],
        }
        if not quiet:
            typer.echo("the first run after an installation compiles for a minute", err=True)

        def make() -> Model:
            return _train_further(task, start, precision, chip, _or(at, "1d"), lr, common)

    with one_line_warnings():
        model = _last_good_kept(make, out)
    save(model.replace(name=out.stem), out)
    size = f"{model.n_parameters} parameters, {model.n_states} states"
    typer.echo(f"{out}: {size}{_test(model, task)}")


def quantize(
    model: ModelFile,
    out: OutModel,
    precision: PrecisionText = None,
    form_of_a: FormOfA = "log-polar",
    method: Method = "min-max",
    per: Per = "channel",
    sides: Sides = "symmetric",
    percentile: Percentile = 99.9,
    calibrate: Calibrate = None,
    signals: Signals = "min-max",
    signal_percentile: SignalPercentile = 99.999,
    force: Replace = False,
) -> None:
    """Round the weights of a trained model to fewer bits; activations and states follow at run.

    The file holds integers and scales of what was rounded.
    """
    check_front_end()
    if precision is None:
        raise UsageError(
            f"quantise {model}", "no --precision was given", "add for example --precision a=8,c=4"
        )
    _check_out(out, model, force)
    from ssm.checkpoint import load, save
    from ssm.quantize import Precision, outside
    from ssm.quantize import quantize as round_weights
    from ssm.schemes import Scheme

    wanted, scheme = Precision.parse(precision), Scheme(form_of_a, method, per, sides, percentile)
    trained = load(model)
    rounded = round_weights(trained, wanted, scheme)
    if calibrate is not None:
        from ssm.observe import set_steps

        rounded = set_steps(
            rounded, _sequences(calibrate), wanted, method=signals, percentile=signal_percentile
        )
    elif signals != "min-max":
        raise UsageError(
            f"find ranges of signals by {signals}", "there are no signals",
            "name the training data with --calibrate",
        )
    save(rounded.replace(name=out.stem), out)
    bits = ", ".join(f"{name} {n}" for name, n in (rounded.precision or {}).items())
    typer.echo(f"{out}: bits of {bits}")
    moved = outside(trained, wanted, scheme)
    if moved:
        n_modes = sum(layer.pole.size for layer in trained.layers)
        typer.echo(
            f"{moved} of {n_modes} modes had their nearest {form_of_a} code outside the unit "
            "circle and took a stable one beside it"
        )


def _sequences(data: str) -> Any:
    """Return some training sequences of a task or file."""
    from ssm.tasks import Task

    loaded = _load(data)
    return (loaded.x_train if isinstance(loaded, Task) else loaded[0])[:_CALIBRATION]


def _train_further(
    task: Any, path: Path, precision: str | None, chip: str | None, at: str, lr: float,
    common: dict[str, Any],
) -> Model:
    """Return the model of `path` tuned; a task's test part is scored after every epoch."""
    from aimc_sim.specs import load_chip
    from aimc_sim.units import parse_quantity
    from ssm.checkpoint import load
    from ssm.quantize import Precision
    from ssm.tasks import Task
    from ssm.tune import fine_tune

    bits = None if precision is None else Precision.parse(precision)
    if common["form"] is None and bits is not None and bits.state is not None:
        common["form"] = "digital"
    scored = (task.x_test[:SCORED], task.y_test[:SCORED]) if isinstance(task, Task) else None
    return fine_tune(
        load(path), task, precision=bits, chip=None if chip is None else load_chip(chip),
        at_s=parse_quantity(at, "time"), lr=lr, validate=scored, **common,
    )


def _last_good_kept(make: Callable[[], Model], out: Path) -> Model:
    """Return the model that `make` trains; where that diverges, the last good one is saved."""
    from ssm.checkpoint import save
    from ssm.train import DivergedError

    try:
        return make()
    except DivergedError as error:
        aside = out.with_stem(f"{out.stem}-last-good")
        save(error.last_good[0].replace(name=aside.stem), aside)
        typer.echo(f"the model after the last whole epoch is in {aside}", err=True)
        raise


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _show(epoch: Any) -> None:
    """Print an epoch; the start of a tuning, number 0, has no training to speak of."""
    scored = getattr(epoch, "validation", None)
    test = "" if scored is None else f"  test {100 * scored[0]:.2f} %"
    trained = ""
    if epoch.number:
        # one model alone, whose tuning counts runs
        loss, accuracy = (x if isinstance(x, float) else x[0] for x in (epoch.loss, epoch.accuracy))
        trained = f"  loss {loss:.4f}  training accuracy {100 * accuracy:.2f} %"
    if trained or test:
        typer.echo(
            f"epoch {epoch.number}/{epoch.n_epochs}{trained}{test}  {epoch.wall_s:.0f} s", err=True
        )


def _load(data: str) -> Task | tuple[Any, Any]:
    """Return a task, or x and y of a file."""
    from ssm.tasks import load_task

    if not (data.endswith(".npz") or "/" in data or "\\" in data):
        return load_task(data)
    from aimc_sim.cli.data import read_arrays

    return read_arrays(Path(data), asked=f"train on {data}")


def _test(model: Model, task: Any) -> str:
    """Return the accuracy on the task's test part, in words."""
    from ssm.tasks import Task

    if not isinstance(task, Task):
        return ""
    x, y = task.x_test[:SCORED], task.y_test[:SCORED]
    share = float((model.logits(x).argmax(axis=1) == y).mean())
    return f"; {100 * share:.2f} % of {len(y)} test sequences, states and activations in float"


def _check_checkpoint(path: Path | None, out: Path, read: Path | None) -> None:
    """Refuse, before anything runs, a place where the state of a training cannot be kept."""
    if path is None:
        return
    asked = f"keep the state of the training in {path}"
    if path.is_dir() or not path.parent.is_dir():
        found = "that is a folder" if path.is_dir() else f"there is no folder {path.parent}"
        raise UsageError(asked, found, "name a file in a folder that exists")
    for what, other in (("what --out writes", out), ("the model of --from", read)):
        if other is not None and path.resolve() == other.resolve():
            raise UsageError(asked, f"that file is {what}", "choose another")


def _check_out(out: Path, read: Path | None, force: bool) -> None:
    """Refuse, before anything runs, what could not be written after it."""
    if out.suffix not in (".pt", ".safetensors"):
        raise UsageError(
            f"write the model to {out}", f"the ending '{out.suffix}' names no model format",
            "end the name in .pt or .safetensors",
        )
    if not out.parent.is_dir():
        raise UsageError(
            f"write the model to {out}", f"there is no folder {out.parent}", "make the folder first"
        )
    if read is not None and out.resolve() == read.resolve():
        raise UsageError(f"write the model to {out}", "that file is an input", "choose another")
    if out.exists() and (out.is_dir() or not force):
        is_folder = out.is_dir()
        raise UsageError(
            f"write the model to {out}", "that is a folder" if is_folder else "the file exists",
            "choose another" if is_folder else "choose another or add --force",
        )
