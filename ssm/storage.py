"""A programmed chip on disk: model, spec, programmed conductances and clock in one .npz."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aimc_sim.errors import InputError, UsageError
from aimc_sim.faults import NAMES
from aimc_sim.specs import ChipSpec
from aimc_sim.storage import (
    WRITTEN,
    Kinds,
    Words,
    check_numbers,
    read_archive,
    read_facts,
    write_archive,
)
from aimc_sim.writing import Written
from ssm import checkpoint
from ssm.correction import Corrections
from ssm.deploy import deploy
from ssm.kernels.weights import Correction

if TYPE_CHECKING:
    from ssm.deploy import Deployment
    from ssm.inference import ProgrammedModel

SCHEMA = "aimc-sim.programmed/1"
_NUMBERS = {"signal": "f", "programmed_s": "f"}  # and kinds of them
# what the compensation of columns found at the moment of saving
_CORRECTION = ("gain", "offset", "left_alone")
_OTHERS = (*WRITTEN, *_CORRECTION)
_FACTS: Kinds = {
    "chip": str, "form": str, "decay": str, "digital": list, "calibration": str, "seed": int,
    "first_chip": int, "clock_ns": int, "sha256": str,
}
_WORDS = Words(
    "give a file of --save-chip", "program the model again",
    "give a file of --save-chip (a chip file in TOML is read by aimc_sim.load_chip)",
)


def save_chip(programmed: ProgrammedModel, path: str | Path) -> None:
    """Write programmed chips to `path`, whole or not at all; `load_chip` brings them back.

    UsageError where the file cannot be written.
    """
    d, chip = programmed.deployment, programmed.chip
    meta = {
        "schema": SCHEMA, "chip": d.spec.to_toml(), "form": d.form, "decay": d.decay,
        "digital": list(d.digital), "calibration": d.calibration, "seed": chip.seed,
        "first_chip": chip.first_replica, "clock_ns": chip.clock_ns, "age_ns": chip.age_ns,
        "sha256": d.model.sha256,
    }
    arrays = {
        "model": np.frombuffer(checkpoint.to_bytes(d.model), np.uint8), "signal": d.signal,
        "programmed_s": chip.programmed_s,
        **{name: getattr(chip.written, name) for name in WRITTEN},
        **_found_corrections(programmed),
    }
    write_archive(path, meta, arrays, f"save the chip as {path}")


def load_chip(path: str | Path) -> ProgrammedModel:
    """Return the programmed chips of a file written by `ProgrammedModel.save`.

    path : the .npz. Seed, conductances and clock are as they were: it answers bit for bit as
    before.

    Raises InputError for a missing or damaged file or one of a newer schema.
    """
    from ssm.inference import ProgrammedModel

    asked = f"load the chip {path}"
    arrays = read_archive(path, asked, ("meta", "model", *_NUMBERS), _OTHERS, _WORDS)
    facts = read_facts(arrays["meta"], asked, SCHEMA, _FACTS, {"age_ns": int}, _WORDS)
    facts.setdefault("age_ns", facts["clock_ns"])  # as in files without it: never warm
    check_numbers(arrays, _NUMBERS, asked, _WORDS)
    if not np.isin(arrays.get("faults", 0), range(len(NAMES))).all():
        raise InputError(asked, "its faults are not int8 values of its cells", _WORDS.again)
    spec = ChipSpec.from_text(facts["chip"], origin=f"in {path}")
    model = checkpoint.from_bytes(arrays["model"].tobytes(), asked)
    try:
        deployment = deploy(
            model.replace(sha256=facts["sha256"]), spec, facts["form"], decay=facts["decay"],
            calibrate=arrays["signal"], digital=facts["digital"], calibration=facts["calibration"],
        )
    except UsageError as error:  # what no caller asked for: the file says it
        raise InputError(asked, f"its {error.asked}: {error.found}", error.do) from error
    programmed_s = arrays["programmed_s"]
    if programmed_s.ndim != 2 or programmed_s.shape[1] != deployment.layout.n_cells:
        raise InputError(
            asked, f"it holds {programmed_s.shape} conductances, the layout has "
            f"{deployment.layout.n_cells} cells", _WORDS.again,
        )
    written = Written(programmed_s, **{name: arrays.get(name) for name in WRITTEN})
    programmed = ProgrammedModel(
        deployment, facts["seed"], len(programmed_s), facts["first_chip"], written
    )
    programmed.chip.clock_ns, programmed.chip.age_ns = facts["clock_ns"], facts["age_ns"]
    if all(name in arrays for name in _CORRECTION):
        programmed.restore(_corrections(arrays, deployment, asked))
    return programmed


def _found_corrections(programmed: ProgrammedModel) -> dict[str, np.ndarray]:
    """Return the coefficients of columns now, where there are any: a loaded chip needs no new
    reads."""
    if programmed.deployment.spec.compensation not in ("column", "affine"):
        return {}
    try:
        found = programmed.corrections
    except InputError:  # nothing left to compensate: it is kept as it is
        return {}
    gain, offset = (np.stack(values) for values in zip(*found.each, strict=True))
    return dict(zip(_CORRECTION, (gain, offset, found.left_alone), strict=True))


def _corrections(arrays: dict[str, np.ndarray], d: Deployment, asked: str) -> Corrections:
    """Return the compensation of a file; InputError where it is not that of the chips."""
    gain, offset, left_alone = (arrays[name] for name in _CORRECTION)
    chips = len(arrays["programmed_s"])
    fits = (
        gain.dtype == offset.dtype == np.float32
        and left_alone.dtype == np.int64
        and gain.shape == (chips, d.weights.product.size)
        and offset.shape in ((chips, 0), (chips, d.converters.adc_step.size))
        and left_alone.shape == (chips,)
        and np.isfinite(gain).all() and np.isfinite(offset).all()
    )
    if not fits:
        raise InputError(
            asked, "its compensation is not that of its chips", _WORDS.again
        )
    return Corrections([Correction(*pair) for pair in zip(gain, offset, strict=True)], left_alone)
