"""A sweep file to a campaign: every combination of its values becomes a task for `ssm.scoring`."""

from __future__ import annotations

import hashlib
import itertools
import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from aimc_sim.aging import check_moment
from aimc_sim.errors import AimcError, InputError, UsageError, nearest
from aimc_sim.fields import Seconds, Spec, validated
from aimc_sim.randomness import seed_words
from aimc_sim.specs import ChipSpec, load_chip
from aimc_sim.sweep import Axis, Campaign, Task
from aimc_sim.sweep.campaign import Value
from ssm.forms import FORMS
from ssm.quantize import Precision
from ssm.scoring import OUTPUTS, find_data, open_model

SCHEMA = "aimc-sim.campaign/1"
_FUNCTION = "ssm.scoring:score"
# settings of a run that [grid], [[points]] or the top of the file may give
_SETTINGS = ("model", "chip", "device", "form", "decay", "precision")
_ELSEWHERE = ("at", "seed", "chips")  # axes of their own, given at the top
_PRECISION = "precision."
_UNITS = {"_s": "s", "_v": "V", "_ohm": "ohm", "_k": "K", "_j": "J", "_a": "A", "_nm": "nm"}
_COUNTED = frozenset(f"{_PRECISION}{field.name}" for field in fields(Precision))


class SweepFile(Spec):
    """What a sweep file says; names and defaults are those of `aimc-sim run`.

    model, chip, device, form, decay, precision : as there; [grid] and [[points]] may give them.
    data, calibrate, norm, disc, pool, limit : as there, the same for all tasks.
    at : times since programming. seed : one, or several. chips : sampled chips of every seed.
    set : fields of every chip. grid : values whose combinations are run. points : values that
    go together, one table for every position.
    """

    schema_version: Literal["aimc-sim.campaign/1"] = "aimc-sim.campaign/1"
    name: str | None = None
    model: str | None = None
    chip: str = "pcm-nandakumar2019"
    device: str | None = None
    form: str = "leapfrog"
    decay: str = "tile"
    precision: str | None = None
    data: str | None = None
    calibrate: str | None = None
    norm: Literal["pre", "post"] | None = None
    disc: Literal["zoh", "bilinear"] | None = None
    pool: Literal["mean", "last"] | None = None
    limit: int | None = Field(default=None, ge=1)
    at: Seconds | tuple[Seconds, ...] = (0.0,)
    seed: int | tuple[int, ...] = 0
    chips: int = Field(default=1, ge=1)
    set: dict[str, Any] = Field(default_factory=dict)
    grid: dict[str, list[Any]] = Field(default_factory=dict)
    points: tuple[dict[str, Any], ...] = ()


def read_campaign(path: str | Path) -> Campaign:
    """Return the campaign that a sweep file describes, all of it checked.

    path : the TOML file. Dimensions are the keys of [grid], `point` where there are [[points]],
    `at_s`, `seed` and `replica` (the chips); the last two repeat. Files named in it are relative to
    its folder.

    Raises InputError for a file that cannot be read, has an unknown field or an impossible
    value; UsageError for an empty grid or settings that do not exist.
    """
    path = Path(path)
    asked = f"read sweep {path}"
    file = _read_file(path, asked)
    try:
        return _Reader(file, path.parent).campaign(file.name or path.stem)
    except AimcError as error:
        raise type(error)(f"{asked}: {error.asked}", error.found, error.do) from None


def _read_file(path: Path, asked: str) -> SweepFile:
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(asked, f"it cannot be read ({error})", "check the path") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(asked, f"it is not TOML ({error})", "mend that line") from None
    version = data.get("schema_version", SCHEMA)
    if version != SCHEMA:
        raise InputError(
            asked, f"its schema is {version}, this version reads {SCHEMA}",
            "update aimc-sim or the file",
        )
    return validated(SweepFile, data, asked)


class _Reader:
    """Turns the combinations of a sweep file into tasks; what they share is read once."""

    def __init__(self, file: SweepFile, folder: Path) -> None:
        self.file, self.folder = file, folder
        self.at_s = file.at if isinstance(file.at, tuple) else (file.at,)
        self.seeds = file.seed if isinstance(file.seed, tuple) else (file.seed,)
        self._chips: dict[str, tuple[ChipSpec, str, dict[str, str], dict[str, str]]] = {}
        self._models: dict[str, tuple[dict[str, Any], dict[str, Any], bool]] = {}
        _check_keys(file)

    def campaign(self, name: str) -> Campaign:
        grid, points = self.file.grid, self.file.points
        for seed in self.seeds:
            seed_words(seed)
        keys = tuple(grid)
        positions = points or ({},)
        repeated = list(itertools.product(self.at_s, self.seeds, range(self.file.chips)))
        tasks: list[Task] = []
        labels: dict[str, dict[int, Value]] = {key: {} for key in (*grid, *_keys(points))}
        for numbers in itertools.product(*(range(len(values)) for values in grid.values())):
            chosen = {key: grid[key][k] for key, k in zip(keys, numbers, strict=True)}
            for place, point in enumerate(positions):
                what, where, said = self._combine({**chosen, **point})
                for key, k in zip(keys, numbers, strict=True):
                    labels[key].setdefault(k, said[key])
                for key in point:
                    labels[key][place] = said[key]
                tasks += [
                    Task(
                        _FUNCTION,
                        {**what, "at_s": at_s, "seed": seed, "replica": replica}, where,
                    )
                    for at_s, seed, replica in repeated
                ]
        axes = [Axis(key, _in_order(labels[key], len(grid[key])), _unit(key)) for key in keys]
        if points:
            along = {key: (_in_order(labels[key], len(points)), _unit(key)) for key in points[0]}
            axes.append(Axis("point", tuple(range(len(points))), along=along))
        axes += [
            Axis("at_s", self.at_s, "s"),
            Axis("seed", self.seeds, repeats=True),
            Axis("replica", tuple(range(self.file.chips)), repeats=True),
        ]
        return Campaign(name, tuple(axes), tuple(tasks), self._outputs(), self._facts())

    def _outputs(self) -> dict[str, str]:
        """Return outputs and units; without labels the error of the logits comes first."""
        labelled = all(labelled for *_, labelled in self._models.values())
        first = "accuracy" if labelled else "logit_error"
        return {first: OUTPUTS[first], **OUTPUTS}

    def _facts(self) -> dict[str, str]:
        """Return what all tasks share, as texts."""
        varied = {*self.file.grid, *_keys(self.file.points)}
        facts = {
            key: str(value) for key in ("model", "chip", "device", "form", "decay", "precision",
                                        "data", "calibrate", "limit")
            if key not in varied and (value := getattr(self.file, key)) is not None
        }
        if self.file.set:
            facts["set"] = json.dumps(self.file.set, sort_keys=True)
        if len(self._models) == 1:
            ((what, *_),) = self._models.values()
            facts |= {"model_sha256": what["model"], "data_sha256": what["data"]}
        return facts

    def _combine(
        self, chosen: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Value]]:
        """Return what a task computes, where its files are, and every chosen value as a label."""
        settings = {key: chosen.get(key, getattr(self.file, key)) for key in _SETTINGS}
        for key in ("form", "decay"):
            _choose(key, settings[key], FORMS if key == "form" else ("tile", "digital"))
        changes = {
            key: value for key, value in chosen.items()
            if key not in _SETTINGS and key not in _COUNTED
        }
        spec, text, chip_what, chip_where = self._chip(settings["chip"], settings["device"],
                                                       changes)
        model_what, model_where, _ = self._model(settings["model"])
        what = {
            **model_what, **chip_what, "chip": text, "form": settings["form"],
            "decay": settings["decay"], "precision": _precision(settings["precision"], chosen),
            "limit": self.file.limit,
        }
        said = {key: _label(spec, key, value) for key, value in chosen.items()}
        return what, {**model_where, **chip_where}, said

    def _chip(
        self, name: str, device: str | None, changes: Mapping[str, Any]
    ) -> tuple[ChipSpec, str, dict[str, str], dict[str, str]]:
        """Return a chip, its TOML, and the hash and the path of its fault map."""
        key = json.dumps([name, device, changes], sort_keys=True, default=str)
        if key not in self._chips:
            spec = load_chip(self._named_file(name))
            if device is not None:
                spec = spec.replace(device=load_chip(self._named_file(device)).device)
            spec = change_chip(spec, {**self.file.set, **changes})
            for moment in self.at_s:
                check_moment(spec, moment)
            text, what, where = spec.to_toml(), {}, {}
            if spec.faults is not None and spec.faults.map is not None:
                map_path = Path(spec.faults.map).resolve()
                what = {"fault_map": _hash_file(map_path)}
                where = {"fault_map_file": str(map_path)}
                text = spec.replace(**{"faults.map": "in the task"}).to_toml()
            self._chips[key] = (spec, text, what, where)
        return self._chips[key]

    def _model(self, name: str | None) -> tuple[dict[str, Any], dict[str, Any], bool]:
        """Return hash and facts of a model and its data, where they are, whether labelled."""
        if name is None:
            raise InputError(
                "find the model", "the file names none", 'add model = "FILE.pt", or list some '
                "under [grid]",
            )
        if name not in self._models:
            file = self.file
            given = {"norm": file.norm, "disc": file.disc, "pool": file.pool}
            where: dict[str, Any] = {
                "model_file": str((self.folder / name).resolve()),
                "data_name": None if file.data is None else self._named_file(file.data),
                "calibrate_file": (
                    None if file.calibrate is None
                    else str((self.folder / file.calibrate).resolve())
                ),
            }
            model = open_model(where["model_file"], **given)
            data = find_data(model, where["data_name"], where["calibrate_file"])
            what = {"model": model.sha256, "data": data.sha256, **given}
            self._models[name] = what, where, data.y is not None
        return self._models[name]

    def _named_file(self, text: str) -> str:
        """Return the path of a file named in the sweep file; other names as they are."""
        path = self.folder / text
        is_file = text.endswith((".toml", ".npz")) or "/" in text or "\\" in text or path.is_file()
        return str(path.resolve()) if is_file else text


def change_chip(spec: ChipSpec, changes: Mapping[str, Any]) -> ChipSpec:
    """Return a chip with fields replaced by dotted name, all at once.

    A field of a part that the chip lacks (`wires.r_wl_ohm` of a chip with ideal lines) makes
    that part. Raises InputError for an unknown field or an impossible value.
    """
    known: dict[str, Any] = {}
    parts: dict[str, Any] = {}
    for name, value in changes.items():
        head, *rest = name.split(".")
        if getattr(spec, head, "") is not None:
            known[name] = value
        elif not rest:
            parts[head] = dict(value) if isinstance(value, Mapping) else value
        else:
            target = parts.setdefault(head, {})
            for part in rest[:-1]:
                target = target.setdefault(part, {})
            target[rest[-1]] = value
    return spec.replace(**known, **parts) if changes else spec


def _check_keys(file: SweepFile) -> None:
    """Refuse keys that are empty, given twice, or not the same for all points."""
    for key, values in file.grid.items():
        if not values:
            raise UsageError(f"sweep {key}", "it has no values", "give at least one, or drop it")
    for where, keys in (("[grid]", file.grid), ("[[points]]", _keys(file.points))):
        for key in keys:
            if key in _ELSEWHERE:
                raise UsageError(
                    f"sweep {key} under {where}", "that is an axis of its own",
                    f"give {key} at the top of the file",
                )
            if (key in file.model_fields_set and key in _SETTINGS) or key in file.set:
                raise UsageError(
                    f"sweep {key}", f"it is given under {where} and once for all as well",
                    "leave one of the two out",
                )
            if key.startswith(_PRECISION) and key not in _COUNTED:
                guess = nearest(key, _COUNTED)
                raise UsageError(
                    f"sweep {key}", "there is no such quantity",
                    (f"did you mean '{guess}'? " if guess else "")
                    + f"known are {', '.join(sorted(_COUNTED))}",
                )
    both = set(file.grid) & set(_keys(file.points))
    if both:
        raise UsageError(
            f"sweep {min(both)}", "it is in [grid] and in [[points]]", "leave one of the two out"
        )
    for number, point in enumerate(file.points, start=1):
        if point.keys() != file.points[0].keys() or not point:
            raise InputError(
                "sweep [[points]]",
                f"number {number} gives {', '.join(point) or 'nothing'}, the first "
                f"{', '.join(file.points[0]) or 'nothing'}",
                "give every point values of the same keys",
            )


def _keys(points: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    return tuple(points[0]) if points else ()


def _choose(key: str, value: Any, allowed: Iterable[str]) -> None:
    if value not in tuple(allowed):
        guess = nearest(str(value), allowed)
        raise InputError(
            f"use {key} '{value}'", "it is not a known value",
            (f"did you mean '{guess}'? " if guess else "") + f"choose one of {', '.join(allowed)}",
        )


def _precision(text: str | None, chosen: Mapping[str, Any]) -> dict[str, int]:
    """Return the bits of a task: those of the text, and single ones that were chosen."""
    bits = Precision() if text in (None, "none") else Precision.parse(str(text))
    single = {
        key.removeprefix(_PRECISION): value for key, value in chosen.items() if key in _COUNTED
    }
    return Precision(**{**bits.given(), **single}).given()


def _label(spec: ChipSpec, key: str, value: Any) -> Value:
    """Return a chosen value as a coordinate: fields of the chip in SI, parts of it as JSON."""
    if key not in _SETTINGS and key not in _COUNTED:
        value = spec
        for part in key.split("."):
            value = getattr(value, part)
    if isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Spec):
        return json.dumps(value.model_dump(exclude_none=True, mode="json"), sort_keys=True)
    return json.dumps(value, sort_keys=True, default=str)


def _in_order(values: Mapping[int, Value], n: int) -> tuple[Value, ...]:
    return tuple(values[k] for k in range(n))


def _unit(key: str) -> str:
    """Return the unit that the name of a quantity ends in."""
    last = key.rsplit(".", 1)[-1]
    if last.startswith("g_") and last.endswith("_s"):
        return "S"
    return next((unit for end, unit in _UNITS.items() if last.endswith(end)), "1")


def _hash_file(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(
            f"read the fault map {path}", f"it cannot be read ({error})", "check the path"
        ) from None
