"""Philox and the normals made from it against an independent implementation in plain Python."""

from __future__ import annotations

import math

import numpy as np
import pytest

from aimc_sim.kernels.cells import cell_draws, fill_cell_normals, stream_key
from aimc_sim.kernels.philox import fill_normals, log_unit, philox
from aimc_sim.randomness import Purpose, seed_words

MASK = 0xFFFFFFFF
PI_COUNTER = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)  # the hexadecimal digits of pi
PI_KEY = (0xA4093822, 0x299F31D0)

# (counter, key, output) of philox4x32-10 in the kat_vectors file of Random123
KNOWN_ANSWERS = [
    ((0,) * 4, (0,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((MASK,) * 4, (MASK,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (PI_COUNTER, PI_KEY, (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
]


def plain_philox(counter, key):
    """Philox4x32-10 as the paper writes it: high and low halves of two products a round."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * c0, 1 << 32)
        high1, low1 = divmod(0xCD9E8D57 * c2, 1 << 32)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) & MASK, (k1 + 0xBB67AE85) & MASK
    return c0, c1, c2, c3


def plain_normals(counter, key):
    """Box-Muller in double precision on the four words: lanes 0 to 3 of one counter."""
    result = []
    words = plain_philox(counter, key)
    for first, second in (words[:2], words[2:]):
        radius = math.sqrt(-2 * math.log(((first >> 1) + 0.5) * 2.0**-31))
        angle = ((second >> 2) - (1 << 29)) * 2.0**-29 * math.pi / 4
        sine, cosine = math.sin(angle), math.cos(angle)
        cosine = -cosine if second & 1 else cosine
        pair = (sine, cosine) if second & 2 else (cosine, sine)
        result += [radius * pair[0], radius * pair[1]]
    return result


def plain_key(seed, purpose, replica, place):
    words = plain_philox((place & MASK, replica, purpose, place >> 32), (seed & MASK, seed >> 32))
    return words[:2]


def words_of(counter, key):
    return tuple(int(word) for word in philox(*map(np.uint64, counter), *map(np.uint64, key)))


@pytest.mark.parametrize(("counter", "key", "output"), KNOWN_ANSWERS)
def test_philox_gives_the_known_answers_of_random123(counter, key, output):
    assert words_of(counter, key) == output
    assert plain_philox(counter, key) == output


def test_philox_equals_the_plain_implementation_on_random_counters():
    draw = np.random.default_rng(5).integers(0, 1 << 32, size=(50, 6))
    for row in draw.tolist():
        assert words_of(row[:4], row[4:]) == plain_philox(row[:4], row[4:])


def test_a_logarithm_is_good_to_two_units_in_the_last_place():
    edges = [2.0**-32, 2.0**-31, 0.5, 0.70710677, 0.70710683, 1 - 2.0**-24, 1.0]
    random = np.random.default_rng(6).random(300).tolist()
    for u in np.array([*edges, *random, *(r * 2.0**-20 for r in random)], np.float32):
        exact = math.log(float(u))
        error = abs(float(log_unit(u)) - exact)
        assert error <= 2 * np.spacing(np.float32(abs(exact))), u


def test_every_normal_sits_at_its_documented_address():
    key, upper = (0x12345678, 0x9ABCDEF0), (3, 70_000, 9)
    out = np.empty(128, np.float32)
    fill_normals(out, 0, 70, *map(np.uint64, key), *map(np.uint64, upper))
    for element in range(70):
        counter = 16 * (element >> 6) + (element & 15)
        expected = plain_normals((counter, *upper), key)[(element >> 4) & 3]
        assert out[element] == pytest.approx(expected, abs=2e-6), element


def test_a_longer_fill_begins_with_the_shorter_one():
    short, long = np.empty(64, np.float32), np.empty(192, np.float32)
    address = [np.uint64(word) for word in (1, 2, 3, 4, 5)]
    fill_normals(short, 0, 33, *address)
    fill_normals(long, 0, 161, *address)
    np.testing.assert_array_equal(short[:33], long[:33])


def test_a_fill_from_a_later_element_continues_the_first():
    whole, rest = np.empty(192, np.float32), np.empty(128, np.float32)
    address = [np.uint64(word) for word in (1, 2, 3, 4, 5)]
    fill_normals(whole, 0, 192, *address)
    fill_normals(rest, 64, 128, *address)
    np.testing.assert_array_equal(whole[64:], rest)


@pytest.mark.parametrize("place", [0, 1, 4095, (1 << 20) + 3])
def test_a_stream_key_is_the_philox_of_purpose_replica_and_place(place):
    seed = (3 << 32) + 17
    found = stream_key(*seed_words(seed), int(Purpose.READ), 2, place)
    assert tuple(map(int, found)) == plain_key(seed, int(Purpose.READ), 2, place)


def test_cells_of_a_tile_find_the_normal_of_their_own_element():
    seed, replica = 99, 4
    tile = np.array([2, 0, 2, 1, 0, 2], np.int32)
    element = np.array([0, 5, 37, 1000, 13, 65535], np.int64)
    draws = cell_draws(tile, element)
    out = np.empty(4 * draws.counter.size, np.float32)
    sequence, moment = np.uint64(6), np.uint64(7)
    fill_cell_normals(draws, *seed_words(seed), 2, replica, sequence, moment, out)
    for cell in range(tile.size):
        key = plain_key(seed, 2, replica, int(tile[cell]))
        number = int(element[cell])
        counter = (16 * (number >> 6) + (number & 15), 0, 6, 7)
        expected = plain_normals(counter, key)[(number >> 4) & 3]
        assert out[draws.index[cell]] == pytest.approx(expected, abs=2e-6)
