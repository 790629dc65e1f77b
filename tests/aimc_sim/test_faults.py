"""Faults: which cells do not work is drawn once, and no write, time or read mends them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from aimc_sim import writing
from aimc_sim.chip import Chip
from aimc_sim.errors import InputError
from aimc_sim.faults import STUCK_HIGH, STUCK_LOW, UNCONNECTED, WORKS, draw_faults, stick
from aimc_sim.kernels.cells import stream_key
from aimc_sim.kernels.philox import philox
from aimc_sim.mapping import Request, place
from aimc_sim.matrix import map_matrix
from aimc_sim.randomness import Purpose, seed_words
from aimc_sim.specs import ChipSpec, FaultSpec, WriteSpec
from aimc_sim.tally import Tally, add_up, tally

pytestmark = pytest.mark.compiled
HOUR = 3600.0
CARDS = ["pcm-nandakumar2019", "reram-wan2022", "cmo-hfox"]
REQUESTS = [Request("w", 1, 200, 150), Request("a", 40, 2, 2, pair=False, kind="short_tile")]


def chip_with(card="pcm-nandakumar2019", requests=REQUESTS, seed=1, options=None, **faults):
    spec = ChipSpec.preset(card).replace(faults=faults)
    layout = place(requests, spec)
    middle = (spec.device.g_min_s + spec.device.g_max_s) / 2
    return Chip(spec, layout, np.full(layout.n_cells, middle), seed, **(options or {}))


def write_map(path, layout, spec, **changes):
    """Write a map in which every code occurs, for the tiles of a layout."""
    maps = {}
    for kind in ("tile", "short_tile"):
        size = spec.tile if kind == "tile" else spec.short_tile
        shape = (layout.tile_kinds.count(kind), size.rows, size.cols)
        maps[kind] = np.random.default_rng(5).integers(0, 4, shape, np.int8)
    maps = {**maps, **changes}
    np.savez(path, **{key: value for key, value in maps.items() if value is not None})
    return maps


# which cells


def test_shares_of_faulty_cells_are_those_asked_for():
    chip = chip_with(stuck_low=0.02, stuck_high=0.05, options={"n_replicas": 4})
    codes = chip.written.faults
    n = codes.size
    for code, share in ((STUCK_LOW, 0.02), (STUCK_HIGH, 0.05), (UNCONNECTED, 0.0)):
        assert abs((codes == code).mean() - share) <= 5 * math.sqrt(share * (1 - share) / n)
    assert codes.dtype == np.int8


def test_dead_lines_are_whole_lines_of_a_tile_and_as_many_as_asked_for():
    request = [Request("w", 1, 1024, 256)]
    chip = chip_with(requests=request, dead_rows=0.1, dead_cols=0.05, options={"n_replicas": 8})
    array = chip.layout.arrays[0]
    dead = (chip.written.faults == UNCONNECTED).reshape(8, 2, 1024, 256)
    n_rows, n_cols = 0, 0
    for tile in range(chip.layout.n_tiles):
        plan = np.zeros((8, 256, 256), bool)
        own = array.tile[:, 0] == tile
        row, col = np.divmod(array.element[:, 0][own], 256)
        assert own.sum() == 256 * 256
        plan[:, row, col] = dead[:, own]
        rows, cols = plan.all(axis=2), plan.all(axis=1)
        np.testing.assert_array_equal(plan, rows[:, :, None] | cols[:, None, :])
        n_rows, n_cols = n_rows + rows.sum(), n_cols + cols.sum()
    lines = 8 * chip.layout.n_tiles * 256
    assert abs(n_rows / lines - 0.1) < 5 * math.sqrt(0.1 * 0.9 / lines)
    assert abs(n_cols / lines - 0.05) < 5 * math.sqrt(0.05 * 0.95 / lines)


def test_faults_are_a_function_of_seed_replica_and_cell_alone():
    rates = {"stuck_low": 0.1, "stuck_high": 0.1, "dead_rows": 0.05, "dead_cols": 0.05}
    codes, again = (chip_with(**rates, options={"n_replicas": 3}).written.faults for _ in range(2))
    np.testing.assert_array_equal(codes, again)
    late = chip_with(**rates, options={"first_replica": 2}).written.faults
    np.testing.assert_array_equal(late[0], codes[2])
    assert (codes[0] != codes[1]).any()
    assert (chip_with(**rates, seed=2).written.faults != codes[0]).any()
    # the same cells of a layout in another order
    turned = chip_with(requests=REQUESTS[:1], **rates).written.faults[0]
    np.testing.assert_array_equal(turned, codes[0, : turned.size])
    # raising a rate breaks further cells and mends none
    more = chip_with(**{**rates, "stuck_low": 0.15, "stuck_high": 0.1}).written.faults[0]
    assert (more[codes[0] == STUCK_LOW] == STUCK_LOW).all()


def test_every_code_is_decided_by_the_first_words_of_the_cell_and_its_lines():
    seed, replica = (7 << 32) + 9, 2
    rates = {"stuck_low": 0.3, "stuck_high": 0.3, "dead_rows": 0.2, "dead_cols": 0.2}
    requests = [Request("w", 1, 300, 8, pair=False)]
    chip = chip_with(requests=requests, seed=seed, options={"first_replica": replica}, **rates)

    def uniform(purpose, tile, element):
        key = map(np.uint64, stream_key(*seed_words(seed), int(purpose), replica, tile))
        zero = np.uint64(0)
        return (int(philox(np.uint64(element), zero, zero, zero, *key)[0]) + 0.5) / 2**32

    array = chip.layout.arrays[0]
    addresses = zip(array.tile.ravel(), array.element.ravel(), strict=True)
    for found, (tile, element) in zip(chip.written.faults[0], addresses, strict=True):
        row, col = divmod(int(element), 256)
        dead = (
            uniform(Purpose.FAULT_LINE, tile, row) < 0.2
            or uniform(Purpose.FAULT_LINE, tile, 256 + col) < 0.2
        )
        u = uniform(Purpose.FAULT, tile, element)
        stuck = STUCK_LOW if u < 0.3 else STUCK_HIGH if u < 0.6 else WORKS
        assert found == (UNCONNECTED if dead else stuck)


@pytest.mark.parametrize("name", ["stuck_low", "stuck_high", "dead_rows", "dead_cols"])
@pytest.mark.parametrize("share", [-0.1, 1.5, math.nan])
def test_shares_outside_zero_to_one_are_refused(name, share):
    with pytest.raises(InputError, match=f"faults.{name}"):
        ChipSpec.preset("ideal").replace(faults={name: share})


def test_shares_of_the_same_cells_above_one_are_refused():
    with pytest.raises(InputError, match="shares of the same cells: at most 1"):
        ChipSpec.preset("ideal").replace(faults={"stuck_low": 0.6, "stuck_high": 0.5})


# maps


def test_a_map_marks_the_cells_it_names(tmp_path):
    spec = ChipSpec.preset("ideal").replace(faults={"map": str(tmp_path / "map.npz")})
    requests = [Request("a", 300, 2, 2, kind="short_tile"), Request("w", 1, 300, 150)]
    layout = place(requests, spec)
    maps = write_map(tmp_path / "map.npz", layout, spec)
    codes = draw_faults(spec, layout, seed_words(0), 2, 0)
    np.testing.assert_array_equal(codes[0], codes[1])
    seen = dict.fromkeys(("tile", "short_tile"), 0)
    for number, kind in enumerate(layout.tile_kinds):
        own_map = maps[kind][seen[kind]].ravel()
        seen[kind] += 1
        for array in layout.arrays:
            here = array.tile == number
            found = codes[0, array.first : array.first + array.n_cells].reshape(here.shape)
            np.testing.assert_array_equal(found[here], own_map[array.element[here]])
    assert min(seen.values()) >= 2


def test_a_map_is_in_force_beside_the_rates(tmp_path):
    path = tmp_path / "map.npz"
    rates = {"stuck_low": 0.2, "stuck_high": 0.2, "dead_rows": 0.1, "dead_cols": 0.1}
    drawn = chip_with(**rates).written.faults[0]
    spec = ChipSpec.preset("pcm-nandakumar2019")
    layout = place(REQUESTS, spec)
    write_map(path, layout, spec)
    mapped = chip_with(map=str(path)).written.faults[0]
    both = chip_with(map=str(path), **rates).written.faults[0]
    missing = (mapped == UNCONNECTED) | (drawn == UNCONNECTED)
    expected = np.where(missing, UNCONNECTED, np.where(mapped != WORKS, mapped, drawn))
    np.testing.assert_array_equal(both, expected)


def test_a_map_may_be_of_more_tiles_than_the_model_takes(tmp_path):
    spec = ChipSpec.preset("ideal").replace(faults={"map": str(tmp_path / "map.npz")})
    layout = place([Request("w", 1, 20, 20)], spec)
    codes = np.zeros((3, 256, 256), np.int8)
    codes[0, 1, 2] = STUCK_HIGH
    np.savez(tmp_path / "map.npz", tile=codes)
    assert (draw_faults(spec, layout, seed_words(0), 1, 0) == STUCK_HIGH).sum() == 1


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"tile": None}, r"It lacks 'tile'\. Add int8 codes \(1, 256, 256\)"),
        ({"tile": np.zeros((1, 256, 256))}, r"'tile' is float64 .*\. Give int8: 0 works"),
        ({"tile": np.full((1, 256, 256), 4, np.int8)}, "codes outside 0 to 3"),
        ({"tile": np.full((1, 256, 256), -1, np.int8)}, "codes outside 0 to 3"),
        ({"tile": np.zeros((1, 256, 255), np.int8)}, r"shape \(1, 256, 255\), the model takes"),
        ({"tile": np.zeros((0, 256, 256), np.int8)}, r"shape \(0, 256, 256\), the model takes"),
        ({"tile": np.zeros((256, 256), np.int8)}, r"Give codes for at least so many tiles"),
        ({"short_tile": np.zeros((1, 3, 256), np.int8)}, r"'short_tile' has shape \(1, 3, 256\)"),
        ({"tile": np.array([[["x"]]], object)}, "It cannot be read"),
    ],
)
def test_maps_that_are_none_of_these_tiles_are_refused(tmp_path, change, text):
    path = tmp_path / "map.npz"
    spec = ChipSpec.preset("pcm-nandakumar2019")
    requests = [Request("w", 1, 20, 20), Request("a", 3, 2, 2, kind="short_tile")]
    write_map(path, place(requests, spec), spec, **change)
    with pytest.raises(InputError, match=rf"Read the fault map .*map\.npz\. .*{text}"):
        chip_with(requests=requests, map=str(path))


def test_a_map_that_is_missing_or_no_archive_is_refused(tmp_path):
    with pytest.raises(InputError, match="It cannot be read .* Check the path"):
        chip_with(map=str(tmp_path / "absent.npz"))
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(InputError, match="It cannot be read"):
        chip_with(map=str(tmp_path / "text.npz"))
    np.save(tmp_path / "one.npy", np.zeros(3, np.int8))
    with pytest.raises(InputError, match="It holds one array"):
        chip_with(map=str(tmp_path / "one.npy"))


# what they do

RATES = {"stuck_low": 0.2, "stuck_high": 0.2, "dead_rows": 0.1}


@pytest.mark.parametrize("card", CARDS)
def test_faulty_cells_hold_what_they_hold_and_do_not_age(card):
    chip = chip_with(card, **RATES)
    device, codes = chip.spec.device, chip.written.faults[0]
    for seconds in (0.0, HOUR, HOUR):
        chip.wait(seconds)
        for g in (chip.programmed_s[0], chip.aged()[0]):
            assert (g[codes == STUCK_LOW] == np.float32(device.g_min_s)).all()
            assert (g[codes == STUCK_HIGH] == np.float32(device.g_max_s)).all()
            assert (g[codes == UNCONNECTED] == 0).all()


@pytest.mark.parametrize("card", CARDS)
def test_cells_that_work_are_as_on_a_chip_without_faults(card):
    chip = chip_with(card, **RATES)
    good = Chip(chip.spec.replace(faults=None), chip.layout, chip.target_s, chip.seed)
    works = chip.written.faults[0] == WORKS
    for each in (chip, good):
        each.wait(HOUR)
    np.testing.assert_array_equal(chip.aged()[0, works], good.aged()[0, works])
    np.testing.assert_array_equal(chip.read()[works], good.read()[works])
    np.testing.assert_array_equal(chip.fast_sigma()[works], good.fast_sigma()[works])
    assert good.written.faults is None


@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize("noise_in_time", ["white", "frozen"])
def test_stuck_cells_are_read_with_noise_and_unconnected_ones_without(card, noise_in_time):
    spec = ChipSpec.preset(card).replace(noise_in_time=noise_in_time, faults=FaultSpec(**RATES))
    layout = place(REQUESTS, spec)
    chip = Chip(spec, layout, np.full(layout.n_cells, spec.device.g_max_s), 1)
    chip.wait(HOUR)
    codes = chip.written.faults[0]
    read, sigma = chip.read().astype(float), chip.fast_sigma()
    assert (read[codes == UNCONNECTED] == 0).all()  # below the floor of a card that has one
    assert (sigma[codes == UNCONNECTED] == 0).all()
    stuck = codes == STUCK_HIGH
    if noise_in_time == "white":
        assert (sigma[stuck] > 0).all()
    else:  # the wan card's noise moves a cell too: half of the reads are above its g_max
        n = int(stuck.sum())
        held = np.float32(spec.device.g_max_s)
        below = (read[stuck] < held).mean()
        assert abs(below - 0.5) < 5 * 0.5 / math.sqrt(n)
        assert len(np.unique(read[stuck])) > n / 3


def test_a_matrix_misses_its_dead_lines_and_counts_its_stuck_cells_exactly():
    rates = {"stuck_low": 0.05, "stuck_high": 0.05, "dead_rows": 0.1, "dead_cols": 0.1}
    device = ChipSpec.preset("cmo-hfox").device
    device = device.replace(programming=None, relaxation=None, read_noise=None)
    spec = ChipSpec(name="faulty", device=device, faults=rates)
    w = np.random.default_rng(3).standard_normal((300, 50))
    matrix = map_matrix(w, spec).program(4)
    codes = matrix.array.by_piece(matrix.chip.written.faults[0])[0, :, 0]
    held = np.array([np.nan, device.g_min_s, device.g_max_s, 0.0])[codes]
    scale = matrix.mapped.scale[0]
    plus, minus = (device.g_min_s + np.maximum(sign * w / scale, 0) for sign in (1, -1))
    g = np.where(codes == WORKS, np.stack([plus, minus]), held)
    found = matrix.weights()[0]
    np.testing.assert_allclose(found, (g[0] - g[1]) * scale, atol=3e-7 * np.abs(w).max())
    dead = (codes == UNCONNECTED).all(axis=0)
    assert dead.mean() > 0.05
    assert (found[dead] == 0).all()


# what they do to a report


def looped(spec, target, replicas, pulses, failed=False):
    """What a write loop might have left: every cell on its target after some pulses."""
    shape = (replicas, target.size)
    return writing.Written(
        np.broadcast_to(target.astype(np.float32), shape).copy(),
        pulses=np.broadcast_to(np.asarray(pulses, np.uint16), shape).copy(),
        failed=np.full(shape, failed),
        energy_j=np.full(shape, 1e-12, np.float32),
    )


def pulsed():
    """A chip with write-verify of 2 uS and 50 pulses."""
    flat = {"of": "r", "unit_s": 1e-6, "pieces": [{"polynomial": [1.0]}]}
    down = {"of": "r", "unit_s": 1e-6, "pieces": [{"polynomial": [-1.0]}]}
    pulses = {"set_mean": flat, "set_sigma": flat, "reset_mean": down, "reset_sigma": flat}
    return ChipSpec.preset("ideal").replace(
        write=WriteSpec(tolerance_s=2e-6, max_pulses=50), **{"device.pulses": pulses}
    )


def test_a_write_loop_fails_on_the_cells_that_faults_keep_off_their_target():
    spec = pulsed().replace(faults=FaultSpec())
    device = spec.device
    high, low = device.g_max_s, device.g_min_s
    target = np.array([high, high, high, low, low, low, high - 1e-6], np.float32)
    codes = np.array([[0, STUCK_LOW, UNCONNECTED, 0, STUCK_LOW, STUCK_HIGH, STUCK_HIGH]], np.int8)
    written = stick(looped(spec, target, 1, 3), codes, target, spec)
    np.testing.assert_array_equal(written.failed[0], [0, 1, 1, 0, 0, 1, 0])
    np.testing.assert_array_equal(written.pulses[0], [3, 50, 50, 3, 3, 50, 3])
    assert written.pulses.dtype == np.uint16
    np.testing.assert_array_equal(
        written.g_s[0], np.float32([high, low, 0.0, low, low, high, high])
    )


def test_a_tally_counts_the_cells_that_carry_weights_and_adds_up_over_chips():
    spec = pulsed().replace(
        faults=FaultSpec(stuck_low=0.3),
        **{"tile.idle": "g_min", "tile.drive": "parallel", "tile.rows": 8, "tile.cols": 16},
    )
    layout = place([Request("blocks", 5, 2, 1)], spec)  # 4 blocks together: idle cells between
    assert layout.n_cells == 2 * 2 * 8 * 4
    assert layout.n_used() == 20
    used = layout.arrays[0].carries_weight().ravel()
    target = np.full(layout.n_cells, spec.device.g_max_s)
    pulses = np.where(used, np.arange(1, layout.n_cells + 1), 999)

    def chip(replicas, first):
        codes = draw_faults(spec, layout, seed_words(3), replicas, first)
        written = looped(spec, target, replicas, pulses)
        written = writing.Written(
            written.g_s, codes, written.pulses, codes == STUCK_LOW, written.energy_j
        )
        return Chip(spec, layout, target, 3, replicas, first, written)

    whole, parts = tally(chip(4, 0)), add_up([tally(chip(1, 0)), tally(chip(3, 1))])
    codes = chip(4, 0).written.faults[:, used]
    for found in (whole, parts):
        assert found.fault_record() == {
            "cells": 20,
            "stuck_low": (codes == STUCK_LOW).sum() / 4,
            "stuck_high": 0.0,
            "unconnected": 0.0,
        }
        record = found.writing_record()
        assert record["pulses_mean"] == pytest.approx(pulses[used].mean())
        assert record["pulses_95"] == sorted(pulses[used])[18]  # 19 of 20 cells took no more
        assert record["failed"] == (codes == STUCK_LOW).sum() / 4
        assert record["energy_j"] == pytest.approx(20e-12)


def test_a_chip_without_faults_or_loop_has_nothing_to_tell():
    layout = place(REQUESTS, ChipSpec.preset("ideal"))
    found = tally(Chip(ChipSpec.preset("ideal"), layout, np.full(layout.n_cells, 1e-6)))
    assert (found.fault_record(), found.writing_record()) == (None, None)
    assert Tally(1, 4).writing_record() is None
