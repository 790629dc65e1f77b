"""Designs beside each other: names of precisions, sizes, the Pareto set."""

from __future__ import annotations

import numpy as np
import pytest
from small_models import IDEAL, random_model

from aimc_sim.errors import UsageError
from ssm.complexity import measure
from ssm.fronts import named_precision, pareto, size_of


def test_nobody_beats_a_design_of_the_pareto_set_and_somebody_every_other_one():
    rng = np.random.default_rng(0)
    score = rng.integers(0, 8, 60) / 8  # ties on purpose
    cost = rng.integers(1, 8, (60, 2))
    on = pareto(score, cost)

    def beats(i: int, j: int) -> bool:
        ours, theirs = (score[i], *-cost[i]), (score[j], *-cost[j])
        return ours != theirs and all(a >= b for a, b in zip(ours, theirs, strict=True))

    for j in range(60):
        assert on[j] == (not any(beats(i, j) for i in range(60)))
    assert 1 < on.sum() < 60


def test_equal_designs_share_the_front_and_an_equal_score_at_more_cost_does_not():
    assert pareto([0.9, 0.9, 0.9], [5, 5, 6]).tolist() == [True, True, False]
    assert pareto([], []).tolist() == []


@pytest.mark.parametrize(
    ("score", "cost", "found"),
    [([0.5, 0.6], [1.0], r"shape \(2,\) and costs \(1,\)"),
     ([0.5, np.nan], [1.0, 2.0], "not numbers")],
)
def test_designs_that_cannot_be_compared_are_refused(score, cost, found):
    with pytest.raises(UsageError, match=found):
        pareto(score, cost)


def test_a_name_of_bits_gives_every_width_in_its_place():
    bits = named_precision("W4A6-A8x7")
    assert (bits.mix, bits.c, bits.d, bits.enc, bits.dec) == (4,) * 5
    assert (bits.act, bits.a, bits.state, bits.b) == (6, 8, 7, None)
    for name in ("W4A6", "w4a6-a8x8", "W4A6-A8x8 "):
        with pytest.raises(UsageError, match="It is no name of bits. Write bits of weights"):
            named_precision(name)


@pytest.mark.compiled
def test_a_size_is_the_models_and_what_it_takes_of_the_chip():
    model = random_model(1, n_heads=4, n_modes=3, n_layers=2, d_input=1, n_classes=3)
    found = size_of(model, IDEAL)
    assert {name: found[name] for name in measure(model)} == measure(model)
    # e1, e2, d1, d2 of a mode are single cells; every other weight is a pair
    assert model.gate == "glu"
    cells = 2 * 4 * 3 * 4 + 2 * 2 * (4 * (2 * 3 + 1) + 4 * 8) + 2 * (4 + 4 * 3)
    assert found["cells"] == cells
    assert size_of(model, IDEAL, "digital")["cells"] == cells - 2 * 4 * 3 * 4
