"""What cells do to weights, for training: errors with the mean and spread of a chip's own cells."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from aimc_sim.chip import Chip
from aimc_sim.mapping import Request, pieces_of, place
from aimc_sim.specs import ChipSpec

_N_TARGETS = 65  # conductances of a table, evenly over the range
_N_CELLS = 2048  # of every target: a sigma is known to 1/sqrt(2 n) = 1.6 %
_LEAST_EXPONENT = -16  # of the power-of-two scale of a single cell (`ssm.forms`)


def cell_table(
    spec: ChipSpec, at_s: float, seed: int = 0, n_targets: int = _N_TARGETS,
    n_cells: int = _N_CELLS,
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of what a read finds of cells, `at_s` after writing.

    Both (n_targets,), for targets evenly from g_min to g_max, as a share of that range and
    counted from g_min. The cells are those of `aimc_sim.chip.Chip`: written, drifted or
    relaxed, and with the read noise that lasts for a sequence. Where the chip compensates
    drift, both are divided by the mean gain, the slope of the means. What is new at every
    read, faults, and the differences between columns are left out.
    """
    spec = spec.replace(
        faults=None, max_tiles=None, levels=None, slices=1, cells_per_weight=1,
        **{"tile.rows": max(n_targets, 2), "tile.cols": n_cells},
    )
    low, span = spec.device.g_min_s, spec.device.g_max_s - spec.device.g_min_s
    share = np.linspace(0.0, 1.0, n_targets)
    layout = place([Request("cells", 1, n_targets, n_cells, pair=False)], spec)
    targets = np.repeat((low + span * share).astype(np.float32), n_cells)
    chip = Chip(spec, layout, targets, seed)
    chip.wait(at_s)
    found = (chip.read().reshape(n_targets, n_cells).astype(float) - low) / span
    mean, sigma = found.mean(axis=1), found.std(axis=1, ddof=1)
    if spec.compensation != "none":
        gain = float(np.polyfit(share, mean, 1)[0])
        mean, sigma = mean / gain, sigma / gain
    return mean, sigma


class Disturbance(nn.Module):
    """Fresh errors of the cells of one chip per run, to be drawn anew in every batch.

    Gaussian, with the means and spreads of `cell_table`; gradients pass as if there were none.
    A weight whose current n cells share errs by 1/sqrt(n) of one cell's error.

    Parameters
    ----------
    chips : one for every run. at_s : time since programming.

    strength : factor of all errors, for schedules.
    """

    def __init__(self, chips: Sequence[ChipSpec], at_s: float) -> None:
        super().__init__()
        self.strength = 1.0
        self.chips = tuple(chips)
        tables: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for chip in chips:
            key = chip.model_dump_json()
            if key not in tables:
                tables[key] = cell_table(chip, at_s)
        each = [tables[chip.model_dump_json()] for chip in chips]
        share = [float(np.sqrt((pieces_of(chip).shares ** 2).sum())) for chip in chips]
        steps = [(chip.levels or 0) ** chip.slices - 1 for chip in chips]
        self.mean: Tensor
        self.sigma: Tensor
        self.share: Tensor
        self.steps: Tensor
        self.register_buffer("mean", _float([mean for mean, _ in each]), persistent=False)
        self.register_buffer("sigma", _float([sigma for _, sigma in each]), persistent=False)
        self.register_buffer("share", _float(share), persistent=False)
        self.register_buffer("steps", _float(steps), persistent=False)

    def pairs(self, w: Tensor, scale: Tensor) -> Tensor:
        """Return signed weights w (runs, ...) as pairs of cells hold them; scale: the largest."""
        with torch.no_grad():
            size = self._snapped((w / scale).abs())
            mean, sigma = self._look_up(self.mean, size), self._look_up(self.sigma, size)
            idle, idle_sigma = (_tall(table[:, 0], w) for table in (self.mean, self.sigma))
            spread = torch.sqrt(sigma**2 + idle_sigma**2) * _tall(self.share, w)
            found = torch.sign(w) * (mean - idle) + spread * torch.randn_like(w)
            error = self.strength * (scale * found - w)
        return w + error

    def singles(self, w: Tensor) -> Tensor:
        """Return w >= 0 as single cells on the next power of two hold it, never negative."""
        with torch.no_grad():
            scale = power_of_two_above(w, _LEAST_EXPONENT)
            size = self._snapped(w / scale)
            mean, sigma = self._look_up(self.mean, size), self._look_up(self.sigma, size)
            found = mean + sigma * _tall(self.share, w) * torch.randn_like(w)
            error = torch.clamp(w + self.strength * (scale * found - w), min=0.0) - w
        return w + error

    def _snapped(self, size: Tensor) -> Tensor:
        """Return shares of the range on the levels that a chip's cells can be given."""
        steps = _tall(self.steps, size)
        return torch.where(steps > 0, torch.round(size * steps) / steps.clamp(min=1.0), size)

    def _look_up(self, table: Tensor, size: Tensor) -> Tensor:
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


def _tall(x: Tensor, like: Tensor) -> Tensor:
    """Return x (runs,) so that it broadcasts over like (runs, ...)."""
    return x.view(-1, *[1] * (like.dim() - 1))


def _float(values: object) -> Tensor:
    return torch.as_tensor(np.array(values), dtype=torch.float32)
