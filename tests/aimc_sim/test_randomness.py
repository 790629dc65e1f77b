"""Golden numbers: an edit that moves a draw fails here, whatever else it leaves unchanged.

The words are integers and hold on every machine. Whoever has to change this table changes the
results of every published seed: say so in the changelog.
"""

from __future__ import annotations

import numpy as np
import pytest
from small_models import random_model

from aimc_sim.chip import Chip
from aimc_sim.errors import UsageError
from aimc_sim.kernels.cells import stream_key
from aimc_sim.kernels.philox import philox
from aimc_sim.mapping import Request, place
from aimc_sim.matrix import map_matrix
from aimc_sim.randomness import Purpose, clock_word, seed_words
from aimc_sim.specs import ChipSpec
from ssm.ranges import default_signal

SEED = 0x0123456789ABCDEF

# purpose, its number, key of (SEED, purpose, replica 1, place 3), words of counter 0 under it
GOLDEN_WORDS = [
    ("PROGRAM", 1, (0x10165734, 0x1E6326DC), (0x63670AA5, 0xF5DCEB3B, 0xBA4CDB29, 0x707D6384)),
    ("DRIFT", 2, (0x7AFB31F6, 0x49E88C8A), (0x991F848E, 0x66BF841A, 0x5A2425E0, 0x51471792)),
    ("RELAX", 3, (0xA98FD5BD, 0xFC67161D), (0xECD69C05, 0x89522D51, 0xCFF0CEBB, 0xA4D915A5)),
    ("READ_SLOW", 4, (0x215D29E6, 0x5F27971F), (0x8C8E684E, 0x2A17EFB6, 0x3956B75B, 0xB7B4D6B9)),
    ("READ", 5, (0x1AD282B1, 0x12AD3EF3), (0xB3513A8C, 0xD93A7E05, 0x229B46FF, 0x6B9EE620)),
    ("READ_CELL", 6, (0xC2593FB3, 0xA1DFC0AE), (0x8D649641, 0x9184B1B6, 0x04F1D573, 0x5551B9C2)),
    ("PROBE", 7, (0x2A86C2DF, 0xBA1DC76A), (0xC2CBBA12, 0xEB377C82, 0x9EA58C0F, 0xC0D8240A)),
    ("FAULT", 8, (0x4C784548, 0xE73B6DC5), (0xD76D814F, 0xBB5BAAD4, 0xA98634CA, 0x8E13140F)),
    ("FAULT_LINE", 9, (0xB333E965, 0xD517E155), (0x0AFC266D, 0x224053E9, 0x4C4B3551, 0x14DF2672)),
    ("WRITE", 10, (0x6EED7A01, 0x787BCF4E), (0x9CF8DE5F, 0xDCA7D397, 0x6D00238A, 0x560F440A)),
    ("VERIFY", 11, (0x02F21BDC, 0x095BA8B1), (0xBC317335, 0xE433C31C, 0x59E2690D, 0x493DF82A)),
    ("PULSE_CELL", 12, (0xE22961A6, 0xA25450C1), (0x4028B148, 0xCC57A072, 0x4DB3EB59, 0xEE2470F6)),
    ("TELEGRAPH", 13, (0x88FF1DBB, 0x02AA1CF3), (0xB4C3CAD6, 0x7BFDFEDB, 0xD539722D, 0xEA592013)),
    ("SWITCH", 14, (0x02802CCE, 0xB7934FB2), (0x28D1F778, 0xCDA6C815, 0xD7FD7285, 0x2376031F)),
    ("BAND", 15, (0x05CF4CDD, 0x30064E93), (0x6AFE7013, 0xC1BF840F, 0xD8E41B2A, 0x807A813C)),
    ("REFRESH", 16, (0x1B20FAB5, 0x2FDAA5F1), (0x161F71D2, 0x80B6B4E2, 0xC5CDF566, 0x7BEAFB46)),
    ("COMPENSATE", 17, (0x3439B03B, 0xF5BEA6DC), (0x082322A6, 0x92FF543D, 0xB6E41DCB, 0xF869806D)),
    ("ADC", 18, (0xE33BDF25, 0xDF26E4C7), (0xD1986AA4, 0xFEED55E9, 0x456273C1, 0x46AB660B)),
    ("DAC", 19, (0xAB921396, 0xDAD3A25F), (0x5729B50D, 0xE77376BB, 0x22161F98, 0x2071729B)),
    ("DAC_NOISE", 20, (0xA2E31518, 0x0F457C35), (0x03B26AD6, 0x92604BAF, 0xA94C8835, 0xFB28E422)),
]

# normals of elements 0, 1, 16, 32, 48 and 8 of tile 0, replica 0
GOLDEN_NORMALS = {
    "PROGRAM": [-0.006347, -1.546066, -0.130696, 2.465608, 2.270403, 0.466351],
    "DRIFT": [1.340900, 1.332360, 0.646603, 0.805374, -0.287512, 0.310188],
    "RELAX": [-0.490397, 0.397313, -0.506743, 0.338539, 0.582677, 0.077512],
    "READ_SLOW": [-0.247378, -0.505204, 1.107202, -0.746335, -1.311569, 2.003179],
}

# the first values of the probe signal of a model without data, in units of 2^-24, and its last
GOLDEN_PROBE = [4507007, 7865452, 16338826, 7149540, 2126874, 6089822]
GOLDEN_PROBE_LAST = {1: 14055102, 2: 11985940}


def test_every_purpose_has_a_golden_row():
    assert {row[0]: row[1] for row in GOLDEN_WORDS} == {p.name: int(p) for p in Purpose}


@pytest.mark.parametrize(("name", "number", "key", "words"), GOLDEN_WORDS, ids=lambda v: str(v)[:9])
def test_the_first_random_words_of_a_purpose_never_change(name, number, key, words):
    found = stream_key(*seed_words(SEED), number, 1, 3)
    assert tuple(map(int, found)) == key
    zero = np.uint64(0)
    assert tuple(map(int, philox(zero, zero, zero, zero, *map(np.uint64, key)))) == words


@pytest.mark.parametrize("name", GOLDEN_NORMALS)
def test_the_first_normals_of_cells_never_change(name):
    spec = ChipSpec.preset("ideal")
    layout = place([Request("cells", 1, 1, 64, pair=False)], spec)
    chip = Chip(spec, layout, np.full(64, 1e-6), SEED)
    found = chip.normals(Purpose[name], 0)[chip.draws.index[[0, 1, 16, 32, 48, 8]]]
    np.testing.assert_allclose(found, GOLDEN_NORMALS[name], atol=1e-5)


def test_the_first_programmed_cells_of_a_card_never_change():
    spec = ChipSpec.preset("pcm-nandakumar2019")
    layout = place([Request("cells", 1, 1, 4, pair=False)], spec)
    chip = Chip(spec, layout, np.array([5e-6, 10e-6, 15e-6, 20e-6]), SEED)
    normals = chip.normals(Purpose.PROGRAM, 0)[chip.draws.index]
    r = np.array([0.2, 0.4, 0.6, 0.8])
    sigma_us = 0.26348 + 1.9650 * r - 1.1731 * r**2
    np.testing.assert_allclose(
        1e6 * chip.programmed_s[0], [5, 10, 15, 20] + sigma_us * normals, rtol=1e-6
    )
    np.testing.assert_allclose(normals[:2], GOLDEN_NORMALS["PROGRAM"][:2], atol=1e-5)


@pytest.mark.parametrize("d_input", GOLDEN_PROBE_LAST)
def test_the_probe_signal_of_a_model_without_a_task_never_changes(d_input):
    probe, _ = default_signal(random_model(d_input=d_input, task=None))
    assert probe.shape == (16, 256, d_input)
    units = probe.ravel().astype(float) * 2**24
    assert units[: len(GOLDEN_PROBE)].tolist() == GOLDEN_PROBE
    assert units[-1] == GOLDEN_PROBE_LAST[d_input]


def test_a_matrix_without_calibration_data_is_always_probed_with_the_same_signal():
    spec = ChipSpec.preset("pcm-nandakumar2019")
    first, second = (map_matrix([[1.0, 0.5], [-0.25, 1.0]], spec) for _ in range(2))
    np.testing.assert_array_equal(first.adc_range, second.adc_range)


@pytest.mark.parametrize("seed", [-1, 1 << 64])
def test_a_seed_outside_64_bits_is_refused(seed):
    with pytest.raises(UsageError, match=rf"seed {seed}\. It is no whole number in \[0, 2\^64\)"):
        seed_words(seed)


def test_seed_words_are_the_two_halves_of_the_seed():
    assert tuple(map(int, seed_words(SEED))) == (0x89ABCDEF, 0x01234567)
    assert tuple(map(int, seed_words((1 << 64) - 1))) == (0xFFFFFFFF, 0xFFFFFFFF)


def test_common_moments_have_words_of_their_own():
    seconds = [0, 1e-6, 1e-3, 1, 2, 60, 3600, 7200, 86400, 2 * 86400, 604800, 2592000, 31536000]
    assert len({int(clock_word(round(s * 1e9))) for s in seconds}) == len(seconds)


# steps at which bands of the first two groups of 64 weights are drawn anew, and at which the
# first two cells jump
GOLDEN_REFRESHES = [[20, 24, 30, 36, 46, 64], [37, 39, 66]]
GOLDEN_JUMPS = [[], [36, 65, 67, 73, 75, 78]]


def steps_of_change(device, n_out, n_steps, **changes):
    """Return the steps at which weights of a matrix of ones change, a list for each."""
    spec = ChipSpec.preset("ideal")
    spec = spec.replace(device=spec.device.replace(**device), noise_in_time="spectrum", **changes)
    matrix = map_matrix(np.ones((1, n_out)), spec).program(SEED).wait(1.0)
    y = matrix.mvm(np.ones((n_steps, 1), np.float32))
    return [(np.flatnonzero(np.diff(column)) + 1).tolist() for column in y.T]


def test_times_of_moving_noise_have_not_moved():
    # a read so slow that no part of 1/f noise is white and hides the refreshes
    noise = {"sigma": {"of": "r", "polynomial": [0.1]}, "t_read_s": 2.6e-5}
    found = steps_of_change({"read_noise": noise}, 128, 80, step_period_s=1e-6)
    assert [found[0], found[64]] == GOLDEN_REFRESHES
    jumps = {
        "fraction": 1.0, "amplitude": {"of": "r", "polynomial": [0.1]},
        "tau_high_s": 2e-5, "tau_low_s": 1e-5,
    }
    assert steps_of_change({"telegraph": jumps}, 2, 80, step_period_s=1e-6) == GOLDEN_JUMPS
