"""A programmed chip on disk: model, spec, programmed conductances and clock in one .npz."""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aimc_sim.errors import InputError, UsageError
from aimc_sim.specs import ChipSpec
from ssm import checkpoint
from ssm.deploy import deploy

if TYPE_CHECKING:
    from ssm.inference import ProgrammedModel

SCHEMA = "aimc-sim.programmed/1"
_KEYS = ("meta", "model", "signal", "programmed_s")


def save_chip(programmed: ProgrammedModel, path: str | Path) -> None:
    """Write programmed chips to `path`, whole or not at all; `load_chip` brings them back.

    UsageError where the file cannot be written.
    """
    path = Path(path)
    d, chip = programmed.deployment, programmed.chip
    meta = {
        "schema": SCHEMA, "chip": d.spec.to_toml(), "form": d.form, "decay": d.decay,
        "digital": list(d.digital), "calibration": d.calibration, "seed": chip.seed,
        "first_chip": chip.first_replica, "clock_ns": chip.clock_ns, "sha256": d.model.sha256,
    }
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer, meta=np.array(json.dumps(meta)),
        model=np.frombuffer(checkpoint.to_bytes(d.model), np.uint8), signal=d.signal,
        programmed_s=chip.programmed_s,
    )
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(buffer.getvalue())
        os.replace(temporary, path)
    except OSError as error:
        raise UsageError(
            f"save the chip as {path}", f"the system refuses: {error.strerror}",
            "choose a place that can be written",
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def load_chip(path: str | Path) -> ProgrammedModel:
    """Return the programmed chips of a file written by `ProgrammedModel.save`.

    Seed, conductances and clock are as they were: it answers bit for bit as before.

    Raises InputError for a missing or damaged file or one of a newer schema.
    """
    from ssm.inference import ProgrammedModel

    asked = f"load the chip {path}"
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [key for key in _KEYS if key not in archive]
            if missing:
                raise InputError(
                    asked, f"it lacks {', '.join(missing)}", "give a file of --save-chip"
                )
            meta = json.loads(str(archive["meta"]))
            model_bytes, signal = archive["model"].tobytes(), archive["signal"]
            programmed_s = archive["programmed_s"]
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise InputError(asked, f"it cannot be read ({error})", "check the path") from error
    if meta.get("schema") != SCHEMA:
        raise InputError(
            asked, f"its schema is {meta.get('schema')}, this version reads {SCHEMA}",
            "install the version that wrote it, or program the model again",
        )
    spec = ChipSpec.from_text(meta["chip"], origin=f"in {path}")
    model = checkpoint.from_bytes(model_bytes, asked).replace(sha256=meta["sha256"])
    deployment = deploy(
        model, spec, meta["form"], decay=meta["decay"], calibrate=signal, digital=meta["digital"],
        calibration=meta["calibration"],
    )
    if programmed_s.shape[1:] != (deployment.layout.n_cells,):
        raise InputError(
            asked, f"it holds {programmed_s.shape} conductances, the layout has "
            f"{deployment.layout.n_cells} cells", "program the model again",
        )
    programmed = ProgrammedModel(
        deployment, meta["seed"], len(programmed_s), meta["first_chip"], programmed_s
    )
    programmed.chip.clock_ns = meta["clock_ns"]
    return programmed
