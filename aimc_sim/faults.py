"""Cells that do not work: which they are on every chip, and what they hold.

A stuck cell has g_min or g_max whatever was written, for ever, and is read with noise like any
other. A cell without a connection carries no current and has no noise. Published yields differ
by orders: about 10 % of cells faulty on a 4 Mb HfO2 chip (Chen et al., IEEE Trans. Computers
64(1), 180-190, 2015, doi 10.1109/TC.2014.12), more than 99 % of them good on 63 of 64 cores of
a phase-change chip (Le Gallo et al., Nat. Electron. 2023, doi 10.1038/s41928-023-01010-1).
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from aimc_sim.errors import InputError
from aimc_sim.kernels.uniforms import fill_uniforms
from aimc_sim.mapping import KINDS, Layout, tile_of
from aimc_sim.randomness import Purpose
from aimc_sim.specs import ChipSpec

if TYPE_CHECKING:
    from aimc_sim.writing import Written

WORKS, STUCK_LOW, STUCK_HIGH, UNCONNECTED = range(4)
NAMES = ("works", "stuck_low", "stuck_high", "unconnected")

# what numpy and zipfile raise for a damaged archive; NotImplementedError is a RuntimeError
_DAMAGES = (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error)


def draw_faults(
    spec: ChipSpec, layout: Layout, seeds: tuple[np.uint64, np.uint64], n_replicas: int,
    first_replica: int,
) -> np.ndarray | None:
    """Return what is wrong with every cell, codes (n_replicas, n_cells) int8; None: never asked.

    0 works, 1 stuck at g_min, 2 stuck at g_max, 3 no connection. Each cell draws one uniform u
    and is stuck low for u < stuck_low, stuck high for the next stuck_high; each row and each
    column of a tile draws one and is dead for u < dead_rows or dead_cols. A code of the map
    stands before a drawn one, a missing connection before either. Nothing enters but seed,
    replica, tile and element.

    Raises InputError for a map that cannot be read or is not one of these tiles.
    """
    faults = spec.faults
    if faults is None:
        return None
    tile, element = layout.addresses
    rows, cols = (
        np.array([getattr(tile_of(spec, kind), side) for kind in layout.tile_kinds], np.int64)
        for side in ("rows", "cols")
    )
    row, col = np.divmod(element, cols[tile])
    mapped = np.zeros(tile.size, np.int8)
    if faults.map is not None:
        mapped = _read_map(faults.map, spec, layout, tile, row, col)
    codes = np.repeat(mapped[None], n_replicas, axis=0)
    u = np.empty(tile.size)

    def uniforms(purpose: Purpose, number: np.ndarray, replica: int) -> np.ndarray:
        fill_uniforms(tile, number, *seeds, int(purpose), first_replica + replica, u)
        return u

    for replica, own in enumerate(codes):
        if faults.stuck_low or faults.stuck_high:
            drawn = uniforms(Purpose.FAULT, element, replica)
            low = drawn < faults.stuck_low
            high = ~low & (drawn < faults.stuck_low + faults.stuck_high)
            own[(own == WORKS) & low] = STUCK_LOW
            own[(own == WORKS) & high] = STUCK_HIGH
        for share, line in ((faults.dead_rows, row), (faults.dead_cols, rows[tile] + col)):
            if share:
                own[uniforms(Purpose.FAULT_LINE, line, replica) < share] = UNCONNECTED
    return codes


def _read_map(
    path: str, spec: ChipSpec, layout: Layout, tile: np.ndarray, row: np.ndarray, col: np.ndarray
) -> np.ndarray:
    """Return the codes of cells at (tile, row, col), all (n_cells,), as a file says."""
    asked = f"read the fault map {path}"
    try:
        archive = np.load(path, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise InputError(
                asked, "it holds one array", "give an .npz with an array for each kind of tile"
            )
        with archive:
            maps = {kind: archive[kind] for kind in KINDS if kind in archive}
    except _DAMAGES as error:
        raise InputError(
            asked, f"it cannot be read ({error})", "check the path, give an .npz of int8 codes"
        ) from error
    codes = np.zeros(tile.size, np.int8)
    for kind in KINDS:
        numbers = [k for k, own in enumerate(layout.tile_kinds) if own == kind]
        if not numbers:
            continue
        size = tile_of(spec, kind)
        shape = (len(numbers), size.rows, size.cols)
        if kind not in maps:
            raise InputError(
                asked, f"it lacks '{kind}'", f"add int8 codes {shape} of tiles, rows, columns"
            )
        found = maps[kind]
        if found.dtype != np.int8 or not np.isin(found, range(len(NAMES))).all():
            raise InputError(
                asked, f"its '{kind}' is {found.dtype} or has codes outside 0 to 3",
                "give int8: 0 works, 1 stuck low, 2 stuck high, 3 no connection",
            )
        if found.ndim != 3 or found.shape[1:] != shape[1:] or len(found) < len(numbers):
            raise InputError(
                asked, f"its '{kind}' has shape {found.shape}, the model takes {shape}",
                "give codes for at least so many tiles of that size",
            )
        place = np.full(layout.n_tiles, -1)
        place[numbers] = np.arange(len(numbers))
        here = place[tile] >= 0
        codes[here] = found[place[tile[here]], row[here], col[here]]
    return codes


def stick(written: Written, codes: np.ndarray | None, target_s: np.ndarray, spec: ChipSpec
          ) -> Written:
    """Return what writing left, with cells of `codes` at what they hold whatever was written.

    Where pulses were counted, a cell that is thereby off its target took them all and failed;
    their energy is counted as if it had worked. target_s : (n_cells,) [S].
    """
    if codes is None:
        return written
    device = spec.device
    held = np.array([0.0, device.g_min_s, device.g_max_s, 0.0], np.float32)[codes]
    faulty = codes != WORKS
    g = np.where(faulty, held, written.g_s)
    pulses, failed = written.pulses, written.failed
    if spec.write is not None and pulses is not None and failed is not None:
        missed = faulty & (np.abs(g - target_s) > spec.write.tolerance_s)
        pulses = np.where(missed, np.uint16(spec.write.max_pulses), pulses)
        failed = failed | missed
    return replace(written, g_s=g, faults=codes, pulses=pulses, failed=failed)


def hold(g: np.ndarray, written: Written) -> np.ndarray:
    """Return conductances (n_replicas, n_cells) with faulty cells as they were made, in place.

    They neither drift nor relax.
    """
    if written.faults is not None:
        np.copyto(g, written.g_s, where=written.faults != WORKS)
    return g


def without_current(written: Written) -> np.ndarray:
    """Return which cells have no connection, (n_replicas, n_cells) bool; (n_replicas, 0): none."""
    if written.faults is None or not (found := written.faults == UNCONNECTED).any():
        return np.zeros((len(written.g_s), 0), bool)
    return found


def silence(values: np.ndarray, unconnected: np.ndarray) -> np.ndarray:
    """Return values of cells, 0 where one has no connection, in place.

    unconnected : of the values' shape, or (..., 0): all are connected.
    """
    if unconnected.shape[-1]:
        values[unconnected] = 0
    return values
