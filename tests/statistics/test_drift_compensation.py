"""Drift of phase-change memory and what compensation saves, as published for other networks.

Joshi et al. 2020 (doi:10.1038/s41467-020-16108-9): without compensation the accuracy of a
classifier falls to chance, with one factor for all cells the loss stays small.
"""

import numpy as np
import pytest

import ssm
from aimc_sim.matrix import map_matrix
from aimc_sim.specs import ChipSpec
from ssm.evaluate import evaluate

pytestmark = pytest.mark.compiled

PCM = ChipSpec.preset("pcm-nandakumar2019")
HOUR, DAY = 3600.0, 86400.0
CHANCE = 0.1
CHIPS, SAMPLES = 4, 120
# four chips on the same 120 sequences: binomial standard error of a share p is at most
# sqrt(p (1 - p) / 120), 2.7 % at chance, 2.0 % at 95 %
SIGMAS = 5.0


@pytest.fixture(scope="module")
def over_time(digits_model):
    """Return accuracies (times, chips) at 0 s, an hour, a day and a month, and logit errors."""
    model, task = ssm.load(digits_model), ssm.load_task("digits")

    def run(compensation):
        found = evaluate(
            model, PCM.replace(compensation=compensation), task.x_test, task.y_test,
            chips=CHIPS, times_s=(0.0, HOUR, DAY, 30 * DAY), limit=SAMPLES,
        )
        return found.chip_accuracy(), np.array(found.logit_error())

    return {kind: run(kind) for kind in ("none", "global", "column", "affine")}


def spread(share):
    return SIGMAS * np.sqrt(share * (1 - share) / SAMPLES)


def test_without_compensation_accuracy_falls_to_chance(over_time):
    mean = over_time["none"][0].mean(axis=1)
    assert mean[0] > 0.9
    assert mean[1] < 0.6
    assert abs(mean[3] - CHANCE) < spread(CHANCE)


@pytest.mark.parametrize("kind", ["global", "column", "affine"])
def test_compensation_holds_accuracy_for_a_month(over_time, kind):
    # the same sequences and programming errors at all times: what is left to chance is drift
    mean = over_time[kind][0].mean(axis=1)
    assert mean[2] > mean[0] - spread(0.95) / 2
    assert mean[3] > 0.9


@pytest.mark.parametrize("kind", ["column", "affine"])
def test_fits_of_columns_leave_less_error_than_one_factor(over_time, kind):
    # logits of 4 x 120 x 10 answers; programming error included, since the fit mends part of it
    assert (over_time[kind][1][1:] < 0.95 * over_time["global"][1][1:]).all()
    # nothing in this model offsets a column, so that the affine fit is as good as the linear one
    assert over_time[kind][1] == pytest.approx(over_time["column"][1], rel=0.05)


@pytest.mark.parametrize("kind", ["column", "affine"])
def test_fits_of_columns_bring_products_closer_at_every_time(kind):
    rng = np.random.default_rng(0)
    w, x = rng.normal(size=(128, 100)), rng.uniform(-1, 1, (400, 128))
    exact = x @ w
    errors = []
    for compensation in ("none", "global", kind):
        a = map_matrix(w, PCM.replace(compensation=compensation)).program(seed=4).wait(30 * DAY)
        errors.append(np.sqrt(((x @ a - exact) ** 2).mean() / (exact**2).mean()))
    none, one_factor, columns = errors
    # the mean of r^-nu over a month, nu about 0.06, leaves about half
    assert none > 0.4
    assert one_factor < 0.25
    # spread between columns is small beside that between cells, which no gain mends
    assert columns < 1.02 * one_factor
