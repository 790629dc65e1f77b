"""Options that several commands share, and their texts turned into values."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aimc_sim.cli.completions import offer, offer_presets
from aimc_sim.errors import UsageError, nearest

if TYPE_CHECKING:
    from aimc_sim.specs import ChipSpec
    from ssm.model import Model

ARGUMENTS = "aimc_sim.arguments"  # where a command finds what was typed
DEFAULT_CHIP = "pcm-nandakumar2019"
FORMS = ("leapfrog", "delta", "direct", "digital")

ModelFile = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL",
        help="A trained model (.pt, .safetensors, .npz): our own or a state-spaces checkpoint.",
    ),
]
Chip = Annotated[
    str | None,
    typer.Option(
        "--chip",
        metavar="NAME|FILE.toml",
        help=f"Chip preset or file (see the command presets; default: {DEFAULT_CHIP}).",
        autocompletion=offer_presets,
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device", metavar="NAME|FILE.toml", help="Replaces the device part of the chip.",
        autocompletion=offer_presets,
    ),
]
Norm = Annotated[
    str | None,
    typer.Option(
        metavar="pre|post", help="Where the norm stands, for files that do not say it.",
        autocompletion=offer("pre", "post"),
    ),
]
Disc = Annotated[
    str | None,
    typer.Option(
        metavar="zoh|bilinear", help="How A was discretised, for files that do not say it.",
        autocompletion=offer("zoh", "bilinear"),
    ),
]
Pool = Annotated[
    str | None,
    typer.Option(
        metavar="mean|last", help="How the model pools over time, for files that do not say it.",
        autocompletion=offer("mean", "last"),
    ),
]
Form = Annotated[
    str,
    typer.Option(
        metavar="|".join(FORMS), help="How A is realised on the chip.",
        autocompletion=offer(*FORMS),
    ),
]
Decay = Annotated[
    str,
    typer.Option(
        metavar="tile|digital", help="Leapfrog: the decay on tiles or in digital logic.",
        autocompletion=offer("tile", "digital"),
    ),
]
PrecisionText = Annotated[
    str | None,
    typer.Option(
        "--precision",
        metavar="a=8,b=4,...",
        help="Quantise first: bits of a b c d mix enc dec state act, and decay of A apart.",
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of every random draw.")]
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Write results and pictures to this folder."),
]
Force = Annotated[
    bool,
    typer.Option("--force", help="Replace files that exist, also those in the folder of --out."),
]
Json = Annotated[
    str | None,
    typer.Option(
        "--json", metavar="FILE|-", help="Write JSON to a file, or to stdout (the table: stderr)."
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bar, no notes.")]


def command_line(context: typer.Context) -> str:
    """Return the command as it was typed."""
    return shlex.join(["aimc-sim", *context.meta.get(ARGUMENTS, [])])


def choose(option: str, value: str, allowed: Sequence[str]) -> str:
    """Return `value` if `option` may have it; UsageError with the nearest otherwise."""
    if value not in allowed:
        guess = nearest(value, allowed)
        raise UsageError(
            f"use {option} {value}",
            "it is not a known value",
            (f"did you mean '{guess}'? " if guess else "") + f"choose one of {', '.join(allowed)}",
        )
    return value


def at_least(option: str, value: int | None, least: int) -> None:
    """Refuse a number below `least`."""
    if value is not None and value < least:
        raise UsageError(
            f"use {option} {value}", f"it must be at least {least}", "give a larger number"
        )


def quantities(option: str, text: str, kind: str) -> tuple[float, ...]:
    """Return the SI values of a list such as ``0s,1h,1d``, in its order."""
    from aimc_sim.units import parse_quantity

    items = [item.strip() for item in text.split(",") if item.strip()]
    if not items:
        raise UsageError(f"use {option} '{text}'", "it is empty", f"give a {kind} or several")
    return tuple(parse_quantity(item, kind) for item in items)


def choose_chip(chip: str | None, device: str | None) -> ChipSpec:
    """Return the chip that --chip and --device describe together."""
    from aimc_sim.specs import load_chip

    spec = load_chip(chip or DEFAULT_CHIP)
    if device is None:
        return spec
    card = load_chip(device).device
    name = card.name if chip is None else f"{spec.name} with {card.name}"
    return spec.replace(name=name, device=card)


def check_front_end() -> None:
    """Refuse to go on where another package named ssm is found before this project's."""
    import ssm

    if getattr(ssm, "PROJECT", None) != "aimc-sim":
        found = getattr(ssm, "__file__", None) or ", ".join(ssm.__path__)
        raise UsageError(
            "import aimc-sim's package ssm",
            f"another package of that name comes first, {found}",
            "remove it, start from another folder, or install aimc-sim in a virtual environment "
            "of its own",
        )


def load_models(
    path: Path, norm: str | None, disc: str | None, pool: str | None, precision: str | None
) -> tuple[Model, Model]:
    """Return the model of a file as trained, and as quantised to `precision`."""
    from ssm.checkpoint import load
    from ssm.quantize import Precision, quantize

    bits = None if precision is None else Precision.parse(precision)
    model = load(path, norm=norm, disc=disc, pool=pool)
    if not model.name.strip():
        model = model.replace(name=path.stem)
    return model, model if bits is None else quantize(model, bits)


def model_facts(model: Model) -> dict[str, Any]:
    """Return what a report says of a model beside its name."""
    names = (
        "n_layers",
        "n_heads",
        "n_states",
        "n_parameters",
        "d_input",
        "n_classes",
        "norm",
        "disc",
        "pool",
        "gate",
        "task",
    )
    facts = {name: getattr(model, name) for name in names}
    return {**facts, "precision": dict(model.precision) if model.precision else None}


@contextmanager
def one_line_warnings() -> Iterator[list[str]]:
    """Show each warning once, as one line on stderr; yields the list of those shown so far."""
    import warnings

    seen: list[str] = []

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        text = " ".join(str(message).split())
        if text not in seen:
            seen.append(text)
            typer.echo(f"warning: {text}", err=True)

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        yield seen


def device_notes(spec: ChipSpec) -> list[str]:
    """Return what the reader must know of the chip's device: the parts that its card lacks."""
    from aimc_sim.devices import lacking_parts

    if spec.name == "ideal":
        return []
    lacks = lacking_parts(spec.device)
    if spec.write is None:
        return lacks
    # pulses leave their own error: what the card says of a finished write is not used
    by_pulses = "cells are written by pulses and verified; no programming error of the card is used"
    return [by_pulses, *(note for note in lacks if not note.startswith("no programming part"))]
