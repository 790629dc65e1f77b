"""Which parts of a model in training lie on cells, and what its chips do to them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from aimc_sim.specs import ChipSpec
from ssm.disturbance import Disturbance
from ssm.reading import Reading, read_product


class OnChips(nn.Module):
    """Errors of one chip per run, in a model's parts that are not in digital logic.

    Parameters
    ----------
    chips : one for every run; none: no errors. at_s : time since programming at which cells are
    read. digital : parts in logic, of "encoder", "readout", "mixing", "decoder" (A by the form).
    read_errors : also what is new at every access (`ssm.reading`).
    """

    disturbance: Disturbance | None
    reading: Reading | None

    def __init__(
        self, chips: Sequence[ChipSpec] = (), at_s: float = 0.0, digital: Collection[str] = (),
        read_errors: bool = True,
    ) -> None:
        super().__init__()
        self.digital = frozenset(digital)
        self.disturbance = Disturbance(chips, at_s) if chips else None
        self.reading = Reading(chips, at_s) if chips and read_errors else None

    def of(self, part: str) -> Disturbance | None:
        """Return the errors of a part's cells, None where it has none."""
        return None if part in self.digital else self.disturbance

    def product(
        self, part: str, x: Tensor, weight: Tensor, noisy: bool, *, rounded: bool
    ) -> Tensor:
        """Return x (B, T, runs, n_in) times weight (runs, n_in, n_out) as a part's cells give it.

        rounded : whether x already is what the DACs pass.
        """
        disturbance = self.of(part)
        if disturbance is None or not noisy:
            return torch.einsum("btri,rio->btro", x, weight)
        scale = _scale(weight, disturbance)
        y = torch.einsum("btri,rio->btro", x, disturbance.pairs(weight, scale))
        if self.reading is None:
            return y
        variance = self.reading.pairs(weight.detach(), scale)
        return read_product(x, y, weight, variance, self.reading, rounded)


def _scale(weight: Tensor, disturbance: Disturbance) -> Tensor:
    """Return the largest weight that cells of each column can hold, (runs, 1, n_out)."""
    columns = weight.detach().abs().amax(dim=1, keepdim=True)
    whole = columns.amax(dim=2, keepdim=True).expand_as(columns)
    block = [chip.weight_scale == "block" for chip in disturbance.chips]
    shared = torch.tensor(block, device=weight.device).view(-1, 1, 1)
    scale = torch.where(shared, whole, columns)
    return torch.where(scale > 0, scale, torch.ones_like(scale))
