"""Cells of a chip behind the resistance of their tiles' lines: what their terminals see."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aimc_sim.errors import UsageError
from aimc_sim.mapping import Layout, tile_of
from aimc_sim.specs import ChipSpec
from aimc_sim.wires import effective, make_network, own_voltages, shared_noise


@dataclass(frozen=True, eq=False)
class TileLines:
    """The lines of a tile that hold cells: rows, cols their numbers on the tile.

    cell : (n,) chip-wide index of the cells, at, their places in an array (rows, cols).
    """

    cell: np.ndarray
    at: tuple[np.ndarray, np.ndarray]
    rows: np.ndarray
    cols: np.ndarray
    shape: tuple[int, int]
    idle_s: float

    def array(self, cells: np.ndarray, idle: float) -> np.ndarray:
        """Return values of the chip's cells (n_cells,) as an array of the tile's, float64."""
        result = np.full((self.rows.size, self.cols.size), idle, float)
        result[self.at] = cells[self.cell]
        return result


def lines_of(spec: ChipSpec, layout: Layout) -> list[TileLines]:
    """Return the lines of every tile.

    Where idle cells carry current ("g_min") every line of the tile has cells; else only those
    with a cell that is simulated.
    """
    tile, element = layout.addresses
    order = np.argsort(tile, kind="stable")
    bounds = np.searchsorted(tile[order], np.arange(layout.n_tiles + 1))
    result = []
    for number, kind in enumerate(layout.tile_kinds):
        part = tile_of(spec, kind)
        cell = order[bounds[number] : bounds[number + 1]]
        row, col = np.divmod(element[cell], part.cols)
        if part.idle == "g_min":
            rows, cols, idle_s = np.arange(part.rows), np.arange(part.cols), spec.device.g_min_s
        else:
            rows, cols, idle_s = np.unique(row), np.unique(col), 0.0
        at = (np.searchsorted(rows, row), np.searchsorted(cols, col))
        result.append(TileLines(cell, at, rows, cols, (part.rows, part.cols), idle_s))
    return result


@dataclass(frozen=True, eq=False)
class Transfer:
    """What terminals see of cells with conductance g near those solved: shift + slope g.

    shift [S], slope, extra : (n_cells,) float32; extra [S^2] is the variance that white noise of
    the other cells of its bit line adds to a cell's.
    """

    shift: np.ndarray
    slope: np.ndarray
    extra: np.ndarray

    def mean(self, g_s: np.ndarray) -> np.ndarray:
        """Return effective conductances of cells with g_s (n_cells,) float32."""
        return self.shift + self.slope * g_s

    def variance(self, variance: np.ndarray) -> np.ndarray:
        """Return the variance of effective conductances, of that of a read of the cells."""
        return self.slope * self.slope * variance + self.extra


@dataclass(frozen=True, eq=False)
class WiredCells:
    """The solved lines of one replica: what terminals see of cells with conductance g_s.

    g_s, effective_s, slope, sense : (n_cells,) float32, the latter two by
    `wires.own_voltages`. lines, to_ground : of every tile, the resistance of a bit
    line from each of its rows to ground [ohm].
    """

    g_s: np.ndarray
    effective_s: np.ndarray
    slope: np.ndarray
    sense: np.ndarray
    lines: list[TileLines]
    to_ground: list[np.ndarray]

    def distance(self, g_s: np.ndarray) -> float:
        """Return how far conductances (n_cells,) are from those solved, as a share of them."""
        change, total = (a.sum(dtype=float) for a in (np.abs(g_s - self.g_s), self.g_s))
        return float(change / (total or 1.0))

    def near(self, g_s: np.ndarray) -> np.ndarray:
        """Return what terminals see of conductances (n_cells,) to first order, float64 [S]."""
        return np.asarray(self.effective_s + self.slope * (g_s.astype(float) - self.g_s))

    def transfer(self, variance: np.ndarray) -> Transfer:
        """Return the transfer for white noise of variance (n_cells,) [S^2] in the cells."""
        extra = np.zeros(self.g_s.size, np.float32)
        if variance.any():
            for lines, to_ground in zip(self.lines, self.to_ground, strict=True):
                effective_s, sense, own = (
                    lines.array(a, 0.0) for a in (self.effective_s, self.sense, variance)
                )
                extra[lines.cell] = shared_noise(effective_s, sense, to_ground, own)[lines.at]
        return Transfer(self.effective_s - self.slope * self.g_s, self.slope, extra)


def solve_cells(spec: ChipSpec, tiles: list[TileLines], g_s: np.ndarray) -> WiredCells:
    """Return what the terminals of all tiles see of cells with g_s (n_cells,) float32 [S].

    UsageError for a chip without resistances of lines.
    """
    wires = spec.wires
    if wires is None or not wires.resists:
        raise UsageError("solve lines", f"those of '{spec.name}' are ideal", "give it [wires]")
    found = np.zeros((3, g_s.size), np.float32)
    to_ground = []
    r_wl_ohm, r_bl_ohm = wires.segments_ohm
    for lines in tiles:
        network = make_network(
            lines.array(g_s, lines.idle_s), r_wl_ohm=r_wl_ohm, r_bl_ohm=r_bl_ohm,
            r_driver_ohm=wires.r_driver_ohm, r_sense_ohm=wires.r_sense_ohm, drive=wires.drive,
            rows=lines.rows, cols=lines.cols, shape=lines.shape,
        )
        to_ground.append(network.to_ground)
        drive, sense = own_voltages(network)
        each = (effective(network), drive * sense, sense)
        found[:, lines.cell] = [a[lines.at] for a in each]
    effective_s, slope, sense_all = found
    return WiredCells(g_s, effective_s, slope, sense_all, tiles, to_ground)
