"""Archives of arrays on disk, written whole or not at all, read without running code of theirs."""

from __future__ import annotations

import io
import json
import os
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from aimc_sim.errors import InputError, UsageError

SCHEMA = "aimc-sim.matrix/1"
# of a cell, where there was something to say (see writing.Written), and their types
WRITTEN = {"faults": "int8", "pulses": "uint16", "failed": "bool", "energy_j": "float32"}
_ARRAYS = {"w": "fiubc", "adc_range": "f", "programmed_s": "f"}  # and kinds of their numbers
_FACTS: dict[str, type | tuple[type, ...]] = {
    "chip": str, "seed": int, "replica": int, "clock_ns": int, "age_ns": int, "reads": list,
    "full_scale": (float, type(None)),
}
# what numpy and zipfile raise for a damaged archive; NotImplementedError is a RuntimeError
DAMAGES = (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error)
_AGAIN = "program the matrix again"


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
    arrays = read_archive(path, asked, (*_ARRAYS, "meta"), WRITTEN)
    facts = read_facts(arrays.pop("meta"), asked, SCHEMA, _FACTS)
    for key, kinds in _ARRAYS.items():
        if arrays[key].dtype.kind not in kinds or not np.isfinite(arrays[key]).all():
            raise InputError(asked, f"its {key} are not finite numbers", _AGAIN)
    if not (arrays["adc_range"] > 0).all():
        raise InputError(asked, "its adc_range are not above zero", _AGAIN)
    for key, kind in WRITTEN.items():
        found = arrays.get(key)
        if found is not None and (
            found.dtype != kind or found.shape != arrays["programmed_s"].shape
        ):
            raise InputError(asked, f"its {key} are not {kind} values of its cells", _AGAIN)
    reads, times = facts["reads"], (facts["clock_ns"], facts["age_ns"])
    counts = [*reads, *times]
    if len(reads) != 2 or not all(isinstance(n, int) and n >= 0 for n in counts):
        raise InputError(asked, "its reads or times are no counts", _AGAIN)
    return facts, arrays


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
    path: str | Path, asked: str, needed: Iterable[str], others: Iterable[str]
) -> dict[str, np.ndarray]:
    """Return the arrays of an .npz; InputError where it is unreadable or lacks what is needed."""
    try:
        archive = np.load(path, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise InputError(asked, "it holds one array", "give a saved file")
        with archive:
            missing = [key for key in needed if key not in archive]
            arrays = {key: archive[key] for key in (*needed, *others) if key in archive}
    except DAMAGES as error:
        raise InputError(asked, f"it cannot be read ({error})", "check the path") from error
    if missing:
        raise InputError(asked, f"it lacks {', '.join(missing)}", "give a saved file")
    return arrays


def read_facts(
    meta: np.ndarray, asked: str, schema: str, kinds: Mapping[str, type | tuple[type, ...]]
) -> dict[str, Any]:
    """Return the facts beside the arrays; InputError where one is missing or of a wrong kind."""
    do = "give a file that this version saved"
    try:
        facts = json.loads(str(meta))
    except ValueError as error:
        raise InputError(asked, f"its facts cannot be read ({error})", do) from error
    if not isinstance(facts, dict):
        raise InputError(asked, "its facts are no mapping", do)
    if facts.get("schema") != schema:
        raise InputError(
            asked, f"its schema is {facts.get('schema')}, this version reads {schema}",
            "install the version that wrote it, or program it again",
        )
    wrong = [
        name for name, kind in kinds.items()
        if name not in facts or not isinstance(facts[name], kind)
    ]
    if wrong:
        raise InputError(asked, f"it lacks or garbles {', '.join(wrong)}", do)
    return facts
