"""`aimc-sim calibrate`: a lab's measurements to a device card."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aimc_sim.cli.completions import offer, offer_presets
from aimc_sim.cli.options import Json, Quiet, command_line, one_line_warnings
from aimc_sim.cli.outputs import Outputs, write_whole
from aimc_sim.errors import InputError, UsageError

if TYPE_CHECKING:
    from aimc_sim.cards import DeviceSpec
    from calibration.fit import Fit
    from calibration.tables import Table

_KINDS = ("programming", "relaxation", "drift", "read-noise", "pulse", "converter")


def calibrate(
    context: typer.Context,
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND", autocompletion=offer(*_KINDS),
            help=f"What was measured: {', '.join(_KINDS[:-1])} or {_KINDS[-1]}.",
        ),
    ],
    data: Annotated[
        list[Path],
        typer.Argument(
            metavar="DATA",
            help="Measurements: .csv, .tsv (also .gz), .xlsx, .parquet, .npz, .h5; several files "
            "of one layout count as one.",
        ),
    ],
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="KEY=COL,...",
            help="Which column is what, by name, pattern (Target_*), number from 0 or range (2:).",
        ),
    ] = None,
    unit: Annotated[
        str | None,
        typer.Option(
            metavar="uS", help="Unit of values whose header says none; or KEY=UNIT,KEY=UNIT."
        ),
    ] = None,
    sheet: Annotated[
        str | None, typer.Option(metavar="NAME", help="Sheet of an XLSX, group of an HDF5 file.")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(metavar="COL=VALUE", help="Keep rows with this value; may be repeated."),
    ] = None,
    read_voltage: Annotated[
        str | None, typer.Option(metavar="0.1V", help="Turns read currents into conductances.")
    ] = None,
    sample_period: Annotated[
        str | None,
        typer.Option(metavar="2.5ms", help="Read noise: time between values without times."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE.toml", help="Preset or card whose other parts the new card keeps.",
            autocompletion=offer_presets,
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the new card.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.toml", help="Write the device card.")
    ] = None,
    report_folder: Annotated[
        Path | None,
        typer.Option("--report", metavar="DIR", help="Write report.html and pictures there."),
    ] = None,
    json: Json = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Replace files that exist, also those in the folder of --report."
        ),
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Fit a device model to measurements, and write it as a device card."""
    outputs = _outputs(json, out, report_folder, force, data)
    _check_package()
    from aimc_sim import report as reports
    from calibration.report import make_record

    command = command_line(context)
    with one_line_warnings() as warned:
        fit = _fit(kind, _read(kind, data, columns, unit, sheet, where, read_voltage,
                               sample_period, command))
        card = None if base is None else _base(base)
        device = _device(fit, card, name, wanted=out is not None)
    fit = fit.replace(notes=(*fit.notes, *warned))
    toml = None if device is None else to_toml(device, command)
    record = make_record(fit, command=command, device=device)
    if report_folder is not None:
        outputs.write_folder(
            {
                "report.txt": lambda path: path.write_text(fit.report(), "utf-8"),
                "report.json": lambda path: path.write_text(reports.to_json(record), "utf-8"),
            },
            ("report.html", "fit-*.png", "residuals.png"),
        )
    if out is not None and toml is not None:
        write_whole(out, lambda path: path.write_text(toml, "utf-8"))
    from rich.text import Text

    shown = fit.replace(notes=()) if quiet else fit
    text = shown.report()
    if out is not None:
        text += f"wrote {out}\n"
    outputs.show(Text(text.rstrip("\n")), reports.to_json(record))
    if report_folder is not None:
        outputs.draw(_pictures(fit, toml))


def _check_package() -> None:
    """Refuse to go on where another package named calibration is found before this project's."""
    import calibration

    if getattr(calibration, "PROJECT", None) != "aimc-sim":
        raise UsageError(
            "import aimc-sim's package calibration",
            "another package of that name comes first",
            "remove it, start from another folder, or install aimc-sim in a virtual environment "
            "of its own",
        )


def _outputs(
    json: str | None, out: Path | None, folder: Path | None, force: bool, data: list[Path]
) -> Outputs:
    if out is not None and out.suffix != ".toml":
        raise UsageError(f"write --out {out}", "a device card is a .toml file",
                         f"write {out.with_suffix('.toml')}")
    outputs = Outputs(json=json, files={"--out": out}, out=folder, force=force)
    outputs.check(data)
    return outputs


def _read(
    kind: str, data: list[Path], columns: str | None, unit: str | None, sheet: str | None,
    where: list[str] | None, read_voltage: str | None, sample_period: str | None, command: str,
) -> Table:
    from aimc_sim.units import parse_quantity
    from calibration.tables import read_table

    volts = None if read_voltage is None else parse_quantity(read_voltage, "voltage")
    period = None if sample_period is None else parse_quantity(sample_period, "time")
    if period is not None and period <= 0:
        raise UsageError(
            f"use --sample-period {sample_period}", "it is not positive", "give a time such as 1ms"
        )
    table = read_table(
        data,
        kind,
        columns=None if columns is None else _pairs("--columns", columns.split(",")),
        unit=unit,
        sheet=sheet,
        read_voltage_v=volts,
        sample_period_s=period,
        where=_pairs("--where", where or []),
    )
    assert table.source is not None
    return dataclasses.replace(table, source=dataclasses.replace(table.source, command=command))


def _pairs(option: str, items: list[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for item in items:
        key, equals, value = item.partition("=")
        key, value = key.strip(), value.strip()
        if not (equals and key and value):
            raise UsageError(
                f"use {option} {item}", "it is not of the form KEY=VALUE",
                f"write {option} such as cell=0,time_s=1" if option == "--columns"
                else f"write {option} such as temperature=260",
            )
        if key in pairs:
            raise UsageError(f"use {option} {item}", f"'{key}' is given twice", "give it once")
        pairs[key] = value
    return pairs


def _fit(kind: str, table: Table) -> Fit:
    from importlib import import_module

    word = kind.replace("-", "_")
    function: Callable[[Any], Fit] = getattr(
        import_module(f"calibration.{word}"), f"fit_{word}"
    )
    fit = function(table)
    notes = tuple(dict.fromkeys((*table.notes, *fit.notes)))
    return fit.replace(source=fit.source or table.source, notes=notes)


def _base(base: str) -> DeviceSpec:
    from aimc_sim.specs import load_chip

    return load_chip(base).device


def _device(
    fit: Fit, base: DeviceSpec | None, name: str | None, *, wanted: bool
) -> DeviceSpec | None:
    """Return the card of a fit; a fit that did not converge leaves its report and an error."""
    if fit.converged and not fit.part and not wanted:
        return None
    try:
        return fit.device(base, name=name)
    except InputError:
        if not fit.converged:
            typer.echo(fit.report(), err=True)
            raise
        if wanted:
            raise
    return None


def to_toml(device: DeviceSpec, command: str) -> str:
    """Return a chip file that holds a device alone, headed by the command that made it."""
    import tomli_w

    from aimc_sim.specs import CHIP_SCHEMA, ChipSpec

    card = {
        "schema_version": CHIP_SCHEMA,
        "device": _rounded(device.model_dump(exclude_defaults=True, mode="json")),
    }
    text = f"# {command}\n{_short_arrays(tomli_w.dumps(card))}"
    ChipSpec.from_text(text, origin=device.name)  # what is written must be read
    return text


def _short_arrays(text: str) -> str:
    """Return TOML with arrays of numbers on one line each: curves have hundreds of them."""
    number = r"[-+.\deE]+"
    return re.sub(
        rf"\[\n((?:\s+{number},\n)+)\]",
        lambda found: "[" + ", ".join(re.findall(number, found.group(1))) + "]", text,
    )


def _rounded(value: Any) -> Any:
    """Return a record with floats of nine digits, far below any standard error."""
    if isinstance(value, float):
        return float(f"{value:.9g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value


def _pictures(fit: Fit, toml: str | None) -> dict[str, Callable[[Path], Any]]:
    from aimc_sim.cli.results import save_axes
    from calibration.plotting import drawings
    from calibration.report import to_html

    files: dict[str, Callable[[Path], Any]] = {
        "report.html": lambda path: path.write_text(to_html(fit, card=toml), "utf-8"),
    }
    for name, drawing in drawings(fit).items():
        files[f"{name}.png"] = lambda path, drawing=drawing: save_axes(drawing(), path)  # type: ignore[misc]
    return files
