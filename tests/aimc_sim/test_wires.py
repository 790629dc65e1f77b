"""Wires on chips: what matrices and their noise become behind resistive lines."""

from __future__ import annotations

import numpy as np
import pytest

import aimc_sim as aimc
from aimc_sim import wires

OHMS = {"r_wl_ohm": 2.0, "r_bl_ohm": 3.0, "r_driver_ohm": 50.0, "r_sense_ohm": 20.0}
W = np.random.default_rng(1).standard_normal((40, 20))
X = np.random.default_rng(2).standard_normal((6, 40))


def chip(preset="ideal", size=64, **more):
    base = aimc.ChipSpec.preset(preset)
    return base.replace(**{"tile.rows": size, "tile.cols": size, **more})


def effective_of(matrix, g_s, idle=0.0, **ohms):
    """Return effective conductances of the cells g_s (n_cells,), by the whole tiles."""
    array, spec = matrix.array, matrix.mapped.spec
    result = np.zeros(array.tile.shape)
    flat = g_s.reshape(array.tile.shape)
    for tile in np.unique(array.tile):
        own = array.tile == tile
        g = np.full((spec.tile.rows, spec.tile.cols), idle)
        g.flat[array.element[own]] = flat[own]
        result[own] = wires.effective_conductance(g, **ohms).flat[array.element[own]]
    return result


def weights_of(matrix, effective):
    return (effective[0, 0] - effective[1, 0]) * matrix.mapped.scale[0]


@pytest.mark.parametrize("g", [[[-1e-6]], [[np.nan]], [[np.inf]], [], [1e-6], [["a"]], [[1j]]])
def test_impossible_conductances_are_refused(g):
    with pytest.raises(aimc.InputError, match=r"negative or not finite|empty, not 2-D or of type"):
        wires.effective_conductance(g, r_wl_ohm=1.0, r_bl_ohm=1.0)


@pytest.mark.parametrize("name", OHMS)
@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
def test_impossible_resistances_are_refused_by_name(name, value):
    with pytest.raises(aimc.UsageError, match=name) as error:
        wires.effective_conductance(np.eye(2), **{**OHMS, name: value})
    assert "positive resistance" in error.value.do


def test_an_unknown_drive_is_refused():
    with pytest.raises(aimc.UsageError, match="Choose left or both"):
        wires.effective_conductance(np.eye(2), r_wl_ohm=1.0, r_bl_ohm=1.0, drive="top")


def test_one_cell_is_in_series_with_its_wires():
    found = wires.effective_conductance([[1e-4]], **OHMS)
    assert found[0, 0] == pytest.approx(1 / (1e4 + 75), rel=1e-12)
    both = wires.effective_conductance([[1e-4]], **OHMS, drive="both")
    assert both[0, 0] == pytest.approx(1 / (1e4 + 26 + 23), rel=1e-12)


def test_an_array_and_the_one_driven_from_its_outputs_are_the_same():
    g = np.random.default_rng(3).uniform(1e-6, 1e-4, (9, 14))
    straight = wires.effective_conductance(g, r_wl_ohm=2.0, r_bl_ohm=5.0, r_driver_ohm=9.0)
    turned = wires.effective_conductance(
        g.T[::-1, ::-1], r_wl_ohm=5.0, r_bl_ohm=2.0, r_sense_ohm=9.0
    )
    np.testing.assert_allclose(turned[::-1, ::-1].T, straight, rtol=1e-12)


@pytest.mark.parametrize("drive", ["left", "both"])
@pytest.mark.parametrize("ohms", [OHMS, {"r_wl_ohm": 0.0, "r_bl_ohm": 2.0}])
def test_voltages_of_cells_are_the_derivatives_of_the_map(drive, ohms):
    g = np.random.default_rng(4).uniform(1e-6, 1e-4, (7, 9))
    drives, senses = wires.cell_voltages(wires.make_network(g, **ohms, drive=drive))
    step = 1e-8
    for k, m in ((0, 0), (3, 5), (6, 8)):
        up, down = g.copy(), g.copy()
        up[k, m] += step
        down[k, m] -= step
        change = wires.effective_conductance(up, **ohms, drive=drive) - (
            wires.effective_conductance(down, **ohms, drive=drive)
        )
        np.testing.assert_allclose(
            np.outer(drives[:, k, m], senses[:, k, m]), change / (2 * step), atol=1e-7
        )


def test_ladders_give_the_slope_of_a_cell_to_a_second_order():
    g = np.random.default_rng(0).uniform(1e-6, 1e-4, (32, 32))
    network = wires.make_network(g, r_wl_ohm=1.0, r_bl_ohm=1.0)
    drives, senses = wires.cell_voltages(network)
    exact = np.einsum("iij,jij->ij", drives, senses)
    drive, sense = wires.own_voltages(network)
    assert np.abs(drive * sense / exact - 1).max() < 0.006
    assert np.abs(exact - 1).max() > 0.05


@pytest.mark.parametrize(("node", "ohm"), [(130, 0.1436), (65, 0.2476), (7, 2.085)])
def test_a_node_stands_for_the_resistance_of_its_wires(node, ohm):
    assert aimc.WireSpec(node_nm=node).segments_ohm == pytest.approx((ohm, ohm), rel=1e-3)
    longer = aimc.WireSpec(node_nm=node, pitch_nm=1000.0).segments_ohm[0]
    assert longer > ohm


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "Give both"), ({"r_wl_ohm": 1.0}, "Give both"),
        ({"node_nm": 65, "r_wl_ohm": 1.0}, "Give either"),
        ({"r_wl_ohm": 1.0, "r_bl_ohm": 1.0, "pitch_nm": 50.0}, "belongs to a node_nm"),
        ({"r_wl_ohm": -1.0, "r_bl_ohm": 1.0}, "greater than or equal to 0"),
        ({"node_nm": 60}, "choose one of 130, 65, 45, 32, 22, 14, 7"),
    ],
)
def test_half_a_description_of_wires_is_refused(fields, text):
    with pytest.raises(aimc.InputError, match=text):
        chip().replace(wires=fields)


def test_wires_are_read_from_and_written_to_chip_files():
    spec = aimc.ChipSpec.from_text(
        chip(wires={"r_wl_ohm": "2ohm", "r_bl_ohm": 3, "pairs": "separate"}).to_toml(), origin="x"
    )
    assert spec.wires == aimc.WireSpec(r_wl_ohm=2.0, r_bl_ohm=3.0, pairs="separate")


def test_rows_driven_together_need_idle_cells_that_are_simulated():
    with pytest.raises(aimc.InputError, match=r"tile\.idle = 'g_min' alone"):
        chip(**{"tile.drive": "parallel", "wires": OHMS})
    chip(**{"tile.drive": "parallel", "tile.idle": "g_min", "wires": OHMS})


@pytest.mark.parametrize("preset", ["ideal", "reram-wan2022", "pcm-nandakumar2019"])
def test_lines_without_resistance_change_no_bit(preset):
    none = {"r_wl_ohm": 0.0, "r_bl_ohm": 0.0}
    bare, wired = (
        aimc.map_matrix(W, chip(preset, wires=each)).program(5).wait(60.0).mvm(X)
        for each in (None, none)
    )
    assert (bare == wired).all()


@pytest.mark.parametrize("idle", ["off", "g_min"])
@pytest.mark.parametrize("drive", ["left", "both"])
@pytest.mark.parametrize("pairs", ["interleaved", "separate"])
def test_a_matrix_on_a_tile_is_that_of_the_effective_conductances(idle, drive, pairs):
    spec = chip(**{"tile.idle": idle, "wires": {**OHMS, "drive": drive, "pairs": pairs}})
    matrix = aimc.map_matrix(W, spec).program(1)
    idle_s = spec.device.g_min_s if idle == "g_min" else 0.0
    seen = effective_of(matrix, matrix.mapped.target_s, idle_s, **OHMS, drive=drive)
    wanted = X @ weights_of(matrix, seen)
    np.testing.assert_allclose(matrix.mvm(X), wanted, atol=2e-6 * np.abs(wanted).max())
    assert np.abs(wanted - X @ W).max() > 0.01 * np.abs(wanted).max()


def test_separate_pairs_lie_in_two_halves():
    array = aimc.map_matrix(W, chip(wires={**OHMS, "pairs": "separate"})).layout.arrays[0]
    columns = array.element[:, 0, 0, :] % 64
    assert columns[0].tolist() == list(range(20))
    assert columns[1].tolist() == list(range(20, 40))


def test_a_matrix_in_row_parts_is_solved_tile_by_tile():
    spec = chip(size=32, wires=OHMS)
    matrix = aimc.map_matrix(W, spec).program(1)
    assert matrix.mapped.layout.n_tiles == 3
    wanted = X @ weights_of(matrix, effective_of(matrix, matrix.mapped.target_s, **OHMS))
    np.testing.assert_allclose(matrix.mvm(X), wanted, atol=2e-6 * np.abs(wanted).max())


def test_drift_is_solved_anew_and_slow_noise_followed_to_first_order():
    lossy = {**OHMS, "r_wl_ohm": 20.0, "r_bl_ohm": 30.0}
    matrix = aimc.map_matrix(W, chip("pcm-nandakumar2019", wires=lossy)).program(3).wait(3600.0)
    cells = matrix.chip
    base = cells.clipped(cells.aged())[0]
    exact = effective_of(matrix, base, **lossy).ravel()
    np.testing.assert_allclose(cells.wired().effective_s, exact, rtol=2e-6, atol=1e-12)
    noisy = cells.read()
    change = effective_of(matrix, noisy, **lossy).ravel() - exact
    followed = cells.seen(noisy, np.zeros_like(noisy))[0] - exact
    left, ignored = (np.linalg.norm(each - change) for each in (followed, noisy - base))
    assert left < 0.05 * np.linalg.norm(change)
    assert ignored > 3 * left  # noise as large as without wires


def test_within_retol_the_lines_are_those_of_programming_whatever_came_before():
    spec = chip("pcm-nandakumar2019", wires={**OHMS, "retol": 0.5})
    direct = aimc.map_matrix(W, spec).program(3)
    direct.wait(60.0)
    stopped = aimc.map_matrix(W, spec).program(3)
    stopped.mvm(X)
    stopped.wait(30.0).mvm(X)
    stopped.wait(30.0)
    assert (direct.mvm(X, first_read=0) == stopped.mvm(X, first_read=0)).all()
    assert direct.chip.wired() is direct.chip.wired(0, 0)
    exact = effective_of(direct, direct.chip.clipped(direct.chip.aged())[0], **OHMS).ravel()
    near = direct.chip.wired().near(direct.chip.clipped(direct.chip.aged())[0])
    assert 1e-6 < np.linalg.norm(near - exact) / np.linalg.norm(exact) < 5e-3


@pytest.mark.compiled
def test_the_variance_of_reads_through_wires_is_that_of_solving_each():
    # 2,000 reads: the standard error of a standard deviation is 1.6 %, the test at 5 of them
    n_reads = 2000
    spec = chip("reram-wan2022", size=24, wires={"r_wl_ohm": 20.0, "r_bl_ohm": 20.0})
    w = np.random.default_rng(6).uniform(-1, 1, (24, 12))
    matrix = aimc.map_matrix(w, spec).program(2)
    cells = matrix.chip
    _, variance, _ = matrix.weights()
    x = np.random.default_rng(7).choice([-1.0, 1.0], 24)
    base, sigma = cells.clipped(cells.aged())[0], cells.fast_sigma()
    rng = np.random.default_rng(8)
    found = []
    for _ in range(n_reads):
        g = np.maximum(base + sigma * rng.standard_normal(base.size), 0)
        seen = effective_of(matrix, g, r_wl_ohm=20.0, r_bl_ohm=20.0)
        found.append(x @ weights_of(matrix, seen))
    ratio = np.sqrt(x**2 @ variance.astype(float)) / np.std(found, axis=0)
    assert np.abs(ratio - 1).max() < 5 / np.sqrt(2 * n_reads)
    bare = aimc.map_matrix(w, spec.replace(wires=None)).program(2).weights()[1]
    assert (np.sqrt(x**2 @ bare.astype(float)) / np.std(found, axis=0) > 1.05).all()


def test_noise_is_compared_with_the_whole_form_and_the_full_solve():
    g = np.random.default_rng(0).uniform(1e-6, 1e-4, (16, 16))
    network = wires.make_network(g, r_wl_ohm=5.0, r_bl_ohm=5.0)
    x = np.random.default_rng(1).standard_normal((4, 16))
    error = wires.noise_error(network, 0.02 * g, x, n_draws=300)
    assert error.linear < 1.3 * error.floor
    assert error.diagonal < error.used < error.ideal / 3
    with pytest.raises(aimc.UsageError, match="Take a smaller array"):
        wires.noise_error(wires.make_network(np.ones((65, 2)), r_wl_ohm=1, r_bl_ohm=1), g, x)


@pytest.mark.parametrize("compensation", ["global", "column", "affine"])
def test_compensation_sees_the_array_through_its_wires(compensation):
    spec = chip("pcm-nandakumar2019", wires=OHMS, compensation=compensation)
    matrix = aimc.map_matrix(W, spec).program(3).wait(86400.0)
    error = np.linalg.norm(matrix.weights()[0] - W) / np.linalg.norm(W)
    bare = aimc.map_matrix(W, spec.replace(compensation="none")).program(3).wait(86400.0)
    assert error < 0.25 < 0.3 < np.linalg.norm(bare.weights()[0] - W) / np.linalg.norm(W)


def test_the_gain_of_a_lossy_array_is_what_its_terminals_find():
    spec = chip("pcm-nandakumar2019", compensation="global", wires={**OHMS, "r_bl_ohm": 40.0})
    matrix = aimc.map_matrix(W, spec).program(3).wait(86400.0)
    cells = matrix.chip
    before, now = cells.clipped(cells.aged_at(0.0))[0], cells.clipped(cells.aged())[0]
    assert spec.device.g_min_s == 0
    ohms = {**OHMS, "r_bl_ohm": 40.0}
    wanted = effective_of(matrix, now, **ohms).sum() / effective_of(matrix, before, **ohms).sum()
    from aimc_sim.compensation import global_gain

    found = global_gain(cells, [matrix.array.cell_index().ravel()])[0, 0]
    there = before > 0  # cells at 0 count neither before nor now
    assert found == pytest.approx(wanted, rel=0.02)
    assert found > 1.02 * now[there].sum() / before[there].sum()  # less current, less loss


def currents_driven_from_columns(g, v, r_wl_ohm, r_bl_ohm, r_driver_ohm, r_sense_ohm):
    """Return the currents into word lines' grounded ends with v at the bit lines' ends.

    Every node of the array in one dense system (n m word nodes, then n m bit nodes).
    """
    n, m = g.shape
    nodes = np.arange(2 * n * m).reshape(2, n, m)
    y = np.zeros((2 * n * m, 2 * n * m))
    source = np.zeros(2 * n * m)

    def join(a, b, siemens):
        for one, other in ((a, b), (b, a)):
            y[one, one] += siemens
            y[one, other] -= siemens

    for i in range(n):
        for j in range(m):
            join(nodes[0, i, j], nodes[1, i, j], g[i, j])
            if j:
                join(nodes[0, i, j - 1], nodes[0, i, j], 1 / r_wl_ohm)
            if i:
                join(nodes[1, i - 1, j], nodes[1, i, j], 1 / r_bl_ohm)
    ends = nodes[0, :, 0]
    y[ends, ends] += 1 / (r_driver_ohm + r_wl_ohm)
    for j in range(m):
        last = nodes[1, n - 1, j]
        y[last, last] += 1 / (r_sense_ohm + r_bl_ohm)
        source[last] += v[j] / (r_sense_ohm + r_bl_ohm)
    return np.linalg.solve(y, source)[ends] / (r_driver_ohm + r_wl_ohm)


def test_an_array_driven_from_its_columns_is_that_of_the_same_wires():
    w = W[:12, :5]
    matrix = aimc.map_matrix(w, chip(size=12, wires=OHMS)).program(1)
    array = matrix.array
    assert matrix.mapped.layout.n_tiles == 1
    g = np.zeros((12, 12))
    g.flat[array.element] = matrix.mapped.target_s.reshape(array.tile.shape)
    x = X[:, :5]
    volts = np.zeros((6, 12))  # a column's inputs drive both bit lines of its pairs, oppositely
    volts[:, array.element[0, 0, 0] % 12] = x * matrix.mapped.scale[0, 0]
    volts[:, array.element[1, 0, 0] % 12] = -x * matrix.mapped.scale[0, 0]
    wanted = np.array([currents_driven_from_columns(g, v, **OHMS) for v in volts])
    found = matrix.T.mvm(x)
    np.testing.assert_allclose(found, wanted, atol=3e-6 * np.abs(wanted).max())
    assert np.abs(found - x @ w.T).max() > 0.003 * np.abs(wanted).max()


@pytest.mark.parametrize("pairs", ["interleaved", "separate"])
def test_pieces_of_weights_and_faulty_cells_are_seen_through_the_wires_of_their_tile(pairs):
    spec = chip(
        size=96, wires={**OHMS, "pairs": pairs}, levels=4, slices=2, cells_per_weight=2,
        faults={"stuck_low": 0.05, "stuck_high": 0.05, "dead_rows": 0.1, "dead_cols": 0.1},
    )
    matrix = aimc.map_matrix(W, spec).program(3)
    held = matrix.chip.clipped(matrix.chip.programmed_s)[0].astype(float)
    assert (held == 0).any()  # dead lines: no current of their own, and none for others to lose
    seen = effective_of(matrix, held, **OHMS).reshape(4, 2, *W.shape)
    # digits of base 4 on two cells each: 12/15 and 3/15 of the weight
    shares = np.array([12, 12, 3, 3])[:, None, None] / 30
    wanted = (shares * (seen[:, 0] - seen[:, 1])).sum(axis=0) * matrix.mapped.scale[0]
    found = matrix.weights()[0]
    np.testing.assert_allclose(found, wanted, atol=3e-6 * np.abs(wanted).max())
    assert np.abs(found - W).max() > 0.01 * np.abs(W).max()


def test_a_saved_matrix_answers_through_its_wires_bit_for_bit(tmp_path):
    spec = chip("pcm-nandakumar2019", wires={**OHMS, "pairs": "separate"}, compensation="affine")
    matrix = aimc.map_matrix(W, spec, X).program(5).wait(3600.0)
    matrix.save(tmp_path / "a.npz")
    again = aimc.load_matrix(tmp_path / "a.npz")
    assert again.mapped.spec.wires == spec.wires
    for each in (matrix, again):
        each.wait(60.0)
    np.testing.assert_array_equal(again.mvm(X), matrix.mvm(X))
