"""The formulas of the published cards, stated a second time, and what a card tells its user."""

from __future__ import annotations

import json

import numpy as np
import pytest

import aimc_sim as aimc
from aimc_sim.cards import check_targets
from aimc_sim.devices import card_curves, measured_ranges, predict
from aimc_sim.errors import UsageError
from aimc_sim.specs import ChipSpec

ALL_CARDS = {
    "ideal", "pcm-nandakumar2019", "pcm-hermes2023-1dev", "pcm-hermes2023-2dev", "reram-wan2022",
    "cmo-hfox", "cmo-hfox-fine", "sonos-agrawal2022", "pcm-joshi2020", "rram-milo2021",
    "generic-taox-64",
}
DAY = 86400.0
FINE = 2001  # targets over the range of a card, the bounds of its pieces among them


def card(name):
    return ChipSpec.preset(name).device


def grid(device, *bounds):
    """Return targets [S] over the range, and beside the bounds of pieces (in r)."""
    near = np.array([b * (1 + d) for b in bounds for d in (-1e-9, 1e-9)]) * device.g_max_s
    return np.concatenate([np.linspace(device.g_min_s, device.g_max_s, FINE), near])


def assert_same(curve, device, g, expected):
    np.testing.assert_allclose(curve.evaluate(g, device.g_max_s), expected, rtol=1e-6, atol=1e-18)


def test_all_published_cards_are_there():
    assert set(aimc.presets()) >= ALL_CARDS


# phase-change memory of the HERMES chip ---------------------------------------------------------

HERMES = {
    "pcm-hermes2023-1dev": {
        "g_max_us": 10.35, "t0_s": 200.0,
        "sigma": lambda r: 0.15781817 + 2.32443916 * r - 2.16310839 * r**2 + 0.68841818 * r**3,
        "std_bound": 0.3039,
        "std": (lambda ln: np.clip(-0.012 * ln - 0.0023, 0.0124, 0.04),
                lambda r: -0.0165 * r**2 + 0.0116 * r + 0.0104),
        "q_bound": 0.1591,
        "q": (lambda ln: np.clip(-0.0078 * ln + 0.0038, 0.0179, 0.04),
              lambda r: 0.0664 * r**3 - 0.1352 * r**2 + 0.0768 * r + 0.0088),
    },
    "pcm-hermes2023-2dev": {
        "g_max_us": 20.7, "t0_s": 300.0,
        "sigma": lambda r: 0.16603222 + 4.71806468 * r - 8.48101252 * r**2 + 4.68961419 * r**3,
        "std_bound": 0.3055,
        "std": (lambda ln: np.clip(-0.0117 * ln - 0.0057, 0.0091, 0.04),
                lambda r: -0.0118 * r**2 + 0.0093 * r + 0.0073),
        "q_bound": 0.16,
        "q": (lambda ln: np.clip(-0.0117 * ln - 0.0069, 0.015, 0.04),
              lambda r: 0.0069 * r**3 - 0.028 * r**2 + 0.0211 * r + 0.0123),
    },
}


def pieces(r, bound, low, high):
    with np.errstate(divide="ignore"):
        return np.where(r < bound, low(np.log(r)), high(r))


@pytest.mark.parametrize("name", HERMES)
def test_hermes_has_the_published_sigma_nu_and_q(name):
    device, said = card(name), HERMES[name]
    assert device.g_max_s == pytest.approx(said["g_max_us"] * 1e-6)
    assert device.drift.t0_s == said["t0_s"]
    assert device.read_noise.t_read_s == pytest.approx(512e-9)
    assert device.read_noise.relative and device.read_noise.spectrum == "one_over_f"
    g = grid(device, 0.0945, said["std_bound"], said["q_bound"])
    r = g / device.g_max_s
    assert_same(device.programming.sigma, device, g, 1e-6 * said["sigma"](r))
    mean = pieces(r, 0.0945, lambda ln: np.clip(-0.0387 * ln - 0.0182, 0.072, 0.13),
                  lambda r: -0.0436 * r**2 - 0.0126 * r + 0.0736)
    assert_same(device.drift.nu_mean, device, g, mean)
    assert_same(device.drift.nu_std, device, g, pieces(r, said["std_bound"], *said["std"]))
    assert_same(device.read_noise.sigma, device, g, pieces(r, said["q_bound"], *said["q"]))


@pytest.mark.parametrize("name", HERMES)
def test_the_pieces_of_hermes_meet(name):
    # to 1.5 %, as published: a piece put in the wrong place jumps by more
    device, said = card(name), HERMES[name]
    for curve, bound in (
        (device.drift.nu_mean, 0.0945),
        (device.drift.nu_std, said["std_bound"]),
        (device.read_noise.sigma, said["q_bound"]),
    ):
        g = bound * device.g_max_s * np.array([1 - 1e-9, 1 + 1e-9])
        below, above = curve.evaluate(g, device.g_max_s)
        assert above == pytest.approx(below, rel=0.02)


@pytest.mark.parametrize("name", HERMES)
def test_hermes_refuses_more_than_was_characterised(name):
    spec = ChipSpec.preset(name)
    more = spec.replace(**{"device.g_max_s": 1.2 * spec.device.g_max_s})
    with pytest.raises(UsageError, match="Its data cover 0 to"):
        predict(more.device, [more.device.g_max_s], [0.0], n_cells=2)


# phase-change memory of 90 nm -------------------------------------------------------------------

def test_nandakumar_has_the_published_sigma_nu_and_q():
    device = card("pcm-nandakumar2019")
    g = grid(device)
    r = g / 25e-6
    assert device.drift.t0_s == 20.0
    assert device.read_noise.t_read_s == pytest.approx(250e-9)
    assert_same(device.programming.sigma, device, g, 1e-6 * (0.26348 + 1.965 * r - 1.1731 * r**2))
    with np.errstate(divide="ignore"):
        ln = np.log(r)
        mean = np.clip(-0.0155 * ln + 0.0244, 0.049, 0.1)
        std = np.clip(-0.0125 * ln - 0.0059, 0.008, 0.045)
        q = np.minimum(0.2, 0.0088 / np.maximum(r**0.65, 1e-3))
    assert_same(device.drift.nu_mean, device, g, mean)
    assert_same(device.drift.nu_std, device, g, std)
    assert_same(device.read_noise.sigma, device, g, q)


def test_joshi_has_the_published_sigma():
    device = card("pcm-joshi2020")
    g = grid(device)
    v = 1e6 * g
    expected = np.maximum(-0.00178767 * v**2 + 0.07585724 * v + 0.28638599, 0)
    assert_same(device.programming.sigma, device, g, 1e-6 * expected)
    # the paper's median sigma over its range is 0.94 uS, 3.8 % of g_max
    assert np.median(expected) == pytest.approx(0.94, abs=0.06)


# resistive memories -----------------------------------------------------------------------------

WAN = {
    1.0: (0.348, 16.030, -43.853, 45.393, -16.815),
    DAY: (0.701, 22.086, -50.773, 47.095, -16.458),
    2 * DAY: (0.782, 20.274, -43.507, 37.062, -11.934),
}


def test_wan_has_the_published_sigma_at_each_time_and_in_ln_t_between():
    device = card("reram-wan2022")
    g = grid(device)
    r = g / 40e-6
    sigma = {t: 1e-6 * sum(c * r**k for k, c in enumerate(cs)) for t, cs in WAN.items()}
    share = np.log(3600.0) / np.log(DAY)
    sigma[3600.0] = (1 - share) * sigma[1.0] + share * sigma[DAY]
    rows = card_curves(device, g, sorted(sigma))
    for k, seconds in enumerate(sorted(sigma)):
        found = [row["relaxation"][k]["sigma_s"] for row in rows]
        np.testing.assert_allclose(found, sigma[seconds], rtol=1e-6)
    (row,) = card_curves(device, [16e-6], [1.0, DAY])
    assert [round(1e6 * at["sigma_s"], 2) for at in row["relaxation"]] == [2.22, 4.0]


def test_wan_falls_between_one_and_two_days_as_measured():
    device = card("reram-wan2022")
    one, two = card_curves(device, [10e-6], [DAY, 2 * DAY])[0]["relaxation"]
    assert two["sigma_s"] < one["sigma_s"]


@pytest.mark.parametrize(
    ("name", "offset", "slope", "at_50"),
    [
        ("cmo-hfox", 0.0112185, 0.01129027, 0.575),
        ("cmo-hfox-fine", 0.00081107, 0.00106879, 0.054),
    ],
)
def test_cmo_has_the_published_sigma_relaxation_and_read_noise(name, offset, slope, at_50):
    device = card(name)
    g = grid(device)
    v = 1e6 * g
    assert (device.floor_s, device.ceiling_s) == pytest.approx((9e-6, 88.2e-6))
    assert_same(device.programming.sigma, device, g, 1e-6 * (offset + slope * v))
    assert_same(device.read_noise.sigma, device, g, 1e-6 * 0.0277316 * np.log10(v))
    assert device.read_noise.t_read_s == pytest.approx(1e-6)
    (row,) = card_curves(device, [50e-6], [0.0, 3600.0])
    assert row["programming_sigma_s"] == pytest.approx(at_50 * 1e-6, abs=1e-9)
    assert row["relaxation"][0] == {"at_s": 0.0, "mean_s": 0.0, "sigma_s": 0.0}
    hour = row["relaxation"][1]
    assert hour["mean_s"] == pytest.approx(-0.08900206e-6 * np.log(3600), rel=1e-6)
    assert hour["sigma_s"] == pytest.approx(
        (0.04201137 * np.log(3600) + 0.41183342) * 1e-6, rel=1e-6
    )


def test_milo_has_the_published_sigma():
    device = card("rram-milo2021")
    g = grid(device)
    assert_same(device.programming.sigma, device, g, 1e-6 * (4.782321 - 0.009107e6 * g))
    assert (device.g_min_s, device.g_max_s) == pytest.approx((50e-6, 225e-6))


# SONOS ------------------------------------------------------------------------------------------

@pytest.fixture
def sonos_fits(shared):
    path = shared / "data" / "devices" / "pulse-trains" / "device_fits.json"
    return json.loads(path.read_text("utf-8"))["SONOS_Agrawal_IEDM2022"]


@pytest.mark.parametrize("day", range(6))
def test_sonos_has_the_published_mean_and_sigma_of_currents_at_a_tenth_of_a_volt(sonos_fits, day):
    device = card("sonos-agrawal2022")
    g = grid(device)
    current_na = g * 0.1 * 1e9
    shift_na = sum(c * current_na**k for k, c in enumerate(sonos_fits["c"][day]))
    a, b = sonos_fits["A"][day], sonos_fits["B"][day]
    moved = [row["relaxation"][0] for row in card_curves(device, g, [day * DAY])]
    scale = 1e-9 / 0.1
    mean, sigma = (np.array([at[key] for at in moved]) for key in ("mean_s", "sigma_s"))
    largest = np.abs(shift_na).max()
    # the mean crosses zero, where float32 keeps 1e-7 of the largest and not of the value
    np.testing.assert_allclose(mean, scale * shift_na, rtol=1e-6, atol=1e-7 * scale * largest)
    np.testing.assert_allclose(sigma, scale * a * (1 - np.exp(-current_na / b)), rtol=1e-6,
                               atol=1e-9 * scale * a)


def test_sonos_has_the_published_read_noise_and_is_linear_between_days(sonos_fits):
    device = card("sonos-agrawal2022")
    g = grid(device)
    expected = sonos_fits["A_n"] * (1 - np.exp(-g * 1e8 / sonos_fits["B_n"]))
    np.testing.assert_allclose(
        device.read_noise.sigma.evaluate(g, device.g_max_s), 1e-8 * expected, rtol=1e-6, atol=1e-17
    )
    at = card_curves(device, [12e-6], [DAY, 1.25 * DAY, 2 * DAY])[0]["relaxation"]
    for key in ("mean_s", "sigma_s"):
        assert at[1][key] == pytest.approx(0.75 * at[0][key] + 0.25 * at[2][key], rel=1e-9)


def test_the_read_voltage_of_sonos_cancels():
    # the same card at 0.2 V: all conductances halve, relative results stay
    spec = ChipSpec.preset("sonos-agrawal2022")
    half = spec.device.model_dump()
    half["g_max_s"] /= 2
    half["g_range_s"] = (0.0, half["g_max_s"])
    moved = half["relaxation"]
    for curve in (*moved["sigma"], *moved["mean"], half["read_noise"]["sigma"]):
        curve["unit_s"] /= 2
        for piece in curve["pieces"]:
            piece["polynomial"] = tuple(c * 2**k for k, c in enumerate(piece["polynomial"]))
            a, b = piece["exponential"]
            piece["exponential"] = (a, b / 2) if a else (a, b)
    other = aimc.DeviceSpec(**half)
    whole = predict(spec.device, [4e-6, 16e-6], [2 * DAY], n_cells=500, seed=3)
    halved = predict(other, [2e-6, 8e-6], [2 * DAY], n_cells=500, seed=3)
    for one, two in zip(whole, halved, strict=True):
        assert two.read_mean_s == pytest.approx(one.read_mean_s / 2, rel=1e-5)
        assert two.read_std_s == pytest.approx(one.read_std_s / 2, rel=1e-4)


def test_sonos_refuses_to_speak_of_a_year():
    with pytest.raises(UsageError, match="Its data cover 0 s to 5 d"):
        predict(card("sonos-agrawal2022"), [8e-6], [365 * DAY], n_cells=2)


# what a card says -------------------------------------------------------------------------------

def test_chips_have_the_tiles_of_their_sources():
    taox = ChipSpec.preset("generic-taox-64")
    assert (taox.tile.rows, taox.tile.cols, taox.short_tile.cols) == (64, 64, 64)
    assert (taox.compensation, taox.compensation_reads) == ("affine", 100)
    for name in HERMES:
        tile = ChipSpec.preset(name).tile
        assert (tile.rows, tile.cols) == (256, 256)
    for name in ALL_CARDS - {"ideal"}:
        spec = ChipSpec.preset(name)
        assert (spec.dac.bits, spec.adc.bits, spec.tile.idle) == (8, 8, "off")


@pytest.mark.parametrize("name", sorted(ALL_CARDS - {"ideal"}))
def test_a_card_says_whom_to_cite_and_what_was_measured(name):
    device = card(name)
    assert len(device.cite) == len(device.doi) > 0
    assert all(any(year in text for year in map(str, range(2018, 2026))) for text in device.cite)
    low, high = device.g_range_s
    assert (low, high) == pytest.approx((device.g_min_s, device.g_max_s))
    assert len(measured_ranges(device)) == 2


def test_targets_outside_the_measured_ones_warn_or_are_refused():
    device = card("rram-milo2021")
    check_targets(device, np.array([50e-6, 225e-6], np.float32))  # float32 is not outside
    found = "program 'rram-milo2021' to 300 uS: its data cover 50 to 225 uS"
    with pytest.warns(UserWarning, match=found):
        check_targets(device, np.array([100e-6, 300e-6]))
    with pytest.warns(UserWarning, match="to 40 uS"):
        check_targets(device, np.array([40e-6, 100e-6]))
    strict = device.replace(outside_g_range="refuse")
    with pytest.raises(UsageError, match="Keep g_min_s and g_max_s in it"):
        check_targets(strict, np.array([300e-6]))
    check_targets(strict.replace(g_range_s=None), np.array([300e-6]))  # nothing is known


def test_a_wider_range_is_warned_of_when_cells_are_programmed_and_only_then():
    import warnings

    spec = ChipSpec.preset("reram-wan2022").replace(**{"device.g_max_s": 60e-6})
    mapped = aimc.map_matrix(np.eye(3), spec)
    with pytest.warns(UserWarning, match="program 'reram-wan2022' to 60 uS"):
        programmed = mapped.program(seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        programmed.chip.fresh().read()


@pytest.mark.parametrize("name", sorted(ALL_CARDS))
def test_curves_of_a_card_are_null_where_it_is_mute_and_numbers_elsewhere(name):
    device = card(name)
    row = card_curves(device, [device.g_max_s], [0.0, 1.0])[0]
    assert (row["programming_sigma_s"] is None) == (device.programming is None)
    assert (row["nu_mean"] is None) == (row["nu_std"] is None) == (device.drift is None)
    assert (row["relaxation"] is None) == (device.relaxation is None)
    noise = device.read_noise
    assert (row["read_q"] is None) == (noise is None or not noise.relative)
    assert (row["read_s"] is None) == (noise is None or noise.relative)
    assert row["set_mean_s"] is row["telegraph_q"] is row["white_s"] is None
    json.dumps(row, allow_nan=False)


def test_curves_tell_of_pulses_telegraph_noise_white_noise_and_shifts():
    def flat(value, unit_s=1.0):
        return {"polynomial": [value], "unit_s": unit_s}

    device = aimc.DeviceSpec(
        name="full", g_min_s=1e-6, g_max_s=20e-6,
        programming={"sigma": {"polynomial": [0.5, 1.0], "unit_s": 1e-6}, "g_reference_s": 10e-6,
                     "mean": flat(-0.1, 1e-6)},
        pulses={"set_mean": flat(4.0, 1e-7), "set_sigma": flat(1.0, 1e-7),
                "reset_mean": flat(-5.0, 1e-7), "reset_sigma": flat(2.0, 1e-7)},
        read_noise={"sigma": flat(0.02), "white": flat(0.01)},
        telegraph={"fraction": 0.1, "amplitude": flat(0.3, 1e-6), "relative": False,
                   "tau_high_s": 1.0, "tau_low_s": 1.0},
    )
    (row,) = card_curves(device, [10e-6], [])
    expected = {
        "target_s": 10e-6, "programming_mean_s": -0.2e-6, "programming_sigma_s": 2e-6,
        "nu_mean": None, "nu_std": None, "relaxation": None,
        "read_q": 0.02, "read_s": None, "white_q": 0.01, "white_s": None,
        "set_mean_s": 4e-7, "set_sigma_s": 1e-7, "reset_mean_s": -5e-7, "reset_sigma_s": 2e-7,
        "telegraph_q": None, "telegraph_s": 0.3e-6,
    }
    assert row.keys() == expected.keys()
    for key, value in expected.items():
        assert row[key] == (None if value is None else pytest.approx(value, rel=1e-12)), key
