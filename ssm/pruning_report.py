"""What pruning changed and freed: errors of impulse responses, states, cells, tiles, bits of A."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from aimc_sim.errors import UsageError
from ssm.fronts import size_of
from ssm.model import Model
from ssm.places import has_rows
from ssm.quantize import Precision, quantize
from ssm.reduction import discounted, energy, hankel_values, kernel_error, modes_of

if TYPE_CHECKING:
    from aimc_sim.specs import ChipSpec

ROUNDING = 0.3  # relative error of impulse responses that rounding A may add
_WIDEST = 16


@dataclass(frozen=True)
class LayerReport:
    """What pruning did to a layer.

    states, heads : before and after. real_poles : after.
    kernel_error : L2 norm of the change of the heads' impulse responses, skip included, over that
        of the responses; of the heads that stay alone, whatever went with the others.
    bound : of a balanced truncation, the same of 2 x the sum of the Hankel values that a head has
        more than states left: the change stays within it. Above 1 it says nothing. None: pruned
        by scores, which have no bound.
    """

    states: tuple[int, int]
    heads: tuple[int, int]
    real_poles: int
    kernel_error: float
    bound: float | None


@dataclass(frozen=True)
class PruningReport:
    """What pruning did to a model; `print` shows it.

    layers : one for each. cells, tiles : before and after, of the chip and form asked for.
    bits_of_a : least bits of A, before and after, whose rounding changes impulse responses by
        no more than `ROUNDING` of their norm; None where 16 are too few.
    memory_bits : of weights, states and scales before and after (`ssm.complexity.measure`).
    bits_lost : bits of weights that were rounded before and are float now.
    n_steps : errors at step l count e^(-l/n_steps) times as much; None: all alike.
    """

    layers: tuple[LayerReport, ...]
    cells: tuple[int, int]
    tiles: tuple[int, int]
    bits_of_a: tuple[int | None, int | None]
    memory_bits: tuple[int, int]
    bits_lost: dict[str, int]
    n_steps: int | None
    chip: str
    form: str

    @property
    def states(self) -> tuple[int, int]:
        """Real states of all layers before and after."""
        return _sum([layer.states for layer in self.layers])

    def record(self) -> dict[str, Any]:
        """Return the report as plain numbers, for JSON."""
        return {**dataclasses.asdict(self), "states": self.states}

    def __str__(self) -> str:
        return self.text()

    def text(self, file: str = "MODEL") -> str:
        """Return the report in words; file : the pruned model's, for the command that rounds it."""
        states, bits = self.states, ["more than 16" if b is None else b for b in self.bits_of_a]
        lines = [
            f"{states[0]} -> {states[1]} states ({100 * states[1] / states[0]:.1f} %); on "
            f"{self.chip}, form {self.form}: {self.cells[0]} -> {self.cells[1]} cells, "
            f"{self.tiles[0]} -> {self.tiles[1]} tiles",
            f"memory {self.memory_bits[0] / 1000:.4g} -> {self.memory_bits[1] / 1000:.4g} kbit",
            f"bits of A whose rounding changes impulse responses by {100 * ROUNDING:g} % at most: "
            f"{bits[0]} -> {bits[1]}",
        ]
        for k, layer in enumerate(self.layers):
            whose = " of the heads that stay" if layer.heads[1] < layer.heads[0] else ""
            lines.append(
                f"layer {k}: {layer.states[0]} -> {layer.states[1]} states, {layer.real_poles} of "
                f"them real poles; {layer.heads[0]} -> {layer.heads[1]} heads; impulse responses"
                f"{whose} change by {100 * layer.kernel_error:.3g} %{_bound_text(layer.bound)}"
            )
        if self.bits_lost:
            lost = ",".join(f"{name}={bits}" for name, bits in self.bits_lost.items())
            lines.append(
                f"note: truncated modes are float, their rounding ({lost}) is lost; round again: "
                f"aimc-sim quantize {file} --precision {lost} --out ROUNDED"
            )
        return "\n".join(lines)


def _bound_text(bound: float | None) -> str:
    if not bound:  # scores have none, and modes that stay need none
        return ""
    if bound > 1:
        return "; its bound lies above 100 % and says nothing"
    return f", by {100 * bound:.3g} % at most for certain"


def report_pruning(
    before: Model, after: Model, spec: ChipSpec | None = None, *, form: str = "leapfrog",
    decay: str = "tile", n_steps: int | None = None, method: str = "balanced",
) -> PruningReport:
    """Return what changed between a model and its pruned version, before any fine-tuning.

    before, after : a model, and what `prune` made of it.
    spec, form, decay : the chip whose cells and tiles are counted (None: the chip "ideal").
    n_steps, method : as in `prune`.

    Errors: UsageError where the two are no models of one shape.
    """
    from aimc_sim.specs import ChipSpec

    if (before.n_layers, before.n_heads) != (after.n_layers, after.n_heads):
        raise UsageError(
            "report on pruning", "the two models have other numbers of layers or heads",
            "give a model and what ssm.prune made of it",
        )
    spec = spec or ChipSpec.preset("ideal")
    was, now = (size_of(model, spec, form, decay) for model in (before, after))
    return PruningReport(
        layers=tuple(_layer(before, after, k, n_steps, method) for k in range(before.n_layers)),
        cells=(was["cells"], now["cells"]), tiles=(was["tiles"], now["tiles"]),
        memory_bits=(was["memory_bits"], now["memory_bits"]),
        bits_lost={
            name: bits for name, bits in (before.precision or {}).items()
            if name not in (after.precision or {})
        },
        bits_of_a=(bits_of_a(before, n_steps), bits_of_a(after, n_steps)),
        n_steps=n_steps, chip=spec.name, form=form,
    )


def _layer(
    before: Model, after: Model, k: int, n_steps: int | None, method: str
) -> LayerReport:
    old, new = before.layers[k], after.layers[k]
    stays = has_rows(new)
    error = bound = total = 0.0
    for head in np.flatnonzero(stays).tolist():
        was, now = (discounted(modes_of(layer, head), n_steps) for layer in (old, new))
        more = float(new.skip[head] - old.skip[head])
        # of a head that is as it was no cancellation is left to see
        if more or not (np.array_equal(was.pole, now.pole) and np.array_equal(was.gain, now.gain)):
            error += kernel_error(was, now, more) ** 2
        bound += float(2 * hankel_values(was)[now.n_states :].sum()) ** 2
        total += energy(was)
    scale = total or 1.0
    return LayerReport(
        states=(int(old.mode_weight.sum()), int(new.mode_weight.sum())),
        heads=(int(has_rows(old).sum()), int(stays.sum())),
        real_poles=int((new.mode_weight == 1).sum()),
        kernel_error=float(np.sqrt(error / scale)),
        bound=float(np.sqrt(bound / scale)) if method == "balanced" else None,
    )


def bits_of_a(model: Model, n_steps: int | None = None, most: float = ROUNDING) -> int | None:
    """Return the least bits of A whose rounding changes impulse responses by `most` or less.

    Relative, in L2 norm over all heads of a layer, the worst layer; discounted by n_steps as
    `PruningReport` says. None where 16 bits are too few.
    """
    for bits in range(2, _WIDEST + 1):
        rounded = quantize(model, Precision(a=bits))
        if all(
            _rounding_error(model, rounded, k, n_steps) <= most for k in range(model.n_layers)
        ):
            return bits
    return None


def _rounding_error(model: Model, rounded: Model, k: int, n_steps: int | None) -> float:
    error = total = 0.0
    for head in range(model.n_heads):
        was, now = (
            discounted(modes_of(each.layers[k], head), n_steps) for each in (model, rounded)
        )
        error += kernel_error(was, now) ** 2
        total += energy(was)
    return float(np.sqrt(error / (total or 1.0)))


def _sum(pairs: list[tuple[int, int]]) -> tuple[int, int]:
    return sum(a for a, _ in pairs), sum(b for _, b in pairs)
