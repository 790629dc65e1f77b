"""What a chip is made of, as frozen, validated values: TOML in, TOML out.

Every number is SI with its unit in the name; text such as ``25uS`` or ``1h`` is accepted at
this edge and nowhere else. A spec never changes; `replace` makes a new one.
"""

from __future__ import annotations

import tomllib
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import numpy as np
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from aimc_sim.errors import AimcError, InputError, UsageError, nearest
from aimc_sim.units import parse_quantity

CHIP_SCHEMA: Literal["aimc-sim.chip/1"] = "aimc-sim.chip/1"


def _si(value: Any, *, kind: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return parse_quantity(value, kind)
    except UsageError as error:
        raise ValueError(f"{error.found}; {error.do}") from None


def _quantity(kind: str) -> Any:
    return BeforeValidator(partial(_si, kind=kind))


Siemens = Annotated[float, _quantity("conductance"), Field(allow_inf_nan=False)]
Seconds = Annotated[float, _quantity("time"), Field(allow_inf_nan=False)]
Volts = Annotated[float, _quantity("voltage"), Field(allow_inf_nan=False)]
Bits = Annotated[int, Field(ge=1, le=16)] | Literal["ideal"]


class Spec(BaseModel):
    """Base of all specs: frozen, no unknown field, no NaN, replaced instead of changed."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def replace(self, **changes: Any) -> Self:
        """Return a copy with fields changed and all checks made again.

        A dotted name reaches into a part: ``spec.replace(**{"adc.bits": 6})``.
        Raises InputError for an unknown field or an impossible value.
        """
        data = self.model_dump()
        for name, value in changes.items():
            *path, last = name.split(".")
            target = data
            for part in path:
                if not isinstance(target.get(part), dict):
                    raise _unknown_field(name, part, list(target))
                target = target[part]
            if last not in target:
                raise _unknown_field(name, last, list(target))
            target[last] = value.model_dump() if isinstance(value, BaseModel) else value
        return _validated(type(self), data, f"replace {', '.join(changes)}")


AnySpec = TypeVar("AnySpec", bound=Spec)


class CurvePiece(Spec):
    """One piece of a curve: polynomial + log_slope ln v + power[0] v^power[1], then clamped."""

    below: float | None = None  # piece holds for v < below (None: up to the end)
    polynomial: tuple[float, ...] = ()  # ascending coefficients
    log_slope: float = 0.0
    power: tuple[float, float] = (0.0, 0.0)
    low: float | None = None
    high: float | None = None


class Curve(Spec):
    """A published function of a cell's target conductance.

    of : the variable v of the formula, "r" (g / g_max) or "g_us" (g in microsiemens).
    unit_s : siemens in one unit of the result; 1 for a pure number (nu, Q).
    pieces : tried in order; the first with v < below holds.
    """

    of: Literal["r", "g_us"] = "r"
    unit_s: float = Field(default=1.0, gt=0)
    pieces: tuple[CurvePiece, ...] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _one_piece_may_be_flat(cls, data: Any) -> Any:
        if isinstance(data, dict) and "pieces" not in data:
            own = {key: data[key] for key in ("of", "unit_s") if key in data}
            return {**own, "pieces": [{k: v for k, v in data.items() if k not in own}]}
        return data

    def evaluate(self, g_s: np.ndarray, g_max_s: float) -> np.ndarray:
        """Return the curve at conductances g_s [S], in SI (float64, the shape of g_s)."""
        g = np.asarray(g_s, float)
        v = g / g_max_s if self.of == "r" else g * 1e6
        result = np.empty_like(v)
        left = np.ones(v.shape, bool)
        for piece in self.pieces:
            here = left if piece.below is None else left & (v < piece.below)
            result[here] = _piece(piece, v[here])
            left = left & ~here
        return result * self.unit_s


def _piece(piece: CurvePiece, v: np.ndarray) -> np.ndarray:
    value = np.polynomial.polynomial.polyval(v, piece.polynomial or (0.0,))
    positive = np.maximum(v, 1e-12)  # ln 0 and 0^-p run into the clamps, as in the papers
    if piece.log_slope:
        value = value + piece.log_slope * np.log(positive)
    if piece.power[0]:
        value = value + piece.power[0] * positive ** piece.power[1]
    return np.asarray(np.clip(value, piece.low, piece.high))


class ProgrammingSpec(Spec):
    """One-shot programming: programmed = max(floor, target + mean(g) + sigma(g) xi)."""

    sigma: Curve
    mean: Curve | None = None
    g_reference_s: Siemens | None = None  # g_max of the published fit; errors scale with g_max


class DriftSpec(Spec):
    """Power-law drift g (t/t0)^-nu with t = t0 + time since programming, nu = |mu + s xi|."""

    t0_s: Seconds = Field(gt=0)
    nu_mean: Curve
    nu_std: Curve


class RelaxationSpec(Spec):
    """Loss and spread of a filament after programming, one xi per cell for all times.

    added : g = programmed + mean + std xi for t >= start_s, with
        mean = mean_per_ln_t_s ln t, std = std_per_ln_t_s ln t + std_offset_s   [S, t in s].
    total : g = target + sigma(t) xi replaces the programming error (published as the total
        error at times_s); between these times sigma is interpolated in ln t.
    """

    kind: Literal["added", "total"]
    start_s: Seconds = 1.0
    mean_per_ln_t_s: float = 0.0
    std_per_ln_t_s: float = 0.0
    std_offset_s: float = 0.0
    times_s: tuple[float, ...] = ()
    sigma: tuple[Curve, ...] = ()
    g_reference_s: Siemens | None = None

    @model_validator(mode="after")
    def _total_needs_a_table(self) -> Self:
        if self.kind == "total" and (
            not self.times_s
            or len(self.times_s) != len(self.sigma)
            or list(self.times_s) != sorted(set(self.times_s))
            or self.times_s[0] <= 0
        ):
            raise ValueError("kind 'total' needs rising positive times_s and one sigma for each")
        return self


class ReadNoiseSpec(Spec):
    """Read noise of a cell.

    sigma : relative (of = "r": times the present g) or absolute (its unit_s below 1).
    spectrum : "white": sigma at every read. "one_over_f": the noise gathered up to time t is
        sigma sqrt(ln((t + t_read)/(2 t_read))), t the drift time t0 + time since programming.
    """

    sigma: Curve
    relative: bool = True
    spectrum: Literal["white", "one_over_f"] = "one_over_f"
    t_read_s: Seconds = Field(default=250e-9, gt=0)


class DeviceSpec(Spec):
    """A memristive device as published: ranges, error models, and what is known of them."""

    name: str
    description: str = ""
    doi: tuple[str, ...] = ()
    g_min_s: Siemens = Field(ge=0)
    g_max_s: Siemens = Field(gt=0)
    floor_s: Siemens = Field(default=0.0, ge=0)  # no read finds less
    ceiling_s: Siemens | None = None  # no read finds more (None: no such limit)
    zero_time: str = "0 s is the moment after programming"
    time_range_s: tuple[float, float] = (0.0, float(100 * 365 * 86400))
    outside_time_range: Literal["refuse", "warn"] = "warn"
    caveats: tuple[str, ...] = ()
    not_modelled: tuple[str, ...] = ()
    v_read_v: Volts = Field(default=0.2, gt=0)
    programming: ProgrammingSpec | None = None
    drift: DriftSpec | None = None
    relaxation: RelaxationSpec | None = None
    read_noise: ReadNoiseSpec | None = None

    @model_validator(mode="after")
    def _range_is_a_range(self) -> Self:
        if not self.floor_s <= self.g_min_s < self.g_max_s:
            raise ValueError("conductances must satisfy floor_s <= g_min_s < g_max_s")
        if self.ceiling_s is not None and self.ceiling_s < self.g_max_s:
            raise ValueError("ceiling_s must not lie below g_max_s")
        return self


class DacSpec(Spec):
    """Input converter, symmetric about zero.

    Its range is `headroom` times the largest |input| on the calibration data: one range for a
    matrix, one a state (rounded up to a power of two, a shift in logic) for A and C.
    """

    bits: Bits = 8
    headroom: float = Field(default=1.0, gt=0, le=64)


class AdcSpec(Spec):
    """Output converter, symmetric about zero.

    Its range is `headroom` times the largest |output| of its column on the calibration data.
    noise_lsb : standard deviation of thermal noise in units of one step (LSB).
    """

    bits: Bits = 8
    headroom: float = Field(default=1.0, gt=0, le=64)
    noise_lsb: float = Field(default=0.0, ge=0, le=64)


class TileSpec(Spec):
    """One kind of tile: rows (word lines, inputs) x cols (bit lines, outputs) of cells.

    idle : what a cell that carries no weight is: "absent" (not made), "off" (unformed, no
        current) or "g_min" (programmed to g_min, with its noise).
    drive : how blocks of a block list share a tile: "serial" (packed densely, one block's
        rows driven at a time) or "parallel" (block-diagonal, all driven together, so that a
        column also sums the idle cells of the other blocks' rows).
    """

    rows: int = Field(default=256, ge=1, le=65536)
    cols: int = Field(default=256, ge=1, le=65536)
    idle: Literal["absent", "off", "g_min"] = "off"
    drive: Literal["serial", "parallel"] = "serial"


class ChipSpec(Spec):
    """A chip: its device, tile kinds, converters, clock, and how weights are put on it.

    tile : the kind for matrices. short_tile : the kind for the few-row products of A.
    weight_scale : one scale per column, or one per block, turns weights into conductances.
    step_period_s : duration of one time step of the recurrence, for noise and drift.
    noise_in_time : how 1/f read noise enters a run: "split" (octaves slower than a step drawn
        once per sequence, faster ones white), "white" or "frozen" (all of it, as a bound).
    compensation : "global" divides each matrix' output by the mean gain that a calibration
        read of its cells finds at that time; "none" leaves drift uncorrected.
    max_tiles : tiles there are of all kinds together; a model that needs more is refused.
    """

    schema_version: Literal["aimc-sim.chip/1"] = CHIP_SCHEMA
    name: str
    device: DeviceSpec
    tile: TileSpec = TileSpec()
    short_tile: TileSpec = TileSpec(rows=2)
    dac: DacSpec = DacSpec()
    adc: AdcSpec = AdcSpec()
    weight_scale: Literal["column", "block"] = "column"
    step_period_s: Seconds = Field(default=1e-6, gt=0)
    noise_in_time: Literal["split", "white", "frozen"] = "split"
    compensation: Literal["none", "global"] = "none"
    max_tiles: int | None = Field(default=None, ge=1)

    @field_validator("schema_version", mode="before")
    @classmethod
    def _known_version(cls, version: Any) -> Any:
        if version != CHIP_SCHEMA:
            raise ValueError(f"this version reads {CHIP_SCHEMA}; update aimc-sim or the file")
        return version

    @classmethod
    def preset(cls, name: str) -> ChipSpec:
        """Return a published chip by name; UsageError suggests the nearest where unknown.

        Examples
        --------
        >>> ChipSpec.preset("reram-wan2022").device.g_max_s
        4e-05
        """
        if name not in presets():
            guess = nearest(name, presets())
            hint = f"did you mean '{guess}'? " if guess else ""
            raise UsageError(
                f"use preset '{name}'", "no preset has that name",
                f"{hint}choose one of {', '.join(presets())}, or give a .toml file",
            )
        text = resources.files("aimc_sim").joinpath("presets", f"{name}.toml").read_text("utf-8")
        return cls.from_text(text, origin=f"preset {name}")

    @classmethod
    def from_toml(cls, path: str | Path) -> ChipSpec:
        """Return the chip of a TOML file; a file with [device] alone gets default periphery."""
        asked = f"read chip file {path}"
        try:
            text = Path(path).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(asked, f"it cannot be read ({error})", "check the path") from None
        return cls.from_text(text, origin=str(path))

    @classmethod
    def from_text(cls, text: str, *, origin: str) -> ChipSpec:
        """Return the chip that a TOML text describes; `origin` names it in errors."""
        asked = f"read chip {origin}"
        try:
            data = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise InputError(asked, f"it is not TOML ({error})", "mend that line") from None
        if isinstance(data.get("device"), dict):
            data.setdefault("name", data["device"].get("name", "unnamed"))
        return _validated(cls, data, asked)

    def to_toml(self, path: str | Path | None = None) -> str:
        """Return the chip as TOML text, and write it to `path` where one is given."""
        import tomli_w

        text = tomli_w.dumps(self.model_dump(exclude_none=True, mode="json"))
        if path is not None:
            Path(path).write_text(text, "utf-8")
        return text


def presets() -> list[str]:
    """Return the names of the published chips that come with the package."""
    folder = resources.files("aimc_sim").joinpath("presets")
    names = (file.name for file in folder.iterdir())
    return sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml"))


def load_chip(name_or_file: str | Path) -> ChipSpec:
    """Return a chip by preset name, or from a file where the text ends in .toml or has a slash."""
    text = str(name_or_file)
    if text.endswith(".toml") or "/" in text or Path(text).is_file():
        return ChipSpec.from_toml(text)
    return ChipSpec.preset(text)


def _unknown_field(name: str, part: str, known: list[str]) -> AimcError:
    guess = nearest(part, known)
    hint = f"did you mean '{guess}'? " if guess else ""
    return InputError(
        f"set field '{name}'", f"there is no field '{part}'",
        f"{hint}known here are {', '.join(known)}",
    )


def _known_fields(model: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    """Return the field names of the part of `model` in which a misspelt field was found."""
    for part in location[:-1]:
        field = model.model_fields.get(str(part))
        kind = None if field is None else field.annotation
        candidates = [kind, *getattr(kind, "__args__", ())]
        inner = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if not inner:
            return []
        model = inner[0]
    return list(model.model_fields)


def _validated(cls: type[AnySpec], data: dict[str, Any], asked: str) -> AnySpec:
    try:
        return cls.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        # pydantic names the members of a union in the path of the error: not ours to show
        path = [str(part) for part in first["loc"] if "[" not in str(part) and "-" not in str(part)]
        where = ".".join(path) or "the file"
        if first["type"] == "extra_forbidden":
            known = _known_fields(cls, first["loc"])
            guess = nearest(str(first["loc"][-1]), known)
            hint = f"did you mean '{guess}'? " if guess else ""
            raise InputError(
                asked, f"field '{where}' is unknown",
                f"{hint}known here are {', '.join(known)}" if known else "remove it",
            ) from None
        value = "" if first["type"] == "missing" else f" (got {str(first['input'])[:60]})"
        raise InputError(
            asked, f"field '{where}': {first['msg']}{value}", "give a value in range",
        ) from None
