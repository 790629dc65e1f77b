"""Published cards against an independent implementation, 200,000 cells a row.

The peer is aihwkit 1.2.0, every noise model of it at the settings that its sources intend
(test_peer_defects.py has the others). Its "drifted+read" rows hold all read noise gathered up to
the time of the read, so ours is taken with noise_in_time = "frozen". Its Wan model has no read
noise. Two samples are compared: both sampling errors count.
"""

from __future__ import annotations

import csv
from functools import cache

import numpy as np
import pytest

from aimc_sim.cards import DeviceSpec
from aimc_sim.chip import Chip
from aimc_sim.mapping import Request, place
from aimc_sim.specs import ChipSpec

pytestmark = pytest.mark.compiled

N = 200_000
SIGMAS = 4.0
# there are 1,300 quantiles, too many for 4: one of them differs by 4.02 by chance
QUANTILE_SIGMAS = 4.5
LARGEST_STD_ERROR = 0.02
PEER_ROUNDING = 1e-5  # relative: the table has six digits, and the peer counts in float32
QUANTILES = {"q05": 0.05, "q50": 0.50, "q95": 0.95}
PEER_NAME = {
    "pcm-nandakumar2019": "PCMLike",
    "pcm-hermes2023-1dev": "Hermes1",
    "pcm-hermes2023-2dev": "Hermes2",
    "reram-wan2022": "ReRamWan2022_gmax40",
    "cmo-hfox": "ReRamCMO_acc2(uses 2)",
    "cmo-hfox-fine": "ReRamCMO_acc0.2(uses 0.2)",
    "state-independent": "StateIndependent",
}
CMO_TARGETS_US = (9.0, 20.0, 35.0, 50.0, 70.0, 88.199997)
TARGETS_US = {
    "pcm-nandakumar2019": (0.0, 0.5, 1.25, 2.5, 5.0, 10.0, 15.0, 20.0, 25.0),
    "pcm-hermes2023-1dev": (0.0, 0.207, 0.5175, 1.035, 2.07, 4.14, 6.21, 8.28, 10.35),
    "pcm-hermes2023-2dev": (0.0, 0.414, 1.035, 2.07, 4.14, 8.28, 12.42, 16.56, 20.7),
    "reram-wan2022": (0.0, 2.0, 4.0, 8.0, 16.0, 24.0, 32.0, 40.0),
    "cmo-hfox": CMO_TARGETS_US,
    "cmo-hfox-fine": CMO_TARGETS_US,
    "state-independent": (0.0, 0.5, 1.25, 2.5, 5.0, 10.0, 15.0, 20.0, 25.0),
}
DRIFTING = [
    (card, target)
    for card, targets in TARGETS_US.items()
    if card.startswith("pcm") or card == "state-independent"
    for target in targets
]
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


def state_independent():
    """Return the peer's StateIndependentNoiseModel: no device, but the same chain of steps.

    Its defaults: programming sigma 0.2 uS, nu = |0.1 + 0.05 xi|, t0 = 20 s; read noise
    g/g_max sqrt(ln((t + t_read)/(2 t_read))) with g in uS, so Q = 1/25 at g_max = 25 uS.
    """

    def flat(value, **more):
        return {"polynomial": [value], **more}

    device = DeviceSpec(
        name="state-independent",
        g_min_s=0.0,
        g_max_s=25e-6,
        programming={"sigma": flat(0.2, unit_s=1e-6)},
        drift={"t0_s": 20.0, "nu_mean": flat(0.1), "nu_std": flat(0.05)},
        read_noise={"sigma": flat(0.04), "t_read_s": 250e-9},
    )
    return ChipSpec(name=device.name, device=device)


def card_chip(card, target_us):
    spec = state_independent() if card == "state-independent" else ChipSpec.preset(card)
    spec = spec.replace(noise_in_time="frozen")
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

    A standard deviation must also agree within 2 %. A quantile at share q has the standard error
    sqrt(2 q (1 - q)/N)/pdf. The density is that of our sample over the interval itself: the
    peer's quantile must lie between our quantiles at q -+ 4.5 sqrt(2 q (1 - q)/N), which holds at
    the atoms of clipped cells too.
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
    if not abs(g_us.std() / peer["std"] - 1) <= LARGEST_STD_ERROR:
        found.append(f"{where}std {g_us.std():.6g}, peer {peer['std']:.6g}, over 2 %")
    for name, share in QUANTILES.items():
        reach = QUANTILE_SIGMAS * np.sqrt(2 * share * (1 - share) / N)
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


def test_every_model_of_the_peer_is_compared_here_or_is_one_of_its_defects(shared):
    rows = peer_rows(shared / "reference" / "aihwkit_noise_reference.csv")
    defects = {"ReRamCMO_acc0.02(uses 0.2)", "ReRamWan2022_gmax25"}
    assert {row["model"] for row in rows} == set(PEER_NAME.values()) | defects
    for card, name in PEER_NAME.items():
        targets = {float(row["g_target_uS"]) for row in rows if row["model"] == name}
        assert targets == set(TARGETS_US[card])


@pytest.mark.parametrize(("card", "target_us"), DRIFTING)
def test_drift_exponents_are_those_of_the_peer(shared, card, target_us):
    row = next(row for row in rows_of(shared, card, target_us) if row["stage"] == "nu")
    chip = card_chip(card, target_us)
    t0_s = chip.spec.device.drift.t0_s
    chip.wait(86400.0)
    alive = chip.programmed_s[0] > 0
    ratio = chip.aged()[0][alive].astype(float) / chip.programmed_s[0][alive]
    nu = -np.log(ratio) / np.log1p(86400.0 / t0_s)
    mean_error = float(row["std"]) * np.sqrt(1 / alive.sum() + 1 / N)
    assert abs(nu.mean() - float(row["mean"])) < SIGMAS * mean_error
    both = np.sqrt(1 + nu.size / N)
    assert abs(nu.std() - float(row["std"])) < SIGMAS * std_error(nu) * both
