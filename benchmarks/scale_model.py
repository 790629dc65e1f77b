"""Time and memory on paper: chips x sequences x steps x models of any size, from a few rates.

`Work` counts what a run does, `Rates` and `Sizes` say what one of each costs. They are fitted to
some measured points and checked against others by `python -m benchmarks.scale_check`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

# weights of A on cells, cells of each, and conversions at a step, for every mode
FORMS = {
    "leapfrog": (4, 1, 4), "decay digital": (2, 1, 2), "direct": (4, 2, 2), "digital": (0, 0, 0),
}
TILE_ROWS = 256
PRODUCTS_PER_LAYER = 6  # four of A, C and mixing, each with a count of clipped conversions
_OF_A_STATE = 40  # bytes of a mode: two states, their DACs, and their registers, steps and inverse
_N_RATES = 9  # fields of `Rates` that make up a run
_GROUP = 64  # normals that are made together
_OF_AN_ADC = 8  # bytes of a conversion: step and inverse


@dataclass(frozen=True)
class Work:
    """A run: batch sequences of some steps through each of some chips, one S4D model on all.

    heads, states : of every layer; states are real, two for a mode. noisy : the cells have read
    noise that is new at every step. lasting : they have noise that a sequence draws once, so that
    each reads its weights from the cells, and not each chip. form : "leapfrog" and "direct",
    everything on tiles; "decay digital", leapfrog but for its decay; "digital", A in logic. n_in
    inputs, n_out classes; the gate doubles the outputs of mixing.
    """

    heads: int = 64
    states: int = 64
    layers: int = 1
    chips: int = 1
    batch: int = 1
    steps: int = 200
    noisy: bool = True
    lasting: bool = False
    form: str = "leapfrog"
    n_in: int = 1
    n_out: int = 10

    @property
    def modes(self) -> int:
        """Of all heads and layers."""
        return self.layers * self.heads * self.states // 2

    @property
    def of_a(self) -> int:
        """Weights of A on cells."""
        return FORMS[self.form][0] * self.modes

    @property
    def products(self) -> int:
        """Multiply-accumulates of the encoder, C and mixing in a step."""
        each = self.heads * (self.states + 1) + 2 * self.heads**2
        return self.n_in * self.heads + self.layers * each

    @property
    def weights(self) -> int:
        """Of the model, those of a digital A left out."""
        return self.of_a + self.products + self.heads * self.n_out

    @property
    def cells(self) -> int:
        """Of one chip: one for a weight of A that is never negative, two for any other."""
        return 2 * (self.weights - self.of_a) + FORMS[self.form][1] * self.of_a

    @property
    def conversions(self) -> int:
        """Outputs that are converted in a step: rows beyond a tile are converted in parts."""
        of_c = -(-(self.states + 1) // TILE_ROWS)
        of_mixing = 2 * -(-self.heads // TILE_ROWS)
        parts = self.layers * (of_c + of_mixing) + -(-self.n_in // TILE_ROWS)
        return FORMS[self.form][2] * self.modes + self.heads * parts

    @property
    def normals(self) -> int:
        """Normals that are drawn in a step: those of an access in whole groups."""
        if not self.noisy:
            return 0
        n_parts = -(-self.heads // TILE_ROWS)
        of_a = FORMS[self.form][2] * _whole_groups(self.modes // self.layers)
        of_layer = of_a + _whole_groups(self.heads * -(-(self.states + 1) // TILE_ROWS))
        of_layer += _whole_groups(2 * self.heads * n_parts)
        return self.layers * of_layer + _whole_groups(self.heads)

    @property
    def runs(self) -> int:
        """Sequences on all chips."""
        return self.chips * self.batch

    @property
    def bytes_of_a_step(self) -> int:
        """What a step reads of weights and variances, of converters and of states."""
        numbers = self.of_a + self.products
        return (
            4 * numbers * (1 + self.noisy) + _OF_AN_ADC * self.conversions
            + _OF_A_STATE * self.modes
        )

    def bytes_from_memory(self, cache_b: float) -> float:
        """Return what a step reads from memory.

        A cache that is read in a circle keeps nothing once the circle is longer than it is; where
        others use it too, it begins to lose what lies beyond half of it.
        """
        size = self.bytes_of_a_step
        return size * min(1.0, max(0.0, 2 * size / cache_b - 1))

    def amounts(self, cache_b: float) -> np.ndarray:
        """Return how much of each of `Rates` a run takes, (n_rates,).

        cache_b : size of the processor's last cache in bytes.
        """
        n = self.runs * self.steps
        return np.array(
            [
                1,
                (self.runs if self.lasting else self.chips) * self.weights,
                self.lasting * self.runs * self.weights,
                n * self.layers,
                n * self.modes,
                n * self.conversions,
                n * self.normals,
                n * self.products * (1 + self.noisy),
                n * self.bytes_from_memory(cache_b),
            ],
            float,
        )


def _whole_groups(n: int) -> int:
    return -(-n // _GROUP) * _GROUP


@dataclass(frozen=True)
class Rates:
    """Seconds on one thread of what a run is made of.

    call_s : what any run takes. weight_s : to read a weight from its cells. lasting_s : to draw
    the noise of a weight that lasts for a sequence. layer_s : a layer's
    step however small it is. mode_s : DACs, registers and sums of a mode's two states.
    conversion_s : a conversion, and what logic does to a head for those of C and mixing.
    normal_s : a normal of read noise. product_s : a multiply-accumulate of C or mixing; read
    noise takes a second one for the variance. byte_s : a byte that comes from memory. cell_s : to
    program and age a cell, once a chip. cache_b : bytes of the last cache.
    """

    call_s: float
    weight_s: float
    lasting_s: float
    layer_s: float
    mode_s: float
    conversion_s: float
    normal_s: float
    product_s: float
    byte_s: float
    cell_s: float = 0.0
    cache_b: float = np.inf

    def run_s(self, work: Work) -> float:
        """Return the time of a run on one thread, programming left out."""
        rates = [getattr(self, field.name) for field in fields(self)[:_N_RATES]]
        return float(work.amounts(self.cache_b) @ np.array(rates))

    def program_s(self, work: Work) -> float:
        """Return the time to program all chips and let them age."""
        return self.cell_s * work.chips * work.cells


def fit_rates(
    works: Sequence[Work], seconds: np.ndarray, cache_b: float, cell_s: float
) -> Rates:
    """Return the rates that come nearest to measured runs, none negative.

    Least squares of relative errors (Lawson and Hanson's non-negative solver). seconds : (n,).
    """
    from scipy.optimize import nnls

    amounts = np.array([work.amounts(cache_b) for work in works]) / seconds[:, None]
    scale = amounts.max(axis=0)
    scale[scale == 0] = 1.0
    found, _ = nnls(amounts / scale, np.ones(len(works)))
    names = [field.name for field in fields(Rates)[:_N_RATES]]
    rates = dict(zip(names, map(float, found / scale), strict=True))
    return Rates(**rates, cell_s=cell_s, cache_b=cache_b)


@dataclass(frozen=True)
class Sizes:
    """Bytes of what stays in memory.

    weight_b : a weight of a deployment, its cells and places on tiles. cell_b : a cell of a chip,
    programmed and read. task_b : a task of a sweep with what came of it. line_b : its line in the
    journal.
    """

    weight_b: float
    cell_b: float
    task_b: float = 0.0
    line_b: float = 0.0

    def deployment_b(self, work: Work) -> float:
        """Return what laying out the model takes at its peak."""
        return self.weight_b * work.weights

    def chips_b(self, work: Work, at_once: int | None = None) -> float:
        """Return what chips that run take: all of them, or so many at once."""
        return self.cell_b * work.cells * (at_once or work.chips)

    def run_b(self, work: Work) -> float:
        """Return what a run adds: inputs, logits, and the count of clipped conversions."""
        products = PRODUCTS_PER_LAYER * work.layers + 2
        inputs = 4 * work.batch * work.steps * work.n_in
        return inputs + work.runs * (4 * work.n_out + 8 * products)

    def logits_b(self, work: Work) -> float:
        """Return what all logits would take, which nobody needs to keep."""
        return 4.0 * work.runs * work.n_out


def matrix_b(n_in: int, n_out: int, batch: int, planes: int = 1) -> float:
    """Return what a batch of noisy products of one matrix takes beside the matrix.

    Driven inputs and their squares, sums and variances of every output, and the outputs: float32,
    batch x (2 inputs + 2 outputs) for each drive and batch x outputs once.
    """
    return 4.0 * batch * (planes * (2 * n_in + 2 * n_out) + n_out)
