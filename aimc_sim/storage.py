"""Archives of arrays on disk, written whole or not at all, read without running code of theirs."""

from __future__ import annotations

import io
import json
import os
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aimc_sim.errors import InputError, UsageError

Kinds = Mapping[str, type | tuple[type, ...]]  # of the facts of a file

SCHEMA = "aimc-sim.matrix/1"
# of a cell, where there was something to say (see writing.Written), and their types
WRITTEN = {"faults": "int8", "pulses": "uint16", "failed": "bool", "energy_j": "float32"}
# of a matrix driven from its rows and from its columns: reads, conversions that clipped, and all
COUNTS = ("reads", "saturated", "conversions")
_ARRAYS = {"w": "fiubc", "adc_range": "f", "programmed_s": "f"}  # and kinds of their numbers
_FACTS: Kinds = {
    "chip": str, "seed": int, "replica": int, "clock_ns": int, "age_ns": int, "reads": list,
    "full_scale": (float, type(None)),
}
_OTHER_FACTS: Kinds = {"saturated": list, "conversions": list}  # of files since they are counted
# what numpy and zipfile raise for a damaged archive; NotImplementedError is a RuntimeError
_DAMAGES = (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class Words:
    """What errors about a file tell its user to do.

    give : where a file of that kind comes from. again : how to have another. damaged : what a
    file that cannot be read might be instead.
    """

    give: str
    again: str
    damaged: str


_WORDS = Words(
    "give a file of AnalogMatrix.save", "program the matrix again",
    "give a file of AnalogMatrix.save",
)


def save_matrix(
    path: str | Path, facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray | None]
) -> None:
    """Write the facts and arrays of a programmed matrix; arrays that are None are left out.

    UsageError where the file cannot be written.
    """
    write_archive(path, {"schema": SCHEMA, **facts}, arrays, f"save the matrix as {path}")


def read_matrix(path: str | Path, asked: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return facts and arrays of a programmed matrix.

    Raises InputError where the file cannot be read, is of another schema or holds what no matrix
    has; `asked` begins its message.
    """
    arrays = read_archive(path, asked, (*_ARRAYS, "meta"), WRITTEN, _WORDS)
    facts = read_facts(arrays.pop("meta"), asked, SCHEMA, _FACTS, _OTHER_FACTS, _WORDS)
    check_numbers(arrays, _ARRAYS, asked, _WORDS)
    if not (arrays["adc_range"] > 0).all():
        raise InputError(asked, "its adc_range are not above zero", _WORDS.again)
    for name in COUNTS:
        counts = facts.setdefault(name, [0, 0])
        if len(counts) != 2 or not all(isinstance(n, int) and n >= 0 for n in counts):
            raise InputError(asked, f"its {name} are no counts", _WORDS.again)
    if not all(facts[name] >= 0 for name in ("clock_ns", "age_ns")):
        raise InputError(asked, "its times are below zero", _WORDS.again)
    return facts, arrays


def check_numbers(
    arrays: Mapping[str, np.ndarray], kinds: Mapping[str, str], asked: str, words: Words
) -> None:
    """Raise InputError unless arrays are finite numbers of their kinds, and what is known of
    cells (`WRITTEN`) has the shape of their conductances, `programmed_s`."""
    for key, kind in kinds.items():
        if arrays[key].dtype.kind not in kind or not np.isfinite(arrays[key]).all():
            raise InputError(asked, f"its {key} are not finite numbers", words.again)
    for key, wanted in WRITTEN.items():
        found = arrays.get(key)
        if found is not None and (
            found.dtype != wanted or found.shape != arrays["programmed_s"].shape
        ):
            raise InputError(asked, f"its {key} are not {wanted} values of its cells", words.again)


def write_archive(
    path: str | Path, facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray | None], asked: str
) -> None:
    """Write facts (as JSON, under `meta`) and arrays to an .npz, whole or not at all."""
    path = Path(path)
    there = {name: values for name, values in arrays.items() if values is not None}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, meta=np.array(json.dumps(dict(facts))), **there)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(buffer.getvalue())
        os.replace(temporary, path)
    except OSError as error:
        raise UsageError(
            asked, f"the system refuses: {error.strerror}", "choose a place that can be written"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def read_archive(
    path: str | Path, asked: str, needed: Iterable[str], others: Iterable[str], words: Words
) -> dict[str, np.ndarray]:
    """Return the arrays of an .npz; InputError where it is unreadable or lacks what is needed."""
    try:
        archive = np.load(path, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise InputError(asked, "it holds one array", words.give)
        with archive:
            missing = [key for key in needed if key not in archive]
            arrays = {key: archive[key] for key in (*needed, *others) if key in archive}
    except FileNotFoundError as error:
        raise InputError(asked, "there is no such file", "check the path") from error
    except _DAMAGES as error:
        raise InputError(
            asked, "it cannot be read: it is damaged, or no .npz of numbers", words.damaged
        ) from error
    if missing:
        raise InputError(asked, f"it lacks {', '.join(missing)}", words.give)
    return arrays


def read_facts(
    meta: np.ndarray, asked: str, schema: str, needed: Kinds, others: Kinds, words: Words
) -> dict[str, Any]:
    """Return the facts beside the arrays.

    InputError where one is of a wrong kind, or one of those needed is missing.
    """
    do = f"{words.give}, or {words.again}"
    try:
        facts = json.loads(str(meta))
    except ValueError as error:
        raise InputError(asked, f"its facts cannot be read ({error})", do) from error
    if not isinstance(facts, dict):
        raise InputError(asked, "its facts are no mapping", do)
    if facts.get("schema") != schema:
        raise InputError(
            asked, f"its schema is {facts.get('schema')}, this version reads {schema}",
            f"install the version that wrote it, or {words.again}",
        )
    wrong = [
        name for name, kind in {**needed, **others}.items()
        if (name in facts or name in needed) and not isinstance(facts.get(name, ()), kind)
    ]
    if wrong:
        raise InputError(asked, f"it lacks or garbles {', '.join(wrong)}", do)
    return facts
