"""What specs are made of: quantities with units, the frozen base, errors that name the field."""

from __future__ import annotations

import re
from functools import partial
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import ErrorDetails

from aimc_sim.errors import AimcError, InputError, UsageError, nearest
from aimc_sim.units import parse_quantity


def _si(value: Any, *, kind: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return parse_quantity(value, kind)
    except UsageError as error:
        raise ValueError(f"{error.found}; {error.do}") from None


def quantity(kind: str) -> Any:
    """Return the annotation of a field that also takes text with a unit of `kind`."""
    return BeforeValidator(partial(_si, kind=kind))


def nanometres(value: Any) -> Any:
    """Return text with a unit of length in nanometres, anything else as it is."""
    if not isinstance(value, str) or not value.strip()[-1:].isalpha():
        return value
    try:
        # rounded to a millionth, so that 45 nm are 45
        return round(1e9 * _si(value, kind="length"), 6)
    except ValueError:
        raise ValueError("it is no length; write a number of nm, or '45nm', say") from None


Siemens = Annotated[float, quantity("conductance"), Field(allow_inf_nan=False)]
PositiveSiemens = Annotated[float, quantity("conductance"), Field(gt=0, allow_inf_nan=False)]
Seconds = Annotated[float, quantity("time"), Field(allow_inf_nan=False)]
PositiveSeconds = Annotated[float, quantity("time"), Field(gt=0, allow_inf_nan=False)]
Ohms = Annotated[float, quantity("resistance"), Field(ge=0, allow_inf_nan=False)]
Volts = Annotated[float, quantity("voltage"), Field(allow_inf_nan=False)]
Nanometres = Annotated[float, BeforeValidator(nanometres), Field(allow_inf_nan=False)]
Kelvin = Annotated[float, quantity("temperature"), Field(gt=0, le=2000, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Bits = Annotated[int, Field(ge=1, le=16)] | Literal["ideal"]


class Spec(BaseModel):
    """Base of all specs: frozen, no unknown field, no NaN, replaced instead of changed."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse true and false but where a field is one of them: Python takes true for 1."""
        kind = cls.model_fields[info.field_name or ""].annotation
        if kind is not bool and kind is not Any and _has_truth(value):
            raise ValueError("it is true or false, which is no number; give a value of its kind")
        return value

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
        return validated(type(self), data, f"replace {', '.join(changes)}")


def _has_truth(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_has_truth, value))
    return isinstance(value, bool)


AnySpec = TypeVar("AnySpec", bound=Spec)


def validated(cls: type[AnySpec], data: dict[str, Any], asked: str) -> AnySpec:
    """Return the spec that `data` describes; InputError names the first field that is wrong."""
    try:
        return cls.model_validate(data)
    except ValidationError as error:
        first = _most_telling(error.errors())
        path, known = _locate(cls, data, first)
        where = ".".join(path)
        if first["type"] == "extra_forbidden":
            guess = nearest(str(first["loc"][-1]), known)
            hint = f"did you mean '{guess}'? " if guess else ""
            raise InputError(
                asked,
                f"field '{where}' is unknown",
                f"{hint}known here are {', '.join(known)}",
            ) from None
        raise InputError(asked, *_wrong_value(where, first)) from None


def _most_telling(errors: list[ErrorDetails]) -> ErrorDetails:
    """Return the first error; where a field takes a word or a number, that of the kind given."""
    first = errors[0]
    is_text = isinstance(first["input"], str)
    same = [error for error in errors if error["loc"][:-1] == first["loc"][:-1]]
    if len(same) == len(errors) > 1 and all(error["input"] is first["input"] for error in same):
        return next((e for e in same if (e["type"] == "literal_error") == is_text), first)
    return first


def _wrong_value(where: str, error: ErrorDetails) -> tuple[str, str]:
    """Return what was found and what to do about a field that is missing or has a wrong value.

    A check of our own may say both, parted by a semicolon.
    """
    kind, field = error["type"], f"field '{where}'"
    if kind == "missing":
        return f"{field} is missing", "add it"
    value = "" if isinstance(error["input"], dict) else f" (got {str(error['input'])[:60]})"
    if kind == "literal_error":
        expected = error["ctx"]["expected"]
        allowed = re.findall(r"'(.*?)'", expected) or re.split(r", | or ", expected)
        guess = nearest(str(error["input"]), allowed)
        hint = f"did you mean '{guess}'? " if guess else ""
        return f"{field} is not a known value{value}", f"{hint}choose one of {', '.join(allowed)}"
    message = error["msg"].removeprefix("Value error, ")
    if kind == "value_error":
        found, _, do = message.partition("; ")
        do = do or "give values that go together"
    elif kind.endswith(("_type", "_parsing")):
        found, do = message, "give a value of that kind"
    else:
        found, do = message, "give a value in range"
    return (f"{field}: " if where else "") + found + value, do


def _unknown_field(name: str, part: str, known: list[str]) -> AimcError:
    guess = nearest(part, known)
    hint = f"did you mean '{guess}'? " if guess else ""
    return InputError(
        f"set field '{name}'",
        f"there is no field '{part}'",
        f"{hint}known here are {', '.join(known)}",
    )


def _locate(model: type[BaseModel], data: Any, error: ErrorDetails) -> tuple[list[str], list[str]]:
    """Return the path of a wrong field as the user wrote it, and the fields known at its place.

    pydantic's path also has the members of unions and what a validator put in between (the
    one piece of a flat curve); these are in no file, so they are left out.
    """
    *parents, last = error["loc"] or ("",)
    path, known = [], list(model.model_fields)
    for part in parents:
        written = _has(data, part)
        field = model.model_fields.get(str(part))
        inner = None if field is None else _spec_in(field.annotation)
        if inner is not None:
            beside = [] if written else [name for name in known if name != part]
            model, known = inner, [*beside, *inner.model_fields]
        if written:
            path.append(str(part))
            data = data[part]
    if _has(data, last) or (error["type"] == "missing" and isinstance(data, dict)):
        path.append(str(last))
    return path, known


def _has(data: Any, part: int | str) -> bool:
    if isinstance(data, dict):
        return part in data
    return isinstance(data, (list, tuple)) and isinstance(part, int) and part < len(data)


def _spec_in(kind: Any) -> type[BaseModel] | None:
    """Return the first spec in an annotation such as ``Curve | None`` or ``tuple[Curve, ...]``."""
    if not get_args(kind):
        return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None
    return next(filter(None, map(_spec_in, get_args(kind))), None)
