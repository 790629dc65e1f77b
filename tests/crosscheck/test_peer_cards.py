"""Published cards against an independent implementation, 200,000 cells a row.

The peer is aihwkit 1.2.0. Its "drifted+read" rows hold all read noise gathered up to the time of
the read, so ours is taken with noise_in_time = "frozen". Its Wan model has no read noise. Two
samples are compared: both sampling errors count.
"""

from __future__ import annotations

import csv
from functools import cache

import numpy as np
import pytest

from aimc_sim.chip import Chip
from aimc_sim.mapping import Request, place
from aimc_sim.specs import ChipSpec

pytestmark = pytest.mark.compiled

N = 200_000
SIGMAS = 4.0
PEER_ROUNDING = 1e-5  # relative: the table has six digits, and the peer counts in float32
QUANTILES = {"q05": 0.05, "q50": 0.50, "q95": 0.95}
PEER_NAME = {
    "pcm-nandakumar2019": "PCMLike",
    "reram-wan2022": "ReRamWan2022_gmax40",
    "cmo-hfox": "ReRamCMO_acc2(uses 2)",
}
TARGETS_US = {
    "pcm-nandakumar2019": (0.0, 0.5, 1.25, 2.5, 5.0, 10.0, 15.0, 20.0, 25.0),
    "reram-wan2022": (0.0, 2.0, 4.0, 8.0, 16.0, 24.0, 32.0, 40.0),
    "cmo-hfox": (9.0, 20.0, 35.0, 50.0, 70.0, 88.199997),
}
CASES = [(card, target) for card, targets in TARGETS_US.items() for target in targets]


@cache
def peer_rows(path):
    lines = [line for line in path.read_text("utf-8").splitlines() if not line.startswith("#")]
    return list(csv.DictReader(lines))


def rows_of(shared, card, target_us):
    rows = [
        row
        for row in peer_rows(shared / "reference" / "aihwkit_noise_reference.csv")
        if row["model"] == PEER_NAME[card] and float(row["g_target_uS"]) == target_us
    ]
    return sorted(rows, key=lambda row: float(row["t_inference_s"] or 0))


def card_chip(card, target_us):
    spec = ChipSpec.preset(card).replace(noise_in_time="frozen")
    if card == "reram-wan2022":
        spec = spec.replace(**{"device.read_noise": None})
    layout = place([Request("cells", 1, 200, N // 200, pair=False)], spec)
    return Chip(spec, layout, np.full(N, target_us * 1e-6), seed=1)


def conductances_us(chip, stage):
    """Return the cells at a stage of the peer's table, [uS] float64."""
    if stage == "programmed" and chip.spec.device.programming is not None:
        g = chip.programmed_s[0]
    elif stage == "drifted_no_read":
        g = chip.aged()[0]
    else:
        g = chip.read()
    return 1e6 * g.astype(float)


def std_error(x):
    """Return the standard error of the std of a sample, from its own fourth moment."""
    variance = x.var()
    excess = ((x - x.mean()) ** 4).mean() - variance**2
    return np.sqrt(excess / variance / 4 / x.size)


def complaints(g_us, row):
    """Return what differs by more than 4 standard errors of two samples of this size, as text.

    A quantile at share q has the standard error sqrt(2 q (1 - q)/N)/pdf. The density is that of
    our sample over the interval itself: the peer's quantile must lie between our quantiles at
    q -+ 4 sqrt(2 q (1 - q)/N), which holds at the atoms of clipped cells too.
    """
    peer = {key: float(row[key]) for key in ("mean", "std", *QUANTILES)}
    where = f"{row['stage']} at {row['t_inference_s'] or '-'} s: "
    found = []
    errors = {
        "mean": np.sqrt((g_us.var() + peer["std"] ** 2) / N),
        "std": np.sqrt(2) * std_error(g_us),
    }
    for name, error in errors.items():
        ours = getattr(g_us, name)()
        allowed = SIGMAS * error + PEER_ROUNDING * abs(peer[name])
        if not abs(ours - peer[name]) <= allowed:  # NaN is a complaint too
            found.append(f"{where}{name} {ours:.6g}, peer {peer[name]:.6g} +- {error:.2g}")
    for name, share in QUANTILES.items():
        reach = SIGMAS * np.sqrt(2 * share * (1 - share) / N)
        low, high = np.quantile(g_us, [share - reach, share + reach])
        rounding = PEER_ROUNDING * abs(peer[name])
        if not low - rounding <= peer[name] <= high + rounding:
            found.append(f"{where}{name} {low:.6g} .. {high:.6g}, peer {peer[name]:.6g}")
    return found


@pytest.mark.parametrize(("card", "target_us"), CASES)
def test_cells_of_a_card_are_those_of_the_peer_at_every_stage(shared, card, target_us):
    rows = rows_of(shared, card, target_us)
    chip = card_chip(card, target_us)
    wrong, checked = [], 0
    for row in rows:
        if row["stage"] == "nu":
            continue
        chip.wait(max(0.0, float(row["t_inference_s"] or 0) - chip.time_s))
        wrong += complaints(conductances_us(chip, row["stage"]), row)
        checked += 1
    assert checked >= 4
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("target_us", TARGETS_US["pcm-nandakumar2019"])
def test_drift_exponents_are_those_of_the_peer(shared, target_us):
    row = next(
        row for row in rows_of(shared, "pcm-nandakumar2019", target_us) if row["stage"] == "nu"
    )
    chip = card_chip("pcm-nandakumar2019", target_us)
    chip.wait(86400.0)
    alive = chip.programmed_s[0] > 0
    ratio = chip.aged()[0][alive].astype(float) / chip.programmed_s[0][alive]
    nu = -np.log(ratio) / np.log1p(86400.0 / 20)
    mean_error = float(row["std"]) * np.sqrt(1 / alive.sum() + 1 / N)
    assert abs(nu.mean() - float(row["mean"])) < SIGMAS * mean_error
    both = np.sqrt(1 + nu.size / N)
    assert abs(nu.std() - float(row["std"])) < SIGMAS * std_error(nu) * both
