"""What cells do to weights, for training: errors with the mean and spread of a chip's own cells."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from aimc_sim.chip import Chip
from aimc_sim.mapping import Request, pieces_of, place
from aimc_sim.noise import noise_split
from aimc_sim.predistortion import predistort
from aimc_sim.specs import ChipSpec

_N_TARGETS = 65  # conductances of a table, evenly over the range
_N_CELLS = 2048  # of every target: a sigma is known to 1/sqrt(2 n) = 1.6 %
_N_SIZES = 513  # of weights, evenly over the range of all cells that share one
_LEAST_EXPONENT = -16  # of the power-of-two scale of a single cell (`ssm.forms`)


def cell_table(
    spec: ChipSpec, at_s: float, seed: int = 0, n_targets: int = _N_TARGETS,
    n_cells: int = _N_CELLS, *, pair: bool = True,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean and standard deviation of what a read finds of cells, `at_s` after writing,
    and the standard deviation of what is new at every step.

    All (n_targets,), for targets evenly from g_min to g_max, as a share of that range and
    counted from g_min. The cells are those of `aimc_sim.chip.Chip`: written, drifted or
    relaxed, and with the read noise that lasts for a sequence. Where the chip compensates
    drift, all are divided by the mean gain, the slope of the means; where it writes targets
    for a later time (of a pair's cells, or of single ones), by their reach. Faults, and the
    differences between columns are left out.
    """
    spec = spec.replace(
        faults=None, max_tiles=None, levels=None, slices=1, cells_per_weight=1,
        single_cells=1, **{"tile.rows": max(n_targets, 2), "tile.cols": n_cells},
    )
    low, span = spec.device.g_min_s, spec.device.g_max_s - spec.device.g_min_s
    share = np.linspace(0.0, 1.0, n_targets)
    layout = place([Request("cells", 1, n_targets, n_cells, pair=False)], spec)
    written, reach = predistort(spec, low + span * share, pair=pair)
    targets = np.repeat(written.astype(np.float32), n_cells)
    chip = Chip(spec, layout, targets, seed)
    chip.wait(at_s)
    found = (chip.read().reshape(n_targets, n_cells).astype(float) - low) / span
    mean, sigma = found.mean(axis=1) / reach, found.std(axis=1, ddof=1) / reach
    fast = noise_split(spec, at_s).fast
    noise_s, white_s = (x.reshape(n_targets, n_cells).astype(float) for x in chip.noise_s())
    fresh = np.sqrt(((fast * noise_s) ** 2 + white_s**2).mean(axis=1)) / span / reach
    if spec.compensation != "none":
        gain = float(np.polyfit(share, mean, 1)[0])
        mean, sigma, fresh = mean / gain, sigma / gain, fresh / gain
    return mean, sigma, fresh


@lru_cache(maxsize=32)
def weight_table(
    spec: ChipSpec, at_s: float, *, pair: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean and standard deviation of weights, or of one half of pairs, as their cells hold
    them, and of what is new at every step: (n_sizes,), for sizes evenly from 0 to 1, the largest
    that all cells can carry.

    The cells of a weight err independently: their means add up by their shares, their variances
    by the squares. Levels are left to those who ask: a size counts as what it was rounded to.
    """
    mean, sigma, fresh = cell_table(spec, at_s, pair=pair)
    pieces = pieces_of(spec, pair)
    size = np.linspace(0.0, 1.0, _N_SIZES)
    # of digits, one more error of the whole size: the most significant one is all but all of it
    held = np.tile(size, (pieces.count, 1)) if spec.levels is not None else pieces.values(size)
    points = np.linspace(0.0, 1.0, mean.size)
    shares = pieces.shares
    middle, spread, new = (
        np.stack([np.interp(each, points, table) for each in held])
        for table in (mean, sigma, fresh)
    )
    return shares @ middle, np.sqrt(shares**2 @ spread**2), np.sqrt(shares**2 @ new**2)


def weight_tables(
    chips: Sequence[ChipSpec], at_s: float, *, pair: bool
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return `weight_table` of every chip."""
    return [weight_table(chip, at_s, pair=pair) for chip in chips]


class Disturbance(nn.Module):
    """Fresh errors of the cells of one chip per run, to be drawn anew in every batch.

    Gaussian, with the means and spreads of `weight_table`; gradients pass as if there were none.

    Parameters
    ----------
    chips : one for every run. at_s : time since programming.

    strength : factor of all errors, for schedules.
    """

    def __init__(self, chips: Sequence[ChipSpec], at_s: float) -> None:
        super().__init__()
        self.strength = 1.0
        self.chips = tuple(chips)
        pairs, singles = (weight_tables(chips, at_s, pair=pair) for pair in (True, False))
        steps = [(chip.levels or 0) ** chip.slices - 1 for chip in chips]
        self.mean: Tensor
        self.sigma: Tensor
        self.single_mean: Tensor
        self.single_sigma: Tensor
        self.steps: Tensor
        self.compensated: Tensor
        columns = {
            "mean": [table[0] for table in pairs], "sigma": [table[1] for table in pairs],
            "single_mean": [table[0] for table in singles],
            "single_sigma": [table[1] for table in singles], "steps": steps,
        }
        for name, values in columns.items():
            self.register_buffer(name, _float(values), persistent=False)
        compensated = torch.tensor([chip.compensation != "none" for chip in chips])
        self.register_buffer("compensated", compensated, persistent=False)

    def pairs(self, w: Tensor, scale: Tensor) -> Tensor:
        """Return signed weights w (runs, ...) as pairs of cells hold them; scale: the largest."""
        with torch.no_grad():
            size = self._snapped((w / scale).abs())
            mean, sigma = look_up(self.mean, size), look_up(self.sigma, size)
            idle, idle_sigma = (tall(table[:, 0], w) for table in (self.mean, self.sigma))
            spread = torch.sqrt(sigma**2 + idle_sigma**2)
            found = torch.sign(w) * (mean - idle) + spread * torch.randn_like(w)
            error = self.strength * (scale * found - w)
        return w + error

    def singles(self, w: Tensor) -> Tensor:
        """Return w >= 0 as single cells on the next power of two hold it, never negative."""
        with torch.no_grad():
            scale = power_of_two_above(w, _LEAST_EXPONENT)
            size = self._snapped(w / scale)
            mean = look_up(self.single_mean, size)
            # a compensated chip measures the gain of these very cells, not of all conductances
            gain = mean.flatten(1).sum(dim=1) / size.flatten(1).sum(dim=1).clamp(min=1e-30)
            gain = tall(torch.where(self.compensated, gain, torch.ones_like(gain)), w)
            sigma = look_up(self.single_sigma, size)
            found = (mean + sigma * torch.randn_like(w)) / gain
            error = torch.clamp(w + self.strength * (scale * found - w), min=0.0) - w
        return w + error

    def _snapped(self, size: Tensor) -> Tensor:
        """Return shares of the range on the levels that a chip's cells can be given."""
        steps = tall(self.steps, size)
        return torch.where(steps > 0, torch.round(size * steps) / steps.clamp(min=1.0), size)


def look_up(table: Tensor, size: Tensor) -> Tensor:
    """Return table (runs, n) between its points at size (runs, ...) in 0 .. 1."""
    last = table.shape[1] - 1
    place = size.clamp(0.0, 1.0) * last
    index = place.floor().clamp(max=last - 1)
    flat = index.long().flatten(1)
    low, high = table.gather(1, flat), table.gather(1, flat + 1)
    return torch.lerp(low, high, (place - index).flatten(1)).view_as(size)


def power_of_two_above(x: Tensor, least: int) -> Tensor:
    """Return the least power of two >= |x|, at least 2^least, elementwise."""
    return torch.exp2(torch.ceil(torch.log2(x.abs().clamp(min=2.0**least)) - 1e-6))


def tall(x: Tensor, like: Tensor) -> Tensor:
    """Return x (runs,) so that it broadcasts over like (runs, ...)."""
    return x.view(-1, *[1] * (like.dim() - 1))


def _float(values: object) -> Tensor:
    return torch.as_tensor(np.array(values), dtype=torch.float32)
